"""Top-down stacks with spatial latents: VDVAE's residual decoder and its posterior, and the ladder as their switches.

A state h goes from the coarsest resolution to x, through one block a layer. p and q of a layer both read it, so one
walk serves both. Blocks are listed in VDVAE's grammar, and weights of its checkpoints can be loaded.
"""

from hvae.grammar import Place as Place
from hvae.grammar import mirrored as mirrored
from hvae.grammar import parse as parse
from hvae.topdown.blocks import BlockStyle as BlockStyle
from hvae.topdown.blocks import Body as Body
from hvae.topdown.blocks import from_log_scale as from_log_scale
from hvae.topdown.checkpoint import from_vdvae as from_vdvae
from hvae.topdown.decoder import ResidualDecoder as ResidualDecoder
from hvae.topdown.decoder import Stop as Stop
from hvae.topdown.posterior import ResidualPosterior as ResidualPosterior
