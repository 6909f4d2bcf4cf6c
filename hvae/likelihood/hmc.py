"""Hamiltonian Monte Carlo on many targets at once: C chains on each of B data, one step size a datum.

The density at inverse temperature β is ``N(ε; 0, I) w(ε)^β`` (`hvae.likelihood.target`). Its Gaussian part is a
harmonic oscillator: the flow rotates position and momentum, and is known exactly. The part of the weight is a kick
(splitting of Beskos et al. 2011, Shahbaba et al. 2014). A step of h is

    p <- p + h/2 β ∇log w,    (ε, p) <- (ε cos h + p sin h, p cos h - ε sin h),    p <- p + h/2 β ∇log w.

Its error comes from the weight alone: where w is flat every move is accepted, and a quarter turn is a fresh draw. The
map is reversible and keeps volume, so an accept step leaves the density invariant if h and β do not see the state.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.likelihood.target import Target
from hvae.shapes import LogProb, Noise

QUARTER_TURN = math.pi / 2
"""rotation after which the Gaussian part is a fresh draw: a trajectory is never longer"""
JITTER = 0.1
"""relative spread of the step size among chains, against orbits that close"""


@dataclass(frozen=True)
class State:
    """Where the chains are, and the weight there: the start of the next move, at any β.

    >>> target = Target(lambda noise: -noise.square().sum(-1), {"z1": ("normal", 2)}, like=torch.zeros(3, 5))
    >>> state = State.at(target, torch.ones(4, 3, 2))
    >>> state.log_weight.shape, bool((state.gradient == -2).all())
    (torch.Size([4, 3]), True)
    """

    noise: Noise
    log_weight: LogProb
    gradient: Noise
    """∇ log w"""

    @staticmethod
    def at(target: Target, noise: Noise) -> "State":
        """Evaluate the target at ``noise [C, B, D]``."""
        with torch.enable_grad():
            leaf = noise.detach().requires_grad_()
            log_weight = target.log_weight(leaf)
            (gradient,) = torch.autograd.grad(log_weight.sum(), leaf)
        return State(noise.detach(), log_weight.detach(), gradient)


@torch.no_grad()
def move(
    target: Target, state: State, beta: float, step_size: Tensor, n_leapfrog: int, momentum: Noise, uniform: Tensor
) -> tuple[State, LogProb]:
    """One trajectory of ``n_leapfrog`` steps and its accept step: the new state, and the chance to accept ``[C, B]``.

    ``step_size`` is ``[B]``, ``momentum`` standard normal ``[C, B, D]``, ``uniform [C, B, 2]`` for the step's jitter
    and the accept step. A trajectory that ends at a weight that is no number is rejected.
    """
    h = (step_size * (1 + JITTER * (2 * uniform[..., 0] - 1))).clamp(max=QUARTER_TURN / n_leapfrog).unsqueeze(-1)
    cosine, sine = h.cos(), h.sin()
    end, p = state, momentum + h / 2 * beta * state.gradient
    for leap in range(n_leapfrog):
        noise, p = end.noise * cosine + p * sine, p * cosine - end.noise * sine
        end = State.at(target, noise)
        p = p + (h if leap < n_leapfrog - 1 else h / 2) * beta * end.gradient
    log_ratio = _log_density(end, p, beta) - _log_density(state, momentum, beta)
    chance = log_ratio.nan_to_num(nan=-math.inf).clamp(max=0).exp()
    accepted = uniform[..., 1] < chance
    kept = accepted.unsqueeze(-1)
    moved = State(
        torch.where(kept, end.noise, state.noise),
        torch.where(accepted, end.log_weight, state.log_weight),
        torch.where(kept, end.gradient, state.gradient),
    )
    return moved, chance


def _log_density(state: State, momentum: Noise, beta: float) -> LogProb:
    """Minus the Hamiltonian, in float64."""
    kinetic = momentum.double().square().sum(-1) + state.noise.double().square().sum(-1)
    return beta * state.log_weight - kinetic / 2
