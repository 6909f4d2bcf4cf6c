"""Exact answers by other arithmetic than the model's own."""

from hvae.reference.answers import Gaps, NoReferenceError, Reference
from hvae.reference.linear_gaussian import AffineGaussian, LinearGaussian, gaussian_mutual_information

__all__ = [
    "AffineGaussian",
    "Gaps",
    "LinearGaussian",
    "NoReferenceError",
    "Reference",
    "gaussian_mutual_information",
]
