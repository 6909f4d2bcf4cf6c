"""Intervals for a quantity known between bounds: each bound's bootstrap over data, clipped and put in order."""

from dataclasses import dataclass

import numpy as np

from hvae.diagnostics.draws import FloatArray
from hvae.numerics import bootstrap_interval

ROWS = 32
"""draws scored at once against all laws: bounds the memory"""


@dataclass(frozen=True)
class Information:
    """Intervals (low, middle, high) in nats, and what they took."""

    about_datum: FloatArray
    """I_l"""
    from_parent: FloatArray
    """J_l"""
    n_paths: int
    """M bottom-up; top-down the number of images in the mixture"""


@dataclass(frozen=True)
class Intervals:
    """How intervals are made, and the threshold that they are asked about."""

    epsilon: float
    n_bootstrap: int
    seed: int

    def low(self, *lower_bounds: FloatArray) -> float:
        """The highest low end among the bootstraps of lower bounds, each the mean of terms ``[n]``."""
        return max(float(self._interval(terms)[0]) for terms in lower_bounds)

    def high(self, *upper_bounds: FloatArray) -> float:
        """The lowest high end among the bootstraps of upper bounds, each the mean of terms ``[n]``."""
        return min(float(self._interval(terms)[2]) for terms in upper_bounds)

    def open(self, interval: FloatArray) -> bool:
        """Whether the interval leaves the question "more than epsilon?" open."""
        return bool(interval[0] < self.epsilon < interval[2])

    def _interval(self, terms: FloatArray) -> FloatArray:
        return bootstrap_interval(terms, self.n_bootstrap, self.seed)


def ordered(low: float, high: float, middle: float | None = None) -> FloatArray:
    """(low, middle, high), none below 0; a clipped high end takes the others along. The middle is the midpoint."""
    high = max(high, 0.0)
    low = min(max(low, 0.0), high)
    return np.array([low, (low + high) / 2 if middle is None else min(max(middle, low), high), high])
