"""Gaussian families: diagonal, in log-variance form, and full covariance, by its Cholesky factor."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, constraints

from hvae.families.family import Family
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, UnitLogProb, Value

VarianceKind = Literal["network", "learned", "fixed"]

LOG_2PI = math.log(2 * math.pi)
LOG_VARIANCE_LIMIT = 20.0
"""a net's log-variance is clamped to ±20: standard deviations between 4.5e-5 and 2.2e4"""


class DiagonalNormal(Distribution):
    """``N(mean, diag(exp(log_variance)))`` over ``[D]``, kept in log-variance form.

    Unlike `torch.distributions.Normal`, it never rounds a small variance to 0. It takes half as many operations, and
    operations are the cost of a small net's step.

    >>> round(DiagonalNormal(torch.zeros(3), torch.zeros(3)).log_prob(torch.zeros(3)).item(), 4)  # -3/2 log 2π
    -2.7568
    """

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, mean: Tensor, log_variance: Tensor) -> None:
        self._mean = mean
        self.log_variance = log_variance
        alike = mean.shape == log_variance.shape  # nearly always, and an operation less for each use
        shape = mean.shape if alike else torch.broadcast_shapes(mean.shape, log_variance.shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._whole(self._mean)

    @property
    def stddev(self) -> Tensor:
        return self._whole((self.log_variance / 2).exp())

    @property
    def variance(self) -> Tensor:
        return self._whole(self.log_variance.exp())

    def _whole(self, values: Tensor) -> Tensor:
        shape = self.batch_shape + self.event_shape
        return values if values.shape == shape else values.expand(shape)

    def unit_log_prob(self, value: Tensor) -> Tensor:
        """``-((v - mean)² / variance + log variance + log 2π) / 2`` of each unit."""
        white = (value - self._mean) * (self.log_variance * -0.5).exp()
        return (white.square() + self.log_variance + LOG_2PI) * -0.5

    def log_prob(self, value: Tensor) -> Tensor:
        return self.unit_log_prob(value).sum(-1)


class DiagonalGaussian(Family):
    """``N(mean, diag(exp(log_variance)))``, with a log-variance from the net, learned or fixed.

    ``outputs = [mean, log_variance]`` with ``variance="network"``, else ``[mean]``: "learned" has a number for each
    unit, "shared" one for all. ``log_variance`` is the fixed value, and the start of a learned one. With ``units_of =
    (shift, scale)``, ``[D]`` each, outputs and log-variance are those of ``(v - shift) / scale``, and v keeps its own
    units: its log-density is theirs less ``sum log scale``.

    A spatial latent ``[C, H, W]`` has ``units = C`` and ``pixels = H * W``: a unit is a channel, whose terms are summed
    over its pixels. Values are flat, ``width = C * H * W``, one channel after another.

    >>> import torch
    >>> from hvae import DiagonalGaussian
    >>> spatial = DiagonalGaussian(2, pixels=9)
    >>> spatial.width, spatial.unit_log_prob(spatial.standard(torch.zeros(())), torch.zeros(18)).shape
    (18, torch.Size([2]))
    >>> family = DiagonalGaussian(1)  # N(2, 1) · N(0, 1) ∝ N(1, 1/2)
    >>> merged = family.product(family.distribution(torch.tensor([2.0, 0.0])), family.distribution(torch.zeros(2)))
    >>> merged.mean.item(), round(merged.variance.item(), 4)
    (1.0, 0.5)
    """

    noise: NoiseKind = "normal"
    factorised = True
    reparametrised = True

    def __init__(
        self, units: int, *, variance: VarianceKind | Literal["shared"] = "network", log_variance: float = 0.0,
        units_of: tuple[Tensor, Tensor] | None = None, pixels: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.units, self.width = units, units * pixels
        self.n_outputs = 2 * self.width if variance == "network" else self.width
        self.log_variance: Tensor | None = None
        if variance in ("learned", "shared"):
            self.log_variance = nn.Parameter(torch.full((self.width if variance == "learned" else 1,), log_variance))
        elif variance == "fixed":
            del self.log_variance
            self.register_buffer("log_variance", torch.full((self.width,), log_variance))
        for name, constant in zip(("shift", "scale"), units_of or (None, None), strict=True):
            self.register_buffer(name, None if constant is None else constant.clone())

    shift: Tensor | None
    scale: Tensor | None

    def distribution(self, outputs: Outputs) -> Distribution:
        if self.log_variance is None:
            mean, log_variance = outputs.chunk(2, dim=-1)
        else:
            mean, log_variance = outputs, self.log_variance.expand(self.width)
        log_variance = log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        if self.shift is not None and self.scale is not None:
            mean, log_variance = self.shift + self.scale * mean, log_variance + 2 * self.scale.log()
        return DiagonalNormal(mean, log_variance)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        return DiagonalNormal(like.new_zeros(self.width), like.new_zeros(self.width))

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        return distribution.mean + distribution.stddev * noise

    def noise_of(self, distribution: Distribution, value: Value) -> Noise:
        return (value - distribution.mean) / distribution.stddev

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        return self.per_unit(_normal(distribution).unit_log_prob(value))

    def mean(self, distribution: Distribution) -> Value:
        return distribution.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = [v, v²]``."""
        return torch.cat([value, value.square()], dim=-1)

    def natural(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = [mean/variance, -1/(2 variance)]``, ``A = sum(mean²/variance + log variance) / 2``, in float64.

        The three terms of a log-density nearly cancel for a narrow distribution: in float32 0.05 nats were lost.
        """
        mean, log_variance = torch.broadcast_tensors(
            distribution.mean.double(), _normal(distribution).log_variance.double()
        )
        precision = (-log_variance).exp()
        eta = torch.cat([mean * precision, -precision / 2], dim=-1)
        return eta, (mean.square() * precision + log_variance).sum(-1) / 2

    def product(self, distribution: Distribution, other: Distribution) -> Distribution:
        """Precision-weighted merge (Sønderby et al. 2016, equations 15 to 17).

        ``variance = 1 / (1/v + 1/v')``, ``mean = variance (m/v + m'/v')``, in log-variance form.
        """
        log_v, log_w = _normal(distribution).log_variance, _normal(other).log_variance
        weight = torch.sigmoid(log_w - log_v)  # (1/v) / (1/v + 1/w)
        mean = weight * distribution.mean + (1 - weight) * other.mean
        return DiagonalNormal(mean, -torch.logaddexp(-log_v, -log_w))

    def match(self, distribution: Distribution, weight: Tensor | None = None) -> Distribution:
        if weight is None:
            mean, variance = distribution.mean.flatten(end_dim=-2), distribution.variance.flatten(end_dim=-2)
            return DiagonalNormal(mean.mean(0), (variance.mean(0) + mean.var(0, unbiased=False)).log())
        moments = distribution.mean, distribution.variance
        mean, variance = (moment.expand(*weight.shape, self.width) for moment in moments)
        share = weight.to(mean.dtype).unsqueeze(-1)
        middle = (share * mean).sum(-2, keepdim=True)
        return DiagonalNormal(middle, (share * (variance + (mean - middle).square())).sum(-2, keepdim=True).log())


class FullGaussian(Family):
    """``N(mean, C Cᵀ)``, ``C = diag(s) (I + N / D)``, with N strictly lower triangular; both are heads of the net,
    learned, or fixed.

    ``outputs = [mean, N, log s²]`` with ``variance="network"``, N row by row below the diagonal; else ``[mean]``. The D
    keeps C well conditioned where entries of N are about 1, as an untrained net gives them: the inverse of ``I + N``
    grows exponentially with D.

    >>> import torch
    >>> from hvae import FullGaussian
    >>> FullGaussian(2).distribution(torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0])).covariance_matrix.tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """

    noise: NoiseKind = "normal"
    factorised = False
    reparametrised = True

    def __init__(self, units: int, *, variance: VarianceKind = "network", scale_tril: Tensor | None = None) -> None:
        super().__init__()
        self.units = self.width = units
        n_scale = units * (units + 1) // 2
        self.n_outputs = units + n_scale if variance == "network" else units
        rows, columns = torch.tril_indices(units, units, offset=-1)
        self.register_buffer("below", rows * units + columns, persistent=False)
        scale = torch.zeros(n_scale)
        if scale_tril is not None:
            diagonal = scale_tril.diagonal()
            scale = torch.cat([units * scale_tril[rows, columns] / diagonal[rows], 2 * diagonal.log()])
        self.scale: Tensor | None = None
        if variance == "learned":
            self.scale = nn.Parameter(scale)
        elif variance == "fixed":
            del self.scale
            self.register_buffer("scale", scale)

    below: Tensor

    def distribution(self, outputs: Outputs) -> Distribution:
        mean, scale = outputs, self.scale
        if scale is None:
            mean, scale = outputs.split([self.units, self.n_outputs - self.units], dim=-1)
        n_below = len(self.below)
        log_variance = scale[..., n_below:].clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        flat = torch.zeros(*scale.shape[:-1], self.units**2, dtype=scale.dtype, device=scale.device)
        index = self.below.expand(*scale.shape[:-1], n_below)
        below = flat.scatter(-1, index, scale[..., :n_below] / self.units).unflatten(-1, (self.units, self.units))
        diagonal = (log_variance / 2).exp()
        tril = torch.diag_embed(diagonal) + diagonal.unsqueeze(-1) * below
        return MultivariateNormal(mean, scale_tril=tril, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def standard(self, like: Tensor) -> Distribution:
        return DiagonalNormal(like.new_zeros(self.units), like.new_zeros(self.units))

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        return distribution.mean + (cholesky(distribution) @ noise.unsqueeze(-1)).squeeze(-1)

    def noise_of(self, distribution: Distribution, value: Value) -> Noise:
        difference = value - distribution.mean
        tril = cholesky(distribution).expand(*difference.shape[:-1], self.units, self.units)
        noise: Noise = torch.linalg.solve_triangular(tril, difference.unsqueeze(-1), upper=False).squeeze(-1)
        return noise

    def log_prob(self, distribution: Distribution, value: Value) -> LogProb:
        """``-(|C⁻¹(v - mean)|² + D log 2π) / 2 - log det C``."""
        tril = cholesky(distribution)
        difference = value - distribution.mean
        tril_batch = tril.expand(*difference.shape[:-1], *tril.shape[-2:])
        white: Tensor = torch.linalg.solve_triangular(tril_batch, difference.unsqueeze(-1), upper=False).squeeze(-1)
        log_det: Tensor = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -(white.square().sum(-1) + self.units * LOG_2PI) / 2 - log_det

    def unit_log_prob(self, distribution: Distribution, value: Value) -> UnitLogProb:
        raise TypeError("a full-covariance Gaussian has no terms per unit; read the layer as a whole.")

    def mean(self, distribution: Distribution) -> Value:
        return distribution.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = [v, vec(v vᵀ)]``."""
        return torch.cat([value, (value.unsqueeze(-1) * value.unsqueeze(-2)).flatten(-2)], dim=-1)

    def natural(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = [Λ mean, -vec(Λ)/2]`` with the precision Λ, ``A = (meanᵀ Λ mean - log det Λ) / 2``."""
        tril, mean = cholesky(distribution).double(), distribution.mean.double()
        precision = torch.cholesky_inverse(tril)
        linear = (precision @ mean.unsqueeze(-1)).squeeze(-1)
        flat = precision.expand(*linear.shape[:-1], *precision.shape[-2:]).flatten(-2)
        log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.cat([linear, -flat / 2], dim=-1), ((linear * mean).sum(-1) + log_det) / 2

    def product(self, distribution: Distribution, other: Distribution) -> Distribution:
        (eta, _), (more, _) = self.natural(distribution), self.natural(other)
        dtype = distribution.mean.dtype
        linear, flat = (eta + more).split([self.units, self.units**2], dim=-1)
        precision = -2 * flat.unflatten(-1, (self.units, self.units))
        mean = torch.linalg.solve(precision, linear.unsqueeze(-1)).squeeze(-1)
        scale_tril = torch.linalg.cholesky(torch.linalg.inv(precision))
        return MultivariateNormal(mean.to(dtype), scale_tril=scale_tril.to(dtype), validate_args=False)

    def match(self, distribution: Distribution, weight: Tensor | None = None) -> Distribution:
        if weight is not None:
            return self._match_rows(distribution, weight.double())
        tril, mean = cholesky(distribution).double(), distribution.mean.double().flatten(end_dim=-2)
        within = (tril @ tril.mT).reshape(-1, self.units, self.units).mean(0)
        centred = mean - mean.mean(0)
        scale_tril = torch.linalg.cholesky(within + centred.mT @ centred / len(mean))
        dtype = distribution.mean.dtype
        return MultivariateNormal(mean.mean(0).to(dtype), scale_tril=scale_tril.to(dtype), validate_args=False)

    def _match_rows(self, distribution: Distribution, weight: Tensor) -> Distribution:
        tril = cholesky(distribution).double()
        mean = distribution.mean.double().expand(*weight.shape, self.units)
        within = (tril @ tril.mT).expand(*weight.shape, self.units, self.units)
        middle = (weight.unsqueeze(-1) * mean).sum(-2, keepdim=True)
        centred = mean - middle
        spread = torch.einsum("rb,rbi,rbj->rij", weight, centred, centred)
        scale_tril = torch.linalg.cholesky((weight[..., None, None] * within).sum(-3) + spread).unsqueeze(-3)
        dtype = distribution.mean.dtype
        return MultivariateNormal(middle.to(dtype), scale_tril=scale_tril.to(dtype), validate_args=False)


def cholesky(distribution: Distribution) -> Tensor:
    """C with ``covariance = C Cᵀ``, lower triangular ``[..., D, D]``, of a Gaussian of either kind."""
    if isinstance(distribution, DiagonalNormal):
        return torch.diag_embed(distribution.stddev)
    if isinstance(distribution, MultivariateNormal):
        tril = distribution._unbroadcasted_scale_tril
        assert isinstance(tril, Tensor)
        return tril
    raise TypeError(f"no covariance, and so no closed-form KL to a Gaussian, for {type(distribution).__name__}.")


def _normal(distribution: Distribution) -> DiagonalNormal:
    assert isinstance(distribution, DiagonalNormal)
    return distribution
