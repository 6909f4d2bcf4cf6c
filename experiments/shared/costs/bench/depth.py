"""What a training step and a diagnosis of a residual stack cost by its depth, and what saving memory costs.

All blocks stand at one resolution, so twice as many layers are twice the arithmetic.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

import hvae
from hvae.diagnosis.sizes import Sizes
from hvae.evidence import HVAE
from hvae.experiments.shared.costs.bench.clock import Contender, in_turn
from hvae.families import Bernoulli
from hvae.fitting import fit
from hvae.objectives import Elbo
from hvae.topdown import BlockStyle, ResidualDecoder, ResidualPosterior

LAYERS = (6, 12, 24, 48)
SIDE, N_BATCH = 8, 16
SIZES = Sizes(
    max_paths=4, n_mixture=1, n_alternatives=2, n_paths=2, n_paths_use=2, n_paths_knockout=2, n_likelihood=100,
    n_samples=20,
)  # fmt: skip
"""of a diagnosis: every quantity of as many images as usual, by few draws"""


def stack(n_layers: int, side: int = SIDE, width: int = 32) -> HVAE:
    """Blocks of so many channels with latents of 4, all at the size of the image."""
    source = torch.Generator().manual_seed(0)
    style = BlockStyle(width=width, channels=4)
    decoder = ResidualDecoder((side, side), f"{side}x{n_layers}", Bernoulli(side**2), style, source=source)
    return HVAE(decoder, ResidualPosterior(decoder, source=source))


def images(n: int, side: int) -> torch.Tensor:
    return torch.from_numpy((np.random.default_rng(0).random((n, side**2)) < 0.3).astype(np.float32))


def step(n_layers: int, *, checkpoint_gradients: bool = False) -> Callable[[], object]:
    """One step of one replica."""
    x = images(N_BATCH, SIDE)
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


def diagnoses() -> dict[str, dict[str, float]]:
    """CPU seconds of a diagnosis by the number of layers, each once: `SIZES`, blocks of 16 channels at 4 x 4."""
    times, x = {}, images(2 * SIZES.n_images, 4)
    for n in LAYERS:
        model, begun = stack(n, 4, 16).eval(), time.process_time()
        hvae.diagnose(model, x, sizes=SIZES, progress=False)
        times[f"{n} layers"] = time.process_time() - begun
    return {"hvae": times}
