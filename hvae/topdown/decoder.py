"""A residual top-down decoder: a state h, carried from the coarsest resolution to x, that every layer reads and moves.

    p(z_L | h_L) p(z_{L-1} | h_{L-1}) … p(x | h_0),    h_{l-1} = block_l(h_l, z_l)

Values are flat, ``[K, B, D]``, here as everywhere; nets see ``[K, B, C, R, R]``. One walk computes h once for all
layers. A latent is recorded by channel: its units are the C channels, its width ``C * R * R``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError
from hvae.families import DiagonalGaussian, DiscretisedLogisticMixture, Family
from hvae.grammar import parse
from hvae.nets.convolutional import Convolution, Fold
from hvae.network import Decoder, Trace, walked
from hvae.shapes import Noise, Value
from hvae.topdown.blocks import Block, BlockStyle

VDVAE = BlockStyle()


@dataclass(frozen=True)
class Stop:
    """Where a pass down stops: at a variable, with the state that its distribution p is made of.

    >>> decoder = ResidualDecoder((4, 4), "1x1,4m1", DiagonalGaussian(16), source=torch.Generator())
    >>> stop = next(decoder.pass_down({}))
    >>> stop.name, stop.state.shape, stop.prior.mean.shape
    ('z2', torch.Size([1, 1, 32, 1, 1]), torch.Size([1, 1, 4]))
    """

    name: str
    state: Tensor
    """``[#K, #B, C, R, R]``"""
    prior: Distribution


class ResidualDecoder(Decoder):
    """p(x, z) of a VDVAE: one latent layer for each block of ``blocks`` (`hvae.grammar`), zL first.

    ``image_shape`` is (rows, columns), (3, rows, columns) or (rows, columns, 3), square; x is distributed by
    ``observation``, a family of as many numbers. The nets start from ``source``. Raises `ConfigError`, one sentence,
    for what does not fit together.

    >>> import torch
    >>> from hvae import Bernoulli, BlockStyle, ResidualDecoder, noise
    >>> style = BlockStyle(width=8, channels=2)
    >>> decoder = ResidualDecoder((8, 8), "1x1,4m1,8m4", Bernoulli(64), style, source=torch.Generator())
    >>> decoder.variables, decoder.parents("z1"), decoder.family("z2").units
    (('z3', 'z2', 'z1', 'x'), ('z3', 'z2'), 2)
    >>> trace = decoder.walk({}, noise(decoder.noise_specs(), 5, 7, seed=0, purpose="example"))
    >>> {name: tuple(site.value.shape) for name, site in trace.items()}
    {'z3': (5, 7, 2), 'z2': (5, 7, 32), 'z1': (5, 7, 128), 'x': (5, 7, 64)}
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        blocks: str,
        observation: Family,
        style: BlockStyle = VDVAE,
        *,
        source: torch.Generator,
    ) -> None:
        super().__init__()
        self.pixels, self.style = _square(image_shape), style
        side = self.pixels.rows
        places = parse("decoder", blocks, side)
        self.n_per_pixel = _per_pixel(self.pixels, observation)
        self.names = tuple(f"z{layer}" for layer in range(len(places), 0, -1))
        self.places = dict(zip(self.names, places, strict=True))
        self.blocks = nn.ModuleDict(
            {
                name: Block(place, style, depth=len(places), source=source, first=name == self.names[0])
                for name, place in self.places.items()
            }
        )
        self.families = nn.ModuleDict(
            {name: DiagonalGaussian(style.channels, pixels=at.resolution**2) for name, at in self.places.items()}
        )
        self.families["x"] = observation
        width = style.width_at(side)
        self.gain, self.bias = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))
        self.to_x = Convolution(width, self.n_per_pixel, style.initialise, source, kernel=style.out_kernel, stride=1)
        self.fold = nn.Flatten(-3) if observation.planes else Fold(self.pixels)

    @property
    def variables(self) -> tuple[str, ...]:
        return (*self.names, "x")

    def parents(self, name: str) -> tuple[str, ...]:
        above = self.variables[: self.variables.index(name)]
        return above if self.style.skips else above[-1:]

    def family(self, name: str) -> Family:
        family = self.families[name]
        assert isinstance(family, Family)
        return family

    def event(self, name: str) -> tuple[int, ...]:
        if name not in self.places:
            return super().event(name)
        side = self.places[name].resolution
        return (self.style.channels, side, side)

    @property
    def row_size(self) -> int:
        states = (self.style.width_at(at.resolution) * at.resolution**2 for at in self.places.values())
        return max(super().row_size, *states)

    def block(self, name: str) -> Block:
        """The block of a latent."""
        block = self.blocks[name]
        assert isinstance(block, Block)
        return block

    def pass_down(self, values: Mapping[str, Value]) -> Iterator[Stop]:
        """`descend`, with the state at every stop, which a posterior may read too."""
        h: Tensor | None = None
        for name in self.names:
            block = self.block(name)
            state = block.begin(h)
            state = state if h is not None else state[None, None]
            outputs, features = block.read(state)
            yield Stop(name, state, self.family(name).distribution(outputs))
            side = block.place.resolution
            h = block.hand_on(state, features, values[name].unflatten(-1, (-1, side, side)))
        assert h is not None
        outputs = self.fold(self.to_x(h * self.gain + self.bias))
        yield Stop("x", h, self.family("x").distribution(outputs))

    def descend(self, values: Mapping[str, Value]) -> Iterator[tuple[str, Distribution]]:
        for stop in self.pass_down(values):
            yield stop.name, stop.prior

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        return walked(self, given, noise)


def _square(image_shape: Sequence[int]) -> Pixels:
    pixels = Pixels.of(image_shape)
    if pixels is None or pixels.rows != pixels.columns:
        raise ConfigError(
            f"image_shape is {tuple(image_shape)}; give a square image, as (28, 28), (3, 32, 32) or (32, 32, 3)."
        )
    return pixels


def _per_pixel(pixels: Pixels, observation: Family) -> int:
    """Numbers of the distribution of x for each pixel."""
    n_pixels = pixels.rows * pixels.columns
    if observation.width != n_pixels * pixels.channels:
        raise ConfigError(
            f"the {type(observation).__name__} of x has {observation.width} numbers, and an image of {pixels.rows} x "
            f"{pixels.columns} pixels in {pixels.channels} colours {n_pixels * pixels.channels}; give it as many."
        )
    if isinstance(observation, DiscretisedLogisticMixture) and observation.pixels != pixels:
        theirs, ours = (", ".join(map(str, its.shape)) for its in (observation.pixels, pixels))
        raise ConfigError(
            f"the {type(observation).__name__} of x is for images of shape ({theirs}), and image_shape is ({ours}); "
            "give both the same."
        )
    if observation.n_outputs % n_pixels:
        raise ConfigError(
            f"{type(observation).__name__} reads {observation.n_outputs} numbers, which the {n_pixels} pixels do not "
            "share equally; give x a family whose numbers belong to pixels."
        )
    return observation.n_outputs // n_pixels
