"""Objectives: evidence and step in, loss to minimise out.

Both objectives aggregate the tempered log-weight of K draws

    f_k = -distortion - Σ_l beta(step) · layer_beta_l · rate_l

and give minus its mean over data: a *loss*, lower is better. The bound is a bound on log p(x) only
where every weight is 1; `hvae.training` records the untempered bound beside the loss.

Their gradient is pathwise, with the score function for discrete layers. `StickingTheLanding` and
`DoublyReparametrised` are the same losses with another gradient of equal expectation, free of the score of q.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from hvae.evidence import Evidence
from hvae.gradients import estimate, log_mean, mean, score_as_path, stick
from hvae.schedules import Constant, Schedule
from hvae.shapes import LogProb, Scalar

ONE = Constant(1.0)
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


class Objective(ABC):
    """Evidence ``[K, B]`` and the step -> the loss, nats per datum."""

    @abstractmethod
    def __call__(self, evidence: Evidence, step: int) -> Scalar: ...


@dataclass(frozen=True)
class Elbo(Objective):
    """``-mean over data of (-distortion - Σ_l w_l max(rate_l, free_nats_l))``, rates averaged over the batch.

    ``w_l = beta(step) · layer_beta_l``. A layer whose mean rate lies below its free nats pays their
    price and feels no gradient (Kingma et al. 2016, appendix C.8). A layer that the mappings leave
    out has weight 1 and no free nats.
    """

    beta: Schedule = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)
    free_nats: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        tempered = -evidence.distortion
        paid = torch.zeros_like(tempered[0, 0])
        for name in evidence.latents:
            weight = self.beta(step) * self.layer_beta.get(name, 1.0)
            rate, free = weight * evidence.rate(name), weight * self.free_nats.get(name, 0.0)
            if free > 0:
                above = (rate.mean() > free).detach().to(rate.dtype)
                rate, paid = above * rate, paid + (1 - above) * free
            tempered = tempered - rate
        return paid - estimate(tempered, mean, discrete_log_q(evidence)).mean()


@dataclass(frozen=True)
class Iwae(Objective):
    """``-mean over data of log mean_k exp f_k`` (Burda et al. 2016, equation 8); K = 1 is the ELBO."""

    beta: Schedule = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        return -estimate(self.tempered(evidence, step), log_mean, discrete_log_q(evidence)).mean()

    def tempered(self, evidence: Evidence, step: int) -> LogProb:
        """f_k, ``[K, B]``."""
        tempered = -evidence.distortion
        for name in evidence.latents:
            tempered = tempered - self.beta(step) * self.layer_beta.get(name, 1.0) * evidence.rate(name)
        return tempered


@dataclass(frozen=True)
class StickingTheLanding(Objective):
    """The loss of ``elbo`` without the score of q in its gradient (Roeder et al. 2017; `hvae.gradients.stick`).

    Unbiased at any depth, order, K and beta per layer, also beside discrete layers and with batch norm.
    Raises ValueError for free nats, whose gate depends on the draws, and where no layer is Gaussian.
    """

    elbo: Elbo

    def __post_init__(self) -> None:
        if any(free > 0 for free in self.elbo.free_nats.values()):
            raise ValueError(
                f"free_nats is {dict(self.elbo.free_nats)}; their gate depends on the draws, which makes sticking the "
                "landing biased: set them to 0 or take the pathwise gradient."
            )

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        return self.elbo(stick(evidence), step)


@dataclass(frozen=True)
class DoublyReparametrised(Objective):
    """The loss of ``iwae`` with the score of q as a path (Tucker et al. 2019; `hvae.gradients.score_as_path`).

    With w_k = exp f_k / Σ exp f, p's weights follow ``Σ_k w_k ∇f_k`` and the paths through the draws
    ``Σ_k (w_k - beta w_k (1 - w_k)) ∂f_k/∂z_k``, at beta 1 the paper's ``w_k²``. Sticking the landing alone, without
    the second term, is biased for K >= 2; so is this with batch norm. Raises ValueError for discrete layers, and for
    a layer_beta that differs between layers, as one draw's path would need a factor for each.
    """

    iwae: Iwae

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        for name, site in evidence.q.items():
            if not site.family.reparametrised:
                raise ValueError(f"{name} is discrete, so no path can take the place of its score; use Iwae itself.")
        factors = {name: self.iwae.layer_beta.get(name, 1.0) for name in evidence.latents}
        if len(set(factors.values())) > 1:
            raise ValueError(f"layer_beta is {factors}; give one factor for all layers, or take Iwae itself.")
        beta = self.iwae.beta(step) * factors[evidence.latents[0]]
        score = score_as_path(self.iwae.tempered(evidence.frozen, step))
        return self.iwae(stick(evidence), step) + beta * score.mean()


def discrete_log_q(evidence: Evidence) -> LogProb | None:
    """log q of the draws that no gradient passes through, ``[K, B]``; None where every layer is reparametrised."""
    terms = [site.log_prob for site in evidence.q.values() if not site.family.reparametrised]
    return sum(terms[1:], start=terms[0]) if terms else None
