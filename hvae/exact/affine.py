"""Gaussian distributions with affine means, read off modules.

With v the vector of all variables in the order of a walk, every distribution is one block row of

    v = weight v + offset + root e,    e ~ N(0, I),    weight strictly lower triangular, root block diagonal,

so the two forms of their joint distribution (`joint`) are

    v = M offset + M root e,    M = (I - weight)^-1,        root^-1 (I - weight) v = root^-1 offset + e

(Bishop 2006, section 8.1.4). All three are read off the very modules that are trained: their distributions are probed,
far out for the weights, then checked at other points. What is not affine, not Gaussian or has a variance that moves is
refused with the reason. float64, nats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from hvae.exact.answers import NoReferenceError
from hvae.exact.joint import ROUNDING, AffineGaussian, JointGaussian, blocks, cholesky
from hvae.families import DiagonalNormal
from hvae.network import Trace

FAR = 2.0**20
"""where weights are probed: a weight of 1e-6 beside an offset of 1e6 keeps its digits"""

N_EPS = 64
"""roundings of a mean's own sum that are no sign of a curve"""


@dataclass(frozen=True)
class AffineChain:
    """The distributions that a walk draws from, `v = weight v + offset + root e` with `e ~ N(0, I)`.

    >>> weight = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)  # z1 = e, x = 2 z1 + e
    >>> chain = AffineChain({"z1": 1, "x": 1}, weight, torch.zeros(2).double(), torch.eye(2).double())
    >>> chain.joint().covariance.tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """

    widths: Mapping[str, int]
    """variable -> its units, in the order of the walk"""
    weight: Tensor
    offset: Tensor
    root: Tensor
    """block diagonal of lower triangular roots; 0 for a variable left open"""

    def distribution(self, name: str) -> AffineGaussian:
        """The distribution of one variable given all before it."""
        block = blocks(self.widths)[name]
        return AffineGaussian(self.weight[block, : block.start], self.offset[block], self.root[block, block])

    def spread(self) -> tuple[Tensor, Tensor]:
        """`M = (I - weight)^-1`, and `M root`, a root of the covariance of all variables."""
        eye = torch.eye(len(self.offset), dtype=torch.float64)
        mix = torch.linalg.solve_triangular(eye - self.weight, eye, upper=False, unitriangular=True)
        return mix, mix @ self.root

    def joint(self) -> JointGaussian:
        """The joint distribution of all variables, none left open."""
        mix, root = self.spread()
        whole = torch.cat([torch.eye(len(mix), dtype=torch.float64) - self.weight, self.offset.unsqueeze(-1)], -1)
        white = torch.linalg.solve_triangular(self.root, whole, upper=False)
        return JointGaussian(self.widths, mix @ self.offset, root, white[:, :-1], white[:, -1])

    def rooted(self, name: str, mean: Tensor, covariance: Tensor) -> "AffineChain":
        """The same chain where the variable `name`, left open before, is `N(mean, covariance)`."""
        block = blocks(self.widths)[name]
        offset, root = self.offset.clone(), self.root.clone()
        offset[block], root[block, block] = mean, cholesky(covariance)
        return AffineChain(self.widths, self.weight, offset, root)


@torch.no_grad()
def read_chain(score: Callable[[Mapping[str, Tensor]], Trace], widths: Mapping[str, int]) -> AffineChain:
    """Probe all distributions of a walk at once, since one with everything given draws nothing.

    A variable without a distribution of its own (x of an encoder) keeps rows of 0. Raises `NoReferenceError`.
    """
    n = sum(widths.values())
    one = torch.eye(n, dtype=torch.float64)
    others = 3 * torch.randn(16, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = torch.cat([FAR * one, -FAR * one, 0 * one[:1], one, others])
    trace = score({name: points[None, :, block] for name, block in blocks(widths).items()})

    weight, root, offset = torch.zeros_like(one), torch.zeros_like(one), torch.zeros_like(one[0])
    for name, block in blocks(widths).items():
        if name not in trace:
            continue
        distribution = trace[name].distribution
        root[block, block] = _constant_root(name, distribution)
        means = distribution.mean.expand(1, len(points), -1)[0]
        offset[block] = means[2 * n]
        weight[block, : block.start] = ((means[:n] - means[n : 2 * n]) / (2 * FAR))[: block.start].mT
        off = means - points @ weight[block].mT - means[2 * n]
        off[: 2 * n] /= FAR
        size = points.abs() @ weight[block].abs().mT + offset[block].abs()
        off[off.abs() <= N_EPS * torch.finfo(off.dtype).eps * size] = 0
        deviations = torch.linalg.solve_triangular(root[block, block], off.mT, upper=False)
        _refuse_beyond_rounding(name, "mean is not affine in the variables before it", deviations)
    return AffineChain(dict(widths), weight, offset, root)


def _constant_root(name: str, distribution: Distribution) -> Tensor:
    """The root of a covariance that is the same at every point; ratios are compared, so a tiny one counts."""
    reason = "variance depends on its parents"
    if isinstance(distribution, DiagonalNormal):
        log_variance = distribution.log_variance.reshape(-1, distribution.log_variance.shape[-1])
        _refuse_beyond_rounding(name, reason, log_variance - log_variance[:1])
        return (log_variance[0] / 2).exp().diag()
    if isinstance(distribution, MultivariateNormal):
        tril = distribution.scale_tril.reshape(-1, *distribution.scale_tril.shape[-2:])
        ratio = torch.linalg.solve_triangular(tril[0], tril, upper=False)
        _refuse_beyond_rounding(name, reason, ratio - torch.eye(len(tril[0]), dtype=torch.float64))
        root: Tensor = tril[0]
        return root
    kind = type(getattr(distribution, "base_dist", distribution)).__name__
    raise NoReferenceError(f"{name} has a {kind} distribution; exact answers need Gaussians throughout.")


def _refuse_beyond_rounding(name: str, reason: str, difference: Tensor) -> None:
    error = float(difference.abs().max())
    if not error <= ROUNDING:
        raise NoReferenceError(
            f"The distribution of {name} has no exact answers: its {reason} (by {error:.2g} deviations or nats); "
            "use linear nets without hidden layers, a learned or fixed variance, and parents before children."
        )
