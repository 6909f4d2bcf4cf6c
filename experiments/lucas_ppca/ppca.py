"""Linear VAEs against probabilistic PCA (Lucas et al. 2019): is its likelihood reached, and which columns are stable?

Rows of tables, one replica each: about 1000 data and a random start of its own. Nats.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from hvae.experiments.shared.linear.thresholds import ppca
from hvae.experiments.shared.linear.training import (
    column_curvature,
    covariance,
    random_weights,
    spectrum,
    stack_bound,
    train_stacks,
    whitened,
)
from hvae.experiments.truth.accuracy import columns
from hvae.lab.evaluation.replicas import Arrays, Say

Fixed = Mapping[str, Tensor | float]

KEPT = 0.01
"""a singular value of the decoder below this is a column of 0"""


def optimum_rows(
    samples: Sequence[Tensor], n_latents: Sequence[int], tolerance: float, n_refined: int, say: Say
) -> Arrays:
    """One row per number of latents and replica: the trained bound, noise learned, and the greatest likelihood.

    ``log_px_nats`` is of the covariance divided by N; ``log_px_n1_nats`` what the same formula says of N - 1.
    """
    spectra = torch.stack([spectrum(x) for x in samples])
    rows: list[dict[str, Any]] = []
    for units in n_latents:
        say(f"linear VAEs of {units} latents, trained to a gradient of {tolerance:g}")
        free = random_weights((spectra.shape[1], units), range(len(samples)))
        free["p0"] = spectra.new_zeros(len(samples))
        fixed: Fixed = {**whitened(spectra), "beta": spectra.new_ones(len(samples), 1), "p1": 0.0}
        found = train_stacks(free, fixed, tolerance=tolerance, n_refined=n_refined)
        for replica, (x, eigenvalues) in enumerate(zip(samples, spectra, strict=True)):
            best = ppca(eigenvalues.diag(), units)
            rows.append(
                {
                    "latents": units,
                    "replica": replica,
                    "bound_nats": float(found.height[replica]),
                    "log_px_nats": best.log_px,
                    "log_px_n1_nats": other_divisor(best.log_px, len(x), len(eigenvalues)),
                    "variance": float(found.values["p0"][replica].exp()),
                    "best_variance": best.variance,
                    "gradient": float(found.gradient[replica]),
                }
            )
    return columns(rows)


def other_divisor(log_px: float, n: int, n_pixels: int) -> float:
    """pPCA's greatest ``log_px`` of n data with the covariance divided by n - 1 instead: D/2 log(n / (n-1)) less."""
    return log_px - n_pixels / 2 * math.log(n / (n - 1))


def trajectory(
    samples: Sequence[Tensor], units: int, n_steps: int, every: int, learning_rate: float, say: Say
) -> Arrays:
    """The bound along Adam from the authors' start, in float32 and pixels as theirs: `step [T]`, `bound_nats [T, R]`.

    Weights, log-variances of q and the mean start uniform on ±sqrt(6 / (n_in + n_out)) (a vector counts twice), the
    noise at 1; everything learns. Also `log_px_nats [R]` and, divided by N - 1, `log_px_n1_nats [R]`.
    """
    say(f"Adam from the authors' start: {units} latents, {n_steps} steps, {len(samples)} replicas")
    starts: dict[str, list[Tensor]] = {"u1": [], "v1": [], "q1": [], "offset": []}
    for seed, x in enumerate(samples):
        source = torch.Generator().manual_seed(seed)
        n = x.shape[1]
        for name, shape in (("u1", (n, units)), ("v1", (units, n)), ("q1", (units,)), ("offset", (n,))):
            uniform = 2 * torch.rand(shape, generator=source) - 1
            starts[name].append(uniform * math.sqrt(6 / (sum(shape) if len(shape) == 2 else 2 * shape[0])))
        starts["offset"][-1] += x.mean(0)
    free = {name: torch.stack(values) for name, values in starts.items()} | {"p0": torch.zeros(len(samples))}
    covariances = torch.stack([covariance(x) for x in samples])
    fixed = {"xx": covariances.float(), "beta": torch.ones(len(samples), 1), "p1": torch.zeros(len(samples))}
    moving = {name: value.requires_grad_(True) for name, value in free.items()}
    every_bound, optimiser = vmap(stack_bound), torch.optim.Adam(moving.values(), lr=learning_rate)
    steps, bounds = [], []
    for step in range(n_steps):
        optimiser.zero_grad()
        bound = every_bound({**fixed, **moving})
        if step % every == 0:
            steps.append(step)
            bounds.append(bound.detach().double())
        (-bound.sum()).backward()
        optimiser.step()
    best = [ppca(each, units).log_px for each in covariances]
    other = [other_divisor(log_px, len(x), x.shape[1]) for log_px, x in zip(best, samples, strict=True)]
    made = {"step": torch.tensor(steps), "bound_nats": torch.stack(bounds)}
    made |= {"log_px_nats": torch.tensor(best), "log_px_n1_nats": torch.tensor(other)}
    return {name: value.double().numpy() for name, value in made.items()}


def stability_rows(samples: Sequence[Tensor], n_kept: int, ratios: Sequence[float], n_pixels: int = 12) -> Arrays:
    """One row per replica and σ², a ratio times the eigenvalue λ after the ``n_kept`` largest: is a zero column stable?

    The stack holds pPCA's columns of the ``n_kept`` largest eigenvalues and one column of 0, with q its prior;
    ``curvature`` is the largest eigenvalue of the bound's Hessian in all that belongs to that column, at
    most ``expected_curvature`` by `zero_column_curvature`. Only the ``n_pixels`` largest eigenvalues are looked at:
    given σ², modes do not interact.
    """
    rows = []
    for replica, x in enumerate(samples):
        eigenvalues = spectrum(x)[:n_pixels]
        for ratio in ratios:
            variance = ratio * float(eigenvalues[n_kept])
            rows.append(
                {
                    "replica": replica,
                    "eigenvalue": float(eigenvalues[n_kept]),
                    "variance": variance,
                    "ratio": ratio,
                    "curvature": float(zero_column_hessian(eigenvalues, n_kept, variance)),
                    "expected_curvature": zero_column_curvature(eigenvalues.tolist(), n_kept, variance),
                }
            )
    return columns(rows)


def zero_column_hessian(eigenvalues: Tensor, n_kept: int, variance: float) -> Tensor:
    """The largest eigenvalue of the bound's Hessian in a column of 0 next to ``n_kept`` of pPCA's, by autodiff."""
    n = len(eigenvalues)
    kept = eigenvalues[:n_kept].clamp(min=variance)
    columns_kept = torch.zeros(n, n_kept, dtype=torch.float64)
    columns_kept[:n_kept] = (kept - variance).sqrt().diag()
    return column_curvature(
        {
            "u1": columns_kept,
            "v1": (columns_kept / kept).mT,
            "q1": (variance / kept).log(),
            "xx": eigenvalues,
            "beta": eigenvalues.new_ones(1),
            "p0": eigenvalues.new_tensor(variance).log(),
            "p1": eigenvalues.new_zeros(()),
        }
    )


def zero_column_curvature(eigenvalues: Sequence[float], n_kept: int, variance: float) -> float:
    """The same in closed form.

    At a column of 0 the Hessian falls into one 2 x 2 block per direction i, of (u_i, v_i): ``[[-1/σ², r/σ²], [r/σ²,
    -λ_i]]`` with r the variance that the kept columns leave of it, σ² of a kept direction and λ_i of another, and
    -1/2 for the log-variance. So it is negative definite iff λ_i < σ² for every direction that is not kept
    (Lucas et al. 2019, section 4).
    """
    found = [-0.5]
    for place, eigenvalue in enumerate(eigenvalues):
        left = min(variance, eigenvalue) if place < n_kept else eigenvalue
        a, b, c = -1 / variance, left / variance, -eigenvalue
        found.append((a + c) / 2 + math.hypot((a - c) / 2, b))
    return max(found)


def column_rows(
    samples: Sequence[Tensor], units: int, variances: Sequence[float], tolerance: float, say: Say
) -> Arrays:
    """One row per replica and fixed σ²: columns that training from random weights keeps, against pPCA's."""
    say(f"linear VAEs of {units} latents at {len(variances)} fixed noises")
    spectra = torch.stack([spectrum(x) for x in samples])
    cells = [(replica, variance) for replica in range(len(samples)) for variance in variances]
    places = torch.tensor([replica for replica, _ in cells])
    noise = torch.tensor([variance for _, variance in cells], dtype=torch.float64)
    starts = random_weights((spectra.shape[1], units), range(len(samples)))
    fixed: Fixed = {**whitened(spectra[places]), "p0": noise.log(), "beta": noise.new_ones(len(cells), 1), "p1": 0.0}
    found = train_stacks({name: value[places] for name, value in starts.items()}, fixed, tolerance=tolerance)
    rows = []
    for place, (replica, variance) in enumerate(cells):
        best = ppca(spectra[replica].diag(), units, variance)
        rows.append(
            {
                "replica": replica,
                "variance": variance,
                "columns": int((torch.linalg.svdvals(found.values["u1"][place]) > KEPT).sum()),
                "best_columns": int(best.kept.sum()),
                "bound_nats": float(found.height[place]),
                "log_px_nats": best.log_px,
                "gradient": float(found.gradient[place]),
            }
        )
    return columns(rows)
