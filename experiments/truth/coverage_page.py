"""The page of coverage, and its table as text: every number of the page is of the rows."""

import csv
import io

import numpy as np

from hvae.analysis.load import Array, Arrays
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv
from hvae.experiments.truth.coverage_tables import FROM, coverage_summary, coverage_tables, failing, shown
from hvae.experiments.truth.tally import STATEMENT
from hvae.vocabulary import (
    ACTIVE,
    FEWEST_FOR_ABSENCE,
    FEWEST_FOR_SMALL,
    FEWEST_IMAGES,
    NOISE_ONLY,
    RARE_SHARE,
    UNREAD,
    WEAK,
)

TEXTS, COUNTS = ("inference", "stack", "pixel", "layer", "quantity", "covers"), ("n", "repetitions", "refused")


def coverage_csv(rows: Arrays) -> str:
    """Every row, its numbers to four digits."""
    columns = [[_short(value) for value in values.tolist()] for values in rows.values()]
    return to_csv(list(rows), [list(row) for row in zip(*columns, strict=True)])


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) and np.isfinite(value) else value


def read_rows(table: str) -> Arrays:
    """The rows of `coverage_csv`."""
    found = list(csv.DictReader(io.StringIO(table)))
    return {name: _column(name, [row[name] for row in found]) for name in found[0]}


def _column(name: str, values: list[str]) -> Array:
    if name == "counted":
        return np.array([value == "True" for value in values])
    if name in TEXTS:
        return np.array(values)
    return np.array([int(value) if name in COUNTS else float(value or "nan") for value in values])


def coverage_page(rows: Arrays, made_with: str) -> str:
    """Markdown; ``made_with`` says what effort the rows took."""
    n = int((rows["repetitions"] + rows["refused"]).max())
    held, false = (100 * (share * (1 - share) / n) ** 0.5 for share in (0.93, 0.03))
    lines = [
        "# Coverage of intervals, and false statements", "",
        f"Made by `python -m hvae.experiments.truth.coverage`: {n} repetitions of every cell, each with new images and "
        "new draws. All rows: [accuracy-coverage.csv](tables/accuracy-coverage.csv).",
        "Stacks of one pixel and two layers, whose answers are known for every distribution of the pixel "
        "(`experiments/truth/planted.py`).",
        made_with,
        f"A standard error of {n} repetitions is {held:.1f} % at a coverage of 93 %, and {false:.1f} % at a false rate "
        "of 3 %.", "",
        *coverage_summary(rows), "",
        "## What is in it", "", *_cells(rows), "",
    ]  # fmt: skip
    for heading, table in coverage_tables(rows).items():
        lines += [f"## {heading}", "", table.to_markdown(), ""]
    lines += ["## What surely fails", "", _failures(rows).to_markdown(), ""]
    lines += ["## What is withheld", "", *withheld(rows), ""]
    return "\n".join(lines)


def _cells(rows: Arrays) -> list[str]:
    """Stack by stack: numbers of images, and the pixels that have them."""
    found: dict[str, dict[int, list[str]]] = {}
    for stack, n, pixel in zip(rows["stack"].tolist(), rows["n"].tolist(), rows["pixel"].tolist(), strict=True):
        pixels = found.setdefault(stack, {}).setdefault(n, [])
        if pixel not in pixels:
            pixels.append(pixel)
    return [
        f"- {stack}: " + "; ".join(f"n = {n}, {', '.join(pixels)}" for n, pixels in sorted(sizes.items())) + "."
        for stack, sizes in found.items()
    ]


def _failures(rows: Arrays) -> Table:
    fails = failing(rows)
    heads = ("interval or statement", "pixel", "images")
    columns = (*(Column(head, numeric=False) for head in heads), Column("cells"))
    columns += (Column("lowest coverage", "%"), Column("most falsely sure", "%"))
    cells = []
    for quantity, pixel in dict.fromkeys(zip(rows["quantity"][fails], rows["pixel"][fails], strict=True)):
        at = fails & (rows["quantity"] == quantity) & (rows["pixel"] == pixel)
        sizes = ", ".join(map(str, sorted(set(rows["n"][at].tolist()))))
        below = np.where(rows["n"] < FEWEST_FOR_ABSENCE, 0.0, rows["falsely_below"])
        least = np.nan if rows["covers"][at][0] == STATEMENT else 100 * rows["covered"][at].min()
        most = 100 * np.maximum(rows["falsely_above"], below)[at].max()
        row = [str(quantity), str(pixel), sizes, str(at.sum()), number(least, 1), number(most, 1)]
        cells.append(tuple(map(Cell, row)))
    return Table(columns, tuple(cells))


def withheld(rows: Arrays) -> list[str]:
    """What is not said, and how often it would be false: sentences of a list."""
    n, ends = rows["n"], rows["covers"] != STATEMENT
    of, counted = rows["quantity"], rows["counted"]
    few, false = n < FEWEST_FOR_ABSENCE, "falsely_above"
    hidden = ends & (n >= FROM) & ~shown(rows)
    rare = ", ".join(f"{100 * (1 - 0.025 ** (1 / many)):.2g} % at n = {many}" for many in sorted(set(n.tolist())))
    small = counted & (rows["pixel"] == f"{100 * RARE_SHARE:g} % of images")
    below = ", ".join(
        f"{_most(rows, (of == 'I') & small & (n == many), 'falsely_below')} % of the sets of {many} images"
        for many in sorted(set(n[small & ~few].tolist()))
    )
    of_unread = (of == UNREAD) & (rows["stack"] == "unread") & (rows["layer"] == "z1") & (rows["pixel"] == "Gaussian")
    read = ", ".join(
        f"{_most(rows, of_unread & (n == many), 'covered')} % of the sets of {many} images"
        for many in sorted(set(n[of_unread].tolist()))
    )
    noise = (of == NOISE_ONLY) & counted
    return [
        "- An interval of a mean over n images says nothing of a code that fewer than 1 − .025^(1/n) of them bear: "
        f"{rare}. Of rarer ones, at {FROM} or more images, intervals hold the truth in {_least(rows, hidden)} % at "
        "worst.",
        f"- *Collapsed* is a share of images, and waits for {FEWEST_FOR_ABSENCE} of them: then it is false in at most "
        f"{_most(rows, (of == 'collapsed') & counted & ~few, false)} %. Of fewer it is said in "
        f"{_most(rows, (of == 'collapsed') & few, 'covered')} %.",
        f"- *Active* is the low end of V from {FEWEST_IMAGES} images on, false in at most "
        f"{_most(rows, (of == ACTIVE) & counted, false)} %.",
        f"- *Noise only* waits for {FEWEST_FOR_SMALL} images: then it is false in at most "
        f"{_most(rows, noise & (n >= FEWEST_FOR_SMALL), false)} %. Where {100 * RARE_SHARE:g} % of images bear the "
        f"code, I is falsely surely below 0.1 nats in up to {below}.",
        f"- *Weakly coded* waits for as many: then it is false in at most "
        f"{_most(rows, (of == WEAK) & counted & (n >= FEWEST_FOR_SMALL), false)} %. Where it is true it is said in "
        f"up to {_most(rows, (of == WEAK) & (rows['truth'] == 1), 'covered')} %.",
        f"- *Unread* waits for {FEWEST_FOR_ABSENCE} images: then it is false in at most "
        f"{_most(rows, (of == UNREAD) & counted & ~few, false)} %. Of the z1 of the stack *unread* it is said "
        f"in {read} (Gaussian).",
        "- A model knock-out is a difference of two lower bounds. It is shown without an interval, so none is counted "
        "here. It is refused where one of the bounds may miss more than 0.25 nats, and no statement rests on it.",
    ]


def _most(rows: Arrays, at: Array, what: str) -> str:
    found = rows[what][at & (rows["repetitions"] > 0)]
    return number(100 * float(found.max()), 1) if len(found) else number(np.nan)


def _least(rows: Arrays, at: Array) -> str:
    found = rows["covered"][at & (rows["repetitions"] > 0)]
    return number(100 * float(found.min()), 1) if len(found) else number(np.nan)
