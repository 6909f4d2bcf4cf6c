"""How figures look: one palette, one set of sizes, the same bytes every time.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), distinct in all common forms of
colour vision. A marker always says the same as a colour. A figure is as wide as a column or as a page,
and no letter is below 7 points. What legends, titles and names need is added to its height, so that
they never take it from the panels. SVG has no date and no random identifier.
"""

import io
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, SymmetricalLogLocator
from PIL import Image

from hvae.analysis.layout import fitted as fitted

COLUMN_CM, PAGE_CM = 8.4, 17.4
SIZE = 7.0
"""points, the smallest letters"""
LINE_CM = 0.36
"""height of a row of a legend, or of a name"""
MOST_DECADES = 5
"""numbers on a symmetric-logarithmic axis, beside 0"""
IN_A_COLUMN = 4
"""panels that two columns of the narrow figure hold; more of them take four columns of the wide one"""
PALETTE = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#767676"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.2,
    "figure.labelsize": 7.2,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "ytick.minor.size": 1.2,
    "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.2,
    "xtick.minor.width": 0.4,
    "lines.linewidth": 0.8,
    "lines.markersize": 2.4,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.4,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "svg.hashsalt": "hvae",
    "svg.fonttype": "path",
    "path.simplify": True,
}


def settings() -> Any:
    """The context in which a figure is made and written; global settings stay as they are."""
    return matplotlib.rc_context(_SETTINGS)


def figure(height_cm: float, width_cm: float = COLUMN_CM) -> Figure:
    """An empty figure with a canvas of its own, known to no window system."""
    made = Figure(figsize=(width_cm / 2.54, height_cm / 2.54), layout="constrained")
    FigureCanvasAgg(made)
    return made


def is_wide(made: Figure) -> bool:
    """Whether it takes the width of the page."""
    return made.get_figwidth() * 2.54 > COLUMN_CM + 0.1


def panel_grid(titles: Sequence[str], n_columns: int = 0, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A panel for every title, which is broken to its width; surplus cells are removed. Give it its height by `fitted`.

    Up to `IN_A_COLUMN` panels stand in two columns of the narrow figure, more in four of the wide one. With
    ``n_columns`` the figure is wide.
    """
    width_cm = PAGE_CM if n_columns or len(titles) > IN_A_COLUMN else COLUMN_CM
    n_columns = min(len(titles), n_columns or (4 if width_cm == PAGE_CM else 2))
    n_rows = -(-len(titles) // n_columns)
    made = figure(5.0 * n_rows, width_cm)
    grid = made.subplots(n_rows, n_columns, squeeze=False, **subplots)
    axes = list(grid.flat)
    for surplus in axes[len(titles) :]:
        surplus.remove()
    for place, title in zip(axes, titles, strict=False):
        # with y, no drawing looks for the place of the title again
        place.set_title(broken(title, 0.6 * width_cm / n_columns, 7.5), y=1.0, pad=3)
        place.set_label(title)
        place.tick_params(labelbottom=True)
    return made, axes[: len(titles)]


def first_column(axes: Sequence[Axes]) -> list[Axes]:
    """Those at the left edge, which have the label of y for their row."""
    return [place for place in axes if (cell := place.get_subplotspec()) is not None and cell.is_first_col()]


def legend(made: Figure, handles: Sequence[Artist], handle_length: float = 1.6) -> None:
    """The legend above all panels, in as many columns as the figure has room for."""
    if not handles:
        return
    n_columns = legend_columns([str(handle.get_label()) for handle in handles], made.get_figwidth() * 2.54)
    made.legend(
        handles=handles, loc="outside upper center", ncols=n_columns, handlelength=handle_length, columnspacing=1.2
    )


def legend_columns(labels: Sequence[str], width_cm: float) -> int:
    """How many columns of a legend fit, and no more than fill its rows evenly."""
    widest = max(text_cm(line) for label in labels for line in label.split("\n"))
    most = max(1, min(len(labels), int(width_cm / (widest + 1.1))))
    return -(-len(labels) // -(-len(labels) // most))


@cache
def text_cm(text: str, points: float = SIZE) -> float:
    """Width of a line of text."""
    width, _, _ = TextToPath().get_text_width_height_descent(  # type: ignore[no-untyped-call]
        text, FontProperties(family="DejaVu Sans", size=points), ismath="$" in text
    )
    return float(width) / 72 * 2.54


def broken(text: str, width_cm: float, points: float = SIZE) -> str:
    """The text in lines of at most that width, broken between words; a longer word stands alone."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and text_cm(longer, points) > width_cm:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def row_names(axes: Axes, names: Sequence[str], width_cm: float) -> float:
    """Names of rows, from above, in lines of at most that width. The height that a row needs, cm."""
    shown = [broken(name, width_cm) for name in names]
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    return LINE_CM * max(name.count("\n") + 1 for name in shown) + 0.12


def column_names(axes: Axes, names: Sequence[str], width_cm: float) -> None:
    """Names of places along x: turned where they are long, and only every so many where there is no room for all."""
    slot = width_cm / max(1, len(names))
    widest = max(text_cm(line) for name in names for line in name.split("\n"))
    turned = widest + 0.15 > slot and widest > 0.9
    every = math.ceil((LINE_CM if turned else widest + 0.15) / slot)
    places = range(0, len(names), every)
    axes.set_xticks(list(places), [names[place] for place in places])
    if turned:
        axes.tick_params(axis="x", labelrotation=55)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def color(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    """One more step after each round of the colours, so that 64 series differ."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def symmetric_log(axes: Axes, linear_below: float, along: Literal["x", "y"] = "y") -> None:
    """An axis linear up to +-`linear_below`, logarithmic beyond, in plain numbers; asked for once all is drawn."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    scale, ends = (axes.set_xscale, axes.get_xlim) if along == "x" else (axes.set_yscale, axes.get_ylim)
    scale("symlog", linthresh=linear_below, linscale=0.8)
    axes.autoscale_view(scalex=along == "x", scaley=along == "y")  # margins of the linear scale are far too wide
    low, high = sorted(ends())
    first = math.ceil(math.log10(linear_below) - 1e-9)
    decades = [[10.0**power for power in range(first, 10) if 10.0**power <= end] for end in (-low, high)]
    every = max(1, -(-sum(map(len, decades)) // MOST_DECADES))
    below, above = (side[::-1][::every] for side in decades)
    axis.set_major_locator(FixedLocator([*(-value for value in below), 0.0, *above]))
    axis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=linear_below, subs=(2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def plain(value: float) -> str:
    """A number for an axis, with a true minus sign: 0.1, 10, -1; beyond 0.001 and 1000 a power of ten.

    >>> plain(0.1), plain(1e-6)
    ('0.1', '10⁻⁶')
    """
    power = math.log10(abs(value)) if value else 0.0
    if abs(power) > 3.5 and math.isclose(power, round(power)):
        return f"{value / abs(value):.0f}0{str(round(power)).translate(RAISED)}".replace("-", "\N{MINUS SIGN}")
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def svg(made: Figure) -> str:
    """The `<svg>` element as text, the same bytes every time. Coordinates have three decimals, to keep it small."""
    buffer = io.StringIO()
    with settings():  # `savefig` would draw it twice
        FigureCanvasSVG(made).print_svg(buffer, metadata={"Date": None, "Creator": "hvae"})
    FigureCanvasAgg(made)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r' (?:d|x|y)="[^"]*"', lambda path: re.sub(r"(\.\d{3})\d+", r"\1", path[0]), text)


def with_prefix(svg_text: str, prefix: str) -> str:
    """The same picture with every identifier prefixed, so that several share a page."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg_text)


def png(made: Figure, dpi: int = 220) -> bytes:
    """The figure as PNG of 256 colours, small enough to be committed."""
    fewer, own_dpi, canvas = io.BytesIO(), made.dpi, FigureCanvasAgg(made)
    made.set_dpi(dpi)
    with settings():
        canvas.draw()  # type: ignore[no-untyped-call]
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    made.set_dpi(own_dpi)
    palette: Any = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}  # keeps rare colours of a scale
    picture.quantize(256, **palette).save(fewer, format="png", dpi=(dpi, dpi), optimize=True)
    return fewer.getvalue()
