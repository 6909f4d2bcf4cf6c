"""Gradient estimators: from K samples of a log-weight to a bound whose gradient is unbiased.

Gaussian draws are functions of parameters and noise, so plain differentiation follows them
(pathwise). Discrete draws are not; for them the score function adds, per sample k,

    (F(f_1..f_K) - F(f without k)) · ∇ log q(discrete draws of sample k),

where F aggregates the samples (their mean for the ELBO, their log-mean-exp for IWAE). The baseline
F(f without k) does not see sample k, so it leaves the expectation alone (Mnih and Rezende 2016,
equation 7, with the arithmetic mean of the others' weights; for the ELBO Kool et al. 2019).

The pathwise gradient of f_k = log p(x, z_k) - log q(z_k|x) holds a part that only adds noise: the score
-∇ log q at fixed z_k. With w_k = exp f_k / Σ exp f and z_k(noise), over the weights of any number of layers,

    E ∇ log q(z_k) = 0,          E w_k ∇ log q(z_k) = E w_k (1 - w_k) · ∂f_k/∂z_k · ∇ z_k.

The first drops it from the ELBO (`stick`: sticking the landing, Roeder et al. 2017), the second turns it into
a path for IWAE (`score_as_path`: doubly reparametrised, Tucker et al. 2019; hierarchies in Bauer and Mnih 2021).
Both hold of q's every weight; in a ladder that includes the decoder's, as its conditionals are factors of q.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hvae.evidence import Evidence
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


def stick(evidence: Evidence) -> Evidence:
    """Evidence whose log q lacks the score: of reparametrised layers it is that of constant weights.

    Each rate so loses ``∇ log q(z_l|·)`` at fixed values, whose expectation is 0 given what was drawn before, so any
    *mean* of rates keeps its expected gradient, whatever constant weighs a layer (Roeder et al. 2017). Where q is the
    exact posterior, the gradient of q's weights is 0 for every single draw. With a weight that depends on the draws
    (IWAE's, a gate) the rest is biased. Discrete layers keep their score, as no path leads through their draws.
    Raises ValueError where all layers are discrete.
    """
    if not any(site.family.reparametrised for site in evidence.q.values()):
        raise ValueError(f"the layers {', '.join(evidence.q)} are all discrete; no path leads through their draws.")
    q = {name: evidence.frozen.q[name] if site.family.reparametrised else site for name, site in evidence.q.items()}
    return replace(evidence, q=q)


def score_as_path(log_weight: LogProb) -> PerDatum:
    """0 per datum, with a gradient whose expectation is that of ``Σ_k w_k ∇ log q(z_k)``.

    ``Σ_k w_k (1 - w_k) · ∂f_k/∂z_k · ∇ z_k`` (Tucker et al. 2019), where ``log_weight`` is f_k ``[K, B]`` of *frozen*
    evidence, so that its gradient is the path alone, and every draw is reparametrised. Batch norm breaks it: there
    a draw moves the weights of all others.
    """
    share = log_weight.detach().softmax(0)
    path = (share * (1 - share) * log_weight).sum(0)
    return path - path.detach()
