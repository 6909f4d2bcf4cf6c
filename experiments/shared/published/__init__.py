"""Numbers that the papers printed, with where each was read: `numbers.csv`, one row per number."""

import csv
from functools import cache
from pathlib import Path

from hvae.analysis.papers import Published

FILE = Path(__file__).with_name("numbers.csv")


@cache
def numbers() -> tuple[Published, ...]:
    """Every row."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Published(**row | {"value": float(row["value"])}) for row in csv.DictReader(file))  # type: ignore[arg-type]


def published(paper: str, table: str, model: str, metric: str, dataset: str = "") -> Published:
    """The one row that all of these pick; an empty `dataset` picks any. Raises LookupError."""
    found = [
        row
        for row in numbers()
        if (row.paper, row.table, row.model, row.metric) == (paper, table, model, metric)
        and dataset in ("", row.dataset)
    ]
    if len(found) != 1:
        wanted = ", ".join((paper, table, model, metric, dataset or "any data"))
        raise LookupError(f"{len(found)} rows of {FILE.name} are {wanted}")
    return found[0]
