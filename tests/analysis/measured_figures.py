"""What a reader sees of a figure: sizes of its axes, places of its words, looks of its series."""

import itertools
from collections import Counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Tick, XTick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from hvae.analysis import style

LEAST_WIDTH, LEAST_HEIGHT = 1.0, 0.9
"""inches of the axes of a panel"""
LEAST_ROW = 0.13
"""inches of a row that has a name"""
LEAST_POINTS = 7.0
PAGE_INCHES = 7.0
TOUCH = 0.5
"""pixels at 100 dots an inch by which boxes of words may share an edge"""


def defects(made: Figure) -> list[str]:
    """A sentence for everything that a reader could not read; empty for a good figure."""
    made.set_dpi(100)
    with style.settings():
        FigureCanvasAgg(made).draw()
    return [*_sizes(made), *_words(made), *(text for axes in made.axes for text in _alike(axes))]


def _panels(made: Figure) -> list[Axes]:
    return [axes for axes in made.axes if axes.axison and axes.get_subplotspec() is not None]


def _sizes(made: Figure) -> list[str]:
    found = []
    if made.get_figwidth() > PAGE_INCHES:
        found.append(f"the figure is {made.get_figwidth():.1f} inches wide")
    for axes in _panels(made):
        box = axes.get_window_extent()
        width, height = box.width / made.dpi, box.height / made.dpi
        named = [label for label in axes.get_yticklabels() if not _is_number(label.get_text())]
        rows = LEAST_ROW * len(named) if len(named) > 1 else LEAST_HEIGHT
        if width < LEAST_WIDTH or height < min(rows, LEAST_HEIGHT) or height < LEAST_ROW * len(named):
            found.append(f"'{axes.get_label()}' is {width:.2f} x {height:.2f} inches")
    return found


def _is_number(text: str) -> bool:
    return not any(letter.isalpha() for letter in text.replace("mathdefault", ""))


def texts(made: Figure) -> list[Text]:
    """All words that are drawn: titles, labels, ticks within their axis, legends, annotations."""
    unseen = {label for tick in made.findobj(Tick) for label in (tick.label1, tick.label2) if not _drawn(tick)}
    return [
        text for text in made.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in unseen
    ]


def _drawn(tick: Tick) -> bool:
    """Whether the axes show it: they are switched on, and it lies within their limits."""
    low, high = sorted(tick.axes.get_xlim() if isinstance(tick, XTick) else tick.axes.get_ylim())
    return bool(tick.axes.axison and low <= tick.get_loc() <= high)


def _words(made: Figure) -> list[str]:
    found, boxes = [], []
    canvas = Bbox.from_bounds(0, 0, made.bbox.width, made.bbox.height)
    for text in texts(made):
        if text.get_fontsize() < LEAST_POINTS:
            found.append(f"'{text.get_text()}' has {text.get_fontsize():g} points")
        box = text.get_window_extent()
        turned = text.get_rotation() % 90 != 0
        boxes.append((text, box, turned))
        if min(box.x0, box.y0, canvas.x1 - box.x1, canvas.y1 - box.y1) < -TOUCH:
            found.append(f"'{text.get_text()}' leaves the canvas")
    for (one, a, a_turned), (other, b, b_turned) in itertools.combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        if a_turned and b_turned:  # neighbours of one axis: their boxes overlap where their letters do not
            apart = abs(a.x1 - b.x1) / made.dpi * np.sin(np.deg2rad(one.get_rotation()))
            if apart * 72 < one.get_fontsize():
                found.append(f"'{one.get_text()}' and '{other.get_text()}', turned, overlap")
        elif across > TOUCH and up > TOUCH:
            found.append(f"'{one.get_text()}' overlaps '{other.get_text()}'")
    return found


def looks(line: Line2D) -> tuple[str, str, str, str]:
    """Colour, face, marker and dashes of a line."""
    face = line.get_markerfacecolor()
    dashes = line.get_linestyle() if not line.is_dashed() else str(line._unscaled_dash_pattern)  # type: ignore[attr-defined]
    return to_hex(line.get_color()), str(face), str(line.get_marker()), dashes


def _alike(axes: Axes) -> list[str]:
    """Entries of a legend that look the same, and runs of a panel drawn alike."""
    legends = [part for part in (axes.get_legend(), *axes.get_figure().legends) if isinstance(part, Legend)]  # type: ignore[union-attr]
    found = []
    for legend in legends:
        seen: Counter[tuple[str, str, str, str]] = Counter(looks(line) for line in legend.get_lines())
        found += [f"{count} entries of a legend look like {look}" for look, count in seen.items() if count > 1]
    named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    by_look = Counter(looks(line) for line in {line.get_label(): line for line in named}.values())
    found += [f"{count} series of '{axes.get_label()}' look alike" for count in by_look.values() if count > 1]
    return found
