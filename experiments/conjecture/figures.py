"""The conjecture on known teachers: gaps that encoders leave, released decoders, and the β threshold of the top."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hvae.analysis import style
from hvae.analysis.claims import Measured
from hvae.analysis.load import Array
from hvae.experiments.conjecture.tables import cases, each, encoders, relative

FLOOR = 1e-6
"""nats; what is less is drawn here"""
PANEL_CM = 3.2
COLLAPSED = 0.1
"""nats; the verdict's"""


def widths(measured: Measured) -> Figure | None:
    """Mean layer gap against hidden units, a panel for each strength: one point per teacher, line through medians."""
    if "fixed" not in measured:
        return None
    rows = encoders(measured)
    rows = {name: values[rows["depth"] == 3] for name, values in rows.items()}
    if not len(rows["depth"]):
        rows = encoders(measured)
    strengths = sorted(set(rows["strength"].tolist()))
    ticks = sorted({int(hidden) for hidden in rows["hidden"]})
    with style.settings():
        made, axes = style.panel_grid([f"couplings {strength:g}" for strength in strengths], sharex=True, sharey=True)
        for one, strength in zip(axes, strengths, strict=True):
            at = rows["strength"] == strength
            limit = rows["layer_gap_nats"][at & (rows["net"] == "table")]
            if len(limit):
                one.axhline(float(np.median(limit)), color=style.GREY, linewidth=0.7, linestyle="--")
                one.axhspan(float(limit.min()), float(limit.max()), color=style.GREY, alpha=0.15, linewidth=0)
            for index, name in enumerate(("factorised", "autoregressive")):
                medians = []
                for hidden in ticks:
                    gaps = rows["layer_gap_nats"][
                        at & (rows["law"] == name) & (rows["net"] != "table") & (rows["hidden"] == hidden)
                    ]
                    place = ticks.index(hidden) + 0.08 * (2 * index - 1)
                    _points(one, place, np.maximum(gaps, FLOOR), index)
                    if len(gaps):
                        medians.append((place, max(float(np.median(gaps)), FLOOR)))
                one.plot(*zip(*medians, strict=True), color=style.color(index + 1)) if medians else None
            one.set_yscale("log")
            one.set_xticks(range(len(ticks)), ["linear" if hidden == 0 else str(hidden) for hidden in ticks])
            _decades(one)
            one.set_xlabel("hidden units")
        for one in style.first_column(axes):
            one.set_ylabel("gap (nats a layer)")
        handles = [_dot(index, name) for index, name in enumerate(("factorised", "autoregressive"))]
        handles.append(Line2D([], [], color=style.GREY, linestyle="--", label="factorised table"))
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def strengths(measured: Measured) -> Figure | None:
    """Mean layer gap against the strength of the couplings, by depth: Bernoulli (free tables) and linear-Gaussian."""
    if not {"fixed", "linear"} <= set(measured):
        return None
    bernoulli = measured["fixed"]
    table = {name: values[bernoulli["net"] == "table"] for name, values in bernoulli.items()}
    with style.settings():
        depths = sorted({int(depth) for rows in (table, measured["linear"]) for depth in rows["depth"]})
        sides = (("Bernoulli, table", table), ("linear-Gaussian, diagonal", measured["linear"]))
        made, axes = style.panel_grid([title for title, _ in sides], sharey=True)
        for one, (_, rows) in zip(axes, sides, strict=True):
            ticks = sorted(set(rows["strength"].tolist()))
            for index, depth in enumerate(depths):
                at = rows["depth"] == depth
                medians = []
                for (strength,), same in each(rows, "strength"):
                    gaps = rows["layer_gap_nats"][at & same]
                    place = float(str(strength)) * 1.05 ** (index - 1)
                    _points(one, place, np.maximum(gaps, FLOOR), index)
                    medians += [(place, float(np.median(gaps)))] if len(gaps) else []
                one.plot(*zip(*medians, strict=True), color=style.color(index + 1)) if medians else None
            one.set_xscale("log")
            one.set_yscale("log")
            one.set_xticks(ticks, [f"{strength:g}" for strength in ticks])
            one.xaxis.set_minor_formatter(NullFormatter())
            one.set_xlabel("strength of the couplings")
            _decades(one)
        axes[0].set_ylabel("gap (nats a layer)")
        handles = [_dot(index, f"depth {depth}") for index, depth in enumerate(depths)]
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def release(measured: Measured) -> Figure | None:
    """Against the gap before: the gap after, and the likelihood given up; then I(z_{L-1}; z_L) before against after."""
    if "release" not in measured:
        return None
    rows = measured["release"]
    rows = {name: values[rows["encoder"] != "exact"] for name, values in rows.items()}
    top = int(rows["depth"].max())
    kinds = each(rows, "shape", "encoder")
    between = f"I(z{top - 1}; z{top})"
    with style.settings():
        made, axes = style.panel_grid(["gap", "likelihood given up", between], 3)
        for index, (_, at) in enumerate(kinds):
            before, after, given_up = (
                np.maximum(rows[name][at], FLOOR) for name in ("gap_before_nats", "gap_after_nats", "given_up_nats")
            )
            kept = [rows[f"coupling_{when}{top}_nats"][at] for when in ("before", "after")]
            for one, (x, y) in zip(axes, ((before, after), (before, given_up), kept), strict=True):
                one.plot(
                    x, y, style.marker(index), color=style.color(index + 1), markersize=2.6, linestyle="",
                    markerfacecolor="none", markeredgewidth=0.5,
                )  # fmt: skip
        for one in axes[:2]:
            one.set_xscale("log")
            one.set_yscale("log")
            _decades(one)
            one.xaxis.set_major_locator(LogLocator(numticks=4))
            one.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
            one.xaxis.set_minor_formatter(NullFormatter())
            one.set_xlabel("gap before (nats)")
        for one, words in zip(axes, ("gap after (nats)", "given up (nats)", f"{between} after (nats)"), strict=True):
            ends = [max(one.get_xlim()[0], FLOOR), one.get_xlim()[1]]
            one.plot(ends, ends, color=style.GREY, linewidth=0.6, linestyle="--")
            one.set_ylabel(words)
        axes[2].set_xlabel(f"{between} before (nats)")
        axes[2].set_ylim(bottom=0)
        axes[2].set_xlim(left=0)
        handles = [
            Line2D(
                [], [], color=style.color(i + 1), marker=style.marker(i), linestyle="", markerfacecolor="none",
                label=f"{shape}, {encoder}",
            )
            for i, ((shape, encoder), _) in enumerate(kinds)
        ]  # fmt: skip
        style.legend(made, handles)
        return style.fitted(made, 4.0)


def thresholds(measured: Measured) -> Figure | None:
    """I_p(z1; z2) against β, a panel for each kind of teacher; ticks above: thresholds, one per teacher."""
    found = cases(measured)
    if not found:
        return None
    names = list(dict.fromkeys(name for _, rows in found for name in rows["inference"].tolist()))
    with style.settings():
        made, axes = style.panel_grid([case for case, _ in found], sharex=True, sharey=True)
        highest = max(float(rows["top_nats"].max()) for _, rows in found)
        for one, (_, rows) in zip(axes, found, strict=True):
            for (name,), at in each(rows, "inference"):
                index = names.index(name)
                medians = []
                for power in sorted(set(rows["power"][at & np.isfinite(rows["power"])].tolist())):
                    top = rows["top_nats"][at & (rows["power"] == power)]
                    _points(one, power + 0.02 * (index - 1.5), top, index)
                    medians.append((power, float(np.median(top))))
                one.plot(*zip(*medians, strict=True), color=style.color(index + 1), linewidth=0.7)
                places = relative(rows, rows["threshold_beta"])[at & (rows["power"] == 0)]
                height = highest * (1.12 + 0.07 * index)
                one.plot(places, np.full(len(places), height), "|", color=style.color(index + 1), markersize=3.5)
            one.axhline(COLLAPSED, color=style.GREY, linewidth=0.6, linestyle="--")
            one.axvline(1.0, color=style.GREY, linewidth=0.6, linestyle=":")
            one.set_xlabel("log β / log β* exact")
        for one in style.first_column(axes):
            one.set_ylabel("I(z1; z2) (nats)")
        style.legend(made, [_dot(index, str(name)) for index, name in enumerate(names)])
        return style.fitted(made, PANEL_CM)


def _points(one: Axes, place: float, values: Array, index: int) -> None:
    one.plot(
        np.full(len(values), place), values, style.marker(index), color=style.color(index + 1), markersize=2.0,
        linestyle="", alpha=0.7,
    )  # fmt: skip


def _decades(one: Axes) -> None:
    one.yaxis.set_major_locator(LogLocator(10))
    one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
    one.yaxis.set_minor_formatter(NullFormatter())


def _dot(index: int, label: str) -> Line2D:
    return Line2D([], [], color=style.color(index + 1), marker=style.marker(index), label=label, markersize=2.8)
