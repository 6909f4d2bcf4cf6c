"""Gradient estimators: from K samples of a log-weight to a bound with an unbiased gradient.

Gaussian draws are smooth functions of parameters and noise, so plain differentiation follows them
(pathwise). Discrete draws are steps; for them the score function adds, per sample k,

    (F(f_1..f_K) - F(f without k)) · ∇ log q(discrete draws of sample k),

where F aggregates the samples (their mean for the ELBO, their log-mean-exp for IWAE). The baseline
F(f without k) does not see sample k, so it does not change the expectation (for the ELBO Kool et al. 2019). Under
IWAE it is VIMCO (Mnih and Rezende 2016, equation 7) with the arithmetic mean of the others' weights in place of
w_k, as log 1/K (Σ_others w + mean_others w) = log mean_others w; `fill_in` is VIMCO with their geometric mean.

The pathwise gradient of f_k = log p(x, z_k) - log q(z_k|x) holds a part that only adds noise: the score
-∇ log q at fixed z_k. With w_k = exp f_k / Σ exp f and z_k(noise), over the weights of any number of layers,

    E ∇ log q(z_k) = 0,          E w_k ∇ log q(z_k) = E w_k (1 - w_k) · ∂f_k/∂z_k · ∇ z_k.

The first drops it from the ELBO (`stick`: sticking the landing, Roeder et al. 2017), the second turns it into
a path for IWAE (`score_as_path`: doubly reparametrised, Tucker et al. 2019; hierarchies in Bauer and Mnih 2021).
Both hold of q's every weight; in a ladder that includes the decoder's, as its conditionals are factors of q.

Where draws are constants there is no path: `clamped` evidence is for the covariance gradient. `awake` and `asleep`
are for two players, p and q, that each move only their own distribution.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hvae.evidence import HVAE, Evidence
from hvae.network import Trace
from hvae.numerics import log_mean_exp
from hvae.shapes import LogProb, Noise, PerDatum, Value

Aggregate = Callable[[LogProb], PerDatum]
"""[K, ..., B] -> [..., B]: how K samples of one datum become one bound"""
Baseline = Callable[[LogProb, Aggregate], LogProb]
"""f [K, B] and the aggregate -> for every k a number [K, B] that does not depend on sample k"""


def mean(log_weight: LogProb) -> PerDatum:
    """The ELBO's aggregate: ``mean_k f_k``."""
    return log_weight.mean(0)


def log_mean(log_weight: LogProb) -> PerDatum:
    """The IWAE bound's aggregate: ``log mean_k exp f_k`` (Burda et al. 2016, equation 8)."""
    return log_mean_exp(log_weight, 0)


def thermodynamic(partition: tuple[float, ...]) -> Aggregate:
    """The thermodynamic bound's aggregate: the left Riemann sum of ``∫_0^1 d/db log mean_k w_k^b db = log mean_k w_k``,

        ``Σ_d (b_{d+1} - b_d) Σ_k s_k f_k``,  s = softmax(b_d f),  b_0 = 0 < b_1 < … in ``partition``, then 1

    (Masrani et al. 2019, with the expectation under ``π_b ∝ q w^b`` taken over the K samples, as they do). The
    integrand rises with b, so the sum lies between ``mean`` and ``log_mean`` of the *same* samples, for any K.

    >>> log_weight = torch.tensor([[0.0], [2.0]])
    >>> [round(bound(log_weight).item(), 3) for bound in (mean, thermodynamic((0.0, 0.5)), log_mean)]
    [1.0, 1.231, 1.434]
    """

    def integral(log_weight: LogProb) -> PerDatum:
        cells = pairwise((*partition, 1.0))
        terms = [(right - left) * ((left * log_weight).softmax(0) * log_weight).sum(0) for left, right in cells]
        return sum(terms[1:], start=terms[0])

    return integral


def estimate(
    log_weight: LogProb, aggregate: Aggregate, discrete_log_q: LogProb | None, baseline: Baseline | None = None
) -> PerDatum:
    """The bound ``F(f_1..f_K)`` per datum, carrying an unbiased gradient of its expectation.

    ``discrete_log_q`` is log q of the discrete draws, or None where all layers are reparametrised; ``baseline`` is
    `leave_one_out` if none is given. Raises ValueError for discrete layers with K = 1, which leaves no other sample for
    a baseline.

    >>> log_q = torch.zeros(2, 1, requires_grad=True)
    >>> bound = estimate(torch.tensor([[1.0], [3.0]]), mean, log_q)
    >>> bound.item(), torch.autograd.grad(bound, log_q)[0].flatten().tolist()  # F(f_1, f_2) - F(f without k)
    (2.0, [-1.0, 1.0])
    """
    bound = aggregate(log_weight)
    if discrete_log_q is None:
        return bound
    if len(log_weight) < 2:
        raise ValueError("the leave-one-out baseline of discrete layers needs at least 2 samples; got 1.")
    signal = (bound - (baseline or leave_one_out)(log_weight.detach(), aggregate)).detach()
    score = (signal * discrete_log_q).sum(0)
    return bound + score - score.detach()


def leave_one_out(log_weight: LogProb, aggregate: Aggregate) -> LogProb:
    """``F(f without k)`` for every k: ``[K, B]``."""
    return aggregate(_others(log_weight))


def fill_in(log_weight: LogProb, aggregate: Aggregate) -> LogProb:
    """``F(f with f_k replaced by the mean of the others' f)`` for every k: ``[K, B]``.

    The others' f averaged is the logarithm of their weights' geometric mean, the baseline that VIMCO runs with (Mnih
    and Rezende 2016). With K = 2, and under the ELBO, it is `leave_one_out`.
    """
    others = _others(log_weight)
    return aggregate(torch.cat([others, others.mean(0, keepdim=True)]))


def _others(log_weight: LogProb) -> Tensor:
    """``[K - 1, K, B]``: the samples other than k, for every k."""
    n = len(log_weight)
    others = torch.arange(1, n, device=log_weight.device)
    index = (torch.arange(n, device=log_weight.device).unsqueeze(-1) + others) % n
    return log_weight[index].transpose(0, 1)


def covariance(log_weight: LogProb, log_q: LogProb, partition: tuple[float, ...]) -> PerDatum:
    """The value of ``thermodynamic(partition)``, carrying the covariance gradient of the thermodynamic integral.

    With s = softmax(b f) and means taken under it, ``∇ E_π f = mean ∇f + mean[(f - mean f) ∇(log q + b f)]``, as
    ``π_b ∝ q exp(b f)`` (Masrani et al. 2019). ``log_weight`` and ``log_q`` are those of `clamped` draws. It tends to
    the exact gradient of the sum's limit for K → ∞; for any K it is biased, as its means normalise themselves.
    """
    fixed = log_weight.detach()
    total = torch.zeros_like(log_weight[0])
    for left, right in pairwise((*partition, 1.0)):
        share = (left * fixed).softmax(0)
        centred = fixed - (share * fixed).sum(0)
        score = (share * centred * (log_q + left * log_weight)).sum(0)
        total = total + (right - left) * ((share * log_weight).sum(0) + score - score.detach())
    return total


def stick(evidence: Evidence) -> Evidence:
    """Evidence without the score of q: in reparametrised layers log q is that of constant weights.

    Each rate loses ``∇ log q(z_l|·)`` at fixed values, which has expectation 0 given the draws before z_l. So any
    *mean* of rates keeps its expected gradient, with any constant weight of a layer (Roeder et al. 2017). Where q is
    the exact posterior, the gradient of q's weights is 0 for every single draw. With a weight that depends on the draws
    (IWAE's, a gate) the rest is biased. Discrete layers keep their score, as no path leads through their draws.
    Raises ValueError where all layers are discrete.
    """
    if not any(site.family.reparametrised for site in evidence.q.values()):
        raise ValueError(f"the layers {', '.join(evidence.q)} are all discrete; no path leads through their draws.")
    q = {name: evidence.frozen.q[name] if site.family.reparametrised else site for name, site in evidence.q.items()}
    return replace(evidence, q=q)


def score_as_path(log_weight: LogProb) -> PerDatum:
    """0 per datum, with a gradient that has the expectation of ``Σ_k w_k ∇ log q(z_k)``.

    ``Σ_k w_k (1 - w_k) · ∂f_k/∂z_k · ∇ z_k`` (Tucker et al. 2019), where ``log_weight`` is f_k ``[K, B]`` of *frozen*
    evidence, so that its gradient is the path alone, and every draw is reparametrised. Batch norm breaks it: there
    a draw moves the weights of all others.
    """
    share = log_weight.detach().softmax(0)
    path = (share * (1 - share) * log_weight).sum(0)
    return path - path.detach()


def clamped(model: HVAE, x: Value, noise: Mapping[str, Noise]) -> Evidence:
    """Evidence of constant draws from q: gradients reach the weights alone, the opposite of `frozen`."""
    evidence = model.weigh(model.infer(x, {}, _values(model, x, noise)), x)
    return replace(evidence, redraw=model.redraw(x, noise))


def awake(model: HVAE, x: Value, noise: Mapping[str, Noise]) -> Evidence:
    """Evidence of the `players` on data, z ~ q(z|x)."""
    return replace(players(model, x, _values(model, x, noise)), redraw=model.redraw(x, noise))


def asleep(model: HVAE, noise: Mapping[str, Noise]) -> Evidence:
    """Evidence of the `players` on dreams, (x, z) ~ p(x, z), from the noise of all variables of the decoder."""
    with torch.no_grad():
        dream = {name: site.value for name, site in model.decoder.walk({}, noise).items()}
    return players(model, dream.pop("x"), dream)


def players(model: HVAE, x: Value, draws: Mapping[str, Value]) -> Evidence:
    """Evidence of constant ``draws``; p moves the decoder's weights, and q the encoder's.

    A ladder's q holds the decoder's conditionals; here they are constants in it, so that the encoder's loss leaves the
    decoder alone (Flach et al. 2024).
    """
    constants = {f"model.decoder.{name}": weight.detach() for name, weight in model.decoder.named_parameters()}
    q: Trace = functional_call(_Inference(model), constants, (x, dict(draws)))
    return model.weigh(q, x)


class _Inference(nn.Module):
    """q alone, as a module with weights that can be exchanged for a call."""

    def __init__(self, model: HVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Value, draws: Mapping[str, Value]) -> Trace:
        return self.model.infer(x, {}, draws)


def _values(model: HVAE, x: Value, noise: Mapping[str, Noise]) -> dict[str, Value]:
    with torch.no_grad():
        return {name: site.value for name, site in model.infer(x, noise).items()}
