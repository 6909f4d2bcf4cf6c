"""Every run compared with its baseline, seed by seed: layers kept and nats gained."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvae.analysis import style
from hvae.analysis.study import Study
from hvae.analysis.tables.comparison import Compared, compared

ROW_CM = 0.42
MOST_LEVEL_TICKS = 6
"""with more ticks the numbers overlap unless they are turned"""


def comparison(study: Study) -> Figure | None:
    """Rows are runs. Left: active layers by the verdict. Right: gain in the bound, nats, with its interval.

    A point is a replica, hollow where the verdict on another layer is undecided.
    """
    rows = [row for row in compared(study) if np.isfinite(row.run.active_layers).any()]
    if not rows:
        return None
    with style.settings():
        made = style.figure(ROW_CM * len(rows) + 1.8)
        left, right = made.subplots(1, 2, sharey=True, width_ratios=(2, 3))
        for index, row in enumerate(rows):
            _draw_layers(left, index, row)
            _draw_gain(right, index, row)
        depth = max(row.run.depth for row in rows)
        left.set_xlim(-0.3, depth + 0.3)
        left.set_xticks(range(depth + 1))
        left.set_xlabel(f"active layers of {depth}")
        left.set_yticks(range(len(rows)), [row.run.title for row in rows])
        for label, row in zip(left.get_yticklabels(), rows, strict=True):
            label.set_fontweight("normal" if row.baseline else "bold")
        left.invert_yaxis()
        right.axvline(0, color=style.GREY, linewidth=0.6)
        right.set_xlabel("gain in the bound on log p(x) (nats)")
        right.margins(x=0.08)
        right.set_xscale("symlog", linthresh=1.0, linscale=0.8)
        right.xaxis.set_major_formatter(lambda value, _: style.plain(float(f"{value:.2g}")))
        if len(right.get_xticks()) > MOST_LEVEL_TICKS:
            right.tick_params(axis="x", labelrotation=55)
        return made


def _draw_layers(axes: Axes, index: int, row: Compared) -> None:
    places = index + np.linspace(-0.24, 0.24, row.run.n_replicas)
    for y, active, undecided in zip(places, row.run.active_layers, row.run.undecided_layers, strict=True):
        face = "white" if undecided > 0 else style.color(2)
        axes.plot(active, y, "o", color=style.color(2), markerfacecolor=face, markersize=2.6, markeredgewidth=0.5)


def _draw_gain(axes: Axes, index: int, row: Compared) -> None:
    kept = row.gain_nats[np.isfinite(row.gain_nats)]
    if not kept.size:
        return
    gain = row.gain
    if not np.isnan(gain.low):
        axes.hlines(index, gain.low, gain.high, color=style.color(0), linewidth=0.8)
    axes.plot(kept, np.full(kept.shape, index), "o", color=style.color(1), markersize=1.8, markeredgewidth=0, alpha=0.9)
    axes.plot(float(np.mean(kept)), index, "|", color=style.color(0), markersize=5, markeredgewidth=0.9)
