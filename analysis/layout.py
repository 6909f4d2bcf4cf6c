"""Where the panels of a figure stand: laid out once, in closed form.

    width of a panel    what margins leave of the figure's width, by the ratios of the columns
    height of a panel   as asked for, by the ratios of the rows; the figure becomes as high as that takes
    margins             what titles, names and numbers take around the panels: of a column, and of a row, the largest

Words do not grow with a figure, so one look at them is enough. Matplotlib's constrained layout looks eight times, as
its panels are what is left of a given height. Inches.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

CM = 1 / 2.54
PAD = 0.04
"""around the words of every panel"""
BETWEEN = 0.04
"""from the words of a panel to those of the next"""
GUESS = (0.45, 0.05)
"""left and right of a panel, before the words are seen: numbers along an axis are chosen by its length"""
STRIP_CM, STRIP_SHARE = 0.22, 0.8
"""height of an axes without a cell, such as a scale of colours, and its share of the width"""


def fitted(made: Figure, panel_cm: float) -> Figure:
    """The figure, as high as it must be for its panels to be ``panel_cm`` high, or so many times it as their row is.

    All panels stand in one grid. Above it are the legends of the figure, below it axes without a cell.
    """
    made.set_layout_engine("none")
    cells = {axes: cell for axes in made.axes if (cell := axes.get_subplotspec()) is not None}
    strips = [axes for axes in made.axes if axes not in cells]
    grid = next(iter(cells.values())).get_gridspec()
    rows = panel_cm * CM * np.array(grid.get_height_ratios(), dtype=float)
    columns = np.array(grid.get_width_ratios(), dtype=float)
    before, after, above, below = (np.zeros(n) for n in (*[len(columns)] * 2, *[len(rows)] * 2))
    before[:], after[:] = GUESS
    width = made.get_figwidth()
    made.set_figheight(rows.sum())
    spread = _spread(columns, width, before, after)
    _place(made, cells, (*spread, *_stacked(rows, above, below)))
    before[:] = after[:] = 0.0
    for axes, cell in cells.items():
        left, right, bottom, top = _around(axes)
        for margins, at, needed in (
            (before, cell.colspan.start, left), (after, cell.colspan.stop - 1, right),
            (above, cell.rowspan.start, top), (below, cell.rowspan.stop - 1, bottom),
        ):  # fmt: skip
            margins[at] = max(margins[at], needed + PAD)
    for margins in (after, below):
        margins[:-1] += BETWEEN
    under = [_strip(made, axes) for axes in strips]
    over = sum(_inches(made, legend.get_window_extent().height) + 4 * PAD for legend in made.legends)
    height = round(float(rows.sum() + above.sum() + below.sum() + sum(under) + over), 2)
    made.set_figheight(height)
    start, stop, low, high = (*_spread(columns, width, before, after), *_stacked(rows, above, below))
    _place(made, cells, (start, stop, low + sum(under), high + sum(under)))
    for axes, foot in zip(strips, np.cumsum([0.0, *under]), strict=False):
        _strip(made, axes, float(foot))
    return made


def _spread(columns: Any, width: float, before: Any, after: Any) -> tuple[Any, Any]:
    """Left and right ends of the columns."""
    panels = columns / columns.sum() * (width - before.sum() - after.sum())
    right = np.cumsum(before + panels + after) - after
    return right - panels, right


def _stacked(rows: Any, above: Any, below: Any) -> tuple[Any, Any]:
    """Lower and upper ends of the rows, of which the last is at the bottom."""
    upper = np.cumsum((above + rows + below)[::-1])[::-1] - above
    return upper - rows, upper


def _place(made: Figure, cells: dict[Axes, Any], ends: tuple[Any, Any, Any, Any]) -> None:
    (start, stop, low, high), (width, height) = ends, made.get_size_inches()
    for axes, cell in cells.items():
        left, right = start[cell.colspan.start] / width, stop[cell.colspan.stop - 1] / width
        bottom, top = low[cell.rowspan.stop - 1] / height, high[cell.rowspan.start] / height
        axes.set_position((left, bottom, right - left, top - bottom))


def _strip(made: Figure, axes: Axes, foot: float = 0.0) -> float:
    """Puts a strip above ``foot``; what it takes with its words."""
    tall, height = STRIP_CM * CM, made.get_figheight()
    axes.set_position(((1 - STRIP_SHARE) / 2, foot / height, STRIP_SHARE, tall / height))
    _, _, below, above = _around(axes)
    axes.set_position(((1 - STRIP_SHARE) / 2, (foot + below + PAD) / height, STRIP_SHARE, tall / height))
    return below + tall + above + 2 * PAD


def _around(axes: Axes) -> tuple[float, float, float, float]:
    """What the words of a panel take left, right, below and above it."""
    made = axes.get_figure()
    assert isinstance(made, Figure)
    words = axes.get_tightbbox(made.canvas.get_renderer(), for_layout_only=True)  # type: ignore[attr-defined]
    box = axes.get_window_extent()
    if words is None:
        return 0.0, 0.0, 0.0, 0.0
    ends = (box.x0 - words.x0, words.x1 - box.x1, box.y0 - words.y0, words.y1 - box.y1)
    left, right, below, above = (max(0.0, _inches(made, end)) for end in ends)
    return left, right, below, above


def _inches(made: Figure, pixels: float) -> float:
    return float(pixels / made.dpi)
