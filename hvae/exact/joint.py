"""Jointly Gaussian variables by two routes, neither of which forms a covariance. float64, nats.

All n variables v, with e ~ N(0, I), are held twice:

    v = mean + root e,            so the covariance is root root^T,
    white v = start + e,          so the precision is white^T white.

One orthogonal factorisation of either gives any marginal, conditional or information (Bierman 1977, sections II and
V). With the variables in the order b, a, and a lower triangular L from the rows of ``root``,

    [b; a] = mean + [L_bb, 0; L_ab, L_aa] e,          a | b ~ N(mean_a + L_ab L_bb^-1 (b - mean_b), L_aa L_aa^T),

and with the others first, then a, b, and an upper triangular R from the columns of ``white`` and ``start``,

    R_aa a + R_ab b = start_a + e,                    a | b ~ N(R_aa^-1 (start_a - R_ab b), R_aa^-1 R_aa^-T).

Rounding enters a root as `eps cond(root)`, a covariance as `eps cond(root)^2`: at weights of 10 a dense covariance was
off by 0.26 nats. The routes share no arithmetic. Where they differ by more than `ROUNDING` there is no answer.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.exact.answers import NoReferenceError

ROUNDING = 1e-9
"""standard deviations, and share of an information (1 + nats), by which the two routes may differ"""


@dataclass(frozen=True)
class AffineGaussian:
    """`N(weight @ b + offset, root root^T)`: the distribution of one group of variables given another, b.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> AffineGaussian(weight=2 * one, offset=one[0], root=one).mean(3 * one)
    tensor([[7.]], dtype=torch.float64)
    """

    weight: Tensor
    offset: Tensor
    root: Tensor
    """lower triangular"""

    @property
    def covariance(self) -> Tensor:
        """`[D, D]`."""
        return self.root @ self.root.mT

    def mean(self, b: Tensor) -> Tensor:
        """Mean `[..., D]` given `b [..., D']`."""
        return b @ self.weight.mT + self.offset

    def log_prob(self, a: Tensor, b: Tensor) -> Tensor:
        """Log-density `[...]` of `a [..., D]` given `b [..., D']`."""
        return gaussian_log_prob(a - self.mean(b), self.root)


@dataclass(frozen=True)
class JointGaussian:
    """The joint distribution of all variables. Raises `NoReferenceError` where float64 leaves an answer open.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> root, white = torch.tensor([[1.0, 0.0], [2.0, 1.0]]).double(), torch.tensor([[1.0, 0.0], [-2.0, 1.0]]).double()
    >>> joint = JointGaussian({"z1": 1, "x": 1}, torch.zeros(2).double(), root, white, torch.zeros(2).double())
    >>> round(joint.mutual_information(["x"], ["z1"]), 4)  # x = 2 z1 + e: log(1 + 2²) / 2
    0.8047
    """

    widths: Mapping[str, int]
    """variable -> its units, in the order of the walk"""
    mean: Tensor
    root: Tensor
    white: Tensor
    start: Tensor

    @property
    def covariance(self) -> Tensor:
        """`[n, n]`."""
        return self.root @ self.root.mT

    def marginal(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the named variables, in the order named."""
        index = indices(self.widths, names)
        return self.mean[index], self.root[index] @ self.root[index].mT

    def conditional(self, a: Sequence[str], b: Sequence[str]) -> AffineGaussian:
        """p(a | b) for any two groups of variables."""
        rows, columns = indices(self.widths, a), indices(self.widths, b)
        given, n = self.mean[columns], len(columns)
        lower = _lower(self.root[torch.cat([columns, rows])])
        weight = torch.linalg.solve_triangular(lower[:n, :n], lower[n:, :n], upper=False, left=False)
        found = AffineGaussian(weight, self.mean[rows] - weight @ given, lower[n:, n:])

        upper, start = self._upper([*a, *b])
        own, seen = upper[: len(rows), : len(rows)], upper[: len(rows), len(rows) :]
        # the difference of the two routes, in deviations of the second: of spreads, of means at b, of slopes
        spread, slope = own @ found.root, own @ weight + seen
        middle = own @ found.offset + (own @ weight + seen) @ given - start[: len(rows)]
        for difference in (spread @ spread.mT - _one(len(rows)), slope @ lower[:n, :n], middle):
            _refuse_beyond_rounding(difference, f"p({', '.join(a)}{' | ' if b else ''}{', '.join(b)})")
        return found

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log-density `[...]` of the variables in `values`, all others integrated out."""
        marginal = self.conditional(list(values), [])
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values.values()))
        joined = torch.cat([value.to(self.mean).expand(*batch, -1) for value in values.values()], -1)
        return gaussian_log_prob(joined - marginal.offset, marginal.root)

    def mutual_information(self, a: Sequence[str], b: Sequence[str], given: Sequence[str] = ()) -> float:
        """I(a; b | given) = log |I + G G^T| / 2, with `G = L_bb^-1 L_ba` and with `G = R_ab R_bb^-1`.

        Exact down to 0, and up to where a and b determine each other.
        """
        n_given, n_a, n_b = (sum(self.widths[name] for name in group) for group in (given, a, b))
        lower = _lower(self.root[indices(self.widths, [*given, *a, *b])])[n_given:, n_given:]
        upper, _ = self._upper([*a, *b, *given])
        upper = upper[: n_a + n_b, : n_a + n_b]
        found = _information(torch.linalg.solve_triangular(lower[n_a:, n_a:], lower[n_a:, :n_a], upper=False))
        other = _information(
            torch.linalg.solve_triangular(upper[n_a:, n_a:], upper[:n_a, n_a:], upper=True, left=False)
        )
        _refuse_beyond_rounding((found - other) / (1 + found), f"the information of {', '.join([*a, *b])}")
        return float(found)

    def _upper(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """R and its start for the named variables, all others before them eliminated."""
        index = indices(self.widths, names)
        kept = set(index.tolist())
        others = torch.tensor([i for i in range(len(self.mean)) if i not in kept], dtype=torch.long)
        every = torch.cat([self.white[:, torch.cat([others, index])], self.start.unsqueeze(-1)], -1)
        # rows from large to small, else a row of little noise drowns the others (Higham 2002, section 19.4)
        upper = torch.linalg.qr(every[every[:, :-1].abs().amax(-1).argsort(descending=True)], mode="r")[1]
        n = len(others)
        return upper[n : len(self.mean), n:-1], upper[n : len(self.mean), -1]


def indices(widths: Mapping[str, int], names: Sequence[str]) -> Tensor:
    """Coordinates of the named variables, in the order named. Raises KeyError for one that is unknown."""
    unknown = [name for name in names if name not in widths]
    if unknown:
        raise KeyError(f"{unknown} are not among the variables {list(widths)}.")
    places, every = blocks(widths), range(sum(widths.values()))
    return torch.tensor([i for name in names for i in every[places[name]]], dtype=torch.long)


def blocks(widths: Mapping[str, int]) -> dict[str, slice]:
    """Where each variable stands."""
    ends = itertools.accumulate(widths.values())
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def cholesky(covariance: Tensor) -> Tensor:
    """Lower triangular root of a covariance. Raises `NoReferenceError` where rounding has made it singular."""
    tril: Tensor
    tril, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise NoReferenceError(
            f"a covariance of {len(covariance)} units is singular in float64; the couplings are too strong for exact "
            "answers, so rescale the decoder."
        )
    return tril


def gaussian_log_prob(difference: Tensor, root: Tensor) -> Tensor:
    """`log N(difference; 0, root root^T)` `[...]` of `difference [..., D]`, for a lower triangular root."""
    rows = difference.double().reshape(-1, len(root))
    white = torch.linalg.solve_triangular(root.mT, rows, upper=True, left=False)
    log_density: Tensor = (
        -white.view(difference.shape).square().sum(-1) / 2
        - root.diagonal().abs().log().sum()
        - len(root) / 2 * math.log(2 * math.pi)
    )
    return log_density


def gaussian_mutual_information(covariance: Tensor, a: Sequence[int], b: Sequence[int]) -> float:
    """I(a; b) of two groups of coordinates, as `JointGaussian.mutual_information`."""
    rows, n = [*a, *b], len(a)
    root = cholesky(covariance.double()[rows][:, rows])
    white = torch.linalg.solve_triangular(root, _one(len(root)), upper=False)
    zero = torch.zeros(len(root), dtype=torch.float64)
    widths = {"a": n, "b": len(rows) - n}
    return JointGaussian(widths, zero, root, white, zero).mutual_information(["a"], ["b"])


def _information(ratio: Tensor) -> Tensor:
    """`log |I + G G^T| / 2`."""
    return torch.log1p(torch.linalg.svdvals(ratio).square()).sum() / 2


def _lower(rows: Tensor) -> Tensor:
    """Lower triangular L with `L L^T = rows rows^T` and a positive diagonal."""
    lower: Tensor = torch.linalg.qr(rows.mT, mode="r")[1].mT
    positive: Tensor = lower * torch.where(lower.diagonal() < 0, -1.0, 1.0).to(lower)
    return positive


def _one(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def _refuse_beyond_rounding(difference: Tensor, what: str) -> None:
    error = float(difference.abs().max()) if difference.numel() else 0.0
    if not error <= ROUNDING:
        raise NoReferenceError(
            f"two routes to {what} differ by {error:.2g} where {ROUNDING:g} is the limit; the couplings are too strong "
            "for exact answers in float64, so rescale the decoder."
        )
