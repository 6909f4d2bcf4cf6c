"""Sessions of pytest, each in a fork of a process that has imported what is slow to import, but nothing of hvae."""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

MEMORY = 12 << 30
"""bytes of address space that one fork may take"""
OPTIONS = (
    "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",  # of hypothesis, which was imported before pytest began
)  # fmt: skip
"""of every session of pytest"""
Name = TypeVar("Name")


@dataclass(frozen=True)
class Work(Generic[Name]):
    """What one fork does."""

    name: Name
    call: Callable[[], None]


@dataclass(frozen=True)
class Ended(Generic[Name]):
    """How a fork ended."""

    name: Name
    code: int
    """0, or how it failed; -s where the signal s ended it"""
    seconds: float
    output: str


def warm() -> None:
    """Import what every session needs. Raises RuntimeError where hvae has been imported before."""
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.integrate
    import scipy.special
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)  # no thread is lost in a fork
    if loaded := [name for name in sys.modules if name.partition(".")[0] == "hvae"]:
        raise RuntimeError(f"{loaded[0]} was imported before the first fork; no change could be planted.")


def in_forks(works: Iterable[Work[Name]], jobs: int) -> Iterator[Ended[Name]]:
    """Each work in a fork of its own, so many at once; in the order in which they end."""
    context, running = get_context("fork"), dict[int, tuple[Work[Name], BaseProcess, float, Path]]()
    queue = iter(works)
    with tempfile.TemporaryDirectory() as scratch:
        while True:
            for work in queue:
                log = Path(scratch) / f"{time.monotonic_ns()}.log"
                process = context.Process(target=_child, args=(work, log))
                process.start()
                running[process.sentinel] = work, process, time.monotonic(), log
                if len(running) >= jobs:
                    break
            if not running:
                return
            for sentinel in connection.wait(list(running)):
                assert isinstance(sentinel, int)
                work, process, start, log = running.pop(sentinel)
                process.join()
                yield Ended(work.name, process.exitcode or 0, time.monotonic() - start, log.read_text(errors="replace"))


def _child(work: Work[Name], log: Path) -> None:
    with log.open("wb") as to:
        os.dup2(to.fileno(), 1)
        os.dup2(to.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch  # examples that only a mutant fails are not kept
        work.call()
