"""Lines of a paper's figure: a point for every replica, a line for the closed form or the paper's values.

Where a line has too many values of x for that, every replica is a thin line and the mean is a thick one; over a closed
form, points stand at some of the values.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from hvae.analysis import style
from hvae.analysis.load import by_label
from hvae.analysis.papers import Curves, Line
from hvae.analysis.study import Study

PANEL_CM = 3.4
DENSE = 16
"""values of x; beyond that points would hide each other"""
N_MARKS = 6
"""along a mean, so that it is not told by its colour alone"""
APART = 2.4
"""points on paper between the replicas of two lines that share a value of x"""


def curves(wanted: Curves, study: Study) -> Figure | None:
    """One panel per title; lines differ in colour and marker. None where nothing was measured."""
    panels = {title: lines for title, lines in wanted.panels(by_label(study.runs), study.measured).items() if lines}
    if not panels:
        return None
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with style.settings():
        made, axes = style.panel_grid(list(panels), sharey=not isinstance(wanted.y_label, Mapping))
        for place, (title, lines) in zip(axes, panels.items(), strict=True):
            for name, line in lines.items():
                _draw(place, names.index(name), list(lines).index(name) - (len(lines) - 1) / 2, line, wanted.mean)
            for x in wanted.marks.get(title, ()):
                place.axvline(x, color=style.GREY, linewidth=0.6, linestyle="--")
            place.set_xlabel(_label(wanted.x_label, title))
            if isinstance(wanted.y_label, Mapping) or place in style.first_column(axes):
                place.set_ylabel(_label(wanted.y_label, title))
            _scale(place, wanted, sorted({float(x) for line in lines.values() for x in line.x}))
        style.legend(made, _legend(names, [line for lines in panels.values() for line in lines.items()]))
        return style.fitted(made, PANEL_CM)


def _label(label: str | Mapping[str, str], title: str) -> str:
    return label if isinstance(label, str) else label[title]


def _legend(names: Sequence[str], lines: Sequence[tuple[str, Line]]) -> list[Line2D]:
    """An entry for every name where there are several, and the marks of closed form and training."""
    handles = [_handle(i, name, [line for of, line in lines if of == name]) for i, name in enumerate(names)]
    handles = handles if len(names) > 1 else []
    if any(line.expected is not None and line.values.size for _, line in lines):
        handles += [
            Line2D([], [], color=style.GREY, linewidth=0.7, label="closed form"),
            Line2D([], [], color=style.GREY, linewidth=0, label="measured", **_point(0, style.GREY, hollow=True)),
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


def _draw(axes: Axes, index: int, aside: float, line: Line, mean: str) -> None:
    """One line; its replicas stand ``aside`` times `APART` where they are points."""
    color, dense = style.color(index), len(line.x) > DENSE
    n_replicas = line.values.shape[1]
    joined = line.expected is None and line.joined and bool(n_replicas)
    steps = {"drawstyle": "steps-mid" if mean == "steps" else "default"}
    if line.expected is not None:
        axes.plot(*line.expected, "-", color=color, linewidth=0.7)
    if dense and joined:
        axes.plot(line.x, line.values, color=color, linewidth=0.4, alpha=0.45, **steps)
    else:
        every = slice(None, None, -(-len(line.x) // DENSE) if dense else 1)
        x = np.repeat(np.asarray(line.x, dtype=float)[every], n_replicas)
        point = _point(index, color, hollow=line.expected is not None)
        beside = axes.transData
        if line.expected is None:
            assert axes.figure is not None
            beside = beside + ScaledTranslation(aside * APART / 72, 0, axes.figure.dpi_scale_trans)
        axes.plot(x, line.values[every].ravel(), linestyle="none", color=color, transform=beside, **point)
        if line.intervals is not None:
            ends = line.intervals[every].reshape(-1, 2).T
            axes.vlines(x, *ends, color=color, linewidth=0.5, transform=beside)
    if joined:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where every replica failed, the mean is of nothing
            means = np.nanmean(line.values, axis=1)
        mark: dict[str, Any] = {}
        if dense:
            mark = _point(index, color, hollow=False) | {"markevery": (index % N_MARKS, max(1, len(line.x) // N_MARKS))}
        axes.plot(
            line.x,
            means,
            "-",
            color=color,
            linewidth=1.1 if dense else 0.6,
            alpha=1.0 if dense else 0.7,
            **mark,
            **steps,
        )


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
