"""Counts 0, 1, 2, …: Poisson and negative binomial units, by the logarithm of their mean.

They factorise, score and draw, and are meant for x. Their base measure ``1 / v!`` depends on the value, so they have no
natural parameters here. Logarithms of probabilities are taken in float64: at a count of 10⁶ the terms of one are 10⁷
nats large, and float32 would keep none of its decimals.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from hvae.families.gaussian import VarianceKind
from hvae.families.general import GeneralFamily
from hvae.families.quantiles import gamma_quantile, inner, poisson_quantile
from hvae.rng import NoiseKind
from hvae.shapes import Noise, Outputs, UnitLogProb, Value

LOG_LIMIT = 20.0
"""a log-mean stays below it, so means below 4.9e8, and a log-dispersion within ±20"""
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
STIRLING_FROM = 10.0
"""where what the series leaves is below 1e-13"""


class _CountDistribution(Distribution):
    """Independent counts of means ``exp(log_mean)``."""

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, log_mean: Tensor, *others: Tensor) -> None:
        self.log_mean = log_mean
        shape = torch.broadcast_shapes(log_mean.shape, *(other.shape for other in others))
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp().expand(self._extended_shape())

    def unit_log_prob(self, value: Value) -> UnitLogProb:
        raise NotImplementedError

    def log_prob(self, value: Value) -> Tensor:
        return self.unit_log_prob(value).sum(-1)


class PoissonDistribution(_CountDistribution):
    """``P(v) = m^v exp(-m) / v!``.

    >>> round(PoissonDistribution(torch.zeros(1)).log_prob(torch.tensor([2.0])).item(), 4)  # -1 - log 2
    -1.6931
    """

    def unit_log_prob(self, value: Value) -> UnitLogProb:
        """``v log m - m - log v!``."""
        log_mean, v = self.log_mean.double(), value.double()
        return (v * log_mean - log_mean.exp() - torch.lgamma(v + 1)).to(self.log_mean.dtype)


class NegativeBinomialDistribution(_CountDistribution):
    """``P(v) = Γ(v + r) / (Γ(r) v!) (r / (r + m))^r (m / (r + m))^v``: mean m, variance ``m + m²/r``.

    It is a Poisson count whose rate is gamma distributed with shape r and mean m; Poisson for r -> inf.

    >>> one = NegativeBinomialDistribution(torch.zeros(1), torch.zeros(1))  # r = 1: geometric, of probability 1/2
    >>> round(one.log_prob(torch.tensor([2.0])).exp().item(), 4)
    0.125
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor) -> None:
        self.log_dispersion = log_dispersion
        super().__init__(log_mean, log_dispersion)

    def unit_log_prob(self, value: Value) -> UnitLogProb:
        """In a form that tends to that of Poisson: for large r, ``log Γ(v + r) - log Γ(r)`` by Stirling's series.

            (v + r)(log(1 + v/r) - log(1 + m/r)) - log(1 + v/r) / 2 - v + δ(v + r) - δ(r) + v log m - log v!

        with δ what Stirling's formula leaves (Abramowitz and Stegun 1964, equation 6.1.41); by log Γ for small r.
        """
        log_m, log_r, v = self.log_mean.double(), self.log_dispersion.double(), value.double()
        r = log_r.exp()
        spread = nn.functional.softplus(log_m - log_r, threshold=40.0)  # log(1 + m/r)
        relative = torch.log1p(v / r)
        by_series = (v + r) * relative - relative / 2 - v + _stirling(v + r) - _stirling(r)
        by_gamma = torch.lgamma(v + r) - torch.lgamma(r) - v * log_r
        rising = torch.where(r > STIRLING_FROM, by_series, by_gamma)  # log Γ(v + r) - log Γ(r) - v log r
        found = rising - (v + r) * spread + v * log_m - torch.lgamma(v + 1)
        found = torch.where(v < 0, -math.inf, found)
        return found.to(self.log_mean.dtype)

    def disperses_like(self, other: "NegativeBinomialDistribution") -> bool:
        """Whether both have the same r for every value, as where r is learned; then their KL is closed."""
        mine, its = self.log_dispersion, other.log_dispersion
        return mine is its or torch.equal(mine, its)


def _stirling(y: Tensor) -> Tensor:
    """``log Γ(y) - (y - 1/2) log y + y - log(2π)/2`` for ``y >= STIRLING_FROM``."""
    inverse = 1 / y.clamp(min=STIRLING_FROM)
    total = torch.zeros_like(inverse)
    for coefficient in reversed(STIRLING):
        total = total * inverse.square() + coefficient
    return total * inverse


class _CountFamily(GeneralFamily):
    """What the two families share."""

    noise: NoiseKind = "uniform"
    factorised = True
    reparametrised = False

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        self._refuse("standard distribution")

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        return _counts(distribution).unit_log_prob(value)

    def mean(self, distribution: Distribution) -> Value:
        return distribution.mean


class Poisson(_CountFamily):
    """Independent Poisson counts with ``outputs = log mean``, held below `LOG_LIMIT`.

    >>> import torch
    >>> from hvae import Poisson
    >>> family = Poisson(2)
    >>> distribution = family.distribution(torch.tensor([0.0, 14.0]))
    >>> family.draw(distribution, torch.tensor([0.5, 0.5])).tolist(), family.mean(distribution)[0].item()
    ([1.0, 1202604.0], 1.0)
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = self.width = self.n_outputs = units

    def distribution(self, outputs: Outputs) -> Distribution:
        return PoissonDistribution(outputs.clamp(max=LOG_LIMIT))

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        """The quantile of the noise."""
        rate = _counts(distribution).log_mean.detach().double().exp()
        return poisson_quantile(*torch.broadcast_tensors(rate, inner(noise))).to(noise.dtype)


class NegativeBinomial(_CountFamily):
    """Independent counts of variance ``m + m²/r``: ``outputs = [log m, log r]`` with ``variance="network"``.

    With "learned", ``outputs = log m`` and every unit has a dispersion r of its own, which starts at 1. A large r says
    Poisson.

    >>> import torch
    >>> from hvae import NegativeBinomial
    >>> family = NegativeBinomial(1)
    >>> family.draw(family.distribution(torch.tensor([2.0])), torch.tensor([0.5, 0.5, 0.5])).item()
    6.0
    """

    def __init__(self, units: int, *, variance: VarianceKind = "learned") -> None:
        super().__init__()
        if variance == "fixed":
            raise ValueError("variance is fixed, but no one dispersion suits all counts; use learned or network.")
        self.units = self.width = units
        self.n_outputs = 2 * units if variance == "network" else units
        self.log_dispersion = nn.Parameter(torch.zeros(units)) if variance == "learned" else None

    @property
    def noise_width(self) -> int:
        return 3 * self.units

    def distribution(self, outputs: Outputs) -> Distribution:
        log_mean, log_dispersion = (
            outputs.chunk(2, dim=-1) if self.log_dispersion is None else (outputs, self.log_dispersion)
        )
        return NegativeBinomialDistribution(log_mean.clamp(max=LOG_LIMIT), log_dispersion.clamp(-LOG_LIMIT, LOG_LIMIT))

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        """A Poisson count of rate ``m g / r``, with g gamma distributed of shape r.

        It is ``g' u^(1/r)`` with g' of shape r + 1 (Marsaglia and Tsang 2000, section 6).
        """
        assert isinstance(distribution, NegativeBinomialDistribution)
        for_gamma, boost, count = inner(noise).chunk(3, dim=-1)
        log_m, log_r = (each.detach().double() for each in (distribution.log_mean, distribution.log_dispersion))
        log_r, for_gamma = torch.broadcast_tensors(log_r, for_gamma)
        log_gamma = gamma_quantile(log_r.exp() + 1, for_gamma).log() + boost.log() * (-log_r).exp()
        rate = (log_m - log_r + log_gamma).exp()
        return poisson_quantile(*torch.broadcast_tensors(rate, count)).to(noise.dtype)


def _counts(distribution: Distribution) -> _CountDistribution:
    assert isinstance(distribution, _CountDistribution)
    return distribution
