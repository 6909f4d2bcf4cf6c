"""Errors of the estimators where the answer is known: tables, every row as CSV, and a few sentences."""

import numpy as np

from hvae.analysis.claims import Measured
from hvae.analysis.load import Array, Arrays
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv
from hvae.experiments.truth.coverage_page import coverage_csv
from hvae.experiments.truth.coverage_tables import coverage_summary, coverage_tables

PARTS = ("gaps", "bounds", "sandwich", "coverage")
"""parts that are estimates"""


def accuracy_tables(measured: Measured) -> dict[str, Table]:
    """Heading -> table, for the parts that were measured."""
    tables = {}
    if "gaps" in measured:
        tables["Layer gaps: estimated against exact"] = _gaps(measured["gaps"])
    if "bounds" in measured:
        tables["Bounds of log p(x): error against exact"] = _bounds(measured["bounds"])
    if "sandwich" in measured:
        tables["Sandwich on the trained stack, simulated data"] = _sandwich(measured["sandwich"])
    if "coverage" in measured:
        tables |= coverage_tables(measured["coverage"])
    return tables


def accuracy_csv(measured: Measured) -> dict[str, str]:
    """File name -> every row."""
    return {
        f"accuracy-{part}.csv": coverage_csv(rows)  # its page is made of this table
        if part == "coverage"
        else to_csv(list(rows), [list(row) for row in zip(*rows.values(), strict=True)])
        for part, rows in measured.items()
        if part in PARTS
    }


def accuracy_summary(measured: Measured) -> list[str]:
    """One sentence for each part."""
    found = []
    if "gaps" in measured:
        g = measured["gaps"]
        n_stacks, trusted, alone = len(set(g["stack"])), g["trusted"], g["alone_trusted"]
        strongest = g["strength"] == g["strength"].max()
        found.append(
            f"Three exact ways to each of {len(trusted)} layer gaps of {n_stacks} stacks agree to "
            f"{g['disagreement_nats'].max():.1e} nats. {trusted.sum()} of {len(trusted)} estimates are trusted. Of "
            f"these {(trusted & g['inside']).sum()} lie within their interval (false alarm of the whole table: one in "
            f"a million), and {(trusted & g['inside_95']).sum()} within the 95 % interval. With q as its own proposal "
            f"{alone.sum()} are trusted, and {(alone & g['inside']).sum()} of these lie within their interval. At the "
            f"strongest couplings {(alone & strongest).sum()} of {strongest.sum()} are trusted then."
        )
    if "bounds" in measured:
        b = measured["bounds"]
        wrong = np.where(b["direction"] == "lower", b["error_nats"], -b["error_nats"]) > 4 * b["se_nats"]
        found.append(
            f"Of {len(wrong)} mean bounds of log p(x), {wrong.sum()} are on the wrong side of the exact value by more "
            "than 4 standard errors."
        )
    if "sandwich" in measured:
        s = measured["sandwich"]
        found.append(
            f"On the trained stack the two annealed bounds close from {number(s['gap_nats'][0])} to "
            f"{number(s['gap_nats'][-1], 3)} ± {number(1.96 * s['se_nats'][-1], 3)} nats between "
            f"{s['n_temperatures'][0]} and {s['n_temperatures'][-1]} temperatures ({s['seconds'][-1]:.0f} s)."
        )
    if "coverage" in measured:
        found += coverage_summary(measured["coverage"])
    return found


def _gaps(rows: Arrays) -> Table:
    columns = (
        Column("family", numeric=False),
        Column("strength", "of couplings"),
        Column("layer gaps"),
        Column("three ways differ", "nats, at most"),
        Column("trusted"),
        Column("of these inside"),
        Column("trusted error", "nats, at most"),
        Column("untrusted error", "nats, at most"),
        Column("q alone: trusted"),
        Column("of these inside"),
        Column("untrusted error", "nats, at most"),
    )
    cells = []
    for family in dict.fromkeys(rows["family"].tolist()):
        for strength in dict.fromkeys(rows["strength"].tolist()):
            at = (rows["family"] == family) & (rows["strength"] == strength)
            row = [family, f"{strength:g}", str(at.sum()), f"{rows['disagreement_nats'][at].max():.0e}"]
            for prefix in ("", "alone_"):
                sure, inside = rows[f"{prefix}trusted"][at], rows[f"{prefix}inside"][at]
                error = np.abs(rows[f"{prefix}middle_nats"] - rows["exact_nats"])[at]
                row += [str(sure.sum()), str((sure & inside).sum())]
                row += [_most(error[sure])] if not prefix else []
                row += [_most(error[~sure])]
            cells.append(tuple(map(Cell, row)))
    return Table(columns, tuple(cells))


def _bounds(rows: Arrays) -> Table:
    estimators = list(dict.fromkeys(rows["estimator"].tolist()))
    columns = (Column("stack", numeric=False), Column("log p(x)", "exact"), *(Column(e, "nats") for e in estimators))
    cells = []
    for stack in dict.fromkeys(rows["stack"].tolist()):
        at = rows["stack"] == stack
        row = [stack, number(float(rows["exact_nats"][at][0]))]
        for estimator in estimators:
            (where,) = np.nonzero(at & (rows["estimator"] == estimator))
            error, se = (rows[key][where] for key in ("error_nats", "se_nats"))
            row.append(f"{number(error[0], 3)} ± {number(1.96 * se[0], 3)}" if len(where) else number(np.nan))
        cells.append(tuple(map(Cell, row)))
    return Table(columns, tuple(cells))


def _sandwich(rows: Arrays) -> Table:
    columns = (
        Column("temperatures"),
        Column("lower bound", "nats"),
        Column("upper bound", "nats"),
        Column("upper − lower", "nats"),
        Column("high k-hat", "% of data"),
        Column("time", "s"),
    )
    cells = []
    for i, temperatures in enumerate(rows["n_temperatures"]):
        gap = f"{number(rows['gap_nats'][i], 3)} ± {number(1.96 * rows['se_nats'][i], 3)}"
        bounds = [number(rows[key][i], 3) for key in ("lower_nats", "upper_nats")]
        share, seconds = 100 * rows["high_pareto_k_share"][i], rows["seconds"][i]
        cells.append(tuple(map(Cell, [str(temperatures), *bounds, gap, number(share, 0), number(seconds, 0)])))
    return Table(columns, tuple(cells))


def _most(errors: Array) -> str:
    return number(float(errors.max()), 3) if len(errors) else number(np.nan)
