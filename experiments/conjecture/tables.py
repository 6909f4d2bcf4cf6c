"""The conjecture on known teachers: gaps by encoder, releases and β thresholds, as tables, CSV and sentences."""

from collections.abc import Sequence

import numpy as np

from hvae.analysis.claims import Measured
from hvae.analysis.load import Array, Arrays
from hvae.analysis.samples import t_interval
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv, with_ends

NEEDED = ("threshold", "linear-threshold")
"""parts of teachers that need z2"""
PARTS = ("fixed", "rich", "release", "linear", *NEEDED)
POWERS = {0.0: "β = 1", 0.5: "half way to β*", 1.5: "as far beyond"}
"""power of the threshold under exact inference -> its β in words"""
EMPTY = 1e-4
"""nats; a trained layer that has gained less is empty"""


def conjecture_tables(measured: Measured) -> dict[str, Table]:
    """Heading -> table, for the parts that were measured."""
    tables = {}
    if "fixed" in measured:
        tables["Bernoulli: layer gap that the best encoder leaves, nats a layer"] = _encoders(encoders(measured))
    if "linear" in measured:
        tables["Linear-Gaussian: layer gap that the best diagonal encoder leaves, in closed form"] = _linear(
            measured["linear"]
        )
    if "release" in measured:
        tables["Decoders released from their teachers: before and after"] = _release(measured["release"])
    if set(NEEDED) & set(measured):
        tables["β threshold of a needed z2"] = _thresholds(measured)
        tables["What a needed z2 holds below and above its β threshold"] = _held(measured)
    return tables


def conjecture_csv(measured: Measured) -> dict[str, str]:
    """File name -> every row."""
    return {
        f"conjecture-{part}.csv": to_csv(list(rows), [list(row) for row in zip(*rows.values(), strict=True)])
        for part, rows in measured.items()
        if part in PARTS
    }


def conjecture_summary(measured: Measured) -> list[str]:
    """One sentence for each part."""
    found = []
    if "fixed" in measured:
        f = measured["fixed"]
        found.append(
            f"In {len(f['teacher'])} encoders trained without noise on fixed teachers, the last tenth of the steps "
            f"gained at most {f['late_gain_nats'].max():.1e} nats. Layer gaps by divergences and by the bound agree "
            f"to {f['disagreement_nats'].max():.1e}."
        )
    if "release" in measured:
        r = measured["release"]
        at = r["encoder"] == "factorised linear"
        found.append(
            f"{at.sum()} decoders were released with a factorised encoder. Their gaps fell from up to "
            f"{number(r['gap_before_nats'][at].max())} to at most {number(r['gap_after_nats'][at].max(), 4)} nats. "
            f"They gave up at most {number(r['given_up_nats'][at].max(), 4)} nats of likelihood."
        )
    for case, rows in cases(measured):
        shares = {name: np.exp(low[np.isfinite(low)]) for name, (_, low) in lowered(rows).items()}
        least = [f"{number(float(some.min()), 3)} ({name})" for name, some in shares.items() if len(some)]
        found.append(
            f"Needed z2 ({case}): {len(set(rows['teacher']))} of {rows['looked_at'][0]} teachers, worth "
            f"{number(rows['worth_nats'].min())} to {number(rows['worth_nats'].max())} nats. The β threshold under "
            f"encoders is at least this share of that under exact inference: {', '.join(least[1:])}.{_short(rows)}"
        )
    return found


def _short(rows: Arrays) -> str:
    """How far training alone falls short of λ, which no true threshold does."""
    at = (rows["inference"] == "factorised linear") & (rows["power"] == 0)
    missed = (rows["local_beta"] - rows["proved_beta"])[at]
    if not (missed > 0).any():
        return ""
    return (
        f" Under a factorised linear encoder training alone falls short of λ for {(missed > 0).sum()} of "
        f"{len(missed)} teachers, by at most {number(float(missed.max()), 4)}."
    )


def encoders(measured: Measured) -> Arrays:
    """The rows of all encoders, factorised and autoregressive."""
    parts = [measured[part] for part in ("fixed", "rich") if part in measured]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def each(rows: Arrays, *names: str) -> list[tuple[tuple[object, ...], Array]]:
    """The combinations of values of these columns, in order of appearance, each with its rows."""
    keys = list(zip(*(rows[name].tolist() for name in names), strict=True))
    return [(key, np.array([other == key for other in keys])) for key in dict.fromkeys(keys)]


def _mean(values: Array, digits: int = 3) -> str:
    return with_ends(*t_interval(values), digits)


def _rows(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Table:
    return Table(tuple(columns), tuple(tuple(map(Cell, row)) for row in cells))


def _strengths(rows: Arrays) -> list[float]:
    return sorted(set(rows["strength"].tolist()))


def _encoders(rows: Arrays) -> Table:
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
    for (units, encoder), at in each(rows, "units", "encoder"):
        counts = [str(int(rows[name][at][0])) for name in ("n_parameters", "n_free")]
        gaps = [_mean(rows["layer_gap_nats"][at & (rows["strength"] == strength)], 4) for strength in strengths]
        late = f"{rows['late_gain_nats'][at].max():.0e}"
        cells.append([str(units), str(encoder), *counts, *gaps, late])
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
    for (shape, encoder, strength), at in each(rows, "shape", "encoder", "strength"):
        values = [_mean(rows[name][at]) for name in ("gap_before_nats", "gap_after_nats", "given_up_nats")]
        names = [f"coupling_%s{layer}_nats" for layer in range(1, depth + 1)] + [f"about_x_%s{depth}_nats"]
        pairs = [[number(float(rows[name % when][at].mean())) for when in ("before", "after")] for name in names]
        cells.append([str(shape), str(encoder), f"{strength:g}", *values, *(f"{a} → {b}" for a, b in pairs)])
    return _rows(columns, cells)


def cases(measured: Measured) -> list[tuple[str, Arrays]]:
    """The teachers of one kind and strengths, in words, and their rows."""
    found = []
    for part in NEEDED:
        for (kind, x, z), at in each(measured[part], "kind", "x_strength", "z_strength") if part in measured else []:
            words = {"linear": "pairs", "linear-Gaussian": "Gaussian"}.get(str(kind), str(kind))
            found.append((f"{words} {x:g}, {z:g}", {name: values[at] for name, values in measured[part].items()}))
    return found


def relative(rows: Arrays, values: Array) -> Array:
    """Each β on the scale of its teacher: 0 at β = 1, 1 at the threshold under exact inference."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a threshold of 1 has no scale
        return np.log(values) / np.log(rows["exact_beta"])  # type: ignore[no-any-return]


def lowered(rows: Arrays) -> dict[str, tuple[Array, Array]]:
    """Inference -> (the row of each teacher at β = 1, log of its threshold less that of exact inference)."""
    own = {str(inference): at & (rows["power"] == 0) for (inference,), at in each(rows, "inference")}
    log_beta = np.log(rows["threshold_beta"])
    return {inference: (at, log_beta[at] - log_beta[own["exact"]]) for inference, at in own.items()}


def _thresholds(measured: Measured) -> Table:
    columns = (
        Column("teachers", "x | z1, z1 | z2", numeric=False),
        Column("of", "looked at"),
        Column("worth of z2", "nats"),
        Column("λ"),
        Column("inference", numeric=False),
        Column("β*", "at least"),
        Column("log β* − log β* exact"),
        Column("nothing found from", "β"),
        Column("late gain", "nats, at most"),
    )
    cells = []
    for case, rows in cases(measured):
        for inference, (at, values) in lowered(rows).items():
            late = rows["late_gain_nats"][rows["inference"] == inference].max()
            cells.append(
                [
                    case,
                    f"{at.sum()} of {rows['looked_at'][0]}",
                    _mean(rows["worth_nats"][at]),
                    number(float(rows["local_beta"][at].mean()), 3),
                    inference,
                    _mean(rows["threshold_beta"][at]),
                    "–" if inference == "exact" else _mean(values, 4),
                    number(float(np.mean(_empty_from(rows, inference))), 3),
                    f"{late:.0e}",
                ]
            )
    return _rows(columns, cells)


def _empty_from(rows: Arrays, inference: str) -> list[float]:
    """For every teacher the least β above its threshold at which no stack was found that pays; inf without one."""
    found = []
    for _, at in each(rows, "teacher"):
        here = at & (rows["inference"] == inference)
        beyond = here & (rows["beta"] > rows["threshold_beta"]) & (rows["value_nats"] < EMPTY)
        found.append(float(rows["beta"][beyond].min(initial=np.inf)))
    return found


def _held(measured: Measured) -> Table:
    quantities = (("top_nats", "I(z1; z2)"), ("about_x_nats", "I(x; z2)"), ("given_up_nats", "given up"))
    columns = (
        Column("teachers", "x | z1, z1 | z2", numeric=False),
        Column("inference", numeric=False),
        Column("kept of the worth", "β = 1"),
        *(Column(f"{what}, {words}", "nats") for _, what in quantities for words in POWERS.values()),
    )
    cells = []
    for case, rows in cases(measured):
        for (inference,), at in each(rows, "inference"):
            kept = (rows["value_nats"] / rows["worth_nats"])[at & (rows["power"] == 0)]
            values = [_mean(rows[name][at & (rows["power"] == power)]) for name, _ in quantities for power in POWERS]
            cells.append([case, str(inference), _mean(kept), *values])
    return _rows(columns, cells)
