"""Whether training has settled: the words at half of it, and beta."""

import dataclasses

import numpy as np
import pytest

from hvae.data import Dataset, load
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import evaluate
from hvae.lab.runs.run import Run
from hvae.lab.training.halfway import HALFWAY, not_settled
from hvae.lab.training.loop import train
from hvae.schedules import Constant, Cyclical, LinearWarmup, Schedule
from hvae.vocabulary import ACTIVE, FAILED, NOT_SETTLED, TO_PRIOR, UNDECIDED

CONFIG = RunConfig(
    data=DataConfig(name="digits-threshold", n_train=256),
    model=ModelConfig(latents=(3, 2), hidden=((8,),), batch_norm=(True,)),
    training=TrainingConfig(seeds=(3, 5), n_steps=10, batch_size=64),
    evaluation=EvaluationConfig(n_images=80, max_paths=16, n_likelihood=20, n_samples=30),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(CONFIG.data.name, n_train=CONFIG.data.n_train)


def with_beta(beta: Schedule) -> RunConfig:
    return dataclasses.replace(CONFIG, objective=ObjectiveConfig(beta=beta))


def words(*of_replicas: str) -> np.ndarray:
    return np.array([[word] * 3 for word in of_replicas])


def test_it_is_judged_at_half_and_training_goes_on_as_if_not(
    data: Dataset, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create_or_open(tmp_path, "trial", "judged", CONFIG)
    train(run, data, progress=False)
    found = run.load_arrays(HALFWAY)
    assert found["verdict/z1"].shape == (2, 3) and int(found["step"]) == 5
    monkeypatch.setattr("hvae.lab.training.loop.measure_halfway", lambda *_: None)
    other = Run.create_or_open(tmp_path, "other", "not judged", CONFIG)
    train(other, data, progress=False)
    assert [row["loss_nats"] for row in run.read_metrics()] == [row["loss_nats"] for row in other.read_metrics()]
    assert not other.has_arrays(HALFWAY)
    evaluate(run, data, progress=False)
    assert run.load_arrays("diagnostics")["verdict/z1"].shape == (2, 3)


@pytest.mark.parametrize(
    ("was", "now", "mark"),
    [
        (ACTIVE, TO_PRIOR, NOT_SETTLED),
        (TO_PRIOR, ACTIVE, NOT_SETTLED),
        (ACTIVE, ACTIVE, ""),
        (UNDECIDED, ACTIVE, ""),
        (ACTIVE, UNDECIDED, ""),
        (ACTIVE, FAILED, ""),
    ],
)
def test_two_sure_verdicts_that_differ(was: str, now: str, mark: str, tmp_path) -> None:
    run = Run.create_or_open(tmp_path, "trial", "a", CONFIG)
    run.save_arrays(HALFWAY, {"verdict/z1": words(was, ACTIVE), "epsilon_nats": np.array(0.1)})
    assert not_settled(run, {"z1": words(now, ACTIVE)}) == {"z1": (mark, "")}
    assert not_settled(run, {"z2": words(now, ACTIVE)}) == {"z2": ("", "")}  # not judged at half
    run.save_arrays(HALFWAY, {"verdict/z1": words(was, ACTIVE), "epsilon_nats": np.array(0.3)})
    assert not_settled(run, {"z1": words(now, ACTIVE)}) == {"z1": ("", "")}  # at another threshold


@pytest.mark.parametrize(
    ("beta", "late"),
    [(Constant(0.5), False), (LinearWarmup(4), False), (LinearWarmup(6), True), (LinearWarmup(5000), True),
     (Cyclical(4), False)],
)  # fmt: skip
def test_beta_that_ends_after_half(beta: Schedule, late: bool, tmp_path) -> None:
    run = Run.create_or_open(tmp_path, "trial", "a", with_beta(beta))
    assert not_settled(run, {"z1": words(ACTIVE, FAILED)}) == {"z1": (NOT_SETTLED if late else "", "")}
