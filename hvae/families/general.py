"""What families outside the exponential ones have in common: what they refuse, and means found by draws."""

from typing import NoReturn

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from hvae.families.family import Family
from hvae.rng import NoiseKind
from hvae.shapes import Noise, Outputs, UnitLogProb, Value

N_MEAN_DRAWS = 64
"""draws behind a mean that has no closed form"""


class LawOfOutputs(Distribution):
    """A law over ``[width]`` that is told by its net's outputs, and read by its family alone."""

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, outputs: Outputs, width: int) -> None:
        self.outputs = outputs
        super().__init__(outputs.shape[:-1], torch.Size([width]), validate_args=False)


class GeneralFamily(Family):
    """A family that is no exponential family: it scores and draws, and has no natural parameters to score by.

    So it has no `product`, which a ladder merges by, and no `match`; both raise TypeError with the reason.
    """

    factorised = False

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        raise TypeError(f"{self._called} has no terms per unit; read the layer as a whole.")

    def statistic(self, value: Value) -> Tensor:
        self._refuse("sufficient statistic")

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        self._refuse("natural parameters")

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        self._refuse("product of two laws")

    def match(self, law: Distribution) -> Distribution:
        self._refuse("one law nearest to a mixture")

    @property
    def _called(self) -> str:
        return f"a law of {type(self).__name__}"

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(f"{self._called} is of no exponential family and has no {what}; use its log_prob and draws.")


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
