"""Sweeps: a worker that dies fails alone, an interrupt loses nothing, an orphan lets go."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hvae.errors import ConfigError, TrainingError
from hvae.lab import completion as module
from hvae.lab.completion import check, complete
from hvae.lab.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.runs.run import Run
from hvae.lab.sweep import cost, sweep

REPO = Path(__file__).parents[2]


def task(run: Run, *, device: str, data_dir: Path | None, progress: bool) -> None:
    """What the workers of these tests do: as their label says."""
    print(f"{run.label} on {torch.get_num_threads()} threads", flush=True)
    match run.label.split()[0]:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "broken":
            raise RuntimeError("a bug\nin two lines")
        case "dead":
            raise TrainingError("All replicas became non-finite.")
        case "refused":
            raise ConfigError("The data are damaged; get them again.")
        case "slow":
            with run.lock():
                try:
                    signal.signal(signal.SIGTERM, signal.default_int_handler)
                    (run.path / "begun").touch()
                    time.sleep(60)
                except KeyboardInterrupt:
                    (run.path / "saved").touch()
                    raise
    run.mark_done()


def _runs(root: Path, *labels: str) -> list[Run]:
    return [Run.create_or_open(root, "trial", label, RunConfig()) for label in labels]


def test_one_process_per_run_and_the_failures_fail_alone(tmp_path: Path) -> None:
    runs = _runs(tmp_path, "fine 1", "killed", "broken", "fine 2", "refused", "fine 3", "dead")
    lines: list[str] = []
    failures = sweep(runs, n_workers=2, task=task, say=lines.append)
    assert [run.done for run in runs] == [True, False, False, True, False, True, False]
    found = {failure.run.label: (failure.exit_code, failure.reason) for failure in failures}
    assert found.keys() == {"killed", "broken", "refused", "dead"}
    assert found["killed"] == (-signal.SIGKILL, "the process was killed by SIGKILL")
    assert found["refused"] == (2, "The data are damaged; get them again.")
    assert found["dead"] == (1, "All replicas became non-finite.")
    assert found["broken"][0] == 1 and found["broken"][1].startswith("RuntimeError: a bug in two lines; see ")
    assert "Traceback" in (runs[2].path / "log.txt").read_text()
    assert (runs[0].path / "log.txt").read_text() == "fine 1 on 1 threads\n"
    assert len(lines) == 7 and lines[-1].startswith("[7/7] ")
    assert all(" left)" in line for line in lines[:-1])


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    runs = _runs(tmp_path, "killed", "fine")
    runs[0].mark_done()
    lines: list[str] = []
    assert sweep(runs, n_workers=1, task=task, say=lines.append) == []
    assert lines[0] == "1 of 2 runs are done already."
    assert lines[1].startswith("[2/2] fine: done in ")
    assert sweep(runs, n_workers=1, task=task) == []


SWEEPER = """
import sys
from pathlib import Path
from hvae.lab.runs.survey import find_runs
from hvae.lab.sweep import sweep
from tests.lab.test_sweep import task
if __name__ == "__main__":
    sweep(find_runs(Path(sys.argv[1])), n_workers=2, task=task)
"""


def _default_interrupt() -> None:
    """A shell starts what it puts in the background with interrupts ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _begin(tmp_path: Path) -> tuple[list[Run], "subprocess.Popen[str]"]:
    runs = _runs(tmp_path / "runs", "slow 1", "slow 2", "fine")
    (tmp_path / "sweeper.py").write_text(SWEEPER)
    sweeper = subprocess.Popen(
        [sys.executable, str(tmp_path / "sweeper.py"), str(tmp_path / "runs")],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_default_interrupt,
    )
    deadline = time.monotonic() + 60
    while sum((run.path / "begun").exists() for run in runs) < 2:
        assert time.monotonic() < deadline and sweeper.poll() is None, "the workers did not begin"
        time.sleep(0.05)
    return runs, sweeper


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_lets_the_workers_save(number: signal.Signals, tmp_path: Path) -> None:
    runs, sweeper = _begin(tmp_path)
    sweeper.send_signal(number)
    _, errors = sweeper.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    slow = [run for run in runs if run.label.startswith("slow")]
    assert [(run.path / "saved").exists() for run in slow] == [True, True]
    for run in slow:
        with run.lock():
            pass


def test_workers_go_when_their_parent_is_killed(tmp_path: Path) -> None:
    runs, sweeper = _begin(tmp_path)
    sweeper.kill()
    sweeper.communicate(timeout=60)
    slow = [run for run in runs if run.label.startswith("slow")]
    deadline = time.monotonic() + 20
    for run in slow:
        while True:
            try:
                with run.lock():
                    break
            except ConfigError:
                assert time.monotonic() < deadline, "an orphan holds the run"
                time.sleep(0.05)
    assert not any((run.path / "saved").exists() for run in slow)


def test_complete_trains_evaluates_and_marks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(module, "train", lambda *a, **k: calls.append("train"))
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: calls.append("evaluate"))
    (run,) = _runs(tmp_path, "one")
    complete(run, progress=False)
    assert calls == ["train", "evaluate"] and run.done and len(run.read_provenance()) == 1
    complete(run, progress=False)
    assert len(calls) == 2
    run.unmark_done()
    with run.lock(), pytest.raises(ConfigError, match="is held by process"):
        complete(run, progress=False)
    assert len(calls) == 2


def test_a_file_that_changed_under_its_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(module, "train", lambda *a, **k: None)
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: None)
    file = tmp_path / "my.npz"
    np.savez(file, train=np.eye(40), test=np.eye(40)[:9])
    run = Run.create_or_open(tmp_path, "own", "mine", RunConfig(data=DataConfig(name=str(file))))
    complete(run, progress=False)
    complete(run, progress=False)
    np.savez(file, train=1 - np.eye(40), test=np.eye(40)[:9])
    with pytest.raises(ConfigError, match="changed since"):
        complete(run, progress=False)


@pytest.mark.parametrize(
    ("config", "device", "words"),
    [
        (RunConfig(data=DataConfig(name="digitz")), "cpu", "digitz"),
        (RunConfig(training=TrainingConfig(batch_size=5000)), "cpu", "training.batch_size is 5000"),
        (RunConfig(data=DataConfig(name="digits-grey"), model=ModelConfig(observation="bernoulli")), "cpu", "grey"),
        (RunConfig(), "abacus", "abacus"),
    ],
)
def test_what_cannot_run_is_refused_beforehand(config: RunConfig, device: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check([config], device=device)


def test_cost_ranks_runs(tmp_path: Path) -> None:
    deep = RunConfig(model=ModelConfig(latents=(16, 8, 8, 4, 2), hidden=((64,),)))
    long = RunConfig(training=TrainingConfig(n_steps=5000))
    assert cost(RunConfig()) < min(cost(deep), cost(long))
