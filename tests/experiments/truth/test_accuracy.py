"""The experiment `truth`: rows of estimates against exact answers, made once by the command line, and shown."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.analysis.study import open_study
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.exact import known_stacks as examples
from hvae.experiments import truth
from hvae.experiments.truth import accuracy
from hvae.experiments.truth.tables import accuracy_csv, accuracy_summary, accuracy_tables
from hvae.lab import experiment
from hvae.lab.cli import main
from hvae.likelihood import Annealing


def quiet(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def gaps() -> dict[str, np.ndarray]:
    stacks = [
        examples.linear_stack(1.0, "over-confident", 0, widths=(4, 2, 2)),
        examples.smooth_stack(1.0, "best", 0, 1),
    ]
    return accuracy.gap_rows(stacks, n_draws=8, n_samples=400, seed=0, say=quiet)


def test_gap_rows_hold_the_exact_answer_and_the_estimate(gaps: dict[str, np.ndarray]) -> None:
    stack = examples.linear_stack(1.0, "over-confident", 0, widths=(4, 2, 2))
    exact = LinearGaussian.of(stack.model.decoder).gaps(stack.model.posterior, stack.x)
    assert gaps["layer"].tolist() == ["z1", "z2", "z1"] and gaps["family"].tolist() == ["linear", "linear", "smooth"]
    for row, name in enumerate(("z1", "z2")):
        assert gaps["exact_nats"][row] == pytest.approx(float(exact.layers[name].mean()), abs=1e-10)
    assert gaps["disagreement_nats"].max() < 1e-8
    for prefix in ("", "alone_"):
        low, middle, high = (gaps[f"{prefix}{key}_nats"] for key in ("low", "middle", "high"))
        assert (low < middle).all() and (middle < high).all()
        assert (gaps[f"{prefix}inside"] == ((low <= gaps["exact_nats"]) & (gaps["exact_nats"] <= high))).all()
    assert (gaps["inside"] >= gaps["inside_95"]).all() and gaps["inside"][gaps["trusted"]].all()
    assert not gaps["alone_trusted"][0], "an over-confident q as its own proposal is not to be trusted"


def test_a_disagreement_of_any_two_ways_is_seen() -> None:
    stack = examples.linear_stack(1.0, "tilted", 1, widths=(4, 2, 2))
    exact = stack.exact
    assert accuracy.disagreement(stack.model, exact, "z1") < 1e-10
    off = {name: values + 0.01 * (name == "z2") for name, values in exact.layers.items()}
    split = type(exact)(exact.log_px, exact.elbo, exact.rates, off, exact.remaining)
    total = type(exact)(exact.log_px + 0.01, exact.elbo, exact.rates, exact.layers, exact.remaining)
    for broken in (split, total):
        assert accuracy.disagreement(stack.model, broken, "z2") == pytest.approx(0.01)


def test_bounds_stand_on_their_sides_of_the_exact_value() -> None:
    stacks = [
        examples.linear_stack(1.0, "best", 0, widths=(4, 2)),
        examples.binary_stack(1.0, "best", 0, widths=(6, 3)),
    ]
    rows = accuracy.bound_rows(stacks, 200, (1, 10), Annealing(10, 4, 2), 0, quiet)
    assert set(rows["estimator"][rows["family"] == "binary"]) == {"ELBO", "L_10"}
    assert len(rows["stack"]) == 5 + 2
    towards = np.where(rows["direction"] == "lower", rows["error_nats"], -rows["error_nats"])
    assert (towards < 5 * rows["se_nats"]).all()
    elbo, ten = (rows["error_nats"][rows["estimator"] == name][0] for name in ("ELBO", "L_10"))
    assert elbo < ten


def test_a_sandwich_has_a_row_for_each_number_of_temperatures() -> None:
    stack = examples.linear_stack(1.0, "over-confident", 0, widths=(4, 2, 2))
    rows = accuracy.sandwich_rows(stack.model, stack.x[:1], 60, (2, 20), 8, 2, 0, quiet)
    assert rows["n_temperatures"].tolist() == [2, 20]
    np.testing.assert_allclose(rows["gap_nats"], rows["upper_nats"] - rows["lower_nats"], atol=1e-10)
    assert rows["gap_nats"][1] < rows["gap_nats"][0]


@pytest.mark.slow
def test_known_stacks_are_solved_by_their_reference() -> None:
    names = [stack.name for stack in examples.grid((0.3, 1.0))]
    assert len(names) == len(set(names)) == 12
    families = list(examples.families())
    assert [stack.family for stack in families] == ["linear"] * 4 + ["binary"] * 3 + ["smooth"] * 3
    for stack in families[:8]:  # beyond, quadrature in two and three dimensions takes seconds a stack
        exact = stack.exact
        assert isinstance(stack.model, HVAE) and (exact.total > 0).all()
        torch.testing.assert_close(sum(exact.layers.values()), exact.total, atol=1e-9, rtol=0)


def test_the_command_measures_every_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gaps: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append("gaps")
        return gaps

    small = truth.configs("demo")[truth.TRAINED]
    knobs = {"training": {"n_steps": 3, "seeds": [0], "checkpoint_every_steps": 3, "log_every_steps": 1}}
    config = type(small).from_dict(
        {
            "data": {"name": "digits-threshold", "n_train": 130, "n_test": 20},
            "model": {"latents": [2, 2], "hidden": [[4]]},
            **knobs,
            "evaluation": {"n_images": 8, "max_paths": 16, "n_likelihood": 4, "n_samples": 5},
        }
    )
    monkeypatch.setattr(truth, "configs", lambda preset: {truth.TRAINED: config})
    monkeypatch.setattr(truth, "measure", lambda preset, runs, data_dir, say, device: {"gaps": make})
    command = ["run", "truth", "--preset", "demo", "--runs-dir", str(tmp_path), "--workers", "1"]
    assert main(command) == 0 and main(command) == 0
    assert calls == ["gaps"]
    (record,) = json.loads((tmp_path / "truth" / "measured" / "demo" / "gaps.json").read_text())
    assert record["commit"] and record["time"]
    study = open_study(tmp_path / "truth")
    assert not study.single and study.preset == "demo" and set(study.measured) == {"gaps"}
    shown, said = capsys.readouterr()
    assert "Three exact ways to each of 3 layer gaps of 2 stacks agree" in shown
    for file in ("figures/accuracy-gaps.svg", "tables/accuracy-gaps.csv", "report.html"):
        assert (tmp_path / "truth" / file).stat().st_size > 0
    assert "measured before" not in said
    monkeypatch.setattr(experiment, "digest_of", lambda module: "another")
    assert main(command) == 0 and calls == ["gaps"]
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "measured before" in line)
    assert line.startswith("gaps: measured before the code of truth was changed, and kept; delete ")
    damaged = tmp_path / "truth" / "measured" / "demo" / "gaps.npz"
    damaged.write_bytes(b"nothing")
    assert main(["report", str(tmp_path / "truth")]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_tables_and_sentences_say_what_the_rows_hold(gaps: dict[str, np.ndarray]) -> None:
    gaps = {name: values.copy() for name, values in gaps.items()}
    gaps["trusted"][:], gaps["inside"][:], gaps["inside_95"][:] = [True, True, False], [True, False, True], False
    bounds = {
        "stack": np.array(["a", "a"]), "family": np.array(["linear"] * 2), "estimator": np.array(["ELBO", "up"]),
        "direction": np.array(["lower", "upper"]), "exact_nats": np.array([-3.0, -3.0]),
        "error_nats": np.array([0.5, 0.25]), "se_nats": np.array([0.1, 0.1]),
    }  # fmt: skip
    sandwich = {
        "n_temperatures": np.array([5, 50]), "lower_nats": np.array([-9.0, -8.5]), "upper_nats": np.array([-8.0, -8.4]),
        "gap_nats": np.array([1.0, 0.1]), "se_nats": np.array([0.1, 0.01]),
        "high_pareto_k_share": np.array([0.5, 0.1]), "seconds": np.array([1.0, 12.0]),
    }  # fmt: skip
    measured = {"gaps": gaps, "bounds": bounds, "sandwich": sandwich}
    first, second, third = accuracy_summary(measured)
    assert "2 of 3 estimates are trusted. Of these 1 lie within their interval" in first
    assert "Of 2 mean bounds of log p(x), 1 are on the wrong side" in second
    assert "close from 1.00 to 0.100 ± 0.020 nats between 5 and 50 temperatures (12 s)" in third
    tables = list(accuracy_tables(measured).values())
    assert len(tables) == 3 and [len(table.rows) for table in tables] == [2, 1, 2]
    assert "0.500 ± 0.196" in tables[1].to_text()
    assert accuracy_summary({}) == [] and accuracy_tables({}) == {}
    assert accuracy_csv(measured)["accuracy-bounds.csv"].splitlines()[1].startswith("a,linear,ELBO,lower,-3,0.5")
