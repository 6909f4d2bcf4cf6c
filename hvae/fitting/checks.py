"""What `fit` refuses before anything is trained, one sentence each."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from hvae.errors import ConfigError
from hvae.fitting.replicas import Replicas
from hvae.fitting.stage import Stage


def check_stages(stages: Sequence[Stage], n_steps: int) -> Sequence[Stage]:
    """Refuse no steps, and stages that do not follow each other within them."""
    if not isinstance(n_steps, int) or n_steps < 1:
        raise ConfigError(f"n_steps is {n_steps}; give a whole number of 1 or more.")
    starts = [stage.from_step for stage in stages]
    if any(a >= b for a, b in pairwise((*starts, n_steps))):
        raise ConfigError(
            f"then begins stages at {starts[1:]}; give rising steps between 0 and n_steps, which is {n_steps}."
        )
    return stages


def check_seeds(seeds: Sequence[int], n_replicas: int) -> Sequence[int]:
    """Refuse seeds that are not one for each model."""
    given = list(seeds)
    if len(given) != n_replicas or len(set(given)) != len(given) or any(seed < 0 for seed in given):
        raise ConfigError(
            f"seeds is {given} for {n_replicas} models; give each a seed of its own, a whole number of 0 or more."
        )
    return given


def check_update(**numbers: float) -> None:
    """Refuse settings of Adam that are out of range."""
    ranges: dict[str, tuple[Callable[[float], bool], str]] = {
        "clip_norm": (lambda value: value >= 0, "0 (no clipping) or more"),
        "adam_epsilon": (lambda value: value > 0, "more than 0"),
        "ema_decay": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    }
    for name, value in numbers.items():
        fits, wanted = ranges[name]
        if not fits(value):
            raise ConfigError(f"{name} is {value}; give {wanted}.")


def check_trainable(
    trainable: Collection[str] | Callable[[int], Collection[str]], weights: Collection[str]
) -> Callable[[int], Collection[str]]:
    """A function of the step. Refuses names that no weight has; of a function, those of the first step."""
    named = trainable(0) if callable(trainable) else trainable
    unknown = sorted(set(named) - set(weights))
    if unknown or isinstance(named, str):
        raise ConfigError(
            f"trainable names {named if isinstance(named, str) else unknown[0]!r}, which is no weight that trains; "
            "give a set of names from model.named_parameters()."
        )
    if callable(trainable):
        return trainable
    if not named:
        raise ConfigError("trainable is empty; name at least one weight, or leave it out to train all.")
    chosen = frozenset(named)
    return lambda step: chosen


def check_state(state: Mapping[str, Any], replicas: Replicas) -> None:
    """Refuse a state of other models."""
    for kind, tensors in {"parameters": replicas.weights, "buffers": replicas.buffers}.items():
        found = {name: list(value.shape) for name, value in state.get(kind, {}).items()}
        here = {name: list(value.shape) for name, value in tensors.items()}
        for name in (*here, *found):
            if found.get(name) != here.get(name):
                raise ConfigError(
                    f"state is of other models: {name} is {found.get(name, 'absent')} there and "
                    f"{here.get(name, 'absent')} here, replicas first; give the state of a fit of as many such models."
                )
