"""Quantities per layer, one panel per group of runs: the frame that several figures share.

The layers are on the x axis, z1 (next to x) on the left. A run has a colour and a marker. Every
replica is a point with its interval; the thin line joins a run's medians over replicas.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun
from hvae.diagnosis.layer import Layer

Panels = Mapping[str, Sequence[LoadedRun]]
Read = Callable[[LoadedRun, Layer], Array]
"""The quantity of a layer to show: [R, 3] (low, middle, high)"""

SLOT = 0.84
PANEL_HEIGHT_CM = 3.9


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


def panel_axes(panels: Panels, height_cm: float, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """Axes for the panels: in two columns, or one above the other where each has a legend at its side."""
    return style.panel_grid(len(panels), height_cm, n_columns=1 if by_run(panels) else 2, **subplots)


def panel_legend(axes: Axes, panels: Panels, runs: Sequence[LoadedRun]) -> None:
    """A legend next to the panel, where depth does not tell its runs apart."""
    if not by_run(panels):
        return
    indices = [series_index(panels, run) for run in runs]
    handles = [
        Line2D([], [], color=style.color(i), marker=style.marker(i), linewidth=0.5, label=run.title)
        for i, run in zip(indices, runs, strict=True)
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.6, borderpad=0)


def layer_figure(
    panels: Panels,
    read: Read,
    *,
    ylabel: str,
    linear_below: float | None = None,
    reference: tuple[float, str] | None = None,
    tick: Callable[[Layer], str] = lambda layer: layer.name,
    xlabel: str = "latent layer",
    ylim: tuple[float | None, float | None] = (None, None),
    hollow: tuple[Read, str] | None = None,
) -> Figure | None:
    """`read` of every layer of every run; None where nothing is finite.

    `linear_below` makes the y axis symmetric-logarithmic beyond it; `reference` is a dashed line
    and its name; `hollow` is a second quantity, drawn as hollow markers behind the first, and its name.
    """
    shown = {title: runs for title, runs in panels.items() if any(_finite(read, run) for run in runs)}
    if not shown:
        return None
    with style.settings():
        made, all_axes = panel_axes(shown, PANEL_HEIGHT_CM, sharey=True)
        for position, (axes, (title, runs)) in enumerate(zip(all_axes, shown.items(), strict=True)):
            deepest = max(runs, key=lambda run: run.depth)
            axes.set_title(title, pad=3)
            axes.set_xticks(range(deepest.depth), [tick(layer) for layer in deepest.layers])
            axes.set_xlim(-0.5, deepest.depth - 0.5)
            axes.grid(axis="x", visible=False)
            axes.set_xlabel(xlabel)
            if position % 2 == 0 or by_run(shown):
                axes.set_ylabel(ylabel)
            panel_legend(axes, panels, runs)
            if linear_below is not None:
                style.symmetric_log(axes, linear_below)
            if reference is not None:
                axes.axhline(reference[0], color=style.GREY, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1)
            for offset, run in enumerate(runs):
                if hollow is not None:
                    _draw_hollow(axes, run, hollow[0], series_index(panels, run), offset, len(runs))
                _draw_run(axes, run, read, series_index(panels, run), offset, len(runs))
        all_axes[0].set_ylim(*ylim)
        _legend(made, series(panels), reference, hollow[1] if hollow is not None else "")
        return made


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


def _draw_run(axes: Axes, run: LoadedRun, read: Read, index: int, offset: int, n_series: int) -> None:
    centre, x = _places(run, offset, n_series)
    values = np.stack([read(run, layer) for layer in run.layers])
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
        markersize=2.6 if n_series == 1 else 1.9,
        markeredgewidth=0,
        label=run.label,
    )
    known = np.isfinite(values[:, :, 1]).any(axis=1)
    if known.sum() > 1:
        medians = np.nanmedian(values[known, :, 1], axis=1)
        axes.plot(centre[known], medians, color=color, linewidth=0.5, alpha=0.5)


def _finite(read: Read, run: LoadedRun) -> bool:
    return any(bool(np.isfinite(read(run, layer)[:, 1]).any()) for layer in run.layers)


def _legend(made: Figure, names: Mapping[int, str], reference: tuple[float, str] | None, hollow: str) -> None:
    handles = [
        Line2D([], [], color=style.color(index), marker=style.marker(index), linewidth=0.5, label=name)
        for index, name in names.items()
    ]
    if reference is not None:
        handles.append(Line2D([], [], color=style.GREY, linewidth=0.6, linestyle=(0, (4, 2)), label=reference[1]))
    if hollow:
        handles.append(Line2D([], [], color=style.GREY, marker="o", linestyle="", markerfacecolor="none", label=hollow))
    if handles:
        made.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.6, columnspacing=1.2)
