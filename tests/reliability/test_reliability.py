"""The page is its record, every row is as it should be, and every measurement works with few cases."""

import pytest

from tests.reliability.figure import Figure, Row
from tests.reliability.figures import FIGURES
from tests.reliability.page import PAGE, entry, page, read_record

FEW = {
    "exact": 0, "annealing": 40, "sandwich": 20, "tails": 1, "faults": 1, "inputs": 12, "kills": 1, "damage": 5,
    "writers": 1, "drift": 8,
}  # fmt: skip
SLOW = ("kills", "writers", "drift", "inputs")


def test_the_page_is_the_record_and_the_record_is_of_these_figures() -> None:
    record = read_record()
    assert PAGE.read_text("utf-8") == page(record, FIGURES)
    assert record.keys() <= {figure.name for figure in FIGURES}
    assert [row for found in record.values() for row in found["rows"] if not row["ok"]] == []


def test_every_figure_has_a_twin() -> None:
    for name, found in read_record().items():
        assert any(row["twin"] for row in found["rows"]), name


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "figure", [pytest.param(f, id=f.name, marks=[pytest.mark.slow] * (f.name in SLOW)) for f in FIGURES]
)
def test_it_can_be_measured(figure: Figure) -> None:
    rows = figure.measure(FEW[figure.name])
    assert rows and all(row.what and row.found for row in rows)
    assert [row for row in rows if not row.ok] == []


def test_a_row_that_is_not_as_it_should_be_is_said() -> None:
    origin = {"time": "2000-01-01T", "commit": None, "python": "3", "platform": "x", "versions": {"torch": "2"}}
    figure = Figure("one", "One", "How.", 3, lambda n: [])
    rows = [Row("this", "a | b", ok=True), Row("that", "2 of 3", ok=False), Row("those", "none", ok=True, twin=True)]
    text = page({"one": entry(rows, 3, 200.0, origin)}, [figure])
    assert "2 of 3 rows are as they should be; not as they should be: that." in text
    assert "| this | a \\| b | yes |" in text and "| that | 2 of 3 | **no** |" in text and "| twin: those |" in text
    assert "`python -m tests.reliability one`: 3 minutes, 2000-01-01, commit unknown, torch 2." in text
    assert "Not measured yet." in page({}, [figure])
