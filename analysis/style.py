"""How figures look: one palette, one set of sizes, the same bytes every time.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), distinct in all common forms of
colour vision. A marker always says the same as a colour. Sizes are set for a printed width of 8 cm.
SVG has no date and no random identifier.
"""

import io
import re
from contextlib import suppress
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator
from PIL import Image

WIDTH_CM = 8.0
PALETTE = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#767676"

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 6.5,
    "axes.titlesize": 6.8,
    "axes.labelsize": 6.8,
    "figure.labelsize": 6.8,
    "xtick.labelsize": 6.2,
    "ytick.labelsize": 6.2,
    "legend.fontsize": 6.2,
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


class _Lean(Figure):
    """A figure that is drawn once when it is written. For its layout matplotlib draws it before, to no end."""

    def draw(self, renderer: Any) -> None:
        engine = self.get_layout_engine()
        if self.canvas.is_saving() and isinstance(engine, ConstrainedLayoutEngine):
            with suppress(ValueError):  # as in `Figure.draw`
                engine.execute(self)
        else:
            super().draw(renderer)


def figure(height_cm: float, width_cm: float = WIDTH_CM) -> Figure:
    """An empty figure with a canvas of its own, known to no window system."""
    made = _Lean(figsize=(width_cm / 2.54, height_cm / 2.54), layout="constrained")
    FigureCanvasAgg(made)
    return made


def panel_grid(n_panels: int, panel_height_cm: float, n_columns: int = 2, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """Two columns, or one for one panel. The surplus cell of an odd count is removed."""
    n_columns = min(n_panels, n_columns)
    n_rows = -(-n_panels // n_columns)
    made = figure(n_rows * panel_height_cm + (1.8 if n_panels == 1 else 0.8))
    grid = made.subplots(n_rows, n_columns, squeeze=False, **subplots)
    axes = list(grid.flat)
    for surplus in axes[n_panels:]:
        surplus.remove()
    return made, axes[:n_panels]


def color(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def symmetric_log(axes: Axes, linear_below: float) -> None:
    """y linear up to +-`linear_below`, logarithmic beyond, in plain numbers."""
    axes.set_yscale("symlog", linthresh=linear_below, linscale=0.7)
    axes.yaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=linear_below, subs=range(2, 10)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def plain(value: float) -> str:
    """A number for an axis, with a true minus sign: 0.1, 10, -1."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def svg(made: Figure) -> str:
    """The `<svg>` element as text, the same bytes every time. Coordinates have three decimals, to keep it small."""
    buffer = io.StringIO()
    with settings():
        made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "hvae"})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r' (?:d|x|y)="[^"]*"', lambda path: re.sub(r"(\.\d{3})\d+", r"\1", path[0]), text)


def with_prefix(svg_text: str, prefix: str) -> str:
    """The same picture with every identifier prefixed, so that several share a page."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg_text)


def png(made: Figure, dpi: int = 300) -> bytes:
    """The figure as PNG of 256 colours, small enough to be committed."""
    buffer, fewer = io.BytesIO(), io.BytesIO()
    with settings():
        made.savefig(buffer, format="rgba", dpi=dpi)
    width, height = (int(inches * dpi) for inches in made.get_size_inches())
    picture = Image.frombytes("RGBA", (width, height), buffer.getvalue()).convert("RGB")
    palette = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}  # keeps rare colours of a scale
    picture.quantize(256, **palette).save(fewer, format="png", dpi=(dpi, dpi), optimize=True)
    return fewer.getvalue()
