"""Intervals for a quantity known between bounds: each bound's interval over data, clipped and put in order.

To look again with more paths, or to take the best of several bounds as an end, gives chance more than one throw. Each
throw takes its share of the 5 % (Bonferroni), so a final interval misses the truth in at most 5 % of all cases, up to
the error of `numerics.mean_interval`.
"""

from dataclasses import dataclass, replace

import numpy as np

from hvae.numerics import FloatArray, mean_interval

ROWS = 32
"""draws scored at once against all distributions: bounds the memory"""


@dataclass(frozen=True)
class Information:
    """Intervals (low, middle, high) in nats, and what they took.

    >>> from hvae.diagnostics.draws import Sampler
    >>> from hvae.diagnostics.information import information
    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> found = information(Sampler(stack.model, stack.x, seed=0), epsilon=0.1, max_paths=16)["z2"]
    >>> found.about_datum.shape, found.n_paths
    ((3,), 16)
    """

    about_datum: FloatArray
    """I_l"""
    from_parent: FloatArray
    """J_l"""
    n_paths: int
    """M bottom-up; top-down the number of images in the mixture"""
    on_images: float
    """I_l on exactly the n images, where it has no nested bounds; NaN elsewhere"""


@dataclass(frozen=True)
class Intervals:
    """How intervals are made, and the threshold that they are asked about.

    >>> intervals = Intervals(epsilon=0.1)
    >>> intervals.open(np.array([0.05, 0.1, 0.2])), intervals.open(np.array([0.2, 0.3, 0.4]))
    (True, False)
    """

    epsilon: float
    n_throws: int = 1
    """looks at the question times bounds on each side"""

    def low(self, *lower_bounds: FloatArray) -> float:
        """The highest low end among the intervals of lower bounds, each the mean of terms ``[n]``."""
        return max(float(self._interval(terms)[0]) for terms in lower_bounds)

    def high(self, *upper_bounds: FloatArray) -> float:
        """The lowest high end among the intervals of upper bounds, each the mean of terms ``[n]``."""
        return min(float(self._interval(terms)[2]) for terms in upper_bounds)

    def open(self, interval: FloatArray) -> bool:
        """Whether the interval leaves the question "more than epsilon?" open."""
        return bool(interval[0] < self.epsilon < interval[2])

    def _interval(self, terms: FloatArray) -> FloatArray:
        if np.isposinf(terms).any():  # of some data nothing is known
            return np.array([-np.inf, np.inf, np.inf])
        return mean_interval(terms, level=1 - 0.05 / self.n_throws)

    def shared(self, n_looks: int, n_bounds: int) -> "Intervals":
        """The same, with the chance of a miss shared by so many looks and bounds."""
        return replace(self, n_throws=n_looks * n_bounds)


def ordered(low: float, high: float, middle: float | None = None) -> FloatArray:
    """(low, middle, high), none below 0; low and middle never exceed high. The middle is the midpoint unless given."""
    high = max(high, 0.0)
    low = min(max(low, 0.0), high)
    return np.array([low, (low + high) / 2 if middle is None else min(max(middle, low), high), high])
