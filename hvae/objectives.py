"""Objectives: evidence and step in, loss to minimise out.

A `Bound` aggregates the tempered log-weight of K draws

    f_k = -distortion - Σ_l beta(step) · layer_beta_l · rate_l

and gives minus its mean over data: a *loss*, lower is better. The bound is a bound on log p(x) only
where every weight is 1; `hvae.training` records the untempered bound beside the loss.

Their gradient is pathwise, with the score function for discrete layers. `StickingTheLanding` and
`DoublyReparametrised` are the same losses with another gradient of equal expectation, free of the score of q;
`Covariance` follows no path, whatever the layers.

A `Game` has two players, each with a utility of its own (Flach et al. 2024):

    L_p = E_data E_q(z|x) log p(x, z), which only the decoder's weights raise,
    L_q = E_p(x, z) log q(z|x),        which only the encoder's weights raise, on dreams (x, z) ~ p.

Its loss is -L_p - L_q, whose terms are constants for the other player: one optimiser that works weight by weight
serves both. No gradient passes through a draw, so discrete and Gaussian layers are alike, and K = 1 will do.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from hvae.evidence import HVAE, Evidence
from hvae.gradients import (
    Baseline,
    asleep,
    awake,
    clamped,
    covariance,
    estimate,
    leave_one_out,
    log_mean,
    mean,
    score_as_path,
    stick,
    thermodynamic,
)
from hvae.network import Trace
from hvae.rng import NoiseSpecs
from hvae.schedules import Constant, Schedule
from hvae.shapes import LogProb, Noise, Scalar, Value

ONE = Constant(1.0)
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})
DREAM = "dream of "
"""what a decoder's variable is called in a batch's noise, beside the latents that q draws"""


class Objective(ABC):
    """What a batch costs, nats per datum."""

    def noise_specs(self, model: HVAE) -> NoiseSpecs:
        """The noise that `on` takes."""
        return model.noise_specs()

    @abstractmethod
    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        """The loss of x ``[1, B, D]`` with noise ``[K, B, ·]``, and the evidence z ~ q(z|x) that it rests on."""


class Bound(Objective):
    """Evidence ``[K, B]`` and the step -> the loss."""

    @abstractmethod
    def __call__(self, evidence: Evidence, step: int) -> Scalar: ...

    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        evidence = model(x, noise)
        return self(evidence, step), evidence


class Game(Objective):
    """Evidence of data and of dreams, both of `hvae.gradients.players` -> the loss, each term moved by one player."""

    @abstractmethod
    def __call__(self, evidence: Evidence, dreams: Evidence) -> Scalar: ...

    def noise_specs(self, model: HVAE) -> NoiseSpecs:
        dreams = {DREAM + name: spec for name, spec in model.decoder.noise_specs().items()}
        return {**model.noise_specs(), **dreams}

    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        """As many dreams as draws from q: ``[K, B]``."""
        evidence = awake(model, x, noise)
        dreams = asleep(model, {name: noise[DREAM + name] for name in model.decoder.variables})
        return self(evidence, dreams), evidence


@dataclass(frozen=True)
class Elbo(Bound):
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
class Iwae(Bound):
    """``-mean over data of log mean_k exp f_k`` (Burda et al. 2016, equation 8); K = 1 is the ELBO.

    With discrete layers it is VIMCO, whose paper has the ``baseline`` `hvae.gradients.fill_in`.
    """

    beta: Schedule = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)
    baseline: Baseline = leave_one_out

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = self.tempered(evidence, step)
        return -estimate(f, log_mean, discrete_log_q(evidence), self.baseline).mean()

    def tempered(self, evidence: Evidence, step: int) -> LogProb:
        """f_k, ``[K, B]``."""
        return tempered(evidence, self.beta(step), self.layer_beta)


@dataclass(frozen=True)
class Tvo(Bound):
    """``-mean over data of Σ_d (b_{d+1} - b_d) Σ_k softmax(b_d f)_k f_k``: the thermodynamic variational objective.

    A lower bound on log p(x) between the ELBO and IWAE of as many samples, for any K (Masrani et al. 2019;
    `hvae.gradients.thermodynamic`); ``partition`` holds b_0 = 0 < b_1 < … < 1. Its gradient is that of its own
    expectation for K samples; the paper's is `Covariance`.
    """

    partition: tuple[float, ...]
    beta: Schedule = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)

    def __post_init__(self) -> None:
        ends = (*self.partition[1:], 1.0)
        if self.partition[:1] != (0.0,) or any(a >= b for a, b in zip(self.partition, ends, strict=True)):
            raise ValueError(f"partition is {list(self.partition)}; give 0 and then rising numbers below 1.")

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = tempered(evidence, self.beta(step), self.layer_beta)
        return -estimate(f, thermodynamic(self.partition), discrete_log_q(evidence)).mean()


@dataclass(frozen=True)
class Covariance(Bound):
    """The loss of ``tvo`` with the paper's covariance gradient, which follows no path (`hvae.gradients.covariance`).

    Reads `hvae.gradients.clamped` evidence, as `on` makes it. Raises ValueError for one sample, whose covariance is 0.
    """

    tvo: Tvo

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = tempered(evidence, self.tvo.beta(step), self.tvo.layer_beta)
        if len(f) < 2:
            raise ValueError("the covariance gradient needs at least 2 samples; got 1.")
        return -covariance(f, total(evidence.q), self.tvo.partition).mean()

    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        evidence = clamped(model, x, noise)
        return self(evidence, step), evidence


@dataclass(frozen=True)
class StickingTheLanding(Bound):
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
class DoublyReparametrised(Bound):
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


@dataclass(frozen=True)
class WakeSleep(Game):
    """``-mean log p(x, z) over z ~ q(z|x) - mean log q(z|x) over (x, z) ~ p`` (Hinton et al. 1995).

    Where ``q = p(z|x)`` and p(x) is the data's law it rests. It is no bound: its value says nothing about log p(x).
    """

    def __call__(self, evidence: Evidence, dreams: Evidence) -> Scalar:
        return -total(evidence.p).mean() - total(dreams.q).mean()


@dataclass(frozen=True)
class SymmetricEquilibrium(Game):
    """``-L_p - L_q`` of the two players above, each mean over its batch (Flach et al. 2024).

    Without labels it is `WakeSleep`. Labelled ``pairs`` (x, z) ``[1, N]``, as the `players` weigh them, join both
    batches as N more data. The paper's encoder may share the decoder's conditionals, constants for it; a ladder's does
    so in every game here. The paper lets the players move in turn; here they move at once.
    """

    def __call__(self, evidence: Evidence, dreams: Evidence, pairs: Evidence | None = None) -> Scalar:
        log_p, log_q = total(evidence.p).mean(0), total(dreams.q).mean(0)
        if pairs is not None:
            log_p, log_q = torch.cat([log_p, total(pairs.p)[0]]), torch.cat([log_q, total(pairs.q)[0]])
        return -log_p.mean() - log_q.mean()


@dataclass(frozen=True)
class ReweightedWakeSleep(Game):
    """K draws of q that count by their importance ``s = softmax(log_weight)`` (Bornschein and Bengio 2015):

        ``-Σ_k s_k log p(x, z_k) - (1 - sleep) Σ_k s_k log q(z_k|x) - sleep · mean log q(z|x) over dreams``

    averaged over data. The decoder's gradient is that of the IWAE bound. The first two terms are the wake phases of p
    and q, the last the sleep phase of q. Raises ValueError for one draw, which counts 1: p then learns as in wake-sleep
    and q nothing, as E_q ∇ log q = 0.
    """

    sleep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.sleep <= 1:
            raise ValueError(f"sleep is {self.sleep}; give a share in [0, 1].")

    def __call__(self, evidence: Evidence, dreams: Evidence) -> Scalar:
        log_p, log_q = total(evidence.p), total(evidence.q)
        if len(log_p) < 2:
            raise ValueError("reweighted wake-sleep needs at least 2 samples to weigh; got 1.")
        share = (log_p - log_q).detach().softmax(0)
        wake = (share * (log_p + (1 - self.sleep) * log_q)).sum(0).mean()
        return -wake - self.sleep * total(dreams.q).mean()


def tempered(evidence: Evidence, beta: float, layer_beta: Mapping[str, float]) -> LogProb:
    """``f_k = -distortion - Σ_l beta · layer_beta_l · rate_l``, ``[K, B]``."""
    found = -evidence.distortion
    for name in evidence.latents:
        found = found - beta * layer_beta.get(name, 1.0) * evidence.rate(name)
    return found


def total(trace: Trace) -> LogProb:
    """log-probability of all values of a trace, ``[K, B]``."""
    terms = [site.log_prob for site in trace.values()]
    return sum(terms[1:], start=terms[0])


def discrete_log_q(evidence: Evidence) -> LogProb | None:
    """log q of the draws that no gradient passes through, ``[K, B]``; None where every layer is reparametrised."""
    discrete = {name: site for name, site in evidence.q.items() if not site.family.reparametrised}
    return total(discrete) if discrete else None
