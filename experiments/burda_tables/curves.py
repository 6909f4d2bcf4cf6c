"""Figures of Burda et al.: likelihood against samples in training, and the histogram of log A_u."""

import numpy as np

from hvae.analysis.claims import Measured, NotMeasuredError, Runs
from hvae.analysis.papers import Curves, Line
from hvae.experiments.burda_tables.claims import (
    ACTIVE,
    KS,
    OBJECTIVES,
    VAE,
    best,
    label,
    largest,
    layers,
    nll,
    variances,
)

BINS = np.logspace(-5, 1, 19)


def histogram(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    """Units in each bin of A_u, a panel per layer, a line per objective."""
    found: dict[str, dict[str, Line]] = {}
    for depth, layer in ((1, 1), (2, 1), (2, 2)):
        lines = found.setdefault(f"{layers(depth)}, z{layer}", {})
        for title in ("K = 1", *OBJECTIVES):
            try:
                name = best(runs, title, depth) if title in OBJECTIVES else label(VAE, 1, depth)
                units, _ = variances(runs, name, layer)
            except NotMeasuredError:
                continue
            counts = [np.histogram(np.clip(values, BINS[0], BINS[-1]), BINS)[0] for values in units]
            shown = f"{title} K = {largest(runs)}" if title in OBJECTIVES else title
            lines[shown] = Line(np.sqrt(BINS[1:] * BINS[:-1]), np.stack(counts, axis=1).astype(float))
    return found


def against_samples(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    """-L_K against the number of samples in training, a panel per depth, a line per objective."""
    found: dict[str, dict[str, Line]] = {}
    for depth in (1, 2):
        lines = found.setdefault(layers(depth), {})
        for objective in OBJECTIVES:
            there = {}
            for k in KS:
                try:
                    there[k] = nll(runs, label(objective, k, depth)).means
                except NotMeasuredError:
                    continue
            if there:
                lines[objective] = Line(np.array(list(there)), np.stack(list(there.values())))
    return found


curves = (
    Curves(
        "samples",
        "Likelihood against samples in training",
        "−L_K on test images, at the K of evaluation, against the number of samples of the objective (at 1 both are "
        "the same runs). Every point is one replica; the line joins their means. Table 1 of Burda et al. 2016 as a "
        "picture.",
        "samples in training",
        "−$L_K$ (nats)",
        against_samples,
        x_scale="log",
    ),
    Curves(
        "unit-variances",
        "Histogram of A_u",
        "Units of a layer by A_u, the variance over images of their mean, for one sample and for the largest number. "
        "Three bins a decade; the outermost bins hold all values beyond. Every thin line is one replica; the thick "
        "steps are their means. Dashed: the threshold 0.01. After appendix C of Burda et al. 2016.",
        "$A_u$",
        "units in a bin",
        histogram,
        x_scale="log",
        marks={f"{layers(depth)}, z{layer}": (ACTIVE,) for depth, layer in ((1, 1), (2, 1), (2, 2))},
        mean="steps",
    ),
)
