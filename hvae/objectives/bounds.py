"""Bounds: the tempered log-weights of K draws, aggregated.

    f_k = -distortion - Σ_l beta(step) · layer_beta_l · rate_l

The loss is minus the mean of the aggregate over data. It bounds log p(x) only where every weight is 1.

The gradient is pathwise, with the score function for discrete layers. `StickingTheLanding` and
`DoublyReparametrised` are the same losses with another gradient of equal expectation. `Covariance` follows no path.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from hvae.evidence import HVAE, Evidence
from hvae.gradients import (
    Baseline,
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
from hvae.objectives.objective import Objective, total
from hvae.schedules import Constant, Schedule
from hvae.shapes import LogProb, Noise, Scalar, Value
from hvae.suitability import Follows, ObjectiveTraits, UnsuitedError

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
    `hvae.gradients.thermodynamic`). ``partition`` holds b_0 = 0 < b_1 < … < 1. The paper's gradient is `Covariance`.

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


@dataclass(frozen=True)
class Covariance(Bound):
    """The loss of ``tvo`` with the paper's covariance gradient, which follows no path (`hvae.gradients.covariance`).

    Reads `hvae.gradients.clamped` evidence, as `on` makes it. Raises ValueError for one sample (covariance 0).

    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence, tvo = linear_stack(1.0, "best", seed=0).evidence(5), Tvo((0.0, 0.5))
    >>> torch.allclose(Covariance(tvo)(evidence, step=0), tvo(evidence, step=0))
    True
    """

    tvo: Tvo

    def __post_init__(self) -> None:
        _check_kind(self, self.tvo, Tvo, "use it around Tvo.")

    @property
    def traits(self) -> ObjectiveTraits:
        return _other_gradient("covariance", self)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        f = tempered(evidence, scheduled(self.tvo.beta)(step), self.tvo.layer_beta)
        if len(f) < 2:
            raise ValueError("the covariance gradient needs at least 2 samples; got 1.")
        return -covariance(f, total(evidence.q), self.tvo.partition).mean()

    def on(self, model: HVAE, x: Value, noise: Mapping[str, Noise], step: int) -> tuple[Scalar, Evidence]:
        self.admit(model)
        evidence = clamped(model, x, noise)
        return self(evidence, step), evidence


@dataclass(frozen=True)
class StickingTheLanding(Bound):
    """The loss of ``elbo`` without the score of q in its gradient (Roeder et al. 2017; `hvae.gradients.stick`).

    Unbiased at any depth, order, K and beta per layer, also with some discrete layers, or with batch norm.
    Raises ValueError for free nats, as their gate depends on the draws, and where no layer is Gaussian.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0, widths=(6, 1))  # q is the exact posterior: no draw moves it
    >>> loss = StickingTheLanding(Elbo())(stack.evidence(5), step=0)
    >>> gradients = torch.autograd.grad(loss, list(stack.model.posterior.parameters()))
    >>> all(bool((gradient.abs() < 1e-9).all()) for gradient in gradients)
    True
    """

    elbo: Elbo

    def __post_init__(self) -> None:
        _check_kind(self, self.elbo, Elbo, "it is biased for other bounds; use DoublyReparametrised for Iwae.")
        for knob, free in (("free_nats", self.elbo.free_nats), ("unit_free_nats", self.elbo.unit_free_nats)):
            if any(nats > 0 for nats in free.values()):
                raise ValueError(
                    f"{knob} is {dict(free)}; their gate depends on the draws, which makes sticking the landing "
                    "biased: set them to 0 or take the pathwise gradient."
                )

    @property
    def traits(self) -> ObjectiveTraits:
        return _other_gradient("score and path", self)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        return self.elbo(stick(evidence), step)


@dataclass(frozen=True)
class DoublyReparametrised(Bound):
    """The loss of ``iwae`` with the score of q as a path (Tucker et al. 2019; `hvae.gradients.score_as_path`).

    With w_k = exp f_k / Σ exp f, p's weights follow ``Σ_k w_k ∇f_k`` and the paths through the draws
    ``Σ_k (w_k - beta w_k (1 - w_k)) ∂f_k/∂z_k``, at beta 1 the paper's ``w_k²``. Sticking the landing alone, without
    the second term, is biased for K >= 2; so is this with batch norm. Raises ValueError for discrete layers, and for
    a layer_beta that differs between layers, as one draw's path would need a factor for each.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> evidence = linear_stack(1.0, "best", seed=0).evidence(5)
    >>> torch.allclose(DoublyReparametrised(Iwae())(evidence, step=0), Iwae()(evidence, step=0))
    True
    """

    iwae: Iwae

    def __post_init__(self) -> None:
        _check_kind(self, self.iwae, Iwae, "use StickingTheLanding for Elbo.")

    @property
    def traits(self) -> ObjectiveTraits:
        return replace(_other_gradient("path", self), for_discrete=self.iwae.traits.for_discrete)

    def __call__(self, evidence: Evidence, step: int) -> Scalar:
        for name, site in evidence.q.items():
            if not site.family.reparametrised:
                raise ValueError(f"{name} is discrete, so no path can take the place of its score; use Iwae itself.")
        factors = {name: self.iwae.layer_beta.get(name, 1.0) for name in evidence.latents}
        if len(set(factors.values())) > 1:
            raise ValueError(f"layer_beta is {factors}; give one factor for all layers, or take Iwae itself.")
        beta = scheduled(self.iwae.beta)(step)
        score = score_as_path(tempered(evidence.frozen, beta, self.iwae.layer_beta))
        return self.iwae(stick(evidence), step) + beta * factors[evidence.latents[0]] * score.mean()


def _check_kind(gradient: Bound, loss: object, made_for: type[Bound], remedy: str) -> None:
    """Refuse another loss, which Python would take: the gradient of one bound is a biased gradient of another."""
    if not isinstance(loss, made_for):
        raise UnsuitedError(
            f"the gradient of {type(gradient).__name__} is not made for {type(loss).__name__} but for "
            f"{made_for.__name__}; {remedy}"
        )


def _other_gradient(follows: Follows, bound: Bound) -> ObjectiveTraits:
    kind = type(bound).__name__
    return ObjectiveTraits(follows, f"the objective is {kind}", f"the gradient is that of {kind}", for_relaxed=False)


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
