"""From gradients to new weights, for R replicas under one optimiser.

A replica with a loss or gradient that is not finite is stopped at its last finite weights. Its gradient and first
moment become 0, so Adam leaves them alone; the others go on. A weight that a step does not train has no gradient there,
so neither it nor its moments change, in any replica. Nothing here waits for the device. On a CPU, where asking is free,
passes over all gradients that would change nothing are left out: they take longer than the matrix products.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

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
    ) -> None:
        self.weights = weights
        self.latest = {name: value.detach() for name, value in weights.items()}
        self.averaged = {name: value.clone() for name, value in self.latest.items()} if ema_decay > 0 else self.latest
        self.clip_norm, self.ema_decay = clip_norm, ema_decay
        self.optimiser = torch.optim.Adam(list(weights.values()), eps=adam_epsilon, fused=True)
        first = next(iter(weights.values()))
        self.health = Health(len(first), variables, tuple(weights), str(first.device))
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
        self.health.check(step, loss, terms, squares)
        alive, scale = self.health.alive, torch.ones_like(loss)
        if self.clip_norm > 0:
            applied = self._applied(trained)
            scale = (self.clip_norm / squares[applied].sum(0).sqrt()).clamp(max=1)
        as_it_is = surely((alive & (scale == 1)).all())  # more passes over all gradients would change nothing
        for (name, value), gradient in zip(self.weights.items(), gradients, strict=True):
            if name not in trained:
                value.grad = None  # Adam passes it by: its moments and its count of steps stay
                continue
            value.grad = gradient
            if as_it_is:
                continue
            per_replica = (-1,) + (1,) * (value.dim() - 1)
            clipped = gradient * scale.view(per_replica).to(gradient)
            value.grad = torch.where(alive.view(per_replica), clipped, torch.zeros_like(clipped))
            moment = self.optimiser.state[value].get("exp_avg")
            if moment is not None:
                moment.mul_(alive.view(per_replica))
        self.optimiser.param_groups[0]["lr"] = learning_rate
        self.optimiser.step()
        if self.ema_decay > 0:
            torch._foreach_lerp_(list(self.averaged.values()), list(self.latest.values()), 1 - self.ema_decay)

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
                "optimiser": self.optimiser.state_dict(),
                "health": self.health.state(),
            }
        )

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        averaged = {"averaged": self.averaged} if self.ema_decay > 0 else {}
        for kind, tensors in {"parameters": self.latest, **averaged}.items():
            for name, value in tensors.items():
                value.copy_(state[kind][name])
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))  # it would move the moments of ``state`` on
        self.health.load(state["health"])
