"""Every state of a run, from what was done to its files, with the remedy; and what the commands say of it."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvae.errors import ConfigError, ForeignError, NotLoadableError
from hvae.lab.cli import main
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.manifest import FILE
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import WITHOUT, opened, stale, state_of
from hvae.lab.runs.survey import akin, survey, verify
from hvae.vocabulary import RULE
from tests.analysis.fabricate import fabricate
from tests.lab.runs.made import begun, config_of, finished, make_old

REPO = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished(tmp_path / "runs")


@pytest.fixture
def other(tmp_path: Path) -> Run:
    """Other settings, other numbers."""
    return finished(tmp_path / "others", config=config_of(log_every_steps=1), seed=1)


Spoil = Callable[[Path, Path], object]
"""to a run, with another at hand"""


def rewritten(change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
    def spoil(path: Path, other: Path) -> None:
        file = path / "evaluation" / "diagnostics.npz"
        with np.load(file) as found:
            values = dict(found)
        change(values)
        np.savez(file, **values)  # type: ignore[arg-type]  # numpy types them as its own keyword

    return spoil


def of_other(name: str) -> Spoil:
    return lambda path, other: shutil.copy(other / name, path / name)


def written(name: str, change: Callable[[bytes, bytes], bytes]) -> Spoil:
    def spoil(path: Path, other: Path) -> None:
        (path / name).write_bytes(change((path / name).read_bytes(), (other / name).read_bytes()))

    return spoil


def half(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])


METRICS, ARRAYS, LAST = "metrics.jsonl", "evaluation/diagnostics.npz", "checkpoints/step-000000020.pt"
KINDS: dict[str, tuple[Spoil, str, str]] = {
    "a key is missing": (rewritten(lambda found: found.pop("rate_nats/z1")), "damaged", "evaluate"),
    "NaN": (rewritten(lambda found: found["rate_nats/z1"].__setitem__(0, np.nan)), "damaged", "--force"),
    "another step": (rewritten(lambda found: found.update(step=np.array(10))), "damaged", "--force"),
    "another rule": (rewritten(lambda found: found.update(rule=np.array(2))), "damaged", "--force"),
    "arrays of another run": (of_other(ARRAYS), "foreign", "is of another run"),
    "more arrays of another run": (
        lambda path, other: shutil.copy(other / "evaluation/gap.npz", path / "evaluation/exact.npz"),
        "foreign", "move it out",
    ),
    "arrays of nobody": (
        lambda path, other: np.savez(path / "evaluation" / "exact.npz", a=np.zeros(1)), "foreign", "move it out",
    ),
    "arrays lost": (lambda path, other: (path / ARRAYS).unlink(), "damaged", "--force"),
    "metrics cut in half": (written(METRICS, lambda mine, theirs: half(mine)), "damaged", "without the curves"),
    "a row lost": (written(METRICS, lambda mine, theirs: mine[mine.index(b"\n") + 1 :]), "damaged", "restore it"),
    "rows of another run": (written(METRICS, lambda mine, theirs: mine + theirs), "damaged", "restore it"),
    "metrics of another run": (of_other(METRICS), "damaged", "restore it"),
    "metrics lost": (lambda path, other: (path / METRICS).unlink(), "damaged", "is lost; restore it."),
    "DONE empty": (written("DONE", lambda mine, theirs: b""), "damaged", "does not count; run `hvae evaluate"),
    "DONE altered": (written("DONE", lambda mine, theirs: mine[::-1]), "damaged", "does not count"),
    "DONE of another run": (of_other("DONE"), "damaged", "does not count"),
    "no DONE": (lambda path, other: (path / "DONE").unlink(), "unfinished", "the same command goes on"),
    "a checkpoint of another run": (
        lambda path, other: [of_other(name)(path, other) for name in (LAST, f"{LAST}.sha256")],
        "foreign", "move it out, or leave it, as another one is sound",
    ),
    "a damaged checkpoint": (
        written(LAST, lambda mine, theirs: mine[:-1]), "damaged", "restore it, or leave it, as another one is sound",
    ),
    "manifest of another run": (of_other(FILE), "foreign", "without its sums"),
    "manifest lost": (lambda path, other: (path / FILE).unlink(), "damaged", "--force`, which writes one"),
    "pin of the data lost": (lambda path, other: (path / "data.sha256").unlink(), "damaged", "write abab"),
    "pin of the settings lost": (lambda path, other: (path / PIN).unlink(), "damaged", "write"),
    "provenance lost": (lambda path, other: (path / "provenance.json").unlink(), "damaged", "restore it"),
    "settings of another run": (of_other("config.json"), "damaged", "altered"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_has_its_state_and_remedy(kind: str, run: Run, other: Run) -> None:
    assert state_of(run.path).word == state_of(other.path).word == "sound"
    spoil, word, says = KINDS[kind]
    spoil(run.path, other.path)
    state = state_of(run.path)
    assert (state.word, says in state.reason) == (word, True), state
    assert str(run.path) in state.reason and state.reason.endswith(".") and "delete the run" not in state.reason


@pytest.mark.parametrize("name", ["diagnostics", "gap"])
def test_arrays_of_another_run_are_not_read(run: Run, other: Run, name: str) -> None:
    of_other(f"evaluation/{name}.npz")(run.path, other.path)
    with pytest.raises(ForeignError, match=f"is of another run, {other.config.digest}"):
        run.load_arrays(name)
    (run.path / FILE).unlink()  # no sums, but they say it themselves
    with pytest.raises(ForeignError, match="is of another run"):
        run.load_arrays(name)


def test_arrays_of_another_step_or_rule_are_stale_and_left_out(run: Run) -> None:
    run.save_arrays("gap", run.load_arrays("gap") | {"step": np.array(10)})
    assert stale(run).keys() == {"gap"} and "is of step 10, and the run of step 20" in stale(run)["gap"]
    assert state_of(run.path).word == "stale" and "--likelihood gap" in state_of(run.path).reason
    run.save_arrays("diagnostics", run.load_arrays("diagnostics") | {"rule": np.array(RULE - 1)})
    assert stale(run).keys() == {"gap", "diagnostics"}
    run.save_arrays("diagnostics", run.load_arrays("diagnostics") | {"rule": np.array(RULE), "step": np.array(15)})
    assert "is of step 15, and the run of step 20" in stale(run)["diagnostics"]


def test_a_run_that_was_measured_early_is_unfinished_not_stale(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine", config_of())
    run.save_arrays("diagnostics", {"step": np.array(10), "rule": np.array(RULE)})
    run.save_arrays("gap", {"step": np.array(10)})
    assert state_of(run.path).word == "unfinished" and stale(run) == {}


@pytest.mark.parametrize("how", ["rename", "copy", "link"])
def test_a_run_of_another_name_is_sound(run: Run, how: str) -> None:
    elsewhere = run.path.with_name("best")
    if how == "rename":
        run.path.rename(elsewhere)
    elif how == "copy":
        shutil.copytree(run.path, elsewhere)
    else:
        elsewhere.symlink_to(run.path, target_is_directory=True)
    assert [state.word for state in verify(elsewhere.parent)] == ["sound"] * (1 if how == "rename" else 2)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_run_of_before_has_unknown_sums(run: Run, pinned: bool) -> None:
    make_old(run, pinned=pinned)
    assert (state_of(run.path).word, state_of(run.path).reason) == ("sound", WITHOUT)
    (run.path / "provenance.json").write_text("{")
    assert state_of(run.path).word == "damaged"


def test_settings_that_a_later_version_wrote_are_not_called_damaged(run: Run) -> None:
    later = run.config.to_json().replace('"n_steps"', '"n_stepz"')
    run.write("config.json", later.encode())
    state = state_of(run.path)
    assert state.word == "not loadable" and "as it was written" in state.reason and "update hvae" in state.reason
    assert opened(run.path) == state


def test_a_sound_checkpoint_that_cannot_be_loaded_here_is_not_called_damaged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotLoadableError, match=r"is sound, but cannot be loaded on cuda:77 .*give another --device"):
        latest_checkpoint(run, "cuda:77")

    def full(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("torch.load", full)
    with pytest.raises(NotLoadableError, match=r"MemoryError.*or more memory"):
        latest_checkpoint(run)


def test_checkpoints_of_another_run_are_passed_over_or_refused(run: Run, other: Run) -> None:
    KINDS["a checkpoint of another run"][0](run.path, other.path)
    with pytest.warns(UserWarning, match="is of another run, .* and is passed over"):
        assert (latest_checkpoint(run) or (0, {}))[0] == 10
    for file in (run.path / "checkpoints").glob("step-000000010*"):
        file.unlink()
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match="sound and of this run; restore one, or move"):
        latest_checkpoint(run)


def test_verify_says_a_line_for_each_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"sound        {run.path}\n"
    bad = finished(tmp_path / "runs", "bad", config_of(seeds=(3, 4)))
    (bad.path / METRICS).write_bytes(b"")
    unread = finished(tmp_path / "runs", "unread", config_of(seeds=(5, 6)))
    (unread.path / "config.json").write_bytes(b"\xff")
    assert main(["verify", "mine", f"--runs-dir={tmp_path / 'runs'}"]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "runs")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["damaged", "sound", "damaged"]
    assert str(bad.path / METRICS) in lines[0] and "config.json" in lines[2]
    assert main(["verify", str(tmp_path)]) == 2 or main(["verify", str(bad.path)]) == 1


def test_verify_needs_no_torch(run: Run) -> None:
    code = (
        "import sys; from hvae.lab.cli import main; code = main(['verify', sys.argv[1]]); "
        "sys.exit(code or 3 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run.path)], cwd=REPO, check=False).returncode == 0


@pytest.mark.parametrize("name", ["evaluation/diagnostics.npz", "metrics.jsonl", "config.json", FILE])
def test_a_bad_run_is_named_and_the_others_are_listed_and_reported(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = fabricate(tmp_path / "runs", {f"run {n}": config_of(seeds=(n, n + 1)) for n in (1, 2)}, experiment="own")
    (runs[0].path / name).write_bytes((runs[0].path / name).read_bytes()[:-40])
    assert main(["list", f"--runs-dir={tmp_path / 'runs'}"]) == 0
    assert runs[1].label in capsys.readouterr().out
    with pytest.warns(UserWarning) as told:
        assert main(["report", str(tmp_path / "runs" / "own")]) == 0
    sentences = [str(warning.message) for warning in told]
    assert any(name.rpartition("/")[2] in sentence and str(runs[0].path) in sentence for sentence in sentences)
    said = capsys.readouterr().out
    assert runs[1].label in said and runs[0].label not in said


def test_the_same_settings_with_fewer_steps_or_seeds_are_named(run: Run) -> None:
    more = dataclasses.replace(run.config, training=dataclasses.replace(run.config.training, n_steps=40))
    (sentence,) = akin(run.path.parent, more)
    assert sentence == (
        f"{run.path} has the same settings and the first 20 of these 40 steps; this run trains all anew."
    )
    both = dataclasses.replace(more, training=dataclasses.replace(more.training, seeds=(0, 1, 2)))
    assert "the first 20 of these 40 steps and 2 of these 3 seeds" in akin(run.path.parent, both)[0]
    for training in ({"n_steps": 10}, {"seeds": (7, 8)}, {"batch_size": 7, "n_steps": 40}, {}):
        changed = dataclasses.replace(run.config, training=dataclasses.replace(run.config.training, **training))  # type: ignore[arg-type]  # fields of several types
        assert akin(run.path.parent, changed) == []
    assert akin(run.path / "nowhere", more) == []


def test_a_survey_keeps_what_is_bad_beside_what_is_sound(run: Run, tmp_path: Path) -> None:
    finished(tmp_path / "runs", "second", config_of(seeds=(2, 3)))
    (run.path / FILE).write_text("{")
    words = [entry if isinstance(entry, Run) else entry.word for entry in survey(tmp_path / "runs")]
    assert words[0] == "damaged" and isinstance(words[1], Run)
