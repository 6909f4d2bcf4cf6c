"""Mixtures of diagonal Gaussians, drawn from normal noise by a smooth map."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional as F
from torch.special import erfcx, ndtri

from hvae.families.family import Family
from hvae.families.gaussian import LOG_2PI, LOG_VARIANCE_LIMIT, DiagonalGaussian, DiagonalNormal
from hvae.families.general import GeneralFamily
from hvae.rng import NoiseKind
from hvae.shapes import LogProb, Noise, Outputs, Value

N_SECTIONS = 8
"""parts into which a search cuts its interval: three bits a pass"""


class MixtureDistribution(Distribution):
    """``sum_c exp(log_share_c) N(mean_c, diag(exp(log_variance_c)))`` over ``[D]``.

    ``log_share [..., C]``, ``means`` and ``log_variances [..., C, D]``.
    """

    has_rsample = False  # draws are `Family.draw`, from noise that is handed over
    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch declares it so

    def __init__(self, log_share: Tensor, means: Tensor, log_variances: Tensor) -> None:
        self.log_share, self.means, self.log_variances = log_share, means, log_variances
        super().__init__(log_share.shape[:-1], means.shape[-1:], validate_args=False)


class Mixture(GeneralFamily):
    """A mixture of ``n_components`` diagonal Gaussians over the whole layer.

    A draw takes D normal numbers, and draws no component. Unit by unit it inverts the distribution function

        F_i(v_i) = sum_c w_c(v_<i) Φ((v_i - m_ci) / s_ci),    w_c(v_<i) ∝ share_c prod_{j<i} N(v_j; m_cj, s_cj),

    of v_i given the units before it (Rosenblatt 1952), at Φ(noise_i). So a draw is a smooth function of distribution
    and noise, `noise_of` its exact inverse, and gradients pass to every parameter, the shares too (implicitly, Graves
    2016). It costs D searches of 10 (float32) to 20 steps. Where components lie many deviations apart, the few draws
    that fall between them carry very large gradients, since 1 / F'_i is large there.

    >>> family, noise = MixtureGaussian(1, n_components=2), torch.tensor([0.5])
    >>> distribution = family.distribution(torch.tensor([0.0, 0.0, -3.0, 3.0, 0.0, 0.0]))
    >>> round(family.noise_of(distribution, family.draw(distribution, noise)).item(), 3)
    0.5
    """

    noise: NoiseKind = "normal"
    reparametrised = True

    def __init__(self, units: int, n_components: int) -> None:
        super().__init__()
        if n_components < 1:
            raise ValueError(f"n_components is {n_components}; a mixture has at least 1.")
        self.units = self.width = units
        self.n_components = n_components

    @property
    def kin(self) -> Family:
        return DiagonalGaussian(self.units)

    def log_prob(self, distribution: Distribution, value: Value) -> LogProb:
        """``logsumexp_c (log_share_c + sum_i log N(v_i; mean_ci, variance_ci))``."""
        distribution = _mixture(distribution)
        return (distribution.log_share + _terms(distribution, value).sum(-1)).logsumexp(-1)

    def draw(self, distribution: Distribution, noise: Noise) -> Value:
        distribution = _mixture(distribution)
        log_share, units = distribution.log_share, []
        for i in range(self.units):
            mean, log_variance = distribution.means[..., i], distribution.log_variances[..., i]
            units.append(_quantile(log_share, mean, log_variance, noise[..., i]))
            log_share = (log_share + _normal(units[-1].unsqueeze(-1), mean, log_variance)).log_softmax(-1)
        return torch.stack(units, dim=-1)

    def noise_of(self, distribution: Distribution, value: Value) -> Noise:
        """Read off the nearer tail, so that a far draw keeps its noise."""
        distribution = _mixture(distribution)
        terms = _terms(distribution, value)
        earlier = F.pad(terms.cumsum(-1)[..., :-1], (1, 0))
        before = (distribution.log_share.unsqueeze(-1) + earlier).log_softmax(-2)
        white = (value.unsqueeze(-2) - distribution.means) * (distribution.log_variances * -0.5).exp()
        lower = (before + _log_cdf(white)).logsumexp(-2)
        upper = (before + _log_cdf(-white)).logsumexp(-2)
        noise: Noise = ndtri(torch.minimum(lower, upper).exp())
        return torch.where(lower < upper, noise, -noise)

    def mean(self, distribution: Distribution) -> Value:
        distribution = _mixture(distribution)
        return (distribution.log_share.exp().unsqueeze(-1) * distribution.means).sum(-2)


class MixtureGaussian(Mixture):
    """``outputs = [logits of the shares | means | log-variances]``, component by component.

    >>> import torch
    >>> from hvae import MixtureGaussian
    >>> family = MixtureGaussian(1, n_components=2)
    >>> round(family.mean(family.distribution(torch.tensor([0.0, 0.0, -1.0, 3.0, 0.0, 0.0]))).item(), 4)
    1.0
    """

    def __init__(self, units: int, n_components: int) -> None:
        super().__init__(units, n_components)
        self.n_outputs = n_components * (1 + 2 * units)

    def distribution(self, outputs: Outputs) -> Distribution:
        n = self.n_components * self.units
        logits, means, log_variances = outputs.split([self.n_components, n, n], dim=-1)
        shape = (self.n_components, self.units)
        log_variances = log_variances.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).unflatten(-1, shape)
        return MixtureDistribution(logits.log_softmax(-1), means.unflatten(-1, shape), log_variances)

    def standard_outputs(self) -> Tensor:
        """Equal shares, and mean 0 and variance 1 in all: equal components would stay equal, so these lie apart."""
        place = (torch.arange(self.n_components) - (self.n_components - 1) / 2) / self.n_components
        sign = 1 - 2 * (torch.arange(self.units) % 2)
        log_variance = torch.log1p(-place.square().mean())
        means = (place.unsqueeze(-1) * sign).flatten()
        return torch.cat([torch.zeros(self.n_components), means, log_variance.expand(len(means))])


class EqualMixture(Mixture):
    """Equal shares of distributions of the ``component`` family, which another variable owns: its outputs side by side.

    With the encoder's outputs at pseudo-inputs u_c it is ``p(z) = 1/C Σ_c q(z | u_c)`` (Tomczak and Welling 2018,
    equation 9).

    >>> family = EqualMixture(DiagonalGaussian(1), n_components=2)  # outputs = [m_1, log v_1, m_2, log v_2]
    >>> round(family.mean(family.distribution(torch.tensor([-1.0, 0.0, 3.0, 0.0]))).item(), 4)
    1.0
    """

    def __init__(self, component: DiagonalGaussian, n_components: int) -> None:
        super().__init__(component.units, n_components)
        self.shared = (component,)  # no submodule, as in `hvae.nets.PseudoInputs`
        self.n_outputs = n_components * component.n_outputs

    def distribution(self, outputs: Outputs) -> Distribution:
        distribution = self.shared[0].distribution(outputs.unflatten(-1, (self.n_components, -1)))
        assert isinstance(distribution, DiagonalNormal)
        means, log_variances = torch.broadcast_tensors(distribution.mean, distribution.log_variance)
        log_share = torch.full_like(means[..., 0], -math.log(self.n_components))
        return MixtureDistribution(log_share, means, log_variances)

    def standard_outputs(self) -> Tensor:
        return self.shared[0].standard_outputs().repeat(self.n_components)


def _quantile(log_share: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """v with ``F(v) = Φ(noise)`` for mixtures ``[..., C]`` over the line, differentiable.

    Both sides are compared as logarithms of the nearer tail, in the interval between the components' own quantiles,
    which is cut into `N_SECTIONS` until it is as narrow as the dtype allows. The gradient is that of the implicit
    function, ``dv = -dF / F'(v)``; it cannot be differentiated again.
    """
    sign = torch.where(noise > 0, -1.0, 1.0)  # the upper tail of v is the lower tail of -v
    scale = (log_variance / 2).exp()

    def tail(v: Tensor) -> Tensor:
        """log of the tail at points ``v [..., n]``."""
        white = (v.unsqueeze(-1) - mean.unsqueeze(-2)) / scale.unsqueeze(-2)
        log_cdf = _log_cdf(sign.unsqueeze(-1).unsqueeze(-1) * white)
        log_tail: Tensor = (log_share.unsqueeze(-2) + log_cdf).logsumexp(-1)
        return log_tail

    target = _log_cdf(sign * noise).unsqueeze(-1)
    with torch.no_grad():
        ends = mean + scale * noise.unsqueeze(-1)
        low, width = ends.amin(-1, keepdim=True), (ends.amax(-1, keepdim=True) - ends.amin(-1, keepdim=True))
        cuts = torch.arange(1, N_SECTIONS, device=ends.device) / N_SECTIONS
        for _ in range(math.ceil(2 - math.log(torch.finfo(ends.dtype).eps, N_SECTIONS))):
            below = sign.unsqueeze(-1) * (target - tail(low + width * cuts)) > 0
            width = width / N_SECTIONS
            low = low + width * below.sum(-1, keepdim=True)
        root = low + width / 2
        log_density = (log_share + _normal(root, mean, log_variance)).logsumexp(-1)
        log_slope = log_density.unsqueeze(-1) - tail(root)
        slope = sign.unsqueeze(-1) * log_slope.clamp(min=-40.0).exp()  # there is no draw at 1e-17 of the tail
    miss = target - tail(root)
    return (root + (miss - miss.detach()) / slope).squeeze(-1)


def _log_cdf(white: Tensor) -> Tensor:
    """log Φ: `torch.special.log_ndtr` has no rule for vmap."""
    upper = torch.log1p(-torch.erfc(white.clamp(min=0) * math.sqrt(0.5)) / 2)
    lower = torch.log(erfcx(-white.clamp(max=0) * math.sqrt(0.5)) / 2) - white.square() / 2
    return torch.where(white > 0, upper, lower)


def _terms(distribution: MixtureDistribution, value: Value) -> Tensor:
    """log-density of every unit under every component: ``[..., C, D]``."""
    return _normal(value.unsqueeze(-2), distribution.means, distribution.log_variances)


def _normal(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    white = (value - mean) * (log_variance * -0.5).exp()
    log_density: Tensor = (white.square() + log_variance + LOG_2PI) * -0.5
    return log_density


def _mixture(distribution: Distribution) -> MixtureDistribution:
    assert isinstance(distribution, MixtureDistribution)
    return distribution
