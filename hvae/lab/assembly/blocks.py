"""A residual top-down stack of blocks (`hvae.topdown`), and what its blocks ask of the data."""

from collections.abc import Mapping

import torch
from torch import nn

from hvae.data import Dataset
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.grammar import parse
from hvae.lab.config import BlockMerge, BlocksConfig
from hvae.posterior import Merge, alone, shared
from hvae.topdown import BlockStyle, Body, ResidualDecoder, ResidualPosterior

MERGES: Mapping[BlockMerge, tuple[Merge, Merge]] = {
    "alone": (alone, alone),
    "ladder": (shared, alone),
    "shared": (shared, shared),
}
"""how the encoder's distribution becomes q: below the top, and at the top"""


def check_blocks(blocks: BlocksConfig, data: Dataset) -> None:
    """Refuse data that are no square images, and blocks for images of another size."""
    pixels = Pixels.of(data.image_shape)
    if pixels is None:
        raise ConfigError(
            f"model.blocks are for images, but {data.name} holds rows of {data.train.shape[1]} numbers; leave "
            "model.blocks out, which takes dense layers."
        )
    if pixels.rows != pixels.columns:
        raise ConfigError(
            f"model.blocks are for square images, but those of {data.name} have {pixels.rows} x {pixels.columns} "
            "pixels; pad or cut them, or leave model.blocks out."
        )
    try:
        parse("decoder", blocks.decoder, pixels.rows)
    except ConfigError as error:
        raise ConfigError(f"model.blocks on {data.name}: {error}") from None


def build_blocks(
    blocks: BlocksConfig, image_shape: tuple[int, ...], observation: Family, source: torch.Generator,
    entry: nn.Module | None,
) -> HVAE:  # fmt: skip
    """The stack, initialised from ``source``; its nets see x through ``entry``."""
    body = Body(bottleneck=blocks.bottleneck)
    style = BlockStyle(
        width=blocks.width, channels=blocks.channels, widths=blocks.width_at, prior=body, posterior=body,
        residual=body, upward=body, skips=blocks.skips,
    )  # fmt: skip
    decoder = ResidualDecoder(image_shape, blocks.decoder, observation, style, source=source)
    merge, top = MERGES[blocks.merge]
    posterior = ResidualPosterior(
        decoder, blocks.encoder or None, source=source, merge=merge, top=top, reads_state=blocks.reads_state,
        entry=entry,
    )  # fmt: skip
    return HVAE(decoder, posterior)
