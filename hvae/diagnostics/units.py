"""Active units, and the (epsilon, delta)-collapse of units.

Burda et al. 2016 (section 5) call a unit active if the variance over data of its mean exceeds 0.01.
In a conditional layer that variance inherits: top-down the parent's, bottom-up the path's noise. So there are also

- where z1 is visited first: the covariance over x of the means along two independent paths, unbiased for
  ``Var_x E[mean|x]`` (in mean field the paths have one mean, and it is Burda's statistic);
- top-down: the variance of ``(mean_q - mean_p) / sd_p`` given the same parent, 0 for a layer with KL 0.

The variances of the numbers of one unit are summed: one-hot entries of a category, pixels of a channel.

`active_on_batch` counts units by these while training, from one batch and without an interval.

A unit is (epsilon, delta)-collapsed if its expected KL is below epsilon for a share 1 - delta of the data (Lucas et al.
2019, definition 1): to the prior where that has a closed form per unit, else to the layer's aggregate (moment match).
"""

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import per_datum
from hvae.errors import NotMeasuredError
from hvae.evidence import Evidence
from hvae.families import has_unit_kl, unit_kl
from hvae.network import Site
from hvae.numerics import FloatArray, mean_interval
from hvae.vocabulary import ACTIVE_VARIANCE

DELTA = 0.01
EPSILONS = np.logspace(-4, 1, 41)
"""nats"""


def mean_variance(site: Site, n: int) -> tuple[FloatArray, FloatArray]:
    """Means ``[width, n]`` along the first two paths; their covariance with themselves is Burda's statistic."""
    means = site.mean.double().expand(len(site.value), n, site.family.width)[:2].cpu().numpy()
    return means[0].T, means[1].T


def residual(evidence: Evidence, name: str) -> FloatArray:
    """``(mean_q - mean_p) / sd_p`` given the same parent, along the first path: ``[width, n]``."""
    return per_datum(_shift(evidence, name)[:1], evidence.p["x"].value.shape[1])


def covariance_interval(a: FloatArray, b: FloatArray, n_units: int) -> FloatArray:
    """(low, middle, high) ``[D, 3]`` of the covariance over data of ``a`` and ``b``, both ``[width, n]``.

    The interval of the mean of ``(a - mean a) (b - mean b) n / (n - 1)``: the means' own errors are of second order.
    The entries of a unit, one-hot states or the pixels of a channel, are summed.
    """
    n = a.shape[-1]
    products = (a - a.mean(-1, keepdims=True)) * (b - b.mean(-1, keepdims=True)) * (n / (n - 1))
    return mean_interval(products.reshape(n_units, -1, n).sum(1))


def collapsed_fraction(evidence: Evidence, name: str) -> FloatArray:
    """Share of units that are (epsilon, `DELTA`)-collapsed, for every epsilon of `EPSILONS`: ``[E]``."""
    site, n = evidence.q[name], evidence.p["x"].value.shape[1]
    if collapse_reference(evidence, name) == "prior":
        terms = evidence.unit_kl(name)
    elif not site.family.exponential:
        raise NotMeasuredError(f"The distributions of {name} have no divergence from prior or aggregate, unit by unit.")
    else:
        terms = site.family.per_unit(unit_kl(site.distribution, site.family.match(site.distribution)))
    expected = per_datum(terms, n)  # [D, n]
    below = (expected[..., None] < EPSILONS).mean(1)  # [D, E]
    fraction: FloatArray = (below >= 1 - DELTA).mean(0)
    return fraction


def collapse_reference(evidence: Evidence, name: str) -> str:
    """ "prior" or "aggregate": the distribution that `collapsed_fraction` measures a layer against."""
    has_prior = evidence.closed_form(name) and has_unit_kl(evidence.q[name].distribution, evidence.p[name].distribution)
    return "prior" if has_prior else "aggregate"


NOISE_ERRORS = 2.0
"""standard errors of the path's noise that the covariance of a batch must exceed"""


@torch.no_grad()
def active_on_batch(evidence: Evidence) -> dict[str, Tensor]:
    """Number of active units of every layer on this batch, without what a unit inherits: ``<statistic>/<layer>``.

    Where z1 is visited first ``twin_active_units``. The two paths are two of the K draws, or with K = 1 a second visit
    (`Evidence.redraw`). A batch is small, so the covariance must exceed the threshold by two of the standard errors
    that the noise of the paths has by itself; else half of the units that code only noise would count. In z1 there is
    none, and it is Burda's count. Top-down ``residual_active_units``, the variance of `residual`. Layers without one of
    these have no entry.
    """
    counts: dict[str, Tensor] = {}
    z1_first = tuple(evidence.q) == evidence.latents
    second = evidence.q
    if z1_first and len(evidence.distortion) == 1:
        if evidence.redraw is None:
            return counts
        second = evidence.redraw()
    for name in evidence.latents:
        q, p = evidence.q[name], evidence.p[name]
        if not q.family.factorised:
            continue
        if z1_first:
            one, other = (site.mean.expand(*site.value.shape)[at] for site, at in ((q, 0), (second[name], -1)))
            noise = (one - other).square().mean(0) / 2
            covariance = ((one - one.mean(0)) * (other - other.mean(0))).sum(0) / (len(one) - 1)
            limit = ACTIVE_VARIANCE + NOISE_ERRORS * q.family.per_unit(noise) / len(one) ** 0.5
            counts[f"twin_active_units/{name}"] = (q.family.per_unit(covariance) > limit).sum()
        elif p.family.exponential:  # the others know no variance
            shift = _shift(evidence, name).expand(*q.value.shape)[0]
            counts[f"residual_active_units/{name}"] = (q.family.per_unit(shift.var(0)) > ACTIVE_VARIANCE).sum()
    return counts


def _shift(evidence: Evidence, name: str) -> Tensor:
    """``(mean_q - mean_p) / sd_p`` given the same parent, along every path."""
    q, p = evidence.q[name], evidence.p[name]
    n_axes = len(p.distribution.event_shape)  # categorical units keep their classes on an axis of their own
    variance = p.distribution.variance.flatten(-n_axes)
    tiny = torch.finfo(variance.dtype).tiny  # a Bernoulli unit that is settled has no variance left
    return (q.mean - p.mean) / variance.clamp(min=tiny).sqrt()
