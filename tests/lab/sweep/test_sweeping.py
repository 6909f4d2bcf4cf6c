"""Sweeps: who is killed is tried again, an interrupt loses nothing, an orphan saves, what is held is awaited."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from hvae.errors import ConfigError, TrainingError
from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run
from hvae.lab.sweep import sweep

REPO = Path(__file__).parents[3]


def task(run: Run, *, device: str, data_dir: Path | None, progress: bool) -> None:
    """What the workers of these tests do: as their label says."""
    print(f"{run.label} on {torch.get_num_threads()} threads", flush=True)
    match run.label.split()[0]:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hit":  # once
            if not (run.path / "begun").exists():
                (run.path / "begun").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "interrupted":  # once, by somebody else than the sweep
            if not (run.path / "begun").exists():
                (run.path / "begun").touch()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
        case "server":
            server = os.getppid()
            if b"forkserver" in Path(f"/proc/{server}/cmdline").read_bytes():  # else the other has killed it
                os.kill(server, signal.SIGKILL)
                (run.path / "killed").touch()
            time.sleep(1)
        case "counted":
            with run.lock():
                if run.done:
                    return
                with open(run.path / "times", "a") as times:
                    times.write(f"{os.getpid()}\n")
                time.sleep(0.5)
                run.mark_done()
        case "broken":
            raise RuntimeError("a bug\nin two lines")
        case "dead":
            raise TrainingError("All replicas became non-finite.")
        case "refused":
            raise ConfigError("The data are damaged; get them again.")
        case "slow":
            with run.lock():
                try:
                    (run.path / "begun").touch()
                    time.sleep(60)
                except KeyboardInterrupt:
                    (run.path / "saved").touch()
                    raise
    run.mark_done()


def _runs(root: Path, *labels: str) -> list[Run]:
    return [Run.create_or_open(root, "trial", label, RunConfig()) for label in labels]


def test_one_process_per_run_and_the_failures_fail_alone(tmp_path: Path) -> None:
    runs = _runs(tmp_path, "fine 1", "killed", "broken", "fine 2", "refused", "fine 3", "dead", "hit", "interrupted")
    lines: list[str] = []
    failures = sweep(runs, n_workers=2, task=task, say=lines.append)
    assert [run.label for run in runs if not run.done] == ["killed", "broken", "refused", "dead"]
    found = {failure.run.label: (failure.exit_code, failure.reason) for failure in failures}
    assert found.keys() == {"killed", "broken", "refused", "dead"}
    assert found["killed"] == (-signal.SIGKILL, "the process was killed by SIGKILL, 3 times")
    assert found["refused"] == (2, "The data are damaged; get them again.")
    assert found["dead"] == (1, "All replicas became non-finite.")
    assert found["broken"] == (
        70, f"unexpected: RuntimeError: a bug in two lines; the traceback is in {runs[2].path / 'log.txt'}"
    )  # fmt: skip
    assert "Traceback" in (runs[2].path / "log.txt").read_text()
    assert (runs[0].path / "log.txt").read_text() == "fine 1 on 1 threads\n"
    ended = [line for line in lines if line.startswith("[")]
    assert len(ended) == 9 and ended[-1].startswith("[9/9] ") and all(line.endswith(" left)") for line in ended[:-1])
    again = [line for line in lines if "it is tried again, from its last checkpoint" in line]
    assert sorted(line.partition(":")[0] for line in again) == ["hit", "interrupted", "killed", "killed"]


def test_a_server_that_is_killed_is_replaced_and_takes_no_run_with_it(tmp_path: Path) -> None:
    runs = _runs(tmp_path, "server 1", "fine 1", "server 2", "fine 2", "fine 3")
    lines: list[str] = []
    assert sweep(runs, n_workers=2, task=task, say=lines.append) == []
    assert all(run.done for run in runs) and len(lines) == 5
    assert any((run.path / "killed").exists() for run in runs)


def test_a_run_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    runs = _runs(tmp_path, "fine 1", "fine 2", "fine 3")
    lines: list[str] = []
    with ExitStack() as held:
        for run in runs[:2]:
            held.enter_context(run.lock())

        def say(line: str) -> None:
            lines.append(line)
            if sum("waiting for it" in said for said in lines) == 2:
                runs[0].mark_done()  # one of them by its holder
                held.close()

        assert sweep(runs, n_workers=2, task=task, say=say) == []
    assert all(run.done for run in runs)
    waiting = [line for line in lines if "waiting for it" in line]
    assert len(waiting) == 2 and all(f"held by process {os.getpid()} on " in line for line in waiting)
    assert sum("fine 1: done by another process" in line for line in lines) == 1
    assert not (runs[0].path / "log.txt").exists(), "nothing was begun there"


def test_two_sweeps_on_one_directory_run_everything_once(tmp_path: Path) -> None:
    runs = _runs(tmp_path / "runs", *(f"counted {n}" for n in range(6)))
    (tmp_path / "sweeper.py").write_text(SWEEPER)
    command = [sys.executable, str(tmp_path / "sweeper.py"), str(tmp_path / "runs")]
    both = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)}) for _ in range(2)]
    assert [sweeper.wait(timeout=120) for sweeper in both] == [0, 0]
    assert [(run.path / "times").read_text().count("\n") for run in runs] == [1] * 6


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
from hvae.lab.interrupts import interrupts
from hvae.lab.runs.survey import find_runs
from hvae.lab.sweep import sweep
from tests.lab.sweep.test_sweeping import task
if __name__ == "__main__":
    with interrupts(again=sys.exit):
        sys.exit(len(sweep(find_runs(Path(sys.argv[1])), n_workers=2, task=task)))
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


@pytest.mark.parametrize(
    "number",
    [signal.SIGHUP, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGTERM))],
)
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


def test_workers_save_and_go_when_their_parent_is_killed(tmp_path: Path) -> None:
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
    assert all((run.path / "saved").exists() for run in slow)
