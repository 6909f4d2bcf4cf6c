"""Families: from a net's outputs to a law, and from noise to a draw.

A family reads ``[..., n_outputs]`` as the parameters of a law over values ``[..., width]``, and maps
(law, noise) to a value. Noise is an input, so losses are pure functions of parameters, data and
noise, and quadrature is a choice of noise. Laws are `torch.distributions`, built without argument
checks (one bad replica must not stop the others; data are checked once at the door).

All families here are exponential families: ``log p(v) = base(v) + <T(v), eta> - A(eta)``, with
`statistic` T and `natural` (eta, A). The same inner product scores many values under many laws at
once, and a product of laws adds their eta. Nats.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliLaw
from torch.distributions import Distribution, Independent, MultivariateNormal, OneHotCategorical, constraints
from torch.nn import functional as F

from hvae.numerics import bernoulli_kl, categorical_kl, gaussian_kl
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, UnitLogProb, Value

VarianceKind = Literal["network", "learned", "fixed"]

LOG_2PI = math.log(2 * math.pi)
LOG_VARIANCE_LIMIT = 20.0
"""a net's log-variance is clamped to ±20: standard deviations between 4.5e-5 and 2.2e4"""


class DiagonalNormal(Distribution):
    """``N(mean, diag(exp(log_variance)))`` over ``[D]``, kept in log-variance form.

    Where `torch.distributions.Normal` goes through a standard deviation, this never rounds a small
    variance to 0; it also takes half as many operations, which is what a small net's step costs.
    """

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, mean: Tensor, log_variance: Tensor) -> None:
        self._mean = mean
        self.log_variance = log_variance
        shape = torch.broadcast_shapes(mean.shape, log_variance.shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def stddev(self) -> Tensor:
        return (self.log_variance / 2).exp()

    @property
    def variance(self) -> Tensor:
        return self.log_variance.exp()

    def unit_log_prob(self, value: Tensor) -> Tensor:
        """``-((v - mean)² / variance + log variance + log 2π) / 2`` of each unit."""
        white = (value - self._mean) * (self.log_variance * -0.5).exp()
        return (white.square() + self.log_variance + LOG_2PI) * -0.5

    def log_prob(self, value: Tensor) -> Tensor:
        return self.unit_log_prob(value).sum(-1)


class Family(nn.Module, ABC):
    """What a variable's law looks like; a module, as a learned variance is a parameter of its own."""

    units: int
    """D: what per-unit quantities count"""
    width: int
    """numbers in one value; equals `units` but for one-hot units"""
    n_outputs: int
    """numbers the net must give"""
    noise: NoiseKind
    factorised: bool
    """whether the law is a product over units"""

    @property
    def noise_width(self) -> int:
        """Numbers of noise in one draw."""
        return self.width

    @abstractmethod
    def law(self, outputs: Outputs) -> Distribution:
        """The law that ``outputs`` describe."""

    @abstractmethod
    def standard_outputs(self) -> Tensor:
        """Outputs ``[n_outputs]`` of the standard law: N(0, I), or fair coins and dice."""

    @abstractmethod
    def draw(self, law: Distribution, noise: Noise) -> Value:
        """The value that ``noise`` becomes under ``law``."""

    def log_prob(self, law: Distribution, value: Value) -> LogProb:
        """Log-probability (density for continuous values) of ``value``: the sum of its terms per unit."""
        return self.unit_log_prob(law, value).sum(-1)

    @abstractmethod
    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        """Log-probability of each unit. Raises TypeError where the law does not factorise."""

    @abstractmethod
    def mean(self, law: Distribution) -> Value:
        """Mean of the law ``[..., width]``."""

    @abstractmethod
    def statistic(self, value: Value) -> Tensor:
        """Sufficient statistic T(v) ``[..., S]``."""

    @abstractmethod
    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """Natural parameter eta ``[..., S]`` and log-normaliser A ``[...]`` of ``law``."""

    @abstractmethod
    def product(self, law: Distribution, other: Distribution) -> Distribution:
        """The normalised product of two laws of this family: their natural parameters added."""

    @abstractmethod
    def match(self, law: Distribution) -> Distribution:
        """The one law of this family nearest to the equal mixture of a batch of laws: the same mean statistic."""

    def per_unit(self, terms: Tensor) -> Tensor:
        """Terms ``[..., width]`` summed within each unit: ``[..., D]``."""
        return terms if self.width == self.units else terms.unflatten(-1, (self.units, -1)).sum(-1)

    def standard(self) -> Distribution:
        """N(0, I), or fair coins and dice."""
        return self.law(self.standard_outputs())


class DiagonalGaussian(Family):
    """``N(mean, diag(exp(log_variance)))``; the log-variance is a head of the net, learned per unit, or fixed at 0.

    ``outputs = [mean, log_variance]`` with ``variance="network"``, else ``[mean]``.
    """

    noise: NoiseKind = "normal"
    factorised = True

    def __init__(self, units: int, *, variance: VarianceKind = "network", log_variance: float = 0.0) -> None:
        super().__init__()
        self.units = self.width = units
        self.n_outputs = 2 * units if variance == "network" else units
        self.log_variance: Tensor | None = None
        if variance == "learned":
            self.log_variance = nn.Parameter(torch.full((units,), log_variance))
        elif variance == "fixed":
            del self.log_variance
            self.register_buffer("log_variance", torch.full((units,), log_variance))

    def law(self, outputs: Outputs) -> Distribution:
        if self.log_variance is None:
            mean, log_variance = outputs.chunk(2, dim=-1)
        else:
            mean, log_variance = outputs, self.log_variance
        return DiagonalNormal(mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT))

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def draw(self, law: Distribution, noise: Noise) -> Value:
        return law.mean + law.stddev * noise

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        return _normal(law).unit_log_prob(value)

    def mean(self, law: Distribution) -> Value:
        return law.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = [v, v²]``."""
        return torch.cat([value, value.square()], dim=-1)

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = [mean/variance, -1/(2 variance)]``, ``A = sum(mean²/variance + log variance) / 2``."""
        mean, log_variance = torch.broadcast_tensors(law.mean, _normal(law).log_variance)
        precision = (-log_variance).exp()
        eta = torch.cat([mean * precision, -precision / 2], dim=-1)
        return eta, (mean.square() * precision + log_variance).sum(-1) / 2

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        """Precision-weighted merge (Sønderby et al. 2016, equations 15 to 17).

        ``variance = 1 / (1/v + 1/v')``, ``mean = variance (m/v + m'/v')``, in log-variance form.
        """
        log_v, log_w = _normal(law).log_variance, _normal(other).log_variance
        weight = torch.sigmoid(log_w - log_v)  # (1/v) / (1/v + 1/w)
        mean = weight * law.mean + (1 - weight) * other.mean
        return DiagonalNormal(mean, -torch.logaddexp(-log_v, -log_w))


    def match(self, law: Distribution) -> Distribution:
        mean, variance = (moment.flatten(end_dim=-2) for moment in torch.broadcast_tensors(law.mean, law.variance))
        return DiagonalNormal(mean.mean(0), (variance.mean(0) + mean.var(0, unbiased=False)).log())


class FullGaussian(Family):
    """``N(mean, C Cᵀ)`` with C lower triangular; C is a head of the net, learned, or fixed.

    ``outputs = [mean, C]`` with ``variance="network"``, C row by row below the diagonal and the log
    of its diagonal last; else ``[mean]``.
    """

    noise: NoiseKind = "normal"
    factorised = False

    def __init__(self, units: int, *, variance: VarianceKind = "network", scale_tril: Tensor | None = None) -> None:
        super().__init__()
        self.units = self.width = units
        n_scale = units * (units + 1) // 2
        self.n_outputs = units + n_scale if variance == "network" else units
        rows, columns = torch.tril_indices(units, units, offset=-1)
        self.register_buffer("below", rows * units + columns, persistent=False)
        scale = torch.zeros(n_scale)
        if scale_tril is not None:
            scale = torch.cat([scale_tril[rows, columns], scale_tril.diagonal().log()])
        self.scale: Tensor | None = None
        if variance == "learned":
            self.scale = nn.Parameter(scale)
        elif variance == "fixed":
            del self.scale
            self.register_buffer("scale", scale)

    below: Tensor

    def law(self, outputs: Outputs) -> Distribution:
        mean, scale = outputs, self.scale
        if scale is None:
            mean, scale = outputs.split([self.units, self.n_outputs - self.units], dim=-1)
        n_below = len(self.below)
        log_diagonal = scale[..., n_below:].clamp(-LOG_VARIANCE_LIMIT / 2, LOG_VARIANCE_LIMIT / 2)
        flat = torch.zeros(*scale.shape[:-1], self.units**2, dtype=scale.dtype, device=scale.device)
        index = self.below.expand(*scale.shape[:-1], n_below)
        tril = flat.scatter(-1, index, scale[..., :n_below]).unflatten(-1, (self.units, self.units))
        tril = tril + torch.diag_embed(log_diagonal.exp())
        return MultivariateNormal(mean, scale_tril=tril, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def draw(self, law: Distribution, noise: Noise) -> Value:
        assert isinstance(law, MultivariateNormal)
        return law.loc + (law._unbroadcasted_scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, law: Distribution, value: Value) -> LogProb:
        """``-(|C⁻¹(v - mean)|² + D log 2π) / 2 - log det C``."""
        assert isinstance(law, MultivariateNormal)
        tril = law._unbroadcasted_scale_tril
        difference = value - law.loc
        tril_batch = tril.expand(*difference.shape[:-1], *tril.shape[-2:])
        white = torch.linalg.solve_triangular(tril_batch, difference.unsqueeze(-1), upper=False).squeeze(-1)
        log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -(white.square().sum(-1) + self.units * LOG_2PI) / 2 - log_det

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        raise TypeError("a full-covariance Gaussian has no terms per unit; read the layer as a whole.")

    def mean(self, law: Distribution) -> Value:
        return law.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = [v, vec(v vᵀ)]``."""
        return torch.cat([value, (value.unsqueeze(-1) * value.unsqueeze(-2)).flatten(-2)], dim=-1)

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = [Λ mean, -vec(Λ)/2]`` with the precision Λ, ``A = (meanᵀ Λ mean - log det Λ) / 2``."""
        assert isinstance(law, MultivariateNormal)
        tril = law._unbroadcasted_scale_tril
        precision = torch.cholesky_inverse(tril)
        linear = (precision @ law.loc.unsqueeze(-1)).squeeze(-1)
        flat = precision.expand(*linear.shape[:-1], *precision.shape[-2:]).flatten(-2)
        log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.cat([linear, -flat / 2], dim=-1), ((linear * law.loc).sum(-1) + log_det) / 2

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        (eta, _), (more, _) = self.natural(law), self.natural(other)
        linear, flat = (eta + more).split([self.units, self.units**2], dim=-1)
        precision = -2 * flat.unflatten(-1, (self.units, self.units))
        mean = torch.linalg.solve(precision, linear.unsqueeze(-1)).squeeze(-1)
        return MultivariateNormal(mean, precision_matrix=precision, validate_args=False)


    def match(self, law: Distribution) -> Distribution:
        mean, covariance = law.mean.flatten(end_dim=-2), law.covariance_matrix.flatten(end_dim=-3).mean(0)
        centred = mean - mean.mean(0)
        return MultivariateNormal(mean.mean(0), covariance + centred.mT @ centred / len(mean), validate_args=False)


class Bernoulli(Family):
    """Independent coins with ``logits = outputs``; values 0 and 1 (never probabilities: 15.9 where the truth is 1000)."""

    noise: NoiseKind = "uniform"
    factorised = True

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = self.width = self.n_outputs = units

    def law(self, outputs: Outputs) -> Distribution:
        return Independent(BernoulliLaw(logits=outputs, validate_args=False), 1, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.units)

    def draw(self, law: Distribution, noise: Noise) -> Value:
        return (noise < law.mean).to(noise.dtype)

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        """``v·logit - softplus(logit)``."""
        logits = _logits(law)
        return value * logits - F.softplus(logits)

    def mean(self, law: Distribution) -> Value:
        return law.mean

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = v``."""
        return value

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = logits``, ``A = sum softplus(logits)``."""
        logits = _logits(law)
        return logits, F.softplus(logits).sum(-1)

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        return self.law(_logits(law) + _logits(other))


    def match(self, law: Distribution) -> Distribution:
        return self.law(torch.logit(law.mean.flatten(end_dim=-2).mean(0)))


class Categorical(Family):
    """``units`` independent dice of ``n_classes`` states, each a one-hot stretch of the value ``[..., units·n_classes]``."""

    noise: NoiseKind = "uniform"
    factorised = True

    def __init__(self, units: int, n_classes: int) -> None:
        super().__init__()
        self.units = units
        self.n_classes = n_classes
        self.width = self.n_outputs = units * n_classes

    def law(self, outputs: Outputs) -> Distribution:
        logits = self._split(outputs)
        return Independent(OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)

    def standard_outputs(self) -> Tensor:
        return torch.zeros(self.n_outputs)

    def draw(self, law: Distribution, noise: Noise) -> Value:
        """The largest of ``logit - log(-log(noise))``: the Gumbel-max trick (Maddison et al. 2014)."""
        tiny = torch.finfo(noise.dtype).tiny
        gumbel = -(-self._split(noise).clamp(tiny, 1 - 1e-7).log()).log()
        score = _logits(law) + gumbel
        winner = score.argmax(-1, keepdim=True) == torch.arange(self.n_classes, device=noise.device)
        return winner.to(noise.dtype).flatten(-2)

    def unit_log_prob(self, law: Distribution, value: Value) -> UnitLogProb:
        return (self._split(value) * _logits(law).log_softmax(-1)).sum(-1)

    def mean(self, law: Distribution) -> Value:
        return law.mean.flatten(-2)

    def statistic(self, value: Value) -> Tensor:
        """``T(v) = v``."""
        return value

    def natural(self, law: Distribution) -> tuple[Tensor, Tensor]:
        """``eta = logits``, ``A = sum over units of logsumexp(logits)``."""
        logits = _logits(law)
        return logits.flatten(-2), logits.logsumexp(-1).sum(-1)

    def product(self, law: Distribution, other: Distribution) -> Distribution:
        return self.law((_logits(law) + _logits(other)).flatten(-2))

    def match(self, law: Distribution) -> Distribution:
        return self.law(law.mean.flatten(end_dim=-3).mean(0).log().flatten())

    def _split(self, value: Tensor) -> Tensor:
        return value.unflatten(-1, (self.units, self.n_classes))


def _normal(law: Distribution) -> DiagonalNormal:
    assert isinstance(law, DiagonalNormal)
    return law


def _logits(law: Distribution) -> Tensor:
    assert isinstance(law, Independent)
    logits = law.base_dist.logits
    assert isinstance(logits, Tensor)
    return logits


def unit_kl(law: Distribution, other: Distribution) -> UnitLogProb:
    """``KL(law ‖ other)`` of each unit ``[..., D]``, closed form, for two factorised laws of one family.

    Gaussians in log-variance form, coins and dice from logits (`hvae.numerics`): finite where the
    forms of `torch.distributions.kl_divergence` overflow, and fit for vmap. Raises TypeError otherwise.
    """
    match (getattr(law, "base_dist", law), getattr(other, "base_dist", other)):
        case (DiagonalNormal() as a, DiagonalNormal() as b):
            return gaussian_kl(a.mean, a.log_variance, b.mean, b.log_variance)
        case (BernoulliLaw() as a, BernoulliLaw() as b):
            return bernoulli_kl(a.logits, b.logits)
        case (OneHotCategorical() as a, OneHotCategorical() as b):
            return categorical_kl(a.logits, b.logits)
        case (a, b):
            raise TypeError(f"no closed-form KL per unit between {type(a).__name__} and {type(b).__name__}.")


def kl(law: Distribution, other: Distribution) -> LogProb:
    """``KL(law ‖ other)`` ``[...]``, closed form. Raises TypeError for a pair that has none."""
    if isinstance(law, MultivariateNormal) or isinstance(other, MultivariateNormal):
        return _full_gaussian_kl(law, other)
    return unit_kl(law, other).sum(-1)


def _full_gaussian_kl(law: Distribution, other: Distribution) -> LogProb:
    """``(tr(Λ' Σ) + (m' - m)ᵀ Λ' (m' - m) - D) / 2 + log det C' - log det C``, C the Cholesky factors."""
    tril, other_tril = _scale_tril(law), _scale_tril(other)
    difference = (other.mean - law.mean).unsqueeze(-1)
    batch = torch.broadcast_shapes(difference.shape[:-2], tril.shape[:-2], other_tril.shape[:-2])
    tril, other_tril = (t.expand(*batch, *t.shape[-2:]) for t in (tril, other_tril))
    white = torch.linalg.solve_triangular(other_tril, difference.expand(*batch, *difference.shape[-2:]), upper=False)
    ratio = torch.linalg.solve_triangular(other_tril, tril, upper=False)
    log_det = (other_tril.diagonal(dim1=-2, dim2=-1).log() - tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    trace = ratio.square().sum((-2, -1)) + white.square().sum((-2, -1))
    return (trace - tril.shape[-1]) / 2 + log_det


def _scale_tril(law: Distribution) -> Tensor:
    if isinstance(law, MultivariateNormal):
        return law._unbroadcasted_scale_tril
    if isinstance(law, DiagonalNormal):
        return torch.diag_embed(law.stddev)
    raise TypeError(f"no closed-form KL between a Gaussian and {type(law).__name__}.")
