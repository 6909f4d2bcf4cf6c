"""The distributions of the layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from hvae import families, nets
from hvae.families import Family
from hvae.lab.config import LatentFamily, ModelConfig


def latent_family(config: ModelConfig, kind: LatentFamily, units: int, source: torch.Generator) -> Family:
    """The family of a layer. Its own weights, if it has any, are drawn from ``source``."""
    variance = config.latent_variance
    match kind:
        case "gaussian":
            return families.DiagonalGaussian(units, variance=variance)
        case "full-gaussian":
            return families.FullGaussian(units, variance=variance)
        case "bernoulli":
            return families.Bernoulli(units)
        case "categorical":
            return families.Categorical(units, config.n_classes)
        case "autoregressive-gaussian" | "autoregressive-bernoulli" | "autoregressive-categorical":
            return families.Autoregressive(
                latent_family(config, UNIT[kind], units, source), config.n_masked, source=source
            )
        case "mixture":
            return families.MixtureGaussian(units, config.n_components)
        case "maf" | "nsf":
            n_hidden, n_transforms = config.n_masked, config.n_transforms
            return families.Flow(units, kind, n_hidden, n_transforms, source=source, variance=variance)


UNIT: Mapping[LatentFamily, LatentFamily] = {
    "autoregressive-gaussian": "gaussian",
    "autoregressive-bernoulli": "bernoulli",
    "autoregressive-categorical": "categorical",
    "mixture": "gaussian",
    "maf": "gaussian",
    "nsf": "gaussian",
}
"""family with its own weights or components -> the factorised one of the same values"""


def prior_family(config: ModelConfig, kind: LatentFamily, source: torch.Generator) -> Family:
    """The family of p(zL). N(0, I) is mean 0 and log-variance 0, fixed or learned.

    A standard prior is factorised, so that it has no weights that could learn another distribution.
    """
    config = replace(config, latent_variance="network")
    return latent_family(
        config, UNIT.get(kind, kind) if config.prior == "standard" else kind, config.latents[-1], source
    )


def observation_family(
    config: ModelConfig, image_shape: Sequence[int], seen: nets.Standardised | None = None
) -> Family:
    """The family of x, whose items have the shape ``image_shape``, in its own units where the nets have it ``seen``."""
    n_pixels = math.prod(image_shape)
    match config.observation:
        case "bernoulli":
            return families.Bernoulli(n_pixels)
        case "gaussian":
            log_variance = math.log(config.observation_start)
            units = None if seen is None else (seen.shift, seen.scale)
            return families.DiagonalGaussian(
                n_pixels, variance=config.observation_variance, log_variance=log_variance, units_of=units
            )
        case "discretised-logistic":
            n_levels, variance = config.n_levels, config.observation_variance
            assert variance != "shared"  # refused by the configuration
            return families.DiscretisedLogistic(n_pixels, n_levels=n_levels, variance=variance)
        case "discretised-logistic-mixture":
            return families.DiscretisedLogisticMixture(
                image_shape, n_components=config.observation_components, n_levels=config.n_levels
            )
        case "poisson":
            return families.Poisson(n_pixels)
        case "negative-binomial":
            assert config.observation_variance != "shared"  # refused by the configuration
            return families.NegativeBinomial(n_pixels, variance=config.observation_variance)
