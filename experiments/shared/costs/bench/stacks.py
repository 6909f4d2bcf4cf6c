"""The stacks of the benchmark: shapes, weights as arrays, data and draws.

    p(z_L) … p(z1 | z2) p(x | z1),  q(z1 | x) … q(z_L | z_{L-1}):  Gaussian with diagonal variance, x Bernoulli

A net is a list of (weight ``[n_out, n_in]``, bias ``[n_out]``) with tanh between.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.lab.assembly import build_hvae
from hvae.lab.config import ModelConfig
from hvae.posterior import NetworkPosterior

Array = NDArray[np.float32]
Net = list[tuple[Array, Array]]
N_PIXELS = 784


@dataclass(frozen=True)
class Shape:
    """Latent widths and hidden widths of each layer, z1 first."""

    name: str
    latents: tuple[int, ...]
    hidden: tuple[tuple[int, ...], ...]

    def model(self, seed: int = 0) -> HVAE:
        """A stack of the house."""
        config = ModelConfig(latents=self.latents, hidden=self.hidden, activation=("tanh",))
        return build_hvae(config, dataset(), seed=seed)


BURDA = Shape("two layers, 100 and 50 units (Burda et al. 2016)", (100, 50), ((200, 200), (100, 100)))
FIVE = Shape("five layers, 64 to 4 units", (64, 32, 16, 8, 4), ((128,),) * 5)
ONE = Shape("one layer, 50 units", (50,), ((200, 200),))


@dataclass(frozen=True)
class Stack:
    """Weights of a stack: ``encoder[l]`` gives z_{l+1}, ``decoder[0]`` gives x and ``decoder[l]`` gives z_l."""

    encoder: list[Net]
    decoder: list[Net]

    @staticmethod
    def of(model: HVAE) -> "Stack":
        assert isinstance(model.posterior, NetworkPosterior)
        network, decoder = model.posterior.network, model.decoder
        names = ("x", *model.latents[:-1])
        return Stack(
            [_net(network[name].net) for name in network.variables],
            [_net(decoder[name].net) for name in names],  # type: ignore[index]
        )

    @property
    def widths(self) -> list[int]:
        """Of the latents, z1 first."""
        return [len(net[-1][1]) // 2 for net in self.encoder]

    @property
    def n_weights(self) -> int:
        return sum(w.size + b.size for net in (*self.encoder, *self.decoder) for w, b in net)


def _net(net: torch.nn.Module) -> Net:
    return [
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in net.modules()
        if isinstance(layer, torch.nn.Linear)
    ]


def images(n: int = 2000) -> Array:
    """Binary data ``[n, 784]``: what is timed does not depend on what they show."""
    return (np.random.default_rng(0).random((n, N_PIXELS)) < 0.15).astype(np.float32)


def dataset() -> Dataset:
    x = torch.from_numpy(images(100))
    return Dataset("bench", train=x, test=x[:50], image_shape=(N_PIXELS,), kind="binary", dynamic=False)


def batch_of(n_data: int, n_batch: int, step: int) -> NDArray[np.int64]:
    """Places of the data of a step."""
    return (np.arange(n_batch) + step * n_batch) % n_data


def draws(widths: list[int], n_samples: int, n_data: int) -> list[Array]:
    """Standard normal noise ``[K, B, ·]`` of each latent, z1 first."""
    source = np.random.default_rng(1)
    return [source.standard_normal((n_samples, n_data, width)).astype(np.float32) for width in widths]
