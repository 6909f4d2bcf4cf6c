"""Coverage of intervals, and false statements: tables and sentences. Shares in %."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from hvae.analysis.load import Array, Arrays
from hvae.analysis.tables.table import Cell, Column, Table, number
from hvae.experiments.truth.tally import STATEMENT
from hvae.vocabulary import FEWEST_FOR_ABSENCE, RARE_SHARE

LEAST, MOST = 0.93, 0.03
"""the coverage to reach from `FROM` images on; the most of what is falsely sure"""
FROM = 100
SURE = 1e-3
"""a cell fails if chance alone would leave so many repetitions or fewer with this probability"""


def coverage_tables(rows: Arrays) -> dict[str, Table]:
    """Heading -> table."""
    pixels, sizes = list(dict.fromkeys(rows["pixel"].tolist())), sorted(set(rows["n"].tolist()))
    ends = rows["covers"] != STATEMENT
    return {
        f"Lowest coverage from {FROM} images on": _by(
            _only(rows, ends & (rows["n"] >= FROM)), "pixel", pixels, "covered", min, covers=True
        ),
        "Lowest coverage of codes that n images can show": _by(
            _only(rows, ends & shown(rows)), "n", sizes, "covered", min, covers=True
        ),
        "Most of what is falsely surely above or below 0.1 nats": _by(
            _only(rows, ends & rows["counted"], falsely=True), "n", sizes, "falsely", max, covers=False
        ),
        "Most of what is falsely stated": _by(
            _only(rows, ~ends & rows["counted"]), "n", sizes, "falsely_above", max, covers=False
        ),
    }


def failing(rows: Arrays) -> Array:
    """Which rows surely hold the truth too rarely, or are surely false too often: ``[rows]`` bool.

    Nothing is said of codes that n images cannot show (`shown`). "Below 0.1 nats" is not said of fewer than
    `FEWEST_FOR_ABSENCE` images, nor of codes that fewer than 5 % of the images bear.
    """
    n, ends = rows["repetitions"], rows["covers"] != STATEMENT
    held = stats.binom.cdf(np.round(rows["covered"] * n), n, LEAST) < SURE
    worst = np.maximum(rows["falsely_above"], np.where(rows["n"] < FEWEST_FOR_ABSENCE, 0.0, rows["falsely_below"]))
    false = stats.binom.sf(np.round(worst * n) - 1, n, MOST) < SURE
    found: Array = (ends & (rows["n"] >= FROM) & shown(rows) & held) | (rows["counted"] & false)
    return found


def coverage_summary(rows: Arrays) -> list[str]:
    """What holds, what fails, and what statements are false how often."""
    ends = (rows["covers"] != STATEMENT) & (rows["n"] >= FROM) & shown(rows)
    n = int(rows["repetitions"].max())
    ends &= rows["repetitions"] > 0
    fails, low = failing(rows), ends & (np.round(rows["covered"] * n) < np.ceil(LEAST * n - 1e-9))
    chance = float(stats.binom.cdf(np.ceil(LEAST * n) - 1, n, 0.95))
    kinds = sorted({f"{q} ({p})" for q, p in zip(rows["quantity"][fails], rows["pixel"][fails], strict=True)})
    false = rows["counted"] & (rows["covers"] == STATEMENT)
    worst = float(rows["falsely_above"][false].max()) if false.any() else 0.0
    which = f": {', '.join(kinds)}" if kinds else ""
    return [
        f"Of {ends.sum()} kinds of interval on {FROM} or more images, of codes that so many can show, "
        f"{(ends & ~low).sum()} hold the truth in {100 * LEAST:.0f} % or more of {n} repetitions; "
        f"chance would leave {chance * ends.sum():.0f} of intervals that hold 95 % below that. "
        f"{fails.sum()} rows surely fail (chance {SURE:g} each){which}. A statement of the rule is false in at most "
        f"{100 * worst:.1f} % where {100 * RARE_SHARE:g} % of images "
        "or more bear the code."
    ]


def shown(rows: Arrays) -> Array:
    """Whether n images miss the code with a chance of 2.5 % at most: ``(1 - share)^n <= .025``."""
    shares = np.array([float(name.split()[0]) / 100 if name[0].isdigit() else 1.0 for name in rows["pixel"].tolist()])
    found: Array = (1 - shares) ** rows["n"] <= 0.025
    return found


def _only(rows: Arrays, at: Array, *, falsely: bool = False) -> Arrays:
    found = {name: values[at] for name, values in rows.items()}
    if falsely:
        found["falsely"] = np.maximum(found["falsely_above"], found["falsely_below"])
    return found


def _by(
    rows: Arrays, key: str, values: list[str] | list[int], what: str, worst: Callable[[Array], float], *, covers: bool
) -> Table:
    """A row for each quantity: the worst of its cells for each value of ``key``."""
    heads = [Column("interval" if covers or what == "falsely" else "statement", numeric=False)]
    heads += [Column("holds if", numeric=False)] * covers
    heads += [Column(f"n = {value}" if key == "n" else str(value), "%") for value in values]
    cells = []
    for quantity in dict.fromkeys(rows["quantity"].tolist()):
        at = rows["quantity"] == quantity
        row = [quantity, *[str(rows["covers"][at][0])] * covers]
        for value in values:
            here = rows[what][at & (rows[key] == value) & (rows["repetitions"] > 0)]
            row.append(number(100 * worst(here), 1) if len(here) else number(np.nan))
        cells.append(tuple(map(Cell, row)))
    return Table(tuple(heads), tuple(cells))
