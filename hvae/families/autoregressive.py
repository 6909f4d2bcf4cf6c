"""Autoregressive families: every unit's distribution sees the parent and the units before it.

    q(v | parent) = prod_i  f(v_i | v_<i, parent),

with f of a factorised family: Bernoulli, categorical or Gaussian. A unit sees those before it through a masked net
(Germain et al. 2015, MADE; with direct connections, its section 4.2). The masked net's biases are the outputs of the
parent's net:

    outputs = [o, c],    parameters of f = o + A v + V tanh(c + U v),

A, U and V masked so that no parameter of unit i sees v_i or a later unit. A and V start at 0, so the distribution
starts as the factorised one. With enough hidden units it approximates any distribution of Bernoulli units given any
parent.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from hvae.families.family import Family
from hvae.families.general import DistributionOfOutputs, GeneralFamily, averaged, fixed_noise, with_its_weights
from hvae.shapes import LogProb, Noise, Outputs, Value


class AutoregressiveDistribution(DistributionOfOutputs):
    """The distribution of `Autoregressive`."""


class Autoregressive(GeneralFamily):
    """Units of the factorised family ``unit``, each given those before it, through ``n_hidden`` masked hidden units.

    Scoring takes one pass of the masked net and drawing D of them. `noise_of` is one pass too, where ``unit`` has it.
    Reparametrised if ``unit`` is. Raises ValueError for a unit family that does not factorise, and for a negative
    ``n_hidden``.

    >>> import torch
    >>> from hvae import Autoregressive
    >>> from hvae.families import Bernoulli
    >>> family = Autoregressive(Bernoulli(3), n_hidden=4, source=torch.Generator().manual_seed(0))
    >>> log_prob = family.log_prob(family.distribution(torch.zeros(5, 7)), torch.ones(5, 3))
    >>> log_prob.shape, round(log_prob[0].item(), 4)  # at first 3 log 1/2
    (torch.Size([5]), -2.0794)
    """

    connect: Tensor
    into: Tensor
    out_of: Tensor
    mean_noise: Tensor

    def __init__(self, unit: Family, n_hidden: int, *, source: torch.Generator) -> None:
        super().__init__()
        if not unit.factorised:
            raise ValueError(f"{type(unit).__name__} does not factorise; an autoregressive layer is made of units.")
        if n_hidden < 0:
            raise ValueError(f"n_hidden is {n_hidden}; give 0 (direct connections alone) or more.")
        self.unit = unit
        self.units, self.width = unit.units, unit.width
        self.noise, self.reparametrised = unit.noise, unit.reparametrised
        self.n_outputs = unit.n_outputs + n_hidden
        numbers = torch.arange(self.units)
        value = numbers.repeat_interleave(self.width // self.units)
        if self.width == self.units:  # [means, log-variances]
            parameter = numbers.repeat(unit.n_outputs // self.units)
        else:  # each unit's classes side by side
            parameter = value
        last_seen = torch.arange(n_hidden) % max(self.units - 1, 1)  # hidden unit h sees the units up to this one
        self.register_buffer("connect", (value < parameter.unsqueeze(-1)).float(), persistent=False)
        self.register_buffer("into", (value <= last_seen.unsqueeze(-1)).float(), persistent=False)
        self.register_buffer("out_of", (last_seen < parameter.unsqueeze(-1)).float(), persistent=False)
        self.register_buffer("mean_noise", fixed_noise(unit.noise, unit.noise_width), persistent=False)
        self.direct = nn.Parameter(torch.zeros_like(self.connect))
        self.inward = nn.Parameter(torch.empty_like(self.into).normal_(generator=source) / self.width**0.5)
        self.outward = nn.Parameter(torch.zeros_like(self.out_of))

    @property
    def noise_width(self) -> int:
        return self.unit.noise_width

    @property
    def kin(self) -> Family:
        return self.unit

    def distribution(self, outputs: Outputs) -> Distribution:
        return AutoregressiveDistribution(outputs, self)

    def standard_outputs(self) -> Tensor:
        return torch.cat([self.unit.standard_outputs(), torch.zeros(self.n_outputs - self.unit.n_outputs)])

    @with_its_weights
    def given_before(self, distribution: DistributionOfOutputs, value: Value) -> Distribution:
        """The distribution, of family ``unit``, of each unit given the parent and the earlier units of ``value``."""
        return self._given_before(distribution, value)

    @with_its_weights
    def draw(self, distribution: DistributionOfOutputs, noise: Noise) -> Value:
        return self._draw(distribution, noise)

    @with_its_weights
    def noise_of(self, distribution: DistributionOfOutputs, value: Value) -> Noise:
        return self.unit.noise_of(self._given_before(distribution, value), value)

    @with_its_weights
    def log_prob(self, distribution: DistributionOfOutputs, value: Value) -> LogProb:
        """``sum_i log f(v_i | v_<i, parent)``."""
        return self.unit.log_prob(self._given_before(distribution, value), value)

    @with_its_weights
    @torch.no_grad()
    def mean(self, distribution: DistributionOfOutputs) -> Value:
        """Estimated: the conditional means, averaged over `N_MEAN_DRAWS` fixed draws; it carries no gradient.

        Exact for the first unit, and for all units of a Gaussian whose dependence is linear.
        """

        def given_one_draw(noise: Noise) -> Value:
            return self.unit.mean(self._given_before(distribution, self._draw(distribution, noise)))

        return averaged(self.mean_noise, distribution.outputs.dim() - 1, given_one_draw)

    def _given_before(self, distribution: DistributionOfOutputs, value: Value) -> Distribution:
        offset, bias = distribution.outputs.split([self.unit.n_outputs, self.n_outputs - self.unit.n_outputs], dim=-1)
        hidden = torch.tanh(bias + F.linear(value, self.inward * self.into))
        linear = F.linear(value, self.direct * self.connect)
        return self.unit.distribution(offset + linear + F.linear(hidden, self.outward * self.out_of))

    def _draw(self, distribution: DistributionOfOutputs, noise: Noise) -> Value:
        """Unit by unit: after pass i the first i units have their values, as they see only earlier ones."""
        batch = torch.broadcast_shapes(distribution.outputs.shape[:-1], noise.shape[:-1])
        value = distribution.outputs.new_zeros(*batch, self.width)
        for _ in range(self.units):
            value = self.unit.draw(self._given_before(distribution, value), noise)
        return value
