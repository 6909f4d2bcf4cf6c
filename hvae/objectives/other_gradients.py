"""Losses of bounds (`hvae.objectives.bounds`) with other gradients.

`StickingTheLanding` and `DoublyReparametrised` have one of equal expectation. `Covariance` follows no path.
Each is made for one loss, and refuses every other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hvae.evidence import HVAE, Evidence
from hvae.gradients import clamped, covariance, score_as_path, stick
from hvae.objectives.bounds import Bound, Elbo, Iwae, Tvo, scheduled, tempered
from hvae.objectives.objective import total
from hvae.shapes import Noise, Scalar, Value
from hvae.suitability import Follows, ObjectiveTraits, UnsuitedError


@dataclass(frozen=True)
class Covariance(Bound):
    """The loss of ``tvo`` with the paper's covariance gradient, which follows no path (`hvae.gradients.covariance`).

    Reads `hvae.gradients.clamped` evidence, as `on` makes it. Raises ValueError for one sample (covariance 0).

    >>> import torch
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

    >>> from hvae import Elbo, StickingTheLanding
    >>> import torch
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

    >>> from hvae import DoublyReparametrised, Iwae
    >>> import torch
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
