"""What the layers above a layer say of x, layer by layer of a whole stack."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.figures.panels import PANEL_CM
from hvae.analysis.load import Array, LoadedRun

ABOVE = "bound_above_nats"
LINEAR_BELOW = 0.1


def lost(run: LoadedRun) -> Array:
    """``[R, L]`` L^{>1} less L^{>l} for z1 to zL, on the same images; NaN where it was not measured."""
    above: Array = np.stack([z.interval(ABOVE)[:, 1] for z in run.layers], axis=1)
    return above[:, :1] - above


def bounds_above(runs: Sequence[LoadedRun]) -> Figure | None:
    """One line a replica; None where no run has them."""
    shown = [(run, lost(run)) for run in runs]
    shown = [(run, values) for run, values in shown if np.isfinite(values).any()]
    if not shown:
        return None
    with style.settings():
        made = style.figure(8.0, style.PAGE_CM)
        axes = made.subplots()
        for index, (run, values) in enumerate(shown):
            where = np.linspace(0, 1, len(run.layers)) if len(run.layers) > 1 else np.zeros(1)
            for replica in values:
                known = np.isfinite(replica)
                axes.plot(
                    where[known], replica[known], color=style.color(index), linewidth=0.6, alpha=0.8,
                    marker=style.marker(index), markersize=2.2, markeredgewidth=0,
                )  # fmt: skip
        style.symmetric_log(axes, LINEAR_BELOW)
        axes.set_xticks([0, 1], ["z1", "top"])
        axes.set_xlabel("layer that is drawn from p, with those below it")
        axes.set_ylabel("$L^{>1}$ less $L^{>l}$ (nats)")
        handles = [
            Line2D([], [], color=style.color(i), marker=style.marker(i), linewidth=0.7, label=run.label)
            for i, (run, _) in enumerate(shown)
        ]
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)
