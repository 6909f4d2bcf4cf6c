"""Processes of this machine, one for each run, so that no state passes from run to run.

They are forked from a server that has loaded torch. What is known of a worker comes through its own connection, so a
server that is killed takes no worker with it; the next run starts another server.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from hvae.lab.runs.run import Run
from hvae.lab.sweep.executor import GRACE_SECONDS, Ending, Executor, Job
from hvae.lab.sweep.worker import killed, received, work

STARTS = 3
"""how often a process is started whose server is killed meanwhile"""
JOIN_SECONDS = 10.0
UNKNOWN = 255
"""the exit code that multiprocessing makes up where the server is gone"""


@dataclass(frozen=True)
class _Worker:
    run: Run
    process: BaseProcess
    connection: Connection


class LocalProcesses(Executor):
    """At most ``n_workers`` processes at a time, with ``n_threads`` each."""

    def __init__(self, job: Job, *, n_workers: int, n_threads: int) -> None:
        self.n_slots = n_workers
        self._job, self._n_threads = job, n_threads
        self._context = multiprocessing.get_context("forkserver")
        # a missing module is passed over
        self._context.set_forkserver_preload(["hvae.lab.completion", "hvae.lab.sweep", "torch.utils.tensorboard"])
        self._working: list[_Worker] = []

    @property
    def n_working(self) -> int:
        return len(self._working)

    def submit(self, run: Run) -> None:
        for attempt in range(1, STARTS + 1):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=work, args=(run, self._job, self._n_threads, theirs), name=run.label)
            try:
                process.start()
            except (EOFError, OSError):  # the server was killed just now
                ours.close()
                if attempt == STARTS:
                    raise
                time.sleep(0.1 * attempt)
            else:
                self._working.append(_Worker(run, process, ours))
                return
            finally:
                theirs.close()

    def wait(self, seconds: float) -> list[Ending]:
        ended = wait([worker.connection for worker in self._working], seconds)
        return [self._end(worker) for worker in list(self._working) if worker.connection in ended]

    def _end(self, worker: _Worker) -> Ending:
        self._working.remove(worker)
        report = received(worker.connection)
        worker.connection.close()
        worker.process.join(JOIN_SECONDS)
        code = worker.process.exitcode
        return Ending(worker.run, *(report or killed(None if code == UNKNOWN else code)))

    def stop(self) -> None:
        try:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            while self._working and time.monotonic() < deadline:
                self.wait(max(0.0, deadline - time.monotonic()))
        finally:
            self._signal(signal.SIGKILL)
            while self._working:
                self.wait(JOIN_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        """To every worker whose connection has not ended, so that no other process can have its number."""
        for worker in self._working:
            with contextlib.suppress(ProcessLookupError):
                if worker.process.pid is not None:
                    os.kill(worker.process.pid, number)
