"""Non-linear Gaussian teachers: the gap that the best encoder of every kind leaves."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hvae.analysis import style
from hvae.analysis.claims import Measured
from hvae.experiments.conjecture.tables_nonlinear import PART, encoders, strengths

FLOOR = 1e-5
"""nats; what is less is drawn here"""


def distributions(measured: Measured) -> Figure | None:
    """Mean layer gap by kind of encoder: one point per teacher, a line through the medians of each strength."""
    if PART not in measured:
        return None
    rows = measured[PART]
    names, couplings = encoders(rows), strengths(rows)
    with style.settings():
        made = style.figure(6.0)
        one = made.subplots()
        for index, strength in enumerate(couplings):
            medians, places = [], []
            for place, name in enumerate(names):
                at = (rows["encoder"] == name) & (rows["strength"] == strength)
                gaps = np.maximum(rows["layer_gap_nats"][at], FLOOR)
                places.append(place + 0.16 * (index - (len(couplings) - 1) / 2))
                medians.append(float(np.median(gaps)))
                one.plot(
                    np.full(len(gaps), places[-1]), gaps, style.marker(index), color=style.color(index + 1),
                    markersize=2.0, linestyle="", alpha=0.7,
                )  # fmt: skip
            one.plot(places, medians, color=style.color(index + 1))
        one.set_yscale("log")
        one.yaxis.set_major_locator(LogLocator(10))
        one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
        one.yaxis.set_minor_formatter(NullFormatter())
        style.column_names(one, names, style.COLUMN_CM - 1.4)
        one.set_ylabel("gap (nats a layer)")
        handles = [
            Line2D([], [], color=style.color(i + 1), marker=style.marker(i), label=f"couplings {strength:g}")
            for i, strength in enumerate(couplings)
        ]
        style.legend(made, handles)
        return style.fitted(made, 4.0)
