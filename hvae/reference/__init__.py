"""Exact answers by other arithmetic than the model's own."""

from hvae.reference.linear_gaussian import (
    AffineGaussian,
    LinearGaussian,
    NotLinearGaussianError,
    gaussian_mutual_information,
)

__all__ = ["AffineGaussian", "LinearGaussian", "NotLinearGaussianError", "gaussian_mutual_information"]
