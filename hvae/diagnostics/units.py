"""Active units, and the (epsilon, delta)-collapse of units.

Burda et al. 2016 (section 5) call a unit active if the variance over data of its mean exceeds 0.01.
In a conditional layer that variance inherits: top-down the parent's, bottom-up the path's noise. So there are also

- where z1 is visited first: the covariance over x of the means along two independent paths, unbiased for
  ``Var_x E[mean|x]`` (in mean field the paths have one mean, and it is Burda's statistic);
- top-down: the variance of ``(mean_q - mean_p) / sd_p`` given the same parent, 0 for a layer with KL 0.

A unit is (epsilon, delta)-collapsed if its expected KL is below epsilon for a share 1 - delta of the data (Lucas et al.
2019, definition 1): to the prior where that has a closed form per unit, else to the layer's aggregate (moment match).
"""

from functools import partial

import numpy as np
import torch

from hvae.diagnostics.draws import per_datum
from hvae.evidence import Evidence
from hvae.families import has_unit_kl, unit_kl
from hvae.network import Site
from hvae.numerics import FloatArray, bootstrap_means

DELTA = 0.01
EPSILONS = np.logspace(-4, 1, 41)
"""nats"""


def mean_variance(site: Site, n: int) -> tuple[FloatArray, FloatArray]:
    """Means ``[width, n]`` along the first two paths; their covariance with themselves is Burda's statistic."""
    means = site.mean.double().expand(len(site.value), n, site.family.width)[:2].cpu().numpy()
    return means[0].T, means[1].T


def residual(evidence: Evidence, name: str) -> FloatArray:
    """``(mean_q - mean_p) / sd_p`` given the same parent, along the first path: ``[width, n]``."""
    q, p = evidence.q[name], evidence.p[name]
    n_axes = len(p.distribution.event_shape)  # categorical units keep their classes on an axis of their own
    variance = p.distribution.variance.flatten(-n_axes)
    tiny = torch.finfo(variance.dtype).tiny  # a Bernoulli unit that is settled has no variance left
    shift = ((q.mean - p.mean) / variance.clamp(min=tiny).sqrt())[:1]
    return per_datum(shift, evidence.p["x"].value.shape[1])


def covariance_interval(a: FloatArray, b: FloatArray, n_units: int, n_bootstrap: int, seed: int) -> FloatArray:
    """(low, middle, high) ``[D, 3]`` of the covariance over data of ``a`` and ``b``, both ``[width, n]``.

    The one-hot entries of a categorical unit are summed.
    """
    n = a.shape[-1]
    resampled = partial(bootstrap_means, n_bootstrap=n_bootstrap, seed=seed)
    draws = resampled(a * b) - resampled(a) * resampled(b)
    middle = ((a - a.mean(-1, keepdims=True)) * (b - b.mean(-1, keepdims=True))).sum(-1) / (n - 1)
    low, high = np.percentile(draws.reshape(n_units, -1, n_bootstrap).sum(1), [2.5, 97.5], axis=-1)
    return np.stack([low, middle.reshape(n_units, -1).sum(1), high], axis=-1)


def collapsed_fraction(evidence: Evidence, name: str) -> FloatArray:
    """Share of units that are (epsilon, `DELTA`)-collapsed, for every epsilon of `EPSILONS`: ``[E]``."""
    site, n = evidence.q[name], evidence.p["x"].value.shape[1]
    if collapse_reference(evidence, name) == "prior":
        terms = evidence.unit_kl(name)
    else:
        terms = unit_kl(site.distribution, site.family.match(site.distribution))
    expected = per_datum(terms, n)  # [D, n]
    below = (expected[..., None] < EPSILONS).mean(1)  # [D, E]
    fraction: FloatArray = (below >= 1 - DELTA).mean(0)
    return fraction


def collapse_reference(evidence: Evidence, name: str) -> str:
    """ "prior" or "aggregate": the distribution that `collapsed_fraction` measures a layer against."""
    has_prior = evidence.closed_form(name) and has_unit_kl(evidence.q[name].distribution, evidence.p[name].distribution)
    return "prior" if has_prior else "aggregate"
