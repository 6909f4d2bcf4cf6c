"""Annealed importance sampling of log p(x) (Neal 2001), from below, and in reverse from an exact draw, from above.

Along ``f_t(ε) = N(ε; 0, I) w(ε)^β_t`` with 0 = β_0 < … < β_T = 1 (`hvae.likelihood.target`), a chain starts at
ε_0 ~ N(0, I). In turn it takes the weight and a move that leaves the next density invariant:

    log W = sum_t (β_t - β_{t-1}) log w(ε_{t-1}),    ε_t ~ HMC at β_t from ε_{t-1},    E W = p(x).

The log of a mean of such weights is a lower bound in expectation. Run backwards from an exact draw of the posterior,
``E exp(-log W) = 1/p(x)``, and minus the log of their mean is an upper bound (Grosse, Ghahramani and Adams 2015).
Exact draws exist for data that were simulated with their latents.

Nothing adapts while it measures: an adapting step size biased the bound by 2 to 6 standard errors. Temperatures and
step sizes are tuned on chains of their own, then frozen (`tune`). Temperatures stand equally far apart in the spread
of log w, where they are worth most. Each datum has its own step size, which moves with β.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae import rng
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.hmc import QUARTER_TURN, State, move
from hvae.likelihood.target import Target
from hvae.likelihood.weights import estimate
from hvae.shapes import LogProb, Noise

N_TUNING = 60
"""temperatures of the tuning run"""
N_TUNING_CHAINS = 8
ACCEPTANCE = 0.8
"""share of moves accepted that the step size is tuned to"""
EAGERNESS = 0.7
"""how far the logarithm of the step size moves for a unit of wrong acceptance"""


@dataclass(frozen=True)
class Annealing:
    """The budget: T temperatures, C chains a datum, L gradients a move.

    >>> Annealing(n_chains=16)
    Annealing(n_temperatures=100, n_chains=16, n_leapfrog=4)
    """

    n_temperatures: int = 100
    n_chains: int = 64
    n_leapfrog: int = 4

    def __post_init__(self) -> None:
        for knob in ("n_temperatures", "n_chains", "n_leapfrog"):
            value = getattr(self, knob)
            if value < 1:
                raise ValueError(f"{knob} of annealing is {value}; give at least 1.")


@dataclass(frozen=True)
class Path:
    """Temperatures and step sizes, frozen before anything is measured.

    >>> Path((0.0, 0.5, 1.0), step_sizes=torch.full((2, 6), 0.1)).step_sizes.shape  # T moves, B data
    torch.Size([2, 6])
    """

    betas: tuple[float, ...]
    """β_0 = 0 … β_T = 1"""
    step_sizes: Tensor
    """``[T, B]``: row t - 1 is for the moves at β_t"""


@dataclass(frozen=True)
class Annealed:
    """The estimate, and where its chains ended: weighted draws of the posterior.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.likelihood import from_encoder
    >>> stack = linear_stack(1.0, "tilted", seed=0, widths=(6, 4))
    >>> found = anneal(from_encoder(stack.model, stack.x), Annealing(5, n_chains=30, n_leapfrog=1), seed=0)
    >>> found.log_weight.shape, found.noise.shape, found.estimate.direction
    (torch.Size([30, 6]), torch.Size([30, 6, 4]), 'lower')
    """

    estimate: Estimate
    noise: Noise
    """``[C, B, D]``"""
    log_weight: LogProb
    """``[C, B]``"""
    acceptance: float
    """mean share of accepted moves"""

    @staticmethod
    def joined(parts: Sequence["Annealed"]) -> "Annealed":
        """One record of the data of several."""
        if len(parts) == 1:
            return parts[0]
        n_data = [part.log_weight.shape[1] for part in parts]
        return Annealed(
            Estimate.joined([part.estimate for part in parts]),
            torch.cat([part.noise for part in parts], 1),
            torch.cat([part.log_weight for part in parts], 1),
            sum(part.acceptance * n for part, n in zip(parts, n_data, strict=True)) / sum(n_data),
        )


Tick = Callable[[], object]
"""called after every temperature, for a progress bar"""


def silent() -> None:
    """Shows no progress."""


def anneal(
    target: Target, annealing: Annealing, seed: int, purpose: str = "annealing", tick: Tick = silent
) -> Annealed:
    """log p(x) of each datum from below: tune on chains of their own, freeze, run."""
    return run_forward(target, tune(target, annealing, seed, purpose, tick), annealing, seed, purpose, tick)


@torch.no_grad()
def tune(target: Target, annealing: Annealing, seed: int, purpose: str = "annealing", tick: Tick = silent) -> Path:
    """Temperatures and step sizes from a short run; its draws serve nothing else."""
    n_pilot = min(N_TUNING, max(10, annealing.n_temperatures))
    betas = torch.linspace(0, 1, n_pilot + 1, dtype=torch.float64) ** 3
    draws = _Draws(target, N_TUNING_CHAINS, seed, f"{purpose}/tuning")
    state = State.at(target, draws.start)
    longest = math.log(QUARTER_TURN / annealing.n_leapfrog)
    log_step = torch.full((target.n_data,), longest, device=draws.start.device)
    steps, spreads = [], [_spread(state)]
    for t in range(1, n_pilot + 1):
        for attempt in range(2):
            momentum, uniform = draws.next(2 * t + attempt)
            state, chance = move(
                target, state, float(betas[t]), log_step.exp(), annealing.n_leapfrog, momentum, uniform
            )
            log_step = log_step + EAGERNESS * (chance.mean(0) - ACCEPTANCE).to(log_step.dtype)
            log_step = log_step.clamp(max=longest)
        steps.append(log_step)
        spreads.append(_spread(state))
        tick()
    return _path(betas, torch.stack(steps), torch.stack(spreads), annealing.n_temperatures)


@torch.no_grad()
def run_forward(
    target: Target, path: Path, annealing: Annealing, seed: int, purpose: str = "annealing", tick: Tick = silent
) -> Annealed:
    """Chains from N(0, I) to the posterior along a frozen path."""
    draws = _Draws(target, annealing.n_chains, seed, f"{purpose}/forward")
    state = State.at(target, draws.start)
    log_weight = torch.zeros_like(state.log_weight)
    accepted = torch.zeros((), device=state.noise.device)
    for t in range(1, len(path.betas)):
        log_weight += (path.betas[t] - path.betas[t - 1]) * state.log_weight
        state, chance = move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog, *draws.next(t))
        accepted = accepted + chance.mean()
        tick()
    n_moves = len(path.betas) - 1
    return Annealed(estimate(log_weight), state.noise, log_weight, float(accepted) / n_moves)


@torch.no_grad()
def run_backward(
    target: Target, path: Path, exact: Noise, annealing: Annealing, seed: int, purpose: str = "annealing",
    tick: Tick = silent,
) -> Estimate:  # fmt: skip
    """log p(x) from above: chains from an exact draw of the posterior back to N(0, I).

    ``exact [1, B, D]`` is the draw in the target's coordinates. The chains of a datum share their start, so their
    spread understates the error of a single datum; means over data are right, and so is their spread.
    """
    draws = _Draws(target, annealing.n_chains, seed, f"{purpose}/backward")
    state = State.at(target, exact.expand(annealing.n_chains, -1, -1).contiguous())
    log_weight = torch.zeros_like(state.log_weight)
    for t in range(len(path.betas) - 1, 0, -1):
        state, _ = move(target, state, path.betas[t], path.step_sizes[t - 1], annealing.n_leapfrog, *draws.next(t))
        log_weight -= (path.betas[t] - path.betas[t - 1]) * state.log_weight
        tick()
    return estimate(log_weight, "upper")


class _Draws:
    """Everything random of one run, as functions of its key."""

    def __init__(self, target: Target, n_chains: int, seed: int, purpose: str) -> None:
        self._target, self._n_chains, self._seed, self._purpose = target, n_chains, seed, purpose
        self.start = target.noise(n_chains, seed=seed, purpose=f"{purpose}/start")

    def next(self, t: int) -> tuple[Noise, Tensor]:
        """Momenta ``[C, B, D]`` and uniform numbers ``[C, B, 2]`` of move t."""
        target = self._target
        drawn = rng.noise(
            {"momentum": ("normal", target.width), "uniform": ("uniform", 2)}, self._n_chains, target.n_data,
            seed=self._seed, purpose=self._purpose, step=t, device=str(target.like.device), dtype=target.like.dtype,
        )  # fmt: skip
        return drawn["momentum"], drawn["uniform"]


def _spread(state: State) -> Tensor:
    """Standard deviation of log w over chains, root mean square over data."""
    return state.log_weight.var(0).nan_to_num(0.0, 0.0, 0.0).mean().sqrt()


def _path(betas: Tensor, log_steps: Tensor, spreads: Tensor, n_temperatures: int) -> Path:
    """n_temperatures steps of equal length ∫ spread dβ, each with the step size of the next β that was tuned.

    Where w is flat, q is the posterior or both are the prior: then all β are worth the same.
    """
    widths = betas.diff()
    speed = (spreads[1:] + spreads[:-1]).double().cpu() / 2
    mean_speed = (speed * widths).sum()
    if not mean_speed > 0:
        speed, mean_speed = torch.ones_like(speed), torch.ones_like(mean_speed)
    speed = speed + 0.05 * mean_speed  # none of the path is left without temperatures
    length = torch.cat([torch.zeros(1, dtype=torch.float64), (speed * widths).cumsum(0)])
    wanted = torch.linspace(0, 1, n_temperatures + 1, dtype=torch.float64) * length[-1]
    right = torch.searchsorted(length, wanted).clamp(1, len(betas) - 1)
    share = ((wanted - length[right - 1]) / (length[right] - length[right - 1])).clamp(0, 1)
    chosen = betas[right - 1] + share * widths[right - 1]
    chosen[0], chosen[-1] = 0.0, 1.0
    tuned = torch.searchsorted(betas, chosen[1:]).clamp(1, len(betas) - 1) - 1
    return Path(tuple(chosen.tolist()), log_steps.exp()[tuned.to(log_steps.device)])
