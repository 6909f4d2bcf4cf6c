"""How far a sweep is: runs that ended, steps of those that go on, and a guess of the time that is left."""

import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hvae.errors import ConfigError
from hvae.lab.runs.clock import cost, duration
from hvae.lab.runs.run import Run


@dataclass(frozen=True)
class Work:
    """A run that was submitted, and when, on the clock of `time.monotonic`."""

    run: Run
    begun: float


class Progress:
    """Counts runs, and guesses the time left from the cost of those that ended, else from steps."""

    def __init__(self, runs: Sequence[Run], left: Sequence[Run], n_workers: int) -> None:
        self.n_total, self.n_workers = len(runs), n_workers
        self.n_ended = len(runs) - len(left)
        self.cost_left, self.cost_ended, self.seconds_ended = sum(cost(run.config) for run in left), 0.0, 0.0
        self.steps_total = sum(run.config.training.n_steps for run in runs)
        self.steps_ended = self.steps_total - sum(run.config.training.n_steps for run in left)
        self.begun, self.steps_at_first = time.monotonic(), self.steps_ended + _steps(left)

    def ended(self, run: Run, seconds: float | None) -> None:
        """A run ended, after so many seconds of work here; None where another process did it."""
        self.n_ended += 1
        self.steps_ended += run.config.training.n_steps
        self.cost_left -= cost(run.config)
        if seconds is not None:
            self.cost_ended += cost(run.config)
            self.seconds_ended += seconds

    def line(self, label: str, outcome: str, running: Collection[Work]) -> str:
        """A line for a run that ended; ``running`` are the others."""
        line = f"[{self.n_ended}/{self.n_total}] {label}: {outcome}"
        left = self.n_total - self.n_ended
        return f"{line} ({left} to go{self._time_left(running)})" if left else line

    def status(self, running: Collection[Work], n_working: int) -> str:
        """Where all runs together are at this moment."""
        steps = self.steps_ended + _steps(work.run for work in running)
        line = f"[{self.n_ended}/{self.n_total}] {steps} of {self.steps_total} steps, {n_working} running"
        if self.cost_ended or steps <= self.steps_at_first:
            return line + self._time_left(running)
        seconds = (time.monotonic() - self.begun) * (self.steps_total - steps) / (steps - self.steps_at_first)
        return f"{line}, about {duration(seconds)} left"

    def _time_left(self, running: Collection[Work]) -> str:
        if not self.cost_ended:
            return ""
        spent = sum(time.monotonic() - work.begun for work in running)
        left = self.cost_left * self.seconds_ended / self.cost_ended - spent
        seconds = max(left / max(min(self.n_workers, self.n_total - self.n_ended), 1), 1.0)
        return f", about {duration(seconds)} left"


def _steps(runs: Iterable[Run]) -> int:
    """The steps that these runs have made and logged."""
    total = 0
    for run in runs:
        with contextlib.suppress(ConfigError, OSError):  # a line that is being written
            total += run.last_step()
    return total
