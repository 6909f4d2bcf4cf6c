"""The house itself."""

from collections.abc import Callable

import numpy as np
import torch

from hvae.evidence import HVAE
from hvae.experiments.shared.costs.bench.stacks import Array, Shape, batch_of
from hvae.fitting import fit
from hvae.likelihood import log_likelihood_curve
from hvae.objectives import Elbo, Iwae


def log_weight(model: HVAE, x: Array, noise: list[Array]) -> Array:
    """``[K, B]``."""
    with torch.no_grad():
        named = {name: torch.from_numpy(values) for name, values in zip(model.latents, noise, strict=True)}
        found: Array = model(torch.from_numpy(x).unsqueeze(0), named).log_weight.numpy()
    return found


def training(shape: Shape, n_replicas: int, n_batch: int, n_samples: int, x: Array) -> Callable[[], object]:
    """One step of R replicas."""
    data = torch.from_numpy(x)
    stream = iter(
        fit(
            [shape.model(seed) for seed in range(n_replicas)],
            Iwae() if n_samples > 1 else Elbo(),
            lambda step: data[torch.from_numpy(batch_of(len(data), n_batch, step))],
            n_steps=10**9,
            n_samples=n_samples,
        )
    )
    return lambda: next(stream).loss_nats.tolist()


def bound(model: HVAE, x: Array, n_samples: int) -> Callable[[], Array]:
    """L_K of each datum."""
    model.eval()
    data = torch.from_numpy(x)
    return lambda: np.asarray(log_likelihood_curve(model, data, (n_samples,), seed=0).estimate.log_px)
