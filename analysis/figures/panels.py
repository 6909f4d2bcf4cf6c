"""Quantities per layer, one panel per group of runs: the frame that several figures share.

The layers are on the x axis, z1 (next to x) on the left. A run has a colour and a marker. Every
replica is a point with its interval; the thin line joins a run's medians over replicas. Quantities stand
beside each other, each on axes of its own. A panel that has several, or a legend of its own, has a head.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import CARETUPBASE

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.tables.verdict import AT_CAP
from hvae.diagnosis.layer import Layer

Panels = Mapping[str, Sequence[LoadedRun]]
Read = Callable[[LoadedRun, Layer], Array]
"""The quantity of a layer to show: [R, 3] (low, middle, high)"""

SLOT = 0.84
PANEL_CM = 2.9
DASHED = (0, (4, 2))
CAP: dict[str, Any] = {"color": style.GREY, "linewidth": 1.0, "zorder": 1.5}
AT_MOST: dict[str, Any] = {"marker": CARETUPBASE, "markersize": 4.0, "markeredgewidth": 0}
MOST_RUNS = 8
"""in a panel, as many as there are colours; further runs stand in a panel below"""
LONG_CM = 3.0
"""names of runs; with longer ones a legend takes the width of the page"""
DEEP = 8
"""layers; deeper stacks take the width of the page, with quantities below each other"""


@dataclass(frozen=True)
class Quantity:
    """What one of the axes of a panel shows."""

    read: Read
    label: str
    """of the y axis, with its unit"""
    of_ladders: str = ""
    """the same for a panel of runs that visit the top first, where it differs"""
    linear_below: float | None = None
    """the y axis is symmetric-logarithmic beyond it"""
    reference: tuple[float, str] | None = None
    """a dashed line and its name"""
    caps: Callable[[Layer], Array] | None = None
    """[R] the most that it can say of a layer: a value at it is marked as "at least" """
    ylim: tuple[float | None, float | None] = (None, None)


def split(panels: Panels) -> Panels:
    """The same in panels of at most `MOST_RUNS` runs."""
    found: dict[str, Sequence[LoadedRun]] = {}
    for title, runs in panels.items():
        n_parts = -(-len(runs) // MOST_RUNS)
        size = -(-len(runs) // n_parts)
        for part in range(n_parts):
            name = f"{title}, {part + 1} of {n_parts}" if n_parts > 1 else title
            found[name] = runs[part * size : (part + 1) * size]
    return found


def of_one_kind(panels: Panels) -> Panels:
    """The same, with ladders apart from runs that visit z1 first: what a layer says given those above is another thing.

    A run of one layer is of either kind.
    """
    found: dict[str, Sequence[LoadedRun]] = {}
    for title, runs in panels.items():
        ladders = [run for run in runs if from_the_top(run)]
        if ladders and any(run.depth > 1 for run in runs if run not in ladders):
            found |= {f"{title}: z1 first": [run for run in runs if run not in ladders], f"{title}: ladders": ladders}
        else:
            found[title] = runs
    return found


def from_the_top(run: LoadedRun) -> bool:
    """Whether layers are visited from the top, and there are several."""
    return run.depth > 1 and any(layer.mixed for layer in run.layers)


def by_run(panels: Panels) -> bool:
    """Whether some panel has two runs of one depth; each panel then has its own legend."""
    return any(len({run.depth for run in runs}) < len(runs) for runs in panels.values())


def series(panels: Panels) -> dict[int, str]:
    """Colour index -> depth in words, where depth tells the runs of a panel apart; otherwise empty."""
    if by_run(panels) or all(len(runs) == 1 for runs in panels.values()):
        return {}
    depths = sorted({run.depth for runs in panels.values() for run in runs})
    return {depth - 1: f"{depth} layer{'' if depth == 1 else 's'}" for depth in depths}


def series_index(panels: Panels, run: LoadedRun) -> int:
    """Colour index of a run, the same in all panels, figures and presets. With `by_run`, unique within a panel."""
    if by_run(panels):
        return _indices(panels)[run.label]
    return run.depth - 1 if series(panels) else 0


def _indices(panels: Panels) -> dict[str, int]:
    """Label -> the first index that no other run of its panels has."""
    found: dict[str, int] = {}
    for runs in panels.values():
        for run in runs:
            beside = {other.label for members in panels.values() if run in members for other in members}
            taken = {index for label, index in found.items() if label in beside - {run.label}}
            found.setdefault(run.label, next(index for index in itertools.count() if index not in taken))
    return found


def panel_axes(panels: Panels, n_quantities: int = 1, **share: bool) -> tuple[Figure, dict[str, list[Axes]]]:
    """The axes of every panel: in a grid, or below its head. Give them their height by `style.fitted`."""
    deep = max(run.depth for runs in panels.values() for run in runs) > DEEP
    if n_quantities == 1 and not by_run(panels):
        made, grid = style.panel_grid(list(panels), 2 * deep, **share)
        return made, {title: [axes] for title, axes in zip(panels, grid, strict=True)}
    long = by_run(panels) and max(style.text_cm(run.title) for runs in panels.values() for run in runs) > LONG_CM
    width_cm = style.PAGE_CM if deep or long or n_quantities > 1 else style.COLUMN_CM
    n_rows, n_columns = (n_quantities, 1) if deep else (1, n_quantities)
    heads = [_head(panels, title, width_cm) for title in panels]
    ratios = [ratio for _, head_cm in heads for ratio in (head_cm / PANEL_CM, *([1.0] * n_rows))]
    made = style.figure(1.5 * PANEL_CM * sum(ratios), width_cm)
    grid = made.add_gridspec(len(ratios), n_columns, height_ratios=ratios)
    found: dict[str, list[Axes]] = {}
    for number, (title, (head, _)) in enumerate(zip(panels, heads, strict=True)):
        top = number * (n_rows + 1)
        place = made.add_subplot(grid[top, :])
        place.set_axis_off()
        place.legend(**head, loc="center", borderpad=0, borderaxespad=0, handlelength=1.6, columnspacing=1.2)
        found[title] = []
        for index in range(n_quantities):
            first = next(iter(found.values()))
            shared = {axis: first[index] for axis, wanted in share.items() if wanted and len(first) > index}
            cell = grid[top + 1 + index, 0] if deep else grid[top + 1, index]
            found[title].append(made.add_subplot(cell, label=title, **shared))
    return made, found


def _head(panels: Panels, title: str, width_cm: float) -> tuple[dict[str, Any], float]:
    """Title of a panel and, where depth does not tell its runs apart, its legend; with the height in cm."""
    told = panels[title] if by_run(panels) else ()
    names = [style.broken(run.title, width_cm - 2.0) for run in told]
    handles = [_handle(series_index(panels, run), name) for run, name in zip(told, names, strict=True)]
    n_columns = style.legend_columns(names, width_cm - 0.8) if names else 1
    lines = style.broken(title, width_cm - 0.8, 7.5)
    n_rows = -(-len(names) // n_columns) * max((name.count("\n") + 1 for name in names), default=0)
    height = style.LINE_CM * (lines.count("\n") + 1.3 + n_rows)
    return {"handles": handles, "title": lines, "ncols": n_columns}, height


def layer_figure(
    panels: Panels,
    *quantities: Quantity,
    tick: Callable[[Layer], str] = lambda layer: layer.name,
    xlabel: str = "latent layer",
    hollow: tuple[Read, str] | None = None,
) -> Figure | None:
    """Every quantity of every layer of every run; None where nothing is finite.

    `hollow` is a second reading of the first quantity, drawn as hollow markers behind it, and its name.
    """
    shown = {
        title: runs for title, runs in split(panels).items() if any(_finite(q, run) for q in quantities for run in runs)
    }
    quantities = tuple(q for q in quantities if any(_finite(q, run) for runs in shown.values() for run in runs))
    if not shown:
        return None
    with style.settings():
        made, panel_of = panel_axes(shown, len(quantities), sharey=True)
        width_cm = _width_cm(made, panel_of)
        for title, runs in shown.items():
            deepest = max(runs, key=lambda run: run.depth)
            for axes, quantity in zip(panel_of[title], quantities, strict=True):
                style.column_names(axes, [tick(layer) for layer in deepest.layers], width_cm)
                axes.set_xlim(-0.5, deepest.depth - 0.5)
                axes.grid(axis="x", visible=False)
                axes.set_xlabel(xlabel)
                if len(quantities) > 1 or by_run(shown) or axes in style.first_column(made.axes):
                    ladders = any(map(from_the_top, runs))
                    axes.set_ylabel((quantity.of_ladders if ladders else "") or quantity.label)
                if quantity.reference is not None:
                    axes.axhline(quantity.reference[0], color=style.GREY, linewidth=0.6, linestyle=DASHED, zorder=1)
                for offset, run in enumerate(runs):
                    index = series_index(shown, run)
                    if hollow is not None:
                        _draw_hollow(axes, run, hollow[0], index, offset, len(runs))
                    _draw_run(axes, run, quantity, index, offset, len(runs))
        for axes, quantity in zip(next(iter(panel_of.values())), quantities, strict=True):
            if quantity.linear_below is not None:
                style.symmetric_log(axes, quantity.linear_below)
            if quantity.ylim != (None, None):
                axes.set_ylim(*quantity.ylim)
        style.legend(made, _key(shown, quantities, hollow[1] if hollow is not None else ""))
        return style.fitted(made, PANEL_CM)


def _width_cm(made: Figure, panel_of: Mapping[str, Sequence[Axes]]) -> float:
    """Of a panel, less what its axis of numbers takes."""
    cell = next(iter(panel_of.values()))[0].get_subplotspec()
    assert cell is not None
    return made.get_figwidth() * 2.54 / cell.get_gridspec().ncols - 1.5


def _places(run: LoadedRun, offset: int, n_series: int) -> tuple[Array, Array]:
    """Positions of a run on the x axis: layers [L] and their replicas [L, R]."""
    width = SLOT / n_series
    centre = np.arange(run.depth) - SLOT / 2 + (offset + 0.5) * width
    spread = np.linspace(-0.32, 0.32, run.n_replicas) * width if run.n_replicas > 1 else np.zeros(1)
    return centre, centre[:, None] + spread


def _draw_hollow(axes: Axes, run: LoadedRun, read: Read, index: int, offset: int, n_series: int) -> None:
    _, x = _places(run, offset, n_series)
    middle = np.stack([read(run, layer)[:, 1] for layer in run.layers])
    axes.plot(
        x.ravel(),
        middle.ravel(),
        style.marker(index),
        color=style.color(index),
        markersize=4.0 if n_series == 1 else 3.2,
        markerfacecolor="none",
        markeredgewidth=0.35,
        alpha=0.8,
    )


def _draw_run(axes: Axes, run: LoadedRun, quantity: Quantity, index: int, offset: int, n_series: int) -> None:
    centre, x = _places(run, offset, n_series)
    values = np.stack([quantity.read(run, layer) for layer in run.layers])
    color = style.color(index)
    low, middle, high = np.moveaxis(values, 2, 0)
    bars = np.isfinite(values).all(axis=2)
    axes.vlines(x[bars], low[bars], high[bars], color=color, linewidth=0.5, alpha=0.7)
    kept = np.isfinite(middle)
    axes.plot(
        x[kept],
        middle[kept],
        style.marker(index),
        color=color,
        markersize=2.6 if n_series == 1 else 2.2,
        markeredgewidth=0,
        label=run.label,
    )
    known = kept.any(axis=1)
    if known.sum() > 1:
        medians = np.full(len(middle), np.nan)  # which break the line
        medians[known] = np.nanmedian(middle[known], axis=1)
        axes.plot(centre, medians, color=color, linewidth=0.5, alpha=0.5)
    if quantity.caps is not None:
        caps = np.stack([quantity.caps(layer) for layer in run.layers])
        most = np.nanmax(np.where(np.isfinite(caps), caps, -np.inf), axis=1, initial=-np.inf)
        axes.hlines(most[known], centre[known] - SLOT / 2 / n_series, centre[known] + SLOT / 2 / n_series, **CAP)
        full = kept & (middle > AT_CAP * caps)
        axes.plot(x[full], middle[full], color=color, linestyle="", **AT_MOST)


def _finite(quantity: Quantity, run: LoadedRun) -> bool:
    return any(bool(np.isfinite(quantity.read(run, layer)[:, 1]).any()) for layer in run.layers)


def _handle(index: int, name: str) -> Line2D:
    return Line2D([], [], color=style.color(index), marker=style.marker(index), linewidth=0.5, label=name)


def _key(panels: Panels, quantities: Sequence[Quantity], hollow: str) -> list[Line2D]:
    """What is the same in all panels: depths, dashed lines, hollow markers, caps."""
    handles = [_handle(index, name) for index, name in series(panels).items()]
    for name in dict.fromkeys(quantity.reference[1] for quantity in quantities if quantity.reference is not None):
        handles.append(Line2D([], [], color=style.GREY, linewidth=0.6, linestyle=DASHED, label=name))
    if hollow:
        handles.append(Line2D([], [], color=style.GREY, marker="o", linestyle="", markerfacecolor="none", label=hollow))
    if any(quantity.caps is not None for quantity in quantities):
        handles.append(Line2D([], [], label="the most that V can say", **CAP))
        handles.append(Line2D([], [], color=style.GREY, linestyle="", label="V near it: at least so much", **AT_MOST))
    return handles
