"""Exact answers by other arithmetic than the model's own."""

from hvae.reference.affine import AffineGaussian, JointGaussian, gaussian_mutual_information
from hvae.reference.answers import Gaps, NoReferenceError, Reference
from hvae.reference.discrete import DiscreteChain
from hvae.reference.linear_gaussian import LinearGaussian
from hvae.reference.quadrature import Quadrature
from hvae.reference.solve import solve
from hvae.reference.thresholds import ppca, single_layer, two_layer

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
    "ppca",
    "single_layer",
    "solve",
    "two_layer",
]
