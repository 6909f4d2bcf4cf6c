"""Objectives: evidence and step in, loss to minimise out.

Both objectives aggregate the tempered log-weight of K draws

    f_k = -distortion - Σ_l beta(step) · layer_beta_l · rate_l

and give minus its mean over data: a *loss*, lower is better. The bound is a bound on log p(x) only
where every weight is 1; `hvae.training` records the untempered bound beside the loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from hvae.evidence import Evidence
from hvae.gradients import estimate, log_mean, mean
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
        tempered = -evidence.distortion
        for name in evidence.latents:
            tempered = tempered - self.beta(step) * self.layer_beta.get(name, 1.0) * evidence.rate(name)
        return -estimate(tempered, log_mean, discrete_log_q(evidence)).mean()


def discrete_log_q(evidence: Evidence) -> LogProb | None:
    """log q of the draws that no gradient passes through, ``[K, B]``; None where every layer is reparametrised."""
    terms = [site.log_prob for site in evidence.q.values() if not site.family.reparametrised]
    return sum(terms[1:], start=terms[0]) if terms else None
