"""Adam on weights ``[R, ...]``, with replicas that stand still: their weights, moments and counts of steps stay.

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g²                               of the t-th step that is taken
    w <- w - rate · weight_decay · w - rate · (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)

Kingma and Ba 2015, algorithm 1; the decay is decoupled from the gradient (Loshchilov and Hutter 2019, algorithm 2).
Nothing here waits for the device.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hvae.fitting.health import surely

OTHER = "its optimiser is that of a fit with another skip_norm or weight_decay"


class Adam(ABC):
    """Moves weights that were handed over when it was made: all replicas by one optimiser, or each by its own.

    >>> adam: Adam = Together({"w": torch.ones(2, 3)}, betas=(0.9, 0.999), epsilon=1e-8)
    >>> sorted(adam.state())
    ['param_groups', 'state']
    """

    @abstractmethod
    def step(self, gradients: Mapping[str, Tensor], moves: Tensor, learning_rate: float) -> None:
        """Move the weights that have a gradient ``[R, ...]``, in the replicas that ``moves`` names, bool ``[R]``."""

    @abstractmethod
    def state(self) -> Any:
        """What the next step rests on, as plain values."""

    @abstractmethod
    def load(self, state: Any) -> None:
        """Take over a copy of what `state` gave."""


class Together(Adam):
    """One optimiser for all replicas, which count their steps together: for replicas that stop for good, if at all.

    One that stands still has the gradient and the first moment 0, which leave its weights where they are.

    >>> weights = {"w": torch.ones(2, 3)}  # two replicas
    >>> adam = Together(weights, betas=(0.9, 0.999), epsilon=1e-8)
    >>> adam.step({"w": torch.ones(2, 3)}, torch.tensor([True, False]), learning_rate=0.5)
    >>> weights["w"].round(decimals=4)
    tensor([[0.5000, 0.5000, 0.5000],
            [1.0000, 1.0000, 1.0000]])
    """

    def __init__(self, weights: Mapping[str, Tensor], *, betas: tuple[float, float], epsilon: float) -> None:
        self._weights = weights
        self._optimiser = torch.optim.Adam(list(weights.values()), betas=betas, eps=epsilon, fused=True)

    def step(self, gradients: Mapping[str, Tensor], moves: Tensor, learning_rate: float) -> None:
        all_move = surely(moves.all())
        for name, value in self._weights.items():
            gradient = gradients.get(name)  # without one Adam passes a weight by: its moments and its count stay
            if gradient is not None and not all_move:
                moving = moves.view((-1,) + (1,) * (value.dim() - 1))
                gradient = torch.where(moving, gradient, torch.zeros_like(gradient))
                moment = self._optimiser.state[value].get("exp_avg")
                if moment is not None:
                    moment.mul_(moving)
            value.grad = gradient
        self._optimiser.param_groups[0]["lr"] = learning_rate
        self._optimiser.step()

    def state(self) -> dict[str, Any]:
        return self._optimiser.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict):
            raise TypeError(OTHER)
        self._optimiser.load_state_dict(copy.deepcopy(state))  # it would move the moments of ``state`` on


class Apart(Adam):
    """An optimiser for each replica, on its part of the weights: for weights that decay and steps that are skipped.

    Each replica counts its own steps. One that stands still is passed by through ``found_inf``, by which fused
    optimisers skip a step on the device.

    >>> weights = {"w": torch.ones(2, 3)}  # two replicas
    >>> adam = Apart(weights, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.1)
    >>> adam.step({"w": torch.ones(2, 3)}, torch.tensor([True, False]), learning_rate=0.5)
    >>> weights["w"].round(decimals=4)
    tensor([[0.4500, 0.4500, 0.4500],
            [1.0000, 1.0000, 1.0000]])
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, betas: tuple[float, float], epsilon: float, weight_decay: float
    ) -> None:
        n_replicas = len(next(iter(weights.values())))
        self._parts = [{name: value.detach()[r] for name, value in weights.items()} for r in range(n_replicas)]
        self._optimisers = [
            torch.optim.AdamW(list(part.values()), betas=betas, eps=epsilon, weight_decay=weight_decay, fused=True)
            for part in self._parts
        ]

    def step(self, gradients: Mapping[str, Tensor], moves: Tensor, learning_rate: float) -> None:
        stands = (~moves).float()
        for replica, (part, optimiser) in enumerate(zip(self._parts, self._optimisers, strict=True)):
            for name, value in part.items():
                value.grad = gradients[name][replica] if name in gradients else None
            optimiser.found_inf = stands[replica]  # type: ignore[attr-defined]
            optimiser.param_groups[0]["lr"] = learning_rate
            optimiser.step()

    def state(self) -> list[dict[str, Any]]:
        return [optimiser.state_dict() for optimiser in self._optimisers]

    def load(self, state: list[dict[str, Any]]) -> None:
        if not isinstance(state, list) or len(state) != len(self._optimisers):
            raise TypeError(OTHER)
        for optimiser, one in zip(self._optimisers, state, strict=True):
            optimiser.load_state_dict(copy.deepcopy(one))
