"""What each layer holds: images with the layers below a cut drawn again."""

import numpy as np
from matplotlib.figure import Figure

from hvae.analysis import style
from hvae.analysis.load import Array, LoadedRun
from hvae.diagnosis.layer import Layer
from hvae.diagnosis.pixels import Pixels

MAX_ROWS = 6
MAX_DRAWS = 3
MOST_IN_A_COLUMN = 17
"""images side by side in the narrow figure"""
MOST_IMAGE_CM = 0.9
MOST_CUTS = 8
"""sets of kept layers that the page has room for; of more, some are shown"""


def resampling_grid(run: LoadedRun) -> Figure | None:
    """Per row one test image x, its reconstruction, draws that keep z_l ... z_L for each layer l, and samples.

    The kept layers come from q(z|x), those below from p; the mean of x is shown. What the draws of a
    block share is the content of the kept layers. Samples keep no layer, so their rows mean nothing. None where x is
    no image.
    """
    pictures = run.pictures
    if pictures is None or pictures.x is None or not pictures.is_image:
        return None
    pixels = Pixels.of(pictures.shape)
    assert pixels is not None
    low, high = min(0.0, float(pictures.x.min())), max(1.0, float(pictures.x.max()))  # counts and real values exceed 1
    return _draw([(title, (images - low) / (high - low)) for title, images in columns(run)], pixels)


def columns(run: LoadedRun) -> list[tuple[str, Array]]:
    """Title and images [n, S, D] of every block of columns, from the left.

    "to 4x4 z5–z8": z5 to z8 are kept, all layers that are no finer than 4x4.
    """
    pictures = run.pictures
    assert pictures is not None and pictures.x is not None
    n = min(MAX_ROWS, len(pictures.x))
    blocks = [("x", pictures.x[:n, None])]
    if pictures.reconstruction is not None:
        blocks.append(("mean", pictures.reconstruction[:n, None]))
    drawn = cuts(run)
    by_place = len(drawn) > 1 and [layer.place for layer in drawn] == list(dict.fromkeys(z.place for z in run.layers))
    top = run.layers[-1].name
    for layer in drawn:
        kept = layer.name if layer.name == top else f"{layer.name}\N{EN DASH}{top}"
        title = f"to\N{NO-BREAK SPACE}{layer.place} {kept}" if by_place else f"keep {kept}"
        blocks.append((title, pictures.resampled[layer.name][:n, :MAX_DRAWS]))
    if pictures.samples is not None and (n_draws := min(MAX_DRAWS, len(pictures.samples) // n)):
        samples = pictures.samples[: n * n_draws]
        blocks.append(("samples", samples.reshape(n, n_draws, *samples.shape[1:])))
    return blocks


def cuts(run: LoadedRun) -> list[Layer]:
    """The layers l that have a block of columns, from z_1 up."""
    resampled = {} if run.pictures is None else run.pictures.resampled
    drawn = [layer for layer in run.layers if layer.name in resampled]
    if len(drawn) <= MOST_CUTS:
        return drawn
    return [drawn[place] for place in np.linspace(0, len(drawn) - 1, MOST_CUTS).round().astype(int)]


def _draw(blocks: list[tuple[str, Array]], pixels: Pixels) -> Figure:
    """All images on one canvas, so that all pixels and gaps have one width."""
    colour = pixels.channels > 1
    enlarge = max(1, 96 // max(pixels.rows, pixels.columns))
    height, width = pixels.rows * enlarge + 2, pixels.columns * enlarge + 2
    gap, block_gap = width // 8, width // 2
    n_rows = len(blocks[0][1])
    n_columns = sum(block.shape[1] for _, block in blocks)
    total = n_columns * (width + gap) - gap + (block_gap - gap) * (len(blocks) - 1)
    size = (n_rows * (height + gap) - gap, total)
    # grey values are ink on white paper, colours are light
    canvas = np.ones((*size, 3)) if colour else np.zeros(size)
    titles, left = [], 0
    for title, block in blocks:
        start = left
        for draw in range(block.shape[1]):
            for row in range(n_rows):
                top = row * (height + gap)
                canvas[top : top + height, left : left + width] = 0.35
                picture = pixels.picture(block[row, draw]).repeat(enlarge, axis=0).repeat(enlarge, axis=1)
                canvas[top + 1 : top + height - 1, left + 1 : left + width - 1] = picture
            left += width + gap
        titles.append((title, (start + left - gap) / 2))
        left += block_gap - gap
    width_cm = style.COLUMN_CM if n_columns <= MOST_IN_A_COLUMN else style.PAGE_CM
    cm = min((width_cm - 0.1) / total, MOST_IMAGE_CM / width)
    with style.settings():
        made = style.figure(canvas.shape[0] * cm + 0.8, width_cm=max(total * cm + 0.1, style.COLUMN_CM))
        axes = made.add_subplot()
        axes.axis("off")
        framed = np.pad(canvas, ((2, 2), (2, 2), (0, 0)), constant_values=1) if colour else np.pad(canvas, 2)
        axes.imshow(np.nan_to_num(framed, nan=1.0).clip(0, 1) if colour else framed, cmap="gray_r", vmin=0, vmax=1)
        for title, middle in titles:
            axes.text(middle, -gap, title.replace(" ", "\n", 1), ha="center", va="bottom", fontsize=style.SIZE)
        return made
