"""Draws for diagnostics: q-traces of n images, in chunks, without gradients, from one key.

Every diagnostic sees the same n images (a random order, so the neighbour of an image is another
datum drawn at random) and asks for K paths through the stack per image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from numpy.typing import NDArray
from torch import Tensor

from hvae.evidence import HVAE, Evidence
from hvae.network import Trace
from hvae.rng import noise
from hvae.shapes import Noise

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Sampler:
    """q of one model on the images ``x [n, D]``."""

    model: HVAE
    x: Tensor
    seed: int

    @property
    def n_images(self) -> int:
        """n."""
        return len(self.x)

    def noise(self, n_paths: int, purpose: str) -> Mapping[str, Noise]:
        """Noise of ``n_paths`` visits of the latents per image."""
        return noise(
            self.model.noise_specs(), n_paths, self.n_images,
            seed=self.seed, purpose=purpose, device=str(self.x.device), dtype=self.x.dtype,
        )  # fmt: skip

    def paths(self, n_paths: int, purpose: str) -> Trace:
        """``n_paths`` visits of the latents per image."""
        return self.model.infer(self.x.unsqueeze(0), self.noise(n_paths, purpose))

    def evidence(self, n_paths: int, purpose: str) -> Evidence:
        """``n_paths`` visits per image, weighed."""
        return self.model.weigh(self.paths(n_paths, purpose), self.x.unsqueeze(0))


def per_datum(values: Tensor, n_images: int) -> FloatArray:
    """Mean over samples of ``[K, B, ...]`` in float64, as ``[..., B]``: the layout of the bootstrap."""
    mean = values.double().expand(values.shape[0], n_images, *values.shape[2:]).mean(0)
    return np.moveaxis(mean.cpu().numpy(), 0, -1)


