"""Encoder against decoder: distances of single-shot samples, chain limits and test images, and what they look like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.study import Study
from hvae.experiments.shared.consistency.tables import DISTANCES, compared

SHOWN = ("limit-shot", "shot-test", "limit-test")
WIDTH_CM = 14.0
SHORT_NAME = 16
"""characters of a run's name; longer ones leave its panel room for ticks at powers of ten only"""


def distances(study: Study) -> Figure | None:
    """Corrected Fréchet distances, a column per panel, one row per run, one point per replica with its interval."""
    panels = {title: compared(runs) for title, runs in study.panels.items() if compared(runs)}
    if not panels or "classifier" not in study.measured:
        return None
    floor = float(study.measured["classifier"]["floor/plain"])
    rows = max(map(len, panels.values()))
    with style.settings():
        made = style.figure(0.75 * rows + 1.9, width_cm=WIDTH_CM)
        for axes, (title, runs) in zip(made.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            axes.set_title(title, pad=3)
            names = [_short(run, title) for run in runs]
            _points(axes, runs, floor, (1, 2, 5) if max(map(len, names)) <= SHORT_NAME else (1,))
            axes.set_yticks(range(len(runs)), names)
        handles = [
            Line2D([], [], color=style.color(i + 1), marker=style.marker(i), linestyle="", label=DISTANCES[key])
            for i, key in enumerate(SHOWN)
        ]
        handles.append(
            Line2D([], [], color=style.GREY, linewidth=0.6, linestyle="--", label="halves of the test images")
        )
        made.legend(handles=handles, loc="outside upper center", ncols=4, handlelength=0.8, columnspacing=1)
        return made


def _points(axes: Axes, runs: Sequence[LoadedRun], floor: float, steps: Sequence[int]) -> None:
    """Ticks stand at ``steps`` times every power of ten."""
    axes.axvline(floor, color=style.GREY, linewidth=0.6, linestyle="--")
    for index, key in enumerate(SHOWN):
        for row, run in enumerate(runs):
            low, middle, high = run.beside[key].T
            y = row + 0.28 * (index - 1) + np.linspace(-0.08, 0.08, len(middle))
            axes.hlines(y, low, high, color=style.color(index + 1), linewidth=0.5)
            axes.plot(middle, y, style.marker(index), color=style.color(index + 1), markersize=1.8, linestyle="")
    for row in range(len(runs) - 1):
        axes.axhline(row + 0.5, color="#E4E4E4", linewidth=0.4)
    axes.set_xscale("symlog", linthresh=max(floor, 1e-6), linscale=0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    ticks = (step * 10.0**power for power in range(-6, 7) for step in steps)
    axes.set_xticks([0.0, *(tick for tick in ticks if 2 * floor < tick < axes.get_xlim()[1])])
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel("squared distance")


def samples(study: Study) -> Figure | None:
    """Per run single-shot samples and, right, states of the chain at its last step, of the first living replica."""
    panels = {title: [run for run in compared(runs) if _has_images(run)] for title, runs in study.panels.items()}
    runs = [(run, title) for title, members in panels.items() for run in members]
    if not runs:
        return None
    with style.settings():
        made = style.figure(0.56 * len(runs) + 0.5, width_cm=WIDTH_CM)
        grid = made.subplots(len(runs), 2, squeeze=False)
        for row, (run, title) in zip(grid, runs, strict=True):
            for axes, key in zip(row, ("images/shot", "images/limit"), strict=True):
                axes.imshow(_strip(run, key), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
                axes.axis("off")
            first = run is panels[title][0]
            words = f"{title}: {_short(run, title)}" if first else _short(run, title)
            row[0].text(-0.02, 0.5, words, transform=row[0].transAxes, ha="right", va="center", fontsize=5.6)
        for axes, words in zip(grid[0], ("single-shot", "limit of the chain"), strict=True):
            axes.set_title(words, pad=2)
        return made


def _strip(run: LoadedRun, key: str) -> Array:
    """Images [n, D] side by side, a light column between them."""
    images = run.beside[key].reshape(-1, *_shape(run))
    return np.concatenate([np.pad(image, ((0, 0), (0, 1)), constant_values=0.25) for image in images], axis=1)


def _has_images(run: LoadedRun) -> bool:
    return "images/shot" in run.beside and len(_shape(run)) == 2


def _shape(run: LoadedRun) -> tuple[int, ...]:
    return () if run.pictures is None else tuple(int(side) for side in np.atleast_1d(run.pictures.shape))


def _short(run: LoadedRun, panel: str) -> str:
    """The run's title without the word that its panel begins with."""
    return run.title.removeprefix(f"{panel.split()[0]} ")
