"""The gap between log p(x) and the ELBO: how wide, in which layer, and from which cause.

Every replica is a point, and every run has panels of its own. Layer gaps of two inference orders are different splits
of the same total, so they never share a panel.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from hvae.analysis import style
from hvae.analysis.load import LoadedRun
from hvae.diagnosis.gap import LayerGap
from hvae.diagnosis.record import Array

PANEL_CM = 3.0
CURVE, BAND, EXACT = style.color(0), style.color(2), style.color(4)
APPROXIMATION, AMORTISATION, FREED, REST = (style.color(index) for index in (2, 1, 6, 5))
SLOT = 0.7
KINDS = {APPROXIMATION: "o", AMORTISATION: "s", FREED: "^", REST: "D"}
EXACT_MARK = "_"
MOST_PLACES = 8
"""along x, in a panel of the narrow figure"""
LINEAR_BELOW = 0.1
"""nats; gaps are drawn linear up to this, logarithmic beyond"""
LOWER, DOTTED = (0.0, (5.0, 1.5)), (0.0, (1.0, 1.0))
"""dashes of the annealed lower bound and of the exact value"""


def curves(runs: Sequence[LoadedRun]) -> Figure | None:
    """L_K against K, with the annealed bound on test images, and the band between both bounds on simulated data.

    Heights are above the replica's own ELBO, since each replica has its own simulated data. Two panels per run: test
    images, then simulated data. Every replica is a line and a level.
    """
    shown = [run for run in runs if run.annealed is not None and _finite(run.annealed.curve_nats)]
    if not shown:
        return None
    with style.settings():
        titles = [f"{run.title}, {data}" for run in shown for data in ("test images", "simulated data")]
        made, grid = style.panel_grid(titles)
        for left, right, run in zip(grid[::2], grid[1::2], shown, strict=True):
            _draw_test(left, run)
            _draw_simulated(right, run)
            for axes in (left, right):
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
                axes.set_xlabel("samples K")
            left.set_ylabel("above the ELBO (nats)")
        handles = [
            Line2D([], [], color=CURVE, marker="o", linewidth=0.6, label="$L_K$"),
            Line2D([], [], color=CURVE, marker="D", linestyle="", markerfacecolor="none", label="ELBO"),
            Line2D([], [], color=BAND, linewidth=0.9, linestyle=LOWER, label="annealed, lower"),
        ]
        if any(_finite(run.annealed.sandwich_nats) for run in shown if run.annealed is not None):
            handles.append(Line2D([], [], color=BAND, linewidth=0.9, label="annealed, upper"))
        if any(_exact_level(run) is not None for run in shown):
            handles.append(Line2D([], [], color=EXACT, linewidth=0.9, linestyle=DOTTED, label="exact"))
        style.legend(made, handles, handle_length=2.2)
        return style.fitted(made, PANEL_CM)


def _draw_test(axes: Axes, run: LoadedRun) -> None:
    annealed = run.annealed
    assert annealed is not None
    zero = annealed.elbo_nats[:, 1]
    _draw_curve(axes, annealed.n_samples, annealed.curve_nats[..., 1] - zero[:, None])
    _draw_levels(axes, annealed.log_px_nats[:, 1] - zero, BAND, LOWER)
    level = _exact_level(run)
    if level is not None:
        _draw_levels(axes, level[:, 1] - zero, EXACT, DOTTED)


def _draw_simulated(axes: Axes, run: LoadedRun) -> None:
    annealed = run.annealed
    assert annealed is not None
    zero = annealed.simulated_elbo_nats[:, 1]
    lower, upper = (found[:, 1] - zero for found in (annealed.simulated_lower_nats, annealed.simulated_upper_nats))
    _draw_curve(axes, annealed.n_samples, annealed.simulated_curve_nats[..., 1] - zero[:, None])
    _draw_levels(axes, lower, BAND, LOWER)
    _draw_levels(axes, upper, BAND, "-")
    for ends in zip(lower, upper, strict=True):
        if np.isfinite(ends).all():
            axes.axhspan(min(ends), max(ends), color=BAND, alpha=0.18, linewidth=0)


def _draw_curve(axes: Axes, n_samples: Array, above: Array) -> None:
    axes.plot([1], [0], "D", color=CURVE, markersize=3.2, markerfacecolor="none", markeredgewidth=0.5)
    for middle in above:
        axes.plot(n_samples, middle, "-o", color=CURVE, linewidth=0.5, markersize=1.8, markeredgewidth=0)


def _draw_levels(axes: Axes, levels: Array, color: str, dashes: object) -> None:
    for level in levels[np.isfinite(levels)]:
        axes.axhline(level, color=color, linewidth=0.8, linestyle=dashes, zorder=1.5)


def _exact_level(run: LoadedRun) -> Array | None:
    """Exact log p(x), where it is of the same images as the annealed bound."""
    if run.exact is None or run.annealed is None or run.exact.images != run.annealed.images:
        return None
    return run.exact.log_px_nats if _finite(run.exact.log_px_nats) else None


def layer_gaps(runs: Sequence[LoadedRun]) -> Figure | None:
    """G_l of every layer and replica, one panel per run. What is not trusted is hollow and named."""
    shown = [run for run in runs if _has_layer_gaps(run)]
    if not shown:
        return None
    with style.settings():
        made, all_axes = _panels(shown, max(run.depth for run in shown))
        for axes, run in zip(all_axes, shown, strict=True):
            axes.set_xlim(-0.5, run.depth - 0.5)
            if axes in style.first_column(all_axes):
                axes.set_ylabel("layer gap $G_l$ (nats)")
            doubted = []
            for index, layer in enumerate(run.layers):
                measured = run.gap.layers[layer.name] if run.gap is not None else None
                if measured is not None and _finite(measured.gap_nats):
                    _draw_points(axes, index, measured.gap_nats, style.color(2), solid=measured.trusted)
                    doubted += [f"{layer.name}{untrusted_text(measured)}"] if untrusted_text(measured) else []
                if run.exact_beside_gap is not None:
                    _draw_exact(axes, index, run.exact_beside_gap.layer_gap_nats[layer.name])
            style.column_names(axes, [layer.name for layer in run.layers], _width_cm(axes))
            named = f"not trusted: {', '.join(doubted)}" if doubted else ""
            axes.set_xlabel(f"layer, {run.order}\n{style.broken(named, _width_cm(axes))}".rstrip())
        style.symmetric_log(all_axes[0], LINEAR_BELOW)
        handles = [_handle(style.color(2), "estimated, trusted"), _handle(style.color(2), "not trusted", hollow=True)]
        if not any(line.get_markerfacecolor() == "none" for axes in all_axes for line in axes.lines):
            handles.pop()
        if any(line.get_marker() == EXACT_MARK for axes in all_axes for line in axes.lines):
            handles.append(
                Line2D([], [], color=EXACT, marker=EXACT_MARK, linestyle="", markeredgewidth=1.2, label="exact")
            )
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def _panels(runs: Sequence[LoadedRun], n_places: int) -> tuple[Figure, list[Axes]]:
    """A panel for every run, with a line at 0 and one scale for all."""
    made, all_axes = style.panel_grid([run.title for run in runs], 2 * (n_places > MOST_PLACES), sharey=True)
    for axes in all_axes:
        axes.axhline(0, color=style.GREY, linewidth=0.5)
        axes.grid(axis="x", visible=False)
    return made, all_axes


def _width_cm(axes: Axes) -> float:
    """Of a panel, less what its axis of numbers takes."""
    cell = axes.get_subplotspec()
    assert cell is not None and axes.figure is not None
    return axes.figure.get_figwidth() * 2.54 / cell.get_gridspec().ncols - 1.4


def untrusted_text(layer: LayerGap) -> str:
    """ " 2/4": replicas that are not trusted, of those measured; empty where there is none."""
    known = np.isfinite(layer.gap_nats[:, 1])
    bad = int((known & ~layer.trusted).sum())
    return f"\N{NO-BREAK SPACE}{bad}/{int(known.sum())}" if bad else ""


def _has_layer_gaps(run: LoadedRun) -> bool:
    estimated = run.gap is not None and any(_finite(layer.gap_nats) for layer in run.gap.layers.values())
    exact = run.exact_beside_gap
    return estimated or (exact is not None and any(map(_finite, exact.layer_gap_nats.values())))


def causes(runs: Sequence[LoadedRun]) -> Figure | None:
    """Approximation against amortisation, and the gain from refining each layer alone; one panel per run."""
    shown = [run for run in runs if run.gap is not None and _finite(run.gap.amortisation_nats)]
    if not shown:
        return None
    with style.settings():
        made, all_axes = _panels(shown, 3 + max(run.depth for run in shown))
        for axes, run in zip(all_axes, shown, strict=True):
            gap = run.gap
            assert gap is not None
            parts = [
                ("", gap.approximation_nats, APPROXIMATION),
                ("", gap.amortisation_nats, AMORTISATION),
                *((name, layer.freed_nats, FREED) for name, layer in gap.layers.items()),
                ("", gap.remainder_nats, REST),
            ]
            axes.axvline(1.5, color=style.GREY, linewidth=0.5, linestyle=(0, (2, 2)))
            axes.set_xlim(-0.5, len(parts) - 0.5)
            if axes in style.first_column(all_axes):
                axes.set_ylabel("nats")
            axes.set_xlabel(f"layer, {gap.order}")
            for index, (_, values, color) in enumerate(parts):
                certain = gap.log_px_trusted if color == APPROXIMATION else np.ones(len(values), dtype=bool)
                _draw_points(axes, index, values, color, solid=certain)
            style.column_names(axes, [name for name, _, _ in parts], _width_cm(axes))
            axes.tick_params(axis="x", length=0)
        style.symmetric_log(all_axes[0], LINEAR_BELOW)
        names = (("approximation", APPROXIMATION), ("amortisation", AMORTISATION), ("layer alone", FREED))
        handles = [_handle(color, name) for name, color in (*names, ("remainder", REST))]
        if any(line.get_markerfacecolor() == "none" for axes in all_axes for line in axes.lines):
            handles.append(_handle(APPROXIMATION, "log p(x) not trusted", hollow=True))
        style.legend(made, handles)
        return style.fitted(made, PANEL_CM)


def _places(index: int, n_replicas: int) -> tuple[Array, float]:
    width = SLOT / n_replicas
    return index - SLOT / 2 + (np.arange(n_replicas) + 0.5) * width, width


def _draw_points(axes: Axes, index: int, values: Array, color: str, solid: Array) -> None:
    """A point with its interval for every replica, hollow where it is not solid."""
    places, _ = _places(index, len(values))
    low, middle, high = values.T
    known, barred = np.isfinite(middle), np.isfinite(values).all(axis=1)
    axes.vlines(places[barred], low[barred], high[barred], color=color, linewidth=0.6, alpha=0.7)
    for full in (True, False):
        kept = known & (solid == full)
        axes.plot(
            places[kept], middle[kept], KINDS[color], color=color, linestyle="", markersize=2.6, markeredgewidth=0.6,
            markerfacecolor=color if full else "none",
        )  # fmt: skip


def _handle(color: str, label: str, *, hollow: bool = False) -> Line2D:
    face = "none" if hollow else color
    return Line2D(
        [], [], color=color, marker=KINDS[color], linestyle="", markersize=3.0, markerfacecolor=face, label=label
    )


def _draw_exact(axes: Axes, index: int, values: Array) -> None:
    places, _ = _places(index, len(values))
    if _finite(values):
        axes.plot(places, values[:, 1], EXACT_MARK, color=EXACT, markersize=4.5, markeredgewidth=1.2)


def _finite(interval: Array) -> bool:
    return bool(np.isfinite(interval[..., 1]).any())
