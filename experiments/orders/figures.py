"""Every inference order at frozen decoders: which order leads, what layers hold, and known decoders as a check."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.claims import Measured
from hvae.analysis.load import Array
from hvae.experiments.orders.tables import SHOWN, UNAMORTISED, FrozenDecoder, each_order, frozen, known, lead

ROW_CM, PANEL_CM = 0.5, 3.6
NAME_CM = 3.2
REFERENCE = "bottom-up"


def leads(measured: Measured) -> Figure | None:
    """ELBO less that of bottom-up at the frozen decoder, by decoder: seeds, mean and interval."""
    decoders = [decoder for decoder in frozen(measured) if REFERENCE in decoder.orders]
    if not decoders:
        return None
    rows = list(dict.fromkeys(order for decoder in decoders for order in decoder.orders if order != REFERENCE))
    with style.settings():
        made = style.figure(6.0, style.PAGE_CM)
        grid = made.subplots(1, len(decoders), squeeze=False, sharey=True)[0]
        for axes, decoder in zip(grid, decoders, strict=True):
            axes.set_title(f"decoder trained {decoder.owner}", pad=3)
            axes.axvline(0, color=style.GREY, linewidth=0.6)
            for order in decoder.orders:
                if order != REFERENCE:
                    own = order == UNAMORTISED
                    second = decoder.elbo(REFERENCE, own_images=own)
                    _draw(axes, rows.index(order), decoder.elbo(order, own_images=own), second)
            axes.margins(x=0.08)
            axes.set_xlabel("lead over bottom-up (nats)")
            style.symmetric_log(axes, 1.0, along="x")
        style.row_names(grid[0], rows, NAME_CM)
        return style.fitted(made, ROW_CM * len(rows))


def _draw(axes: Axes, index: int, first: Array, second: Array) -> None:
    difference = (first - second).mean(-1)
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return
    found = lead(first, second)
    if not np.isnan(found.low):
        axes.hlines(index, found.low, found.high, color=style.color(0), linewidth=0.8)
    places = index + np.linspace(-0.15, 0.15, len(difference)) if len(difference) > 1 else [index]
    axes.plot(difference, places, "o", color=style.color(1), markersize=2.0, markeredgewidth=0)
    axes.plot(found.middle, index, "|", color=style.color(0), markersize=5, markeredgewidth=0.9)


def informations(measured: Measured) -> Figure | None:
    """I of every layer at each decoder: one point per seed, a line through the medians."""
    decoders = frozen(measured)
    if not decoders:
        return None
    with style.settings():
        made, grid = style.panel_grid([f"decoder trained {decoder.owner}" for decoder in decoders], sharey=True)
        for axes, decoder in zip(grid, decoders, strict=True):
            _layers(axes, decoder)
        style.symmetric_log(grid[0], 0.1)
        grid[0].set_ylabel("information about x (nats)")
        orders = decoders[0].encoders
        handles = [
            Line2D([], [], color=style.color(i), marker=style.marker(i), linewidth=0.7, label=order)
            for i, order in enumerate(orders)
        ]
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def _layers(axes: Axes, decoder: FrozenDecoder) -> None:
    layers = decoder.layers
    for index, order in enumerate(decoder.encoders):
        shift = 0.09 * (index - (len(decoder.encoders) - 1) / 2)
        values = [decoder.orders[order][f"information_nats/{name}"][:, 1] for name in layers]
        medians = [float(np.nanmedian(seeds)) for seeds in values]
        places = np.arange(len(layers)) + shift
        axes.plot(places, medians, color=style.color(index), linewidth=0.6)
        for place, seeds in zip(places, values, strict=True):
            axes.plot(
                np.full(len(seeds), place), seeds, style.marker(index), color=style.color(index), markersize=2.2,
                linestyle="",
            )  # fmt: skip
    axes.set_xticks(range(len(layers)), layers)
    axes.set_ylim(bottom=0)


def exact(measured: Measured) -> Figure | None:
    """Known decoders: the gap by draws against the exact one, a panel for each, one point per order and seed."""
    rows = known(measured)
    if rows is None:
        return None
    stacks = list(dict.fromkeys(rows["stack"].tolist()))
    orders = list(dict.fromkeys(rows["order"].tolist()))
    with style.settings():
        made, grid = style.panel_grid([SHOWN.get(stack, stack) for stack in stacks])
        for stack, order, at in each_order(rows):
            axes, index = grid[stacks.index(stack)], orders.index(order)
            axes.plot(
                rows["gap_nats"][at], rows["sampled_nats"][at], style.marker(index), color=style.color(index),
                markersize=3.0, linestyle="", markerfacecolor="none", markeredgewidth=0.7,
            )  # fmt: skip
        for axes, stack in zip(grid, stacks, strict=True):
            here = np.concatenate([rows[name][rows["stack"] == stack] for name in ("gap_nats", "sampled_nats")])
            ends = [0.0, 1.08 * float(np.nanmax(here))]
            axes.plot(ends, ends, color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
            axes.set_xlim(ends)
            axes.set_ylim(ends)
            axes.set_xlabel("exact gap (nats)")
        grid[0].set_ylabel("gap by draws (nats)")
        handles = [
            Line2D(
                [], [], color=style.color(i), marker=style.marker(i), markerfacecolor="none", linestyle="", label=order
            )
            for i, order in enumerate(orders)
        ]
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)
