"""Blocks of a top-down stack: convolutions at one resolution, ``[..., C, R, R]``, with any leading axes.

A block of the decoder carries a state h (Child 2021, figure 3):

    h <- start + up(h)                  where it takes over from a coarser resolution; up repeats pixels
    p(z | h)                            from the net `prior`, which also answers features f
    h <- h + f + W z                    W is `project`
    h <- h + residual(h)

The last layers of `residual` and W start small, by 1 / sqrt(depth), so that h does not grow with the depth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvae.errors import ConfigError
from hvae.grammar import Place, after
from hvae.nets.convolutional import Convolution
from hvae.nets.frugal import Frugal
from hvae.nets.layers import Initialise, xavier


def unchanged(numbers: Tensor) -> Tensor:
    """A net that answers log-variances."""
    return numbers


def from_log_scale(numbers: Tensor) -> Tensor:
    """A net that answers logarithms of standard deviations, as VDVAE's do.

    >>> from_log_scale(torch.tensor([1.0])).tolist()
    [2.0]
    """
    return 2 * numbers


@dataclass(frozen=True)
class Body:
    """Convolutions in a row, with an activation before each.

    >>> net = Body().net(8, 4, width=8, resolution=4, initialise=xavier, source=torch.Generator())
    >>> [tuple(layer.weight.shape) for layer in net if isinstance(layer, Convolution)]
    [(2, 8, 1, 1), (2, 2, 3, 3), (2, 2, 3, 3), (4, 2, 1, 1)]
    """

    kernels: tuple[int, ...] = (1, 3, 3, 1)
    bottleneck: float = 0.25
    """channels between the first and the last convolution, as a share of the state's"""
    leading: bool = True
    """whether an activation stands before the first convolution too"""
    smallest: int = 3
    """resolution below which all kernels are 1 x 1"""
    activation: Callable[[], nn.Module] = nn.GELU

    def __post_init__(self) -> None:
        if not self.kernels or any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"a body has the kernels {self.kernels}; give odd numbers of rows, as (1, 3, 3, 1).")
        if not self.bottleneck > 0:
            raise ConfigError(f"the bottleneck is {self.bottleneck}; give a share of the width, more than 0.")

    def net(
        self, n_in: int, n_out: int, *, width: int, resolution: int, initialise: Initialise, source: torch.Generator
    ) -> Frugal:
        """From ``n_in`` channels to ``n_out``, in a block whose state has ``width``; the last layer ends it."""
        middle = max(1, int(width * self.bottleneck))
        channels = [n_in, *[middle] * (len(self.kernels) - 1), n_out]
        layers: list[nn.Module] = []
        for place, kernel in enumerate(self.kernels):
            if place or self.leading:
                layers.append(self.activation())
            used = kernel if resolution >= self.smallest else 1
            layers.append(Convolution(channels[place], channels[place + 1], initialise, source, kernel=used, stride=1))
        return Frugal(*layers)


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a stack share. The defaults are VDVAE's, but for the widths.

    Without ``skips`` a block hands on nothing but its latent, ``h <- W z``: each layer sees the one above alone, as in
    the ladder of Sønderby et al. 2016. With them every layer sees all above, by a deterministic path that passes the
    latents by, as in BIVA (Maaløe et al. 2019) and VDVAE.

    >>> from hvae import BlockStyle
    >>> BlockStyle(width=16, widths={1: 32}).width_at(1), BlockStyle(width=16).width_at(1)
    (32, 16)
    """

    width: int = 32
    """channels of the state h"""
    channels: int = 4
    """channels of every latent"""
    widths: Mapping[int, int] = field(default_factory=dict)
    """resolution -> channels of h there, where they are not ``width``"""
    prior: Body = Body()
    posterior: Body = Body()
    residual: Body = Body()
    upward: Body = Body()
    features: bool = True
    """whether the net of the prior also adds to h; nothing is added without ``skips``"""
    skips: bool = True
    start_up_to: int = 64
    """largest resolution that adds learned numbers to h where it begins; the first block always does"""
    out_kernel: int = 1
    """of the convolution from h to the distribution of x"""
    log_variance: Callable[[Tensor], Tensor] = unchanged
    """from the second half of a net's numbers to log-variances"""
    initialise: Initialise = xavier

    def __post_init__(self) -> None:
        if self.out_kernel % 2 == 0:
            raise ConfigError(f"out_kernel is {self.out_kernel}; give an odd number of rows.")
        for resolution, width in {0: self.width, **self.widths}.items():
            where = f" at resolution {resolution}" if resolution else ""
            if width < 1 or self.channels < 1:
                raise ConfigError(f"h has {width} channels{where} and a latent {self.channels}; give both at least 1.")

    def width_at(self, resolution: int) -> int:
        """Channels of h at a resolution. Raises `ConfigError` where a latent has more."""
        width = self.widths.get(resolution, self.width)
        if self.channels > width:
            raise ConfigError(
                f"a latent has {self.channels} channels, and the state at resolution {resolution} has {width}; give "
                "the latents fewer channels, or the state a larger width."
            )
        return width

    def outputs(self, numbers: Tensor) -> Tensor:
        """``[..., 2 C, R, R]`` of a net, as `DiagonalGaussian` reads them: means and log-variances, both flat."""
        mean, spread = numbers.chunk(2, dim=-3)
        return torch.cat([mean.flatten(-3), self.log_variance(spread).flatten(-3)], dim=-1)


class Block(nn.Module):
    """A block of the decoder.

    >>> block = Block(Place(4, 2), BlockStyle(width=8, channels=2), depth=3, source=torch.Generator())
    >>> h = block.begin(torch.zeros(7, 5, 8, 2, 2))
    >>> numbers, features = block.read(h)
    >>> block.hand_on(h, features, torch.zeros(7, 5, 2, 4, 4)).shape, numbers.shape
    (torch.Size([7, 5, 8, 4, 4]), torch.Size([7, 5, 64]))
    """

    def __init__(
        self, place: Place, style: BlockStyle, *, depth: int, source: torch.Generator, first: bool = False
    ) -> None:
        super().__init__()
        self.place, self.style = place, style
        width, at = style.width_at(place.resolution), place.resolution
        shared = {"width": width, "resolution": at, "initialise": style.initialise, "source": source}
        n_numbers = 2 * style.channels
        self.has_features = style.features and style.skips
        self.prior = style.prior.net(width, n_numbers + (width if self.has_features else 0), **shared)  # type: ignore[arg-type]
        self.project = Convolution(style.channels, width, style.initialise, source, kernel=1, stride=1)
        self.residual = style.residual.net(width, width, **shared)  # type: ignore[arg-type]
        starts = first or (bool(place.other) and at <= style.start_up_to)
        self.start = nn.Parameter(torch.zeros(width, at, at)) if starts else None
        shrink(self.prior[-1], 0.0)
        for layer in (self.project, self.residual[-1]):
            shrink(layer, depth**-0.5)

    def begin(self, h: Tensor | None) -> Tensor:
        """The state that the block starts from."""
        if h is None:
            assert self.start is not None
            return self.start
        if self.place.other:
            h = enlarged(fitted(h, self.style.width_at(self.place.resolution)), self.place.resolution)
            return h if self.start is None else self.start + h
        return h

    def read(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs of p(z | h), and the features that are added to h."""
        numbers = self.prior(h)
        if not self.has_features:
            return self.style.outputs(numbers), None
        own = 2 * self.style.channels
        numbers, features = numbers.split((own, numbers.shape[-3] - own), dim=-3)
        return self.style.outputs(numbers), features

    def hand_on(self, h: Tensor, features: Tensor | None, z: Tensor) -> Tensor:
        """The state after z ``[..., C, R, R]``."""
        told = self.project(z)
        if self.style.skips:
            told = (h if features is None else h + features) + told
        below: Tensor = told + self.residual(told)
        return below


class UpwardBlock(nn.Module):
    """A block of the upward pass: ``h + net(h)``, then the mean of F x F pixels.

    >>> block = UpwardBlock(Place(4, 2), BlockStyle(width=8), depth=3, source=torch.Generator())
    >>> block(torch.zeros(1, 5, 8, 4, 4)).shape
    torch.Size([1, 5, 8, 2, 2])
    """

    def __init__(self, place: Place, style: BlockStyle, *, depth: int, source: torch.Generator) -> None:
        super().__init__()
        self.place, self.width = place, style.width_at(after(place))
        width = style.width_at(place.resolution)
        self.net = style.upward.net(
            width, width, width=width, resolution=place.resolution, initialise=style.initialise, source=source
        )
        shrink(self.net[-1], depth**-0.5)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.net(h)
        if self.place.other:
            pooled = F.avg_pool2d(h.reshape(-1, *h.shape[-3:]), self.place.other)
            h = pooled.reshape(*h.shape[:-3], *pooled.shape[1:])
        return fitted(h, self.width)


def shrink(layer: nn.Module, by: float) -> None:
    """Multiply the weights that a convolution starts from."""
    assert isinstance(layer, Convolution)
    with torch.no_grad():
        layer.weight.mul_(by)


def fitted(h: Tensor, width: int) -> Tensor:
    """The first ``width`` channels, or all of them and zeros.

    >>> fitted(torch.ones(3, 1, 1), 2).flatten().tolist(), fitted(torch.ones(1, 1, 1), 2).flatten().tolist()
    ([1.0, 1.0], [1.0, 0.0])
    """
    more = width - h.shape[-3]
    return h if more == 0 else F.pad(h, (0, 0, 0, 0, 0, more)) if more > 0 else h[..., :width, :, :]


def enlarged(h: Tensor, resolution: int) -> Tensor:
    """Nearest neighbours: every pixel repeated, up to ``resolution`` rows and columns.

    >>> enlarged(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 4)[0, 0].tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    rows = h.shape[-1]
    times = resolution // rows
    repeated = h[..., :, None, :, None].expand(*h.shape[:-1], times, rows, times)
    return repeated.reshape(*h.shape[:-2], resolution, resolution)
