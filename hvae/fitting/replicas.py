"""R models of one shape -> weights with an axis R first, and back."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hvae.errors import ConfigError
from hvae.evidence import HVAE


class Replicas:
    """The weights of R models, stacked: those that train, those that stand still, and the buffers.

    The models keep their own weights until `put` gives them these. Raises `ConfigError` for no models, for what is no
    `HVAE`, and for models that differ in a name, a shape, a type or a device, or have weights in common.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> replicas = Replicas([linear_stack(1.0, "best", seed=seed).model for seed in range(3)])
    >>> {len(weight) for weight in replicas.weights.values()}
    {3}
    """

    def __init__(self, models: Sequence[HVAE]) -> None:
        check_alike(models)
        self.models = list(models)
        first = self.models[0]
        stacked = {name: _stack(models, name) for name, _ in first.named_parameters()}
        free = {name for name, weight in first.named_parameters() if weight.requires_grad}
        self.weights = {name: value.requires_grad_() for name, value in stacked.items() if name in free}
        self.fixed = {name: value for name, value in stacked.items() if name not in free}
        self.buffers = {name: _stack(models, name) for name, _ in first.named_buffers()}
        if not self.weights:
            raise ConfigError(
                "the models have no weights to train; register their nets as modules, and set requires_grad_(True)."
            )

    def __len__(self) -> int:
        return len(self.models)

    @property
    def still(self) -> dict[str, Tensor]:
        """What no step trains."""
        return self.buffers | self.fixed

    @property
    def device(self) -> torch.device:
        return next(iter(self.weights.values())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.weights.values())).dtype

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give every model its own part of ``weights`` and of the buffers."""
        for replica, model in enumerate(self.models):
            put(model, weights, self.buffers, replica)

    def take_buffers(self) -> None:
        """Take the buffers over from the models."""
        for replica, model in enumerate(self.models):
            for name, value in model.named_buffers():
                self.buffers[name][replica] = value


def put(model: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], replica: int) -> None:
    """Give a model its part of ``weights`` and ``buffers``, both ``[R, ...]``; what they do not name stays."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name][replica])
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name][replica])


def check_alike(models: Sequence[HVAE]) -> None:
    """Refuse models that one step cannot train."""
    if len(models) == 0:
        raise ConfigError("models is empty; give at least one model, as in [make(seed=0)].")
    for place, model in enumerate(models):
        if not isinstance(model, HVAE):
            raise ConfigError(
                f"models[{place}] is {type(model).__name__}; give an hvae.HVAE, a decoder and a posterior."
            )
    first, owner = _signature(models[0]), {id(weight): 0 for weight in models[0].parameters()}
    for place, model in enumerate(models[1:], 1):
        other = _signature(model)
        for name in (*first, *other):
            a, b = first.get(name, "absent"), other.get(name, "absent")
            if a != b:
                raise ConfigError(
                    f"models[{place}] differs from models[0]: {name} is {b}, there {a}; train models of different "
                    "shapes one by one, each by a fit of its own."
                )
        for name, weight in model.named_parameters():
            if id(weight) in owner:
                raise ConfigError(
                    f"models[{place}] and models[{owner[id(weight)]}] share the weight {name}; make every model anew, "
                    "each from a seed of its own."
                )
            owner[id(weight)] = place
    odd = {str(weight.device) for weight in models[0].parameters()}
    if len(odd) > 1:
        raise ConfigError(f"the weights of a model lie on {' and '.join(sorted(odd))}; put it on one device.")


def _signature(model: HVAE) -> dict[str, str]:
    """What is to agree between replicas, in words: the latents, and each weight and buffer."""
    found = {"the list of latents": ", ".join(model.latents)}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        found[name] = f"{list(value.shape)} of {value.dtype} on {value.device}"
        if isinstance(value, nn.Parameter) and not value.requires_grad:
            found[name] += ", frozen"
    return found


def _stack(models: Sequence[HVAE], name: str) -> Tensor:
    return torch.stack([_entry(model, name) for model in models]).detach()


def _entry(model: HVAE, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    value = getattr(model.get_submodule(owner), last)
    assert isinstance(value, Tensor)
    return value
