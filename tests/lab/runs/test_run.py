"""Runs on disk: whole files or none, one writer, nothing read that was altered."""

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvae.errors import ConfigError
from hvae.lab.config import EvaluationConfig, RunConfig, TrainingConfig
from hvae.lab.runs.files import write_atomically
from hvae.lab.runs.run import Run, slug
from hvae.lab.runs.survey import find_runs

REPO = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create_or_open(tmp_path / "runs", "depth", "depth-3 ladder+WU", RunConfig())


def test_the_directory_is_named_by_label_and_digest(run: Run, tmp_path: Path) -> None:
    assert run.path == tmp_path / "runs" / "depth" / f"depth-3-ladder-wu-{RunConfig().digest}"
    assert (run.label, run.experiment, run.done) == ("depth-3 ladder+WU", "depth", False)
    assert json.loads((run.path / "config.json").read_text()) == json.loads(RunConfig().to_json())


def test_the_same_command_is_the_same_run(run: Run, tmp_path: Path) -> None:
    run.mark_done()
    again = Run.create_or_open(tmp_path / "runs", "depth", "depth-3 ladder+WU", RunConfig())
    assert again == run and again.done
    assert Run.open(run.path) == run
    run.unmark_done()
    assert not again.done


def test_another_configuration_is_another_run(run: Run, tmp_path: Path) -> None:
    other = RunConfig(training=TrainingConfig(n_steps=7))
    assert Run.create_or_open(tmp_path / "runs", "depth", run.label, other).path != run.path


def test_slug() -> None:
    assert slug("depth-3 ladder + WU + BN") == "depth-3-ladder-wu-bn"
    assert slug("β = 0.1") == "0.1"
    assert slug("…") == "run"
    assert len(slug("x" * 500)) <= 80


@pytest.mark.parametrize("label", ["", "  ", "../x", "a/b", "a\\b", "a\nb", "a\0b", "..", "/etc"])
def test_labels_that_leave_the_directory_are_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a run"):
        Run.create_or_open(tmp_path / "runs", "depth", label, RunConfig())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc", ".hidden", "a b", "a\0"])
def test_experiments_that_leave_the_directory_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="experiment name"):
        Run.create_or_open(tmp_path / "runs", name, "label", RunConfig())
    assert not (tmp_path / "runs").exists()


def test_arrays_that_leave_the_directory_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="arrays name"):
        run.save_arrays("../x", {"a": np.zeros(1)})


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        Run.create_or_open(tmp_path / "runs", "depth", "label", RunConfig())
    assert (tmp_path / "runs").read_text() == "in the way"


def test_an_altered_configuration_is_refused(run: Run) -> None:
    file = run.path / "config.json"
    values = json.loads(file.read_text())
    values["training"]["n_steps"] += 1
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="was altered"):
        Run.open(run.path)


def test_an_evaluation_altered_by_hand_is_refused_once_the_run_is_done(run: Run) -> None:
    file = run.path / "config.json"
    values = json.loads(file.read_text())
    values["evaluation"]["n_samples"] += 1
    run.mark_done()
    assert Run.open(run.path).done
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="was altered since it was written"):
        Run.open(run.path)


def test_another_evaluation_is_the_same_run_measured_anew(run: Run, tmp_path: Path) -> None:
    run.mark_done()
    other = RunConfig(evaluation=EvaluationConfig(n_samples=77))
    with run.lock(), pytest.raises(ConfigError, match="is held by process"):
        Run.create_or_open(tmp_path / "runs", "depth", run.label, other)
    assert Run.open(run.path).done
    again = Run.create_or_open(tmp_path / "runs", "depth", run.label, other)
    assert again.path == run.path and not again.done
    assert Run.open(run.path).config == other


def test_unknown_keys_truncation_and_absence_are_refused(run: Run) -> None:
    file = run.path / "config.json"
    text = file.read_text()
    for length in range(0, len(text) - 2, 97):
        file.write_text(text[:length])
        with pytest.raises(ConfigError, match=r"config\.json"):
            Run.open(run.path)
    file.write_text(text.replace('"n_steps"', '"n_stepz"'))
    with pytest.raises(ConfigError, match="did you mean"):
        Run.open(run.path)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is damaged"):
        Run.open(run.path)
    file.unlink()
    with pytest.raises(ConfigError, match="is not a run"):
        Run.open(run.path)


def test_an_atomic_write_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    write_atomically(file, b"old")

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


WRITER = """
import sys
from pathlib import Path
from hvae.lab.runs.files import write_atomically
write_atomically(Path(sys.argv[1]), b"0" * 4_000_000)
print("ready", flush=True)
for i in range(1, 10**6):
    write_atomically(Path(sys.argv[1]), str(i % 10).encode() * 4_000_000)
"""


def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for delay in (0.05, 0.11, 0.17):
        command = [sys.executable, "-c", WRITER, str(file)]
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(delay)
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        content = file.read_bytes()
        assert len(content) == 4_000_000 and len(set(content)) == 1


LOCKER = """
import sys
from pathlib import Path
from hvae.lab.runs.run import Run
from hvae.errors import ConfigError
try:
    with Run.open(Path(sys.argv[1])).lock():
        print("locked", flush=True)
        sys.stdin.readline()
except ConfigError as error:
    sys.exit(str(error))
"""


def test_a_second_process_is_refused_until_the_first_dies(run: Run) -> None:
    command = [sys.executable, "-c", LOCKER, str(run.path)]
    with subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="is held by process"), run.lock():
            pass
        second = subprocess.run(command, cwd=REPO, capture_output=True, text=True, input="\n", check=False)
        assert second.returncode == 1 and f"is held by process {first.pid} on " in second.stderr
        first.kill()
    with run.lock():
        pass
    with run.lock(), pytest.raises(ConfigError, match="is held by process"), run.lock():
        pass


def test_a_lock_that_would_outlive_its_holder_is_not_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no flock, filelock would leave a marker that a killed holder never takes away."""

    def missing(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match="not implemented"), run.lock():
        pass


def test_metrics_come_back_with_their_nans(run: Run) -> None:
    assert run.read_metrics() == []
    run.append_metrics([{"step": 0, "bound_nats": [1.5, math.nan], "rate_unit_nats/z1": [[1.0, math.inf], [0.0, 2.0]]}])
    run.append_metrics([{"step": 25, "bound_nats": [2.0, 3.0], "beta": 0.5, "active_units/z1": [3, 4]}])
    first, second = run.read_metrics()
    assert first["bound_nats"][0] == 1.5 and math.isnan(first["bound_nats"][1])
    assert math.isnan(first["rate_unit_nats/z1"][0][1])
    assert second == {"step": 25, "bound_nats": [2.0, 3.0], "beta": 0.5, "active_units/z1": [3, 4]}
    assert "NaN" not in (run.path / "metrics.jsonl").read_text()


def test_metrics_are_cut_to_a_step_and_go_on_bit_for_bit(run: Run) -> None:
    rows = [{"step": step, "bound_nats": [0.1 * step, math.nan]} for step in range(5)]
    run.append_metrics(rows)
    whole = (run.path / "metrics.jsonl").read_bytes()
    run.truncate_metrics(2)
    assert [row["step"] for row in run.read_metrics()] == [0, 1, 2]
    run.append_metrics(rows[3:])
    assert (run.path / "metrics.jsonl").read_bytes() == whole


def test_a_row_cut_short_by_a_kill_is_left_out_and_a_damaged_one_refused(run: Run) -> None:
    run.append_metrics([{"step": 0, "bound_nats": [1.0]}, {"step": 1, "bound_nats": [2.0]}])
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    assert [row["step"] for row in run.read_metrics()] == [0]
    run.truncate_metrics(0)
    run.append_metrics([{"step": 1, "bound_nats": [2.0]}])
    assert file.read_bytes() == whole
    file.write_bytes(b"{garbage}\n" + whole)
    with pytest.raises(ConfigError, match="is damaged"):
        run.read_metrics()


def test_arrays_round_trip(run: Run) -> None:
    arrays = {
        "rate_nats/z1": np.arange(6.0).reshape(2, 3),
        "alive": np.array([True, False]),
        "verdict/z1": np.array([["active", "undecided", "collapsed to N(0, I)"]]),
        "order": np.array("bottom-up"),
    }
    assert not run.has_arrays("diagnostics")
    run.save_arrays("diagnostics", arrays)
    assert run.has_arrays("diagnostics")
    loaded = run.load_arrays("diagnostics")
    assert loaded.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(loaded[key], array, strict=True)


def test_arrays_of_objects_are_refused_both_ways(run: Run) -> None:
    with pytest.raises(TypeError, match="array of objects"):
        run.save_arrays("x", {"a": np.array([{}], dtype=object)})
    assert not run.has_arrays("x")
    (run.path / "evaluation").mkdir(exist_ok=True)
    np.savez(run.path / "evaluation" / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ConfigError, match="damaged"):
        run.load_arrays("x")


def test_damaged_and_missing_arrays_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="hvae evaluate"):
        run.load_arrays("x")
    run.save_arrays("x", {"a": np.arange(300.0)})
    file = run.path / "evaluation" / "x.npz"
    whole = file.read_bytes()
    for length in range(0, len(whole), 211):
        file.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match="damaged"):
            run.load_arrays("x")
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 1
    file.write_bytes(middle)
    with pytest.raises(ConfigError, match="damaged"):
        run.load_arrays("x")


@pytest.mark.parametrize("program", ["/home/me/bin/hvae", "/home/me/checkout/hvae/__main__.py"])
def test_the_command_is_kept_as_it_is_typed(run: Run, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "run", "depth", "--runs-dir", "/data/runs"])
    with run.session("cpu", 1):
        pass
    assert run.read_provenance()[-1]["command"] == ["hvae", "run", "depth", "--runs-dir", "/data/runs"]


def test_provenance_grows_by_one_entry_a_session(run: Run) -> None:
    with run.session("cpu", 1):
        assert "seconds" not in run.read_provenance()[0]
    with pytest.raises(KeyboardInterrupt), run.session("cpu", 2):
        raise KeyboardInterrupt
    sessions = run.read_provenance()
    assert [("seconds" in session) for session in sessions] == [True, False]
    assert [session["n_threads"] for session in sessions] == [1, 2]
    assert sessions[0]["device"] == "cpu" and "torch" in sessions[0]["versions"]
    (run.path / "provenance.json").write_text("{")
    with pytest.raises(ConfigError, match=r"provenance\.json"):
        run.read_provenance()


def test_find_runs_at_every_level_in_natural_order(tmp_path: Path) -> None:
    runs = [Run.create_or_open(tmp_path, "depth", f"depth-{depth}", RunConfig()) for depth in (2, 10, 1)]
    assert [run.label for run in find_runs(tmp_path)] == ["depth-1", "depth-2", "depth-10"]
    assert find_runs(tmp_path / "depth") == find_runs(tmp_path)
    assert find_runs(runs[0].path) == [runs[0]]
    (tmp_path / "empty").mkdir()
    assert find_runs(tmp_path / "empty") == []
    with pytest.raises(ConfigError, match="no directory"):
        find_runs(tmp_path / "nowhere")


def test_runs_need_no_torch() -> None:
    code = "import sys, hvae.lab.runs.run; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)
