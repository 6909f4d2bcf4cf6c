"""The posterior without a net: q fitted to each datum, beside a decoder that is left as it is.

The best of mean field for each datum, ``q_i = argmax ELBO(q_i; x_i)`` over factorised distributions, with free
parameters for every datum and layer (Hinton and van Camp 1993; amortisation gap in Cremer, Li and Duvenaud 2018). It is
what an encoder of the order mean-field would reach, were its nets without limit, so ELBO(fitted) - ELBO(mean-field) is
what amortisation costs. `suboptimality` keeps the amortised q and refines it; here nothing is left of it. Nats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvae import rng
from hvae.evidence import HVAE
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family, FullGaussian
from hvae.network import BeliefNetwork, Conditional, Decoder
from hvae.objectives import Elbo, Objective, StickingTheLanding
from hvae.posterior import NetworkPosterior


class Rows(nn.Module):
    """Free outputs ``[N, n_outputs]`` for N images, in the place of a net; the image itself finds its row.

    The key of an image is its projection on one random direction, in float64. The nearest of the sorted keys counts, if
    it is as near as the rounding of two sums of the same terms allows. So data need no index, and any batch will do,
    inside `vmap` too. Equal images share a row. An image that is not stored has outputs NaN, as nothing was fitted to
    it. Raises ValueError where two images have keys that rounding could confuse.

    >>> rows = Rows(torch.eye(3), outputs=torch.zeros(2))
    >>> rows(torch.tensor([[1.0, 0.0, 0.0], [5.0, 5.0, 5.0]])).tolist()
    [[0.0, 0.0], [nan, nan]]
    """

    direction: Tensor
    keys: Tensor

    def __init__(self, images: Tensor, outputs: Tensor) -> None:
        super().__init__()
        source = rng.generator(0, "rows of images")
        direction = torch.randn(images.shape[-1], generator=source, dtype=torch.float64).to(images.device)
        distinct = images.unique(dim=0).double()
        keys = (distinct @ direction).sort().values
        self.tolerance = (
            len(direction) * torch.finfo(torch.float64).eps * float((distinct.abs() @ direction.abs()).max())
        )
        if (keys.diff() <= 2 * self.tolerance).any():
            raise ValueError("two of the images differ by less than rounding; leave one of them out.")
        self.register_buffer("direction", direction)
        self.register_buffer("keys", keys)
        self.outputs = nn.Parameter(outputs.to(images).expand(len(keys), -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        key = x.double() @ self.direction
        after = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        before = (after - 1).clamp(min=0)
        row = torch.where((self.keys[after] - key).abs() < (self.keys[before] - key).abs(), after, before)
        stored = (self.keys[row] - key).abs() <= self.tolerance
        return torch.where(stored.unsqueeze(-1), self.outputs[row], torch.nan)


def unamortised(decoder: Decoder, images: Tensor) -> NetworkPosterior:
    """``q(z_l | x)`` with free parameters for each of ``images [N, D]``: a factorised distribution for each layer.

    It starts as N(0, I), or as fair Bernoulli or categorical units.

    Raises ValueError for a layer that is neither Gaussian nor Bernoulli nor categorical.
    """
    names = [name for name in reversed(decoder.variables) if name != "x"]
    distributions = {name: _factorised(decoder.family(name), name) for name in names}
    rows = {name: Rows(images, distribution.standard_outputs()) for name, distribution in distributions.items()}
    return NetworkPosterior(
        BeliefNetwork([Conditional(name, ["x"], rows[name], distributions[name]) for name in names])
    )


def _factorised(family: Family, name: str) -> Family:
    match family.kin:
        case DiagonalGaussian() | FullGaussian():
            return DiagonalGaussian(family.units, pixels=family.width // family.units)
        case Bernoulli():
            return Bernoulli(family.units)
        case Categorical(n_classes=n_classes):
            return Categorical(family.units, n_classes)
        case _:
            raise ValueError(
                f"{name} is a {type(family).__name__}, which has no factorised distribution of its own for every "
                "image; use Gaussian layers, Bernoulli or categorical units."
            )


@dataclass(frozen=True)
class Ascent:
    """How much is spent on the fit of each datum, by Adam, from N(0, I), or fair Bernoulli and categorical units.

    >>> Ascent(n_steps=100).learning_rate
    0.1
    """

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
