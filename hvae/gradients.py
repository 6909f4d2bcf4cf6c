"""Gradient estimators: from K samples of a log-weight to a bound whose gradient is unbiased.

Gaussian draws are functions of parameters and noise, so plain differentiation follows them
(pathwise). Discrete draws are not; for them the score function adds, per sample k,

    (F(f_1..f_K) - F(f without k)) · ∇ log q(discrete draws of sample k),

where F aggregates the samples (their mean for the ELBO, their log-mean-exp for IWAE). The baseline
F(f without k) does not see sample k, so it leaves the expectation alone (Mnih and Rezende 2016,
equation 7, with the arithmetic mean of the others' weights; for the ELBO Kool et al. 2019).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hvae.numerics import log_mean_exp
from hvae.shapes import LogProb, PerDatum

Aggregate = Callable[[LogProb], PerDatum]
"""[K, B] -> [B]: how K samples of one datum become one bound"""


def mean(log_weight: LogProb) -> PerDatum:
    """The ELBO's aggregate: ``mean_k f_k``."""
    return log_weight.mean(0)


def log_mean(log_weight: LogProb) -> PerDatum:
    """The IWAE bound's aggregate: ``log mean_k exp f_k`` (Burda et al. 2016, equation 8)."""
    return log_mean_exp(log_weight, 0)


def estimate(log_weight: LogProb, aggregate: Aggregate, discrete_log_q: LogProb | None) -> PerDatum:
    """The bound ``F(f_1..f_K)`` per datum, carrying an unbiased gradient of its expectation.

    ``discrete_log_q`` is log q of the discrete draws, or None where all layers are reparametrised.
    Raises ValueError for discrete layers with K = 1, which leave nothing to make a baseline of.
    """
    bound = aggregate(log_weight)
    if discrete_log_q is None:
        return bound
    if len(log_weight) < 2:
        raise ValueError("the leave-one-out baseline of discrete layers needs at least 2 samples; got 1.")
    signal = (bound - leave_one_out(log_weight.detach(), aggregate)).detach()
    score = (signal * discrete_log_q).sum(0)
    return bound + score - score.detach()


def leave_one_out(log_weight: LogProb, aggregate: Aggregate) -> Tensor:
    """``F(f without k)`` for every k: ``[K, B]``."""
    n = len(log_weight)
    others = torch.arange(1, n, device=log_weight.device)
    index = (torch.arange(n, device=log_weight.device).unsqueeze(-1) + others) % n
    return aggregate(log_weight[index].transpose(0, 1))
