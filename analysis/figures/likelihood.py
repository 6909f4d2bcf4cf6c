"""The importance-weighted bound L_K against K."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from hvae.analysis import style
from hvae.analysis.figures.panels import PANEL_CM, Panels, by_run, panel_axes, series, series_index, split
from hvae.analysis.load import LoadedRun


def likelihood_curves(panels: Panels) -> Figure | None:
    """L_K in nats, a lower bound of log p(x) that rises with K; the ELBO is its value at K = 1.

    One thin line per replica, with its interval over images at the largest K; the open diamond is the ELBO.
    The bar at the right is log p(x) from below, by the cheapest method of each image.
    """
    shown = {title: [run for run in runs if _measured(run)] for title, runs in panels.items()}
    shown = dict(split({title: runs for title, runs in shown.items() if runs}))
    if not shown:
        return None
    with style.settings():
        alike = len({run.yardstick for runs in shown.values() for run in runs}) == 1
        made, panel_of = panel_axes(shown, sharey=alike, sharex=True)
        for title, runs in shown.items():
            (axes,) = panel_of[title]
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
            axes.set_xlabel("samples K")
            if by_run(shown) or axes in style.first_column(made.axes):
                axes.set_ylabel("bound $L_K$ (nats)")
            for run in runs:
                _draw_run(axes, run, series_index(shown, run))
        handles = [
            Line2D([], [], color=style.color(index), marker=style.marker(index), linewidth=0.7, label=name)
            for index, name in series(shown).items()
        ]
        elbo = Line2D([], [], color=style.GREY, marker="D", linestyle="", markerfacecolor="none", label="ELBO")
        style.legend(made, [*handles, elbo])
        return style.fitted(made, PANEL_CM)


def _draw_run(axes: Axes, run: LoadedRun, index: int) -> None:
    likelihood = run.likelihood
    assert likelihood is not None
    color = style.color(index)
    for replica in range(len(likelihood.bound_nats)):
        middle = likelihood.bound_nats[replica, :, 1]
        if not np.isfinite(middle).any():
            continue
        axes.plot(
            likelihood.n_samples,
            middle,
            color=color,
            linewidth=0.5,
            alpha=0.8,
            marker=style.marker(index),
            markersize=1.8,
            markeredgewidth=0,
        )
        low, _, high = likelihood.best[replica]
        axes.vlines(likelihood.n_samples[-1], low, high, color=color, linewidth=0.5, alpha=0.35)
        if likelihood.has_log_px:
            x, bound = likelihood.n_samples[-1], likelihood.log_px_nats[replica, 1]
            axes.plot([x], [bound], "_", markersize=6, markeredgecolor=color, markeredgewidth=0.8)
        axes.plot(
            [1],
            [likelihood.elbo_nats[replica, 1]],
            "D",
            markersize=3.2,
            markerfacecolor="none",
            markeredgecolor=color,
            markeredgewidth=0.5,
        )


def _measured(run: LoadedRun) -> bool:
    return run.likelihood is not None and bool(np.isfinite(run.likelihood.bound_nats[..., 1]).any())
