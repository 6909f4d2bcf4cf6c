"""Gaussian distributions with affine means: read off modules, joined, marginalised and conditioned.

With v the vector of all variables in the order of a walk, every distribution is one block row of

    v = W v + b + e,    e ~ N(0, S),    W strictly lower triangular, S block diagonal,

so `mean = (I - W)^-1 b` and `covariance = (I - W)^-1 S (I - W)^-T`, and any marginal, conditional or
information is a matter of blocks (Bishop 2006, sections 2.3.1 and 8.1.4). W, b and S are read off the very modules
that are trained: their distributions are probed at 0 and at the unit vectors, then checked at other points. What is
not affine, not Gaussian or has a variance that moves is refused with the reason. float64, nats.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from hvae.exact.answers import NoReferenceError
from hvae.families import DiagonalNormal
from hvae.network import Trace


@dataclass(frozen=True)
class AffineGaussian:
    """`N(weight @ b + offset, covariance)`: the distribution of one group of variables given another, b.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> AffineGaussian(weight=2 * one, offset=one[0], covariance=one).mean(3 * one)
    tensor([[7.]], dtype=torch.float64)
    """

    weight: Tensor
    offset: Tensor
    covariance: Tensor

    def mean(self, b: Tensor) -> Tensor:
        """Mean `[..., D]` given `b [..., D']`."""
        return b @ self.weight.mT + self.offset

    def log_prob(self, a: Tensor, b: Tensor) -> Tensor:
        """Log-density `[...]` of `a [..., D]` given `b [..., D']`."""
        return gaussian_log_prob(a - self.mean(b), self.covariance)


@dataclass(frozen=True)
class JointGaussian:
    """The joint distribution of all variables, as one mean and one covariance.

    >>> covariance = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    >>> joint = JointGaussian({"z1": 1, "x": 1}, torch.zeros(2, dtype=torch.float64), covariance)
    >>> round(joint.mutual_information(["x"], ["z1"]), 4)  # -log(1 - 0.5²) / 2
    0.1438
    """

    widths: Mapping[str, int]
    """variable -> its units, in the order of the walk"""
    mean: Tensor
    covariance: Tensor

    def marginal(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the named variables, in the order named."""
        index = indices(self.widths, names)
        return self.mean[index], self.covariance[index][:, index]

    def conditional(self, a: Sequence[str], b: Sequence[str]) -> AffineGaussian:
        """p(a | b) for any two groups of variables (Bishop 2006, equations 2.81 and 2.82)."""
        rows, columns = indices(self.widths, a), indices(self.widths, b)
        cross = self.covariance[rows][:, columns]
        if not b:
            return AffineGaussian(cross, self.mean[rows], self.covariance[rows][:, rows])
        tril = cholesky(self.covariance[columns][:, columns])
        half = torch.linalg.solve_triangular(tril, cross.mT, upper=False)
        weight = torch.linalg.solve_triangular(tril.mT, half, upper=True).mT
        remaining = self.covariance[rows][:, rows] - half.mT @ half
        return AffineGaussian(weight, self.mean[rows] - weight @ self.mean[columns], (remaining + remaining.mT) / 2)

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log-density `[...]` of the variables in `values`, all others integrated out."""
        mean, covariance = self.marginal(list(values))
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values.values()))
        joined = torch.cat([value.to(mean).expand(*batch, -1) for value in values.values()], -1)
        return gaussian_log_prob(joined - mean, covariance)

    def mutual_information(self, a: Sequence[str], b: Sequence[str], given: Sequence[str] = ()) -> float:
        """I(a; b | given), from the covariance of (a, b) given the others."""
        covariance = self.conditional([*a, *b], given).covariance
        n_a = sum(self.widths[name] for name in a)
        return gaussian_mutual_information(covariance, range(n_a), range(n_a, len(covariance)))


@dataclass(frozen=True)
class AffineChain:
    """The distributions that a walk draws from, `v = weight v + offset + e` with `e ~ N(0, noise)`.

    >>> weight = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)  # z1 = e, x = 2 z1 + e
    >>> chain = AffineChain({"z1": 1, "x": 1}, weight, torch.zeros(2).double(), torch.eye(2).double())
    >>> chain.joint().covariance.tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """

    widths: Mapping[str, int]
    """variable -> its units, in the order of the walk"""
    weight: Tensor
    offset: Tensor
    noise: Tensor

    def distribution(self, name: str) -> AffineGaussian:
        """The distribution of one variable given all before it."""
        block = _blocks(self.widths)[name]
        return AffineGaussian(self.weight[block, : block.start], self.offset[block], self.noise[block, block])

    def spread(self) -> tuple[Tensor, Tensor]:
        """`M = (I - weight)^-1` and the covariance `M noise M^T` of all variables."""
        eye = torch.eye(len(self.offset), dtype=torch.float64)
        mix = torch.linalg.solve_triangular(eye - self.weight, eye, upper=False, unitriangular=True)
        return mix, mix @ self.noise @ mix.mT

    def joint(self) -> JointGaussian:
        """The joint distribution of all variables."""
        mix, covariance = self.spread()
        return JointGaussian(self.widths, mix @ self.offset, covariance)

    def rooted(self, name: str, mean: Tensor, covariance: Tensor) -> "AffineChain":
        """The same chain where the variable `name`, left open before, is `N(mean, covariance)`."""
        block = _blocks(self.widths)[name]
        offset, noise = self.offset.clone(), self.noise.clone()
        offset[block], noise[block, block] = mean, covariance
        return AffineChain(self.widths, self.weight, offset, noise)


@torch.no_grad()
def read_chain(score: Callable[[Mapping[str, Tensor]], Trace], widths: Mapping[str, int]) -> AffineChain:
    """Probe all distributions of a walk at once, since one with everything given draws nothing.

    A variable without a distribution of its own (x of an encoder) keeps rows of 0. Raises `NoReferenceError`.
    """
    n = sum(widths.values())
    others = 3 * torch.randn(16, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = torch.cat([torch.zeros(1, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64), others])
    trace = score({name: points[None, :, block] for name, block in _blocks(widths).items()})

    weight, noise = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    offset = torch.zeros(n, dtype=torch.float64)
    for name, block in _blocks(widths).items():
        if name not in trace:
            continue
        distribution = trace[name].distribution
        noise[block, block] = _constant_covariance(name, distribution)
        means = distribution.mean.expand(1, len(points), -1)[0]
        offset[block], weight[block, : block.start] = means[0], (means[1 : block.start + 1] - means[0]).mT
        expected = points @ weight[block].mT + means[0]
        _refuse_unless_same(name, "mean is not affine in the variables before it", means, expected)
    return AffineChain(dict(widths), weight, offset, noise)


def indices(widths: Mapping[str, int], names: Sequence[str]) -> Tensor:
    """Coordinates of the named variables, in the order named. Raises KeyError for one that is unknown."""
    unknown = [name for name in names if name not in widths]
    if unknown:
        raise KeyError(f"{unknown} are not among the variables {list(widths)}.")
    blocks, every = _blocks(widths), range(sum(widths.values()))
    return torch.tensor([i for name in names for i in every[blocks[name]]], dtype=torch.long)


def cholesky(covariance: Tensor) -> Tensor:
    """Lower triangular factor of a covariance. Raises `NoReferenceError` where rounding has made it singular."""
    tril: Tensor
    tril, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise NoReferenceError(
            f"a covariance of {len(covariance)} units is singular in float64; the couplings are too strong for exact "
            "answers, so rescale the decoder."
        )
    return tril


def gaussian_log_prob(difference: Tensor, covariance: Tensor) -> Tensor:
    """`log N(difference; 0, covariance)` `[...]` of `difference [..., D]`."""
    tril = cholesky(covariance)
    rows = difference.double().reshape(-1, len(tril))
    white = torch.linalg.solve_triangular(tril.mT, rows, upper=True, left=False)
    log_density: Tensor = (
        -white.view(difference.shape).square().sum(-1) / 2
        - tril.diagonal().log().sum()
        - len(tril) / 2 * math.log(2 * math.pi)
    )
    return log_density


def gaussian_mutual_information(covariance: Tensor, a: Sequence[int], b: Sequence[int]) -> float:
    """I(a; b) of two groups of coordinates, `-1/2 sum_i log(1 - rho_i^2)` over their canonical correlations.

    Kullback 1959, section 9.7. Exact down to 0, where a difference of log-determinants leaves rounding.
    """
    rows, columns = list(a), list(b)
    covariance = covariance.double()
    tril_a, tril_b = cholesky(covariance[rows][:, rows]), cholesky(covariance[columns][:, columns])
    white = torch.linalg.solve_triangular(tril_a, covariance[rows][:, columns], upper=False)
    white = torch.linalg.solve_triangular(tril_b, white.mT, upper=False)
    return float(-torch.log1p(-torch.linalg.svdvals(white).square()).sum() / 2)


def _blocks(widths: Mapping[str, int]) -> dict[str, slice]:
    ends = itertools.accumulate(widths.values())
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def _constant_covariance(name: str, distribution: Distribution) -> Tensor:
    """The covariance of a distribution that is the same at every point; ratios are compared, so a tiny one counts."""
    reason = "variance depends on its parents"
    if isinstance(distribution, DiagonalNormal):
        log_variance = distribution.log_variance.reshape(-1, distribution.log_variance.shape[-1])
        _refuse_unless_same(name, reason, log_variance, log_variance[:1])
        return log_variance[0].exp().diag()
    if isinstance(distribution, MultivariateNormal):
        tril = distribution.scale_tril.reshape(-1, *distribution.scale_tril.shape[-2:])
        ratio = torch.linalg.solve_triangular(tril[0], tril, upper=False)
        _refuse_unless_same(name, reason, ratio, torch.eye(len(tril[0]), dtype=torch.float64))
        covariance: Tensor = tril[0] @ tril[0].mT
        return covariance
    kind = type(getattr(distribution, "base_dist", distribution)).__name__
    raise NoReferenceError(f"{name} has a {kind} distribution; exact answers need Gaussians throughout.")


def _refuse_unless_same(name: str, reason: str, values: Tensor, expected: Tensor) -> None:
    error = float((values - expected).abs().max())
    if not error <= 1e-9 * (1 + float(values.abs().max())):
        raise NoReferenceError(
            f"The distribution of {name} has no exact answers: its {reason} (by {error:.2g}); "
            "use linear nets without hidden layers, a learned or fixed variance, and parents before children."
        )
