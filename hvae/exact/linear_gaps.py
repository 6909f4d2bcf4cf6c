"""The gap of the ELBO of a linear-Gaussian stack, split by layer, twice: from divergences and from marginals.

A posterior that visits v_1, …, v_L with Gaussian distributions of affine means is one Gaussian given x,

    q(z | x) = N(m(x), Q),    m affine in x, Q the same for all x,

so every expectation below is that of a quadratic form, and with `log N` the log-density,

    E_q log N(a; T b + o, C)  = log N(m_a; T m_b + o, C) - tr(C^-1 [I, -T] Q_ab [I, -T]^T) / 2
    E_q KL(N(T u + o, S) ‖ N(T' u + o', C)) = (tr(C^-1 S) - D + log |C| - log |S| + E_q |δ(u)|²_C) / 2,

δ(u) the difference of the means and `|δ|²_C = δ^T C^-1 δ`. Covariances are held as roots. The conditionals of p come
from its joint (right with generative skips too), those of the decoder and of q from their own modules. Nats, float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.exact.affine import AffineChain
from hvae.exact.answers import Gaps, settled
from hvae.exact.joint import AffineGaussian, gaussian_log_prob, indices
from hvae.shapes import PerDatum


def linear_gaps(p: AffineChain, q: AffineChain, x: Tensor) -> Gaps:
    """Every exact answer about q, a chain that starts with an open x, on data `x [B, D]` of the decoder p."""
    order, visit, joint = [name for name in q.widths if name != "x"], _Visit.of(q, x), p.joint()
    ancestral = list(p.widths)
    log_p = {
        name: visit.expected_log_prob(p.distribution(name), [name], ancestral[:position])
        for position, name in enumerate(ancestral)
    }
    log_q = {name: -_entropy(q.distribution(name).root).expand(len(x)) for name in order}

    rates = {name: log_q[name] - log_p[name] for name in order}
    layers, remaining = {}, {}
    for position, name in enumerate(order):
        before, seen, later = ["x", *order[:position]], ["x", *order[: position + 1]], order[position + 1 :]
        layers[name] = visit.expected_kl(q.distribution(name), joint.conditional([name], before), before)
        log_marginal = visit.expected_log_prob(joint.conditional(seen, []), seen, [])
        remaining[name] = log_marginal - torch.stack([*log_p.values(), *(-log_q[name] for name in later)]).sum(0)
    elbo = log_p["x"] - torch.stack([*rates.values()]).sum(0)
    return settled(Gaps(joint.log_prob({"x": x}), elbo, rates, layers, remaining))


@dataclass(frozen=True)
class _Visit:
    """q of all latents given x, and x itself: means `[B, n]` and one root `[n, n]`, 0 where x stands."""

    q: AffineChain
    mean: Tensor
    root: Tensor

    @staticmethod
    def of(q: AffineChain, x: Tensor) -> "_Visit":
        mix, root = q.spread()
        start = q.offset.expand(len(x), -1).clone()
        start[:, indices(q.widths, ["x"])] = x
        return _Visit(q, start @ mix.mT, root)

    def expected_log_prob(self, distribution: AffineGaussian, a: list[str], b: list[str]) -> PerDatum:
        """`E_q log distribution(a | b)`."""
        rows, columns = indices(self.q.widths, a), indices(self.q.widths, b)
        spread = self.root[rows] - distribution.weight @ self.root[columns]
        difference = self.mean[:, rows] - distribution.mean(self.mean[:, columns])
        return gaussian_log_prob(difference, distribution.root) - _trace_ratio(spread, distribution.root) / 2

    def expected_kl(self, distribution: AffineGaussian, other: AffineGaussian, given: list[str]) -> PerDatum:
        """`E_q KL(distribution(· | given) ‖ other(· | given))`."""
        columns = indices(self.q.widths, given)
        weight = distribution.weight - other.weight
        difference = self.mean[:, columns] @ weight.mT + distribution.offset - other.offset
        spread = torch.cat([distribution.root, weight @ self.root[columns]], -1)
        at_mean = -gaussian_log_prob(difference, other.root) - _entropy(distribution.root)
        return at_mean + _trace_ratio(spread, other.root) / 2


def _entropy(root: Tensor) -> Tensor:
    """Entropy of a Gaussian, `log |2π e C| / 2`."""
    log_det: Tensor = root.diagonal().log().sum()
    return log_det + len(root) * (1 + math.log(2 * math.pi)) / 2


def _trace_ratio(spread: Tensor, root: Tensor) -> Tensor:
    """`tr(C^-1 spread spread^T)` for `C = root root^T`."""
    trace: Tensor = torch.linalg.solve_triangular(root, spread, upper=False).square().sum()
    return trace
