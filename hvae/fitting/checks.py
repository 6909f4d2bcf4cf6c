"""What `fit` refuses before anything is trained, one sentence each."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from torch import nn

from hvae.errors import ConfigError
from hvae.fitting.replicas import Replicas
from hvae.fitting.stage import Stage
from hvae.foreign.model import Model
from hvae.schedules import unfinished


def given_models(models: Any) -> list[Any]:
    """One model or several, in a list; `Replicas` looks at each.

    >>> len(given_models([nn.Linear(2, 2), nn.Linear(2, 2)]))
    2
    """
    if isinstance(models, nn.Module | Model):
        return [models]
    if isinstance(models, str | Mapping) or not isinstance(models, Iterable):
        raise ConfigError(
            f"models is {type(models).__name__}; give an hvae.HVAE or a hvae.Model, or a list of them, as replicas."
        )
    return list(models)


def check_given(*, then: Any, seeds: Any, settling: Any, trainable: Any, also: Any, state: Any) -> None:
    """Refuse arguments of `fit` of another type than it takes."""
    if not isinstance(then, list | tuple) or not all(isinstance(stage, Stage) for stage in then):
        raise ConfigError(f"then is {_short(then)}; give a list of hvae.Stage.")
    for name, numbers in {"seeds": seeds, "settling": settling}.items():
        wrong = isinstance(numbers, str | Mapping) or not isinstance(numbers, Collection)
        if numbers is not None and (wrong or not all(_is(number, Integral) for number in numbers)):
            raise ConfigError(f"{name} is {_short(numbers)}; give a list of whole numbers.")
    if not (trainable is None or callable(trainable)):
        _check_names(trainable)
    if not callable(also):
        raise ConfigError(f"also is {_short(also)}; give a function of the evidence and the step.")
    if not (state is None or isinstance(state, Mapping)):
        raise ConfigError(f"state is {_short(state)}; give what Fit.state gave.")


def _check_names(names: Any) -> None:
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"trainable gives {_short(names)}; give a set of names from model.named_parameters(), or a function from "
            "the step to one."
        )


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return repr(value)[:80]


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


def warn_of_schedules(stages: Sequence[Stage], n_steps: int) -> None:
    """Warn of a beta, and of a learning rate, that does not end within its stage."""
    ends = (*(stage.from_step for stage in stages[1:]), n_steps)
    for stage, end in zip(stages, ends, strict=True):
        parts = (stage.objective, *vars(stage.objective).values())  # an objective may be made of another
        beta = next((part.beta for part in parts if hasattr(part, "beta")), None)
        for name, schedule in (("beta", beta), ("learning_rate", stage.learning_rate)):
            found = unfinished(schedule, end - stage.from_step)
            if found:
                warnings.warn(f"{name} {found}; give it fewer steps, or train longer.", stacklevel=3)


def check_seeds(seeds: Sequence[int], n_replicas: int) -> Sequence[int]:
    """Refuse seeds that are not one for each model."""
    given = list(seeds)
    if len(given) != n_replicas or len(set(given)) != len(given) or any(seed < 0 for seed in given):
        raise ConfigError(
            f"seeds is {given} for {n_replicas} models; give each a seed of its own, a whole number of 0 or more."
        )
    return given


def check_update(*, adam_betas: Any, **numbers: float) -> None:
    """Refuse settings of Adam, of clipping and of skipping that are out of range, or against each other."""
    ranges: dict[str, tuple[Callable[[float], bool], str]] = {
        "clip_norm": (lambda value: value >= 0, "0 (no clipping) or more"),
        "skip_norm": (lambda value: value >= 0, "0 (no step is skipped) or more"),
        "weight_decay": (lambda value: 0 <= value < float("inf"), "0 (no decay) or more"),
        "adam_epsilon": (lambda value: value > 0, "more than 0"),
        "ema_decay": (lambda value: 0 <= value < 1, "a number in [0, 1)"),
    }
    for name, value in numbers.items():
        fits, wanted = ranges[name]
        if not _is(value, Real) or not fits(value):
            raise ConfigError(f"{name} is {value}; give {wanted}.")
    pair = isinstance(adam_betas, tuple | list) and len(adam_betas) == 2
    if not pair or not all(_is(beta, Real) and 0 <= beta < 1 for beta in adam_betas):
        raise ConfigError(f"adam_betas is {_short(adam_betas)}; give two numbers in [0, 1), as (0.9, 0.999).")
    clip, skip = numbers.get("clip_norm", 0.0), numbers.get("skip_norm", 0.0)
    if 0 < skip < clip:
        raise ConfigError(
            f"skip_norm is {skip} and clip_norm {clip}, so a gradient that is large enough to be clipped is skipped; "
            f"give a skip_norm above {clip}, or a clip_norm of 0."
        )


def check_trainable(
    trainable: Collection[str] | Callable[[int], Collection[str]], weights: Collection[str]
) -> Callable[[int], Collection[str]]:
    """A function of the step. Refuses names that no weight has; of a function, those of the first step."""
    named = trainable(0) if callable(trainable) else trainable
    _check_names(named)
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
        held = state.get(kind, {})
        if not isinstance(held, Mapping):
            raise ConfigError(f"the {kind} of state are {_short(held)}; give what Fit.state gave.")
        found = {name: list(getattr(value, "shape", ())) for name, value in held.items()}
        here = {name: list(value.shape) for name, value in tensors.items()}
        for name in (*here, *found):
            if found.get(name) != here.get(name):
                raise ConfigError(
                    f"state is of other models: {name} is {found.get(name, 'absent')} there and "
                    f"{here.get(name, 'absent')} here, replicas first; give the state of a fit of as many such models."
                )
