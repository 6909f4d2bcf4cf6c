"""The list of runs: verdict, date and size of each; what is damaged has its line and hides nothing."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.listing import runs_text, verdict_words
from hvae.experiments.depth import configs
from hvae.lab.config import RunConfig, TrainingConfig
from hvae.lab.runs.run import Run
from tests.analysis.fabricate import fabricate

DEMO = configs("demo")


def house(name: str) -> bool:
    return name == "depth"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two own runs, the later one first in the list, and one that was stopped before its first row."""
    for label, stack, moment in (("a first", "depth-3 bottom-up", "2026-02-01"), ("second", "depth-1", "2026-03-01")):
        (run,) = fabricate(tmp_path / "runs", {label: DEMO[stack]}, experiment="own", n_replicas=2)
        run._write_provenance([{"time": f"{moment}T12:00:00+00:00"}])
    fresh = Run.create_or_open(tmp_path / "runs", "own", "fresh", RunConfig(training=TrainingConfig(n_steps=70)))
    fresh._write_provenance([{"time": "2026-01-01T12:00:00+00:00"}])
    return tmp_path / "runs"


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("  ") and " 2026-" in line]


def test_own_runs_newest_first_with_verdict_date_and_size(root: Path) -> None:
    text = runs_text(root, 80)
    second, first, fresh = rows(text)
    assert second.split()[:3] == ["second", "z1", "active"] and "2026-03-01" in second
    assert "a first" in first and "z1, z2 active; z3 collapsed" in first and "2026-02-01" in first
    assert "step 0 of 70" in fresh
    run = next(place for place in (root / "own").iterdir() if place.name.startswith("second"))
    size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    assert second.endswith(f"{size / 1e3:.0f} kB")
    assert max(map(len, rows(text))) <= 80


def test_how_far_an_unfinished_run_is(root: Path) -> None:
    (run,) = (run for run in map(Run.open, (root / "own").iterdir()) if run.label == "fresh")
    run.append_metrics([{"step": 25}, {"step": 50}])
    assert "step 50 of 70" in runs_text(root, 80)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write("{garbage}\n")
    text = " ".join(runs_text(root, 400).split())
    assert "metrics.jsonl is damaged in its last line" in text and "second" in text


def test_the_short_verdict(tmp_path: Path) -> None:
    (run,) = fabricate(tmp_path, {"mine": DEMO["depth-5 bottom-up"]}, n_replicas=4)
    arrays = run.load_arrays("diagnostics")
    words = {"z1": ["active"] * 4, "z2": ["active"] * 3 + ["undecided"], "z3": ["collapsed to N(0, I)"] * 4}
    words |= {"z4": ["collapsed to a constant"] * 4, "z5": ["codes noise only"] * 4}
    for name, each in words.items():
        arrays[f"verdict/{name}"] = np.array([["undecided", word, "undecided"] for word in each])
    run.save_arrays("diagnostics", arrays)
    assert verdict_words(run) == "z1 active; z2 active 3 of 4; z3, z4 collapsed; z5 noise only"
    for name in words:
        arrays[f"verdict/{name}"][0] = "failed"
    run.save_arrays("diagnostics", arrays)
    assert verdict_words(run).endswith("; 1 of 4 seeds failed") and "z2 active 2 of 3" in verdict_words(run)


def test_copies_are_told_apart_by_their_directories(root: Path) -> None:
    run = next(place for place in (root / "own").iterdir() if place.name.startswith("second"))
    shutil.copytree(run, run.with_name("kept"))
    run.with_name("linked").symlink_to(run, target_is_directory=True)
    text = runs_text(root, 120)
    assert all(f"second ({name})"[:25] in text for name in ("kept", "linked"))


DAMAGE = {
    "lost": ("config.json", None, "has lost its config.json"),
    "cut": ("config.json", b'{"da', "is damaged"),
    "arrays": ("evaluation/diagnostics.npz", b"PK\x03\x04 no archive", "--force`"),
    "provenance": ("provenance.json", b"[[", ""),
    "label": ("label.txt", b"\xff\x00\x1b[2J", ""),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_one_damaged_run_is_one_entry_and_the_others_are_shown(root: Path, how: str) -> None:
    name, content, words = DAMAGE[how]
    bad = next(place for place in (root / "own").iterdir() if place.name.startswith("second"))
    if content is None:
        (bad / name).unlink()
    else:
        (bad / name).write_bytes(content)
    text = runs_text(root, 80)
    assert "a first" in text and "fresh" in text and text.isprintable() is False and "\x1b" not in text
    assert words in " ".join(text.split()).replace("- ", "-") if words else len(rows(text)) == 3


def test_a_foreign_directory_is_named_with_the_remedy(root: Path) -> None:
    foreign = root / "own" / "bert"
    foreign.mkdir()
    (foreign / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    text = runs_text(root, 80)
    flat = " ".join(text.split())
    assert "Not readable as runs" in text and "own/bert is no run of hvae (architectures is no setting" in flat
    assert flat.endswith("move it out of the directory of runs.") and len(rows(text)) == 3


def test_many_runs_of_an_experiment_are_one_line_until_asked_for(root: Path) -> None:
    for label in list(DEMO)[:8]:
        Run.create_or_open(root, "depth", label, DEMO[label])
    text = runs_text(root, 80, grouped=house)
    assert "8 runs, 0 done" in text and "depth-3" not in text and text.index("second") < text.index("8 runs")
    assert runs_text(root, 80, experiment="depth").count("not begun") == 8
    assert runs_text(root, 80, grouped=house, most=1).count("2026-0") == 1
    assert "and 2 more; `hvae list` shows them" in runs_text(root, 80, grouped=house, most=1)
    for place in list((root / "depth").iterdir())[3:]:
        shutil.rmtree(place)
    assert runs_text(root, 80, grouped=house).count("    depth-1") >= 1


def test_nothing_there(tmp_path: Path) -> None:
    assert runs_text(tmp_path / "runs", 80) == f"Your runs in {tmp_path / 'runs'}: none yet"
    (tmp_path / "runs").mkdir()
    assert runs_text(tmp_path / "runs", 80).endswith(": none yet")


def test_without_provenance_the_date_is_that_of_the_files(root: Path) -> None:
    run = next(place for place in (root / "own").iterdir() if place.name.startswith("fresh"))
    (run / "provenance.json").unlink()
    moment = time.mktime((2031, 5, 6, 12, 0, 0, 0, 0, -1))
    os.utime(run / "config.json", (moment, moment))
    assert "2031-05-06" in runs_text(root, 80)
