"""The gap between log p(x) and the ELBO: how wide, in which layer, and from which cause.

Every replica is drawn by itself, and every run has its own row or panel. Layer gaps of two inference orders are
different splits of the same total, so they never share a bar chart.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from hvae.analysis import style
from hvae.analysis.load import LoadedRun
from hvae.diagnosis.gap import LayerGap
from hvae.diagnosis.record import Array

PANEL_HEIGHT_CM = 4.4
CURVE, BAND, EXACT = style.color(0), style.color(2), style.color(4)
APPROXIMATION, AMORTISATION, FREED, REST = (style.color(index) for index in (2, 1, 6, 5))
SLOT = 0.78
HATCH = "//////"
LOWER, DOTTED = (0.0, (5.0, 1.5)), (0.0, (1.0, 1.0))
"""dashes of the annealed lower bound and of the exact value"""


def curves(runs: Sequence[LoadedRun]) -> Figure | None:
    """L_K against K, with the annealed bound on test images, and the band between both bounds on simulated data.

    Heights are above the replica's own ELBO, since each replica has its own simulated data. One row per run: test
    images on the left, simulated data on the right. Every replica is a line and a level.
    """
    shown = [run for run in runs if run.annealed is not None and _finite(run.annealed.curve_nats)]
    if not shown:
        return None
    with style.settings():
        made = style.figure(len(shown) * PANEL_HEIGHT_CM + 1.1)
        grid = made.subplots(len(shown), 2, squeeze=False)
        for (left, right), run in zip(grid, shown, strict=True):
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
        made.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=2.2, columnspacing=1.2)
        return made


def _draw_test(axes: Axes, run: LoadedRun) -> None:
    annealed = run.annealed
    assert annealed is not None
    axes.set_title(f"{run.title}\ntest images", pad=3)
    zero = annealed.elbo_nats[:, 1]
    _draw_curve(axes, annealed.n_samples, annealed.curve_nats[..., 1] - zero[:, None])
    _draw_levels(axes, annealed.log_px_nats[:, 1] - zero, BAND, LOWER)
    level = _exact_level(run)
    if level is not None:
        _draw_levels(axes, level[:, 1] - zero, EXACT, DOTTED)


def _draw_simulated(axes: Axes, run: LoadedRun) -> None:
    annealed = run.annealed
    assert annealed is not None
    axes.set_title("\nsimulated data", pad=3)
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
    """G_l of every layer and replica, one panel per run. What is not trusted is hollow, hatched and named."""
    shown = [run for run in runs if _has_layer_gaps(run)]
    if not shown:
        return None
    with style.settings():
        made, all_axes = style.panel_grid(len(shown), PANEL_HEIGHT_CM)
        for axes, run in zip(all_axes, shown, strict=True):
            axes.set_title(run.title, pad=3)
            axes.axhline(0, color=style.GREY, linewidth=0.5)
            axes.set_xlim(-0.5, run.depth - 0.5)
            axes.grid(axis="x", visible=False)
            axes.set_ylabel("layer gap $G_l$ (nats)")
            doubted = []
            for index, layer in enumerate(run.layers):
                measured = run.gap.layers[layer.name] if run.gap is not None else None
                if measured is not None and _finite(measured.gap_nats):
                    _draw_bars(axes, index, measured.gap_nats, style.color(2), solid=measured.trusted)
                    doubted += [f"{layer.name}{untrusted_text(measured)}"] if untrusted_text(measured) else []
                if run.exact_beside_gap is not None:
                    _draw_exact(axes, index, run.exact_beside_gap.layer_gap_nats[layer.name])
            axes.set_xticks(range(run.depth), [layer.name for layer in run.layers])
            named = f"not trusted: {', '.join(doubted)}" if doubted else ""
            broken = "\n".join(textwrap.wrap(named, 28 if len(shown) > 1 else 60))
            axes.set_xlabel(f"layer, {run.order}\n{broken}".rstrip())
        handles: list[Patch | Line2D] = []
        if any(patch for axes in all_axes for patch in axes.patches):
            handles.append(Patch(facecolor=style.color(2), label="estimated, trusted"))
        if any(patch.get_hatch() for axes in all_axes for patch in axes.patches):
            hollow = Patch(
                facecolor="none", edgecolor=style.color(2), hatch="//////", linewidth=0.5, label="not trusted"
            )
            handles.append(hollow)
        if any(line.get_marker() == "D" for axes in all_axes for line in axes.lines):
            handles.append(Line2D([], [], color=EXACT, marker="D", linestyle="", label="exact"))
        made.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.6)
        return made


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
        made, all_axes = style.panel_grid(len(shown), PANEL_HEIGHT_CM)
        for axes, run in zip(all_axes, shown, strict=True):
            gap = run.gap
            assert gap is not None
            parts = [
                ("", gap.approximation_nats, APPROXIMATION),
                ("", gap.amortisation_nats, AMORTISATION),
                *((name, layer.freed_nats, FREED) for name, layer in gap.layers.items()),
                ("", gap.remainder_nats, REST),
            ]
            axes.set_title(run.title, pad=3)
            axes.axhline(0, color=style.GREY, linewidth=0.5)
            axes.axvline(1.5, color=style.GREY, linewidth=0.5, linestyle=(0, (2, 2)))
            axes.set_xlim(-0.5, len(parts) - 0.5)
            axes.grid(axis="x", visible=False)
            axes.set_ylabel("nats")
            axes.set_xlabel(f"layer, {gap.order}")
            for index, (_, values, color) in enumerate(parts):
                certain = gap.log_px_trusted if color == APPROXIMATION else np.ones(len(values), dtype=bool)
                _draw_bars(axes, index, values, color, solid=certain)
            axes.set_xticks(range(len(parts)), [name for name, _, _ in parts])
            axes.tick_params(axis="x", length=0)
        names = (("approximation", APPROXIMATION), ("amortisation", AMORTISATION), ("layer alone", FREED))
        handles = [Patch(facecolor=color, label=name) for name, color in (*names, ("remainder", REST))]
        if any(patch.get_hatch() for axes in all_axes for patch in axes.patches):
            handles.append(
                Patch(
                    facecolor="none", edgecolor=APPROXIMATION, hatch=HATCH, linewidth=0.5, label="log p(x) not trusted"
                )
            )
        made.legend(
            handles=handles,
            loc="outside upper center",
            ncols=3 if len(handles) > 4 else 4,
            handlelength=1.2,
            columnspacing=1.2,
        )
        return made


def _places(index: int, n_replicas: int) -> tuple[Array, float]:
    width = SLOT / n_replicas
    return index - SLOT / 2 + (np.arange(n_replicas) + 0.5) * width, width


def _draw_bars(axes: Axes, index: int, values: Array, color: str, solid: Array) -> None:
    """A bar with its interval for every replica; hollow and hatched where it is not solid."""
    places, width = _places(index, len(values))
    for x, (low, middle, high), full in zip(places, values, solid, strict=True):
        if not np.isfinite(middle):
            continue
        axes.bar(
            x,
            middle,
            0.86 * width,
            facecolor=color if full else "none",
            edgecolor=color,
            hatch=None if full else HATCH,
            linewidth=0.5,
        )
        if np.isfinite(low) and np.isfinite(high):
            axes.vlines(x, low, high, color="#000000", linewidth=0.6)


def _draw_exact(axes: Axes, index: int, values: Array) -> None:
    places, _ = _places(index, len(values))
    if _finite(values):
        axes.plot(
            places, values[:, 1], "D", color=EXACT, markersize=2.6, markeredgewidth=0.3, markeredgecolor="#FFFFFF"
        )


def _finite(interval: Array) -> bool:
    return bool(np.isfinite(interval[..., 1]).any())
