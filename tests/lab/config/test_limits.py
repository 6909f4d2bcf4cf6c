"""Least and most stand beside every number of the configuration, and hold."""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from hvae.errors import ConfigError
from hvae.lab.config import (
    BlocksConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    Stage,
    TrainingConfig,
)
from hvae.lab.config.checks import MOST_ENTRIES, limits
from hvae.schedules import Constant

SECTIONS = (DataConfig, ModelConfig, BlocksConfig, ObjectiveConfig, TrainingConfig, EvaluationConfig, Stage)
BLOCKS: dict[str, Any] = {"decoder": "1x1,2m1"}
STAGE: dict[str, Any] = {"from_step": 5, "objective": ObjectiveConfig(), "learning_rate": Constant(1e-3)}
NEEDED: dict[type, dict[str, Any]] = {BlocksConfig: BLOCKS, Stage: STAGE}


def numeric() -> Iterator[tuple[type, str, Any]]:
    """Every field that holds numbers: its section, its name, its type without what stands beside it."""
    for section in SECTIONS:
        for name, hint in get_type_hints(section).items():
            entry = hint
            while get_origin(entry) is tuple:
                entry = get_args(entry)[0]
            if entry in (int, float) or Constant in get_args(entry):
                yield section, name, hint


NUMERIC = list(numeric())


def given(hint: Any, number: float) -> Any:
    """A value of the field that holds the number."""
    if get_origin(hint) is tuple:
        return (given(get_args(hint)[0], number),)
    return Constant(number) if Constant in get_args(hint) else number


@pytest.mark.parametrize(("section", "name", "hint"), NUMERIC, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_number_has_a_least_and_a_most(section: type, name: str, hint: Any) -> None:
    between = limits(section)[name]
    assert between is not None and between.least < between.most
    step = 1 if isinstance(between.least, int) and isinstance(between.most, int) else abs(between.most) * 1e-9 + 1e-9
    for number in (
        between.least - step,
        between.most + step,
        -(10**400),
        10**400,
        10**5000,
        float("inf"),
        float("nan"),
    ):
        values = NEEDED.get(section, {}) | {name: given(hint, number)}
        with pytest.raises(ConfigError) as refusal:
            made = section(**values)
            if section is Stage:  # a stage is checked by the training that it belongs to
                TrainingConfig(then=(made,))
        sentence = str(refusal.value)
        assert (
            f"{name} is " in sentence
            and f"give {between}." in sentence
            and "\n" not in sentence
            and len(sentence) < 200
        )


def test_defaults_lie_within() -> None:
    assert len(NUMERIC) > 50
    for section in SECTIONS:
        for field in dataclasses.fields(section):
            between = limits(section).get(field.name)
            made = field.default_factory is not dataclasses.MISSING
            default = field.default_factory() if made else field.default  # type: ignore[misc]
            if between is not None and default is not dataclasses.MISSING:
                assert not between.refuses(default), field.name


@pytest.mark.parametrize(
    "values",
    [
        {"training": {"seeds": list(range(MOST_ENTRIES + 1))}},
        {"model": {"latents": [2] * (MOST_ENTRIES + 1)}},
        {"model": {"blocks": "1x900,1x900"}},
        {"model": {"blocks": ",".join(["1"] * 5000)}},
        {"model": {"blocks": "9" * 5000}},
        {"model": {"blocks": "1x" + "9" * 5000}},
        {"training": {"learning_rate": 10**400}},
        {"training": {"n_steps": 10**5000}},
        {"training": {"adam_epsilon": 10**400}},
        {"objective": {"beta": {"warmup_steps": 10, "stop": 1e300}}},
        {"objective": {"beta": {"values": [1.0, 1e7], "boundaries": [5]}}},
        {"training": {"seeds": [2**64]}},
        {"data": {"n_train": 2**63}},
    ],
)
def test_what_is_too_much_is_refused_at_once(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        RunConfig.from_dict(values)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
