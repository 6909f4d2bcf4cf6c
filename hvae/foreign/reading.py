"""What is read off a distribution of a user's function: shape, type, support, and parameters that the house knows."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    TransformedDistribution,
    constraints,
)

from hvae import families
from hvae.families import DiagonalGaussian, DiagonalNormal, Family, FullGaussian
from hvae.families.logistic import DiscretisedLogistic, LevelsDistribution
from hvae.foreign.laws import Law, Masked, Pushed, elementwise, innermost


@dataclass(frozen=True)
class OfFamily:
    """A distribution of a family of the house, by the outputs ``[rows, n_outputs]`` that the family reads.

    >>> OfFamily(DiagonalGaussian(2), outputs=torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    """

    family: Family
    outputs: Tensor

    @property
    def shape(self) -> torch.Size:
        """``[rows, D]``."""
        return torch.Size((*self.outputs.shape[:-1], self.family.width))

    @property
    def distribution(self) -> Distribution:
        """What the family makes of the outputs."""
        return self.family.distribution(self.outputs)


AnyLaw = Distribution | OfFamily


def support_of(law: AnyLaw) -> constraints.Constraint | None:
    """Where its values lie; None where that is not known."""
    base = elementwise(law.distribution if isinstance(law, OfFamily) else law)
    try:
        return base.support
    except (NotImplementedError, AttributeError):
        return None


def is_real(base: Distribution) -> bool:
    return innermost(support_of(base)) is constraints.real


def has_mean(base: Distribution) -> bool:
    if isinstance(base, Categorical | Law | Pushed):
        return False
    try:
        return bool(base.mean.isfinite().all())
    except (NotImplementedError, AttributeError, TypeError):
        return False


def measure_of(law: AnyLaw) -> str | None:
    """ "density" or "mass"; None of two functions, which do not tell."""
    if isinstance(law, OfFamily):
        return "density" if law.family.noise == "normal" else "mass"
    base = elementwise(law)
    if isinstance(base, Law):
        return None
    return "mass" if is_discrete(base) else "density"


def is_discrete(base: Distribution) -> bool:
    match base:
        case Masked(distribution=within) | Pushed(base=within):
            return is_discrete(elementwise(within))
    support = support_of(base)
    return isinstance(base, LevelsDistribution) or bool(getattr(support, "is_discrete", False))


def shape_of(law: AnyLaw) -> torch.Size | None:
    """``[rows, *event]``, or ``[*event]`` of a prior; None for two functions, whose draws alone tell it."""
    if isinstance(law, Law):
        return None
    return law.shape if isinstance(law, OfFamily) else torch.Size(law.batch_shape + law.event_shape)


def dtype_of(law: AnyLaw) -> torch.dtype:
    """Of a draw, as torch makes it: that of all floating-point parameters together; whole numbers for an index."""
    base = elementwise(law.distribution if isinstance(law, OfFamily) else law)
    return torch.long if type(base) is Categorical else _promoted(base) or torch.get_default_dtype()


def _promoted(base: Distribution) -> torch.dtype | None:
    found: torch.dtype | None = None
    for value in vars(base).values():
        inner = _promoted(elementwise(value)) if isinstance(value, Distribution) else None
        if isinstance(value, Tensor) and value.is_floating_point():
            inner = value.dtype
        if inner is not None:
            found = inner if found is None else torch.promote_types(found, inner)
    return found


HALF = (torch.float16, torch.bfloat16)


def over_rows(law: Distribution, rows: int, batch: tuple[int, ...]) -> Distribution:
    """The same with a row axis and an axis for each independent element: a prior without rows draws for each row."""
    base, target = elementwise(law), torch.Size([rows, *batch])
    if isinstance(base, Law | Pushed | Masked) or base.batch_shape == target:
        return law
    try:
        expanded: Distribution = base.expand(target)
        return expanded
    except (NotImplementedError, RuntimeError, TypeError, AttributeError):  # a user's own class may not expand
        return law


def given(base: Distribution) -> dict[str, Tensor]:
    """The parameters that a distribution of torch was made of; not those that were worked out from them since."""
    names = [name for name in base.arg_constraints if isinstance(vars(base).get(name), Tensor)]
    for first, others in (
        ("logits", ("probs",)), ("scale_tril", ("covariance_matrix", "precision_matrix")),
    ):  # fmt: skip
        if first in names:
            names = [name for name in names if name not in others]
    if isinstance(base, MultivariateNormal):  # whatever it was made of, this is its root
        return {"loc": base.loc, "scale_tril": base.scale_tril}
    return {name: vars(base)[name] for name in names}


def rebuilt(base: Distribution, tensors: Mapping[str, Tensor]) -> Distribution:
    """A distribution of the same class with other parameters, and with what it has beside tensors."""
    names = inspect.signature(type(base).__init__).parameters
    others = {
        name: vars(base)[stored]
        for name in names
        for stored in (name, f"_{name}")
        if name not in tensors and stored in vars(base) and name not in ("self", "validate_args", "logits", "probs")
        and not isinstance(vars(base)[stored], Tensor)
    }  # fmt: skip
    arguments: dict[str, Any] = {**tensors, **others, "validate_args": False}
    made: Distribution = type(base)(**arguments)
    return made


def wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALF else tensor


def widened(law: AnyLaw) -> AnyLaw:
    """The same with half-precision parameters raised to float32."""
    return law if isinstance(law, OfFamily) else _widened(law)


def _widened(law: Distribution) -> Distribution:
    match law:
        case Independent(base_dist=base, reinterpreted_batch_ndims=n):
            inner = _widened(base)
            return law if inner is base else Independent(inner, n, validate_args=False)
        case Masked(distribution=base, mask=mask, fill=fill):
            inner = _widened(base)
            return law if inner is base else Masked(inner, mask, fill)
        case MixtureSameFamily(mixture_distribution=weights, component_distribution=parts):
            inner = _widened(parts)
            if inner is parts and weights.logits.dtype not in HALF:
                return law
            weights = Categorical(logits=wide(weights.logits), validate_args=False)
            return MixtureSameFamily(weights, inner, validate_args=False)
    if type(law) is TransformedDistribution:
        inner = _widened(law.base_dist)
        return law if inner is law.base_dist else TransformedDistribution(inner, law.transforms, validate_args=False)
    if not type(law).__module__.startswith("torch.distributions"):
        return law
    tensors = given(law)
    if all(tensor.dtype not in HALF for tensor in tensors.values()):
        return law
    return rebuilt(law, {name: wide(tensor) for name, tensor in tensors.items()})


def parameters(law: Distribution) -> tuple[Tensor, ...] | None:
    match elementwise(law):
        case DiagonalNormal() as normal:
            return normal.mean, normal.log_variance.expand_as(normal.mean)
        case Normal() as normal:
            return normal.mean, 2 * wide(normal.stddev).log()
        case MultivariateNormal() | LowRankMultivariateNormal() as full:
            return full.mean, full.scale_tril
        case Bernoulli() as coins:
            return (coins.logits,)
        case OneHotCategorical() as dice:
            return (_logits(dice),)
        case LevelsDistribution() as levels:
            location, log_scale = torch.broadcast_tensors(levels.location, levels.log_scale)
            return location, log_scale
    return None


def _logits(dice: OneHotCategorical) -> Tensor:
    """Of its states; where one is certain, its logarithm is 0: torch rounds a probability of 0 up to 1e-7."""
    inner = dice._categorical
    probs = vars(inner).get("probs")
    if probs is None or inner._param is not probs:  # they were computed from logits
        return inner.logits
    certain = probs.amax(-1, keepdim=True) == 1
    return torch.where(certain, probs.clamp_min(torch.finfo(probs.dtype).tiny).log(), inner.logits)


def layout(family: Family, tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, int, tuple[int, ...]]]:
    """Each parameter, its axes beyond the event, and its shape for one row."""
    d = family.width
    if isinstance(family, FullGaussian):
        return [(tensors[0], 0, (d,)), (tensors[1], 1, (d, d))]
    if isinstance(family, families.Categorical):
        return [(tensors[0], 0, (family.units, family.n_classes))]
    return [(tensor, 0, (d,)) for tensor in tensors]


def build(family: Family, tensors: list[Tensor]) -> Distribution:
    match family:
        case DiagonalGaussian():
            return DiagonalNormal(*tensors)
        case FullGaussian():
            return MultivariateNormal(tensors[0], scale_tril=tensors[1], validate_args=False)
        case DiscretisedLogistic(n_levels=n_levels):
            return LevelsDistribution(tensors[0], tensors[1], n_levels)
        case families.Categorical():
            return family.distribution(tensors[0].flatten(-2))
    return family.distribution(tensors[0])
