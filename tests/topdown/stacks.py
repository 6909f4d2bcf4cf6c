"""Small residual stacks for tests, with weights that are all moved: a start of zeros would hide a wrong net."""

from typing import Any

import torch

from hvae import HVAE, Bernoulli, BlockStyle, ResidualDecoder, ResidualPosterior
from hvae.families import Family

BLOCKS = "1x1,2m1,2x1,4m2,8m4,8x1"
"""six layers, z6 at 1x1 to z1 at 8x8"""


def stack(
    blocks: str = BLOCKS, *, side: int = 8, seed: int = 0, spread: float = 0.2, observation: Family | None = None,
    encoder: str | None = None, style: BlockStyle | None = None, **posterior: Any,
) -> HVAE:  # fmt: skip
    source = torch.Generator().manual_seed(seed)
    style = BlockStyle(width=8, channels=2) if style is None else style
    family = Bernoulli(side * side) if observation is None else observation
    decoder = ResidualDecoder((side, side), blocks, family, style, source=source)
    model = HVAE(decoder, ResidualPosterior(decoder, encoder, source=source, **posterior))
    with torch.no_grad():
        for weight in model.parameters():
            weight += spread * torch.randn(weight.shape, generator=source)
    return model.eval()
