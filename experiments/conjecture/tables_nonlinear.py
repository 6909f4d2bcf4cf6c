"""Non-linear Gaussian teachers of one unit a layer: gaps of the best encoders, as table and sentences."""

import numpy as np

from hvae.analysis.claims import Measured
from hvae.analysis.load import Arrays
from hvae.analysis.samples import t_interval
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv, with_ends

PART = "nonlinear"


def nonlinear_tables(measured: Measured) -> dict[str, Table]:
    """Heading -> table, if the part was measured."""
    if PART not in measured:
        return {}
    return {"Non-linear Gaussian, one unit a layer: layer gap that the best encoder leaves": _table(measured[PART])}


def nonlinear_csv(measured: Measured) -> dict[str, str]:
    """File name -> every row."""
    if PART not in measured:
        return {}
    rows = measured[PART]
    return {f"conjecture-{PART}.csv": to_csv(list(rows), [list(row) for row in zip(*rows.values(), strict=True)])}


def nonlinear_summary(measured: Measured) -> list[str]:
    """How many reverse conditionals have several modes, and how precise the trained rows are."""
    if PART not in measured:
        return []
    rows = measured[PART]
    strongest = rows["strength"] == rows["strength"].max()
    shares = [rows[f"multimodal{layer}"][strongest] for layer in (1, 2)]
    trained = np.isfinite(rows["late_gain_nats"])
    return [
        f"On non-linear teachers at couplings of {rows['strength'].max():g}, {100 * shares[0].mean():.0f} % of x and "
        f"{100 * shares[1].mean():.0f} % of z1, weighed by p, have a reverse conditional of several modes. In "
        f"{trained.sum()} encoders trained on these teachers, the last tenth of the steps gained at most "
        f"{rows['late_gain_nats'][trained].max():.1e} nats. Gaps on finer values differ from those of training by "
        f"{np.median(rows['disagreement_nats'][trained]):.0e} (median), {rows['disagreement_nats'][trained].max():.1e} "
        "(largest)."
    ]


def encoders(rows: Arrays) -> list[str]:
    """The encoders in words, in their order."""
    return list(dict.fromkeys(rows["encoder"].tolist()))


def strengths(rows: Arrays) -> list[float]:
    return sorted(set(rows["strength"].tolist()))


def _table(rows: Arrays) -> Table:
    columns = (
        Column("encoder", numeric=False),
        Column("parameters"),
        *(Column(f"couplings {strength:g}", "nats a layer") for strength in strengths(rows)),
        Column("late gain", "nats, at most"),
    )
    cells = []
    for encoder in encoders(rows):
        at = rows["encoder"] == encoder
        gaps = [t_interval(rows["layer_gap_nats"][at & (rows["strength"] == strength)]) for strength in strengths(rows)]
        late = rows["late_gain_nats"][at].max()
        cells.append(
            [
                encoder,
                number(rows["n_parameters"][at][0], 0),
                *(with_ends(*gap, 3) for gap in gaps),
                f"{late:.0e}" if np.isfinite(late) else number(late),
            ]
        )
    return Table(columns, tuple(tuple(map(Cell, row)) for row in cells))
