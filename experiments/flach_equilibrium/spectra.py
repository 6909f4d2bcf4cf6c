"""Per-unit information of every layer, under q on test images and under p on its own samples, replica by replica."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hvae import rng
from hvae.diagnostics.draws import Sampler
from hvae.evidence import HVAE
from hvae.experiments.flach_equilibrium.spectrum import bernoulli_information, probabilities
from hvae.lab.evaluation.replicas import Arrays, stack


@torch.no_grad()
def spectra(models: Sequence[HVAE], alive: Sequence[bool], x: Tensor, *, seed: int) -> Arrays:
    """``unit_information_nats/<player>/<latent>`` ``[R, D, 3]``: MI_u of q on images ``x [n, D]``, of p on n samples.

    One path an image, as draws of one image are not independent; NaN for a replica that failed.
    """
    measure = partial(_of_model, x=x, seed=seed)
    found = [measure(model) if good else None for model, good in zip(models, alive, strict=True)]
    measured = [arrays for arrays in found if arrays is not None]
    return stack(found, measured[0] if measured else measure(models[0]))


def _of_model(model: HVAE, x: Tensor, seed: int) -> Arrays:
    n = len(x)
    specs = model.decoder.noise_specs()
    samples = rng.noise(specs, 1, n, seed=seed, purpose="spectrum of p", device=str(x.device), dtype=x.dtype)
    traces = {"q": Sampler(model, x, seed).paths(1, "spectrum of q"), "p": model.decoder.walk({}, samples)}
    return {
        f"unit_information_nats/{player}/{name}": bernoulli_information(probabilities(trace[name], n))
        for player, trace in traces.items()
        for name in model.latents
    }
