"""What a sweep asks of whoever does the work: three verbs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from hvae.lab.runs.run import Run

Job = Callable[[Run], None]
"""makes a run complete; it is pickled on its way to a worker"""

GRACE_SECONDS = 60.0
"""how long a worker that is asked to stop may take to save its checkpoint"""
LOST = -1_000_000
"""the exit code of a process of which nothing is known but that it is gone"""


@dataclass(frozen=True)
class Ending:
    """How the work on a run ended: an exit code of `hvae.lab.endings`; negative, the signal that killed the process."""

    run: Run
    code: int
    reason: str


class Executor(ABC):
    """Does the work on runs somewhere. What it is given ends once, in an `Ending`."""

    n_slots: float
    """how many runs may be submitted at a time"""

    @property
    @abstractmethod
    def n_working(self) -> int:
        """How many runs are worked on at this moment."""

    @abstractmethod
    def submit(self, run: Run) -> None:
        """Begin to work on a run, now or when there is a place."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Ending]:
        """The runs that ended, as soon as one does; none after so many seconds."""

    @abstractmethod
    def stop(self) -> None:
        """Ask every worker to save and stop, wait for it `GRACE_SECONDS`, and let go of everything."""
