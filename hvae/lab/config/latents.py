"""Names of inference orders and of latent distributions, and what they have in common."""

from collections.abc import Mapping
from typing import Literal

Order = Literal["bottom-up", "bottom-up-x", "mean-field", "top-down", "top-down-shared", "unamortised", "exact"]
OrderName = Literal[Order, "ladder"]
"""what is accepted for an order; ladder is another name of top-down"""
MERGING = ("top-down", "top-down-shared")
"""orders in which q of a layer is a product with the decoder's distribution"""
VAMP_ORDERS = ("bottom-up", "bottom-up-x", "mean-field")
"""orders in which the encoder's distribution of the top layer is one conditional"""
LatentFamily = Literal[
    "gaussian",
    "full-gaussian",
    "bernoulli",
    "categorical",
    "autoregressive-gaussian",
    "autoregressive-bernoulli",
    "autoregressive-categorical",
    "mixture",
    "maf",
    "nsf",
]
VALUES: Mapping[str, str] = {
    "bernoulli": "binary",
    "autoregressive-bernoulli": "binary",
    "categorical": "categorical",
    "autoregressive-categorical": "categorical",
}
"""kind of a latent family's values, where they are not real numbers"""
REAL = "real numbers"
MERGED = ("gaussian", "bernoulli", "categorical")
"""distributions that factorise over units, as a ladder's merge and a rate per unit need"""
CENTRED = ("gaussian", "full-gaussian")
"""families that take their mean from the first outputs of the net"""
FLOORED = ("bottom-up", "bottom-up-x", "mean-field", "top-down")
"""orders in which the net alone gives q of the top layer"""
MOST_FLOOR_NATS = 8.0
"""largest floor per unit; beyond it the cap on a variance would be below the clamp of log-variances"""
DISCRETE = ("bernoulli", "categorical", "autoregressive-bernoulli", "autoregressive-categorical")
"""families with draws that no gradient passes through"""
