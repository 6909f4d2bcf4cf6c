"""Measures of runs that claims of several experiments share: a number per replica, or one per replica and image.

A measure takes the runs by label, and the label of one. It raises `NotMeasuredError` where that run is absent, not
evaluated, or lacks the number.

There are two bounds on log p(x), and a claim says which one it reads. `likelihood` is the number that the tables show:
the best valid bound (`hvae.likelihood.cheapest_bound`), for claims of our own. `importance_bound` is L_K, where a paper
prints it: a number of its own, that depends on K.
"""

from dataclasses import replace

import numpy as np

from hvae.analysis.claims import NotMeasuredError, Runs, Sample, find
from hvae.analysis.load import Array, LoadedRun

EPSILON_NATS = 0.1
"""threshold of the verdict in all experiments"""
LIKELIHOOD_MARGIN_NATS = 0.5
"""least difference of likelihoods that counts"""


BOUND = "bound on log p(x)"
"""what a claim calls `likelihood`"""


def likelihood(runs: Runs, name: str) -> Sample:
    """[R, B] the bound on log p(x) in nats that the tables show. Of runs of before it is L_K, held against L_K only."""
    run = find(runs, name)
    found = _of_images(run, None if run.likelihood is None else run.likelihood.shown_datum_nats)
    assert run.likelihood is not None
    return replace(found, images=(run.likelihood.shown_as, *found.images))


def importance_bound(runs: Runs, name: str) -> Sample:
    """[R, B] L_K of the largest K in nats."""
    run = find(runs, name)
    return _of_images(run, None if run.likelihood is None else run.likelihood.bound_datum_nats)


def elbo(runs: Runs, name: str) -> Sample:
    """[R, B] L_1 in nats."""
    run = find(runs, name)
    return _of_images(run, None if run.likelihood is None else run.likelihood.elbo_datum_nats)


def least_gap(runs: Runs, name: str) -> Sample:
    """[R, B] the bound on log p(x) less the ELBO in nats, a lower estimate of the gap."""
    bound = likelihood(runs, name)
    return replace(bound, values=bound.values - elbo(runs, name).values)


def _of_images(run: LoadedRun, values: Array | None) -> Sample:
    """What the likelihood gives of every image, of a run that is there for a claim."""
    if run.likelihood is None or values is None:
        raise NotMeasuredError(f"the run '{run.label}' has no likelihood yet")
    if values.shape[1:] != (run.likelihood.n_images,):
        raise NotMeasuredError(
            f"the run '{run.label}' has the likelihood of no single image, and seeds alone do not tell how far other "
            "images would move it; evaluate it again"
        )
    return Sample(values, run.seeds, images_of(run))


def images_of(run: LoadedRun) -> tuple[object, ...]:
    """Which images the likelihood of a run is of: data and distribution of x, and their places where those are known.

    Equal for runs on the same images.
    """
    assert run.likelihood is not None
    places = run.likelihood.image_index
    return (run.yardstick, run.likelihood.n_images, *(() if places is None else map(int, places)))


def active_units(runs: Runs, name: str) -> Sample:
    """[R] active units of all layers together."""
    run = find(runs, name)
    return Sample(np.sum([layer.active_units() for layer in run.layers], axis=0), run.seeds, count=True)


def active_layers(runs: Runs, name: str) -> Sample:
    """[R] layers that the verdict calls active."""
    run = find(runs, name)
    return Sample(run.active_layers, run.seeds, count=True)


def least_use(runs: Runs, name: str) -> Sample:
    """[R] V of the layer that the decoder uses least, nats."""
    run = find(runs, name)
    least = np.min([z.interval("used_nats")[:, 1] for z in run.layers], axis=0)
    if np.isnan(least).all():
        raise NotMeasuredError(f"V of the run '{name}' was not measured in every layer")
    return Sample(least, run.seeds)


def in_use(runs: Runs, label: str) -> LoadedRun:
    """The run, if some replica has an active layer. A stack that ignores the image is consistent for no good reason."""
    run = find(runs, label)
    if not np.nanmax(run.active_layers) > 0:
        raise NotMeasuredError(
            f"the run '{label}' has no active layer, and a stack that ignores the image is trivially consistent"
        )
    return run


def least_gap_in_use(runs: Runs, label: str) -> Sample:
    """[R, B] `least_gap` of a stack with an active layer."""
    return least_gap(runs, in_use(runs, label).label)


def seen(runs: Runs, name: str, data: str) -> None:
    """Raise `NotMeasuredError` for a run of other data than those of a published number."""
    config = find(runs, name).config
    if config is None or config.data.name != data:
        raise NotMeasuredError(f"the run '{name}' is not of {data}")
