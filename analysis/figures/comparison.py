"""Every run compared with its baseline, seed by seed: layers kept and nats gained."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvae.analysis import style
from hvae.analysis.study import Study
from hvae.analysis.tables.comparison import Compared, compared

NAME_CM = 4.4
SHORT_CM = 2.4
"""names up to this width leave room for both panels in the narrow figure"""
MOST_COUNTS = 6
"""numbers of layers that have a tick each"""
FAR = 8.0
"""times as far from 0 as any other row: drawn as an arrow with its number, since it would press all others together"""


def comparison(study: Study) -> Figure | None:
    """Rows are runs. Left: active layers by the verdict. Right: gain in the bound, nats, with its interval.

    A point is a replica, hollow where the verdict on another layer is undecided.
    """
    rows = [row for row in compared(study) if np.isfinite(row.run.active_layers).any()]
    if not rows:
        return None
    with style.settings():
        names, depth = [row.run.title for row in rows], max(row.run.depth for row in rows)
        wide = max(map(style.text_cm, names)) > SHORT_CM or depth > MOST_COUNTS
        made = style.figure(6.0, style.PAGE_CM if wide else style.COLUMN_CM)
        left, right = made.subplots(1, 2, sharey=True, width_ratios=(2, 3))
        far = _far(rows)
        for index, row in enumerate(rows):
            _draw_layers(left, index, row)
            _draw_gain(right, index, row, far=index in far)
        left.set_xlim(-0.3, depth + 0.3)
        left.set_xticks(range(0, depth + 1, -(-depth // MOST_COUNTS)))
        left.set_xlabel(f"active layers of {depth}")
        row_cm = style.row_names(left, names, NAME_CM)
        for label, row in zip(left.get_yticklabels(), rows, strict=True):
            label.set_fontweight("normal" if row.baseline else "bold")
        right.axvline(0, color=style.GREY, linewidth=0.6)
        right.set_xlabel("gain in the bound on log p(x) (nats)" if wide else "gain in the bound (nats)")
        right.margins(x=0.08)
        style.symmetric_log(right, 1.0, along="x")
        return style.fitted(made, row_cm * len(rows))


def _reach(row: Compared) -> float:
    """How far from 0 anything of the row is drawn; 0 where nothing is."""
    drawn = np.array([*row.gain_nats, row.gain.low, row.gain.high]) if np.isfinite(row.gain_nats).any() else np.zeros(1)
    return float(np.nanmax(np.abs(drawn)))


def _far(rows: Sequence[Compared]) -> set[int]:
    """Rows that are `FAR` times as far from 0 as the next; at most every fourth of those with a gain."""
    reach = [_reach(row) for row in rows]
    order = [index for index in sorted(range(len(rows)), key=lambda index: -reach[index]) if reach[index] > 0]
    most = len(order) // 4
    gaps = [n for n in range(1, most + 1) if reach[order[n - 1]] > FAR * max(1.0, reach[order[n]])]
    return set(order[: max(gaps, default=0)])


def _draw_layers(axes: Axes, index: int, row: Compared) -> None:
    places = index + np.linspace(-0.24, 0.24, row.run.n_replicas)
    for y, active, undecided in zip(places, row.run.active_layers, row.run.undecided_layers, strict=True):
        face = "white" if undecided > 0 else style.color(2)
        axes.plot(active, y, "o", color=style.color(2), markerfacecolor=face, markersize=2.6, markeredgewidth=0.5)


def _draw_gain(axes: Axes, index: int, row: Compared, *, far: bool) -> None:
    kept = row.gain_nats[np.isfinite(row.gain_nats)]
    if not kept.size:
        return
    gain = row.gain
    if far:
        up = gain.middle > 0
        axes.annotate(
            f"{style.plain(float(f'{gain.middle:.3g}'))} {'▸' if up else '◂'}", (0.99 if up else 0.01, index),
            xycoords=axes.get_yaxis_transform(), ha="right" if up else "left", va="center", fontsize=style.SIZE,
            color=style.color(0),
        )  # fmt: skip
        return
    if not np.isnan(gain.low):
        axes.hlines(index, gain.low, gain.high, color=style.color(0), linewidth=0.8)
    axes.plot(kept, np.full(kept.shape, index), "o", color=style.color(1), markersize=1.8, markeredgewidth=0, alpha=0.9)
    axes.plot(float(np.mean(kept)), index, "|", color=style.color(0), markersize=5, markeredgewidth=0.9)
