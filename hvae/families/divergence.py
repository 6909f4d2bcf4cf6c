"""Closed-form divergences between two distributions, nats."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, MultivariateNormal, OneHotCategorical

from hvae.families.counts import NegativeBinomialDistribution, PoissonDistribution
from hvae.families.gaussian import DiagonalNormal, cholesky
from hvae.families.logistic import LevelsDistribution
from hvae.numerics import bernoulli_kl, categorical_kl, gaussian_kl
from hvae.shapes import LogProb, UnitLogProb

GAUSSIAN = (DiagonalNormal, MultivariateNormal)
CLOSED = (GAUSSIAN, (BernoulliDistribution,), (OneHotCategorical,), (LevelsDistribution,), (PoissonDistribution,))
"""groups of distributions with a closed-form KL within each group"""


def has_closed_kl(distribution: Distribution, other: Distribution) -> bool:
    """Whether `kl` has an answer for these two distributions."""
    if hasattr(distribution, "closed_kl"):  # a distribution of a user's model knows itself whether it has one
        return distribution.closed_kl(other) is not None
    a, b = (getattr(each, "base_dist", each) for each in (distribution, other))
    if isinstance(a, NegativeBinomialDistribution) and isinstance(b, NegativeBinomialDistribution):
        return a.disperses_like(b)
    return any(isinstance(a, kinds) and isinstance(b, kinds) for kinds in CLOSED)


def has_unit_kl(distribution: Distribution, other: Distribution) -> bool:
    """Whether `unit_kl` has an answer for these two distributions."""
    kinds = (MultivariateNormal,)
    whole = any(isinstance(each, kinds) or hasattr(each, "closed_kl") for each in (distribution, other))
    return not whole and has_closed_kl(distribution, other)


def unit_kl(distribution: Distribution, other: Distribution) -> UnitLogProb:
    """``KL(distribution ‖ other)`` of each unit ``[..., D]``, closed form; both factorised and of one family.

    Gaussians in log-variance form, Bernoulli and categorical units from logits (`hvae.numerics`): finite where the
    forms of `torch.distributions.kl_divergence` overflow, and fit for vmap; grey levels by their sum; counts, negative
    binomial ones of one dispersion only. Raises TypeError otherwise: autoregressive, mixture and flow distributions
    have no closed form.
    """
    match (getattr(distribution, "base_dist", distribution), getattr(other, "base_dist", other)):
        case (DiagonalNormal() as a, DiagonalNormal() as b):
            return gaussian_kl(a.mean, a.log_variance, b.mean, b.log_variance)
        case (BernoulliDistribution() as a, BernoulliDistribution() as b):
            return bernoulli_kl(a.logits, b.logits)
        case (OneHotCategorical() as a, OneHotCategorical() as b):
            return categorical_kl(a.logits, b.logits)
        case (LevelsDistribution() as a, LevelsDistribution() as b) if a.n_levels == b.n_levels:
            return _levels_kl(a, b)
        case (PoissonDistribution() as a, PoissonDistribution() as b):
            return _poisson_kl(a.log_mean, b.log_mean)
        case (NegativeBinomialDistribution() as a, NegativeBinomialDistribution() as b) if a.disperses_like(b):
            return _negative_binomial_kl(a, b)
        case (a, b):
            raise TypeError(f"no closed-form KL per unit between {type(a).__name__} and {type(b).__name__}.")


def kl(distribution: Distribution, other: Distribution) -> LogProb:
    """``KL(distribution ‖ other)`` ``[...]``, closed form. Raises TypeError for a pair that has none.

    >>> zero = torch.zeros(2)
    >>> kl(DiagonalNormal(torch.tensor([2.0, 1.0]), zero), DiagonalNormal(zero, zero)).item()
    2.5
    """
    closed = distribution.closed_kl(other) if hasattr(distribution, "closed_kl") else None
    if closed is not None:
        assert isinstance(closed, Tensor)
        return closed
    if isinstance(distribution, MultivariateNormal) or isinstance(other, MultivariateNormal):
        return _full_gaussian_kl(distribution, other)
    return unit_kl(distribution, other).sum(-1)


def _levels_kl(distribution: LevelsDistribution, other: LevelsDistribution) -> UnitLogProb:
    """``sum over levels of P (log P - log P')``."""
    total = torch.zeros(())
    for value in torch.linspace(
        0, 1, distribution.n_levels, dtype=distribution.location.dtype, device=distribution.location.device
    ):
        log_p = distribution.unit_log_prob(value)
        total = total + log_p.exp() * (log_p - other.unit_log_prob(value))
    return total


def _poisson_kl(log_mean: Tensor, other: Tensor) -> UnitLogProb:
    """``m (log m - log m') - m + m'``, as ``m (exp(d) - 1 - d)`` with ``d = log m' - log m``."""
    d = other.double() - log_mean.double()
    return (log_mean.double().exp() * (torch.expm1(d) - d)).to(log_mean.dtype)


def _negative_binomial_kl(
    distribution: NegativeBinomialDistribution, other: NegativeBinomialDistribution
) -> UnitLogProb:
    """``m (log m - log m') + (m + r)(log(r + m') - log(r + m))``, m and m' the means and r the dispersion of both."""
    log_m, its, log_r = (each.double() for each in (distribution.log_mean, other.log_mean, distribution.log_dispersion))
    m, r = log_m.exp(), log_r.exp()
    beyond = torch.log1p((its.exp() - m) / (r + m))
    return (m * (log_m - its) + (m + r) * beyond).to(distribution.log_mean.dtype)


def _full_gaussian_kl(distribution: Distribution, other: Distribution) -> LogProb:
    """``(tr(Λ' Σ) + (m' - m)ᵀ Λ' (m' - m) - D) / 2 + log det C' - log det C``, C the Cholesky factors."""
    tril, other_tril = cholesky(distribution), cholesky(other)
    difference = (other.mean - distribution.mean).unsqueeze(-1)
    batch = torch.broadcast_shapes(difference.shape[:-2], tril.shape[:-2], other_tril.shape[:-2])
    tril, other_tril = (t.expand(*batch, *t.shape[-2:]) for t in (tril, other_tril))
    white = torch.linalg.solve_triangular(other_tril, difference.expand(*batch, *difference.shape[-2:]), upper=False)
    ratio = torch.linalg.solve_triangular(other_tril, tril, upper=False)
    log_det: Tensor = (other_tril.diagonal(dim1=-2, dim2=-1).log() - tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    trace: Tensor = ratio.square().sum((-2, -1)) + white.square().sum((-2, -1))
    return (trace - tril.shape[-1]) / 2 + log_det
