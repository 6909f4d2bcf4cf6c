"""Linear-Gaussian teachers: the gap of the best diagonal encoder, in closed form, and the β threshold of z2.

    p(z2) = N(0, I), p(z1 | z2) = N(U2 z2, I), p(x | z1) = N(U1 z1, I),
    q(z1 | x) = N(W1 x, S1), q(z2 | z1) = N(W2 z1, S2),

trained on data of covariance C, with β as weight of the rate of z2. The best q of a given decoder is Gaussian, so full
S1 and S2 are exact inference. A free U1 would need neither z2 nor full covariances. It can carry every covariance that
U2 gives z1. It also allows a rotation of z1, which changes no p(x) and makes a reverse conditional diagonal. So here
every unit of z1 writes its own coordinates of x, and U1 can do neither; see `thresholds`. z2 can still be rotated, so a
diagonal q(z2 | z1) costs nothing.

β < 1 has no optimum: scale a unit of z1 by t → ∞ (its column of U1 by 1/t, its row of U2 and of W1 by t). The entropy
of q(z1 | x) and the divergence of q(z2 | z1) both grow by log t, which gains (1 - β) log t. Nats.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vmap

from hvae.exact import known_stacks as examples
from hvae.experiments.conjecture.bernoulli import FIRST_TEACHER, Budget, Widths, by_layer, filled
from hvae.experiments.conjecture.thresholds import Job, Needing, Solution, Train, needing, threshold_rows
from hvae.experiments.shared.ascent import ascend
from hvae.lab.evaluation.replicas import Arrays, Say

Weights = dict[str, Tensor]
"""u1, u2, w1, w2, and the triangular roots r1, r2 of S1 and S2"""


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
    """The bound of x ~ N(0, ``covariance``) under two layers; r1 and r2 are triangular roots of S1 and S2."""
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


def own_loadings(loadings: Tensor) -> Tensor:
    """U1 `[D, G]` of ``loadings [G, D / G]``: unit g of z1 writes the g-th group of x."""
    one = torch.eye(len(loadings)).to(loadings)
    return (one.unsqueeze(1) * loadings.unsqueeze(-1)).flatten(0, 1)


def covariance(u1: Tensor, u2: Tensor) -> Tensor:
    """Of x."""
    return u1 @ (_one(len(u2)) + u2 @ u2.mT) @ u1.mT + _one(len(u1))


def teacher(widths: Widths, strengths: tuple[float, float], number: int) -> Needing:
    """U1 and U2 of random signs, 0.5 to 1.5 times ``strengths``; ``truth`` is (loadings of U1, U2, C)."""
    n_x, n_z1, n_z2 = widths
    source = torch.Generator().manual_seed(FIRST_TEACHER + number)
    shapes = ((n_z1, n_x // n_z1), (n_z1, n_z2))
    loadings, u2 = (strength * _weight(shape, source) for strength, shape in zip(strengths, shapes, strict=True))
    u1 = own_loadings(loadings)
    found = covariance(u1, u2)
    groups = [found[one][:, one] for one in torch.arange(n_x).reshape(n_z1, -1)]
    without = -sum(_entropy(group) for group in groups)
    described = {
        "units": "-".join(map(str, widths)), "kind": "linear-Gaussian", "x_strength": strengths[0],
        "z_strength": strengths[1], "teacher": number, "teacher_top_nats": _log_det(_one(n_z1) + u2 @ u2.mT) / 2,
    }  # fmt: skip
    local = local_threshold(u1, u2)
    return Needing(described, -_entropy(found) - without, local, without, (loadings, u2, found))


def local_threshold(u1: Tensor, u2: Tensor) -> float:
    """λ: the largest eigenvalue of the correlations of z1_g ~ p(z1_g | x_g) on the teacher's x."""
    variance = 1 + u2.square().sum(-1)
    read = variance.sqrt().unsqueeze(-1) * u1.mT / (1 + variance * u1.square().sum(0)).unsqueeze(-1)
    return float(torch.linalg.eigvalsh((read @ covariance(u1, u2) @ read.mT).fill_diagonal_(1.0))[-1])


def trained_at_betas(teachers: Sequence[Needing], roots: Tensor, budget: Budget) -> Train:
    """Starts: the teacher; the teacher with next to no z2, at the bound without it; random weights.

    ``roots [z1, z1]`` is 1 where r1 may be other than 0: full (exact inference) or diagonal. r2 is full.
    """

    def begun(job: Job) -> Weights:
        if job.state is not None:
            state: Weights = job.state
            return state
        source = torch.Generator().manual_seed(job.start)
        loadings, u2, _ = teachers[job.teacher].truth
        if job.start > 0:
            weak = 0.1 * torch.randn(u2.shape, generator=source, dtype=torch.float64)
            loadings, u2 = loadings * (1 + u2.square().sum(-1, keepdim=True)).sqrt(), weak
        if job.start > 1:
            loadings, u2 = _weight(loadings.shape, source), _weight(u2.shape, source)
        return {"loadings": loadings, "u2": u2, **_encoder(loadings, u2, roots)}

    def train(jobs: Sequence[Job]) -> list[Solution]:
        states = [begun(job) for job in jobs]
        free = {name: torch.stack([state[name] for state in states]).requires_grad_(True) for name in states[0]}
        data = torch.stack([teachers[job.teacher].truth[2] for job in jobs])
        betas = torch.tensor([job.beta for job in jobs], dtype=torch.float64)

        def bound(w: Weights, distribution: Tensor, beta: Tensor) -> Tensor:
            made = {**w, "u1": own_loadings(w["loadings"]), "r1": w["r1"] * roots, "r2": w["r2"].tril()}
            return two_layer_bound(made, distribution, beta)

        _, late = ascend(
            list(free.values()), lambda: vmap(bound)(free, data, betas), budget.n_steps, budget.learning_rate
        )
        with torch.no_grad():
            without_rate, whole = (vmap(bound)(free, data, value) for value in (0 * betas, 0 * betas + 1))
        return [
            _solution(
                teachers[job.teacher],
                {name: value[place].detach() for name, value in free.items()},
                float(without_rate[place]),
                float(without_rate[place] - whole[place]),
                float(late[place]),
            )
            for place, job in enumerate(jobs)
        ]

    return train


def _solution(teacher: Needing, state: Weights, bound: float, rate: float, late_gain: float) -> Solution:
    u1, u2, truth = own_loadings(state["loadings"]), state["u2"], teacher.truth[2]
    x = covariance(u1, u2)
    on_z2 = x - u1 @ u2 @ u2.mT @ u1.mT
    told = {
        "top_nats": _log_det(_one(len(u2)) + u2 @ u2.mT) / 2,
        "about_x_nats": (_log_det(x) - _log_det(on_z2)) / 2,
        "given_up_nats": float(torch.linalg.solve(x, truth).trace() - len(x) + _log_det(x) - _log_det(truth)) / 2,
    }
    return Solution(bound - teacher.without, rate, late_gain, state, told)


def _encoder(loadings: Tensor, u2: Tensor, roots: Tensor) -> Weights:
    """The exact reverse conditionals; where r1 is diagonal, that of least divergence."""
    u1, one = own_loadings(loadings), _one(len(u2))
    precision = torch.linalg.inv(one + u2 @ u2.mT) + u1.mT @ u1
    above = torch.linalg.inv(_one(u2.shape[1]) + u2.mT @ u2)
    full = torch.linalg.cholesky(torch.linalg.inv(precision))
    root = full if roots.sum() > len(roots) else precision.diagonal().rsqrt().diag()
    return {
        "w1": torch.linalg.solve(precision, u1.mT), "r1": root, "w2": above @ u2.mT, "r2": torch.linalg.cholesky(above)
    }  # fmt: skip


def linear_threshold_rows(
    widths: Widths, strengths: Sequence[tuple[float, float]], n_teachers: int, powers: Sequence[float],
    budget: Budget, n_closer: int, say: Say,
) -> Arrays:  # fmt: skip
    """`threshold_rows` of the first ``n_teachers`` that need z2, for every pair of ``strengths``; β is at least 1."""
    teachers = [
        one
        for pair in strengths
        for one in needing(lambda number, p=pair: teacher(widths, p, number), n_teachers)  # type: ignore[misc]
    ]
    one = _one(widths[1])
    roots = {"exact": torch.ones_like(one).tril(), "factorised linear": one}
    trains = {name: trained_at_betas(teachers, root, budget) for name, root in roots.items()}
    return threshold_rows(teachers, trains, [power for power in powers if power >= 0], budget.n_starts, n_closer, say)


def _weight(shape: Sequence[int], source: torch.Generator) -> Tensor:
    size = torch.rand(*shape, generator=source, dtype=torch.float64) + 0.5
    return size * (2 * torch.randint(2, tuple(shape), generator=source) - 1)


def _one(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def _log_det(matrix: Tensor) -> float:
    return float(torch.linalg.slogdet(matrix)[1])


def _entropy(matrix: Tensor) -> float:
    """Of a Gaussian of this covariance."""
    return (_log_det(matrix) + len(matrix) * (1 + math.log(2 * math.pi))) / 2


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal().sum()
