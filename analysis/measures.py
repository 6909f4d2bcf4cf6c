"""What claims of several experiments measure of runs: one number per replica.

A measure takes the runs by label and the label of one, and raises `NotMeasuredError` where that run is absent,
not evaluated, or lacks what is asked.
"""

from collections.abc import Callable

import numpy as np

from hvae.analysis.claims import NotMeasuredError, Runs, Sample, find
from hvae.analysis.load import Array, Likelihood, LoadedRun

EPSILON_NATS = 0.1
"""threshold of the verdict in all experiments"""
LIKELIHOOD_MARGIN_NATS = 0.5
"""what a difference of likelihoods must exceed to count"""


def _bound(runs: Runs, name: str, read: Callable[[Likelihood], Array]) -> Sample:
    run = find(runs, name)
    if run.likelihood is None:
        raise NotMeasuredError(f"the run '{name}' has no likelihood yet")
    return Sample(read(run.likelihood)[:, 1], run.seeds)


def likelihood(runs: Runs, name: str) -> Sample:
    """[R] L_K of the largest K in nats."""
    return _bound(runs, name, lambda found: found.best)


def elbo(runs: Runs, name: str) -> Sample:
    """[R] L_1 in nats."""
    return _bound(runs, name, lambda found: found.elbo_nats)


def looseness(runs: Runs, name: str) -> Sample:
    """[R] L_K - L_1 in nats, a lower estimate of the gap."""
    best = likelihood(runs, name)
    return Sample(best.values - elbo(runs, name).values, best.seeds)


def active_units(runs: Runs, name: str) -> Sample:
    """[R] active units of all layers together."""
    run = find(runs, name)
    return Sample(np.sum([layer.active_units() for layer in run.layers], axis=0), run.seeds)


def active_layers(runs: Runs, name: str) -> Sample:
    """[R] layers that the verdict calls active."""
    run = find(runs, name)
    return Sample(run.active_layers, run.seeds)


def in_use(runs: Runs, label: str) -> LoadedRun:
    """A run of which some replica has an active layer: a stack that ignores the image agrees with itself for nothing.

    Asked for after the first cpu runs, whose wake-sleep had not left its plateau: their claims became "not measured".
    """
    run = find(runs, label)
    if not np.nanmax(run.active_layers) > 0:
        raise NotMeasuredError(
            f"the run '{label}' has no active layer, and a stack in no use is consistent for nothing"
        )
    return run


def used_looseness(runs: Runs, label: str) -> Sample:
    """[R] L_K - ELBO in nats, of a stack in use."""
    return looseness(runs, in_use(runs, label).label)


def seen(runs: Runs, name: str, data: str) -> None:
    """Raise `NotMeasuredError` for a run of other data: a number printed for MNIST is never held against digits."""
    if find(runs, name).config.data.name != data:
        raise NotMeasuredError(f"the run '{name}' is not of {data}")
