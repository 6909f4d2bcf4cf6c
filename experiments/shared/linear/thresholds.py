"""Where linear models collapse: optima in closed form, with the threshold of every mode.

Even with exact linear-Gaussian inference a latent direction is given up below a spectral threshold. Three models:

    ppca           p(x|z) = N(W z + mean, σ² I)          collapsed iff eigenvalue <= σ²  (Lucas et al. 2019)
    single_layer   beta-ELBO of y from x                 collapsed iff ζ² <= β η_dec²    (Wang and Ziyin 2022)
    two_layer      beta-ELBO of two layers, σ1 given     top collapsed iff σ1² <= β2/β1 η_dec²
                                                         and θ <= β2 η_dec² / (√β1 σ1)   (Dang et al. 2024)

The modes of the last two do not interact: ask for one singular value at a time. Nats.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class PPCA:
    """The maximum-likelihood solution of probabilistic principal component analysis."""

    loadings: Tensor
    """W `[D, n_latents]`, float64, up to a rotation of the latents; a column that is not kept is 0"""
    variance: float
    """σ²"""
    log_px: float
    """mean of log p(x) over the data that the covariance is of"""
    kept: Tensor
    """which of the leading directions `[n_latents]` have an eigenvalue above σ², largest first"""


def ppca(covariance: Tensor, n_latents: int, variance: float | None = None) -> PPCA:
    """Maximum-likelihood pPCA, which is also the optimum of a linear VAE (Tipping and Bishop 1999, equations 7 and 8).

    With eigenvalues λ_i and eigenvectors U of ``covariance [D, D]``, largest first,

        σ² = mean of the discarded λ_i,    W = U_q (Λ_q - σ² I)^½,
        log_px = -(sum_i log c_i + sum_i λ_i / c_i + D log 2π) / 2,    c_i = max(λ_i, σ²) if i <= q, else σ².

    ``variance`` holds σ² fixed in its place; directions with `λ_i <= σ²` then have W = 0, and an ELBO's zero columns
    are stable there (Lucas et al. 2019, theorem 1).

    The covariance must be the data's own, divided by N: with N - 1 the stated optimum is too low by `D/2 log(N/(N-1))`
    and no optimum (at N = 1000, D = 784 that is 0.39 nats; the ELBO in a published notebook ends 0.28 above its
    "maximum"). Raises ValueError.
    """
    values, vectors = _eigen(covariance, n_latents)
    sigma2 = float(values[n_latents:].mean()) if variance is None else float(variance)
    rounding = len(values) * torch.finfo(torch.float64).eps * float(values[0])
    if not rounding < sigma2 < math.inf:
        raise ValueError(
            f"the variance left to noise is {sigma2:.3g}, where the likelihood has no limit; "
            "take fewer latents, or more data than dimensions."
        )
    kept = values[:n_latents] > sigma2 + rounding
    spectrum = torch.full_like(values, sigma2)
    spectrum[:n_latents][kept] = values[:n_latents][kept]
    loadings = vectors[:, :n_latents] * (spectrum[:n_latents] - sigma2).sqrt()
    log_px = -(spectrum.log() + values / spectrum + math.log(2 * math.pi)).sum() / 2
    return PPCA(loadings, sigma2, float(log_px), kept)


@dataclass(frozen=True)
class SingleLayer:
    """One mode of the optimum of a linear one-layer model."""

    decoder: float
    """λ, singular value of U"""
    encoder: float
    """θ, singular value of the encoder in whitened coordinates of x"""
    sigma: float
    """standard deviation of q(z|x)"""

    @property
    def collapsed(self) -> bool:
        """Whether q of the mode is the prior and the decoder reads nothing of it."""
        return self.decoder == 0


def single_layer(zeta: float, beta: float, eta_enc: float, eta_dec: float) -> SingleLayer:
    """Optimum of the linear beta-VAE, one mode (Wang and Ziyin 2022, theorem 2).

    p(z) = N(0, η_enc² I), p(y|z) = N(U z, η_dec² I), q(z|x) = N(W x, Σ), all learned but the η; ζ is a singular value
    of E[y x̃ᵀ], with x̃ the whitened x (y = x: the root of an eigenvalue of its covariance).

        collapsed iff ζ² <= β η_dec²: λ = θ = 0, σ = η_enc;  else with a = √(ζ² - β η_dec²)
        λ = a / η_enc,    θ = η_enc a / ζ,    σ = √β η_dec η_enc / ζ.

    Raises ValueError for a negative ζ, or a weight or deviation that is not positive.
    """
    _refuse_unless_singular_value(zeta=zeta)
    _refuse_unless_positive(beta=beta, eta_enc=eta_enc, eta_dec=eta_dec)
    excess = _root(zeta**2 - beta * eta_dec**2)
    if excess == 0:
        return SingleLayer(0.0, 0.0, eta_enc)
    return SingleLayer(excess / eta_enc, eta_enc * excess / zeta, math.sqrt(beta) * eta_dec * eta_enc / zeta)


Regime = Literal["both", "top collapsed", "noise only", "collapsed"]


@dataclass(frozen=True)
class TwoLayer:
    """One mode of the optimum of a linear two-layer model."""

    encoder: float
    """λ, singular value of V1 = W1 in whitened coordinates of x: what z1 codes of the datum"""
    decoder: float
    """ω, singular value of U2: what p(z1|z2) reads of z2"""

    @property
    def regime(self) -> Regime:
        """Which layers work; "noise only": z2 codes just the noise of z1, and its rate above 0 tells nothing of x."""
        if self.decoder > 0:
            return "both" if self.encoder > 0 else "noise only"
        return "top collapsed" if self.encoder > 0 else "collapsed"


def two_layer(
    theta: float,
    sigma1: float,
    eta_enc: float,
    eta_dec: float,
    beta1: float,
    beta2: float,
    sigma2: float | None = None,
) -> TwoLayer:
    """Optimum of the linear two-layer beta-VAE of given σ1, one mode (Dang et al. 2024, theorem 3).

    p(z2) = N(0, η_enc² I), p(z1|z2) = N(U2 z2, η_dec² I), p(x|z1) = N(U1 z1, η_dec² I); q(z1|x) = N(W1 x, σ1² I) with
    σ1 held fixed, q(z2|z1) = N(W2 z1, Σ2); β1 and β2 weigh the rates of z1 and z2; θ is a singular value of
    E[x x̃ᵀ], with x̃ the whitened x. With r = β2 η_dec² / β1, learned Σ2 and v = max(σ1², σ1² θ² / (β2 η_dec²)):

        v > r:   λ² = v - σ1²,                       ω² = (v - r) / η_enc²    (cases A and C of the paper)
        else:    λ² = max(0, σ1 θ / √β1 - σ1²),      ω = 0                    (case B: the top layer is the prior)

    With Σ2 = σ2² I held fixed, derived here: let u = σ1 θ / √β1, the variance of z1 that a lower layer alone would
    choose, and t = σ2² r / η_enc²; then

        v = max(σ1², u if u <= t, else (u² η_enc / (σ2 √r))^(2/3)),
        λ² = v - σ1²,    ω² = max(0, √(v r) / (σ2 η_enc) - r / η_enc²),

    so that the top is the prior iff v <= t: a σ2 below η_enc lets it work where learned variances collapse.

    Raises ValueError for a negative θ, or a weight or deviation that is not positive.
    """
    _refuse_unless_singular_value(theta=theta)
    _refuse_unless_positive(sigma1=sigma1, eta_enc=eta_enc, eta_dec=eta_dec, beta1=beta1, beta2=beta2)
    threshold = beta2 * eta_dec**2 / beta1
    alone = sigma1 * theta / math.sqrt(beta1)
    if sigma2 is not None:
        _refuse_unless_positive(sigma2=sigma2)
        if alone > sigma2**2 * threshold / eta_enc**2:
            alone = (alone**2 * eta_enc / (sigma2 * math.sqrt(threshold))) ** (2 / 3)
        reached = max(sigma1**2, alone)
        square = math.sqrt(reached * threshold) / (sigma2 * eta_enc) - threshold / eta_enc**2
        return TwoLayer(_root(reached - sigma1**2), _root(square))
    reached = max(sigma1**2, sigma1**2 * theta**2 / (beta2 * eta_dec**2))
    if reached > threshold:
        return TwoLayer(_root(reached - sigma1**2), _root(reached - threshold) / eta_enc)
    return TwoLayer(_root(alone - sigma1**2), 0.0)


def _eigen(covariance: Tensor, n_latents: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first, and eigenvectors of what proves to be a covariance."""
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or covariance.numel() == 0:
        raise ValueError(f"a covariance is a square matrix, and this has the shape {list(covariance.shape)}.")
    covariance = covariance.double()
    if not 1 <= n_latents < len(covariance):
        raise ValueError(f"{n_latents} latents of {len(covariance)} dimensions; take from 1 to one less than those.")
    if not covariance.isfinite().all():
        raise ValueError("the covariance holds nan or infinite entries; leave out the data that make them.")
    scale = float(covariance.abs().max())
    if not torch.allclose(covariance, covariance.mT, rtol=0, atol=1e-9 * scale):
        raise ValueError("the matrix is not symmetric, so it is no covariance; give E[(x - mean)(x - mean)ᵀ].")
    values, vectors = torch.linalg.eigh(covariance)
    if float(values[0]) < -1e-9 * scale:
        raise ValueError(f"the matrix has the eigenvalue {float(values[0]):.3g}, and variances are never negative.")
    return values.flip(0), vectors.flip(1)


def _refuse_unless_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value:g}; it must be a positive number.")


def _refuse_unless_singular_value(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value:g}; a singular value is 0 or a positive number.")


def _root(square: float) -> float:
    return math.sqrt(max(0.0, square))
