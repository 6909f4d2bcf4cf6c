"""One mutant against the tests that run its line, the quickest first."""

import ast
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.plugin import Planter, Recorder
from tests.faults.record import Record
from tests.reliability.mutants.cover import Covered, statement
from tests.reliability.mutants.forks import OPTIONS, Ended, Work
from tests.reliability.mutants.parts import REPO

BUDGET = 150.0
"""seconds of tests, as long as they took on the library as it is, that a mutant must survive"""
FIRST = 2.0
"""seconds of each file's tests before any file has more"""
PATIENCE = 20.0, 10.0
"""a test hangs after so many seconds of processor time, and so many times what it took"""
HANG, CRASH = "hang", "crash"
NOTHING, UNCHANGED = "nothing", "unchanged-{}"
"""the operator of a twin, and its key with a part's name"""
RESULTS = Path(__file__).parent / "results.jsonl"


@dataclass(frozen=True)
class Round:
    """Some tests of one file, with their seconds."""

    file: str
    tests: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    key: str
    source: str
    digest: str
    """of the file that was changed"""
    line: int
    operator: str
    before: str
    after: str
    killed_by: str
    """the first test that failed, `HANG`, `CRASH`, or nothing"""
    kind: str
    """of the exception"""
    n_tests: int
    """that passed"""
    seconds: float

    @property
    def killed(self) -> bool:
        return bool(self.killed_by)

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def plan(source: str, line: int, text: str, covered: Sequence[Covered], first: str = "") -> list[Round]:
    """The tests that run the line, then the others of their files, until the budget ends.

    Where no test runs it, as at import, those that run anything of the source. A test may share what an earlier one
    computed, and so not run the line itself: hence the others. Tests of the source's own folder come first, and before
    all ``first``, a test that killed it before.
    """
    rounds: list[Round] = []
    lines: Sequence[int] = statement(text, line)
    if not any((source, line) in each.by_line for each in covered for line in lines):
        lines = [0]
    running = [(each, {test for at in lines for test in each.by_line.get((source, at), ())}) for each in covered]
    running = sorted(
        ((each, tests) for each, tests in running if tests),
        key=lambda found: (not mirrors(found[0].file, source), sum(found[0].seconds[test] for test in found[1])),
    )
    left, done = BUDGET, {first}
    rounds += [Round(each.file, {first: each.seconds[first]}) for each in covered if first in each.seconds]
    for limit, others in ((FIRST, False), (BUDGET, False), (BUDGET, True)):
        for each, tests in running:
            wanted = [test for test in (each.seconds if others else tests) if test not in done]
            taken = _within(min(limit, left), {test: each.seconds[test] for test in wanted})
            if taken:
                rounds.append(Round(each.file, taken))
                done |= taken.keys()
                left -= sum(taken.values())
    return rounds


def mirrors(file: str, source: str) -> bool:
    """Whether a file of tests belongs to the source: it stands in the folder of the same name, or has its name."""
    own = Path(source.replace("hvae", "tests", 1))
    return file == f"tests/test_{own.name}" if own.parent == Path("tests") else Path(file).parent == own.parent


def _within(limit: float, seconds: Mapping[str, float]) -> dict[str, float]:
    """The quickest that together take no longer."""
    taken: dict[str, float] = {}
    for test, needed in sorted(seconds.items(), key=lambda item: item[1]):
        if sum(taken.values()) + needed > limit:
            break
        taken[test] = needed
    return taken


def trying(name: str, source: str, text: str, rounds: Sequence[Round], to: Path) -> Work[str]:
    """Runs the rounds, until one fails, with ``text`` in place of the source; its record goes to the file ``to``."""

    def call() -> None:
        planter = Planter(source.removesuffix(".py").replace("/", "."), ast.parse(text))
        sys.meta_path.insert(0, planter)
        n_passed = 0
        for number, each in enumerate(rounds):
            at = to.with_suffix(f".{number}")
            signal.setitimer(signal.ITIMER_PROF, 3 * PATIENCE[0])  # to collect; SIGPROF ends the process
            code = pytest.main([*OPTIONS, "-x", each.file], plugins=[Recorder(planter, at), _Chosen(each.tests)])
            record = Record.of(json.loads(at.read_text()))
            n_passed += record.n_passed
            to.write_text(json.dumps(Record(planter.planted, n_passed, record.failures).as_json()))
            if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                break

    return Work(name, call)


def judged(ended: Ended[str], to: Path) -> tuple[str, str, int]:
    """What killed it, the kind of exception, and how many tests passed. Raises RuntimeError if the trial failed."""
    record = Record.of(json.loads(to.read_text())) if to.exists() else None
    if ended.code < 0:
        how = HANG if -ended.code == signal.SIGPROF else CRASH
        return how, signal.Signals(-ended.code).name, record.n_passed if record else 0
    if ended.code or record is None:
        raise RuntimeError(f"{ended.name} was not tried to the end:\n{ended.output[-2000:]}")
    first = next(iter(record.failures), None)
    return (first.node, first.kind, record.n_passed) if first else ("", "", record.n_passed)


class _Chosen:
    """A plugin: only these tests, in this order, each with an alarm that rings by the time of this process alone."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds
        self._place = {test: place for place, test in enumerate(seconds)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._place]
        items[:] = sorted(chosen, key=lambda item: self._place[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        least, times = PATIENCE
        signal.setitimer(signal.ITIMER_PROF, least + times * self._seconds[nodeid])


def results(file: Path) -> dict[str, Result]:
    """Key -> what was found last, of a file with a line for each; a last line that was cut off is no result."""
    lines = file.read_text("utf-8").splitlines(keepends=True) if file.exists() else []
    found: Iterator[dict[str, Any]] = (json.loads(line) for line in lines if line.endswith("\n"))
    return {each["key"]: Result(**each) for each in found}


def text_of(source: str) -> str:
    return (REPO / source).read_text("utf-8")
