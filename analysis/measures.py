"""Measures of runs that claims of several experiments share: one number per replica.

A measure takes the runs by label, and the label of one. It raises `NotMeasuredError` where that run is absent, not
evaluated, or lacks the number.
"""

from collections.abc import Callable

import numpy as np

from hvae.analysis.claims import NotMeasuredError, Runs, Sample, find
from hvae.analysis.load import Array, Likelihood, LoadedRun

EPSILON_NATS = 0.1
"""threshold of the verdict in all experiments"""
LIKELIHOOD_MARGIN_NATS = 0.5
"""least difference of likelihoods that counts"""


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
    """The run, if some replica has an active layer. A stack that ignores the image is consistent for no good reason."""
    run = find(runs, label)
    if not np.nanmax(run.active_layers) > 0:
        raise NotMeasuredError(
            f"the run '{label}' has no active layer, and a stack that ignores the image is trivially consistent"
        )
    return run


def used_looseness(runs: Runs, label: str) -> Sample:
    """[R] L_K - ELBO in nats, of a stack with an active layer."""
    return looseness(runs, in_use(runs, label).label)


def seen(runs: Runs, name: str, data: str) -> None:
    """Raise `NotMeasuredError` for a run of other data than those of a published number."""
    config = find(runs, name).config
    if config is None or config.data.name != data:
        raise NotMeasuredError(f"the run '{name}' is not of {data}")
