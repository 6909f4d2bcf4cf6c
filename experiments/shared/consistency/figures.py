"""Encoder against decoder: distances of single-shot samples, chain limits and test images, and what they look like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.study import Study
from hvae.experiments.shared.consistency.tables import DISTANCES, compared

SHOWN = ("limit-shot", "shot-test", "limit-test")
ROW_CM, NAME_CM = 0.75, 3.2
STRIP_CM, IMAGES_CM = 0.66, 6.6
"""least height of a strip of images, and its width"""


def distances(study: Study) -> Figure | None:
    """Corrected Fréchet distances, one row per run, one point per replica with its interval."""
    panels = {title: compared(runs) for title, runs in study.panels.items() if compared(runs)}
    if not panels or "classifier" not in study.measured:
        return None
    floor = float(study.measured["classifier"]["floor/plain"])
    row_cm = ROW_CM
    with style.settings():
        made, grid = style.panel_grid(list(panels), 2, sharex=True)
        for axes, (title, runs) in zip(grid, panels.items(), strict=True):
            _points(axes, runs, floor)
            row_cm = max(row_cm, style.row_names(axes, [_short(run, title) for run in runs], NAME_CM))
        handles = [
            Line2D([], [], color=style.color(i + 1), marker=style.marker(i), linestyle="", label=DISTANCES[key])
            for i, key in enumerate(SHOWN)
        ]
        handles.append(
            Line2D([], [], color=style.GREY, linewidth=0.6, linestyle="--", label="halves of the test images")
        )
        style.legend(made, handles, handle_length=0.8)
        return style.fitted(made, row_cm * max(map(len, panels.values())))


def _points(axes: Axes, runs: Sequence[LoadedRun], floor: float) -> None:
    axes.axvline(floor, color=style.GREY, linewidth=0.6, linestyle="--")
    for index, key in enumerate(SHOWN):
        for row, run in enumerate(runs):
            low, middle, high = run.beside[key].T
            y = row + 0.28 * (index - 1) + np.linspace(-0.08, 0.08, len(middle))
            axes.hlines(y, low, high, color=style.color(index + 1), linewidth=0.5)
            axes.plot(middle, y, style.marker(index), color=style.color(index + 1), markersize=1.8, linestyle="")
    for row in range(len(runs) - 1):
        axes.axhline(row + 0.5, color="#E4E4E4", linewidth=0.4)
    style.symmetric_log(axes, max(floor, 1e-6), along="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("squared distance")


def samples(study: Study) -> Figure | None:
    """Per run single-shot samples and, right, states of the chain at its last step, of the first living replica.

    Means of p(x | z1), where they were kept: what the draws of binary pixels are, without their noise.
    """
    panels = {title: [run for run in compared(runs) if _has_images(run)] for title, runs in study.panels.items()}
    runs = [(run, title) for title, members in panels.items() for run in members]
    if not runs:
        return None
    width_cm = style.PAGE_CM - 2 * IMAGES_CM - 0.4
    names = [
        style.broken(f"{title}: {_short(run, title)}" if run is panels[title][0] else _short(run, title), width_cm)
        for run, title in runs
    ]
    row_cm = max(STRIP_CM, style.LINE_CM * max(name.count("\n") + 1.3 for name in names))
    with style.settings():
        made = style.figure(row_cm * len(runs) + 0.5, width_cm=style.PAGE_CM)
        grid = made.subplots(len(runs), 2, squeeze=False)
        for row, (run, _), name in zip(grid, runs, names, strict=True):
            for axes, key in zip(row, ("images/shot", "images/limit"), strict=True):
                axes.imshow(_strip(run, key), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
                axes.axis("off")
            row[0].text(-0.02, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=style.SIZE)
        for axes, words in zip(grid[0], ("single-shot", "limit of the chain"), strict=True):
            axes.set_title(words, pad=2)
        return made


def _strip(run: LoadedRun, key: str) -> Array:
    """Images [n, D] side by side, a light column between them."""
    images = run.beside.get(f"{key}/mean", run.beside[key]).reshape(-1, *_shape(run))
    return np.concatenate([np.pad(image, ((0, 0), (0, 1)), constant_values=0.25) for image in images], axis=1)


def _has_images(run: LoadedRun) -> bool:
    return "images/shot" in run.beside and len(_shape(run)) == 2


def _shape(run: LoadedRun) -> tuple[int, ...]:
    return () if run.pictures is None else tuple(int(side) for side in np.atleast_1d(run.pictures.shape))


def _short(run: LoadedRun, panel: str) -> str:
    """The run's title without the word that its panel begins with."""
    return run.title.removeprefix(f"{panel.split()[0]} ")
