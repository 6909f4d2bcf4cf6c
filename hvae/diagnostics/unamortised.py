"""The posterior without a net: q fitted to each datum, beside a decoder that is left as it is.

The best of mean field for each datum, ``q_i = argmax ELBO(q_i; x_i)`` over factorised distributions, with free
parameters for every datum and layer (Hinton and van Camp 1993; amortisation gap in Cremer, Li and Duvenaud 2018). It is
what an encoder of the order mean-field would reach, were its nets without limit, so ELBO(fitted) - ELBO(mean-field) is
what amortisation costs. `suboptimality` keeps the amortised q and refines it; here nothing is left of it. Nats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae import rng
from hvae.evidence import HVAE
from hvae.network import Decoder
from hvae.objectives import Elbo, Objective, StickingTheLanding
from hvae.posterior import unamortised


@dataclass(frozen=True)
class Ascent:
    """How much is spent on the fit of each datum, by Adam, from N(0, I), or fair Bernoulli and categorical units."""

    n_steps: int = 600
    n_samples: int = 8
    """draws a step; discrete layers need 2 for their baseline"""
    learning_rate: float = 0.1
    """of the first step; it falls to 0 by a cosine, so that the noise of the last steps averages out"""

    def __post_init__(self) -> None:
        for knob, least in (("n_steps", 1), ("n_samples", 2)):
            if getattr(self, knob) < least:
                raise ValueError(f"{knob} of an ascent is {getattr(self, knob)}; give at least {least}.")


DEFAULT = Ascent()


@torch.enable_grad()
def fitted(decoder: Decoder, x: Tensor, ascent: Ascent = DEFAULT, *, seed: int) -> HVAE:
    """The same decoder with a posterior that was fitted to `x [n, D]`, and knows no other datum.

    Its ELBO is to be measured on draws with another key, and is a lower bound of the best. Raises ValueError for a
    layer that `unamortised` refuses, and where the fit is not finite.
    """
    model = HVAE(decoder, unamortised(decoder, x))
    parameters, bound = list(model.posterior.parameters()), _bound(model)
    optimiser = torch.optim.Adam(parameters, lr=ascent.learning_rate, betas=(0.9, 0.99))
    for step in range(ascent.n_steps):
        noise = rng.noise(
            model.noise_specs(), ascent.n_samples, len(x),
            seed=seed, purpose="unamortised", step=step, device=str(x.device), dtype=x.dtype,
        )  # fmt: skip
        loss = bound.on(model, x.unsqueeze(0), noise, step)[0] * len(x)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        for group in optimiser.param_groups:
            group["lr"] = ascent.learning_rate * (1 + math.cos(math.pi * step / ascent.n_steps)) / 2
        optimiser.step()
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise ValueError("the fit of a posterior to each datum is not finite; look for broken parameters.")
    return model


def _bound(model: HVAE) -> Objective:
    """The ELBO, without the score of q where a path replaces it: that is noise, and most of it near the best fit."""
    smooth = any(model.decoder.family(name).reparametrised for name in model.latents)
    return StickingTheLanding(Elbo()) if smooth else Elbo()
