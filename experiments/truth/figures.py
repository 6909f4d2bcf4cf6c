"""Errors of the estimators where the answer is known, and how a sandwich closes where it is not."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from hvae.analysis import style
from hvae.analysis.load import Arrays

ROW_CM, NAME_CM = 0.46, 2.6
FAMILIES = ("linear", "binary", "smooth")
SHORT = {
    "annealed from the prior": "annealed, prior",
    "annealed from the encoder": "annealed, encoder",
    "annealed backward": "annealed backward",
}


def gap_errors(rows: Arrays) -> Figure:
    """Estimate less exact layer gap, in nats, one point per stack and layer, with its interval.

    Filled where the estimate calls itself trusted, hollow where not; right, the same with q as its own proposal.
    """
    with style.settings():
        made, axes = style.panel_grid(["best proposal", "q as its own proposal"], sharey=True)
        for one, prefix in zip(axes, ("", "alone_"), strict=True):
            one.axhline(0.0, color=style.GREY, linewidth=0.6, linestyle="--")
            for index, family in enumerate(FAMILIES):
                for trusted in (False, True):
                    at = (rows["family"] == family) & (rows[f"{prefix}trusted"] == trusted)
                    x, low, middle, high = (
                        rows[key][at]
                        for key in ("exact_nats", f"{prefix}low_nats", f"{prefix}middle_nats", f"{prefix}high_nats")
                    )
                    color = style.color(index + 1)
                    one.vlines(x, low - x, high - x, color=color, linewidth=0.5, alpha=0.8 if trusted else 0.4)
                    one.plot(
                        x, middle - x, style.marker(index), color=color, markersize=2.6, markeredgewidth=0.5,
                        markerfacecolor=color if trusted else "white", linestyle="",
                    )  # fmt: skip
            style.symmetric_log(one, 0.1, along="x")
            one.set_xlim(left=-0.01)
            one.set_xlabel("exact layer gap (nats)")
        style.symmetric_log(axes[0], 0.1)
        axes[0].set_ylabel("estimate − exact (nats)")
        present = [(i, family) for i, family in enumerate(FAMILIES) if family in rows["family"]]
        handles = [_dot(i + 1, style.marker(i), family, filled=True) for i, family in present]
        handles += [_dot(0, "o", "trusted", filled=True), _dot(0, "o", "not trusted", filled=False)]
        style.legend(made, handles, handle_length=0.8)
        return style.fitted(made, 4.0)


def bound_errors(rows: Arrays) -> Figure:
    """Mean error of every bound on log p(x), in nats, one row per stack: lower bounds left of 0, upper ones right."""
    stacks = list(dict.fromkeys(rows["stack"].tolist()))
    estimators = list(dict.fromkeys(rows["estimator"].tolist()))
    with style.settings():
        made = style.figure(6.0)
        axes = made.subplots()
        axes.axvline(0.0, color=style.GREY, linewidth=0.6, linestyle="--")
        for index, estimator in enumerate(estimators):
            at = np.flatnonzero(rows["estimator"] == estimator)
            y = np.array([stacks.index(rows["stack"][i]) for i in at]) + 0.09 * (index - (len(estimators) - 1) / 2)
            error, half = rows["error_nats"][at], 1.96 * rows["se_nats"][at]
            axes.hlines(y, error - half, error + half, color=style.color(index), linewidth=0.6)
            axes.plot(error, y, style.marker(index), color=style.color(index), markersize=2.4, linestyle="")
        style.symmetric_log(axes, 0.1, along="x")
        row_cm = max(ROW_CM, style.row_names(axes, stacks, NAME_CM))
        axes.set_xlabel("bound − exact log p(x) (nats)")
        handles = [
            _dot(i, style.marker(i), SHORT.get(name, name).replace("_", " "), filled=True)
            for i, name in enumerate(estimators)
        ]
        style.legend(made, handles, handle_length=0.8)
        return style.fitted(made, row_cm * len(stacks))


def sandwich_closing(rows: Arrays) -> Figure:
    """Upper less lower bound, in nats, against the number of temperatures, with 95 % intervals over data."""
    with style.settings():
        made = style.figure(6.0)
        axes = made.subplots()
        t, gap, half = rows["n_temperatures"], rows["gap_nats"], 1.96 * rows["se_nats"]
        axes.axhline(0.0, color=style.GREY, linewidth=0.6, linestyle="--")
        axes.errorbar(t, gap, half, color=style.color(2), marker="o", linewidth=0.7, elinewidth=0.6, capsize=1.5)
        for x, y, seconds in zip(t, gap + half, rows["seconds"], strict=True):
            axes.annotate(
                f"{seconds:.0f} s", (x, y), (0, 3), textcoords="offset points", ha="center", fontsize=style.SIZE
            )
        axes.set_xscale("log")
        axes.set_xticks(t, [f"{value:g}" for value in t])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("temperatures")
        axes.set_ylabel("upper − lower bound (nats)")
        axes.margins(x=0.08, y=0.15)
        return style.fitted(made, 3.6)


def _dot(index: int, marker: str, label: str, *, filled: bool) -> Line2D:
    color = style.color(index)
    face = color if filled else "white"
    return Line2D([], [], color=color, marker=marker, linestyle="", markerfacecolor=face, markersize=2.8, label=label)
