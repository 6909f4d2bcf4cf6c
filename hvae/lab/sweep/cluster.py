"""The workers of a scheduler of Dask: on this machine, by SSH, under SLURM, on Kubernetes.

Scheduler and workers are started by others (docs/cluster.md), and see the directory of runs under the same path. A
worker of Dask gives each run a process of its own, as its threads can neither be interrupted nor killed. Where a
worker is killed, Dask gives its runs to others, which go on from the last checkpoint.
"""

import dataclasses
import queue
import time
import uuid
from collections.abc import Callable
from typing import Any

from hvae.errors import ConfigError
from hvae.extras import need
from hvae.lab.endings import FAILED, ending
from hvae.lab.runs.run import Run
from hvae.lab.sweep.executor import GRACE_SECONDS, Ending, Executor, Job
from hvae.lab.sweep.worker import work_in_a_process

CONNECT_SECONDS = 20
GONE = "The scheduler at {} is gone; start it again and repeat the command, which goes on from what is done."


class DaskWorkers(Executor):
    """Submits every run at once, so that a cluster that grows on demand sees the demand.

    Raises `ConfigError` for a scheduler that does not answer, or goes away.
    """

    n_slots = float("inf")

    def __init__(self, job: Job, scheduler: str, *, n_threads: int, device: str, say: Callable[[str], None]) -> None:
        need("distributed", "A scheduler needs")
        from distributed import Client, Event

        try:
            self._client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"The scheduler {scheduler!r} does not answer ({reason}); give its address, as tcp://host:8786."
            ) from None
        self._scheduler, self._job, self._n_threads = scheduler, job, n_threads
        self._resources = {} if device == "cpu" else {"GPU": 1}
        self._stop = Event(f"hvae-stop-{uuid.uuid4().hex}", client=self._client)
        self._running: dict[str, tuple[Run, Any]] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        n_places = self._n_places()
        says = f"has {n_places} place{'' if n_places == 1 else 's'} for runs" if n_places else "has no worker yet"
        on = "" if device == "cpu" else "; runs wait for workers with --resources GPU=1"
        say(f"The scheduler at {scheduler} {says}{on}.")

    def _n_places(self) -> int:
        return sum(self._client.nthreads().values())

    @property
    def n_working(self) -> int:
        return min(len(self._running), self._n_places())

    def submit(self, run: Run) -> None:
        run = dataclasses.replace(run, path=run.path.absolute())  # workers stand in other folders
        key = f"hvae-{run.path.name}-{uuid.uuid4().hex}"
        future = self._client.submit(
            _complete_there,
            run,
            self._job,
            self._n_threads,
            self._stop.name,
            key=key,
            pure=False,
            resources=self._resources,
        )
        self._running[key] = (run, future)
        future.add_done_callback(self._ended.put)

    def wait(self, seconds: float) -> list[Ending]:
        try:
            futures = [self._ended.get(timeout=seconds)]
        except queue.Empty:
            if self._client.status not in ("running", "connecting"):
                raise ConfigError(GONE.format(self._scheduler)) from None
            return []
        while not self._ended.empty():
            futures.append(self._ended.get())
        return [self._ending(future) for future in futures]

    def _ending(self, future: Any) -> Ending:
        run, _ = self._running.pop(future.key)
        if future.status == "finished":
            return Ending(run, *future.result())
        if future.status != "error":
            raise ConfigError(GONE.format(self._scheduler))
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            # Dask has tried it on several workers: another try would kill as many again
            return Ending(run, FAILED, "every worker that had it was killed")
        return Ending(run, *ending(error, [run.path]))

    def stop(self) -> None:
        try:
            if self._running and self._client.status == "running":
                self._stop.set()
                deadline = time.monotonic() + GRACE_SECONDS
                while self._running and time.monotonic() < deadline:
                    self.wait(max(0.0, deadline - time.monotonic()))
        except ConfigError:  # the scheduler went meanwhile; workers save when they lose it
            pass
        finally:
            self._client.cancel([future for _, future in self._running.values()], force=True)
            self._client.close(timeout=5)


def _complete_there(run: Run, job: Job, n_threads: int, stop: str) -> tuple[int, str]:
    """What a worker does with a run."""
    from distributed import Event

    return work_in_a_process(run, job, n_threads, Event(stop).is_set)
