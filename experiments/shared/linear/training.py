"""Linear-Gaussian stacks trained exactly: their bound is quadratic in data and noise, so neither is drawn.

    p(z_L) = N(0, e^{p_L} I),  p(z_{l-1} | z_l) = N(U_l z_l, e^{p_{l-1}} I),  p(y | z_1) = N(U_1 z_1, e^{p_0} I)
    q(z_1 | x) = N(V_1 x, diag e^{q_1}),  q(z_l | z_{l-1}) = N(V_l z_{l-1}, diag e^{q_l})

    B = E log p(y | z_1) - sum_l β_l E [log q(z_l | z_{l-1}) - log p(z_l | z_{l+1})]

for data of second moments E x xᵀ and E y xᵀ (y = x where none is given); centre them, as biases then are 0. float64,
nats.

Names of the values, one stack each: ``u1, v1, q1, …, uL, vL, qL``; ``p0, …, pL`` (log-variances, a number each);
``beta [L]``; ``xx [D, D]``, ``yx [D_y, D]``, or ``[D]`` where they are diagonal; ``yy``, E|y|². Where y = x, ``xx``
may also be about the mean of x, with ``offset [D]`` that mean less the one of the stack. Any of them may be free, any
fixed: a fixed ``p0`` is a given noise, a free one a learned noise. Modes of a covariance are learned at rates that
differ as its eigenvalues do; `whitened` data (y = x in its eigenbasis, the encoder reads x / √eigenvalue) have the same
optimum and learn sooner.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from hvae.experiments.shared.ascent import Ascended, Values, ascend, lbfgs

LOG_2PI = math.log(2 * math.pi)


def stack_bound(w: Values) -> Tensor:
    """B of one stack (see the module) in closed form."""
    depth = sum(name.startswith("u") for name in w)
    xx, u, v = w["xx"], w["u1"], w["v1"]
    on_x, size = _times(v, xx), xx.sum() if xx.ndim == 1 else _trace(xx)  # E z1 x' and E|x|²
    if "offset" in w:
        on_x, size = on_x + (v @ w["offset"]).outer(w["offset"]), size + w["offset"].square().sum()
    on_y = on_x
    if "yx" in w:
        on_y, size = _times(v, w["yx"].mT if w["yx"].ndim == 2 else w["yx"]), w["yy"]
    moment = on_x @ v.mT + torch.diag(w["q1"].exp())  # E z1 z1'
    found = _log_density(size - 2 * (u * on_y.mT).sum() + ((u.mT @ u) * moment).sum(), len(u), w["p0"])
    for layer in range(1, depth + 1):
        beta, log_variance = w["beta"][layer - 1], w[f"q{layer}"]
        entropy = (log_variance.sum() + len(log_variance) * (1 + LOG_2PI)) / 2
        missed = _trace(moment)
        if layer < depth:
            u, v = w[f"u{layer + 1}"], w[f"v{layer + 1}"]
            on_below = v @ moment
            above = on_below @ v.mT + torch.diag(w[f"q{layer + 1}"].exp())
            missed = missed - 2 * (u * on_below.mT).sum() + ((u.mT @ u) * above).sum()
            moment = above
        found = found + beta * (_log_density(missed, len(log_variance), w[f"p{layer}"]) + entropy)
    return found


def covariance(x: Tensor) -> Tensor:
    """Of data ``x [N, D]``, divided by N."""
    found: Tensor = torch.cov(x.double().mT, correction=0)
    return found


def spectrum(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance of ``x [N, D]``, largest first."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(covariance(x))
    return eigenvalues.flip(0).clamp(min=0)


def whitened(eigenvalues: Tensor) -> dict[str, Tensor]:
    """``xx, yx, yy`` `[R, …]` of data with these eigenvalues `[R, D]`, for an encoder of whitened x."""
    return {"xx": torch.ones_like(eigenvalues), "yx": eigenvalues.sqrt(), "yy": eigenvalues.sum(-1)}


def random_weights(widths: Sequence[int], seeds: Sequence[int], *, scale: float = 0.3) -> dict[str, Tensor]:
    """``u, v, q`` of stacks of widths (x, z1, …) `[R, …]`, replica r from seed r alone.

    Entries of U and V are N(0, ``scale²`` / n_in), log-variances 0. Where y has another width than x, replace ``u1``.
    """
    found: dict[str, list[Tensor]] = {}
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        for layer, (below, units) in enumerate(itertools.pairwise(widths), start=1):
            for name, shape in ((f"u{layer}", (below, units)), (f"v{layer}", (units, below))):
                drawn = torch.randn(shape, generator=source, dtype=torch.float64)
                found.setdefault(name, []).append(drawn * scale / math.sqrt(shape[1]))
            found.setdefault(f"q{layer}", []).append(torch.zeros(units, dtype=torch.float64))
    return {name: torch.stack(values) for name, values in found.items()}


def largest_curvature(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The largest eigenvalue `[]` of the Hessian of a function of a vector, ``at [n]``; below 0 at a stable maximum."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(jacrev(jacrev(function))(at))
    return eigenvalues[-1]


def column_curvature(w: Values) -> Tensor:
    """The largest eigenvalue `[]` of the Hessian of B in one more column of a stack of one layer, where U and V of that
    column are 0 and its q is the prior; the stack may have none, ``u1 [D_y, 0]``."""
    n_y, n_x = w["u1"].shape[0], w["v1"].shape[1]

    def bound(column: Tensor) -> Tensor:
        u, v, q = column.split([n_y, n_x, 1])
        return stack_bound(
            {
                **w,
                "u1": torch.cat([w["u1"], u.unsqueeze(1)], dim=1),
                "v1": torch.cat([w["v1"], v.unsqueeze(0)]),
                "q1": torch.cat([w["q1"], q]),
            }
        )

    return largest_curvature(bound, torch.cat([w["u1"].new_zeros(n_y + n_x), w["p1"].reshape(1)]))


def train_stacks(
    free: Values,
    fixed: Mapping[str, Tensor | float],
    *,
    n_steps: int = 300,
    learning_rate: float = 0.03,
    tolerance: float = 1e-9,
    n_refined: int = 2000,
) -> Ascended:
    """R stacks trained from ``free`` `[R, …]`: Adam, then L-BFGS until no entry of a gradient exceeds ``tolerance``.

    ``fixed`` values are `[R, …]` too, or numbers that serve every stack. The answer holds what was free, the bound
    `[R]` and the largest entry of each gradient in size `[R]`, to be held against the tolerance: `n_refined` steps may
    not reach it, as where an eigenvalue is on a threshold.
    """
    like = next(iter(free.values()))
    given = {
        name: value if isinstance(value, Tensor) else like.new_full((len(like),), value)
        for name, value in fixed.items()
    }
    moving = {name: value.detach().clone().requires_grad_(True) for name, value in free.items()}
    bounds = vmap(stack_bound)
    ascend(list(moving.values()), lambda: bounds({**given, **moving}), n_steps, learning_rate)
    return lbfgs(stack_bound, moving, given, tolerance, n_refined)


def _log_density(spread: Tensor, units: int, log_variance: Tensor) -> Tensor:
    """E log N(·; 0, e^{log_variance} I) of so many units with the expected square ``spread``."""
    return -(spread * (-log_variance).exp() + units * (log_variance + LOG_2PI)) / 2


def _times(matrix: Tensor, other: Tensor) -> Tensor:
    """The product with a matrix, or with a diagonal one of which the diagonal is given."""
    return matrix * other if other.ndim == 1 else matrix @ other


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal().sum()
