"""A run is known by its files: renamed, copied or linked it is the same run, altered it is none."""

import json
import shutil
from pathlib import Path

import pytest

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig, TrainingConfig
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import State
from hvae.lab.runs.survey import find_runs, survey

OTHER = RunConfig(training=TrainingConfig(n_steps=7))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create_or_open(tmp_path / "runs", "own", "my stack", RunConfig())
    run.append_metrics([{"step": 3, "bound_nats": [1.0]}])
    return run


@pytest.mark.parametrize("name", ["best", "best-so-far", "my-stack-copy", "x-01234567-old", f"b-{RunConfig().digest}"])
@pytest.mark.parametrize("how", ["rename", "copy", "link"])
@pytest.mark.parametrize("done", [True, False])
def test_a_run_of_another_name_is_the_same_run(run: Run, name: str, how: str, done: bool) -> None:
    if done:
        run.mark_done()
    elsewhere = run.path.with_name(name)
    if how == "rename":
        run.path.rename(elsewhere)
    elif how == "copy":
        shutil.copytree(run.path, elsewhere)
    else:
        elsewhere.symlink_to(run.path, target_is_directory=True)
    found = Run.open(elsewhere)
    assert (found.label, found.config, found.experiment, found.done) == ("my stack", run.config, "own", done)
    assert len(find_runs(run.path.parent)) == (1 if how == "rename" else 2)


def test_the_same_command_goes_on_with_a_renamed_run(run: Run, tmp_path: Path) -> None:
    place = run.path.rename(run.path.with_name("best"))
    again = Run.create_or_open(tmp_path / "runs", "own", "my stack", RunConfig())
    assert again.path == place and again.last_step() == 3
    assert Run.create_or_open(tmp_path / "runs", "own", "my stack", OTHER).path != place
    assert Run.create_or_open(tmp_path / "runs", "own", "another", RunConfig()).path != place


def test_with_two_copies_and_no_original_the_command_asks(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, run.path.with_name("one"))
    assert Run.locate(tmp_path / "runs", "own", "my stack", RunConfig()) == run.path
    run.path.rename(run.path.with_name("two"))
    with pytest.raises(ConfigError, match=r"one and .*two are both the run 'my stack'; rename the one to go on with"):
        Run.create_or_open(tmp_path / "runs", "own", "my stack", RunConfig())


def test_another_run_under_the_name_is_not_taken_for_it(run: Run, tmp_path: Path) -> None:
    other = Run.create_or_open(tmp_path / "runs", "own", "my stack", OTHER)
    run.path.rename(run.path.with_name("best"))
    other.path.rename(run.path)
    assert Run.create_or_open(tmp_path / "runs", "own", "my stack", RunConfig()).path.name == "best"
    (run.path.with_name("best") / "config.json").unlink()
    with pytest.raises(ConfigError, match="holds another run than its name says"):
        Run.create_or_open(tmp_path / "runs", "own", "my stack", RunConfig())


@pytest.mark.parametrize("renamed", [True, False])
def test_settings_altered_by_hand_are_refused(run: Run, renamed: bool) -> None:
    path = run.path.rename(run.path.with_name("best")) if renamed else run.path
    file = path / "config.json"
    values = json.loads(file.read_text())
    values["training"]["n_steps"] += 1
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="was altered"):
        Run.open(path)
    (path / PIN).write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match=r"digest\.txt is damaged"):
        Run.open(path)


def test_a_run_from_before_the_pinned_digest_is_checked_by_what_it_has(run: Run) -> None:
    (run.path / PIN).unlink()
    assert Run.open(run.path).label == "my stack"
    run.mark_done()
    (run.path / "manifest.json").unlink()
    done = run.path.rename(run.path.with_name("done-01234567"))  # the fingerprint in DONE knows better than a name
    assert Run.open(done).done
    (done / "DONE").unlink()
    with pytest.raises(ConfigError, match="was altered"):
        Run.open(done)
    assert Run.open(done.rename(done.with_name("best"))).label == "my stack"


def spoil(path: Path, how: str) -> None:
    file = path / "config.json"
    if how == "lost":
        file.unlink()
    elif how == "cut":
        file.write_text(file.read_text()[:90])
    elif how == "bytes":
        file.write_bytes(b"\xff\xfe\x00")
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif how == "foreign":
        for mark in path.iterdir():
            mark.unlink()
        file.write_text('{"architectures": ["BertModel"], "hidden_size": 768}')


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("lost", "has lost its config.json; put back a copy"),
        ("cut", "is damaged"),
        ("bytes", "is damaged"),
        ("folder", "it is a folder"),
        ("foreign", "is no run of hvae (architectures is no setting"),
    ],
)
def test_one_bad_directory_never_hides_the_others(run: Run, tmp_path: Path, how: str, words: str) -> None:
    bad = Run.create_or_open(tmp_path / "runs", "own", "bad", OTHER).path
    (tmp_path / "runs" / "own" / "dangling").symlink_to(tmp_path / "nowhere")
    spoil(bad, how)
    first, second = sorted(survey(tmp_path / "runs"), key=lambda entry: isinstance(entry, State))
    assert first == run and isinstance(second, State)
    assert words in second.reason and str(bad) in second.reason and "\n" not in second.reason
    assert second.reason.endswith(".") and ("; " in second.reason)
    with pytest.warns(UserWarning) as told:
        assert find_runs(tmp_path / "runs") == [run]
    assert [str(warning.message) for warning in told] == [second.reason]
    with pytest.raises(ConfigError) as refused:
        find_runs(bad)
    assert str(refused.value) == second.reason
