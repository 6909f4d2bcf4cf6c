"""The sweep: submit what is not done, wait, try again what was killed, pass over what others hold."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hvae.lab.completion import complete
from hvae.lab.endings import DONE, FAILED, HELD, STOPPED
from hvae.lab.runs.clock import cost, duration, n_cores
from hvae.lab.runs.lock import LOOK_SECONDS, holder
from hvae.lab.runs.run import Failure, Run
from hvae.lab.sweep.executor import LOST, Ending, Executor
from hvae.lab.sweep.local import LocalProcesses
from hvae.lab.sweep.progress import Progress, Work

TRIES = 3
"""how often a run is begun whose worker is killed"""
RENEW_SECONDS = 2.0


def sweep(
    runs: Sequence[Run],
    *,
    n_workers: int = 0,
    n_threads: int = 1,
    device: str = "cpu",
    data_dir: Path | None = None,
    scheduler: str = "",
    say: Callable[[str], None] = lambda line: None,
    renew: Callable[[str], None] | None = None,
    task: Callable[..., None] = complete,
    settled: Callable[[Run], bool] = lambda run: run.done,
) -> list[Failure]:
    """Complete every run that is not `settled`, at most `n_workers` at a time, or on the cluster of a `scheduler`.

    0 workers stand for one per `n_threads` cores, or one on a GPU. The costliest runs start first. `say` is called
    with a line for every run that ends, `renew` every other second with where all of them are. Returns the failures.
    A worker that is killed is tried again, twice at most. A run that another process holds is passed over, and waited
    for at the end. An interrupt is passed on: workers save a checkpoint and stop, then `KeyboardInterrupt` is raised.
    """
    n_workers = n_workers or (max(1, n_cores() // n_threads) if device == "cpu" else 1)
    left = sorted((run for run in runs if not settled(run)), key=lambda run: cost(run.config))
    progress = Progress(runs, left, n_workers)
    if progress.n_ended:
        say(f"{progress.n_ended} of {len(runs)} runs are done already.")
    if not left:
        return []
    job = partial(task, device=device, data_dir=data_dir and data_dir.absolute(), progress=False)
    executor: Executor
    if scheduler:
        from hvae.lab.sweep.cluster import DaskWorkers

        executor = DaskWorkers(job, scheduler, n_threads=n_threads, device=device, say=say)
    else:
        executor = LocalProcesses(job, n_workers=n_workers, n_threads=n_threads)
    sweeping = _Sweep(executor, progress, left, say, renew or (lambda line: None), settled)
    try:
        while sweeping.goes_on():
            pass
    finally:
        if renew:
            renew("")
        executor.stop()
    return sweeping.failures


class _Sweep:
    """The runs of a sweep, each in one of four places: queue, running, held by others, ended."""

    def __init__(
        self,
        executor: Executor,
        progress: Progress,
        left: Sequence[Run],
        say: Callable[[str], None],
        renew: Callable[[str], None],
        settled: Callable[[Run], bool],
    ) -> None:
        self.executor, self.progress, self.say, self.renew, self.settled = executor, progress, say, renew, settled
        self.queue = list(left)
        self.running: dict[Path, Work] = {}
        self.held: list[Run] = []
        self.failures: list[Failure] = []
        self.tries: Counter[Path] = Counter()
        self.named: set[Path] = set()
        self.renewed = time.monotonic()

    def goes_on(self) -> bool:
        """One round; whether anything is left to do."""
        while self.queue and len(self.running) < self.executor.n_slots:
            self._begin(self.queue.pop())
        if self.running:
            for ending in self.executor.wait(LOOK_SECONDS):
                self._end(ending)
        elif self.held:
            self._say_for_whom()
            time.sleep(LOOK_SECONDS)
        if self.held and not self.queue and len(self.running) < self.executor.n_slots:
            free = [run for run in self.held if self.settled(run) or not holder(run.path)]
            self.held = [run for run in self.held if run not in free]
            self.queue += free
        if self.running and time.monotonic() > self.renewed + RENEW_SECONDS:
            self.renew(self.progress.status(self.running.values(), self.executor.n_working))
            self.renewed = time.monotonic()
        return bool(self.queue or self.running or self.held)

    def _begin(self, run: Run) -> None:
        if self.settled(run):
            self._count(run, "done by another process", None)
        elif holder(run.path):
            self.held.append(run)
        else:
            self.executor.submit(run)
            self.running[run.path] = Work(run, time.monotonic())

    def _end(self, ending: Ending) -> None:
        run, code, reason = ending.run, ending.code, ending.reason
        seconds = time.monotonic() - self.running.pop(run.path).begun
        self.tries[run.path] += code != HELD
        if code == DONE:
            self._count(run, f"done in {duration(seconds)}", seconds)
        elif code == HELD:
            self.held.append(run)
        elif (code < 0 or code == STOPPED) and self.tries[run.path] < TRIES:
            self.say(f"{run.label}: {reason.rstrip('.')}; it is tried again, from its last checkpoint.")
            self.queue.append(run)
        else:
            if code < 0 or code == STOPPED:
                reason = f"{reason.rstrip('.')}, {TRIES} times"
            self.failures.append(Failure(run, reason, FAILED if code == LOST else code))
            self._count(run, f"failed: {reason}", seconds)

    def _count(self, run: Run, outcome: str, seconds: float | None) -> None:
        self.progress.ended(run, seconds)
        self.say(self.progress.line(run.label, outcome, self.running.values()))

    def _say_for_whom(self) -> None:
        for run in self.held:
            if run.path not in self.named and (name := holder(run.path)):
                self.named.add(run.path)
                self.say(f"{run.label}: held by {name}; waiting for it.")
