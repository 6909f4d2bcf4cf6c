"""Names of the distributions of x, and what they have in common."""

from typing import Literal

ObservationFamily = Literal[
    "bernoulli", "gaussian", "discretised-logistic", "discretised-logistic-mixture", "poisson", "negative-binomial"
]
LEVELS = ("discretised-logistic", "discretised-logistic-mixture")
"""distributions of grey and colour values in levels"""
COUNTS = ("poisson", "negative-binomial")
"""distributions of counts"""
DISPERSED = (*LEVELS, "negative-binomial")
"""distributions of x with a scale or a dispersion that is learned, or an output of the net"""
ObservationVariance = Literal["network", "learned", "shared", "fixed"]
OF_X = ("observation", "n_levels", "observation_variance", "observation_start", "observation_components")
"""settings of the model that are those of x"""
