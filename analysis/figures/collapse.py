"""The (epsilon, delta)-collapse curve."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.figures.panels import PANEL_CM
from hvae.analysis.load import LoadedRun
from hvae.diagnosis.layer import Layer


def collapse_curves(runs: Mapping[str, LoadedRun]) -> Figure | None:
    """Share of a layer's units that are (epsilon, delta)-collapsed against epsilon (Lucas et al. 2019).

    A unit is collapsed when its expected divergence per datum stays below epsilon nats for all
    but a share delta = 0.01 of the data. One line per replica, one colour per layer.
    """
    shown = {title: run for title, run in runs.items() if any(map(_measured, run.layers))}
    if not shown:
        return None
    depth = max(run.depth for run in shown.values())
    with style.settings():
        made, all_axes = style.panel_grid(list(shown), sharey=True, sharex=True)
        for axes, run in zip(all_axes, shown.values(), strict=True):
            axes.set_xscale("log")
            axes.set_ylim(-4, 104)
            axes.set_xlabel("ε (nats)")
            if axes in style.first_column(all_axes):
                axes.set_ylabel("collapsed units (%)")
            for index, layer in enumerate(run.layers):
                if not _measured(layer) or layer.collapsed_fraction is None:
                    continue
                for row in layer.collapsed_fraction:
                    if np.isfinite(row).any():
                        axes.plot(
                            run.collapse_epsilons,
                            100.0 * row,
                            color=style.color(index),
                            linewidth=0.6,
                            marker=style.marker(index),
                            markersize=1.6,
                            markeredgewidth=0,
                            alpha=0.85,
                            markevery=(index, max(depth, 2)),
                        )
        handles = [
            Line2D([], [], color=style.color(index), marker=style.marker(index), linewidth=0.7, label=f"z{index + 1}")
            for index in range(depth)
        ]
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def _measured(layer: Layer) -> bool:
    return layer.collapsed_fraction is not None and bool(np.isfinite(layer.collapsed_fraction).any())
