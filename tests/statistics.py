"""Statistical assertions that state two error rates, after TensorFlow Probability's `statistical_testing`.

A test of a mean that never says what it could have seen proves nothing: 20,000 samples once passed a KL
weight wrong by 10 %. Here the caller names the smallest shift that matters, and a sample too small to see
it fails as loudly as a wrong mean.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def assert_mean(
    samples: ArrayLike, expected: ArrayLike, *, detect: float, false_fail: float = 1e-6, false_pass: float = 1e-6
) -> float:
    """Assert that independent samples `[n, ...]` have the mean `expected`, coordinate by coordinate; answer max |t|.

    A right mean fails with probability `false_fail` at most, a mean off by `detect` or more passes with
    probability `false_pass` at most; both are shared out over the coordinates (Bonferroni). Rests on the
    central limit theorem: weights with a heavy tail (k-hat above 0.5) do not belong here.
    """
    values = np.asarray(samples, dtype=np.float64)
    values = values.reshape(len(values), -1)
    n, n_coordinates = values.shape
    assert n >= 100, f"{n} samples are too few for the central limit theorem; draw at least 100."
    assert np.isfinite(values).all(), (
        f"{np.count_nonzero(~np.isfinite(values))} of {values.size} samples are not finite."
    )

    largest_t = float(stats.t.isf(false_fail / 2 / n_coordinates, n - 1))
    separation = largest_t + float(stats.t.isf(false_pass / n_coordinates, n - 1))
    error = values.std(axis=0, ddof=1) / math.sqrt(n)
    detectable = float((separation * error).max())
    assert detectable <= detect, (
        f"The sample is too small: {n} samples detect a shift of {detectable:.3g}, not of {detect:.3g}; "
        f"draw {math.ceil(n * (detectable / detect) ** 2)}."
    )

    shift = values.mean(axis=0) - np.broadcast_to(np.asarray(expected, dtype=np.float64), np.shape(samples)[1:]).ravel()
    # Samples without spread are compared up to rounding: their standard error is no measure of anything.
    rounding = 16 * np.finfo(np.float64).eps * np.abs(values).max(axis=0)
    t = np.abs(shift) / np.maximum(error, rounding + np.finfo(np.float64).tiny)
    worst = int(t.argmax())
    assert t[worst] <= largest_t, (
        f"The mean of {n} samples is off by {shift[worst]:+.3g} +- {error[worst]:.2g} at coordinate {worst}: "
        f"|t| = {t[worst]:.2f} where {largest_t:.2f} is the limit."
    )
    return float(t[worst])
