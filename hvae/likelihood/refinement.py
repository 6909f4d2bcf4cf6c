"""Refinement of q for each datum, in the noise that its draws are made of.

With z = g(ε) the encoder's draw (`hvae.likelihood.target`), a refined q draws z = g(m + C ε), m and C each datum's own.
For the first latent visited that is any Gaussian, diagonal where C is; for those after it an affine
modulation of the amortised conditional, which still sees the latents drawn before it.

`refine` climbs the refined ELBO with a diagonal C; `linearise` finds a full C without descending, for few dimensions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.likelihood.target import Target, from_encoder
from hvae.numerics import IntArray
from hvae.shapes import LogProb, Noise

FLATTEST = 1 / 16
"""curvature, in units of the current C, below which `linearise` does not believe its fit: C grows fourfold at most"""


@dataclass(frozen=True)
class Refinement:
    """The budget for fitting q to each datum.

    >>> Refinement(n_steps=100)
    Refinement(n_steps=100, n_samples=8, learning_rate=0.1, n_iterations=12)
    """

    n_steps: int = 300
    """of Adam"""
    n_samples: int = 8
    """draws a step, in antithetic pairs"""
    learning_rate: float = 0.1
    """of the first step; it falls to 0 by a cosine, so that the noise of the last steps averages out"""
    n_iterations: int = 12
    """of the fit with full covariance"""

    def __post_init__(self) -> None:
        for knob in ("n_steps", "n_samples", "n_iterations"):
            if getattr(self, knob) < 1:
                raise ValueError(f"{knob} of a refinement is {getattr(self, knob)}; give at least 1.")


DEFAULT = Refinement()
WIDEST = 256
"""numbers of noise up to which C is a full matrix: its decomposition takes their cube"""
FULL = Refinement(n_iterations=4)
DIAGONAL = Refinement(n_steps=50, n_samples=4)


def scaled(target: Target, shift: Tensor, log_scale: Tensor) -> Target:
    """`Target.moved` with a diagonal C = exp(log_scale), both ``[B, D]``."""

    def log_weight(noise: Noise) -> LogProb:
        eta = shift + log_scale.exp() * noise
        correction = (noise.double().square() - eta.double().square()).sum(-1) / 2 + log_scale.double().sum(-1)
        return target.log_weight(eta) + correction

    return Target(log_weight, target.specs, target.like)


@torch.enable_grad()
def refine(
    target: Target, refinement: Refinement, *, seed: int, purpose: str, free: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Shift and log-scale ``[B, D]`` that maximise ``E log w'`` of the `scaled` target, its ELBO, datum by datum.

    Adam (Kingma and Ba 2015) on reparametrised draws. Their own density is scored by parameters that do not move: the
    same gradient in expectation, without noise where the fit is perfect (Roeder, Wu and Duvenaud 2017). ``free [D]`` is
    1 where shift and scale may move, 0 where q stays as it is.
    """
    shape = (target.n_data, target.width)
    shift = torch.zeros(shape, dtype=target.like.dtype, device=target.like.device, requires_grad=True)
    log_scale = torch.zeros_like(shift, requires_grad=True)
    optimiser = torch.optim.Adam([shift, log_scale], lr=refinement.learning_rate, betas=(0.9, 0.99))
    n_pairs = math.ceil(refinement.n_samples / 2)
    for step in range(refinement.n_steps):
        half = target.noise(n_pairs, seed=seed, purpose=f"{purpose}/refinement", step=step)
        eta = shift + log_scale.exp() * torch.cat([half, -half])
        white = (eta - shift.detach()) * (-log_scale.detach()).exp()
        density = target.log_weight(eta) + (white.square() - eta.square()).sum(-1) / 2
        bound = density.mean(0).sum()
        for parameter, gradient in zip(
            (shift, log_scale), torch.autograd.grad(-bound, (shift, log_scale)), strict=True
        ):
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            parameter.grad = gradient if free is None else gradient * free
        for group in optimiser.param_groups:
            group["lr"] = refinement.learning_rate * (1 + math.cos(math.pi * step / refinement.n_steps)) / 2
        optimiser.step()
    return shift.detach(), log_scale.detach()


@torch.no_grad()
def linearise(target: Target, refinement: Refinement, *, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Shift ``[B, D]`` and lower triangular C ``[B, D, D]`` near the Gaussian of least KL to the posterior in noise.

    At that Gaussian ``E ∇ log π(m + C ε) = 0`` and ``-E ∇² log π = I`` in the coordinates ε (Opper and Archambeau 2009,
    equations 13 and 14, with π(ε) ∝ N(ε; 0, I) w(ε)). Both are read off a linear regression of the gradient on ε over
    antithetic draws; its slope is E ∇² by Stein's identity. Then comes a damped Newton step: exact at once where log π
    is quadratic, without second derivatives of a net. Where the ELBO of a datum falls, it goes back to its best fit and
    takes a quarter of the step; the best one seen is the answer.
    """
    n_data, width, like = target.n_data, target.width, target.like
    identity = torch.eye(width, dtype=like.dtype, device=like.device).expand(n_data, -1, -1)
    shift, scale_tril = like.new_zeros(n_data, width), identity
    best = _Fit(shift, scale_tril, shift, identity)
    best_bound = like.new_full((n_data,), -math.inf, dtype=torch.float64)
    share = like.new_ones(n_data)
    for step in range(refinement.n_iterations):
        half = target.noise(2 * width + 8, seed=seed, purpose=f"{purpose}/linearisation", step=step)[:, :1]
        fit, bound = _regress(target, shift, scale_tril, torch.cat([half, -half]))
        better = bound >= best_bound
        best, best_bound = best.replaced(fit, better), torch.where(better, bound, best_bound)
        share = torch.where(better, (2 * share).clamp(max=1), share / 4)
        shift, scale_tril = best.newton(share)
    return best.shift, best.scale_tril


@dataclass(frozen=True)
class Fitted:
    """A frozen proposal of each datum: q moved in its noise, by a full C up to `WIDEST` numbers, else a diagonal one.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(3.0, "over-confident", seed=0)  # log p(z | x) is quadratic, and the fit exact
    >>> target = Fitted.to(stack.model, stack.x, seed=0, purpose="example").target
    >>> spread = target.log_weight(target.noise(50, seed=1, purpose="example")).std(0)
    >>> bool((spread < 1e-3).all())
    True
    """

    model: HVAE
    x: Tensor
    shift: Tensor
    scale: Tensor

    @staticmethod
    def to(model: HVAE, x: Tensor, seed: int, purpose: str) -> "Fitted":
        """Fit to data ``x [B, D]``."""
        target = from_encoder(model, x)
        if target.width <= WIDEST:
            return Fitted(model, x, *linearise(target, FULL, seed=seed, purpose=purpose))
        return Fitted(model, x, *refine(target, DIAGONAL, seed=seed, purpose=purpose))

    @staticmethod
    def joined(parts: Sequence["Fitted"]) -> "Fitted":
        """One for the data of several."""
        x, shift, scale = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "shift", "scale"))
        return Fitted(parts[0].model, x, shift, scale)

    def of(self, places: IntArray) -> "Fitted":
        """Those of some of the data."""
        return Fitted(self.model, self.x[places], self.shift[places], self.scale[places])

    @property
    def target(self) -> Target:
        """The evidence with these proposals."""
        encoder = from_encoder(self.model, self.x)
        if self.scale.ndim == 3:
            return encoder.moved(self.shift, self.scale)
        return scaled(encoder, self.shift, self.scale)


@dataclass(frozen=True)
class _Fit:
    """A Gaussian in noise for each datum, and the posterior's slope there in its coordinates."""

    shift: Tensor
    scale_tril: Tensor
    gradient: Tensor
    """E ∇ log π, ``[B, D]``"""
    curvature: Tensor
    """-E ∇² log π, ``[B, D, D]``"""

    def replaced(self, other: "_Fit", where: Tensor) -> "_Fit":
        """The other fit where it is better, this one elsewhere."""
        row, matrix = where[:, None], where[:, None, None]
        return _Fit(
            torch.where(row, other.shift, self.shift),
            torch.where(matrix, other.scale_tril, self.scale_tril),
            torch.where(row, other.gradient, self.gradient),
            torch.where(matrix, other.curvature, self.curvature),
        )

    def newton(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """The ``share [B]`` of Newton's step, with the precision ``(1 - share) I + share curvature``."""
        eigenvalues, axes = torch.linalg.eigh(self.curvature)
        part = share.unsqueeze(-1)
        precision = 1 - part + part * eigenvalues.clamp(min=FLATTEST)
        step = axes @ ((axes.mT @ self.gradient.unsqueeze(-1)) * (part / precision).unsqueeze(-1))
        root = self.scale_tril @ axes * precision.rsqrt().unsqueeze(-2)
        upper = torch.linalg.qr(root.mT, mode="r").R  # root rootᵀ = Rᵀ R
        scale_tril = upper.mT * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        return self.shift + (self.scale_tril @ step).squeeze(-1), scale_tril


def _regress(target: Target, shift: Tensor, scale_tril: Tensor, noise: Noise) -> tuple[_Fit, Tensor]:
    """Mean and slope of ∇ log π over ``noise [K, 1, D]``, and the ELBO ``[B]``: -inf where anything is not finite."""
    n_data, width = shift.shape
    with torch.enable_grad():
        leaf = noise.expand(-1, n_data, -1).clone().requires_grad_()
        moved = target.moved(shift, scale_tril).log_weight(leaf)
        (gradient,) = torch.autograd.grad(moved.sum() - leaf.square().sum() / 2, leaf)
    sound = moved.detach().isfinite().all(0) & gradient.isfinite().all(0).all(-1)
    gradient = torch.where(sound.unsqueeze(-1), gradient, -leaf.detach())
    # not the default driver, whose last digits depend on where its workspace lies in memory
    slope = torch.linalg.lstsq(noise[:, 0], gradient.flatten(1), driver="gels").solution
    slope = slope.view(width, n_data, width).movedim(1, 0)
    bound = torch.where(sound, moved.detach().double().mean(0), -math.inf)
    return _Fit(shift, scale_tril, gradient.mean(0), -(slope + slope.mT) / 2), bound
