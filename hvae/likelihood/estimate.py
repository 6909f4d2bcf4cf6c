"""Estimates of log p(x) that carry their doubt, in nats.

A standard error is not enough: it is computed from the draws that came, and a poor q never draws what it
misses (importance sampling was off by five of its own standard errors at K = 200,000). So an `Estimate` also
holds, per datum, the effective sample size and Pareto k-hat, and says in a sentence when not to believe its number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from arviz_stats.base.array import array_stats
from torch import Tensor

from hvae.numerics import FloatArray, mean_interval
from hvae.vocabulary import FEWEST_SAMPLES, good_k

TOLERATED_SHARE = 0.05
"""share of the data that may be doubtful before the whole estimate is"""
HOPELESS_SHARE = 0.5
"""share of doubtful data from which nothing of the whole is left to believe"""
SMALLEST_ESS = 10.0
"""effective draws below which a standard error, itself about 1/sqrt(ESS), says nothing"""
EQUAL_ESS_SHARE = 0.999
"""effective share of the draws above which their weights count as equal"""
ROUNDING = 1e-6
"""log-weights closer than this, relative to their size, are equal to float32's rounding"""
LARGEST_SPAN = 700.0
"""nats between the largest weight and the tail's cutoff that `exp` can carry in float64"""
FEWEST_DISTINCT_SHARE = 0.5
"""share of the tail's draws that must differ, as the fitted distribution is continuous and has no ties"""


@dataclass(frozen=True)
class Estimate:
    """log p(x) of each datum `[B]`, in nats, with what is needed to doubt it.

    >>> log_px, error, ess, k = np.array([[-3.0, -5.0], [0.4, 0.4], [6.0, 6.0], [0.9, 0.9]])
    >>> estimate = Estimate(log_px, "lower", error, ess, pareto_k=k, n_samples=1000)
    >>> estimate.mean[1], estimate.warning.split(":")[0]
    (-4.0, 'Not to be believed as log p(x)')
    """

    log_px: FloatArray
    direction: Literal["exact", "lower", "upper"]
    """what `log_px` is in expectation: the value itself, or a bound on it from below or above"""
    standard_error: FloatArray
    ess: FloatArray
    """effective sample size of the weights, between 1 and `n_samples`"""
    pareto_k: FloatArray
    """k-hat of the weights; nan where it is undefined (the largest weights are equal or tied, or too few samples)"""
    n_samples: int

    @staticmethod
    def joined(parts: Sequence["Estimate"]) -> "Estimate":
        """One estimate of the data of several that were made in the same way."""
        first = parts[0]
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("log_px", "standard_error", "ess", "pareto_k")
        }
        return Estimate(direction=first.direction, n_samples=first.n_samples, **arrays)

    @property
    def mean(self) -> tuple[float, float, float]:
        """(low, middle, high): mean over data with its 95 % interval from their spread, which holds the noise too."""
        low, middle, high = mean_interval(self.log_px).tolist()  # a datum of log p(x) = -inf leaves no ends
        return low, middle, high

    @property
    def largest_pareto_k(self) -> float:
        """Above it K draws do not suffice (Vehtari et al. 2024, section 3.2.4)."""
        return good_k(self.n_samples)

    @property
    def warning(self) -> str:
        """Why the estimate should not be believed, in one sentence; empty when nothing speaks against it."""
        if self.direction == "exact":
            return ""
        n_data = len(self.log_px)
        broken = np.isnan(self.log_px)
        if broken.any():
            return f"Not a number: {broken.sum()} of {n_data} data have weights that are nan or infinite."
        if self.n_samples < FEWEST_SAMPLES:
            return (
                f"Nothing is known of its error: {self.n_samples} samples are too few to judge the weights; "
                f"draw at least {FEWEST_SAMPLES}."
            )
        heavy, poor = self.pareto_k > self.largest_pareto_k, self.ess < SMALLEST_ESS
        share = float((heavy | poor).mean())
        if share <= TOLERATED_SHARE:
            return ""
        grade = "Doubtful" if share < HOPELESS_SHARE else "Not to be believed"
        side = "below" if self.direction == "lower" else "above"
        return (
            f"{grade} as log p(x): Pareto k-hat is above {self.largest_pareto_k:.2f} for {heavy.sum()} and "
            f"the effective sample size below {SMALLEST_ESS:.0f} for {poor.sum()} of {n_data} data (median "
            f"{np.median(self.ess):.3g} of {self.n_samples} samples), so mass may be missed and it may lie far "
            f"{side}."
        )

    @property
    def note(self) -> str:
        """What an undefined k-hat means, where it occurs.

        Equal weights prove little: q on one of two modes has them too. Tied weights are judged by their ESS alone.
        """
        if self.direction == "exact" or self.n_samples < FEWEST_SAMPLES:
            return ""
        undefined = np.isnan(self.pareto_k) & np.isfinite(self.log_px)
        equal = undefined & (self.ess > EQUAL_ESS_SHARE * self.n_samples)
        tied = undefined & ~equal
        n_data = len(self.log_px)
        sentences = []
        if equal.any():
            sentences.append(
                f"The weights of {equal.sum()} of {n_data} data are equal and k-hat is undefined: consistent with an "
                "exact posterior, but also with draws that never left one mode."
            )
        if tied.any():
            sentences.append(
                f"The largest weights of {tied.sum()} of {n_data} data are tied, as those of discrete draws are, and "
                "k-hat is undefined: judge them by the effective sample size."
            )
        return " ".join(sentences)


def log_mean_error(ess: Tensor, n_samples: int) -> Tensor:
    """Standard error `sqrt(1/ESS - 1/K)` of a log-mean of K weights; infinite for one weight, whose spread is unknown.

    >>> log_mean_error(torch.tensor([1.0]), 1), log_mean_error(torch.tensor([4.0]), 4)
    (tensor([inf]), tensor([0.]))
    """
    if n_samples == 1:
        return torch.full_like(ess, math.inf)
    return (1 / ess - 1 / n_samples).clamp(min=0).sqrt()


def tail_length(n_samples: int) -> int:
    """Draws in the tail that k-hat is fitted to: `3 sqrt K`, or `K / 5` where that is less (Vehtari et al. 2024)."""
    return math.floor(3 * math.sqrt(n_samples)) if n_samples > 225 else n_samples // 5


def pareto_k(largest: FloatArray, n_samples: int) -> FloatArray:
    """k-hat `[B]` of weights known by the logarithms of the `largest [M, B]` of K, with M > `tail_length(K)`.

    Fit of a generalised Pareto distribution to the weights above a cutoff (Zhang and Stephens 2009). Undefined, nan,
    where fewer than five exceed it by more than rounding, or fewer than half of those differ from each other: weights
    of discrete draws are tied, and no continuous tail can be fitted to them. Neither "infinite" nor "exact" then.
    Infinite where the tail spans more than `exp` does.
    """
    if n_samples < FEWEST_SAMPLES:
        return np.full(largest.shape[1], np.nan)
    return np.array([_pareto_k(column, tail_length(n_samples)) for column in largest.T])


def _pareto_k(largest: FloatArray, n_tail: int) -> float:
    cutoff, *_, top = tail = np.sort(largest)[-n_tail - 1 :]
    if not top < math.inf:
        return math.nan
    if not cutoff > top - LARGEST_SPAN:
        # arviz would fit zeros and answer 0.05, an excellent mark; at a slightly smaller span k-hat is 80
        return math.inf
    rounding = ROUNDING * max(1.0, abs(top))
    exceeding = tail[tail > cutoff + rounding]
    n_distinct = 1 + int((np.diff(exceeding) > rounding).sum())
    if len(exceeding) < 5 or n_distinct < max(5, FEWEST_DISTINCT_SHARE * len(exceeding)):
        return math.nan
    try:
        with np.errstate(divide="raise", invalid="raise"):
            return _fitted(exceeding, cutoff)
    except FloatingPointError:
        # One of the fit's candidates is an exactly exponential tail, 0/0 in its formula. It would spoil the whole fit
        # and leave the prior's k-hat, an excellent mark. After a tiny shift no candidate is exactly exponential.
        exceeding[-1] -= 1e-3 * rounding
        with np.errstate(all="ignore"):
            return _fitted(exceeding, cutoff)


def _fitted(exceeding: FloatArray, cutoff: float) -> float:
    """k-hat of log-weights above a cutoff.

    arviz derives the tail from the number of weights: give it as many as make the tail just these. It reads
    log-likelihoods and negates them (its predecessor did not), hence the sign.
    """
    n_weights = 5 * len(exceeding) if len(exceeding) <= 45 else math.ceil(len(exceeding) ** 2 / 9)
    log_weight = np.full(n_weights, cutoff)
    log_weight[: len(exceeding)] = exceeding
    with np.errstate(over="ignore"):  # a tail so heavy that its fitted quantiles pass the largest float
        return float(array_stats.psislw(-log_weight)[1])  # type: ignore[no-untyped-call]
