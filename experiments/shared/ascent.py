"""Raising functions of known gradient, many side by side: Adam from afar, L-BFGS to a stated gradient.

Each of R problems has values of its own along a leading axis, and never sees the others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

Values = Mapping[str, Tensor]
Function = Callable[[dict[str, Tensor]], Tensor]
"""values of one problem by name -> a number `[]`"""

MEMORY = 20
"""pairs of steps and changes of the gradient that L-BFGS keeps"""
ARMIJO, WOLFE = 1e-4, 0.9
ROUNDING = 1e-13
"""changes of a function below this share of its size are rounding"""
N_TRIALS = 25
"""step lengths that are tried along one direction"""


@dataclass(frozen=True)
class Ascended:
    """R problems after the climb."""

    values: dict[str, Tensor]
    """what was free, `[R, ...]`"""
    height: Tensor
    """the function `[R]`"""
    gradient: Tensor
    """the largest entry of the gradient in size `[R]`"""


def ascend(
    free: Sequence[Tensor], values: Callable[[], Tensor], n_steps: int, learning_rate: float
) -> tuple[Tensor, Tensor]:
    """Raise each of ``values() [R]`` over the leaves ``free [R, ...]``, which are changed in place.

    Answers the last values, with the gradient of their sum left in ``free``, and what the last tenth of the steps
    gained. The step size is ``learning_rate (1 + cos π t / n_steps) / 2`` (Adam: Kingma and Ba 2015).
    """
    optimiser = torch.optim.Adam(free, lr=learning_rate, betas=(0.9, 0.99))
    late = n_steps - max(1, n_steps // 10)
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * step / n_steps)) / 2
        optimiser.zero_grad()
        found = values()
        if step == late:
            before = found.detach()
        (-found.sum()).backward()
        optimiser.step()
    optimiser.zero_grad()
    found = values()
    found.sum().backward()
    return found.detach(), found.detach() - before


def lbfgs(function: Function, free: Values, fixed: Values, tolerance: float, n_steps: int) -> Ascended:
    """Climb until no entry of a gradient exceeds ``tolerance``, at most ``n_steps`` steps; each problem by itself.

    Limited-memory BFGS (Nocedal and Wright 2006, algorithm 7.4). A step is at most 1 + |place| long, as a poor memory
    can point to a plateau with no way back. It is halved until it satisfies Armijo's condition. Where heights differ by
    rounding alone, the condition is that of slopes (Hager and Zhang 2005, equation 4.1). A pair with a curvature of the
    wrong sign is left out, and a problem without a better point stays.
    """
    names = list(free)
    shapes = [free[name].shape[1:] for name in names]
    sizes = [math.prod(shape) for shape in shapes]

    def cost(flat: Tensor, held: dict[str, Tensor]) -> Tensor:
        parts = flat.split(sizes)
        return -function(held | {n: part.reshape(s) for n, part, s in zip(names, parts, shapes, strict=True)})

    slopes_and_costs = vmap(grad_and_value(cost))
    held = dict(fixed)
    place = torch.cat([free[name].detach().reshape(len(free[name]), -1) for name in names], dim=1)
    slope, height = slopes_and_costs(place, held)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(n_steps):
        moving = slope.abs().amax(1) > tolerance
        if not moving.any():
            break
        direction = -_times_inverse(pairs, slope)
        descent = (direction * slope).sum(1)
        lost = ~(descent < 0)
        direction = torch.where(lost.unsqueeze(1), -slope, direction)
        descent = torch.where(lost, -slope.square().sum(1), descent)
        length = moving.to(slope.dtype)
        if not pairs:
            length = length * (1 / slope.abs().sum(1)).clamp(max=1)
        length = torch.minimum(length, (1 + place.norm(dim=1)) / direction.norm(dim=1).clamp(min=1e-300))
        done = ~moving
        new_place, new_slope, new_height = place, slope, height
        for _ in range(N_TRIALS):
            trial = place + length.unsqueeze(1) * direction
            trial_slope, trial_height = slopes_and_costs(trial, held)
            along = (trial_slope * direction).sum(1)
            armijo = trial_height <= height + ARMIJO * length * descent
            flat = (trial_height <= height + ROUNDING * height.abs()) & (along <= (2 * ARMIJO - 1) * descent)
            good = ~done & (armijo | (flat & (along >= WOLFE * descent)))
            new_place = torch.where(good.unsqueeze(1), trial, new_place)
            new_slope = torch.where(good.unsqueeze(1), trial_slope, new_slope)
            new_height = torch.where(good, trial_height, new_height)
            done = done | good
            if done.all():
                break
            length = torch.where(done, length, length / 2)
        step, change = new_place - place, new_slope - slope
        curvature = (step * change).sum(1)
        sound = curvature > 1e-12 * step.norm(dim=1) * change.norm(dim=1)
        if not (new_place != place).any():
            if not pairs:
                break
            pairs = []  # a poor memory is no reason to stop
            continue
        pairs = [*pairs[-MEMORY + 1 :], (step, change, torch.where(sound, 1 / curvature, 0.0))]
        place, slope, height = new_place, new_slope, new_height
    parts = place.split(sizes, dim=1)
    values = {n: part.reshape(-1, *shape) for n, part, shape in zip(names, parts, shapes, strict=True)}
    return Ascended(values, -height, slope.abs().amax(1))


def _times_inverse(pairs: list[tuple[Tensor, Tensor, Tensor]], slope: Tensor) -> Tensor:
    """The inverse Hessian that the ``pairs`` (step, change of slope, 1 / their product or 0) imply, times ``slope``."""
    found, shares = slope, []
    for step, change, inverse in reversed(pairs):
        share = inverse * (step * found).sum(1)
        found = found - share.unsqueeze(1) * change
        shares.append(share)
    scale = torch.ones_like(slope[:, 0])
    for _, change, inverse in pairs:  # the last sound pair's
        scale = torch.where(inverse > 0, 1 / (inverse * change.square().sum(1)).clamp(min=1e-300), scale)
    found = found * scale.unsqueeze(1)
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        found = found + (share - inverse * (change * found).sum(1)).unsqueeze(1) * step
    return found
