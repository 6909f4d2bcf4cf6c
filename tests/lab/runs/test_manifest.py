"""What was written is what is read, or it is said: flips and truncations of every file, and writers that are killed."""

import contextlib
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hvae.lab.runs.manifest as manifest
from hvae.errors import ConfigError, NotLoadableError
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.manifest import FILE, Entry, Manifest, read_manifest
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import state_of
from tests.lab.runs.made import DATA, begun, config_of, finished, make_old, measured

PLACES = (
    *("config.json", "label.txt", PIN, "data.sha256", "data.json", "provenance.json", "metrics.jsonl", "DONE", FILE),
    *("evaluation/diagnostics.npz", "evaluation/likelihood.npz", "evaluation/start.npz"),
    *("checkpoints/step-000000020.pt", "checkpoints/step-000000020.pt.sha256"),
)
READERS: dict[str, Callable[[Run], Any]] = {
    "config": lambda run: run.config,
    "provenance": Run.read_provenance,
    "cards": Run.read_cards,
    "metrics": lambda run: json.dumps(run.read_metrics()),
    **{
        name: lambda run, name=name: {key: found.tolist() for key, found in run.load_arrays(name).items()}
        for name in ("start", "halfway", "diagnostics", "likelihood", "gap")
    },
    "checkpoint": lambda run: str(latest_checkpoint(run)),
}


def read(path: Path) -> dict[str, Any]:
    """Whatever is read of a run; what was refused, or said with a warning, is left out."""
    found = {}
    with contextlib.suppress(ConfigError):
        run = Run.open(path)
        for name, reader in READERS.items():
            with contextlib.suppress(ConfigError, UserWarning), warnings.catch_warnings():
                warnings.simplefilter("error")
                found[name] = reader(run)
        found["label"], found["done"] = run.label, run.done
    return found


def spoilt(whole: bytes, n: int, rng: random.Random) -> Iterator[bytes]:
    """Bits that are flipped, then ends that are cut off."""
    for _ in range(n):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        yield bytes(content)
    for _ in range(n):
        yield whole[: rng.randrange(len(whole))]


def silent(path: Path, place: str, n: int) -> int:
    """In how many of 2 n cases something else is read and nothing said; that no reader fails otherwise is asserted."""
    before, whole, count = read(path), (path / place).read_bytes(), 0
    assert before.keys() == {*READERS, "label", "done"} and before["done"]
    for content in spoilt(whole, n, random.Random(place)):
        (path / place).write_bytes(content)
        state, after = state_of(path), read(path)
        assert "\n" not in state.reason, state.reason
        assert state.word == "sound" or (state.reason.endswith(".") and str(path) in state.reason), state
        after_done, after_label = after.pop("done", False), after.pop("label", before["label"])
        changed = any(before[name] != value for name, value in after.items())
        quiet = state.word == "sound" and (not after_done or after_label != before["label"])
        count += changed or quiet
    (path / place).write_bytes(whole)
    assert read(path) == before
    return count


@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", PLACES)
def test_flips_and_truncations_are_said_or_harmless(tmp_path: Path, place: str, n: int) -> None:
    """n of each. Nothing else is read without a word, and no reader fails but by a sentence."""
    run = finished(tmp_path)
    assert state_of(run.path).word == "sound", state_of(run.path)
    assert silent(run.path, place, n) == 0


@pytest.mark.parametrize("place", ["metrics.jsonl", "provenance.json", "label.txt"])
def test_the_control_without_a_manifest_does_not_see_them(tmp_path: Path, place: str) -> None:
    run = finished(tmp_path)
    make_old(run)
    assert state_of(run.path).word == "sound" and silent(run.path, place, 20) > 3


def test_it_lists_what_numbers_come_from(tmp_path: Path) -> None:
    run = finished(tmp_path)
    found = read_manifest(run.path)
    assert found is not None and (found.digest, found.data) == (run.config.digest, DATA)
    files = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    unlisted = {name for name in files if name not in found.files and not name.startswith("checkpoints/")}
    assert unlisted == {FILE, PIN, "data.sha256", "DONE", ".lock", ".manifest.lock"} & files
    assert found.files["evaluation/diagnostics.npz"].step == found.files["evaluation/likelihood.npz"].step == 20
    assert found.files["metrics.jsonl"].step == 20
    assert found.files["evaluation/diagnostics.npz"].rule == 3


def test_a_damaged_manifest_accuses_no_other_file(tmp_path: Path) -> None:
    run = finished(tmp_path)
    file, n_said = run.path / FILE, 0
    for content in spoilt(file.read_bytes(), 20, random.Random(1)):
        file.write_bytes(content)
        state = state_of(run.path)
        n_said += state.word != "sound"
        assert state.word == "sound" or state.reason.startswith(f"{file} "), state
    assert n_said > 30


def test_its_sum_is_that_of_its_text() -> None:
    """By arithmetic of its own: the SHA-256 of the JSON without its last entry."""
    import hashlib

    text = Manifest("01234567", "", {"a": Entry("00", 3, step=2)}).to_json()
    assert json.loads(text)["files"] == {"a": {"sha256": "00", "n_bytes": 3, "step": 2}}
    said = '{"data": "", "digest": "01234567", "files": {"a": {"n_bytes": 3, "sha256": "00", "step": 2}}, "schema": 1}'
    assert json.loads(text)["sum"] == hashlib.sha256(said.encode()).hexdigest()


def test_one_of_a_later_version_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path)
    monkeypatch.setattr(manifest, "SCHEMA", 2)
    run.write("data.json", b"[]\n")
    monkeypatch.undo()
    with pytest.raises(NotLoadableError, match="schema 2, and this hvae reads up to 1; update hvae"):
        Run.open(run.path)
    assert state_of(run.path).word == "not loadable"


class Killed(BaseException):
    """In place of a signal: nothing catches it."""


@pytest.mark.parametrize("after", [True, False])
def test_a_writer_that_is_killed_at_any_write_leaves_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """`after` the write, or before it. What is done again afterwards makes the run sound."""
    write, n_writes, words = manifest.write_atomically, 0, set()

    def killed(path: Path, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0 and not after:
            raise Killed
        write(path, content)
        if left < 0:
            raise Killed

    whole = finished(tmp_path / "whole")
    done = False
    while not done:
        left = n_writes
        place = tmp_path / str(n_writes) / "own" / whole.path.name
        shutil.copytree(whole.path, place)
        run = Run.open(place)
        for module in ("manifest", "metrics", "run"):
            monkeypatch.setattr(f"hvae.lab.runs.{module}.write_atomically", killed)
        with contextlib.suppress(Killed):
            with run.session("cpu", 1):
                run.unmark_done()
                run.truncate_metrics(10)
                run.append_metrics([{"step": 15, "bound_nats": [1.0, 2.0]}, {"step": 20, "bound_nats": [1.0, 2.0]}])
                measured(run, np.random.default_rng(1))
            run.mark_done()
            done = True
        monkeypatch.undo()
        words.add(state_of(place).word)
        assert state_of(place).word in ("sound", "unfinished", "stale"), (n_writes, state_of(place))
        if not done:
            assert run.read_metrics()
            run.truncate_metrics(10)
            run.append_metrics([{"step": 20, "bound_nats": [1.0, 2.0]}])
            measured(run, np.random.default_rng(1))
            run.mark_done()
            assert state_of(place).word == "sound", (n_writes, state_of(place))
        n_writes += 1
    assert n_writes > 15 and {"sound", "unfinished"} <= words


def test_rows_after_the_last_checkpoint_may_be_there_or_not(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine", config_of())
    assert [row["step"] for row in run.read_metrics()] == [5, 10]
    run.append_metrics([{"step": 15, "bound_nats": [1.0, 2.0]}])
    assert [row["step"] for row in run.read_metrics()] == [5, 10, 15] and state_of(run.path).word == "unfinished"
    whole = (run.path / "metrics.jsonl").read_bytes()
    (run.path / "metrics.jsonl").write_bytes(whole + b"{garbage}\n")
    with pytest.raises(ConfigError, match="damaged in line 4"):
        run.read_metrics()
    run.truncate_metrics(10)  # as the same command does: the row is made again
    assert [row["step"] for row in run.read_metrics()] == [5, 10]
    (run.path / "metrics.jsonl").write_bytes(whole[len(whole) // 3 :])
    with pytest.raises(ConfigError, match="is damaged"):
        run.truncate_metrics(10)


def test_a_run_of_before_gets_one_when_it_is_written(tmp_path: Path) -> None:
    run = finished(tmp_path)
    listed = read_manifest(run.path)
    (run.path / FILE).unlink()
    run.save_arrays("gap", run.load_arrays("gap"))
    again = read_manifest(run.path)
    assert listed is not None and again is not None
    assert again.files.keys() == listed.files.keys() and again.data == DATA
    for name in ("config.json", "metrics.jsonl", "evaluation/diagnostics.npz"):
        assert again.files[name].sha256 == listed.files[name].sha256
    assert state_of(run.path).word == "sound"
