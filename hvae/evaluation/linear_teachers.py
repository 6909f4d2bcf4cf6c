"""Linear-Gaussian teachers: what the best diagonal encoder leaves, in closed form, and the price of a second layer.

    p(z2) = N(0, I), p(z1 | z2) = N(U2 z2, I), p(x | z1) = N(U1 z1, I),
    q(z1 | x) = N(W1 x, S1), q(z2 | z1) = N(W2 z1, S2),

trained on data of covariance C with the rate of z2 weighed by β. The law of x and both rates stay the same when a layer
is rotated, so a free decoder finds axes in which its reverse conditionals are diagonal; and U1 can carry whatever
covariance U2 could give z1, so that at β = 1 nothing is gained or lost by z2. Nats.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from hvae.evaluation.accuracy import columns
from hvae.evaluation.replicas import Arrays
from hvae.evaluation.teachers import Effort, Say, by_layer, filled
from hvae.reference import LinearGaussian, examples

Weights = dict[str, Tensor]


def gaussian_rows(depths: Sequence[int], units: int, strengths: Sequence[float], n_teachers: int) -> Arrays:
    """One row per depth, strength and teacher: least layer gaps of diagonal encoders of linear-Gaussian teachers."""
    rows = []
    for depth in depths:
        widths = (units + 2, *(units,) * depth)
        for strength in strengths:
            for number in range(n_teachers):
                stack = examples.linear_stack(strength, "best", number, widths)
                gaps = torch.stack([layer.mean() for layer in stack.exact.layers.values()])
                rows.append(
                    {
                        "units": "-".join(map(str, widths)),
                        "depth": depth,
                        "strength": strength,
                        "teacher": number,
                        "gap_nats": float(gaps.sum()),
                        "layer_gap_nats": float(gaps.mean()),
                        **by_layer("gap", gaps),
                    }
                )
    return filled(rows)


def two_layer_bound(w: Weights, covariance: Tensor, beta: Tensor | float) -> Tensor:
    """The bound of x ~ N(0, ``covariance``) under two layers; S1 and S2 are from triangular roots r1 and r2."""
    u1, u2, w1, w2 = w["u1"], w["u2"], w["w1"], w["w2"]
    s1, s2 = w["r1"] @ w["r1"].mT, w["r2"] @ w["r2"].mT
    first = w1 @ covariance @ w1.mT + s1  # E z1 z1'
    on_x = covariance - 2 * u1 @ w1 @ covariance + u1 @ first @ u1.mT
    missed = torch.eye(len(first)).to(first) - u2 @ w2
    on_z1 = missed @ first @ missed.mT + u2 @ s2 @ u2.mT
    on_z2 = w2 @ first @ w2.mT + s2
    log_p = [-(_trace(e) + len(e) * math.log(2 * math.pi)) / 2 for e in (on_x, on_z1, on_z2)]
    entropy = [
        root.diagonal().abs().log().sum() + len(root) * (1 + math.log(2 * math.pi)) / 2 for root in (w["r1"], w["r2"])
    ]
    return log_p[0] + log_p[1] + entropy[0] + beta * (log_p[2] + entropy[1])


def linear_threshold_rows(
    strength: float, units: int, n_teachers: int, betas: Sequence[float], effort: Effort, say: Say
) -> Arrays:
    """One row per inference (full covariances are exact), β and teacher: I_p(z1; z2) after training at random."""
    say("linear-Gaussian stacks from random weights")
    widths = (units + 2, units, units)
    references = [examples.linear_stack(strength, "best", number, widths).reference for number in range(n_teachers)]
    cells = [
        (inference, beta, number)
        for inference in ("exact", "factorised")
        for beta in betas
        for number in range(n_teachers)
    ]
    covariance = torch.stack([_covariance(references[number]) for *_, number in cells])
    one = torch.eye(units, dtype=torch.float64)
    mask = torch.stack([one if inference == "factorised" else torch.ones_like(one).tril() for inference, *_ in cells])
    weigh = torch.tensor([beta for _, beta, _ in cells], dtype=torch.float64)
    starts = [values.repeat_interleave(effort.n_starts, 0) for values in (covariance, mask, weigh)]
    found, bound, change = _fitted(starts[0], starts[1], starts[2], effort)
    best = bound.reshape(-1, effort.n_starts).argmax(-1) + torch.arange(len(cells)) * effort.n_starts
    rows = []
    for (inference, beta, number), place in zip(cells, best.tolist(), strict=True):
        u1, u2 = found["u1"][place], found["u2"][place]
        x = u1 @ (u2 @ u2.mT + one) @ u1.mT + torch.eye(len(u1)).to(u1)
        ratio = torch.linalg.solve(x, _covariance(references[number]))
        rows.append(
            {
                "units": "-".join(map(str, widths)),
                "teacher": number,
                "inference": inference,
                "beta": beta,
                "top_nats": float(torch.linalg.slogdet(one + u2 @ u2.mT)[1] / 2),
                "given_up_nats": float((_trace(ratio) - len(x) - torch.linalg.slogdet(ratio)[1]) / 2),
                "late_gain_nats": float(change[place]),
            }
        )
    return columns(rows)


def _covariance(reference: Any) -> Tensor:
    assert isinstance(reference, LinearGaussian)
    return reference.marginal(["x"])[1]


def _fitted(covariance: Tensor, mask: Tensor, beta: Tensor, effort: Effort) -> tuple[Weights, Tensor, Tensor]:
    """The weights of R stacks, their bounds and what the last tenth of the steps gained; ``mask`` is of r1 and r2."""
    source = torch.Generator().manual_seed(0)
    n, n_x, units = len(covariance), covariance.shape[-1], mask.shape[-1]
    shapes = {"u1": (n_x, units), "u2": (units, units), "w1": (units, n_x), "w2": (units, units)}
    free = {
        name: (0.3 * torch.randn(n, *shape, generator=source, dtype=torch.float64)).requires_grad_(True)
        for name, shape in shapes.items()
    }
    one = torch.eye(units, dtype=torch.float64)
    free |= {name: one.expand(n, -1, -1).clone().requires_grad_(True) for name in ("r1", "r2")}
    bounds = vmap(two_layer_bound)

    def bound() -> Tensor:
        found: Tensor = bounds(free | {name: free[name] * mask for name in ("r1", "r2")}, covariance, beta)
        return found

    optimiser = torch.optim.Adam(free.values(), lr=effort.learning_rate)
    before = beta
    for step in range(effort.n_steps):
        optimiser.param_groups[0]["lr"] = effort.learning_rate * (1 + math.cos(math.pi * step / effort.n_steps)) / 2
        optimiser.zero_grad()
        found = bound()
        if step == effort.n_steps - max(1, effort.n_steps // 10):
            before = found.detach()
        (-found.sum()).backward()
        optimiser.step()
    last = bound().detach()
    return {name: value.detach() for name, value in free.items()}, last, last - before


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal().sum()
