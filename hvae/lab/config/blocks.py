"""Settings of a residual top-down stack, in the grammar of VDVAE's blocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from hvae.errors import ConfigError
from hvae.grammar import Kind, Place, parse
from hvae.lab.config.checks import Between, Width, check_numbers, require

BlockMerge = Literal["alone", "ladder", "shared"]


@dataclass(frozen=True)
class BlocksConfig:
    """A stack of blocks, each a latent layer on a state that is carried from the coarsest resolution to the image."""

    decoder: str
    """blocks of p, from the coarsest resolution to the image: RxN is N blocks at R x R, RmS a block at R that takes
    over from S. The last is z1"""
    encoder: str = ""
    """blocks of the upward pass, from the image: RxN, or RdF, a block at R that then averages F x F pixels; as many as
    p has at each resolution where it is left out"""
    width: Width = 32
    """channels of the state"""
    widths: tuple[tuple[Width, ...], ...] = ()
    """resolutions where the state has other channels, as in [[1, 64], [4, 48]]"""
    channels: Width = 4
    """channels of each latent, which are its units"""
    bottleneck: Annotated[float, Between(1e-6, 1e3)] = 0.25
    """channels within a block's nets, as a share of the state's"""
    skips: bool = True
    """a block adds to the state, so that a layer sees all above it; without, it hands on its latent alone"""
    merge: BlockMerge = "alone"
    """q of a layer. alone: of the encoder's net. shared: its normalised product with p. ladder: shared below the top"""
    reads_state: bool = True
    """the encoder's nets see the state beside x. Without it and skips, merge ladder is that of Sønderby et al. 2016"""

    def __post_init__(self) -> None:
        check_numbers("model.blocks", self)
        places = self._parsed("decoder", self.decoder, None)
        upward = self._parsed("encoder", self.encoder, places[-1].resolution) if self.encoder else ()
        require(
            all(len(pair) == 2 for pair in self.widths) and len(self.width_at) == len(self.widths),
            f"model.blocks.widths is {[list(pair) for pair in self.widths]}; give pairs of a resolution and its "
            "channels, each resolution once, as in [[1, 64], [4, 48]].",
        )
        known = {place.resolution for place in (*places, *upward)}
        for resolution in self.width_at:
            require(
                resolution in known,
                f"model.blocks.widths names resolution {resolution}, where there is no block; give some of "
                f"{', '.join(map(str, sorted(known)))}.",
            )
        for place in places:
            resolution, width = place.resolution, self.width_at.get(place.resolution, self.width)
            require(
                width >= self.channels,
                f"model.blocks.channels is {self.channels}, but the state at resolution {resolution} has {width}; give "
                "latents fewer channels, or the state a larger width.",
            )

    @staticmethod
    def _parsed(kind: Kind, text: str, side: int | None) -> tuple[Place, ...]:
        try:
            return parse(kind, text, side)
        except ConfigError as error:
            raise ConfigError(f"model.blocks: {error}") from None

    @property
    def width_at(self) -> Mapping[int, int]:
        """Resolution -> channels of the state there, where they are not `width`."""
        return {pair[0]: pair[-1] for pair in self.widths if pair}

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Of each latent, z1 first."""
        return tuple(place.resolution for place in reversed(parse("decoder", self.decoder)))

    @property
    def units(self) -> tuple[int, ...]:
        """Channels of each latent, z1 first."""
        return (self.channels,) * len(self.resolutions)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of each latent, z1 first: channels times pixels."""
        return tuple(self.channels * resolution**2 for resolution in self.resolutions)
