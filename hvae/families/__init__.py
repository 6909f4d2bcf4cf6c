"""Families: from a net's outputs to a distribution, and from noise to a draw.

A family reads ``[..., n_outputs]`` as the parameters of a distribution over values ``[..., width]``, and maps
(distribution, noise) to a value. Noise is an input, so losses are pure functions of parameters, data and
noise, and quadrature is a choice of noise. Distributions are `torch.distributions`, built without argument
checks: one bad replica must not stop the others, and data are checked once, when they are loaded.

Bernoulli, categorical and Gaussian are exponential families: ``log p(v) = base(v) + <T(v), eta> - A(eta)``, with
`statistic` T and `natural` (eta, A). One inner product scores many values under many distributions at once, and a
product of distributions adds their eta. Other families (`GeneralFamily`: autoregressive, mixture, flow, levels of
grey and colour, counts) score and draw; methods that need eta raise TypeError there. Nats.
"""

from hvae.families.autoregressive import Autoregressive
from hvae.families.counts import NegativeBinomial, Poisson
from hvae.families.discrete import Bernoulli, Categorical, Discrete, Relaxation
from hvae.families.divergence import has_closed_kl, has_unit_kl, kl, unit_kl
from hvae.families.family import Family
from hvae.families.flow import Flow
from hvae.families.gaussian import DiagonalGaussian, DiagonalNormal, FullGaussian
from hvae.families.general import GeneralFamily
from hvae.families.logistic import DiscretisedLogistic
from hvae.families.logistic_mixture import DiscretisedLogisticMixture
from hvae.families.mixture import EqualMixture, MixtureGaussian

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "DiagonalGaussian",
    "DiagonalNormal",
    "Discrete",
    "DiscretisedLogistic",
    "DiscretisedLogisticMixture",
    "EqualMixture",
    "Family",
    "Flow",
    "FullGaussian",
    "GeneralFamily",
    "MixtureGaussian",
    "NegativeBinomial",
    "Poisson",
    "Relaxation",
    "has_closed_kl",
    "has_unit_kl",
    "kl",
    "unit_kl",
]
