"""A study whose runs lie in two places: on two machines that share no directory, or on disk and in a page."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.results import write_results
from hvae.analysis.study import open_study
from hvae.errors import ConfigError
from hvae.experiments.depth import configs
from hvae.lab.cli import main
from hvae.lab.runs.files import save_arrays
from hvae.lab.runs.survey import find_runs
from tests.analysis.fabricate import fabricate

FIRST, SECOND = ("depth-1", "depth-2 bottom-up"), ("depth-3 ladder+WU",)
DEMO = configs("demo")


def place(root: Path, *labels: str) -> Path:
    """The directory of an experiment with these runs, and a part measured beside each."""
    for run in fabricate(root, {label: DEMO[label] for label in labels}):
        save_arrays(root / "depth" / "measured" / "demo" / f"{run.label}.npz", {"found": np.arange(3.0)})
    return root / "depth"


def part(whole: Path, root: Path, *labels: str) -> Path:
    """A copy of the runs with these labels, and of what was measured beside them."""
    copy = Path(shutil.copytree(whole, root / whole.name))
    for run in find_runs(copy):
        if run.label not in labels:
            (copy / "measured" / "demo" / f"{run.label}.npz").unlink()
            shutil.rmtree(run.path)
    return copy


def files(page: Path) -> dict[str, bytes]:
    """All that is kept, but for the page's text, which names the sessions."""
    return {
        str(file.relative_to(page)): file.read_bytes()
        for file in sorted(page.rglob("*"))
        if file.is_file() and file.name != "README.md"
    }


def test_a_page_that_grows_run_by_run_is_the_page_that_is_made_at_once(tmp_path: Path) -> None:
    both = place(tmp_path / "both", *FIRST, *SECOND)
    at_once = write_results(both, tmp_path / "at once").parent
    page = write_results(part(both, tmp_path / "one", *FIRST), tmp_path / "page").parent
    two = part(both, tmp_path / "two", *SECOND)
    assert main(["report", str(two), "--with", str(page), "--to", str(page)]) == 0
    assert [run.label for run in open_study(page).runs] == [*FIRST, *SECOND]
    grown, whole = files(page), files(at_once)
    assert list(grown) == list(whole)
    assert [name for name, content in grown.items() if content != whole[name]] == []
    assert open_study(page).measured.keys() == open_study(both).measured.keys()


def test_what_is_on_disk_counts_before_what_is_elsewhere(tmp_path: Path) -> None:
    mine, theirs = place(tmp_path / "mine", FIRST[0]), place(tmp_path / "theirs", *FIRST)
    study = open_study(mine, more=theirs)
    assert [run.path.parent for run in study.runs] == [mine, theirs]
    assert study.notes == ()
    shutil.rmtree(next(mine.glob("depth-1*")) / "evaluation")  # not evaluated
    study = open_study(mine, more=theirs)
    assert [run.path.parent for run in study.runs] == [theirs, theirs]
    shutil.rmtree(next(theirs.glob("depth-1*")) / "evaluation")
    study = open_study(mine, more=theirs)
    assert [run.path.parent for run in study.runs] == [mine, theirs]
    assert study.notes == ("Not evaluated yet: depth-1.",)


def test_runs_of_another_preset_or_with_older_settings_are_not_taken(tmp_path: Path) -> None:
    mine = place(tmp_path / "mine", FIRST[0])
    fabricate(tmp_path / "theirs", {FIRST[1]: configs("cpu")[FIRST[1]]})
    with pytest.raises(ConfigError, match="no run of preset 'demo' is there"):
        open_study(mine, more=tmp_path / "theirs" / "depth")


def test_another_experiment_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = place(tmp_path / "mine", FIRST[0])
    fabricate(tmp_path / "theirs", {"a": DEMO[FIRST[1]]}, experiment="own")
    theirs = tmp_path / "theirs" / "own"
    assert main(["report", str(mine), "--with", str(theirs), "--to", str(tmp_path / "page")]) == 2
    assert capsys.readouterr().err.strip().endswith(f"{theirs} holds runs of 'own', not of 'depth'.")
    assert not (tmp_path / "page").exists()
    assert main(["report", str(mine), "--with", str(tmp_path / "nowhere")]) == 2
    assert main(["report", str(mine), "--with", ""]) == 2
