"""Figures of Lucas et al.: the notebook's ELBO, stable and kept columns, and deep VAEs by their first variance."""

from typing import Any

import numpy as np

from hvae.analysis.claims import Measured, Runs
from hvae.analysis.papers import Curves, Line
from hvae.experiments.lucas_ppca.claims import (
    ANNEALED,
    FIXED,
    LEARNED,
    N_KEPT,
    NOT_ANNEALED,
    STARTS,
    STEPS,
    active_over_training,
    label,
    printed_at,
    printed_maximum,
)


def _drawn(x: Any, y: Any) -> Line:
    """A line without points of ours."""
    return Line(np.zeros(0), np.zeros((0, 0)), (x, y))


def _notebook_lines(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    if "notebook" not in measured:
        return {}
    rows = measured["notebook"]
    steps = [step for step in STEPS if step <= rows["step"].max()]
    values = np.array([printed_at(step).value for step in steps])
    ends, theirs = np.array([rows["step"][0], rows["step"][-1]]), rows["log_px_n1_nats"]
    lines = {"ours": Line(rows["step"], theirs - rows["bound_nats"])}
    if len(steps) > 1:
        lines["printed"] = Line(np.array(steps), printed_maximum().value - values[:, None], joined=False)
    for name, level in (("their maximum", 0.0), ("the maximum", float((theirs - rows["log_px_nats"]).mean()))):
        lines[name] = _drawn(ends, np.repeat(level, 2))
    return {"linear VAE, as the notebook trains": lines}


def _stability_lines(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    if "stability" not in measured:
        return {}
    rows = measured["stability"]
    ratios = np.unique(rows["ratio"])
    ours, best = (rows[key].reshape(-1, len(ratios)).T for key in ("curvature", "expected_curvature"))
    return {"zero column": {"": Line(ratios, ours, (ratios, best.mean(1)))}}


def _column_lines(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    if "columns" not in measured:
        return {}
    rows = measured["columns"]
    variances = np.unique(rows["variance"])
    ours, best = (rows[key].reshape(-1, len(variances)).T for key in ("columns", "best_columns"))
    return {"linear VAE": {"": Line(variances, ours, (variances, best.mean(1)))}}


def _epsilon_lines(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    found: dict[str, dict[str, Line]] = {}
    starts = sorted({start for starts in STARTS.values() for start in starts})
    for kind, title in ((FIXED, "σ² fixed"), (LEARNED, "σ² learned")):
        for start in starts:
            run = runs.get(label(kind, start))
            if run is not None and run.evaluated and run.layers[0].collapsed_fraction is not None:
                fraction = 100 * run.layers[0].collapsed_fraction
                found.setdefault(title, {})[f"σ² {start:g}"] = Line(run.collapse_epsilons, fraction.T)
    return found


def _annealing_lines(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    lines = {}
    for name, title in ((ANNEALED, "annealed"), (NOT_ANNEALED, "not annealed")):
        if name in runs and runs[name].evaluated and not runs[name].early:
            lines[title] = Line(*active_over_training(runs, name))
    return {"σ² fixed at 1": lines} if lines else {}


curves = (
    Curves(
        "notebook",
        "The ELBO of a linear VAE against pPCA",
        "Distance of the ELBO below the notebook's greatest likelihood of pPCA, with the covariance divided by N − 1. "
        "In the end the ELBO lies above it. Divided by N, which is right, the maximum is 0.39 nats higher. Black: Adam "
        "at 1e-3 on all of 1000 images from the authors' random start, one thin line per replica (its own images), and "
        "their mean. Orange: "
        "printed by their notebook. Linear up to 1 nat, logarithmic beyond.",
        "step",
        "their maximum less ELBO (nats)",
        _notebook_lines,
        y_linear_below=1.0,
    ),
    Curves(
        "stability",
        "When a column of zeros is stable",
        f"The largest eigenvalue of the bound's Hessian at a zero column, with {N_KEPT} columns that are kept, against "
        "σ² over the eigenvalue λ of its direction. Points: autodiff, one per replica. Line: mean of the closed form. "
        "Stable below 0.",
        "σ² / λ",
        "largest eigenvalue of the Hessian",
        _stability_lines,
        marks={"zero column": (1.0,)},
    ),
    Curves(
        "columns",
        "Columns that training keeps",
        "Columns of the decoder that are not 0 after training from random weights at a fixed σ² (points, one per "
        "replica), and eigenvalues above σ² (line, its mean).",
        "σ²",
        "columns kept",
        _column_lines,
    ),
    Curves(
        "epsilon",
        "(ε, δ)-collapse against the variance at the start",
        "Per cent of the units of deep VAEs with an expected KL per image below ε on at least 99 % of the images. "
        "Every thin line is one replica; the thick line is their mean.",
        "ε in nats",
        "collapsed units, %",
        _epsilon_lines,
        x_scale="log",
        as_png=True,
    ),
    Curves(
        "annealing",
        "Annealing, and collapse again",
        "Active units on the batches of training. Annealed: the weight of the rates rises from 0 to 1 over the first "
        "half of the steps. Every thin line is one replica; the thick line is their mean.",
        "step",
        "active units",
        _annealing_lines,
    ),
)
