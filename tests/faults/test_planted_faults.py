"""Every planted fault is caught by a test that was written for something else, and the harness itself did something."""

import ast
import csv
import importlib
import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.faults import harness
from tests.faults.__main__ import HEADINGS, Row, page, table_csv
from tests.faults.fault import LADDER, Change, path_of
from tests.faults.faults import ALL, FAULTS, parse
from tests.faults.harness import Outcome, run, smallest_caught
from tests.faults.plugin import Planter
from tests.faults.record import Failure, Record

HARMLESS = "tests/test_schedules.py"
"""tests of a module that imports no other of hvae"""


SOURCE = '''
LIMIT = 3


def mean(values, scale=2):
    """The mean, scaled."""
    total = 0
    for value in values:
        total += scale * value

    def share():
        return total / len(values)

    return share()


class EncoderKind:
    width: int = 1

    def mean(self):
        return self.width + LIMIT


def twice(x):
    return x + x


def spare(x):
    return x


def spare(x):
    return x
'''


@pytest.mark.parametrize("name", FAULTS)
def test_the_source_has_the_place_of_every_fault(name: str) -> None:
    fault = FAULTS[name]
    path = path_of(fault.plant.module)
    compile(fault.tree(), path, "exec", dont_inherit=True)
    assert ast.dump(fault.tree()) != ast.dump(ast.parse(path.read_text("utf-8")))
    if fault.size is not None:
        assert ast.dump(fault.tree(fault.size / 2)) != ast.dump(fault.tree())


@pytest.mark.parametrize(
    ("target", "old", "new", "before", "after"),
    [
        ("mean", "scale * value", "value", "total += scale * value", "total += value"),
        ("mean", "len(values)", "1", "return total / len(values)", "return total / 1"),
        ("mean.share", "total / len(values)", "total", "return total / len(values)", "return total"),
        ("mean", "2", "1", "scale=2", "scale=1"),
        ("mean", "total = 0", "total = 1\ntotal -= 2", "    total = 0\n", "    total = 1\n    total -= 2\n"),
        ("mean", "total += scale * value", "pass", "total += scale * value", "pass"),
        ("EncoderKind.mean", "self.width + LIMIT", "self.width", "self.width + LIMIT", "self.width"),
        ("EncoderKind", "LIMIT", "0", "self.width + LIMIT", "self.width + 0"),
        ("EncoderKind.width", "1", "2", "width: int = 1", "width: int = 2"),
        ("LIMIT", "3", "4", "LIMIT = 3", "LIMIT = 4"),
    ],
)
def test_a_change_is_made_in_what_is_named_and_nowhere_else(
    target: str, old: str, new: str, before: str, after: str
) -> None:
    assert SOURCE.count(before) == 1
    altered = Change(f"house:{target}", old, new).apply(SOURCE)
    assert ast.unparse(altered) == ast.unparse(ast.parse(SOURCE.replace(before, after)))


@pytest.mark.parametrize("source", [
    "def f(x, y): return g(x, 'one') + y",
    """def f(x, y):
        return (  # layout and comments say nothing
            g(
                x, "one",
            )
            + (y)
        )""",
])  # fmt: skip
@pytest.mark.parametrize(
    "old", ["g(x, 'one')", '( g(x,"one") )', "g(  # the first\n  x,\n  'o' 'ne')", "\n    g(x, 'one')\n"]
)
def test_layout_says_nothing(source: str, old: str) -> None:
    altered = Change("house:f", old, "h(x)").apply(source)
    assert ast.unparse(altered) == "def f(x, y):\n    return h(x) + y"


@pytest.mark.parametrize(
    ("target", "old", "new", "message"),
    [
        ("nowhere", "x", "y", "house:nowhere is defined 0 times"),
        ("EncoderKind.nowhere", "x", "y", "house:EncoderKind.nowhere is defined 0 times"),
        ("", "x", "y", "house: is defined 0 times"),
        ("spare", "x", "y", "house:spare is defined 2 times"),
        ("mean", "self.width", "1", "'self.width' stands 0 times in house:mean"),
        ("mean", "total = 1", "total = 2", "'total = 1' stands 0 times in house:mean"),
        ("twice", "x", "y", "'x' stands 2 times in house:twice"),
        ("twice", "x + x", "(x  +  x)", "house:twice changes nothing"),
        ("twice", "x +", "x", "house:twice is no Python: 'x \\+'"),
    ],
)
def test_a_change_that_no_longer_fits_is_refused(target: str, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Change(f"house:{target}", old, new).apply(SOURCE)


def test_what_is_altered_keeps_its_lines() -> None:
    altered = Change("house:mean", "total += scale * value", "total = None\n\n\ntotal += 1").apply(SOURCE)
    room: dict[str, Callable[[list[int]], float]] = {}
    exec(compile(altered, "house.py", "exec"), room)
    with pytest.raises(TypeError) as caught:
        room["mean"]([1])
    assert SOURCE.splitlines()[caught.traceback[-1].lineno].strip() == "total += scale * value"


def test_a_module_is_found_where_the_repository_has_it() -> None:
    for module, path in (
        ("hvae.numerics", "hvae/numerics.py"),
        ("hvae", "hvae/__init__.py"),
        ("hvae.experiments.truth", "experiments/truth/__init__.py"),
        ("hvae.analysis.claims", "analysis/claims.py"),
    ):
        assert path_of(module).resolve() == harness.REPO / path
    for module in ("hvae.nowhere", "hvae.rng.numerics", "nowhere.numerics"):
        with pytest.raises(ValueError, match=f"no module {module}"):
            path_of(module)


def test_a_planted_module_is_altered_in_memory_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = tmp_path / "planted_house"
    rooms.mkdir()
    (rooms / "__init__.py").write_text("from planted_house.room import f\n")
    (rooms / "room.py").write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    change = Change("planted_house.room:f", "1", "2")
    planter = Planter(change.module, change.apply(path_of(change.module).read_text()))
    assert "planted_house" not in sys.modules and not planter.planted
    monkeypatch.setattr(sys, "meta_path", [planter, *sys.meta_path])
    try:
        assert importlib.import_module("planted_house").f() == 2 and planter.planted
    finally:
        for name in ("planted_house", "planted_house.room"):
            sys.modules.pop(name, None)
    assert (rooms / "room.py").read_text().endswith("return 1\n") and not list(rooms.glob("__pycache__/room*"))


def test_a_fault_that_comes_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = FAULTS["rate-sign"].plant.module
    monkeypatch.delitem(sys.modules, module, raising=False)
    assert Planter.of("rate-sign").module == module
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    with pytest.raises(ValueError, match="imported before the fault rate-sign"):
        Planter.of("rate-sign")


def test_bad_faults_are_named() -> None:
    with pytest.raises(ValueError, match="no fault 'nonsense'"):
        parse("nonsense")
    with pytest.raises(ValueError, match="rate-sign has no size"):
        FAULTS["rate-sign"].tree(0.1)
    with pytest.raises(ValueError, match="rate-sign has the size"):
        replace(FAULTS["rate-sign"], size=0.1)
    with pytest.raises(ValueError, match="elbo-kl-weight has the size None"):
        replace(FAULTS["elbo-kl-weight"], size=None)
    assert parse(FAULTS["elbo-kl-weight"].key(0.001)) == (FAULTS["elbo-kl-weight"], 0.001)
    assert len(FAULTS) == len(ALL), "two faults share a name"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_a_fault_the_same_tests_pass() -> None:
    outcome = run(dict.fromkeys(node for fault in FAULTS.values() for node in fault.tests))
    assert outcome.passed, outcome.output
    assert outcome.record is not None and outcome.record.planted is None and outcome.record.n_passed >= len(FAULTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_caught(name: str) -> None:
    fault = FAULTS[name]
    outcome = run(fault.tests, fault.key())
    assert outcome.exit_code == 1, f"{fault.what}: pytest ended with {outcome.exit_code}.\n{outcome.output}"
    assert outcome.record is not None and outcome.record.planted, f"{name} was not planted.\n{outcome.output}"
    assert outcome.caught(fault), f"no test failed as it should, but {outcome.record.failures}.\n{outcome.output}"


@pytest.mark.slow
def test_what_is_no_catch_does_not_count() -> None:
    unknown = run([HARMLESS], "nonsense")
    assert unknown.exit_code == 4 and unknown.record is None and "no fault 'nonsense'" in unknown.output
    unseen = run([HARMLESS], "rate-sign")  # these tests never import the altered module
    assert unseen.exit_code == 0 and unseen.record is not None and unseen.record.planted is False
    missing = run(["tests/test_schedules.py::test_that_is_not_there"], "rate-sign")
    assert missing.exit_code == 4
    slight = run(FAULTS["elbo-kl-weight"].tests, "elbo-kl-weight=0.0")  # planted, and nothing is wrong
    assert slight.exit_code == 0 and slight.record is not None and slight.record.planted
    assert not any(outcome.caught(FAULTS["rate-sign"]) for outcome in (unknown, unseen, missing, slight))


def test_only_a_failed_test_is_a_catch() -> None:
    fault, caught = FAULTS["rate-sign"], Outcome(1, record(), 1.0, "")
    assert caught.caught(fault) and not caught.passed
    for other in (
        replace(caught, exit_code=2),
        replace(caught, exit_code=0),
        replace(caught, record=record(when="collect")),
        replace(caught, record=record(when="setup")),
        replace(caught, record=record(kind="ImportError")),
        replace(caught, record=replace(record(), planted=False)),
        replace(caught, record=None),
    ):
        assert other.caught(fault) is None


@pytest.mark.parametrize("smallest", [None, *LADDER])
def test_bisection_finds_the_smallest_size(smallest: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS["elbo-kl-weight"]
    asked: list[float] = []

    def pretend(tests: Iterable[str], key: str) -> Outcome:
        size = parse(key)[1]
        assert size is not None
        asked.append(size)
        seen = smallest is not None and size >= smallest
        return Outcome(1 if seen else 0, record() if seen else replace(record(), failures=()), 1.0, "")

    monkeypatch.setattr(harness, "run", pretend)
    assert smallest_caught(fault) == smallest
    assert len(asked) <= 4 and set(asked) <= set(LADDER)


def test_the_table_says_what_was_caught_and_what_was_not() -> None:
    graded, sign = FAULTS["elbo-kl-weight"], FAULTS["rate-sign"]
    rows = [Row(graded, "tests/a.py::b[x|y]", "AssertionError", "0.01 %", 2.34), Row(sign, "", "", "not graded", 1.0)]
    heading, *found = csv.reader(io.StringIO(table_csv(rows)))
    assert tuple(heading) == HEADINGS
    assert found[0] == [
        *("elbo-kl-weight", graded.what, graded.plant.target, "2 %"),
        *("tests/a.py::b[x|y]", "AssertionError", "0.01 %", "2.3"),
    ]
    assert found[1][3:6] == ["not graded", "NOT CAUGHT", ""]
    text = page(rows, {"commit": "abc", "device": "cpu"})
    assert "1 of 2 bugs" in text and "- commit: abc" in text and "b[x\\|y]" in text


def record(when: str = "call", kind: str = "AssertionError") -> Record:
    return Record(True, 3, (Failure("tests/test_a.py::test_b", when, kind),))
