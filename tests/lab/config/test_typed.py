"""Settings as they are typed are read back as they were."""

import shlex

import pytest

from hvae.lab.config import BlocksConfig, ModelConfig, ObjectiveConfig, RunConfig, Stage, TrainingConfig, as_typed
from hvae.lab.experiment import find
from hvae.lab.options import parse
from hvae.schedules import Cyclical, LinearWarmup, PiecewiseConstant


def read_back(config: RunConfig) -> RunConfig:
    line = " ".join(f"{option} {value}" for option, value in as_typed(config).items())
    values = parse(["train", *shlex.split(line)])[1].as_dict()
    return RunConfig.from_dict({section: values[section] for section in RunConfig.__dataclass_fields__})


STAGES = RunConfig(
    training=TrainingConfig(
        then=(Stage(300, ObjectiveConfig(beta=Cyclical(100)), PiecewiseConstant((1e-3, 1e-4), (50,))),), n_steps=400
    )
)


BLOCKS = RunConfig(model=ModelConfig(blocks=BlocksConfig("8x2", widths=((8, 16),), skips=False)))
WARM = RunConfig(objective=ObjectiveConfig(beta=LinearWarmup(5)))


@pytest.mark.parametrize("config", [RunConfig(), WARM, STAGES, BLOCKS])
def test_typed_and_read_back(config: RunConfig) -> None:
    assert read_back(config) == config


@pytest.mark.parametrize("name", ["cures", "wang-staircase"])
def test_runs_of_an_experiment_can_be_typed(name: str) -> None:
    config = list(find(name).configs("cpu").values())[-1]
    assert read_back(config) == config


def test_only_what_is_needed_is_typed() -> None:
    typed = as_typed(RunConfig(objective=ObjectiveConfig(beta=LinearWarmup(500))))
    assert typed["--objective.beta"] == "'{\"warmup_steps\": 500}'"
    assert typed["--model.order"] == "bottom-up" and typed["--model.batch_norm"] == "'[false]'"
