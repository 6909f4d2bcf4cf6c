"""Every planted fault is caught by a test that was written for something else, and the harness itself did something."""

import csv
import io
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.faults import harness
from tests.faults.__main__ import HEADINGS, Row, page, table_csv
from tests.faults.fault import LADDER, Edit
from tests.faults.faults import ALL, FAULTS, parse
from tests.faults.harness import Outcome, run, smallest_caught
from tests.faults.record import Failure, Record

HARMLESS = "tests/test_schedules.py"
"""tests of a module that imports no other of hvae"""


@pytest.mark.parametrize("name", FAULTS)
def test_the_source_has_the_place_of_every_fault(name: str) -> None:
    fault = FAULTS[name]
    compile(fault.source(), fault.plant.module, "exec")
    if fault.size is not None:
        assert fault.source(fault.size / 2) != fault.source()


def test_an_edit_that_no_longer_fits_is_refused() -> None:
    edit = Edit("hvae.numerics", "one", "other")
    assert edit.apply("one two") == "other two"
    for source, n in (("two", 0), ("one one", 2)):
        with pytest.raises(ValueError, match=f"'one' stands {n} times in the source of hvae.numerics"):
            edit.apply(source)
    with pytest.raises(ValueError, match="changes nothing"):
        Edit("hvae.numerics", "one", "one").apply("one")


def test_bad_faults_are_named() -> None:
    with pytest.raises(ValueError, match="no fault 'nonsense'"):
        parse("nonsense")
    with pytest.raises(ValueError, match="rate-sign has no size"):
        FAULTS["rate-sign"].source(0.1)
    with pytest.raises(ValueError, match="rate-sign has the size"):
        replace(FAULTS["rate-sign"], size=0.1)
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
        *("elbo-kl-weight", graded.what, "hvae.objectives.bounds", "2 %"),
        *("tests/a.py::b[x|y]", "AssertionError", "0.01 %", "2.3"),
    ]
    assert found[1][3:6] == ["not graded", "NOT CAUGHT", ""]
    text = page(rows, {"commit": "abc", "device": "cpu"})
    assert "1 of 2 bugs" in text and "- commit: abc" in text and "b[x\\|y]" in text


def record(when: str = "call", kind: str = "AssertionError") -> Record:
    return Record(True, 3, (Failure("tests/test_a.py::test_b", when, kind),))
