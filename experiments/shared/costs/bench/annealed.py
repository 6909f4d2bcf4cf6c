"""Annealed importance sampling from the prior of one layer: the house, and as most would write it."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.experiments.shared.costs.bench.plain import Plain
from hvae.experiments.shared.costs.bench.stacks import Array, Stack
from hvae.likelihood import from_prior
from hvae.likelihood.annealing import Annealing, Path, run_forward

STEP = 0.05
N_CHAINS, N_LEAPFROG, N_TEMPERATURES = 16, 10, 10


def house(model: HVAE, x: Array) -> Callable[[], object]:
    target = from_prior(model.eval().decoder, torch.from_numpy(x))
    betas = tuple(np.linspace(0, 1, N_TEMPERATURES + 1).tolist())
    path = Path(betas, torch.full((N_TEMPERATURES, len(x)), STEP))
    return lambda: run_forward(target, path, Annealing(N_TEMPERATURES, N_CHAINS, N_LEAPFROG), 0, "bench")


def house_log_px(model: HVAE, x: Array, z: Array) -> Array:
    """log p(x | z) ``[C, B]``."""
    with torch.no_grad():
        found: Array = from_prior(model.decoder, torch.from_numpy(x)).log_weight(torch.from_numpy(z)).numpy()
    return found


def plain_log_px(stack: Stack, x: Array, z: Array) -> Array:
    with torch.no_grad():
        found: Array = _log_px(Plain(stack), torch.from_numpy(x), torch.from_numpy(z)).numpy()
    return found


def _log_px(net: Plain, x: Tensor, z: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(logits=net.decoder[0](z)).log_prob(x).sum(-1)


def plain(stack: Stack, x: Array) -> Callable[[], object]:
    """Leapfrog steps by autograd, ``N_LEAPFROG + 1`` gradients at each temperature, and an accept step."""
    net, data = Plain(stack), torch.from_numpy(x)
    betas = np.linspace(0, 1, N_TEMPERATURES + 1)

    def log_density(z: Tensor, beta: float) -> Tensor:
        return beta * _log_px(net, data, z) - z.square().sum(-1) / 2

    def slope(z: Tensor, beta: float) -> Tensor:
        leaf = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_density(leaf, beta).sum(), leaf)
        return gradient

    def call() -> Tensor:
        z = torch.randn(N_CHAINS, len(data), stack.widths[0])
        weight = torch.zeros(N_CHAINS, len(data))
        for before, beta in pairwise(betas):
            with torch.no_grad():
                weight = weight + (beta - before) * _log_px(net, data, z)
            p = start = torch.randn_like(z)
            end, p = z, p + STEP / 2 * slope(z, beta)
            for leap in range(N_LEAPFROG):
                end = end + STEP * p
                p = p + (STEP if leap < N_LEAPFROG - 1 else STEP / 2) * slope(end, beta)
            with torch.no_grad():
                gain = log_density(end, beta) - p.square().sum(-1) / 2
                gain = gain - log_density(z, beta) + start.square().sum(-1) / 2
                z = torch.where((torch.rand_like(gain).log() < gain).unsqueeze(-1), end, z)
        return weight

    return call
