"""Consistency of encoder and decoder: where the chain of encoding and decoding comes to rest.

    z ~ q(z|x),  x' ~ p(x|z),  z' ~ q(z|x'),  …

Where q is the posterior p(z|x), the chain is a Gibbs sampler of p(x, z). Its stationary distribution of x is then p(x),
the distribution of single-shot (ancestral) samples. The distance of the two is the disagreement of encoder and decoder
(Flach et al. 2024). With a Markov decoder x' sees z1 alone, so bottom-up no layer of q above z1 enters the chain: it
compares the decoder's p(z1), which the layers above make, with the z1 on which q(z1|x) and p(x|z1) agree.
"""

from collections.abc import Sequence

import torch
from torch.distributions import Distribution

from hvae import rng
from hvae.evidence import HVAE
from hvae.shapes import Noise, Value


@torch.no_grad()
def chain(model: HVAE, x: Value, marks: Sequence[int], seed: int) -> dict[int, Value]:
    """Step -> x ``[n, D]`` of n independent chains that many steps from ``x``, for each of ``marks`` (from 1)."""
    found: dict[int, Value] = {}
    for step in range(1, max(marks) + 1):
        distribution, noise = _decoded(model, x, step, seed)
        x = model.decoder.family("x").draw(distribution, noise)[0]
        if step in marks:
            found[step] = x
    return found


@torch.no_grad()
def mean_after(model: HVAE, x: Value, step: int, seed: int) -> Value:
    """``[n, D]`` the mean of the distribution that the chain draws from at that step, from its states ``x`` before."""
    distribution, _ = _decoded(model, x, step, seed)
    return model.decoder.family("x").mean(distribution)[0]


def _decoded(model: HVAE, x: Value, step: int, seed: int) -> tuple[Distribution, Noise]:
    """p(x' | z) at z ~ q(z | x), and the noise of x'."""
    decoder = model.decoder
    noise = rng.noise(
        {**model.noise_specs(), "x": decoder.noise_specs()["x"]}, 1, len(x),
        seed=seed, purpose="encode and decode", step=step, device=str(x.device), dtype=x.dtype,
    )  # fmt: skip
    visited = model.infer(x.unsqueeze(0), noise)
    return decoder.distribution("x", {name: site.value for name, site in visited.items()}), noise["x"]
