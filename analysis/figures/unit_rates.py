"""Rate of every unit over training: the picture of Sønderby et al. 2016, figure 4."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun

LEAST_CM, MOST_CM = 3.4, 7.2
"""height of a panel, by its number of layers"""
LINEAR_BELOW = 0.01
"""nats; colours are linear up to this rate, logarithmic beyond"""


def unit_rates(runs: Mapping[str, LoadedRun]) -> Figure | None:
    """Rate per unit in nats (colour) against the step, a row per unit, of one replica per run.

    The replica is the first that did not fail. Units of a layer are sorted by their last rate. Lines
    separate the layers, z1 at the bottom. Every layer has the same height.
    """
    shown = {title: run for title, run in runs.items() if len(recorded(run)) > 1 and run.training.rate_unit_nats}
    if not shown:
        return None
    stacks = {title: stacked(run, first_alive(run)) for title, run in shown.items()}
    finite = np.concatenate([stack[np.isfinite(stack)] for stack in stacks.values()])
    if not finite.size:
        return None
    top = max(float(np.abs(finite).max()), 10 * LINEAR_BELOW)
    signed = bool(finite.min() < -LINEAR_BELOW)
    norm = colors.SymLogNorm(LINEAR_BELOW, linscale=0.5, vmin=-top if signed else 0.0, vmax=top)
    with style.settings():
        made, all_axes = style.panel_grid(list(shown))
        panel_cm = min(MOST_CM, max(LEAST_CM, style.LINE_CM * max(run.depth for run in shown.values())))
        for axes, (title, run) in zip(all_axes, shown.items(), strict=True):
            stack = stacks[title]
            mesh = axes.pcolormesh(
                edges(run.training.step[recorded(run)]),
                rows(run),
                stack,
                norm=norm,
                cmap="RdBu_r" if signed else "cividis",
                rasterized=True,
            )
            axes.set_facecolor("#BBBBBB")
            axes.grid(visible=False)
            axes.set_xlabel("training step")
            axes.xaxis.set_major_locator(MaxNLocator(2))
            _layer_axis(axes, run, signed, panel_cm)
        bar = made.colorbar(mesh, cax=made.add_axes((0.1, 0.0, 0.8, 0.1)), orientation="horizontal")
        decades = [10.0**power for power in range(-1 if signed else -2, 4) if 10.0**power <= top]
        bar.set_ticks([*(-value for value in reversed(decades)), 0.0, *decades] if signed else [0.0, *decades])
        bar.minorticks_off()
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
        bar.set_label("rate per unit (nats)")
        bar.outline.set_linewidth(0.4)
        return style.fitted(made, panel_cm)


def first_alive(run: LoadedRun) -> int:
    """The first replica that did not fail, or 0."""
    return int(np.argmax(run.alive)) if run.alive.any() else 0


def recorded(run: LoadedRun) -> Array:
    """The T rows of the metrics in which rates of units were written."""
    return np.flatnonzero([any(key.startswith("rate_unit_nats/") for key in row) for row in run.metrics])


def stacked(run: LoadedRun, replica: int) -> Array:
    """[sum of D, T]: z1's units first, sorted within a layer by the last finite rate, smallest below."""
    blocks, there = [], recorded(run)
    for layer in run.layers:
        rates = run.training.rate_unit_nats.get(layer.name)
        block = np.full((layer.n_units, len(there)), np.nan) if rates is None else rates[replica, there].T
        blocks.append(block[np.argsort(np.nan_to_num(block[:, -1]), kind="stable")])
    return np.concatenate(blocks)


def edges(step: Array) -> Array:
    """[T + 1] borders half-way between the T recorded steps."""
    middle = (step[1:] + step[:-1]) / 2
    first, last = step[0] - (step[1] - step[0]) / 2, step[-1] + (step[-1] - step[-2]) / 2
    return np.concatenate([[first], middle, [last]])


def rows(run: LoadedRun) -> Array:
    """[sum of D + 1] borders of the rows. Every layer has height 1, so a small one stays legible."""
    bands = [index + np.arange(layer.n_units) / layer.n_units for index, layer in enumerate(run.layers)]
    return np.concatenate([*bands, [run.depth]])


def _layer_axis(axes: Axes, run: LoadedRun, signed: bool, panel_cm: float) -> None:
    for border in range(1, run.depth):
        axes.axhline(border, color="black" if signed else "white", linewidth=0.6)
    places = range(0, run.depth, math.ceil(style.LINE_CM * run.depth / panel_cm - 1e-9))
    names = [f"{run.layers[place].name} ({run.layers[place].n_units})" for place in places]
    axes.set_yticks([place + 0.5 for place in places], names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("layer (units)")
