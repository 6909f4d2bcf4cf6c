"""Grey values: a logistic distribution cut into levels (Kingma et al. 2016, section 5.2; Salimans et al. 2017)."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from hvae.families.gaussian import VarianceKind
from hvae.families.general import GeneralFamily
from hvae.numerics import logistic_bin
from hvae.rng import NoiseKind
from hvae.shapes import Noise, Outputs, UnitLogProb, Value

LOG_SCALE_START = -2.0
"""a deviation of 0.25, near that of grey images over [0, 1]"""
LOG_SCALE_LIMIT = 10.0


class LevelsDistribution(Distribution):
    """Independent units over the levels ``0, 1/(n-1), …, 1``: each the level nearest to a logistic number.

    ``P(v) = σ((v + h - m)/s) - σ((v - h - m)/s)`` with half a step ``h = 1/(2(n-1))``; the end levels take all beyond.

    >>> levels = LevelsDistribution(torch.tensor([0.3]), torch.tensor([-2.0]), n_levels=4)
    >>> round(sum(levels.log_prob(torch.tensor([v / 3])).exp().item() for v in range(4)), 4)
    1.0
    """

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, location: Tensor, log_scale: Tensor, n_levels: int) -> None:
        self.location, self.log_scale, self.n_levels = location, log_scale, n_levels
        shape = torch.broadcast_shapes(location.shape, log_scale.shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def unit_log_prob(self, value: Value) -> UnitLogProb:
        rate, half = (-self.log_scale).exp(), 0.5 / (self.n_levels - 1)
        above, below = (value + half - self.location) * rate, (value - half - self.location) * rate
        return logistic_bin(below, above, 2 * half * rate, value < half, value > 1 - half)

    def log_prob(self, value: Value) -> Tensor:
        return self.unit_log_prob(value).sum(-1)


class DiscretisedLogistic(GeneralFamily):
    """Grey values of ``n_levels`` levels in [0, 1]: exact log-probabilities, never a density.

    ``outputs = [location, log-scale - LOG_SCALE_START]`` with ``variance="network"``, else ``[location]``, and a
    log-scale that is learned for each unit or fixed. It factorises, and has no natural parameters.

    >>> import torch
    >>> from hvae import DiscretisedLogistic
    >>> family = DiscretisedLogistic(1, n_levels=3)
    >>> family.draw(family.distribution(torch.tensor([0.4])), torch.tensor([0.5])).item()  # the level nearest to 0.4
    0.5
    """

    noise: NoiseKind = "uniform"
    factorised = True
    reparametrised = False

    def __init__(self, units: int, *, n_levels: int = 256, variance: VarianceKind = "learned") -> None:
        super().__init__()
        if n_levels < 2:
            raise ValueError(f"n_levels is {n_levels}; grey values have at least 2, and 256 in 8-bit images.")
        self.units = self.width = units
        self.n_levels = n_levels
        self.n_outputs = 2 * units if variance == "network" else units
        self.log_scale: Tensor | None = None
        if variance == "learned":
            self.log_scale = nn.Parameter(torch.full((units,), LOG_SCALE_START))
        elif variance == "fixed":
            del self.log_scale
            self.register_buffer("log_scale", torch.full((units,), LOG_SCALE_START))

    def distribution(self, outputs: Outputs) -> Distribution:
        if self.log_scale is None:
            location, log_scale = outputs.chunk(2, dim=-1)
            log_scale = log_scale + LOG_SCALE_START
        else:
            location, log_scale = outputs, self.log_scale
        return LevelsDistribution(location, log_scale.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT), self.n_levels)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        self._refuse("standard distribution")

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        """The level nearest to ``location + scale · logit(noise)``."""
        distribution = _levels(distribution)
        return nearest_level(distribution.location + distribution.log_scale.exp() * logit(noise), distribution.n_levels)

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        return _levels(distribution).unit_log_prob(value)

    def mean(self, distribution: Distribution) -> Value:
        """``sum over steps of P(v above the step) / (n - 1)``, exact."""
        distribution = _levels(distribution)
        rate, steps = (-distribution.log_scale).exp(), distribution.n_levels - 1
        total = torch.zeros_like(distribution.location)
        for step in range(steps):
            total = total + torch.sigmoid((distribution.location - (step + 0.5) / steps) * rate)
        return total / steps


def logit(noise: Tensor) -> Tensor:
    """The standard logistic number of uniform noise in [0, 1], finite at both ends."""
    tiny, eps = torch.finfo(noise.dtype).tiny, torch.finfo(noise.dtype).eps
    return noise.clamp(min=tiny).log() - torch.log1p(-noise.clamp(max=1 - eps))


def nearest_level(value: Tensor, n_levels: int) -> Tensor:
    """Of the levels ``0, 1/(n-1), …, 1``."""
    steps = n_levels - 1
    return (value.clamp(0, 1) * steps).round() / steps


def _levels(distribution: Distribution) -> LevelsDistribution:
    assert isinstance(distribution, LevelsDistribution)
    return distribution
