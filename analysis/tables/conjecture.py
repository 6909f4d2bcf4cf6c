"""The conjecture on known teachers: gaps by law, releases, and cells of the 2 x 2, as tables, CSV and sentences."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.claims import t_interval
from analysis.load import Array, Arrays
from analysis.tables.table import Cell, Column, Table, number, to_csv

Measured = Mapping[str, Arrays]
"""part -> columns by name: `fixed`, `rich`, `release`, `threshold`, `linear`, `linear-threshold` of `conjecture`"""

PARTS = ("fixed", "rich", "release", "threshold", "linear", "linear-threshold")


def conjecture_tables(measured: Measured) -> dict[str, Table]:
    """Heading -> table, for the parts that were measured."""
    tables = {}
    if "fixed" in measured:
        tables["Coins: layer gap that the best encoder leaves, nats a layer"] = _laws(laws(measured))
    if "linear" in measured:
        tables["Linear-Gaussian: the same of the best diagonal encoder, in closed form"] = _linear(measured["linear"])
    if "release" in measured:
        tables["The decoder released from the teacher: before, and after"] = _release(measured["release"])
    if {"threshold", "linear-threshold"} & set(measured):
        tables["Inference against price: stacks trained from random weights"] = _cells(measured)
    return tables


def conjecture_csv(measured: Measured) -> dict[str, str]:
    """File name -> every row."""
    return {
        f"conjecture-{part}.csv": to_csv(list(rows), [list(row) for row in zip(*rows.values(), strict=True)])
        for part, rows in measured.items()
        if part in PARTS
    }


def conjecture_reading(measured: Measured) -> list[str]:
    """One sentence for each part."""
    found = []
    if "fixed" in measured:
        f = measured["fixed"]
        found.append(
            f"Of {len(f['teacher'])} encoders trained without noise on fixed teachers, the last tenth of the steps "
            f"gained at most {f['late_gain_nats'].max():.1e} nats, and layer gaps by divergences and the bound agree "
            f"to {f['disagreement_nats'].max():.1e}."
        )
    if "release" in measured:
        r = measured["release"]
        at = r["law"] == "factorised"
        found.append(
            f"Released with a factorised encoder, {at.sum()} decoders went from gaps of up to "
            f"{number(r['gap_before_nats'][at].max())} to at most {number(r['gap_after_nats'][at].max(), 4)} nats and "
            f"gave up at most {number(r['given_up_nats'][at].max(), 4)} nats of likelihood."
        )
    return found


def laws(measured: Measured) -> Arrays:
    """The rows of all encoder laws, factorised and autoregressive."""
    parts = [measured[part] for part in ("fixed", "rich") if part in measured]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def each(rows: Arrays, *names: str) -> list[tuple[tuple[object, ...], Array]]:
    """The values that these columns take together, in order of appearance, with the rows that have them."""
    keys = list(zip(*(rows[name].tolist() for name in names), strict=True))
    return [(key, np.array([other == key for other in keys])) for key in dict.fromkeys(keys)]


def law_name(law: object, net: object, hidden: object) -> str:
    return f"{law} {net}" + (f" {hidden}" if hidden else "")


def _mean(values: Array, digits: int = 3) -> str:
    low, middle, high = t_interval(values)
    return f"{number(middle, digits)} [{number(low, digits)}, {number(high, digits)}]"


def _rows(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Table:
    return Table(tuple(columns), tuple(tuple(map(Cell, row)) for row in cells))


def _strengths(rows: Arrays) -> list[float]:
    return sorted(set(rows["strength"].tolist()))


def _laws(rows: Arrays) -> Table:
    strengths = _strengths(rows)
    columns = (
        Column("units", "x-z1-…", numeric=False),
        Column("encoder", numeric=False),
        Column("parameters"),
        Column("of the exact table"),
        *(Column(f"couplings {strength:g}") for strength in strengths),
        Column("late gain", "nats, at most"),
    )
    cells = []
    for (units, law, net, hidden), at in each(rows, "units", "law", "net", "hidden"):
        counts = [str(int(rows[name][at][0])) for name in ("n_parameters", "n_free")]
        gaps = [_mean(rows["layer_gap_nats"][at & (rows["strength"] == strength)], 4) for strength in strengths]
        late = f"{rows['late_gain_nats'][at].max():.0e}"
        cells.append([str(units), law_name(law, net, hidden), *counts, *gaps, late])
    return _rows(columns, cells)


def _linear(rows: Arrays) -> Table:
    strengths = _strengths(rows)
    columns = (
        Column("units", "x-z1-…", numeric=False),
        *(Column(f"couplings {strength:g}", "nats a layer") for strength in strengths),
    )
    cells = []
    for (units,), at in each(rows, "units"):
        gaps = [_mean(rows["layer_gap_nats"][at & (rows["strength"] == strength)]) for strength in strengths]
        cells.append([str(units), *gaps])
    return _rows(columns, cells)


def _release(rows: Arrays) -> Table:
    depth = int(rows["depth"].max())
    columns = (
        Column("shape", numeric=False),
        Column("encoder", numeric=False),
        Column("couplings"),
        Column("gap before", "nats"),
        Column("gap after", "nats"),
        Column("given up", "nats of log p(x)"),
        Column("I(x; z1)", "before → after"),
        *(Column(f"I(z{layer - 1}; z{layer})", "before → after") for layer in range(2, depth + 1)),
        Column(f"I(x; z{depth})", "before → after"),
    )
    cells = []
    for (shape, law, net, hidden, strength), at in each(rows, "shape", "law", "net", "hidden", "strength"):
        values = [_mean(rows[name][at]) for name in ("gap_before_nats", "gap_after_nats", "given_up_nats")]
        names = [f"coupling_%s{layer}_nats" for layer in range(1, depth + 1)] + [f"about_x_%s{depth}_nats"]
        pairs = [[number(float(rows[name % when][at].mean())) for when in ("before", "after")] for name in names]
        cells.append(
            [str(shape), law_name(law, net, hidden), f"{strength:g}", *values, *(f"{a} → {b}" for a, b in pairs)]
        )
    return _rows(columns, cells)


def cells_of(measured: Measured) -> list[tuple[str, str, float, Array, Array]]:
    """(stack, inference, β, I_p(z1; z2), likelihood given up) `[teachers]` of every cell."""
    found = []
    for part, name in (("threshold", "coins, "), ("linear-threshold", "linear-Gaussian")):
        if part not in measured:
            continue
        rows = measured[part]
        shapes = rows.get("shape", np.full(len(rows["beta"]), ""))
        for (shape, inference, beta), at in each({**rows, "shape": shapes}, "shape", "inference", "beta"):
            kind = "exact" if inference == "exact" else "factorised"
            found.append((f"{name}{shape}", kind, float(str(beta)), rows["top_nats"][at], rows["given_up_nats"][at]))
    return found


def _cells(measured: Measured) -> Table:
    columns = (
        Column("stack", numeric=False),
        Column("inference", numeric=False),
        Column("β of the rates above z1"),
        Column("I_p(z1; z2)", "nats"),
        Column("below 0.1", "of teachers"),
        Column("given up", "nats of log p(x)"),
    )
    return _rows(
        columns,
        [
            [stack, inference, f"{beta:g}", _mean(top), f"{(top < 0.1).sum()} of {len(top)}", _mean(given_up)]
            for stack, inference, beta, top, given_up in cells_of(measured)
        ],
    )
