"""From gradients to new weights, for R replicas.

A replica with a loss or gradient that is not finite is stopped at its last finite weights; the others go on. One whose
gradient is larger than ``skip_norm`` skips the step: its weights, moments, count of steps and average stay. A weight
that a step does not train has no gradient there, so neither it nor its moments change, in any replica. Nothing here
waits for the device. On a CPU, where asking is free, passes over all gradients that would change nothing are left out:
they take longer than the matrix products.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hvae.fitting.adam import Adam, Apart, Together
from hvae.fitting.health import Health, surely


class Update:
    """Adam on weights ``[R, ...]``, with gradients clipped by the norm of each replica, and the weights' averages.

    >>> weights = {"w": torch.ones(2, 3, requires_grad=True)}  # two replicas
    >>> update = Update(weights, ("x",), clip_norm=0.0, adam_epsilon=1e-8, ema_decay=0.0)
    >>> gradient = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, torch.nan]])
    >>> update(0, 0.5, torch.zeros(2), {"distortion_nats": torch.zeros(2)}, [gradient], {"w"})
    >>> weights["w"].detach().round(decimals=4), update.health.alive
    (tensor([[0.5000, 0.5000, 0.5000],
            [1.0000, 1.0000, 1.0000]]), tensor([ True, False]))
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        variables: tuple[str, ...],
        *,
        clip_norm: float,
        adam_epsilon: float,
        ema_decay: float,
        skip_norm: float = 0.0,
        weight_decay: float = 0.0,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        visited: tuple[str, ...] = (),
    ) -> None:
        self.weights = weights
        self.latest = {name: value.detach() for name, value in weights.items()}
        self.averaged = {name: value.clone() for name, value in self.latest.items()} if ema_decay > 0 else self.latest
        self.clip_norm, self.skip_norm, self.ema_decay = clip_norm, skip_norm, ema_decay
        if skip_norm > 0 or weight_decay > 0:
            self.adam: Adam = Apart(weights, betas=adam_betas, epsilon=adam_epsilon, weight_decay=weight_decay)
        else:
            self.adam = Together(weights, betas=adam_betas, epsilon=adam_epsilon)
        first = next(iter(weights.values()))
        self.health = Health(len(first), variables, tuple(weights), str(first.device), visited=visited)
        self._places: dict[frozenset[str], Tensor] = {}
        self._kept: dict[int, Tensor] = {}

    def __call__(
        self,
        step: int,
        learning_rate: float,
        loss: Tensor,
        terms: Mapping[str, Tensor],
        gradients: Sequence[Tensor],
        trained: Collection[str],
    ) -> None:
        """Move the weights named in ``trained`` by gradients ``[R, ...]``; ``loss`` ``[R]`` tells who is finite."""
        gradients = [self._laid_out(place, gradient) for place, gradient in enumerate(gradients)]
        squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients])  # [weight, R]
        self.health.check(step, loss, terms, squares, infinite_is_large=self.skip_norm > 0)
        moves, scale = self.health.alive, torch.ones_like(loss)
        if self.clip_norm > 0 or self.skip_norm > 0:
            norm = squares[self._applied(trained)].sum(0).sqrt()
            if self.clip_norm > 0:
                scale = (self.clip_norm / norm).clamp(max=1)
            if self.skip_norm > 0:
                moves = moves & ~(norm > self.skip_norm)
                self.health.skip(self.health.alive & ~moves, squares)
        clips = not surely((scale == 1).all())  # one more pass over all gradients would change nothing
        applied = {}
        for (name, value), gradient in zip(self.weights.items(), gradients, strict=True):
            if name in trained:
                per_replica = (-1,) + (1,) * (value.dim() - 1)
                applied[name] = gradient * scale.view(per_replica).to(gradient) if clips else gradient
        self.adam.step(applied, moves, learning_rate)
        if self.ema_decay > 0:
            self._average(moves)

    def _average(self, moves: Tensor) -> None:
        """Bring the averages nearer to the weights; those of a replica that skipped the step stay."""
        if self.skip_norm == 0 or surely(moves.all()):
            torch._foreach_lerp_(list(self.averaged.values()), list(self.latest.values()), 1 - self.ema_decay)
            return
        for name, value in self.averaged.items():
            nearer = (1 - self.ema_decay) * moves.view((-1,) + (1,) * (value.dim() - 1)).to(value)
            value.lerp_(self.latest[name], nearer)

    def _laid_out(self, place: int, gradient: Tensor) -> Tensor:
        """A gradient in the order of its weight, as fused Adam misreads any other: in memory that is kept, since new
        memory costs more than the copy."""
        if gradient.is_contiguous():
            return gradient
        if place not in self._kept:
            self._kept[place] = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        return self._kept[place].copy_(gradient)

    def _applied(self, trained: Collection[str]) -> Tensor:
        """Places of the weights that a step trains; kept, as a mask or a new tensor would wait for the device."""
        key = frozenset(trained)  # the same object where it is one already
        if key not in self._places:
            places = [place for place, name in enumerate(self.weights) if name in key]
            self._places[key] = torch.tensor(places, device=self.health.alive.device)
        return self._places[key]

    def state(self) -> dict[str, Any]:
        """A copy of all that the next step rests on."""
        return copy.deepcopy(
            {
                "parameters": self.latest,
                "averaged": self.averaged,
                "optimiser": self.adam.state(),
                "health": self.health.state(),
            }
        )

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        averaged = {"averaged": self.averaged} if self.ema_decay > 0 else {}
        for kind, tensors in {"parameters": self.latest, **averaged}.items():
            for name, value in tensors.items():
                value.copy_(state[kind][name])
        self.adam.load(state["optimiser"])
        self.health.load(state["health"])
