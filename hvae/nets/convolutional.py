"""Convolutional nets for images: numbers from an image, and numbers for each pixel of one.

Unless told otherwise a convolution has `KERNEL` x `KERNEL` weights and a stride of 2, so n rows become ``ceil(n / 2)``.
Its transpose goes back to n exactly, odd or even (28, 14, 7, 4), by one more row of padding where n is even. An image
is a row of numbers ``[..., D]``, in colour three a pixel, in either order (`hvae.diagnosis.pixels`); channels
are ``[..., C, rows, columns]``, with any leading axes. Under `vmap` over replicas a convolution has R groups.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvae.diagnosis.pixels import Pixels
from hvae.nets.layers import Initialise, Style, dense, linear
from hvae.nets.normalisation import ImageNorm

KERNEL = 3
"""rows and columns of the weights; odd, so that a pixel stands in the middle"""


class Convolution(nn.Module):
    """``[..., n_in, H, W] -> [..., n_out, ceil(H / stride), ceil(W / stride)]``, for an odd kernel.

    >>> from hvae.nets import xavier
    >>> Convolution(1, 4, xavier, torch.Generator())(torch.zeros(5, 1, 7, 7)).shape
    torch.Size([5, 4, 4, 4])
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        initialise: Initialise,
        source: torch.Generator,
        *,
        bias: bool = True,
        kernel: int = KERNEL,
        stride: int = 2,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(n_out, n_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        initialise(self.weight, source)

    def forward(self, h: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        if kernel == self.stride == 1:  # a matrix product; it leaves channels last, which F.conv2d is faster with
            return F.linear(h.movedim(-3, -1), self.weight.flatten(1), self.bias).movedim(-1, -3)
        flat = F.conv2d(h.reshape(-1, *h.shape[-3:]), self.weight, self.bias, stride=self.stride, padding=kernel // 2)
        return flat.reshape(*h.shape[:-3], *flat.shape[1:])


class Transposed(nn.Module):
    """``[..., n_in, ceil(H / 2), ceil(W / 2)] -> [..., n_out, H, W]``: the transpose of a `Convolution`, in shape.

    >>> from hvae.nets import xavier
    >>> Transposed(4, 1, (7, 7), xavier, torch.Generator())(torch.zeros(5, 4, 4, 4)).shape
    torch.Size([5, 1, 7, 7])
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        shape: tuple[int, int],
        initialise: Initialise,
        source: torch.Generator,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.extra = tuple((size + 1) % 2 for size in shape)
        initialise(self.weight, source)

    def forward(self, h: Tensor) -> Tensor:
        flat = F.conv_transpose2d(
            h.reshape(-1, *h.shape[-3:]),
            self.weight,
            self.bias,
            stride=2,
            padding=KERNEL // 2,
            output_padding=self.extra,
        )
        return flat.view(*h.shape[:-3], *flat.shape[1:])


class PixelBias(nn.Module):
    """One learned number added to each output; the bias of a convolution has one a channel.

    >>> PixelBias(4)(torch.ones(5, 4)).shape
    torch.Size([5, 4])
    """

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.bias


class Unfold(nn.Module):
    """``[..., D]`` to ``[..., channels, rows, columns]``.

    >>> Unfold(Pixels(2, 2, 3, channels_last=True))(torch.arange(12))[0].tolist()
    [[0, 3], [6, 9]]
    """

    def __init__(self, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, h: Tensor) -> Tensor:
        image = self.pixels
        if image.channels_last:
            return h.reshape(*h.shape[:-1], image.rows, image.columns, image.channels).movedim(-1, -3)
        return h.reshape(*h.shape[:-1], image.channels, image.rows, image.columns)


class Fold(nn.Module):
    """``[..., n * channels, rows, columns]`` to ``[..., n * D]``: n images, one after another.

    >>> pixels = Pixels(2, 2, 3, channels_last=True)
    >>> Fold(pixels)(Unfold(pixels)(torch.arange(12))).tolist() == list(range(12))
    True
    """

    def __init__(self, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, h: Tensor) -> Tensor:
        if self.pixels.channels_last:
            return h.reshape(*h.shape[:-3], -1, self.pixels.channels, *h.shape[-2:]).movedim(-3, -1).flatten(-4)
        return h.flatten(-3)


def convolutional(
    image_shape: Sequence[int], channels: Sequence[int], hidden: Sequence[int], n_outputs: int, **style: Unpack[Style]
) -> nn.Sequential:
    """Image to ``n_outputs``: a convolution to each of ``channels``, dense layers of the widths ``hidden``, linear."""
    pixels = _pixels(image_shape)
    sizes = resolutions(pixels, len(channels))
    norm = style.get("batch_norm", False)
    layers: list[nn.Module] = [Unfold(pixels)]
    for n_in, n_out in pairwise((pixels.channels, *channels)):
        layers.append(Convolution(n_in, n_out, style["initialise"], style["source"], bias=not norm))
        layers += [*([ImageNorm(n_out)] if norm else []), style["activation"]()]
    layers.append(nn.Flatten(-3))
    width = channels[-1] * sizes[-1][0] * sizes[-1][1]
    for wider in hidden:
        layers += dense(width, wider, **style)
        width = wider
    return nn.Sequential(*layers, linear(width, n_outputs, style["initialise"], style["source"], bias=True))


def transposed(
    n_in: int,
    hidden: Sequence[int],
    channels: Sequence[int],
    image_shape: Sequence[int],
    n_outputs: int,
    fold: nn.Module | None = None,
    **style: Unpack[Style],
) -> nn.Sequential:
    """The mirror of `convolutional`: ``n_in`` numbers to an image, ``hidden`` and ``channels`` in the order of use.

    ``n_outputs`` is a multiple of D: all first outputs of the numbers of an image, then all second ones. With another
    ``fold`` of planes ``[..., n, rows, columns]`` to a row it is a multiple of the pixels.
    """
    pixels = _pixels(image_shape)
    sizes = resolutions(pixels, len(channels))[::-1]
    norm = style.get("batch_norm", False)
    layers: list[nn.Module] = []
    for width in (*hidden, channels[0] * sizes[0][0] * sizes[0][1]):
        layers += dense(n_in, width, **style)
        n_in = width
    layers.append(nn.Unflatten(-1, (channels[0], *sizes[0])))
    for size, (before, after) in zip(sizes[1:-1], pairwise(channels), strict=True):
        layers.append(Transposed(before, after, size, style["initialise"], style["source"], bias=not norm))
        layers += [*([ImageNorm(after)] if norm else []), style["activation"]()]
    per_pixel = n_outputs // (pixels.rows * pixels.columns)
    last = Transposed(channels[-1], per_pixel, sizes[-1], style["initialise"], style["source"], bias=False)
    return nn.Sequential(*layers, last, Fold(pixels) if fold is None else fold, PixelBias(n_outputs))


def _pixels(image_shape: Sequence[int]) -> Pixels:
    pixels = Pixels.of(image_shape)
    if pixels is None:
        raise ValueError(
            f"image_shape is {tuple(image_shape)}; give (rows, columns), (3, rows, columns) or (rows, columns, 3)."
        )
    return pixels


def resolutions(pixels: Pixels, n_layers: int) -> list[tuple[int, int]]:
    """Rows and columns of an image, and after each of ``n_layers`` convolutions."""
    rows, columns = pixels.rows, pixels.columns
    found = [(rows, columns)]
    for _ in range(n_layers):
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        found.append((rows, columns))
    return found
