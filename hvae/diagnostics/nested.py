"""Bottom-up information: nested bounds for a distribution that is a mixture over sampled paths, nats.

For z_l drawn along a path of image x_i, M paths for each of n images, v the parents of z_l in q (z_{l-1}, x, or both):

    I_l = I_q(x; z_l)   = E log q(z_l | x_i) / q(z_l)
    J_l = I_q(v; z_l)   = E log q(z_l | v) / q(z_l)

q(z_l | x_i) is the mixture over image i's M parents, q(z_l) the one over all n·M parents. The draw's own path kept in a
mixture makes its log too large in expectation (it is a KL), left out too small (Jensen). So the numerator without and
the denominator with the own path bound I_l from below, the reverse from above; the denominator always keeps the own
*image*, since leaving that out explodes. Two more bounds are tight where these are loose:

- from above, ``J_l <= E KL(q(z_l | v) ‖ r)``, r the moment match of q(z_l), for a layer that says little;
- from below, ``I_l >= log n + E log r(i | z_l)`` (Barber and Agakov 2003), r(i|z) a classifier of images by one
  diagonal Gaussian per image, fitted to the other M - 1 paths, for a layer of many units.

Where x is the only parent, q(z_l | x) is known and J_l = I_l needs no paths: for z1, and everywhere in mean field. On
the n images it is exact; of images at large it is a lower bound, and with the own image left out an upper one.
Data processing clips: ``I_l <= log n``; ``I_l <= J_l``, as x reaches z_l through v only; and ``I_l <= I_{l-1}`` where
z_{l-1} is the only parent. A layer that sees x itself may say more of it than the one below. Chance is reduced by a
control of mean 0: a draw's log-ratio to r less its divergence from r.

Distributions outside the exponential families have no moment match, so they have neither r nor the control. All pairs
are scored by `Family.log_prob`, and the classifier is fitted to the draws of the other paths.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.bounds import ROWS, Information, Intervals, ordered
from hvae.diagnostics.draws import Alternatives, Sampler, controlled, per_datum
from hvae.families import kl
from hvae.network import Site, Trace
from hvae.numerics import FloatArray

FIRST_PATHS = 16
PAIRS = 2**17
"""pairs of a draw and a distribution outside the exponential families that are scored at once: bounds the memory"""


def nested_information(sampler: Sampler, intervals: Intervals, max_paths: int) -> dict[str, Information]:
    """I_l and J_l of every layer of a posterior that visits z1 first; M doubles while an interval contains epsilon."""
    others = Alternatives.of(sampler.groups, sampler.groups)
    cap = math.log(sampler.n_images) if others is None else others.cap()
    divergence = {} if others is None else _from_prior(sampler)
    n_looks = 1 + max(0, int(math.log2(max_paths / FIRST_PATHS)))
    intervals, first = intervals.shared(n_looks, 2), intervals
    paths = _Paths(sampler)
    found: dict[str, Information] = {}
    for name in sampler.model.latents:
        n_paths = min(FIRST_PATHS, max_paths)
        seen = sampler.model.posterior.parents(name)
        if seen == ("x",):
            site = paths(n_paths, "information")[name]
            terms, upper = _known(site, others)
            on_images = float(terms.mean())
            above = [upper if others is None else _from_above(upper, others, site), *divergence.get(name, ())]
            if site.family.exponential:
                above.append(_array([_divergence(site).mean(0)]))
            high = first.shared(1, len(above)).high(*above)
            carried = ordered(first.low(terms), min(high, cap), on_images)
            found[name] = Information(carried, carried, 1, on_images)
            continue
        most = min(cap, found[seen[0]].about_datum[2]) if len(seen) == 1 else cap
        while True:
            bounds = _nested(paths(n_paths, f"information {n_paths}")[name], others)
            above = [bounds.parent_upper, *divergence.get(name, ())]
            if bounds.divergence is not None:
                above.append(bounds.divergence)
            parent = ordered(intervals.low(bounds.parent_lower), intervals.high(*above))
            datum = ordered(
                intervals.low(bounds.datum_lower, bounds.classified),
                min(intervals.high(bounds.datum_upper), parent[2], most),
            )
            decided = parent[2] < intervals.epsilon or not (intervals.open(parent) or intervals.open(datum))
            if decided or 2 * n_paths > max_paths:
                break
            n_paths *= 2
        found[name] = Information(datum, parent, n_paths, math.nan)
    return found


KEPT = 2**24
"""numbers of paths that are kept for the layers to come: bounds the memory, 64 MB in float32"""


class _Paths:
    """Paths by number and purpose, drawn once for all layers as long as they fit into `KEPT`."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._kept: dict[str, Trace] = {}
        self._room = KEPT

    def __call__(self, n_paths: int, purpose: str) -> Trace:
        if purpose in self._kept:
            return self._kept[purpose]
        trace = self._sampler.paths(n_paths, purpose)
        size = sum(3 * site.value.numel() for site in trace.values())  # a value and about two parameters
        if size <= self._room:
            self._kept[purpose] = trace
            self._room -= size
        return trace


def _from_prior(sampler: Sampler) -> dict[str, tuple[FloatArray]]:
    """``E KL(q(z_l | ·) ‖ p(z_l | ·))`` of the layers whose parents in p are visited first: no layer carries more.

    It is needed with a context, where the other bounds are loose: p(z_l | ·) knows the context.
    """
    evidence = sampler.evidence(1, "information")
    first = [name for name in evidence.latents if evidence.parents_first(name)]
    return {
        name: (per_datum(evidence.kl(name) if evidence.closed_form(name) else evidence.rate(name), sampler.n_images),)
        for name in first
    }


@dataclass(frozen=True)
class _Bounds:
    """Terms ``[n]`` of each bound: one draw an image."""

    parent_lower: FloatArray
    parent_upper: FloatArray
    divergence: FloatArray | None
    """KL to the moment match, a second upper bound on J_l; None for distributions without a match"""
    datum_lower: FloatArray
    datum_upper: FloatArray
    classified: FloatArray
    """the classifier's lower bound on I_l"""


def _known(site: Site, others: Alternatives | None = None) -> tuple[FloatArray, FloatArray]:
    """Terms ``[n]`` of bounds of I_l = J_l for parent x, from below and above, one draw an image.

    ``log q(z | x_i) - log 1/n Σ_j q(z | x_j)``, exact for these n images and too small for images at large; without
    j = i it is the divergence from images that z does not know, and too large. With a context j runs over the data that
    share it; the lower is 0 where too few do.
    """
    n, score = site.value.shape[1], _scorer(site)
    own, ratio, without = [], [], []
    for rows in torch.arange(n).split(ROWS):
        scores, here = score(site.value[0, rows])[:, 0], torch.arange(len(rows))
        own.append(scores[here, rows])
        log_n, rest = _among(scores, rows, others, n)
        ratio.append(own[-1] - rest.logsumexp(-1) + log_n)
        rest[here, rows] = -math.inf
        without.append(own[-1] - rest.logsumexp(-1) + (log_n.exp() - 1).log())
    control = _control(site, torch.cat(own))
    below, above = (controlled(_array(terms), control) for terms in (ratio, without))
    return below if others is None else np.where(others.enough.cpu().numpy(), below, 0.0), above


def _among(scores: Tensor, rows: Tensor, others: Alternatives | None, n: int) -> tuple[Tensor, Tensor]:
    """The log of how many alternatives each row has ``[r]``, and the scores with all others at -inf."""
    if others is None:
        return torch.full((len(rows),), math.log(n), dtype=torch.float64, device=scores.device), scores
    same = others.same[rows].to(scores.device)
    if scores.ndim == 3:
        same = same.unsqueeze(1)
    return others.count[rows].to(scores.device).log(), scores.masked_fill(~same, -math.inf)


def _from_above(terms: FloatArray, others: Alternatives, site: Site) -> FloatArray:
    """Upper terms: where too few share a context, the divergence from the moment match of all; infinite without one."""
    enough = others.enough.cpu().numpy()
    if enough.all():
        return terms
    far = _array([_divergence(site).mean(0)]) if site.family.exponential else np.full(len(terms), np.inf)
    return np.where(enough, terms, far)


def _nested(site: Site, others: Alternatives | None = None) -> _Bounds:
    """All bounds, for the first draw of every image against all M·n parents; with a context those that share it."""
    n_paths, n = site.value.shape[:2]
    score = _scorer(site)
    own_path, with_path, without, datum_lower, datum_upper = [], [], [], [], []
    for rows in torch.arange(n).split(ROWS):
        here = torch.arange(len(rows))
        log_n, scores = _among(score(site.value[0, rows]), rows, others, n)  # [r, M, n]
        own = scores[here, 0, rows]
        scores[here, 0, rows] = -math.inf
        image = scores.logsumexp(1)  # [r, n], the own path missing from the own image
        rest = image[here, rows]
        image_without = rest - math.log(n_paths - 1)
        image_with = torch.logaddexp(rest, own) - math.log(n_paths)
        image[here, rows] = -math.inf
        rest_of_all = image.logsumexp(-1) - math.log(n_paths)
        all_with = torch.logaddexp(rest_of_all, image_with) - log_n
        all_without = torch.logaddexp(rest_of_all, image_without) - log_n
        own_path.append(own)
        with_path.append(own - all_with)
        without.append(own - all_without)
        datum_lower.append(image_without - all_with)
        datum_upper.append(image_with - all_without)
    control = _control(site, torch.cat(own_path))
    far = _array([_divergence(site).mean(0)]) if site.family.exponential else None
    below = np.zeros(n)
    above = np.full(n, np.inf) if far is None else far
    enough = np.ones(n, dtype=bool) if others is None else others.enough.cpu().numpy()
    return _Bounds(
        parent_lower=np.where(enough, controlled(_array(with_path), control), below),
        parent_upper=np.where(enough, controlled(_array(without), control), above),
        divergence=far,
        datum_lower=np.where(enough, controlled(_array(datum_lower), control), below),
        datum_upper=np.where(enough, controlled(_array(datum_upper), control), above),
        classified=np.where(enough, _classified(site, others), below),
    )


def _classified(site: Site, others: Alternatives | None = None) -> FloatArray:
    """``log n + log r(i | z)``: Gaussians fitted to paths 1 … M-1 of each image, the draws of path 0 told apart."""
    n = site.value.shape[1]
    q, exponential = site.distribution, site.family.exponential
    moments = (q.mean, q.variance) if exponential else (site.value, site.value * 0)
    mean, variance = (moment.double().reshape(site.value.shape)[1:] for moment in moments)
    within = variance.mean((0, 1)) + mean.var(0, unbiased=False).mean(0)
    white = (within + 1e-12).rsqrt()
    squares = torch.cdist(site.value[0].double() * white, mean.mean(0) * white).square()  # [n draws, n images]
    log_n, scores = _among(-squares / 2, torch.arange(n), others, n)
    return _array([-squares.diagonal() / 2 - scores.logsumexp(-1) + log_n])


def _scorer(site: Site) -> Callable[[Tensor], Tensor]:
    """``values [r, width]`` -> scores as of `_scores` under all parents: ``[r, M, n]`` or ``[r, 1, n]``."""
    if site.family.exponential:
        natural = site.family.natural(site.distribution)
        return lambda values: _scores(site, values, natural)
    n_distributions = site.distribution.batch_shape.numel()

    def log_probs(values: Tensor) -> Tensor:
        parts = values.unsqueeze(1).unsqueeze(1).split(max(1, PAIRS // n_distributions))
        return torch.cat([site.family.log_prob(site.distribution, part).double() for part in parts])

    return log_probs


def _scores(site: Site, values: Tensor, natural: tuple[Tensor, Tensor]) -> Tensor:
    """Log-densities ``[r, *batch]`` of ``values [r, width]`` under a batch, up to a term of the value alone."""
    eta, log_normaliser = natural
    statistic = site.family.statistic(values.double())
    scores = statistic @ eta.double().reshape(-1, eta.shape[-1]).T - log_normaliser.double().flatten()
    return scores.reshape(len(values), *log_normaliser.shape)


def _divergence(site: Site) -> Tensor:
    """``KL(q(z_l | parent) ‖ r)`` for every parent, r the moment match: ``[M, n]``, or ``[1, n]`` for parent x."""
    return kl(site.distribution, site.family.match(site.distribution)).double()


def _control(site: Site, own: Tensor) -> FloatArray:
    """``log q(z | parent) - log r(z) - KL(q(z | parent) ‖ r)`` of the first draws, of mean 0: ``[n]``.

    It is 0 where distributions have no match.
    """
    if not site.family.exponential:
        return np.zeros(len(own))
    match = site.family.natural(site.family.match(site.distribution))
    return _array([own - _scores(site, site.value[0], match) - _divergence(site)[0]])


def _array(parts: list[Tensor]) -> FloatArray:
    found: FloatArray = torch.cat(parts).cpu().numpy()
    return found
