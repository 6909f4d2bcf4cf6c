"""Exact answers for stacks whose conditionals are all linear and Gaussian.

With v the vector of all variables in ancestral order, every conditional is one block row of

    v = W v + b + e,    e ~ N(0, S),    W strictly lower triangular, S block diagonal,

so `mean = (I - W)^-1 b` and `covariance = (I - W)^-1 S (I - W)^-T`, and any marginal, conditional or
information is a matter of blocks (Bishop 2006, sections 2.3.1 and 8.1.4). W, b and S are read off the very
modules that are trained: their laws are probed at 0 and at the unit vectors, then checked at other points, and
whatever is not affine, not Gaussian or has a variance that moves is refused with the reason. float64, nats.
"""

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from hvae.families import DiagonalNormal, FullGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional, Trace
from hvae.posterior import NetworkPosterior, Posterior
from hvae.reference.answers import NoReferenceError


@dataclass(frozen=True)
class AffineGaussian:
    """`N(weight @ b + offset, covariance)`: the law of one group of variables given another, b."""

    weight: Tensor
    offset: Tensor
    covariance: Tensor

    def mean(self, b: Tensor) -> Tensor:
        """Mean `[..., D]` given `b [..., D']`."""
        return b @ self.weight.mT + self.offset

    def log_prob(self, a: Tensor, b: Tensor) -> Tensor:
        """Log-density `[...]` of `a [..., D]` given `b [..., D']`."""
        return _log_prob(a - self.mean(b), self.covariance)


@dataclass(frozen=True)
class LinearGaussian:
    """The joint law of all variables of a linear-Gaussian network."""

    widths: Mapping[str, int]
    """variable -> its units, in ancestral order"""
    mean: Tensor
    covariance: Tensor
    markov: bool
    """whether every variable has the one before it as its only parent"""

    @staticmethod
    def of(decoder: BeliefNetwork) -> "LinearGaussian":
        """The joint p(z, x) of a decoder. Raises `NoReferenceError` with the reason."""
        network = copy.deepcopy(decoder).double()
        widths = {name: network[name].family.width for name in network.variables}
        chain = [(), *((name,) for name in network.variables[:-1])]
        markov = [network[name].parents for name in network.variables] == chain
        return _solve(lambda values: network.walk(values, {}), widths, {}, markov)

    @staticmethod
    def of_posterior(
        decoder: BeliefNetwork, posterior: Posterior, mean: Tensor, covariance: Tensor
    ) -> "LinearGaussian":
        """The joint q(x, z) of a posterior when data are N(mean, covariance): exact I_q, aggregates and reverses."""
        network, visit = copy.deepcopy(decoder).double(), copy.deepcopy(posterior).double()
        widths = {name: network[name].family.width for name in ("x", *visit.order)}
        root = (mean.double(), covariance.double())
        return _solve(lambda values: visit.walk(network, values, {}), widths, {"x": root}, False)

    def marginal(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the named variables, in the order named."""
        index = self._index(names)
        return self.mean[index], self.covariance[index][:, index]

    def conditional(self, a: Sequence[str], b: Sequence[str]) -> AffineGaussian:
        """p(a | b) for any two groups of variables (Bishop 2006, equations 2.81 and 2.82)."""
        rows, columns = self._index(a), self._index(b)
        cross = self.covariance[rows][:, columns]
        if not b:
            return AffineGaussian(cross, self.mean[rows], self.covariance[rows][:, rows])
        half = torch.linalg.solve_triangular(self._cholesky(columns), cross.mT, upper=False)
        weight = torch.linalg.solve_triangular(self._cholesky(columns).mT, half, upper=True).mT
        remaining = self.covariance[rows][:, rows] - half.mT @ half
        return AffineGaussian(weight, self.mean[rows] - weight @ self.mean[columns], (remaining + remaining.mT) / 2)

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log-density `[...]` of the variables in `values`, all others integrated out."""
        mean, covariance = self.marginal(list(values))
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values.values()))
        joined = torch.cat([value.double().expand(*batch, -1) for value in values.values()], -1)
        return _log_prob(joined - mean, covariance)

    def log_px(self, x: Tensor) -> Tensor:
        """log p(x) `[...]` of `x [..., D]`."""
        return self.log_prob({"x": x})

    def mutual_information(self, a: Sequence[str], b: Sequence[str], given: Sequence[str] = ()) -> float:
        """I(a; b | given), from the covariance of (a, b) given the others."""
        law = self.conditional([*a, *b], given)
        n_a = sum(self.widths[name] for name in a)
        return gaussian_mutual_information(law.covariance, range(n_a), range(n_a, len(law.covariance)))

    def exact_posterior(self, order: Literal["bottom-up", "top-down"]) -> Posterior:
        """p(z | x) as a posterior of the core's own modules, in float64.

        Bottom-up p(z1|x) p(z2|z1) …, top-down p(zL|x) p(z_{L-1}|zL, x) …; where the decoder has skips, every
        variable also sees all that were visited before it.
        """
        downward = [name for name in self.widths if name != "x"]
        visits = downward if order == "top-down" else downward[::-1]
        conditionals = []
        for position, name in enumerate(visits):
            seen = visits[:position]
            if self.markov:
                seen = seen[-1:]
            parents = [*seen, "x"] if order == "top-down" or not seen or not self.markov else seen
            law = self.conditional([name], parents)
            family = FullGaussian(self.widths[name], variance="fixed", scale_tril=torch.linalg.cholesky(law.covariance))
            conditionals.append(Conditional(name, parents, _linear(law), family))
        return NetworkPosterior(BeliefNetwork(conditionals))

    def _index(self, names: Sequence[str]) -> Tensor:
        unknown = [name for name in names if name not in self.widths]
        if unknown:
            raise KeyError(f"{unknown} are not among the variables {list(self.widths)}.")
        blocks, every = _blocks(self.widths), range(len(self.mean))
        return torch.tensor([i for name in names for i in every[blocks[name]]], dtype=torch.long)

    def _cholesky(self, index: Tensor) -> Tensor:
        tril: Tensor = torch.linalg.cholesky(self.covariance[index][:, index])
        return tril


def gaussian_mutual_information(covariance: Tensor, a: Sequence[int], b: Sequence[int]) -> float:
    """I(a; b) of two groups of coordinates, `-1/2 sum_i log(1 - rho_i^2)` over their canonical correlations.

    Kullback 1959, section 9.7. Exact down to 0, where a difference of log-determinants leaves rounding.
    """
    rows, columns = list(a), list(b)
    covariance = covariance.double()
    tril_a = torch.linalg.cholesky(covariance[rows][:, rows])
    tril_b = torch.linalg.cholesky(covariance[columns][:, columns])
    white = torch.linalg.solve_triangular(tril_a, covariance[rows][:, columns], upper=False)
    white = torch.linalg.solve_triangular(tril_b, white.mT, upper=False)
    return float(-torch.log1p(-torch.linalg.svdvals(white).square()).sum() / 2)


@torch.no_grad()
def _solve(
    score: Callable[[Mapping[str, Tensor]], Trace],
    widths: Mapping[str, int],
    roots: Mapping[str, tuple[Tensor, Tensor]],
    markov: bool,
) -> LinearGaussian:
    """Probe all laws at once, since a walk with everything given draws nothing; `roots` have laws of their own."""
    n = sum(widths.values())
    others = 3 * torch.randn(16, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = torch.cat([torch.zeros(1, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64), others])
    trace = score({name: points[None, :, block] for name, block in _blocks(widths).items()})

    weight, noise = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    offset = torch.zeros(n, dtype=torch.float64)
    for name, block in _blocks(widths).items():
        if name in roots:
            offset[block], noise[block, block] = roots[name]
            continue
        law = trace[name].law
        means = law.mean.expand(1, len(points), -1)[0]
        covariances = _covariance(name, law).expand(1, len(points), -1, -1)[0]
        offset[block], weight[block], noise[block, block] = means[0], (means[1 : n + 1] - means[0]).mT, covariances[0]
        _refuse_unless_same(name, "mean is not affine in its parents", means, points @ weight[block].mT + means[0])
        _refuse_unless_same(name, "variance depends on its parents", covariances, noise[block, block])
    mix = torch.eye(n, dtype=torch.float64) - weight
    mean = torch.linalg.solve_triangular(mix, offset.unsqueeze(-1), upper=False, unitriangular=True).squeeze(-1)
    half = torch.linalg.solve_triangular(mix, torch.linalg.cholesky(noise), upper=False, unitriangular=True)
    return LinearGaussian(dict(widths), mean, half @ half.mT, markov)


def _blocks(widths: Mapping[str, int]) -> dict[str, slice]:
    ends = itertools.accumulate(widths.values())
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def _covariance(name: str, law: Distribution) -> Tensor:
    if isinstance(law, MultivariateNormal):
        return law.covariance_matrix
    if isinstance(law, DiagonalNormal):
        return torch.diag_embed(law.variance)
    kind = type(getattr(law, "base_dist", law)).__name__
    raise NoReferenceError(f"{name} has a {kind} law; exact answers need Gaussians throughout.")


def _refuse_unless_same(name: str, reason: str, values: Tensor, expected: Tensor) -> None:
    error = float((values - expected).abs().max())
    if not error <= 1e-9 * (1 + float(values.abs().max())):
        raise NoReferenceError(
            f"The law of {name} has no exact answers: its {reason} (by {error:.2g}); "
            "use linear nets without hidden layers and a learned or fixed variance."
        )


def _log_prob(difference: Tensor, covariance: Tensor) -> Tensor:
    tril = torch.linalg.cholesky(covariance)
    rows = difference.double().reshape(-1, len(tril))
    white = torch.linalg.solve_triangular(tril.mT, rows, upper=True, left=False)
    log_density: Tensor = (
        -white.view(difference.shape).square().sum(-1) / 2
        - tril.diagonal().log().sum()
        - len(tril) / 2 * math.log(2 * math.pi)
    )
    return log_density


def _linear(law: AffineGaussian) -> nn.Module:
    if law.weight.shape[1] == 0:
        return Root(law.offset, learned=False)
    net = nn.Linear(law.weight.shape[1], law.weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(law.weight)
        assert net.bias is not None
        net.bias.copy_(law.offset)
    return net
