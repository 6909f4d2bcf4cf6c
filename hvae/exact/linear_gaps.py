"""The gap of the ELBO of a linear-Gaussian stack, split by layer, twice: from divergences and from marginals.

A posterior that visits v_1, …, v_L with Gaussian distributions of affine means is one Gaussian given x,

    q(z | x) = N(m(x), Q),    m affine in x, Q the same for all x,

so every expectation below is that of a quadratic form, and with `log N` the log-density,

    E_q log N(a; T b + o, C)  = log N(m_a; T m_b + o, C) - tr(C^-1 [I, -T] Q_ab [I, -T]^T) / 2
    E_q KL(N(T u + o, S) ‖ N(T' u + o', C)) = (tr(C^-1 S) - D + log |C| - log |S| + E_q |δ(u)|²_C) / 2,

δ(u) the difference of the means and `|δ|²_C = δ^T C^-1 δ`. The conditionals of p come from its dense joint
covariance (right with generative skips too), those of the decoder and of q from their own modules. Nats, float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.exact.affine import AffineChain, AffineGaussian, cholesky, gaussian_log_prob, indices
from hvae.exact.answers import Gaps, NoReferenceError
from hvae.shapes import PerDatum

LARGEST_ROUNDING = 1e-6
"""share of (1 + gap) nats by which the gap and the sum of its layers may differ: what a table could still show"""


def linear_gaps(p: AffineChain, q: AffineChain, x: Tensor) -> Gaps:
    """Every exact answer about q, a chain that starts with an open x, on data `x [B, D]` of the decoder p."""
    order, visit, joint = [name for name in q.widths if name != "x"], _Visit.of(q, x), p.joint()
    ancestral = list(p.widths)
    log_p = {
        name: visit.expected_log_prob(p.distribution(name), [name], ancestral[:position])
        for position, name in enumerate(ancestral)
    }
    log_q = {name: -_entropy(q.distribution(name).covariance).expand(len(x)) for name in order}

    rates = {name: log_q[name] - log_p[name] for name in order}
    layers, remaining = {}, {}
    for position, name in enumerate(order):
        before, seen, later = ["x", *order[:position]], ["x", *order[: position + 1]], order[position + 1 :]
        layers[name] = visit.expected_kl(q.distribution(name), joint.conditional([name], before), before)
        log_marginal = visit.expected_log_prob(joint.conditional(seen, []), seen, [])
        remaining[name] = log_marginal - torch.stack([*log_p.values(), *(-log_q[name] for name in later)]).sum(0)
    elbo = log_p["x"] - torch.stack([*rates.values()]).sum(0)
    gaps = Gaps(joint.log_prob({"x": x}), elbo, rates, layers, remaining)
    _refuse_unless_they_agree(gaps)
    return gaps


def _refuse_unless_they_agree(gaps: Gaps) -> None:
    """Refuse couplings so strong that rounding drives apart two ways to one number."""
    error = (torch.stack([*gaps.layers.values()]).sum(0) - gaps.total).abs()
    if not (error <= LARGEST_ROUNDING * (1 + gaps.total.abs())).all():
        raise NoReferenceError(
            f"rounding moves the gap of {float(gaps.total.abs().max()):.3g} nats by {float(error.max()):.2g}; the "
            "couplings are too strong for exact answers in float64, so rescale the decoder."
        )


@dataclass(frozen=True)
class _Visit:
    """q of all latents given x, and x itself: means `[B, n]` and one covariance `[n, n]`, 0 where x stands."""

    q: AffineChain
    mean: Tensor
    covariance: Tensor

    @staticmethod
    def of(q: AffineChain, x: Tensor) -> "_Visit":
        mix, covariance = q.spread()
        start = q.offset.expand(len(x), -1).clone()
        start[:, indices(q.widths, ["x"])] = x
        return _Visit(q, start @ mix.mT, covariance)

    def expected_log_prob(self, distribution: AffineGaussian, a: list[str], b: list[str]) -> PerDatum:
        """`E_q log distribution(a | b)`."""
        rows, columns = indices(self.q.widths, a), indices(self.q.widths, b)
        both = torch.cat([rows, columns])
        contrast = torch.cat([torch.eye(len(rows), dtype=torch.float64), -distribution.weight], -1)
        spread = contrast @ self.covariance[both][:, both] @ contrast.mT
        difference = self.mean[:, rows] - distribution.mean(self.mean[:, columns])
        at_mean = gaussian_log_prob(difference, distribution.covariance)
        return at_mean - _trace_ratio(spread, distribution.covariance) / 2

    def expected_kl(self, distribution: AffineGaussian, other: AffineGaussian, given: list[str]) -> PerDatum:
        """`E_q KL(distribution(· | given) ‖ other(· | given))`."""
        columns = indices(self.q.widths, given)
        weight = distribution.weight - other.weight
        difference = self.mean[:, columns] @ weight.mT + distribution.offset - other.offset
        spread = distribution.covariance + weight @ self.covariance[columns][:, columns] @ weight.mT
        at_mean = -gaussian_log_prob(difference, other.covariance) - _entropy(distribution.covariance)
        return at_mean + _trace_ratio(spread, other.covariance) / 2


def _entropy(covariance: Tensor) -> Tensor:
    """Entropy of a Gaussian, `log |2π e C| / 2`."""
    log_det: Tensor = 2 * cholesky(covariance).diagonal().log().sum()
    return (log_det + len(covariance) * (1 + math.log(2 * math.pi))) / 2


def _trace_ratio(spread: Tensor, covariance: Tensor) -> Tensor:
    """`tr(covariance^-1 spread)`."""
    trace: Tensor = torch.cholesky_solve(spread, cholesky(covariance)).diagonal().sum()
    return trace
