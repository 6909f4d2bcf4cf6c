"""From log-weights to an estimate with its doubt: the one arithmetic of importance sampling and annealing.

    log_px    log 1/K sum_k w_k: from below. With inverse weights, minus the log of their mean: from above
    halving   log_px less the mean of the same over both halves of the draws. A bound that still moves with K moves here
    reach     mean log w + var(log w) / 2 - log_px, what log_px misses if log w is normal, and 0 at the least

The last is no bound. It is right where draws of q are far from the posterior and never meet it: there log w is about
quadratic, and a sum of many parts. Nats, in float64.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hvae.likelihood.estimate import Estimate, log_mean_error, pareto_k, tail_length
from hvae.numerics import FloatArray, StreamingLogMeanExp
from hvae.shapes import LogProb


class Weights:
    """What an estimate takes of ``n_samples`` log-weights ``[k, B]`` that come in chunks; O(sqrt K) numbers a datum.

    A weight of zero (-inf) is legal; a datum with a nan or +inf among its weights is nan throughout. The standard error
    is the delta method's, ``sqrt(1/ESS - 1/K)`` (Owen 2013, equation 9.8 on log).

    >>> weights = Weights(100)
    >>> for chunk in torch.zeros(2, 50, 3):
    ...     weights.update(chunk)
    >>> weights.estimate().ess.round()
    array([100., 100., 100.])
    """

    def __init__(self, n_samples: int, direction: Literal["lower", "upper"] = "lower") -> None:
        self._n_samples = n_samples
        self._direction = direction
        self._seen = 0
        self._all = StreamingLogMeanExp()
        self._halves = (StreamingLogMeanExp(), StreamingLogMeanExp())
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0
        self._origin: Tensor | None = None
        self._largest: Tensor | None = None
        self._broken: Tensor | bool = False

    def update(self, log_weight: LogProb) -> None:
        """Take in some more."""
        log_weight = log_weight.detach().double()
        self._broken = self._broken | (log_weight.isnan() | (log_weight == math.inf)).any(0)
        self._all.update(log_weight)
        half = self._n_samples // 2
        for stream, part in zip(self._halves, self._parts(log_weight, half), strict=True):
            if len(part):
                stream.update(part)
        if self._origin is None:
            self._origin = log_weight.nan_to_num(0.0, 0.0, 0.0).mean(0)
        centred = log_weight - self._origin
        self._sum, self._squares = self._sum + centred.sum(0), self._squares + centred.square().sum(0)
        merged = log_weight if self._largest is None else torch.cat([self._largest, log_weight])
        self._largest = merged.topk(min(tail_length(self._n_samples) + 1, len(merged)), dim=0).values
        self._seen += len(log_weight)

    def _parts(self, log_weight: LogProb, half: int) -> tuple[Tensor, Tensor]:
        """What belongs to the first half of the draws and to the second; an odd last one to neither."""
        first = max(0, min(len(log_weight), half - self._seen))
        last = max(first, min(len(log_weight), 2 * half - self._seen))
        return log_weight[:first], log_weight[first:last]

    def estimate(self, *, tails: bool = True) -> Estimate:
        """Of all that was seen, which must be as many as were promised; without ``tails`` k-hat, the dear part, is
        left undefined."""
        assert self._seen == self._n_samples and self._largest is not None and isinstance(self._broken, Tensor)
        broken, size = self._broken, self._all.ess

        def array(values: Tensor) -> FloatArray:
            marked: FloatArray = values.masked_fill(broken, math.nan).cpu().numpy()
            return marked

        value = self._all.value
        return Estimate(
            log_px=array(value if self._direction == "lower" else -value),
            direction=self._direction,
            standard_error=array(log_mean_error(size, self._n_samples)),
            ess=array(size),
            pareto_k=pareto_k(array(self._largest), self._n_samples) if tails else np.full(len(value), math.nan),
            n_samples=self._n_samples,
            halving=array(self._halving(value)),
            reach=array(self._reach(value)),
        )

    def _halving(self, value: Tensor) -> Tensor:
        if self._n_samples < 2:
            return torch.zeros_like(value)
        moved = value - sum(half.value for half in self._halves) / 2
        return torch.where(value.isfinite(), moved, 0.0)

    def _reach(self, value: Tensor) -> Tensor:
        """nan where a weight is zero, and log w has no mean."""
        assert isinstance(self._sum, Tensor) and isinstance(self._squares, Tensor) and self._origin is not None
        mean = self._sum / self._seen
        variance = self._squares / self._seen - mean.square()
        reach = (self._origin + mean + variance / 2 - value).clamp(min=0)
        return torch.where(reach.isfinite(), reach, math.nan)


def estimate(log_weight: LogProb, direction: Literal["lower", "upper"] = "lower", *, tails: bool = True) -> Estimate:
    """Of log-weights ``[K, B]`` at once; for "upper" those of inverse weights.

    >>> estimate(torch.zeros(30, 2)).log_px
    array([0., 0.])
    """
    weights = Weights(len(log_weight), direction)
    weights.update(log_weight)
    return weights.estimate(tails=tails)
