"""Rows of committed tables, as the arrays that figures read."""

import csv
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def rows(page: str, table: str) -> dict[str, np.ndarray]:
    """Column -> its values: numbers, truth values or words. An empty number is NaN."""
    with (RESULTS / page / "tables" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return {key: _column([row[key] for row in found]) for key in found[0]}


def _column(cells: list[str]) -> np.ndarray:
    if set(cells) <= {"True", "False"}:
        return np.array([cell == "True" for cell in cells])
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells)


def parts(page: str, prefix: str) -> dict[str, dict[str, np.ndarray]]:
    """What an experiment measured, part by part, from the tables whose names begin with the prefix."""
    files = sorted((RESULTS / page / "tables").glob(f"{prefix}-*.csv"))
    return {file.stem.removeprefix(f"{prefix}-"): rows(page, file.stem) for file in files}
