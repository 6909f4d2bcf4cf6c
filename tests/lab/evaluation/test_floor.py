"""The floor under a run's likelihood: from its training data, with a mark where training went wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvae.analysis.load import load_runs
from hvae.analysis.tables.floor import below, floor_text
from hvae.analysis.tables.likelihood import likelihood_csv, likelihoods
from hvae.analysis.terminal import verdict_text
from hvae.data import Dataset, load
from hvae.families import DiscretisedLogistic
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import evaluate
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import train
from hvae.likelihood import Columns, floor_datum_nats
from hvae.schedules import Constant
from hvae.vocabulary import BELOW_FLOOR

CONFIG = RunConfig(
    data=DataConfig(name="digits-threshold"),
    model=ModelConfig(latents=(2,), hidden=((8,),)),
    training=TrainingConfig(seeds=(3,), n_steps=100, batch_size=64),
    evaluation=EvaluationConfig(n_images=80, max_paths=16, n_likelihood=60, n_samples=20),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(CONFIG.data.name)


def made(data: Dataset, folder: Path, config: RunConfig) -> Run:
    run = Run.create_or_open(folder, "trial", "digits", config)
    train(run, data, progress=False)
    evaluate(run, data, progress=False)
    return run


def test_a_run_with_an_absurd_learning_rate_is_marked(data: Dataset, tmp_path: Path) -> None:
    training = replace(CONFIG.training, learning_rate=Constant(50.0))
    run = made(data, tmp_path, replace(CONFIG, training=training))
    (loaded,) = runs = load_runs(run.path)
    assert loaded.likelihood is not None and loaded.likelihood.marks == (BELOW_FLOOR,)
    assert floor_text(loaded.likelihood).endswith(f", {BELOW_FLOOR} 1/1") and below(runs)
    assert "Below the floor in 1 of 1 replicas." in " ".join(verdict_text(run.path).split())
    table = likelihoods(runs)
    assert table is not None and table.columns[-1].name == "floor" and BELOW_FLOOR in table.rows[0][-1].text
    assert f",floor,{loaded.likelihood.floor_nats[0, 0]:.6g}," in likelihood_csv(runs)
    assert f",,,{BELOW_FLOOR}," in likelihood_csv(runs)


def test_a_collapsed_run_that_is_trained_well_is_not(data: Dataset, tmp_path: Path) -> None:
    training = replace(CONFIG.training, n_steps=1200, learning_rate=Constant(5e-3))
    objective = ObjectiveConfig(beta=Constant(100.0))
    run = made(data, tmp_path, replace(CONFIG, training=training, objective=objective))
    (loaded,) = runs = load_runs(run.path)
    found = loaded.likelihood
    assert found is not None and found.marks == ("",) and below(runs) == ""
    assert loaded.layers[0].verdict[0, 1].startswith("collapsed")
    assert abs(found.log_px_nats[0, 1] - found.floor_nats[0, 1]) < 0.2
    ones = (data.train.numpy().astype(np.float64).sum(0) + 0.5) / (len(data.train) + 1)
    x = data.test[run.load_arrays("likelihood")["image_index"]].numpy()
    wanted = np.where(x > 0.5, np.log(ones), np.log(1 - ones)).sum(1)
    np.testing.assert_allclose(found.floor_datum_nats[0], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("observation", ["discretised-logistic", "discretised-logistic-mixture"])
def test_grey_values_in_levels_have_a_floor_in_bits_too(observation: Any, tmp_path: Path) -> None:
    model = replace(CONFIG.model, observation=observation, n_levels=17)
    grey = load("digits-grey")
    run = made(grey, tmp_path, replace(CONFIG, data=DataConfig(name="digits-grey"), model=model))
    (loaded,) = runs = load_runs(run.path)
    found = loaded.likelihood
    assert found is not None and found.bits_per_dim is not None and found.floor_bits_per_dim is not None
    assert found.floor_bits_per_dim[0, 1] == pytest.approx(-found.floor_nats[0, 1] / 64 / np.log(2), rel=1e-12)
    of_training = floor_datum_nats(DiscretisedLogistic(64, n_levels=17), Columns.of(grey.train), grey.test)
    index = run.load_arrays("likelihood")["image_index"]
    np.testing.assert_allclose(found.floor_datum_nats[0], of_training[index].numpy(), rtol=0, atol=1e-10)
    assert found.bits_per_dim[0, 1] == pytest.approx(-found.log_px_nats[0, 1] / 64 / np.log(2), rel=1e-12)
    table = likelihoods(runs)
    assert table is not None and [column.name for column in table.columns][-1] == "bits/dim ≤"
    bits = f"{found.floor_bits_per_dim[0, 1]:.3f}"
    assert table.rows[0][-3].text == bits and (table.columns[-3].name, table.columns[-3].unit) == ("floor", "bits/dim")
    said = " ".join(verdict_text(run.path).split())
    assert f" nats ({bits} bits per dimension), independent columns fitted to the training data." in said
