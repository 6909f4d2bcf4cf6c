"""What a training step of a residual stack costs by its depth, and what saving memory costs.

All blocks stand at one resolution, so twice as many layers are twice the arithmetic.
"""

from collections.abc import Callable

import numpy as np
import torch

from hvae.evidence import HVAE
from hvae.experiments.shared.costs.bench.clock import Contender, in_turn
from hvae.families import Bernoulli
from hvae.fitting import fit
from hvae.objectives import Elbo
from hvae.topdown import BlockStyle, ResidualDecoder, ResidualPosterior

LAYERS = (6, 12, 24, 48)
SIDE, N_BATCH = 8, 16


def stack(n_layers: int, seed: int = 0) -> HVAE:
    """Blocks of 32 channels with latents of 4, at 8 x 8."""
    source = torch.Generator().manual_seed(seed)
    style = BlockStyle(width=32, channels=4)
    decoder = ResidualDecoder((SIDE, SIDE), f"{SIDE}x{n_layers}", Bernoulli(SIDE**2), style, source=source)
    return HVAE(decoder, ResidualPosterior(decoder, source=source))


def step(n_layers: int, *, checkpoint_gradients: bool = False) -> Callable[[], object]:
    """One step of one replica."""
    x = torch.from_numpy((np.random.default_rng(0).random((N_BATCH, SIDE**2)) < 0.3).astype(np.float32))
    stream = iter(
        fit(
            stack(n_layers), Elbo(), lambda step: x, n_steps=10**9, learning_rate=1e-4, clip_norm=100.0,
            checkpoint_gradients=checkpoint_gradients,
        )
    )  # fmt: skip
    return lambda: next(stream).loss_nats.tolist()


def measured(rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Kind of step -> "6 layers" and so on -> CPU milliseconds, all in turn."""
    kinds = {"hvae": False, "hvae, gradients computed again": True}
    calls = {
        (kind, n): Contender(step(n, checkpoint_gradients=again), 1 / 1000)
        for kind, again in kinds.items()
        for n in LAYERS
    }
    found = in_turn({f"{kind}|{n}": contender for (kind, n), contender in calls.items()}, rounds, seconds)
    return {kind: {f"{n} layers": found[f"{kind}|{n}"] for n in LAYERS} for kind in kinds}
