"""Figures of Wang and Ziyin: modes of one linear layer against beta over their closed form, and beta-VAEs."""

from collections.abc import Callable

import numpy as np

from hvae.analysis.claims import Measured, Runs
from hvae.analysis.load import Array, Arrays
from hvae.analysis.papers import Curves, Line
from hvae.experiments.wang_staircase.claims import PARTS, STARTS, active_units, betas_of, information, modes, plain


def _along_beta(rows: Arrays, values: Array) -> tuple[Array, Array]:
    """Betas [N] in order and ``values`` [replica, N, …] at them, both η 1."""
    kept, n_replicas = plain(rows), len(np.unique(rows["replica"]))
    order = np.argsort(rows["beta"][kept].reshape(n_replicas, -1)[0])
    here = values[kept].reshape(n_replicas, len(order), *values.shape[1:])
    return np.unique(rows["beta"][kept]), here[:, order]


def _lines(rows: Arrays, name: str) -> dict[str, Line]:
    """A line for every mode of a quantity against beta."""
    (betas, ours), (_, best) = (_along_beta(rows, modes(rows, key)) for key in (name, f"best_{name}"))
    return {
        f"mode {mode + 1}": Line(betas, ours[:, :, mode].T, (betas, best[0, :, mode])) for mode in range(ours.shape[-1])
    }


def _of_parts(quantity: Callable[[Arrays], dict[str, Line]]) -> Callable[[Runs, Measured], dict[str, dict[str, Line]]]:
    def panels(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
        return {title: quantity(measured[name]) for name, title in PARTS.items() if name in measured}

    return panels


def _steps(rows: Arrays) -> dict[str, Line]:
    """Modes left, over the stairs of theorem 2: one step down at each ζ² = U² + β, which a mode that is left tells."""
    (betas, ours), (_, best) = (_along_beta(rows, found) for found in (rows["modes"], modes(rows, "best_decoder")))
    decoder = best[0, 0]
    thresholds = np.sort(decoder[decoder > 0] ** 2 + betas[0])
    x = np.concatenate([betas[:1], np.repeat(thresholds, 2), betas[-1:]])
    left = np.repeat(np.arange(len(thresholds), -1, -1), 2)
    return {"modes left": Line(betas, ours.T, (x, left))}


def _loss(rows: Arrays) -> dict[str, Line]:
    """−bound against beta, less its value at the largest beta, where every mode is gone: nats."""
    betas, bound = _along_beta(rows, rows["bound_nats"])
    return {"loss": Line(betas, (bound[:, -1:] - bound).T)}


def _units(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    found: dict[str, dict[str, Line]] = {"active units": {}, "information": {}}
    for start in STARTS:
        if betas := betas_of(runs, start):
            of = {
                "active units": [active_units(runs, beta, start) for beta in betas],
                "information": [information(runs, beta, 1, start) for beta in betas],
            }
            for title, samples in of.items():
                found[title][start] = Line(np.array(betas), np.stack([sample.values for sample in samples]))
    return {title: lines for title, lines in found.items() if lines}


curves = (
    Curves(
        "staircase",
        "The staircase of modes",
        "Modes left by training from random weights (points, one per replica; they lie on each other) and by theorem 2 "
        "(line: one less at each eigenvalue), against β at η_enc = η_dec = 1. After figure 3.",
        "β",
        "modes left",
        _of_parts(_steps),
    ),
    Curves(
        "decoder-modes",
        "Singular values of the decoder",
        "Points: trained, one per replica; lines: theorem 2. A mode is 0 from β = ζ² / η_dec² on.",
        "β",
        "singular value",
        _of_parts(lambda rows: _lines(rows, "decoder")),
    ),
    Curves(
        "deviations",
        "Standard deviations of q",
        "Points: trained, one a replica; lines: theorem 2. At 1 the posterior of a mode is its prior. After figure 1.",
        "β",
        "standard deviation of q",
        _of_parts(lambda rows: _lines(rows, "sigma")),
    ),
    Curves(
        "loss",
        "Loss",
        "The objective that is minimised (squared error over 2 η_dec² and its constant, plus β times the rate), less "
        "its value at complete collapse, at the largest β: trained from random weights, one point per replica. After "
        "figure 1.",
        "β",
        "nats",
        _of_parts(_loss),
    ),
    Curves(
        "vae",
        "With a hidden layer",
        "Active units and information of beta-VAEs with one hidden layer, variance of x fixed at 1, against β: trained "
        "at that β from random weights, or first at β = 1 and then at that β for as many steps. One point per replica, "
        "the line joins their means. After figure 2, which shows complete collapse at about 5 (dashed).",
        "β",
        {"active units": "active units", "information": "I(x; z1) (nats)"},
        _units,
        marks={"active units": (5.0,), "information": (5.0,)},
    ),
)
