"""Tests run against a library with one fault in it, each time in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.fault import LADDER, Fault
from tests.faults.plugin import FAULT, RECORD
from tests.faults.record import Failure, Record

REPO = Path(__file__).parents[2]
TIMEOUT = 570
"""seconds that one process may take"""


@dataclass(frozen=True)
class Outcome:
    """How a session of tests ended."""

    exit_code: int
    record: Record | None
    """None where pytest gave up before it ran a test"""
    seconds: float
    output: str

    @property
    def passed(self) -> bool:
        """Every test was run and passed."""
        return self.exit_code == 0 and self.record is not None and not self.record.failures

    def caught(self, fault: Fault) -> Failure | None:
        """The failed test that caught the fault, if one did. None if the fault was never imported, a test could not be
        collected or set up, something else was raised than ``fault.raises``, or pytest did not end with failed tests.
        """
        if self.exit_code != 1 or self.record is None or not self.record.planted or not self.record.failures:
            return None
        first = self.record.failures[0]
        return first if first.when == "call" and first.kind in fault.raises else None


def run(tests: Iterable[str], key: str = "") -> Outcome:
    """``pytest -x`` on ``tests`` (paths or node ids from the repository's root) with the fault ``key`` planted."""
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record.json"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"OMP_NUM_THREADS": "1", FAULT: key, RECORD: str(record)}
        environment["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch  # examples that only the fault fails are not kept
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "tests.faults.plugin"]
        start = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=REPO, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - start
        found = Record.of(json.loads(record.read_text())) if record.exists() else None
    return Outcome(ended.returncode, found, seconds, ended.stdout + ended.stderr)


def smallest_caught(fault: Fault) -> float | None:
    """The smallest size of `LADDER` that is caught, by bisection; None where the largest is not.

    Takes it that what is caught at some size is caught at every larger one.
    """
    caught, missed = -1, len(LADDER)
    while missed - caught > 1:
        middle = (caught + missed) // 2
        if run(fault.tests, fault.key(LADDER[middle])).caught(fault):
            caught = middle
        else:
            missed = middle
    return LADDER[caught] if caught >= 0 else None
