"""What seeds gave of one quantity, and how sure its mean is.

    values            the interval of the mean
    [S, n] per image  over seeds and images (`hvae.certain.crossed_interval`); of one seed, over its images alone
    [S] numbers       Student's t over seeds, and over seeds only
    [S] counts        none: a claim on a count is decided by the share of seeds (`hvae.analysis.claims`)

The difference of two samples is taken seed by seed where they share seeds, and image by image always. So two samples
of different images have none. A seed with a number that is not finite is left out. Nothing here resamples seeds: the
bootstrap over 4 of them holds a mean 80 to 89 % of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hvae.analysis.load import Array
from hvae.certain import crossed_interval


class NotMeasuredError(LookupError):
    """The runs cannot decide a claim; the message says why."""


@dataclass(frozen=True)
class Sample:
    """What each of S seeds gave.

    >>> Sample(np.array([[1.0, 3.0], [2.0, 4.0]]), seeds=(0, 1), images=("digits", 2)).means
    array([2., 3.])
    """

    values: Array
    """[S] a number of each seed, or [S, n] of each seed and image"""
    seeds: tuple[int, ...]
    images: tuple[object, ...] = ()
    """which images, for values [S, n]; equal where they are the same"""
    count: bool = False
    """whether the numbers are counts, or shares of few"""

    @property
    def means(self) -> Array:
        """[S]"""
        means: Array = self.values if self.values.ndim == 1 else self.values.mean(axis=1)
        return means

    @property
    def finite(self) -> "Sample":
        """Without the seeds that have a number that is not finite."""
        kept = np.isfinite(self.values).reshape(len(self.values), -1).all(axis=1)
        seeds = tuple(seed for seed, good in zip(self.seeds, kept, strict=True) if good)
        return Sample(self.values[kept], seeds, self.images, self.count)


def combined(function: Callable[..., Array], *samples: Sample) -> Sample:
    """A function of samples, seed by seed and, where they have images, image by image.

    Raises `NotMeasuredError` where seeds or images differ.

    >>> half = Sample(np.array([1.0, 2.0]), seeds=(0, 1))
    >>> combined(np.add, half, half).values
    array([2., 4.])
    """
    first = samples[0]
    if any(sample.seeds != first.seeds for sample in samples):
        raise NotMeasuredError("the runs have different seeds, so that their numbers cannot be put together")
    _same_images(*samples)
    values = function(*(sample.values for sample in samples))
    return Sample(np.asarray(values, dtype=float), first.seeds, first.images, all(sample.count for sample in samples))


def _same_images(*samples: Sample) -> None:
    if len({sample.values.shape[1:] for sample in samples}) > 1 or len({sample.images for sample in samples}) > 1:
        raise NotMeasuredError("the runs were measured on different images, or by different bounds; measure them alike")


@dataclass(frozen=True)
class Interval:
    """(low, middle, high) of a mean at 95 %, and what it counts.

    >>> of_mean(Sample(np.array([1.0, 2.0, 3.0]), seeds=(0, 1, 2))).over
    '3 seeds only'
    """

    low: float
    """infinite where there is too little; NaN for counts, and for no value"""
    middle: float
    high: float
    n_seeds: int
    over: str
    """what the mean is over, in words"""

    @property
    def half(self) -> float:
        """The longer half: what stands behind a ±. NaN where there is none."""
        longest = max(self.middle - self.low, self.high - self.middle)
        return longest if 0 < longest < np.inf else np.nan


def of_mean(sample: Sample, level: float = 0.95) -> Interval:
    """The interval of the mean of a sample."""
    kept = sample.finite
    n = len(kept.values)
    if kept.values.ndim == 2:
        return _crossed(kept.values, None, n, _images_of(n, kept.values.shape[1]), level)
    ends = (np.nan, float(np.mean(kept.values)), np.nan) if kept.count and n else t_interval(kept.values, level)
    return Interval(*ends, n, f"{in_words(n)} only")


def of_difference(first: Sample, second: Sample, level: float = 0.95) -> Interval:
    """The interval of the mean of ``first`` less ``second``. Raises `NotMeasuredError` where the images differ."""
    if first.seeds == second.seeds:
        return of_mean(combined(np.subtract, first, second), level)
    _same_images(first, second)
    one, other = first.finite, second.finite
    n, n_other = len(one.values), len(other.values)
    both = f"{n} and {in_words(n_other)}"
    if first.values.ndim == 2:
        n_images = first.values.shape[1]
        return _crossed(one.values, other.values, min(n, n_other), f"{both} and {n_images} images", level)
    return Interval(*welch_interval(one.values, other.values, level), min(n, n_other), f"{both} only")


def _images_of(n: int, n_images: int) -> str:
    return f"{n_images} images of one seed" if n == 1 else f"{in_words(n)} and {n_images} images"


def _crossed(values: Array, less: Array | None, n: int, over: str, level: float) -> Interval:
    if n == 0 or values.shape[1] < 2:
        middle = float(np.mean(values)) if less is None and values.size else np.nan
        return Interval(np.nan, middle, np.nan, n, over)
    return Interval(*crossed_interval(values, less, level), n, over)


def t_interval(values: Array, level: float = 0.95) -> tuple[float, float, float]:
    """(low, mean, high) of Student's interval over seeds. Infinite ends for fewer than two values, and for values
    that are all the same: their spread says nothing. NaN for none.

    It needs means that are about normal: of 4 log-normal values it holds the mean 84 % of the time.
    """
    n = len(values)
    if n == 0:
        return (np.nan, np.nan, np.nan)
    mean = float(np.mean(values))
    if n == 1 or np.ptp(values) == 0:
        return (-np.inf, mean, np.inf)
    half = float(_t(0.5 + level / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return (mean - half, mean, mean + half)


def welch_interval(first: Array, second: Array, level: float = 0.95) -> tuple[float, float, float]:
    """(low, difference, high) of two independent samples of unequal variance (Welch 1947)."""
    if min(len(first), len(second)) == 0:
        return (np.nan, np.nan, np.nan)
    difference = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) == 1:
        return (-np.inf, difference, np.inf)
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in (first, second)]
    total = sum(parts)
    if total == 0.0:
        return (-np.inf, difference, np.inf)
    freedom = total**2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = float(_t(0.5 + level / 2, freedom)) * np.sqrt(total)
    return (difference - half, difference, difference + half)


def _t(level: float, freedom: float) -> float:
    """The quantile of Student's t."""
    from scipy import special  # here, since a list of experiments decides nothing

    return float(special.stdtrit(freedom, level))


def in_words(n: int) -> str:
    """ "4 seeds"."""
    return f"{n} seed{'' if n == 1 else 's'}"
