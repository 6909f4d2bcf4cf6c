"""Which tests run which lines: a map, one file of JSON for each file of tests, made once and made again when stale."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

from tests.reliability.mutants.forks import OPTIONS, Work
from tests.reliability.mutants.parts import BUILT, PARTS, REPO, digest, sources

MAP = BUILT / "map"
Lines = Mapping[str, Mapping[str, Sequence[int]]]
"""test -> source -> the lines that it runs"""


@dataclass(frozen=True)
class Covered:
    """One file of tests, as it passed on the library as it is."""

    file: str
    seconds: Mapping[str, float]
    """test -> how long it took"""
    lines: Lines

    @cached_property
    def by_line(self) -> Mapping[tuple[str, int], frozenset[str]]:
        """(source, line) -> the tests that run it; line 0 for any line of the source."""
        found: dict[tuple[str, int], set[str]] = {}
        for test, ran in self.lines.items():
            for source, lines in ran.items():
                for line in (0, *lines):
                    found.setdefault((source, line), set()).add(test)
        return {place: frozenset(tests) for place, tests in found.items()}


def mutated() -> tuple[str, ...]:
    """Every file that is mutated."""
    return tuple(source for part in PARTS for source in sources(part))


def stale(files: Sequence[str]) -> list[str]:
    """Those files of tests whose map is missing, or was made of other tests or another library."""
    return [file for file in files if not _place(file).exists() or _load(file)["digest"] != digest(file, *mutated())]


def read(files: Sequence[str]) -> list[Covered]:
    """The map, as it is on disk."""
    return [Covered(file, found["seconds"], found["lines"]) for file in files for found in [_load(file)]]


def making(file: str) -> Work[str]:
    """Makes the map of one file of tests."""
    return Work(file, lambda: _make(file))


def _make(file: str) -> None:
    import coverage

    measured = coverage.Coverage(data_file=None, include=[str(REPO / source) for source in mutated()])
    seen = _Seen(measured)
    measured.start()
    code = pytest.main([*OPTIONS, "-m", "not slow", file], plugins=[seen])
    measured.stop()
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"{file} does not pass as it is: pytest ended with {code}.")
    data = measured.get_data()
    lines: dict[str, dict[str, list[int]]] = {test: {} for test in seen.seconds}
    for source in mutated():
        for line, tests in data.contexts_by_lineno(str(REPO / source)).items():
            for test in tests:
                if test in lines:
                    lines[test].setdefault(source, []).append(line)
    MAP.mkdir(parents=True, exist_ok=True)
    found = {"digest": digest(file, *mutated()), "seconds": seen.seconds, "lines": lines}
    _place(file).write_text(json.dumps(found))


@dataclass
class _Seen:
    """A plugin: each test is a context of its own, and has its seconds."""

    measured: "coverage.Coverage"  # type: ignore[name-defined]  # noqa: F821
    seconds: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped:
            self.seconds[report.nodeid] = round(self.seconds.get(report.nodeid, 0.0) + report.duration, 4)


def _place(file: str) -> Path:
    return MAP / (file.removesuffix(".py").replace("/", ".") + ".json")


def _load(file: str) -> dict[str, dict[str, dict[str, list[int]]]]:
    return json.loads(_place(file).read_text())


def statement(source: str, line: int) -> range:
    """The lines from the start of the innermost statement there to that line: some may have no trace of their own."""
    around = [
        node.lineno for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]  # fmt: skip
    return range(max(around, default=line), line + 1)
