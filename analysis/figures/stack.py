"""A whole stack at a glance: its layers from the top down, and what was measured of each, seed by seed."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.tables.words import KIND, LETTER

DEEP = 6
"""layers; of deeper stacks the page has this figure"""
ROW_CM = style.LINE_CM
LEAST_CM = 2.4
MOST_CM = 19.0
"""height of the panels; of deeper stacks only every so many layers are named"""
COLORS = {
    "active": "#009E73", "weak": "#F0E442", "noise only": "#CC79A7", "unread": "#E69F00", "collapsed": "#1F3B5C",
    "undecided": "#C8C8C8", "failed": "#FFFFFF", "not measured": "#FFFFFF",
}  # fmt: skip
"""kind of a verdict -> its colour; light and dark tell them apart without colours"""
SHOWN = (
    ("rate_nats", "rate"),
    ("information_nats", "information I"),
    ("used_nats", "use V"),
    ("knockout_encoder_nats", "encoder k.o."),
)
LINEAR_BELOW = 0.1
VERDICTS, NUMBERS = 1.0, 1.05
"""shares of the width"""


def stack(run: LoadedRun) -> Figure | None:
    """One row a layer, zL above. Left the verdict of every seed, then points with their intervals, in nats.

    None before the layers were measured.
    """
    if not run.evaluated:
        return None
    layers = run.layers[::-1]
    shown = [(key, name) for key, name in SHOWN if any(np.isfinite(z.interval(key)[:, 1]).any() for z in layers)]
    kinds = [[KIND.get(str(word), str(word)) for word in z.verdict[:, run.epsilon_index]] for z in layers]
    with style.settings():
        made = style.figure(8.0, style.PAGE_CM)
        ratios = (VERDICTS, *[NUMBERS] * len(shown))
        grid = made.subplots(1, 1 + len(shown), sharey=True, width_ratios=ratios, squeeze=False)[0]
        height = min(MOST_CM, max(LEAST_CM, ROW_CM * len(layers)))
        _verdicts(grid[0], run, kinds)
        for axes, (key, name) in zip(grid[1:], shown, strict=True):
            _points(axes, np.stack([z.interval(key) for z in layers]))
            axes.set_xlabel(f"{name} (nats)")
            axes.set_label(name)
            style.symmetric_log(axes, LINEAR_BELOW, along="x")
        _names(grid[0], run, height)
        for axes in grid:
            _borders(axes, [z.place for z in layers])
        seen = dict.fromkeys(kind for row in kinds for kind in row)
        handles: list[Patch | Line2D] = [
            Patch(facecolor=COLORS.get(k, "#FFFFFF"), edgecolor=style.GREY, linewidth=0.4, label=f"{k} ({LETTER[k]})")
            for k in COLORS
            if k in seen
        ]
        style.legend(made, handles)
        return style.fitted(made, height)


def _verdicts(axes: Axes, run: LoadedRun, kinds: list[list[str]]) -> None:
    """A coloured cell for each layer and seed, with its letter."""
    colours = np.array([[to_rgb(COLORS.get(kind, "#FFFFFF")) for kind in row] for row in kinds])
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    for row, words in enumerate(kinds):
        for column, kind in enumerate(words):
            look = {"color": "white" if sum(to_rgb(COLORS.get(kind, "#FFFFFF"))) < 1.2 else "black"}
            axes.text(column, row, LETTER.get(kind, ""), ha="center", va="center_baseline", **look)
    axes.set_xticks(range(run.n_replicas), [str(seed) for seed in run.seeds])
    axes.set_xlabel("verdict, seed" if run.n_replicas > 1 else "verdict")
    axes.set_label("verdict")
    axes.grid(visible=False)


def _points(axes: Axes, values: Array) -> None:
    """Of every layer and seed ``[L, R, 3]``; seeds of a layer stand below each other within its row."""
    n_layers, n_seeds, _ = values.shape
    spread = np.linspace(-0.3, 0.3, n_seeds) if n_seeds > 1 else np.zeros(1)
    y = np.arange(n_layers)[:, None] + spread
    low, middle, high = np.moveaxis(values, 2, 0)
    bars = np.isfinite(values).all(axis=2)
    axes.hlines(y[bars], low[bars], high[bars], color=style.color(2), linewidth=0.5, alpha=0.7)
    known = np.isfinite(middle)
    axes.plot(middle[known], y[known], "o", color=style.color(2), markersize=1.9, markeredgewidth=0)
    axes.axvline(0, color=style.GREY, linewidth=0.5)
    axes.grid(axis="y", visible=False)


def _names(axes: Axes, run: LoadedRun, height_cm: float) -> None:
    """ "z12 · 8x8" at every layer, or at every so many."""
    layers = run.layers[::-1]
    every = -(-len(layers) * style.LINE_CM // height_cm)
    places = range(0, len(layers), max(1, int(every)))
    names = [f"{layers[i].name} · {layers[i].place}" if layers[i].place else layers[i].name for i in places]
    axes.set_yticks(list(places), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("latent layer")
    axes.set_ylim(len(layers) - 0.5, -0.5)


def _borders(axes: Axes, places: list[str]) -> None:
    """A line wherever the resolution changes."""
    for row in range(1, len(places)):
        if places[row] != places[row - 1]:
            axes.axhline(row - 0.5, color="black", linewidth=0.6)
