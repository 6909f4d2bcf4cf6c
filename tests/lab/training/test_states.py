"""States of a training that are seen and said: dead, begun far off, beta and gain at its end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.analysis.load import load_run
from hvae.analysis.study import single
from hvae.analysis.tables.verdict import overview, overview_within
from hvae.analysis.terminal import verdict_text
from hvae.data import Dataset
from hvae.lab.cli import main
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import evaluate
from hvae.lab.runs.remarks import START, remarks, unlucky
from hvae.lab.runs.run import Run
from hvae.lab.runs.survey import find_runs
from hvae.lab.training.halfway import HALFWAY
from hvae.lab.training.loop import train
from hvae.schedules import Constant, Cyclical, LinearWarmup
from hvae.vocabulary import NOT_SETTLED

SMALL = [
    "--model.latents=[3, 2]", "--model.hidden=[[6]]", "--training.seeds=[0, 1]", "--training.batch_size=16",
    "--evaluation.n_images=16", "--evaluation.max_paths=4", "--evaluation.n_likelihood=16", "--evaluation.n_samples=30",
    "--model.observation=gaussian",
]  # fmt: skip
Z = np.random.default_rng(0).standard_normal((200, 3))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(column: np.ndarray | float) -> None:
    values = Z.copy()
    values[:, 1] = column
    np.savetxt("wine.csv", values, delimiter=",", header="ash,proline,hue", comments="")


def test_a_dead_training_stops_at_once_names_its_column_and_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    """Under a variance that is fixed, squares of 1e20 have no float32."""
    table(1e20 * (1 + Z[:, 1] ** 2))
    arguments = ["train", "--data.name=wine.csv", *SMALL, "--model.observation_variance=fixed", "--training.n_steps=99"]
    for _ in range(2):  # the same command again begins again
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        said = err.splitlines()[-1]
        assert out == "" and said.startswith("hvae: All replicas became non-finite, seeds 0, 1 at step 1 in the ")
        assert "the largest numbers of x stand in column 1 (proline), up to " in said and "Traceback" not in err
        (run,) = find_runs(Path("runs"))
        assert not run.done and run.read_metrics() == [] and not run.has_arrays("diagnostics")
        assert run.progress == said.replace("hvae:", "failed:") and main(["list"]) == 0
        assert "failed: All replicas became" in capsys.readouterr().out


def test_a_warm_up_that_does_not_end_is_said_and_part_of_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    table(Z[:, 1])
    warm_up = ["--training.n_steps=20", '--objective.beta={"warmup_steps": 1000}']
    said = "^beta warms up for 1000 of 20 steps and is 0.019 at the last one; give it fewer steps, or train longer"
    with pytest.warns(UserWarning, match=said):  # `main` writes it as a line
        assert main(["train", "--data.name=wine.csv", *SMALL, *warm_up]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("wine.csv: 180 training and 20 test rows of 3 numbers, real values, ")
    assert "At its last step β was 0.019; the last half of training raised the ELBO by" in " ".join(out.split())
    (run,) = find_runs(Path("runs"))
    found = load_run(run)
    assert all(NOT_SETTLED in mark for layer in found.layers for mark in layer.marks)
    assert "training: objective.beta warms up for 1000 of 20 steps" in str(found.diagnosis.notes[0])
    page = (run.path / "report.html").read_text()
    assert "objective.beta warms up for 1000 of 20 steps" in page and "wine.csv: 180 training and 20 test rows" in page


@pytest.mark.parametrize(
    ("observation", "variance", "said"),
    [("gaussian", "learned", True), ("gaussian", "network", True), ("gaussian", "shared", False),
     ("gaussian", "fixed", False), ("discretised-logistic", "learned", False)],
)  # fmt: skip
def test_constant_columns_under_a_variance_that_is_learned_are_said(
    observation: str, variance: str, said: bool
) -> None:
    from hvae.data import card_of

    rows = torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
    rows[:, 2] = 0.5
    card = card_of(Dataset("toy", rows, rows, (4,), "grey", dynamic=False, columns=("a", "b", "c", "d")))
    config = RunConfig(model=ModelConfig(observation=observation, observation_variance=variance))  # type: ignore[arg-type]
    found = remarks(config, [card])
    assert len(found) == said
    for doubt in found:
        assert "A column is constant in training (2 (c)), and under model.observation_variance" in doubt.sentence
    assert not remarks(config, [replace(card, constant=())])


@pytest.mark.parametrize(
    ("beta", "said"),
    [(LinearWarmup(21), "0.905"), (Cyclical(15), "0.533"), (LinearWarmup(20), ""), (Cyclical(10, 1.0), ""),
     (Constant(0.3), ""), (Cyclical(12), "")],
)  # fmt: skip
def test_beta_that_does_not_end_within_training_is_said(beta: LinearWarmup, said: str) -> None:
    config = RunConfig(objective=ObjectiveConfig(beta=beta), training=TrainingConfig(n_steps=20))
    found = remarks(config, ())
    assert [said in doubt.sentence for doubt in found] == [True] * bool(said)


DEEP = RunConfig(
    data=DataConfig("digits-threshold"),
    model=ModelConfig(
        latents=(64, 32, 16, 8, 4), hidden=((256,), (128,), (64,), (32,), (16,)), activation=("leaky-relu",)
    ),
    training=TrainingConfig(seeds=(7, 12, 13), n_steps=1, batch_size=32),
)


def pixels() -> Dataset:
    """784 pixels, as those of MNIST."""
    rows = (torch.rand(64, 784, generator=torch.Generator().manual_seed(0)) < 0.13).float()
    return Dataset("toy", rows, rows[:32], (28, 28), "binary", dynamic=False)


@pytest.mark.parametrize(("init", "far"), [("xavier", [7, 13]), ("orthogonal", [])])
def test_an_unlucky_start_is_seen_and_said(
    init: str, far: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five layers whose log-variances are so large, of some seeds, that a rate begins at 1e3 nats and more."""
    config = replace(DEEP, model=replace(DEEP.model, init=(init,)))
    run = Run.create_or_open(tmp_path, "trial", "deep", config)
    train(run, pixels(), progress=False)
    notes = load_run(run).diagnosis.notes
    assert [note.seed for note in notes] == far
    assert [line for line in capsys.readouterr().err.splitlines() if "began" in line] == list(map(str, notes))
    arrays = run.load_arrays(START)
    assert (arrays["bound_nats"] < -1e3).tolist() == [seed in far for seed in (7, 12, 13)]
    ordinary = {key: values.clip(-50, 50) for key, values in arrays.items()}
    assert unlucky(ordinary, config) == []


TRAINED = RunConfig(
    data=DataConfig("digits-threshold"),
    model=ModelConfig(latents=(3, 2), hidden=((8,),)),
    objective=ObjectiveConfig(beta=LinearWarmup(30)),
    training=TrainingConfig(seeds=(3, 5), n_steps=60, batch_size=32),
    evaluation=EvaluationConfig(n_images=20, max_paths=8, n_likelihood=20, n_samples=30),
)


@pytest.mark.parametrize(("rate", "gains"), [(1e-9, False), (1e-2, True)])
def test_what_the_last_half_gained_is_that_of_the_same_images(rate: float, gains: bool, tmp_path: Path) -> None:
    """A model that hardly moves gains nothing: only other draws of q stand between both ELBOs."""
    pattern = (torch.rand(16, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    rows = torch.stack([pattern, 1 - pattern]).repeat(32, 1)
    data = Dataset("toy", rows, rows[:40], (4, 4), "binary", dynamic=False)
    config = replace(TRAINED, training=replace(TRAINED.training, learning_rate=Constant(rate)))
    run = Run.create_or_open(tmp_path, "trial", "gain", config)
    train(run, data, progress=False)
    evaluate(run, data, progress=False)
    found = load_run(run)
    half = run.load_arrays(HALFWAY)["elbo_datum_nats"]
    assert half.shape == found.gained_nats.shape == (2, 20) and found.beta_at_end == 1.0
    np.testing.assert_allclose(found.gained_nats, run.load_arrays("likelihood")["elbo_datum_nats"] - half, atol=1e-6)
    mean, error = found.gained_nats.mean(), found.gained_nats.std() / 20**0.5
    assert (mean > 1 > 5 * error) if gains else (abs(mean) < 5 * error < 1)
    shown = overview([found])
    assert [column.name for column in shown.columns[-2:]] == ["β", "last half"] and shown.rows[0][-2].text == "1"
    assert "last half" in verdict_text(run.path)
    narrow, level = overview_within([found], shown.width - 1)
    assert "β" in [column.name for column in narrow.columns] and level > 0, "words give way before columns"
    narrow, _ = overview_within([found], overview([found], 2).width - 1)
    assert "β" not in [column.name for column in narrow.columns] and narrow.columns[-1].name == "last half"


def test_a_run_of_before_has_no_card_no_gain_and_no_remark(tmp_path: Path) -> None:
    run = Run.create_or_open(tmp_path, "trial", "before", TRAINED)
    run.append_metrics([{"step": 60, "bound_nats": [-9.0, -9.0]}])
    found = load_run(run)
    assert found.diagnosis.cards == () == found.diagnosis.notes and found.gained_nats.shape == (2, 0)
    assert single(found).notes == () and json.loads((run.path / "config.json").read_text())
