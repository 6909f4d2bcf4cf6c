"""Runs held against a baseline: the numbers of the table are those of the arrays."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.claims import decide
from hvae.analysis.figures.comparison import comparison as picture
from hvae.analysis.load import by_label
from hvae.analysis.report import write_experiment_report
from hvae.analysis.results import write_results
from hvae.analysis.study import Study, open_study
from hvae.analysis.tables.comparison import compared, comparison, comparison_csv, comparison_summary
from hvae.certain import crossed_interval
from hvae.experiments import cures, orders
from tests.analysis.fabricate import fabricate, measure_further

RUNS = ("plain", "warm-up", "ladder", "all together", "grey, variance fixed", "grey, variance learned")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of `cures`; the ladder's first seed failed, `all together` has every layer active, a step was timed."""
    root = tmp_path_factory.mktemp("runs")
    demo = cures.configs("demo")
    for label in RUNS:
        failed = 0 if label == "ladder" else None
        (run,) = fabricate(root, {label: demo[label]}, experiment="cures", failed=failed)
        arrays = run.load_arrays("diagnostics")
        for index in range(5):
            word = "active" if label == "all together" or index < 2 else "collapsed to N(0, I)"
            word = "undecided" if (label, index) == ("warm-up", 2) else word
            verdict = arrays[f"verdict/z{index + 1}"]
            arrays[f"verdict/z{index + 1}"] = np.where(verdict == "failed", verdict, np.array(word, dtype="U24"))
        run.save_arrays("diagnostics", arrays)
        likelihood = run.load_arrays("likelihood")
        shift = {"warm-up": 2.0, "ladder": -3.0, "all together": 5.0}.get(label, 0.0)
        spread = 0.01 * len(label) * np.array([0.1, -0.2, 0.3])
        likelihood["bound_nats"] = likelihood["bound_nats"] + (shift + spread)[:, None, None]
        likelihood["bound_datum_nats"] = likelihood["bound_datum_nats"] + (shift + spread)[:, None]
        run.save_arrays("likelihood", likelihood)
    folder = root / "cures" / "measured" / "demo"
    folder.mkdir(parents=True)
    seconds = np.array([[0.02, 0.02, 0.04], [0.03, 0.032, 0.056]])
    np.savez(folder / "cost.npz", run=np.array(["plain", "warm-up"]), step_seconds=seconds)
    return root / "cures"


@pytest.fixture(scope="module")
def study(directory: Path) -> Study:
    return open_study(directory)


def test_a_gain_is_the_mean_difference_of_the_same_seeds_and_images(study: Study) -> None:
    runs, rows = by_label(study.runs), {row.run.label: row for row in compared(study)}
    assert list(rows) == list(RUNS)
    warm, plain = (runs[label].likelihood.bound_datum_nats for label in ("warm-up", "plain"))  # type: ignore[union-attr]
    gain = rows["warm-up"].gain
    assert (gain.low, gain.middle, gain.high) == pytest.approx(crossed_interval(warm - plain), abs=1e-12)
    assert gain.middle == pytest.approx(np.mean(rows["warm-up"].gain_nats)) and gain.over == "3 seeds and 64 images"
    assert rows["warm-up"].cost == pytest.approx([1.5, 1.6, 1.4]) and np.isnan(rows["ladder"].cost).all()
    assert np.isnan(rows["ladder"].gain_nats[0]) and np.isfinite(rows["ladder"].gain_nats[1:]).all()


def test_bounds_on_other_data_or_other_seeds_have_no_gain(study: Study) -> None:
    crossed = dataclasses.replace(study, baselines={"grey, variance fixed": "plain", "warm-up": "plain"})
    rows = {row.run.label: row for row in compared(crossed)}
    assert np.isnan(rows["grey, variance fixed"].gain_nats).all() and np.isfinite(rows["warm-up"].gain_nats).all()
    (plain, warm) = (by_label(study.runs)[label] for label in ("plain", "warm-up"))
    moved = warm.with_measured(seeds=(7, 8, 9))
    others = dataclasses.replace(study, runs=(plain, moved))
    assert np.isnan(next(row for row in compared(others) if row.baseline).gain_nats).all()


def test_layers_are_counted_by_the_verdict(study: Study) -> None:
    runs = by_label(study.runs)
    assert runs["all together"].active_layers.tolist() == [5, 5, 5]
    assert runs["warm-up"].active_layers.tolist() == [2, 2, 2] and runs["warm-up"].undecided_layers.tolist() == [1] * 3
    assert np.isnan(runs["ladder"].active_layers[0]) and runs["ladder"].active_layers[1:].tolist() == [2, 2]


def test_the_table_says_what_is_revived_and_what_it_buys(study: Study) -> None:
    table = comparison(study)
    assert table is not None
    names = [column.name for column in table.columns]
    rows = {row[0].text: dict(zip(names, (cell.text for cell in row), strict=True)) for row in table.rows}
    assert rows["plain"]["so"] == "keeps z1, z2 in every seed"
    assert rows["all together"]["so"] == "revives z3 to z5; gains likelihood"
    assert rows["ladder"]["active layers"] == "– 2 2" and rows["ladder"]["so"].endswith("costs likelihood")
    assert rows["warm-up"]["active layers"] == "2? 2? 2?" and rows["warm-up"]["cost"] == "1.50 ± 0.25"
    assert rows["warm-up"]["gain"].startswith("+") and " ± " in rows["warm-up"]["gain"]
    (sentence,) = comparison_summary(study)
    assert (
        "Every layer is active in every seed in all together." in sentence
        and "surely lower than the baseline's with ladder" in sentence
    )
    text = table.to_markdown().splitlines()
    assert len(text) == 2 + len(RUNS) and {line.count(" | ") for line in text} == {len(names) - 1}


def test_every_seed_is_in_the_csv_and_the_picture_has_every_run(study: Study) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(study))))
    assert len(rows) == 3 * len(RUNS) and rows[3]["against"] == "plain"
    gain = float(rows[3]["bound_nats"]) - float(rows[0]["bound_nats"])
    assert float(rows[3]["gain_nats"]) == pytest.approx(gain, abs=1e-3)
    made = picture(study)
    assert made is not None
    assert [label.get_text() for label in made.axes[0].get_yticklabels()] == list(RUNS)


@pytest.mark.slow
def test_results_and_report_hold_the_comparison(directory: Path, tmp_path: Path) -> None:
    page = write_results(directory, tmp_path / "kept", preset="demo").read_text(encoding="utf-8")
    assert "| all together | 5 5 5 |" in page and "(tables/comparison.csv)" in page
    assert (tmp_path / "kept" / "figures" / "comparison.png").is_file()
    assert 'id="comparison"' in write_experiment_report(directory).read_text(encoding="utf-8")


def test_a_study_without_baselines_has_no_comparison(depth_study: Study) -> None:
    assert comparison(depth_study) is None and picture(depth_study) is None and comparison_summary(depth_study) == []


def test_claims_of_the_cures_follow_the_arrays(study: Study) -> None:
    decisions = {d.claim.statement: d for d in (decide(claim, by_label(study.runs), {}) for claim in cures.claims)}
    kept = decisions["One stack keeps all five layers active: all together."]
    assert kept.outcome == "undecided" and kept.middle == 1.0 and "in 3 of 3 seeds" in kept.how
    assert decisions["More layers are active: warm-up against plain."].middle == 0.0
    assert decisions["More layers are active: flow against plain."].outcome == "not measured"
    assert decisions["The likelihood is higher: all together against plain."].outcome == "supported"


def test_the_gap_has_a_column_where_it_was_measured(tmp_path: Path) -> None:
    demo = orders.configs("demo")
    runs = fabricate(tmp_path, {label: demo[label] for label in ("bottom-up", "top-down")}, experiment="orders")
    for run in runs:
        measure_further(run)
    table = comparison(open_study(tmp_path / "orders"))
    assert table is not None and "gap" in [column.name for column in table.columns]


@pytest.mark.parametrize("preset", cures.PRESETS)
def test_every_cure_changes_the_plain_stack_and_nothing_else(preset: str) -> None:
    runs = cures.configs(preset)
    changes = cures.cures(runs["plain"].training.n_steps)
    assert set(runs) - set(changes) == {cures.FIXED, cures.LEARNED}
    left_out = {"flow"} if preset == "cpu" else set()
    assert {label for labels in cures.panels.values() for label in labels} - left_out == set(runs)
    changes = {label: parts for label, parts in changes.items() if label not in left_out}
    for label, parts in changes.items():
        for part in ("data", "model", "objective", "training", "evaluation"):
            mine, plain = (getattr(runs[name], part) for name in (label, "plain"))
            assert dataclasses.replace(plain, **parts.get(part, {})) == mine
        assert label == "plain" or runs[label] != runs["plain"]
    assert runs["warm-up"].objective.beta(runs["plain"].training.n_steps - 1) == 1.0
    cyclical = runs["cyclical warm-up"].objective.beta
    assert cyclical(0) == 0.0 and cyclical(runs["plain"].training.n_steps - 1) == 1.0


def test_a_panel_of_equally_deep_runs_is_shown_by_its_last_under_its_own_name(study: Study) -> None:
    assert study.panels["ladder and together"][-1].label == "all together"
    assert study.deepest["all together"].label == "all together" and "ladder and together" not in study.deepest
    assert study.deepest["model"].label == "plain", "a panel of one run keeps its title"
