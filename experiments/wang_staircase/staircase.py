"""One linear layer trained at a weight β of its rate: the staircase of modes (Wang and Ziyin 2022).

    p(z) = N(0, η_enc² I),  p(y|z) = N(U z, η_dec² I),  q(z|x) = N(V x, diag)

learns y from x; a mode of E[y x̃ᵀ] (x̃ the whitened x), of singular value ζ, is given up iff ζ² <= β η_dec²
(`hvae.exact.single_layer`). Rows of tables, one replica (a random start, and random data where they are made) each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.experiments.shared.linear.thresholds import single_layer
from hvae.experiments.shared.linear.training import column_curvature, random_weights, train_stacks
from hvae.experiments.truth.accuracy import columns
from hvae.lab.evaluation.replicas import Arrays, Say

ACTIVE = 0.01
"""a singular value of the decoder below this is a mode that is given up"""


@dataclass(frozen=True)
class Task:
    """What is learned: second moments of x and y, and ζ."""

    xx: Tensor
    """`[D, D]`, or `[D]` where it is diagonal"""
    yx: Tensor
    """`[D_y, D]`, or `[D]`"""
    yy: Tensor
    """E|y|² `[]`"""
    zeta: Tensor
    """singular values of E[y x̃ᵀ], largest first"""

    @staticmethod
    def reconstruction(eigenvalues: Tensor) -> "Task":
        """y = x with these eigenvalues of its covariance, largest first; the encoder reads whitened x."""
        roots = eigenvalues.sqrt()
        return Task(torch.ones_like(eigenvalues), roots, eigenvalues.sum(), roots)

    @staticmethod
    def regression(zeta: Sequence[float], seed: int) -> "Task":
        """y = A x + noise, in axes drawn at random, x with deviations from 1/2 to 2, and A such that these are the ζ.

        With rotations L, Q and R, E x xᵀ = C Cᵀ with C = Q diag(1/2 … 2), and A = L diag(ζ) Rᵀ C⁻¹, so that E[y x̃ᵀ] =
        L diag(ζ) Rᵀ for x̃ = C⁻¹ x; the noise has variance 1.
        """
        source = torch.Generator().manual_seed(seed)
        n = len(zeta)
        left, middle, right = (
            torch.linalg.qr(torch.randn(n, n, generator=source, dtype=torch.float64))[0] for _ in range(3)
        )
        root = middle * torch.linspace(0.5, 2, n, dtype=torch.float64)
        values = torch.tensor(zeta, dtype=torch.float64)
        crossed = left * values @ right.mT
        yy = values.square().sum() + n
        return Task(root @ root.mT, crossed @ root.mT, yy, values.sort(descending=True).values)


@dataclass(frozen=True)
class Setting:
    """Knobs of one training."""

    beta: float
    eta_enc: float = 1.0
    eta_dec: float = 1.0


def staircase_rows(
    tasks: Sequence[Task], settings: Sequence[Setting], units: int, tolerance: float, n_refined: int, say: Say
) -> Arrays:
    """One row per replica and setting: what training from random weights finds, mode by mode, against the closed form.

    `decoder [modes]`, `encoder`, `sigma`: singular values of U, of V in whitened coordinates, and the standard
    deviations of q, each sorted and with its closed form `best_…`; `modes` counts those of the decoder above 0.01.
    """
    say(f"linear layers of {units} units at {len(settings)} settings, {len(tasks)} replicas")
    cells = [(replica, setting) for replica in range(len(tasks)) for setting in settings]
    places = [replica for replica, _ in cells]
    n_y, n_x = tasks[0].yx.shape[0], tasks[0].xx.shape[0]
    starts = random_weights((n_x, units), range(len(tasks)))
    if n_y != n_x:
        raise ValueError(f"y has {n_y} numbers and x {n_x}; give as many of both.")
    like = tasks[0].zeta
    fixed = {
        "xx": torch.stack([tasks[replica].xx for replica in places]),
        "yx": torch.stack([tasks[replica].yx for replica in places]),
        "yy": torch.stack([tasks[replica].yy for replica in places]),
        "beta": like.new_tensor([[setting.beta] for _, setting in cells]),
        "p0": like.new_tensor([2 * math.log(setting.eta_dec) for _, setting in cells]),
        "p1": like.new_tensor([2 * math.log(setting.eta_enc) for _, setting in cells]),
    }
    free = {name: value[places] for name, value in starts.items()}
    found = train_stacks(free, fixed, tolerance=tolerance, n_refined=n_refined)
    rows = []
    for place, (replica, setting) in enumerate(cells):
        task = tasks[replica]
        u, v, q = (found.values[name][place] for name in ("u1", "v1", "q1"))
        root = task.xx.sqrt().diag() if task.xx.ndim == 1 else torch.linalg.cholesky(task.xx)
        best = [
            single_layer(zeta, setting.beta, setting.eta_enc, setting.eta_dec)
            for zeta in [*task.zeta.tolist(), *[0.0] * units][:units]
        ]
        decoder = torch.linalg.svdvals(u)
        row = {
            "replica": replica,
            "beta": setting.beta,
            "eta_enc": setting.eta_enc,
            "eta_dec": setting.eta_dec,
            "modes": int((decoder > ACTIVE).sum()),
            "best_modes": sum(not mode.collapsed for mode in best),
            "bound_nats": float(found.height[place]),
            "gradient": float(found.gradient[place]),
            "origin_curvature": float(_origin_curvature(task, setting)),
        }
        values = {"decoder": decoder, "encoder": torch.linalg.svdvals(v @ root), "sigma": (q / 2).exp().sort().values}
        for name, found_values in values.items():
            ours = [*found_values.tolist(), *[0.0] * units]
            closed = sorted((getattr(mode, name) for mode in best), reverse=name != "sigma")
            for mode in range(units):
                row |= {f"{name}_{mode + 1}": ours[mode], f"best_{name}_{mode + 1}": closed[mode]}
        rows.append(row)
    return columns(rows)


def _origin_curvature(task: Task, setting: Setting) -> Tensor:
    """The largest eigenvalue of the Hessian of the bound where U = V = 0 and q is the prior (theorem 3).

    Of one column: the others stand alike, and there none of them meets another.
    """
    n_y, n_x, like = task.yx.shape[0], task.xx.shape[0], task.zeta
    return column_curvature(
        {
            "u1": like.new_zeros(n_y, 0), "v1": like.new_zeros(0, n_x), "q1": like.new_zeros(0),
            "xx": task.xx, "yx": task.yx, "yy": task.yy, "beta": like.new_tensor([setting.beta]),
            "p0": like.new_tensor(2 * math.log(setting.eta_dec)), "p1": like.new_tensor(2 * math.log(setting.eta_enc)),
        }
    )  # fmt: skip
