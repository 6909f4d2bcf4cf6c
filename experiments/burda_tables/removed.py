"""A family without some of its units."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from hvae.families.family import Family
from hvae.families.general import GeneralFamily
from hvae.shapes import Noise, Outputs, UnitLogProb, Value


class Removed(GeneralFamily):
    """``family`` with the units ``removed [D]`` fixed at ``constant [D]``; their log-probability is 0.

    The other units keep the distribution that the net gives, so a chain of such conditionals is normalised: p and q
    without the same units are a model, and its log-weights bound its own log p(x). Raises ValueError for a distribution
    that does not factorise over units, and for categorical units.

    >>> from hvae.families import DiagonalGaussian
    >>> family = Removed(DiagonalGaussian(2), torch.tensor([True, False]), torch.tensor([7.0, 0.0]))
    >>> family.draw(family.distribution(torch.zeros(4)), torch.ones(2)).tolist()
    [7.0, 1.0]
    """

    factorised = True
    removed: Tensor
    constant: Tensor

    def __init__(self, family: Family, removed: Tensor, constant: Tensor) -> None:
        super().__init__()
        if not family.factorised or family.width != family.units:
            raise ValueError(
                f"a unit of {type(family).__name__} cannot be removed by itself; use a distribution that factorises "
                "over units of one number each."
            )
        self.family = family
        self.units = self.width = family.units
        self.n_outputs, self.noise, self.reparametrised = family.n_outputs, family.noise, family.reparametrised
        self.register_buffer("removed", removed)
        self.register_buffer("constant", constant)

    @property
    def kin(self) -> Family:
        return self.family.kin

    def distribution(self, outputs: Outputs) -> Distribution:
        return self.family.distribution(outputs)

    def standard_outputs(self) -> Tensor:
        return self.family.standard_outputs()

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        return torch.where(self.removed, self.constant, self.family.draw(distribution, noise))

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        return self.family.unit_log_prob(distribution, value).masked_fill(self.removed, 0.0)

    def mean(self, distribution: Distribution) -> Value:
        return torch.where(self.removed, self.constant, self.family.mean(distribution))
