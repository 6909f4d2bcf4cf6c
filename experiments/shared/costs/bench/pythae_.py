"""One layer in pythae: its own estimate of log p(x) by importance sampling, ``get_nll``."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hvae.experiments.shared.costs.bench.plain import sequential
from hvae.experiments.shared.costs.bench.stacks import N_PIXELS, Array, Stack


def _vae(stack: Stack) -> Any:
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = sequential(stack.encoder[0])

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.net(x.flatten(1)).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(sequential(stack.decoder[0]), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.net(z))

    (width,) = stack.widths
    config = VAEConfig(input_dim=(N_PIXELS,), latent_dim=width, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder()).eval()


def log_weight(stack: Stack, x: Array, noise: list[Array]) -> Array:
    """``[1, B]``: what ``get_nll`` sums, of one given draw."""
    vae, found = _vae(stack), []
    with torch.no_grad():
        for place in range(len(x)):
            eps = torch.from_numpy(noise[0][:1, place])
            vae._sample_gauss = lambda mean, deviation, eps=eps: (mean + deviation * eps, eps)
            found.append(vae.get_nll(torch.from_numpy(x[place : place + 1]), n_samples=1, batch_size=1))
    return np.array([found], dtype=np.float32)


def bound(stack: Stack, x: Array, n_samples: int, n_together: int) -> Callable[[], float]:
    """The mean of L_K over data."""
    vae, data = _vae(stack), torch.from_numpy(x)

    @torch.no_grad()
    def call() -> float:
        return float(vae.get_nll(data, n_samples=n_samples, batch_size=n_together))

    return call
