"""From the command line: a table in other units has the same verdicts, and so have counts of another dtype."""

from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.load import LoadedRun, load_runs
from hvae.lab.cli import main
from hvae.lab.runs.survey import find_runs

SOURCE = np.random.default_rng(0)
Z = SOURCE.standard_normal((300, 2)) @ SOURCE.standard_normal((2, 5)) + 0.3 * SOURCE.standard_normal((300, 5))
Z = (Z - Z.mean(0)) / Z.std(0)
ONE_COLUMN = np.array([1.0, 1.0, 1e6, 1.0, 1.0])
RATES = SOURCE.gamma(1.0, 1.0, (3, 23))[SOURCE.integers(0, 3, 240)]
COUNTS = SOURCE.poisson(RATES)
SHORT = [
    "--model.latents=[3, 2]", "--model.hidden=[[8]]", "--training.seeds=[0]", "--training.batch_size=32",
    "--training.learning_rate=1e-2", "--evaluation.n_images=100", "--evaluation.max_paths=8",
    "--evaluation.n_likelihood=100", "--evaluation.n_samples=100",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def measured(values: np.ndarray, label: str, *options: str) -> LoadedRun:
    np.savez(f"{label}.npz", train=values[:-100], test=values[-100:])
    assert main(["train", f"--data.name={label}.npz", f"--label={label}", *SHORT, *options]) == 0
    (run,) = [run for run in load_runs(Path("runs")) if run.label == label]
    return run


def test_a_table_in_other_units(capsys: pytest.CaptureFixture[str]) -> None:
    """Trained for 60 steps in float32; the nets see the same z-scores but for rounding, 1e-7, which training
    may let grow: the largest difference seen is 7e-7 nats.
    """
    scales = {"one": np.ones(5), "small": np.full(5, 1e-3), "large": np.full(5, 1e3), "column": ONE_COLUMN}
    options = ("--model.observation=gaussian", "--training.n_steps=60")
    runs = {label: measured(Z * scale, label, *options) for label, scale in scales.items()}
    assert all(run.config.model.standardise for run in find_runs(Path("runs")))
    assert capsys.readouterr().err.count("Columns are standardised inside the model") == 4
    plain = runs["one"]
    assert plain.layers[0].verdict[0, 1] == "active"
    for label, run in runs.items():
        for ours, theirs in zip(run.layers, plain.layers, strict=True):
            assert ours.verdict[0, 1] == theirs.verdict[0, 1]
        (ours, theirs) = (found.likelihood for found in (run, plain))
        assert ours is not None and theirs is not None
        above = [found.log_px_nats[0, 1] - found.floor_nats[0, 1] for found in (ours, theirs)]
        assert above[0] == pytest.approx(above[1], abs=1e-4)
        jacobian = np.log(scales[label]).sum()
        assert ours.log_px_nats[0, 1] + jacobian == pytest.approx(theirs.log_px_nats[0, 1], abs=1e-4)


@pytest.mark.parametrize("observation", ["poisson", "negative-binomial"])
def test_counts_of_another_dtype(observation: str) -> None:
    options = (f"--model.observation={observation}", "--training.n_steps=60")
    runs = [measured(COUNTS.astype(dtype), np.dtype(dtype).name, *options) for dtype in (np.uint8, np.int64)]
    assert runs[0].layers[0].verdict[0, 1] == "active"
    for ours, theirs in zip(*(run.layers for run in runs), strict=True):
        assert ours.verdict[0, 1] == theirs.verdict[0, 1]
    one, other = (run.likelihood for run in runs)
    assert one is not None and other is not None
    np.testing.assert_allclose(one.log_px_nats, other.log_px_nats, rtol=0, atol=1e-5)  # how memory is aligned: 2e-8
    np.testing.assert_array_equal(one.floor_datum_nats, other.floor_datum_nats)
    assert one.floor_nats[0, 1] < one.log_px_nats[0, 1] and one.marks == ("",)


def test_numbers_may_be_taken_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`--model.standardise false` keeps the numbers of the file, and says that they differ in scale."""
    run = measured(
        Z * ONE_COLUMN, "raw", "--model.observation=gaussian", "--model.standardise=false", "--training.n_steps=2"
    )
    assert "standardise" not in (run.path / "config.json").read_text()
    assert "Columns differ in scale, and are taken as they are; --model.standardise true" in capsys.readouterr().err
