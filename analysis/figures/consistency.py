"""Encoder against decoder: distances of single-shot samples, chain limits and test images, and what they look like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from analysis import style
from analysis.load import Arrays, LoadedRun
from analysis.study import Study
from analysis.tables.consistency import DISTANCES, compared

SHOWN = ("limit-shot", "shot-test", "limit-test")


def distances(study: Study) -> Figure | None:
    """Corrected Fréchet distances, one row per run, one point per replica with its interval."""
    runs, classifier = compared(study.runs), study.measured.get("classifier")
    if not runs or classifier is None:
        return None
    with style.settings():
        made = style.figure(0.62 * len(runs) + 1.8)
        axes = made.subplots()
        floor = float(classifier["floor/plain"])
        axes.axvline(floor, color=style.GREY, linewidth=0.6, linestyle="--")
        for index, key in enumerate(SHOWN):
            for row, run in enumerate(runs):
                low, middle, high = run.beside[key].T
                y = row + 0.27 * (index - 1) + np.linspace(-0.07, 0.07, len(middle))
                axes.hlines(y, low, high, color=style.color(index + 1), linewidth=0.5)
                axes.plot(middle, y, style.marker(index), color=style.color(index + 1), markersize=1.8, linestyle="")
        for row in range(len(runs) - 1):
            axes.axhline(row + 0.5, color="#E4E4E4", linewidth=0.4)
        axes.set_xscale("symlog", linthresh=max(floor, 1e-6), linscale=0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.plain(value)))
        axes.set_yticks(range(len(runs)), [run.title for run in runs])
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel("squared Fréchet distance (features squared)")
        handles = [
            Line2D([], [], color=style.color(i + 1), marker=style.marker(i), linestyle="", label=DISTANCES[key])
            for i, key in enumerate(SHOWN)
        ]
        made.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=0.8, columnspacing=1)
        return made


def samples(study: Study) -> Figure | None:
    """Per run single-shot samples and, right, states of the chain at its last step, of the first replica."""
    runs = [run for run in compared(study.runs) if "images/shot" in run.beside and len(_shape(run)) == 2]
    if not runs:
        return None
    with style.settings():
        made = style.figure(0.36 * len(runs) + 0.5, width_cm=12.0)
        grid = made.subplots(len(runs), 2, squeeze=False)
        for row, run in zip(grid, runs, strict=True):
            for axes, key in zip(row, ("images/shot", "images/limit"), strict=True):
                axes.imshow(_strip(run.beside, key, _shape(run)), cmap="gray_r", vmin=0, vmax=1, aspect="equal")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(visible=False)
                for spine in axes.spines.values():
                    spine.set_visible(False)
            row[0].set_ylabel(run.title, rotation=0, ha="right", va="center", fontsize=5.6)
        for axes, title in zip(grid[0], ("single-shot", "limit of the chain"), strict=True):
            axes.set_title(title, pad=2)
        return made


def _strip(beside: Arrays, key: str, shape: Sequence[int]) -> np.ndarray:
    """Images [n, D] side by side, a light column between them."""
    images = beside[key].reshape(-1, *shape)
    return np.concatenate([np.pad(image, ((0, 0), (0, 1)), constant_values=0.25) for image in images], axis=1)


def _shape(run: LoadedRun) -> tuple[int, ...]:
    images = run.images or {}
    return tuple(int(side) for side in np.atleast_1d(images.get("image_shape", ())))
