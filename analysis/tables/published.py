"""The paper's numbers and ours, side by side."""

import json
import math
from collections.abc import Sequence

import numpy as np

from hvae.analysis.claims import NotMeasuredError
from hvae.analysis.load import by_label
from hvae.analysis.origins import sessions
from hvae.analysis.papers import Grid, Held, Number, hold
from hvae.analysis.study import Study
from hvae.analysis.tables.table import Cell, Column, Table, number, with_ends

KINDS = {
    "agrees": "is-supported", "differs": "is-not-supported", "undecided": "is-undecided",
    "other scale": "is-not-measured", "not measured": "is-not-measured",
}  # fmt: skip


def held(study: Study) -> list[Held]:
    """Every number of the study's paper that was measured, or that its preset should reach."""
    runs = by_label(study.runs)
    found = [hold(wanted, study.preset, runs, study.measured) for wanted in study.numbers]
    return [entry for entry in found if entry.n_replicas or study.preset in entry.number.comparable]


def limits(study: Study, found: Sequence[Held]) -> str:
    """What the preset leaves out of the paper, and how many of its printed numbers are not among ``found``."""
    assert study.paper is not None
    sentences = [study.paper.limits.get(study.preset, "")]
    if n_elsewhere := len(study.numbers) - len(found):
        sentences.append(
            f"{n_elsewhere} more of its printed numbers are for settings that preset {study.preset} does not have."
        )
    return " ".join(filter(None, sentences))


def grid_table(grid: Grid, study: Study) -> Table | None:
    """The rows of the paper's table in which anything was measured: mean ± standard deviation over replicas."""
    runs = by_label(study.runs)

    def filled(row: str, column: str) -> str:
        try:
            sample = grid.cell(runs, study.measured, row, column)
        except NotMeasuredError:
            return ""
        kept = sample.finite.means
        if not len(kept):
            return ""
        spread = f" ± {number(float(np.std(kept, ddof=1)), grid.digits)}" if len(kept) > 1 else ""
        return f"{number(float(np.mean(kept)), grid.digits)}{spread}"

    texts = {row: [filled(row, column) for column in grid.columns] for row in grid.rows}
    dash = number(math.nan)
    rows = [(Cell(row), *(Cell(text or dash) for text in line)) for row, line in texts.items() if any(line)]
    columns = (Column("", numeric=False), *(Column(column, grid.unit) for column in grid.columns))
    return Table(columns, tuple(rows)) if rows else None


def published_table(found: Sequence[Held]) -> Table:
    """One row per number."""
    columns = (
        Column("what", numeric=False),
        Column("paper"),
        Column("ours", "mean [95 % interval]"),
        Column("spread", "sd over seeds"),
        Column("tolerance"),
        Column("outcome", numeric=False),
        Column("where it stands", numeric=False),
    )
    rows = []
    for entry in found:
        published = entry.number.published
        digits = digits_of(published.value)
        what = f"{published.table}: {entry.number.what}, {published.dataset}"
        rows.append(
            (
                Cell(what),
                Cell(f"{number(published.value, digits)} {published.unit}".strip()),
                Cell(with_ends(entry.ours.low, entry.ours.middle, entry.ours.high, digits)),
                Cell(number(entry.spread, digits)),
                Cell(f"±{entry.number.tolerance:g}" if entry.number.comparable else number(math.nan)),
                Cell(entry.agreement, KINDS[entry.agreement]),
                Cell(_stands(entry.number)),
            )
        )
    return Table(columns, tuple(rows))


def published_short(found: Sequence[Held]) -> Table:
    """One row per number, for a terminal: paper, ours, outcome."""
    columns = (Column("number", numeric=False), Column("paper"), Column("ours"), Column("outcome", numeric=False))
    rows = []
    for entry in found:
        published = entry.number.published
        digits = digits_of(published.value)
        half = f" ± {number(entry.ours.half, digits)}" if math.isfinite(entry.ours.half) else ""
        paper = f"{number(published.value, digits)} {published.unit}".strip()
        ours = f"{number(entry.ours.middle, digits)}{half}"
        rows.append(tuple(map(Cell, (entry.number.what, paper, ours, entry.agreement))))
    return Table(columns, tuple(rows))


def _stands(of: Number) -> str:
    """Where a number was read, and what replications found."""
    text = f"{of.published.provenance}: {of.published.source}"
    if of.replications:
        found = ", ".join(f"{row.value:g} ({row.source})" for row in of.replications)
        text += f"; replications, {of.replications[0].provenance}: {found}"
    return text


def digits_of(value: float) -> int:
    """Decimals to show with a published value: its own, at least two."""
    text = f"{value:.6g}"
    return max(2, len(text.partition(".")[2]))


def published_json(study: Study, found: Sequence[Held]) -> str:
    """The record that the page of all papers is made from."""

    def finite(value: float) -> float | None:
        return float(f"{value:.6g}") if math.isfinite(value) else None

    assert study.paper is not None
    numbers = [
        {
            "table": entry.number.published.table,
            "what": entry.number.what,
            "dataset": entry.number.published.dataset,
            "paper": entry.number.published.value,
            "unit": entry.number.published.unit,
            "provenance": entry.number.published.provenance,
            "source": entry.number.published.source,
            "replications": {row.source: row.value for row in entry.number.replications},
            "low": finite(entry.ours.low),
            "ours": finite(entry.ours.middle),
            "high": finite(entry.ours.high),
            "spread": finite(entry.spread),
            "n_replicas": entry.n_replicas,
            "over": entry.ours.over,
            "tolerance": entry.number.tolerance if entry.number.comparable else None,
            "outcome": entry.agreement,
            "how": entry.why,
        }
        for entry in found
    ]
    record = {
        "citation": study.paper.citation,
        "exhibits": study.paper.exhibits,
        "preset": study.preset,
        "limits": limits(study, found),
        "made": [made for made, _ in sessions([*(run.provenance for run in study.runs), study.measured_by])],
        "numbers": numbers,
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
