"""Signal-to-noise of gradients against the number of samples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.figures.panels import PANEL_CM
from hvae.analysis.load import LoadedRun


def gradient_signal(runs: Sequence[LoadedRun]) -> Figure | None:
    """The ratio of every part's gradient against K, one panel per run; None where it was not measured."""
    shown = [
        run for run in runs if run.signal is not None and any(np.isfinite(v).any() for v in run.signal.snr.values())
    ]
    if not shown:
        return None
    parts = sorted({part for run in shown if run.signal is not None for part in run.signal.snr}, key=_place)
    with style.settings():
        made, all_axes = style.panel_grid([run.title for run in shown], sharey=True, sharex=True)
        for axes, run in zip(all_axes, shown, strict=True):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("samples K")
            if axes in style.first_column(all_axes):
                axes.set_ylabel("signal-to-noise ratio (1)")
            for index, part in enumerate(parts):
                _draw(axes, run, part, index)
        handles = [
            Line2D([], [], color=style.color(index), marker=style.marker(index), linewidth=0.7, label=part)
            for index, part in enumerate(parts)
        ]
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def _place(part: str) -> tuple[bool, str]:
    return not part.startswith("z"), part


def _draw(axes: Axes, run: LoadedRun, part: str, index: int) -> None:
    """A line per replica. Where no signal was found, only the upper end of the interval is drawn."""
    assert run.signal is not None
    for low, middle, high in np.moveaxis(run.signal.snr.get(part, np.zeros((0, 0, 3))), -1, 1):
        found = np.where(middle > 0, middle, np.nan)
        color = style.color(index)
        axes.plot(
            run.signal.n_samples, found,
            color=color, linewidth=0.5, marker=style.marker(index), markersize=1.8, markeredgewidth=0,
        )  # fmt: skip
        axes.vlines(run.signal.n_samples, np.maximum(low, high / 30), high, color=color, linewidth=0.5, alpha=0.35)
