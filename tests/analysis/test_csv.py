"""CSV that a spreadsheet opens: text stays text, numbers stay numbers."""

import csv
import io

import pytest

from hvae.analysis.tables.table import to_csv


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", '=HYPERLINK("x")', "-depth", "-"]
)
def test_text_that_would_be_computed_is_marked(text: str) -> None:
    ((cell, other),) = list(csv.reader(io.StringIO(to_csv(["a", "b"], [[text, 1]]))))[1:]
    assert cell == f"'{text}" and other == "1"


@pytest.mark.parametrize("value", [-1, -0.5, -1e-9, float("-inf"), "-3.25", "+1", "-inf", "a-b", "depth-3", "", "1=1"])
def test_what_is_a_number_or_harmless_stays(value: object) -> None:
    ((cell, _),) = list(csv.reader(io.StringIO(to_csv(["a", "b"], [[value, 1]]))))[1:]
    assert cell == (value if isinstance(value, str) else f"{value:.6g}")
