"""A table, and its three forms: cells for the page, aligned text, CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvae.analysis.load import Array

_KEYBOARD = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{NO-BREAK SPACE}": " "})


@dataclass(frozen=True)
class Column:
    """A heading with its unit; numbers are aligned right, words left."""

    name: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A text, and its class in the style sheet."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_text(self) -> str:
        """Aligned columns, the unit under the heading; minus signs and dashes as on a keyboard."""
        grid = [[column.name for column in self.columns]]
        if any(column.unit for column in self.columns):
            grid.append([column.unit for column in self.columns])
        grid += [[cell.text.translate(_KEYBOARD) for cell in row] for row in self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                text.rjust(width) if column.numeric else text.ljust(width)
                for text, width, column in zip(row, widths, self.columns, strict=True)
            ).rstrip()
            for row in grid
        ]
        n_heading = len(grid) - len(self.rows)
        return "\n".join([*lines[:n_heading], "-" * max(map(len, lines)), *lines[n_heading:]])

    def to_markdown(self) -> str:
        """A table in Markdown, the unit behind its heading."""
        heads = [f"{column.name} ({column.unit})" if column.unit else column.name for column in self.columns]
        marks = ["---:" if column.numeric else "---" for column in self.columns]
        lines = [heads, marks, *([cell.text.replace("|", "\\|") for cell in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def without(self, name: str) -> "Table":
        """The table without the column of that name, if there is one."""
        kept = [i for i, column in enumerate(self.columns) if column.name != name]
        return Table(tuple(self.columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in self.rows))

    def narrowed(self, width: int, expendable: Sequence[str]) -> "Table":
        """A table that is too wide loses the spread over replicas, then expendable columns until it fits.

        Where that is not enough the first column is cut.
        """
        table = self
        if table.width > width:
            bare = tuple(tuple(Cell(cell.text.partition(" ± ")[0], cell.kind) for cell in row) for row in self.rows)
            table = Table(self.columns, bare)
        for name in expendable:
            table = table.without(name) if table.width > width else table
        return table.shortened(width)

    def shortened(self, width: int) -> "Table":
        """The table with the names in its first column cut to what the width leaves them, eight characters at least."""
        longest = max((len(row[0].text) for row in self.rows), default=0)
        room = max(longest - max(self.width - width, 0), 8)
        rows = tuple(
            (
                Cell(
                    f"{first.text[: room - 1]}\N{HORIZONTAL ELLIPSIS}" if len(first.text) > room else first.text,
                    first.kind,
                ),
                *rest,
            )
            for first, *rest in self.rows
        )
        return Table(self.columns, rows)

    @property
    def width(self) -> int:
        return max(len(line) for line in self.to_text().splitlines())


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""how a cell begins that a spreadsheet takes for a formula"""


def to_csv(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RFC 4180 with plain line ends; NaN is an empty field; text that a spreadsheet would compute is marked as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heading)
    for row in rows:
        writer.writerow([_field(value) for value in row])
    return buffer.getvalue()


LONGEST = 1e7
"""from which on a number has three digits and a power of ten"""


def number(value: float, digits: int = 2) -> str:
    """A fixed number of digits, a true minus sign, no minus zero; a dash where there is no number."""
    if np.isnan(value):
        return "\N{EN DASH}"
    if np.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:.{digits}f}" if abs(value) < LONGEST else f"{value:.3g}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def with_ends(low: float, middle: float, high: float, digits: int = 2) -> str:
    """ "0.31 [0.20, 0.42]"; without brackets where there is no interval."""
    if not np.isfinite([low, high]).all():
        return number(middle, digits)
    return f"{number(middle, digits)} [{number(low, digits)},\N{NO-BREAK SPACE}{number(high, digits)}]"


def span(layers: Sequence[int]) -> str:
    """ "z3 to z5" for a run of three or more neighbours, otherwise a list."""
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"z{layers[0]} to z{layers[-1]}"
    return ", ".join(f"z{layer}" for layer in layers)


def hull(interval: Array) -> tuple[float, float, float]:
    """(lowest end, median of the middles, highest end) over replicas [R, 3]; NaN where none is finite."""
    kept = interval[np.isfinite(interval[:, 1])]
    if not len(kept):
        return (np.nan, np.nan, np.nan)
    return (float(kept[:, 0].min()), float(np.median(kept[:, 1])), float(kept[:, 2].max()))


def interval_text(interval: Array) -> str:
    """`hull` as "middle [low, high]", with two decimals, from ten on with one, from a thousand on with none."""
    low, middle, high = hull(interval)
    largest = abs(middle) if np.isnan(low) else max(abs(low), abs(high))
    digits = 2 if largest < 10 else 1 if largest < 1000 else 0
    if np.isnan(middle):
        return "\N{EN DASH}"
    if np.isnan(low):  # no interval is known
        return number(middle, digits)
    return f"{number(middle, digits)} [{number(low, digits)},\N{NO-BREAK SPACE}{number(high, digits)}]"


def _field(value: object) -> object:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{float(value):.6g}"
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
