"""Make many runs complete, in worker processes.

Every task is "make this run complete" (`hvae.lab.completion`), so a worker that is killed fails alone, and the same
command repairs what is missing.

Workers are forked from a server that has loaded torch, one process per run, so no state passes from
run to run. A worker ends when its parent does; its work is on disk.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from tqdm import tqdm

from hvae.errors import ConfigError, TrainingError
from hvae.lab.completion import complete
from hvae.lab.runs.clock import cost as cost
from hvae.lab.runs.clock import duration, n_cores
from hvae.lab.runs.run import Failure, Run

GRACE_SECONDS = 60.0
"""how long a worker that is asked to stop may take to save its checkpoint"""


@dataclass(frozen=True)
class _Worker:
    run: Run
    process: BaseProcess
    connection: Connection
    started: float


def sweep(
    runs: Sequence[Run],
    *,
    n_workers: int = 0,
    n_threads: int = 1,
    device: str = "cpu",
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    task: Callable[..., None] = complete,
    settled: Callable[[Run], bool] = lambda run: run.done,
) -> list[Failure]:
    """Complete every run that is not `settled`, at most `n_workers` at a time.

    0 workers stand for one per `n_threads` cores, or one on a GPU. The costliest runs start first. `say` is called
    with a line for every run that ends. Returns the failures. An interrupt (SIGINT or SIGTERM) is passed on: workers
    save a checkpoint and stop, then `KeyboardInterrupt` is raised.
    """
    n_workers = n_workers or (max(1, n_cores() // n_threads) if device == "cpu" else 1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hvae.lab.sweep", "torch.utils.tensorboard"])  # a missing one is passed over
    job = partial(task, device=device, data_dir=data_dir, progress=False)
    queue = sorted((run for run in runs if not settled(run)), key=lambda run: cost(run.config))
    clock = _Clock(n_total=len(runs), n_workers=n_workers, costs=[cost(run.config) for run in queue])
    if clock.n_ended:
        say(f"{clock.n_ended} of {len(runs)} runs are done already.")
    working: list[_Worker] = []
    failures: list[Failure] = []
    with _termination_interrupts():
        try:
            while queue or working:
                while queue and len(working) < n_workers:
                    working.append(_start(context, queue.pop(), job, n_threads))
                ended = wait([worker.process.sentinel for worker in working])
                for worker in [worker for worker in working if worker.process.sentinel in ended]:
                    working.remove(worker)
                    failure = _end(worker)
                    failures += [failure] if failure else []
                    seconds = time.monotonic() - worker.started
                    clock.ended(cost(worker.run.config), seconds)
                    outcome = f"failed: {failure.reason}" if failure else f"done in {duration(seconds)}"
                    say(clock.line(worker.run.label, outcome, [time.monotonic() - w.started for w in working]))
        finally:
            _stop(working)
    return failures


class _Clock:
    """Counts runs and guesses the time left from the cost of those that ended."""

    def __init__(self, *, n_total: int, n_workers: int, costs: Sequence[float]) -> None:
        self.n_total, self.n_workers = n_total, n_workers
        self.n_ended = n_total - len(costs)
        self.cost_left, self.cost_ended, self.seconds_ended = sum(costs), 0.0, 0.0

    def ended(self, cost: float, seconds: float) -> None:
        self.n_ended += 1
        self.cost_left -= cost
        self.cost_ended += cost
        self.seconds_ended += seconds

    def line(self, label: str, outcome: str, running_seconds: Sequence[float]) -> str:
        line = f"[{self.n_ended}/{self.n_total}] {label}: {outcome}"
        if self.n_ended == self.n_total:
            return line
        left = self.cost_left * self.seconds_ended / self.cost_ended - sum(running_seconds)
        seconds = max(left / min(self.n_workers, self.n_total - self.n_ended), 1.0)
        return f"{line} ({len(running_seconds)} running, about {duration(seconds)} left)"


def _start(
    context: multiprocessing.context.ForkServerContext, run: Run, job: Callable[[Run], None], n_threads: int
) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(run, job, n_threads, theirs), name=run.label)
    process.start()
    theirs.close()
    return _Worker(run, process, ours, time.monotonic())


def _work(run: Run, job: Callable[[Run], None], n_threads: int, connection: Connection) -> None:
    """The work of a process: its own log, its own group (the parent passes signals on), one run."""
    os.setpgid(0, 0)
    with open(run.path / "log.txt", "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    threading.Thread(target=_die_with_the_parent, args=(connection,), daemon=True).start()
    torch.set_num_threads(n_threads)
    tqdm.set_lock(threading.RLock())  # its default lock is a semaphore of the system, which a killed worker leaks
    try:
        with _termination_interrupts():
            job(run)
    except KeyboardInterrupt as interrupt:
        connection.send(str(interrupt) or "was interrupted")
        sys.exit(130)
    except (ConfigError, OSError) as error:
        traceback.print_exc()
        connection.send(str(error))
        sys.exit(2)
    except TrainingError as error:
        connection.send(str(error))
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; see {run.path / 'log.txt'}")
        sys.exit(1)


def _die_with_the_parent(connection: Connection) -> None:
    """End this process with its parent: nothing is sent to a worker, so the pipe ends when the parent does."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)


def _end(worker: _Worker) -> Failure | None:
    """Collect a process that has ended; None if it did its work."""
    worker.process.join()
    code = worker.process.exitcode or 0
    reason = ""
    with contextlib.suppress(EOFError, OSError):
        reason = worker.connection.recv() if worker.connection.poll() else ""
    worker.connection.close()
    if code == 0:
        return None
    if not reason:
        ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        reason = f"the process {ending}"
    return Failure(worker.run, reason, code)


def _stop(workers: Sequence[_Worker]) -> None:
    """Ask the workers to save and stop. After the grace period, or at a second Ctrl-C, they are killed."""
    try:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """SIGTERM as KeyboardInterrupt, where handlers may be set."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
