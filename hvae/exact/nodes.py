"""Equally spaced nodes for normal noise: a mean over draws becomes a weighted sum over nodes.

    E f(e) = sum_j w_j f(e_j),    w_j ∝ exp(-|e_j|² / 2),    e_j = -r … r with spacing h,    sum_j w_j = 1.

The trapezoid rule converges geometrically for integrands that are analytic in a strip of half-width a about the real
line: by Poisson summation its error is of the order exp(-2 pi a / h), plus exp(-r² / 2) for what lies beyond the
reach r (Trefethen and Weideman 2014, theorem 5.1). The two balance for `r ∝ n^(1/3)`, `h ∝ n^(-2/3)`. So doubling the
nodes tries a finer spacing and a wider reach, on new nodes. A kink leaves no strip, and an error of a power of h.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise

FLATTEST = 0.01
"""least precision that a fitted curvature may have, in units of the nodes it was fitted on"""


def nodes(n_nodes: int, n_dimensions: int) -> tuple[Tensor, Tensor]:
    """Nodes `[n_nodes ** n_dimensions, n_dimensions]` for N(0, I), and the logarithms of their weights, float64.

    The reach is `8.5 (n_nodes / 120)^(1/3)` standard deviations: 7.4 at 80 nodes, 9.4 at 160.
    """
    reach = 8.5 * (n_nodes / 120) ** (1 / 3)
    line = torch.linspace(-reach, reach, n_nodes, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line] * n_dimensions).reshape(-1, n_dimensions)
    return grid, (-grid.square().sum(-1) / 2).log_softmax(0)


def node_axes(specs: NoiseSpecs, n_nodes: int, n_axes: int) -> tuple[dict[str, Noise], dict[str, LogProb]]:
    """Nodes and log-weights of every variable, each along an axis of its own, before ``n_axes`` axes of length 1.

    Walked with such noise, what depends on one, two or three of the variables is `[n, 1, 1, B]`, `[n, n, 1, B]`,
    `[n, n, n, B]`, and nothing is computed twice.
    """
    noise, log_weights = {}, {}
    for position, (name, (_, width)) in enumerate(specs.items()):
        grid, log_weight = nodes(n_nodes, width)
        shape = [1] * (len(specs) + n_axes)
        shape[position] = len(grid)
        noise[name], log_weights[name] = grid.reshape(*shape, width), log_weight.reshape(shape)
    return noise, log_weights


@dataclass(frozen=True)
class Placement:
    """Nodes moved to `mean + scale e` (Naylor and Smith 1982), one placement for each place of the other axes.

    >>> grid, log_weight = nodes(40, 1)
    >>> placement = Placement(torch.full((1,), 0.5).double(), torch.full((1, 1), 1.5).double())
    >>> moved, log_weight = placement.place(grid, log_weight)
    >>> round(float(log_weight.exp() @ moved[:, 0].square()), 6)  # E e² under N(0, 1), wherever the nodes are
    1.0
    """

    mean: Tensor
    scale: Tensor

    def place(self, grid: Noise, log_weight: LogProb) -> tuple[Noise, LogProb]:
        """Moved nodes, and the log-weights by which they stand for N(0, I)."""
        noise = self.mean + (self.scale @ grid.unsqueeze(-1)).squeeze(-1)
        log_det = self.scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return noise, log_weight + (grid.square() - noise.square()).sum(-1) / 2 + log_det

    def to_moments(self, grid: Noise, terms: LogProb, axis: int) -> "Placement":
        """Mean and covariance of ``terms``, the logarithms of weight times integrand along ``axis``.

        Mass seen at one node alone is taken to fill its cell.
        """
        share = terms.softmax(axis).unsqueeze(-1)
        mean = (share * grid).sum(axis, keepdim=True)
        rest = (grid - mean).unsqueeze(-1)
        cell = (2 * grid.max() / (round(grid.shape[axis] ** (1 / grid.shape[-1])) - 1)) ** 2 / 12
        covariance = (share.unsqueeze(-1) * rest * rest.mT).sum(axis, keepdim=True) + cell * _eye(grid)
        return self._then(mean, covariance)

    def to_curvature(self, grid: Noise, log_weight: LogProb, terms: LogProb, axis: int) -> "Placement":
        """The normal distribution that has the integrand's mean slope and curvature of the log-density.

        Both are by Stein's lemma: exact at once for a normal integrand, however far from the nodes.
        """
        weight, height = log_weight.exp().unsqueeze(-1), (terms - log_weight).unsqueeze(-1)
        slope = (weight * height * grid).sum(axis, keepdim=True)
        square = grid.unsqueeze(-1) * grid.unsqueeze(-2) - _eye(grid)
        precision = _eye(grid) - ((weight * height).unsqueeze(-1) * square).sum(axis, keepdim=True)
        values, vectors = torch.linalg.eigh(precision)
        covariance = (vectors / values.clamp(min=FLATTEST).unsqueeze(-2)) @ vectors.mT
        return self._then((covariance @ slope.unsqueeze(-1)).squeeze(-1), covariance)

    def _then(self, mean: Tensor, covariance: Tensor) -> "Placement":
        """The distribution with these moments in units of the present nodes."""
        moved = self.mean + (self.scale @ mean.unsqueeze(-1)).squeeze(-1)
        return Placement(moved, self.scale @ torch.linalg.cholesky(covariance))


def _eye(grid: Noise) -> Tensor:
    return torch.eye(grid.shape[-1], dtype=grid.dtype)
