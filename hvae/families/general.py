"""Common parts of families that are not exponential: their refusals, and means estimated by draws."""

from collections.abc import Callable, Mapping
from functools import wraps
from itertools import chain
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.func import functional_call

from hvae.families.family import Family
from hvae.rng import NoiseKind
from hvae.shapes import Noise, Outputs, UnitLogProb, Value

N_MEAN_DRAWS = 16
"""draws behind a mean that has no closed form"""
N_AT_ONCE = 8

F = TypeVar("F", bound="GeneralFamily")
P = ParamSpec("P")
T = TypeVar("T")


class DistributionOfOutputs(Distribution):
    """A distribution over ``[width]``, as its net's outputs and its family's weights at that time.

    It keeps the weights because it is scored after the call that exchanged them is over (`torch.func.functional_call`,
    in training and in `Evidence.frozen`).
    """

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, outputs: Outputs, family: Family) -> None:
        self.outputs = outputs
        self.weights: Mapping[str, Tensor] = dict(chain(family.named_parameters(), family.named_buffers()))
        super().__init__(outputs.shape[:-1], torch.Size([family.width]), validate_args=False)


class GeneralFamily(Family):
    """A family that is not exponential: it scores and draws, and has no natural parameters.

    So it has no `product`, which a ladder needs, and no `match`; both raise TypeError with the reason.

    >>> from hvae.families import MixtureGaussian
    >>> family = MixtureGaussian(1, n_components=2)
    >>> family.exponential, family.kin
    (False, DiagonalGaussian())
    """

    factorised = False
    exponential = False

    def forward(self, method: Callable[..., T], *arguments: Any) -> T:
        """``method`` of this family, as `with_its_weights` calls it."""
        return method(self, *arguments)

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        raise TypeError(f"{self._called} has no terms per unit; read the layer as a whole.")

    def standard(self, like: Tensor) -> Distribution:
        return self.kin.standard(like)

    def statistic(self, value: Value) -> Tensor:
        self._refuse("sufficient statistic")

    def natural(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        self._refuse("natural parameters")

    def product(self, distribution: Distribution, other: Distribution) -> Distribution:
        self._refuse("product of two distributions")

    def match(self, distribution: Distribution, weight: Tensor | None = None) -> Distribution:
        self._refuse("one distribution nearest to a mixture")

    @property
    def _called(self) -> str:
        return f"a distribution of {type(self).__name__}"

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(f"{self._called} is of no exponential family and has no {what}; use its log_prob and draws.")


def with_its_weights(
    method: Callable[Concatenate[F, DistributionOfOutputs, P], T],
) -> Callable[Concatenate[F, Distribution, P], T]:
    """A method of a family, run with the weights that the distribution keeps, not those of the family now."""

    @wraps(method)
    def run(family: F, distribution: Distribution, /, *arguments: P.args, **named: P.kwargs) -> T:
        assert isinstance(distribution, DistributionOfOutputs)
        answer: T = functional_call(family, dict(distribution.weights), (method, distribution, *arguments), named)
        return answer

    return run


def fixed_noise(kind: NoiseKind, width: int) -> Noise:
    """`N_MEAN_DRAWS` points of noise, always the same: half a scrambled Sobol set, half its mirror image.

    With the mirror a mean over draws that are affine in the noise has no error at all.
    """
    points = torch.quasirandom.SobolEngine(width, scramble=True, seed=0).draw(N_MEAN_DRAWS // 2, dtype=torch.float64)
    points = torch.cat([points, 1 - points])
    if kind == "normal":
        tiny = torch.finfo(torch.float64).eps
        points = torch.special.ndtri(points.clamp(tiny, 1 - tiny))
    return points.to(torch.get_default_dtype())


def averaged(points: Noise, n_axes: int, of: Callable[[Noise], Tensor]) -> Tensor:
    """The mean of ``of(noise)`` over the ``points [N, width]``, some at a time on an axis before ``n_axes`` others."""
    parts = [of(some.unflatten(0, (-1, *(1,) * n_axes))).mean(0) for some in points.split(N_AT_ONCE)]
    return torch.stack(parts).mean(0)
