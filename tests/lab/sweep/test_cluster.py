"""A real scheduler of Dask and two workers, processes of their own on the loopback address."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hvae.errors import ConfigError
from hvae.lab import completion
from hvae.lab.config import RunConfig
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.run import Failure, Run
from hvae.lab.sweep import cluster, sweep

pytest.importorskip("distributed", reason="needs the extra 'cluster'")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

REPO = Path(__file__).parents[3]
SECONDS = 120.0
CONFIG = {
    "data": {"name": "synthetic-binary-2", "n_train": 64},
    "model": {"latents": [2], "hidden": [[4]]},
    "training": {"seeds": [0], "n_steps": 600, "batch_size": 16, "log_every_steps": 20, "checkpoint_every_steps": 20},
    "evaluation": {"n_images": 8, "max_paths": 4, "n_likelihood": 4, "n_samples": 8},
}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])}


class Cluster:
    """A scheduler, and workers that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workers = folder, []
        self.scheduler = self._start("distributed.cli.dask_scheduler", "--port=0", "--scheduler-file=file.json")
        self.address = self._address()
        self.start_worker("--resources=GPU=1")
        self.start_worker()

    def _start(self, module: str, *options: str) -> "subprocess.Popen[bytes]":
        with open(self.folder / "log.txt", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, "--host=127.0.0.1", "--no-dashboard", *options],
                cwd=self.folder, env=environment(), stdout=log, stderr=log,
            )  # fmt: skip

    def _address(self) -> str:
        from hvae.outside import read_json

        def found() -> str:
            with contextlib.suppress(FileNotFoundError, ConfigError):
                return str(read_json(self.folder / "file.json", "wait")["address"])
            return ""

        until(lambda: bool(found()), "the scheduler did not begin")
        return found()

    def start_worker(self, *options: str) -> None:
        worker = self._start("distributed.cli.dask_worker", self.address, "--no-nanny", "--nthreads=1", *options)
        self.workers.append(worker)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def until(holds: Any, reason: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, reason
        time.sleep(0.05)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


def task(run: Run, *, device: str, data_dir: Path | None, progress: bool) -> None:
    """As the label says; a training writes down where it begins, under the lock of its run."""
    train = completion.train

    def recorded(run: Run, *arguments: Any, **more: Any) -> None:
        found = latest_checkpoint(run)
        with open(run.path / "starts", "a") as starts:
            starts.write(f"{0 if found is None else found[0]}\n")
        train(run, *arguments, **more)

    match run.label.split()[0]:
        case "trained":
            completion.train = recorded
            completion.complete(run, device=device, data_dir=data_dir, progress=progress)
        case "slow":
            with run.lock():
                try:
                    (run.path / "begun").write_text(str(os.getppid()))
                    time.sleep(SECONDS)
                except KeyboardInterrupt:
                    (run.path / "saved").touch()
                    raise
        case "cursed":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(SECONDS)
        case "placed":
            (run.path / "begun").write_text(str(os.getppid()))
            run.mark_done()


def _runs(root: Path, *labels: str) -> list[Run]:
    return [Run.create_or_open(root, "trial", label, RunConfig.from_dict(CONFIG)) for label in labels]


def test_runs_on_a_gpu_go_to_workers_that_have_one(machines: Cluster, tmp_path: Path) -> None:
    lines: list[str] = []
    runs = _runs(tmp_path, "placed 1", "placed 2")
    assert sweep(runs, scheduler=machines.address, device="cuda", task=task, say=lines.append) == []
    assert {(run.path / "begun").read_text() for run in runs} == {str(machines.workers[0].pid)}
    assert "runs wait for workers with --resources GPU=1" in lines[0]


SWEEPER = """
import sys
from pathlib import Path
from hvae.lab.interrupts import interrupts
from hvae.lab.runs.survey import find_runs
from hvae.lab.sweep import sweep
from tests.lab.sweep.test_cluster import task
with interrupts(again=sys.exit):
    sweep(find_runs(Path(sys.argv[1])), scheduler=sys.argv[2], task=task)
"""


def test_a_request_to_stop_reaches_the_workers(machines: Cluster, tmp_path: Path) -> None:
    runs = _runs(tmp_path, "slow 1", "slow 2", "slow 3")
    command = [sys.executable, "-c", SWEEPER, str(tmp_path), machines.address]
    sweeper = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    until(lambda: sum((run.path / "begun").exists() for run in runs) == 2, "the workers did not begin")
    sweeper.send_signal(signal.SIGTERM)
    _, errors = sweeper.communicate(timeout=SECONDS)
    assert "KeyboardInterrupt" in errors
    assert sum((run.path / "saved").exists() for run in runs) == 2, "the third was never begun, or at once given up"
    for run in runs:
        with run.lock():
            pass


def sweep_and_kill(machines: Cluster, runs: list[Run], n_kills: int) -> tuple[list[Failure], int, list[list[str]]]:
    """Failures, how many workers were killed while a run of theirs trained, and the steps from which each run began."""
    n_killed = 0

    def kill(line: str) -> None:
        """While the sweep waits: kill a worker whose run has a checkpoint, and start another worker."""
        nonlocal n_killed
        busy = [run for run in runs if not run.done and latest_checkpoint(run) is not None]
        if n_killed < n_kills and busy and line:
            worker = machines.workers.pop(0)
            worker.kill()
            worker.wait()
            n_killed += 1
            machines.start_worker()

    failures = sweep(runs, scheduler=machines.address, task=task, renew=kill)
    return failures, n_killed, [(run.path / "starts").read_text().split() for run in runs]


def test_workers_that_are_killed_cost_no_run_and_no_beginning(machines: Cluster, tmp_path: Path) -> None:
    """12 runs, 3 workers killed in the middle of a training: 12 of 12 are done, each begun once."""
    runs = _runs(tmp_path, *(f"trained {n}" for n in range(12)))
    failures, n_killed, starts = sweep_and_kill(machines, runs, 3)
    assert failures == [] and n_killed == 3
    assert [run.done for run in runs] == [True] * 12
    assert all(first == "0" and "0" not in more for first, *more in starts), starts
    assert sum(len(more) for _, *more in starts) >= 1, "somebody was killed while it trained"


def test_a_run_that_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    runs = _runs(tmp_path / "runs", "cursed", "placed 1", "placed 2")

    def replace(line: str) -> None:
        for worker in [worker for worker in made.workers if worker.poll() is not None and line]:
            made.workers.remove(worker)
            made.start_worker()

    try:
        (failure,) = sweep(runs, scheduler=made.address, task=task, renew=replace)
    finally:
        made.stop()
    assert failure.run.label == "cursed" and failure.exit_code == 1
    assert failure.reason == "every worker that had it was killed"
    assert [run.done for run in runs] == [False, True, True]


def test_a_scheduler_that_does_not_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    for address in ("tcp://127.0.0.1:9", "nonsense", "tcp://127.0.0.1:port"):
        with pytest.raises(ConfigError, match=r"does not answer .*; give its address, as tcp://host:8786") as refused:
            sweep(_runs(tmp_path, "placed"), scheduler=address, task=task)
        assert "\n" not in str(refused.value)


def test_a_scheduler_that_goes_is_said(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    runs = _runs(tmp_path / "runs", "slow 1")
    try:
        with pytest.raises(ConfigError, match="is gone; start it again and repeat the command"):
            sweep(runs, scheduler=made.address, task=task, renew=lambda line: made.scheduler.kill() if line else None)
    finally:
        made.stop()
    until(lambda: run_is_free(runs[0]), "the run is held by nobody's worker")


def run_is_free(run: Run) -> bool:
    with contextlib.suppress(ConfigError), run.lock():
        return True
    return False
