"""What `diagnose` is asked for, looked at before any model.

What cannot be is one sentence then, not a loss after an hour's measurement.
"""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import nn

from hvae.diagnosis.sizes import Budget, Sizes
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.foreign.model import Model
from hvae.foreign.stack import Stack
from hvae.measuring.gap import OF_BLOCKS
from hvae.measuring.on_request import MEASURES
from hvae.topdown import ResidualDecoder

BELOW = 2**63
"""seeds are kept as numbers of 64 bits"""


def models_of(model: Any) -> list[Model | HVAE]:
    """The models that were handed over, one or several replicas; what is none is refused.

    >>> models_of(nn.Linear(2, 2))
    Traceback (most recent call last):
    ...
    hvae.errors.ConfigError: diagnose was given a Linear; make a hvae.Model(infer, generate, encode=…) of it, two \
functions that visit its variables.
    """
    several = isinstance(model, Iterable) and (
        isinstance(model, nn.ModuleList) or not isinstance(model, nn.Module | str | Mapping)
    )
    models = list(model) if several and not isinstance(model, HVAE) else [model]
    if not models:
        raise ConfigError("there is no model to diagnose; give a hvae.Model, or a list of replicas.")
    for each in models:
        if not isinstance(each, Model | HVAE):
            raise ConfigError(
                f"diagnose was given {_kind(each)}; make a hvae.Model(infer, generate, encode=…) of it, two "
                "functions that visit its variables."
            )
    if len({isinstance(each, Model) for each in models}) > 1:
        raise ConfigError("the replicas are of two sorts, hvae.Model and hvae.HVAE; give models of one architecture.")
    return models


def words_of(further: Any) -> tuple[str, ...]:
    """The words of what is measured further; one word is a list of one.

    >>> words_of("gap"), words_of(None), words_of(["exact", "gap", "exact"])
    (('gap',), (), ('exact', 'gap'))
    """
    known = ", ".join(MEASURES)
    if further is None or isinstance(further, str):
        further = [further] if further else []
    if not isinstance(further, Iterable):
        raise ConfigError(f"further is {further!r}; give a list of words out of {known}.")
    words = list(further)
    for word in words:
        if not isinstance(word, str) or word not in MEASURES:
            raise ConfigError(f"further names {word!r}; there is {known}.")
    return tuple(dict.fromkeys(words))


def check_asked(
    *,
    sizes: Any,
    levels: Mapping[str, Sizes],
    budget_seconds: Any,
    budget: Any,
    label: Any,
    seed: Any,
    max_rows: Any,
    own_elbo: Any,
    parents: Any,
) -> None:
    """Refuse arguments of another type or range than `diagnose` takes."""
    if not (sizes is None or isinstance(sizes, Sizes) or (isinstance(sizes, str) and sizes in levels)):
        raise ConfigError(f"sizes is {sizes!r}; give one of {', '.join(levels)}, or a hvae.Sizes.")
    if budget_seconds is not None:
        if not _is(budget_seconds, Real):
            raise ConfigError(f"budget_seconds is {budget_seconds!r}; give a number of seconds, more than 0.")
        if not budget_seconds > 0:
            raise ConfigError(f"budget_seconds is {budget_seconds:g}; give more than 0.")
    if not (budget is None or isinstance(budget, Budget)):
        raise ConfigError(f"budget is {budget!r}; give a hvae.Budget, as in hvae.Budget(images=50).")
    if not isinstance(label, str):
        raise ConfigError(f"label is {label!r}; give text, as in label='beta 4'.")
    if not (_is(seed, Integral) and 0 <= seed < BELOW):
        raise ConfigError(f"seed is {seed!r}; give a whole number, at least 0.")
    if not (max_rows is None or (_is(max_rows, Integral) and max_rows >= 1)):
        raise ConfigError(f"max_rows is {max_rows!r}; give a whole number of 1 or more, or leave it out.")
    several = isinstance(own_elbo, list | tuple) and all(map(callable, own_elbo))
    if not (own_elbo is None or callable(own_elbo) or several):
        raise ConfigError(f"own_elbo is {own_elbo!r}; give a function of x that returns one ELBO a datum, in nats.")
    if parents is not None:
        _check_parents(parents)


def check_replicas(models: list[HVAE]) -> None:
    """Refuse replicas that are no replicas of each other: layer by layer they stand in one record.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> check_replicas([linear_stack(1.0, "best", seed=seed).model for seed in range(2)])
    """
    first = _outline(models[0])
    for place, model in enumerate(models[1:], 1):
        other = _outline(model)
        for what in (*first, *other):
            a, b = first.get(what, "absent"), other.get(what, "absent")
            if a != b:
                raise ConfigError(
                    f"model {place} is no replica of model 0: {what} is {b}, there {a}; diagnose models of different "
                    "architectures one by one."
                )


def check_suited(words: Iterable[str], models: Iterable[HVAE]) -> None:
    """Refuse what is known to take too long, before anything is measured."""
    if "gap" in words and any(isinstance(model.decoder, ResidualDecoder) for model in models):
        raise ConfigError(OF_BLOCKS)


def _outline(model: HVAE) -> dict[str, str]:
    """What agrees between replicas, in words."""
    found = {
        "the order of p": ", ".join(model.decoder.variables),
        "the order of q": ", ".join(model.posterior.order),
    }
    if not isinstance(model, Stack):
        return found | {
            f"the width of {name}": str(model.decoder.family(name).width) for name in model.decoder.variables
        }
    signature = model.functions.signature
    found["what is observed"] = ", ".join(signature.observed)
    for walk, kinds in {"p": signature.p_kinds, "q": signature.q_kinds}.items():
        for name, kind in kinds.items():
            found[f"the shape of {name} under {walk}"] = str(tuple(kind.event))
            found[f"the distribution of {name} under {walk}"] = kind.name
    return found


def _check_parents(parents: Any) -> None:
    remedy = "give a dict of lists of names, as in {'x': ['z']}"
    if not isinstance(parents, Mapping):
        raise ConfigError(f"parents is {parents!r}; {remedy}.")
    for child, names in parents.items():
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise ConfigError(f"parents of {child} is {names!r}; {remedy}.")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
