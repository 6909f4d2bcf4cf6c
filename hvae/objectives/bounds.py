"""Bounds: the tempered log-weights of K draws, aggregated.

    f_k = -distortion - Σ_l beta(step) · layer_beta_l · rate_l

The loss is minus the mean of the aggregate over data. It bounds log p(x) only where every weight is 1.

The gradient is pathwise, with the score function for discrete layers. The same losses with other gradients stand in
`hvae.objectives.other_gradients`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from hvae.evidence import HVAE, Evidence
from hvae.gradients import (
    Baseline,
    estimate,
    leave_one_out,
    log_mean,
    mean,
    thermodynamic,
)
from hvae.objectives.objective import Objective, total
from hvae.schedules import Constant, Schedule
from hvae.shapes import LogProb, Noise, Scalar, Value
from hvae.suitability import ObjectiveTraits

ONE = Constant(1.0)
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


def scheduled(beta: Schedule | float) -> Schedule:
    """A number as the schedule that stays there."""
    return Constant(float(beta)) if isinstance(beta, int | float) else beta


class Bound(Objective):
    """Evidence ``[K, B]`` and the step -> the loss.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> class Distortion(Bound):
    ...     def __call__(self, evidence, step):
    ...         return evidence.distortion.mean()
    >>> Distortion()(linear_stack(1.0, "best", seed=0).evidence(5), step=0).shape
    torch.Size([])
    """

    @abstractmethod
    def __call__(self, evidence: Evidence, step: int) -> Scalar: ...

    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        self.admit(model)
        evidence = model(x, noise)
        return self(evidence, step), evidence


@dataclass(frozen=True)
class Elbo(Bound):
    """``-mean over data of mean_k f_k``; a rate below its free nats costs the free nats and has no gradient.

    Such a layer pays ``max(mean rate_l, free_nats_l)``, or unit by unit ``Σ_d max(mean rate_ld, unit_free_nats_l)``, in
    place of the mean rate_l. Means are over the samples and data of the batch (Kingma et al. 2016, appendix C.8, with
    the layer or each unit for a subset). A layer that the mappings leave out has weight 1 and no free nats.

    The gradient is that of the loss with its gates as they stand. Draws of a discrete layer also move the gates, which
    its score function does not see. It is biased where a gate opens for some draws and not for others, so `refuse`
    takes no model with both. Raises ValueError for a layer with both free nats, TypeError where units do not factorise.

    >>> import torch
    >>> from hvae import Elbo
    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = linear_stack(1.0, "best", seed=0).evidence(5)
    >>> torch.allclose(Elbo()(evidence, step=0), -evidence.log_weight.mean())
    True
    """

    beta: Schedule | float = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)
    free_nats: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)
    unit_free_nats: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", scheduled(self.beta))
        for name, free in self.free_nats.items():
            if free > 0 and self.unit_free_nats.get(name, 0.0) > 0:
                raise ValueError(f"{name} has free nats as a layer and for each unit; give one of them.")

    @property
    def traits(self) -> ObjectiveTraits:
        units = frozenset(name for name, free in self.unit_free_nats.items() if free > 0)
        free = bool(units) or any(nats > 0 for nats in self.free_nats.values())
        return ObjectiveTraits("score", "the objective is Elbo", free_nats=free, unit_free_nats=units)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = tempered(evidence, scheduled(self.beta)(step), self.layer_beta, self.beta_power)
        return -estimate(f, mean, discrete_log_q(evidence)).mean()

    def beta_power(self, evidence: Evidence, name: str) -> LogProb:
        """What a layer pays, ``[K, B]``: its rate, or its free nats."""
        if self.unit_free_nats.get(name, 0.0) > 0:
            return at_least(evidence.unit_rate(name), self.unit_free_nats[name]).sum(-1)
        if self.free_nats.get(name, 0.0) > 0:
            return at_least(evidence.rate(name), self.free_nats[name])
        return evidence.rate(name)


@dataclass(frozen=True)
class Iwae(Bound):
    """``-mean over data of log mean_k exp f_k`` (Burda et al. 2016, equation 8); K = 1 is the ELBO.

    With discrete layers it is VIMCO; the paper's ``baseline`` is `hvae.gradients.fill_in`.

    >>> import torch
    >>> from hvae import Iwae
    >>> from hvae.gradients import log_mean
    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = linear_stack(1.0, "best", seed=0).evidence(5)
    >>> torch.allclose(Iwae()(evidence, step=0), -log_mean(evidence.log_weight).mean())
    True
    """

    beta: Schedule | float = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)
    baseline: Baseline = leave_one_out

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", scheduled(self.beta))

    @property
    def traits(self) -> ObjectiveTraits:
        vimco = self.baseline is not leave_one_out
        name = f"the objective is Iwae with the baseline {self.baseline.__name__}" if vimco else "the objective is Iwae"
        return ObjectiveTraits("score", name, for_discrete=vimco, for_relaxed=not vimco)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = tempered(evidence, scheduled(self.beta)(step), self.layer_beta)
        return -estimate(f, log_mean, discrete_log_q(evidence), self.baseline).mean()


@dataclass(frozen=True)
class Tvo(Bound):
    """``-mean over data of Σ_d (b_{d+1} - b_d) Σ_k softmax(b_d f)_k f_k``: the thermodynamic variational objective.

    A lower bound on log p(x) between the ELBO and IWAE of as many samples, for any K (Masrani et al. 2019;
    `hvae.gradients.thermodynamic`). ``partition`` holds b_0 = 0 < b_1 < … < 1. The paper's gradient is in
    `hvae.Covariance`.

    >>> from hvae import Elbo, Iwae, Tvo
    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = linear_stack(1.0, "best", seed=0).evidence(5)
    >>> Elbo()(evidence, step=0) > Tvo((0.0, 0.5))(evidence, step=0) > Iwae()(evidence, step=0)
    tensor(True)
    """

    partition: tuple[float, ...]
    beta: Schedule | float = ONE
    layer_beta: Mapping[str, float] = field(default_factory=lambda: NO_WEIGHTS)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", scheduled(self.beta))
        ends = (*self.partition[1:], 1.0)
        if self.partition[:1] != (0.0,) or any(a >= b for a, b in zip(self.partition, ends, strict=True)):
            raise ValueError(f"partition is {list(self.partition)}; give 0 and then rising numbers below 1.")

    @property
    def traits(self) -> ObjectiveTraits:
        return ObjectiveTraits("score", "the objective is Tvo", for_relaxed=False)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = tempered(evidence, scheduled(self.beta)(step), self.layer_beta)
        return -estimate(f, thermodynamic(self.partition), discrete_log_q(evidence)).mean()


def tempered(
    evidence: Evidence,
    beta: float,
    layer_beta: Mapping[str, float],
    beta_power: Callable[[Evidence, str], LogProb] = Evidence.rate,
) -> LogProb:
    """``f_k = -distortion - Σ_l beta · layer_beta_l · rate_l``, ``[K, B]``; ``beta_power`` may stand for the rate."""
    found = -evidence.distortion
    for name in evidence.latents:
        found = found - beta * layer_beta.get(name, 1.0) * beta_power(evidence, name)
    return found


def at_least(rate: Tensor, free: float) -> Tensor:
    """``rate [K, B, ...]`` where its mean over samples and data exceeds ``free``; elsewhere ``free``, a constant."""
    return torch.where(rate.mean((0, 1)) > free, rate, free)


def discrete_log_q(evidence: Evidence) -> LogProb | None:
    """log q of the draws that no gradient passes through, ``[K, B]``; None where every layer is reparametrised."""
    discrete = {name: site for name, site in evidence.q.items() if not site.family.reparametrised}
    return total(discrete) if discrete else None
