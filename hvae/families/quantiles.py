"""Quantiles that turn uniform noise into draws of counts: of the Poisson and of the gamma distribution, in float64.

Both are elementwise, of a fixed number of steps and without branches, so they run under `torch.func.vmap`. No gradient
passes through a count.
"""

import torch
from torch import Tensor

N_HALVINGS = 6
"""of a bracket of `2 REACH` numbers"""
REACH = 2.0 ** (N_HALVINGS - 1)
N_HALLEY = 8
FAR, MANY = 4.4, 1e6
"""normal quantiles beyond which, and shapes from which, torch's incomplete gamma functions do not converge; an
expansion is taken there, off by less than 0.01 standard deviations"""


def inner(noise: Tensor) -> Tensor:
    """Uniform noise of [0, 1) in float64, with the middle of its first step for 0: no draw is infinitely unlikely."""
    return noise.double().clamp(torch.finfo(noise.dtype).eps / 4, 1 - torch.finfo(torch.float64).eps / 2)


def poisson_quantile(rate: Tensor, u: Tensor) -> Tensor:
    """The smallest count k with ``P(v <= k) = Q(k + 1, rate) >= u``, Q the regularised incomplete gamma function.

    Halves a bracket around the expansion of Cornish and Fisher, ``rate + z √rate + (z² - 1)/6`` with z the normal
    quantile of u (Johnson, Kemp and Kotz 2005, equation 4.43), which is off by less than `REACH`.

    >>> poisson_quantile(torch.tensor([0.1, 3.0, 1e6]).double(), torch.tensor([0.95, 0.5, 0.5]).double()).tolist()
    [1.0, 3.0, 1000000.0]
    """
    z = torch.special.ndtri(u)
    about = rate + z * rate.sqrt() + (z.square() - 1) / 6
    low = torch.floor(about - REACH).clamp(min=-1.0)
    high = low + 2 * REACH  # P(v <= low) < u <= P(v <= high)
    for _ in range(N_HALVINGS):
        middle = torch.floor((low + high) / 2)
        enough = torch.special.gammaincc(middle + 1, rate) >= u
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.where(_hopeless(rate, z), torch.floor(about), high)


def gamma_quantile(shape: Tensor, u: Tensor) -> Tensor:
    """x with ``P(shape, x) = u``, P the regularised incomplete gamma function; ``shape >= 1``.

    Halley's steps from the approximation of Wilson and Hilferty 1931, or where that is too low from
    ``(u Γ(shape + 1))^(1/shape)``, which no quantile is below.

    >>> round(gamma_quantile(torch.tensor([1.0]).double(), torch.tensor([0.5]).double()).item(), 6)  # log 2
    0.693147
    """
    z, log_gamma = torch.special.ndtri(u), torch.lgamma(shape)
    least = ((u.log() + log_gamma + shape.log()) / shape).exp()
    x = torch.maximum(least, shape * (1 - 1 / (9 * shape) + z / (3 * shape.sqrt())).pow(3))
    for _ in range(N_HALLEY):
        log_density = (shape - 1) * x.log() - x - log_gamma
        step = (torch.special.gammainc(shape, x) - u) * (-log_density).exp()
        bent = (0.5 * step * ((shape - 1) / x - 1)).clamp(max=0.5)
        better = torch.maximum(torch.maximum(x - step / (1 - bent), x / 2), least)
        x = torch.where(_hopeless(shape, z), x, better)
    return x


def _hopeless(shape: Tensor, z: Tensor) -> Tensor:
    return (shape > MANY) & (z.abs() > FAR)
