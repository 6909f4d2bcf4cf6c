"""What is printed fits the terminal: 80 columns, and pages of results as wide as they were."""

import json
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis import results
from hvae.analysis.study import open_study
from hvae.analysis.tables.claims import claims_json
from hvae.analysis.tables.published import held
from hvae.analysis.tables.table import Cell, Column, Table
from hvae.analysis.tables.verdict import short
from hvae.analysis.tables.words import LETTER
from hvae.analysis.terminal import verdict_text
from hvae.experiments import papers, sonderby_depth
from hvae.experiments.depth import configs
from hvae.lab.experiment import find
from hvae.lab.runs.run import Run
from tests.analysis.fabricate import fabricate, measure_further

DEMO = configs("demo")


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_the_table_of_an_experiment_fits(depth_directory: Path) -> None:
    text = verdict_text(depth_directory, width=80)
    assert widest(text) <= 80
    assert sum(line.startswith("depth-") for line in text.splitlines()) == 15


def test_replicas_that_differ_keep_their_counts_in_80_columns(tmp_path: Path) -> None:
    runs = fabricate(tmp_path, {label: c for label, c in DEMO.items() if label.startswith("depth-5")})
    words = np.array(["active", "undecided", "collapsed to a constant", "coded but unread"])
    for run in runs:
        arrays = run.load_arrays("diagnostics")
        arrays |= {key: np.tile(words[:, None], 3) for key in arrays if key.startswith("verdict/")}
        run.save_arrays("diagnostics", arrays)
    text = verdict_text(tmp_path / "depth", width=80)
    assert widest(text) <= 80 and text.count("A1+  A1+  A1+  A1+  A1+") == len(runs)
    assert all(f"({letter}) " in text for letter in "A?CU")


def test_a_run_and_its_gap_fit(tmp_path: Path) -> None:
    labels = ("depth-3 bottom-up", "depth-5 bottom-up", "depth-3 ladder+WU")
    for label in labels:
        measure_further(Run.create_or_open(tmp_path, "trial", label, DEMO[label]))
    text = verdict_text(tmp_path / "trial", width=80)
    assert widest(text) <= 80 and all(text.count(label) >= 2 for label in labels)
    (run,) = fabricate(tmp_path, {"depth-5 bottom-up": DEMO["depth-5 bottom-up"]}, n_replicas=2)
    measure_further(run)
    assert widest(verdict_text(run.path, width=80)) <= 80


def test_a_page_of_results_is_as_wide_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_figures", lambda study, folder: [])
    (run,) = fabricate(tmp_path, {"depth-1": DEMO["depth-1"]}, experiment="kept")
    page = results.write_results(run.path, tmp_path / "to").read_text(encoding="utf-8")
    table = page.partition("```text\n")[2].partition("```")[0]
    assert table.strip("\n") == verdict_text(tmp_path / "to", width=100)
    assert 80 < widest(table) <= 100


def test_the_terminal_shows_paper_and_ours(tmp_path: Path) -> None:
    fabricate(tmp_path, sonderby_depth.configs("cpu"), experiment="sonderby-depth")
    study = open_study(tmp_path / "sonderby-depth")
    text = verdict_text(tmp_path / "sonderby-depth", width=80)
    assert widest(text) <= 80 and "Paper and ours. Sønderby" in text and "L_1000" in text
    shown = held(study)
    assert len(shown) == 3
    for entry in shown:
        (line,) = (line for line in text.splitlines() if f"  {entry.number.published.value:.2f} nats" in line)
        assert f"{entry.ours.middle:.2f}" in line and line.endswith("other scale")
    alone = [decision for decision in study.decisions if decision.alone]
    assert alone and text.count("(alone)") == len(alone) + 1


@pytest.mark.parametrize("name", papers.members())
def test_a_smoke_preset_is_too_small_to_say(name: str, tmp_path: Path) -> None:
    """On the terminal and on the page: nothing is supported or refuted by seconds of training on other data."""
    fabricate(tmp_path, find(name).configs("smoke"), experiment=name)
    study = open_study(tmp_path / name)
    assert study.preset == "smoke"
    outcomes = {decision.outcome for decision in study.decisions}
    assert outcomes <= {"too small to say", "not measured"}
    text = verdict_text(tmp_path / name, width=80).partition("Claims (")[2]
    assert not any(line.startswith(("  supported", "  not supported", "  undecided")) for line in text.splitlines())
    assert outcomes == {record["outcome"] for record in json.loads(claims_json(study.decisions))}


def test_every_verdict_has_a_letter_of_its_own() -> None:
    from collections import Counter

    assert len(set(LETTER.values())) == len(LETTER)
    found = Counter({"active": 2, "undecided": 1, "unread": 1})
    assert [short(found, level) for level in range(4)] == ["act 2 und 1 unr 1"] * 2 + ["A2 ?1 U1", "A2+"]


def test_a_name_that_leaves_no_room_is_cut() -> None:
    table = Table((Column("run", numeric=False), Column("n")), ((Cell("a very long name"), Cell("1" * 10)),))
    assert table.shortened(40) == table
    assert (
        table.shortened(24).rows[0][0].text == "a very long\N{HORIZONTAL ELLIPSIS}" and table.shortened(24).width <= 24
    )
