"""Lines of a paper's figure: a point for every replica, a line for the closed form or the paper's values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.load import by_label
from hvae.analysis.papers import Curves, Line
from hvae.analysis.study import Study

PANEL_CM = 4.6
LEGEND_CHARACTERS = 56
"""width of a row of the legend"""


def curves(wanted: Curves, study: Study) -> Figure | None:
    """One panel per title; lines differ in colour and marker. None where nothing was measured."""
    panels = {title: lines for title, lines in wanted.panels(by_label(study.runs), study.measured).items() if lines}
    if not panels:
        return None
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with style.settings():
        made, axes = style.panel_grid(len(panels), PANEL_CM, sharey=True)
        for place, (title, lines) in zip(axes, panels.items(), strict=True):
            for name, line in lines.items():
                _draw(place, names.index(name), line, wanted.mean)
            for x in wanted.marks.get(title, ()):
                place.axvline(x, color=style.GREY, linewidth=0.6, linestyle="--")
            place.set_title(title)
            place.set_xlabel(wanted.x_label)
            _scale(place, wanted, sorted({float(x) for line in lines.values() for x in line.x}))
        columns = min(2, len(panels))
        for place in axes[::columns]:
            place.set_ylabel(wanted.y_label)
        if handles := _legend(names, [line for lines in panels.values() for line in lines.items()]):
            longest = max(len(str(handle.get_label())) for handle in handles)
            in_a_row = max(1, min(len(handles), LEGEND_CHARACTERS // (longest + 6)))
            made.legend(handles=handles, loc="outside upper center", ncols=in_a_row, handlelength=1.2, columnspacing=1)
        return made


def _legend(names: Sequence[str], lines: Sequence[tuple[str, Line]]) -> list[Line2D]:
    """An entry for every name where there are several, and the marks of closed form and training."""
    handles = [_handle(i, name, [line for of, line in lines if of == name]) for i, name in enumerate(names)]
    handles = handles if len(names) > 1 else []
    if any(line.expected is not None and line.values.size for _, line in lines):
        handles += [
            Line2D([], [], color=style.GREY, linewidth=0.7, label="closed form"),
            Line2D([], [], color=style.GREY, linewidth=0, label="trained", **_point(0, style.GREY, hollow=True)),
        ]
    return handles


def _point(index: int, color: str, *, hollow: bool) -> dict[str, Any]:
    """How a point is drawn: hollow where a closed form is drawn behind it."""
    face = "none" if hollow else color
    return {"marker": style.marker(index), "markersize": 2.2, "markeredgewidth": 0.3, "markerfacecolor": face}


def _handle(index: int, name: str, lines: Sequence[Line]) -> Line2D:
    """The legend's mark of a name: its line, its points, or both."""
    points, drawn = any(line.values.size for line in lines), any(line.joined or line.expected for line in lines)
    filled = all(line.expected is None for line in lines)
    point = _point(index, style.color(index), hollow=not filled) if points else {}
    return Line2D([], [], color=style.color(index), linewidth=0.7 * drawn, label=name, **point)


def _draw(axes: Axes, index: int, line: Line, mean: str) -> None:
    color = style.color(index)
    if line.expected is not None:
        axes.plot(*line.expected, "-", color=color, linewidth=0.7)
    n_replicas = line.values.shape[1]
    x = np.repeat(np.asarray(line.x, dtype=float), n_replicas)
    point = _point(index, color, hollow=line.expected is not None)
    axes.plot(x, line.values.ravel(), linestyle="none", color=color, **point)
    if line.intervals is not None:
        axes.vlines(x, *line.intervals.reshape(-1, 2).T, color=color, linewidth=0.5)
    if line.expected is None and line.joined and n_replicas:
        with np.errstate(all="ignore"):
            style_of = "steps-mid" if mean == "steps" else "default"
            means = np.nanmean(line.values, axis=1)
            axes.plot(line.x, means, "-", drawstyle=style_of, color=color, linewidth=0.6, alpha=0.7)


MOST_TICKS = 8
"""up to this many values of x, each has its own tick; on a logarithmic axis, or where they are whole numbers"""


def _scale(axes: Axes, wanted: Curves, values: list[float]) -> None:
    for axis, scale in (("x", wanted.x_scale), ("y", wanted.y_scale)):
        if scale != "linear":
            getattr(axes, f"set_{axis}scale")(scale)
    if wanted.y_linear_below:
        style.symmetric_log(axes, wanted.y_linear_below)
    whole = bool(values) and set(values) <= set(range(MOST_TICKS + 1))
    if len(values) <= MOST_TICKS and (wanted.x_scale == "log" or whole):
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
