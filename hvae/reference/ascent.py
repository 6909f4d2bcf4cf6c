"""Raising functions of known gradient, many side by side: Adam whose step falls to 0 as half a cosine."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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
