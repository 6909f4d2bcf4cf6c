"""Estimates of log p(x) that carry their doubt, in nats.

A standard error is not enough: it is computed from the draws that came, and a poor q never draws what it
misses (importance sampling was off by five of its own standard errors at K = 200,000). So an `Estimate` also
holds, per datum, the effective sample size and Pareto k-hat, and says in a sentence when not to believe its number.
The sentence is about the mean over data, in nats: how far it may still move.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from arviz_stats.base.array import array_stats
from torch import Tensor

from hvae.numerics import BoolArray, FloatArray, IntArray, mean_interval
from hvae.vocabulary import FEWEST_SAMPLES, good_k

TOLERATED_NATS = 0.1
"""how far the mean over data may still move before it is doubted"""
HOPELESS_NATS = 1.0
"""from which on nothing of it is left to believe"""
HEAVIEST = 0.9
"""k-hat beyond which an error is not extrapolated: as 1 comes near, it falls ever more slowly"""
TOLERATED_SHARE = 0.05
"""share of the data that may be doubtful where a quantity has no such measure in nats"""
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

    >>> import numpy as np
    >>> from hvae import Estimate
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
    n_samples: int | IntArray
    """draws of each datum, or the one number of all"""
    halving: FloatArray | None = None
    """nats that the second half of the draws brought: `log_px` less the mean of both halves' own, without sign"""
    reach: FloatArray | None = None
    """nats that it would still move, were log w normal: then log E w is its mean and half its variance"""

    @staticmethod
    def joined(parts: Sequence["Estimate"]) -> "Estimate":
        """One estimate of the data of several that are of one direction."""
        first = parts[0]
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("log_px", "standard_error", "ess", "pareto_k")
        }
        for name in ("halving", "reach"):
            known = [getattr(part, name) for part in parts]
            arrays[name] = None if any(values is None for values in known) else np.concatenate(known)
        same = all(isinstance(part.n_samples, int) and part.n_samples == first.n_samples for part in parts)
        numbers = [np.broadcast_to(part.n_samples, part.log_px.shape) for part in parts]
        return Estimate(
            direction=first.direction, n_samples=first.n_samples if same else np.concatenate(numbers), **arrays
        )

    def taken(self, where: IntArray) -> "Estimate":
        """Of the data at these places, in their order."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays: dict[str, Any] = {name: value[where] for name, value in values.items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    @property
    def mean(self) -> tuple[float, float, float]:
        """(low, middle, high): mean over data with its 95 % interval from their spread, which holds the noise too."""
        low, middle, high = mean_interval(self.log_px).tolist()  # a datum of log p(x) = -inf leaves no ends
        return low, middle, high

    @property
    def largest_pareto_k(self) -> FloatArray:
        """Above it K draws do not suffice (Vehtari et al. 2024, section 3.2.4); one number, or one a datum."""
        largest: FloatArray = np.vectorize(good_k, otypes=[float])(self.n_samples)
        return largest

    @property
    def doubtful(self) -> BoolArray:
        """Data with a tail too heavy for their draws, or too few effective ones."""
        heavy, poor = self.pareto_k > self.largest_pareto_k, self.ess < SMALLEST_ESS
        return np.asarray(heavy | poor)

    @property
    def missing_nats(self) -> FloatArray:
        """What each may still miss ``[B]``; infinite where a doubtful datum is not known to miss less.

        With a tail of index k an error falls like K^-s, s = 1/k - 1 (at most 1): of what a doubling brings, all later
        ones bring 2^-s / (1 - 2^-s) times as much. A q too narrow shows that, a q too far away shows in `reach`.
        """
        k = np.where(np.isnan(self.pareto_k), 0.5, self.pareto_k).clip(0.5, HEAVIEST)
        ratio = 2 ** (1 - 1 / k)
        halving = np.zeros(self.log_px.shape) if self.halving is None else self.halving
        reach = np.full(self.log_px.shape, math.nan) if self.reach is None else self.reach
        reach = np.where(np.isnan(reach), math.inf, reach)
        rise = halving * ratio / (1 - ratio)
        return np.where(self.doubtful, np.maximum(reach, rise), rise)

    @property
    def doubt_nats(self) -> tuple[float, float]:
        """How far the mean over data may still move, by its sound and by its doubtful data."""
        if self.direction == "exact":
            return 0.0, 0.0
        doubtful, missing = self.doubtful, self.missing_nats
        return float(np.where(doubtful, 0.0, missing).mean()), float(np.where(doubtful, missing, 0.0).mean())

    @property
    def warning(self) -> str:
        """Why the mean should not be believed, in one sentence and in nats; empty when nothing speaks against it."""
        if self.direction == "exact":
            return ""
        n_data = len(self.log_px)
        broken = np.isnan(self.log_px)
        if broken.any():
            return f"Not a number: {broken.sum()} of {n_data} data have weights that are nan or infinite."
        fewest = int(np.min(self.n_samples))
        if fewest < FEWEST_SAMPLES:
            return (
                f"Nothing is known of its error: {fewest} samples are too few to judge the weights; "
                f"draw at least {FEWEST_SAMPLES}."
            )
        sound, doubtful = self.doubt_nats
        if sound + doubtful <= TOLERATED_NATS:
            return ""
        grade = "Doubtful" if sound + doubtful < HOPELESS_NATS else "Not to be believed"
        side = "below" if self.direction == "lower" else "above"
        far, part = (f"{nats:.2g}" if nats < math.inf else "any number of" for nats in (sound + doubtful, doubtful))
        return (
            f"{grade} as log p(x): its mean may lie {far} nats {side}. {self.doubtful.sum()} of {n_data} data have too "
            f"heavy a tail or fewer than {SMALLEST_ESS:.0f} effective draws, and may move it by {part} nats; as the "
            f"halves of the draws differ, the others may by {sound:.2g}."
        )

    @property
    def note(self) -> str:
        """What an undefined k-hat means, where it occurs.

        Equal weights prove little: q on one of two modes has them too. Tied weights are judged by their ESS alone.
        """
        if self.direction == "exact" or np.min(self.n_samples) < FEWEST_SAMPLES:
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
