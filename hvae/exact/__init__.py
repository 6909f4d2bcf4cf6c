"""Exact answers by other arithmetic than the model's own."""

from hvae.exact.answers import Gaps, NoReferenceError, Reference
from hvae.exact.discrete import DiscreteChain
from hvae.exact.joint import AffineGaussian, JointGaussian, gaussian_mutual_information
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.exact.quadrature import Quadrature
from hvae.exact.solve import solve

__all__ = [
    "AffineGaussian",
    "DiscreteChain",
    "Gaps",
    "JointGaussian",
    "LinearGaussian",
    "NoReferenceError",
    "Quadrature",
    "Reference",
    "gaussian_mutual_information",
    "solve",
]
