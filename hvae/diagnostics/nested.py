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

Where x is the only parent, q(z_l | x) is known and J_l = I_l needs no paths: for z1, and everywhere in mean field.
There the mixture over the n images bounds from below the information of images at large. From above do the divergence
from the mixture of the *other* images, and that from r, matched to one half of the images for the other half.
Data processing clips: ``I_l <= log n`` where paths are sampled; ``I_l <= J_l``, as x reaches z_l through v only; and
``I_l <= I_{l-1}`` where z_{l-1} is the only parent. A layer that sees x itself may say more of it than the one below.
Chance is reduced by a control of mean 0: a draw's log-ratio to r less its divergence from r.

Paths come in blocks of `FIRST_PATHS`, each with keys of its own, and are drawn once for all layers: more paths go on
from those that were drawn, and the memory does not grow with their number.

Distributions outside the exponential families have no moment match, so they have neither r nor the control. All pairs
are scored by `Family.log_prob`, and the classifier is fitted to the draws of the other paths.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch

from hvae.diagnostics.bounds import ROWS, Information, Intervals, ordered
from hvae.diagnostics.draws import Alternatives, Sampler, controlled, per_datum
from hvae.diagnostics.mixture import Mixture, among, control, scorer
from hvae.families import kl
from hvae.network import Site, Trace
from hvae.numerics import FloatArray

FIRST_PATHS = 16
"""paths of a block"""
ROWS_OF_MATCH = 2048
"""draws behind the moment match"""


def nested_information(sampler: Sampler, intervals: Intervals, max_paths: int) -> dict[str, Information]:
    """I_l and J_l of every layer of a posterior that visits z1 first; M doubles while an interval contains epsilon."""
    model = sampler.model
    others = Alternatives.of(sampler.groups, sampler.groups)
    cap = math.log(sampler.n_images) if others is None else others.cap()
    divergence = {} if others is None else _from_prior(sampler)
    n_looks = 1 + max(0, int(math.log2(max_paths / FIRST_PATHS)))
    intervals, first = intervals.shared(n_looks, 2), intervals.shared(1, 2)
    n_first = min(FIRST_PATHS, max_paths)
    whole = _first_paths(sampler, min(n_first, max(1, ROWS_OF_MATCH // sampler.n_images)))
    known = [name for name in model.latents if model.posterior.parents(name) == ("x",)]
    found = {name: _at_large(sampler, whole[name], name, first, others, divergence.get(name, ())) for name in known}
    mixtures = {name: Mixture(whole[name]) for name in model.latents if name not in known}
    open_layers, n_paths = list(mixtures), 0
    while open_layers:
        for _ in range(max(1, n_paths // FIRST_PATHS)):
            _add(sampler, {name: mixtures[name] for name in open_layers}, n_first, n_paths // FIRST_PATHS)
            n_paths += n_first
        for name in tuple(open_layers):
            bounds = mixtures[name].bounds(others)
            above = [bounds.parent_upper, *divergence.get(name, ())]
            if bounds.divergence is not None:
                above.append(bounds.divergence)
            seen = model.posterior.parents(name)
            most = min(cap, found[seen[0]].about_datum[2]) if len(seen) == 1 else cap
            parent = ordered(intervals.low(bounds.parent_lower), intervals.high(*above))
            datum = ordered(
                intervals.low(bounds.datum_lower, bounds.classified),
                min(intervals.high(bounds.datum_upper), parent[2], most),
            )
            found[name] = Information(datum, np.maximum(parent, datum), n_paths, math.nan)
            undecided = intervals.open(parent) or intervals.open(datum)
            if parent[2] < intervals.epsilon or not undecided or 2 * n_paths > max_paths:
                open_layers.remove(name)
                del mixtures[name]
    return {name: found[name] for name in model.latents}


def _first_paths(sampler: Sampler, n_paths: int) -> Trace:
    """The first paths of every image."""
    blocks = [sampler.block_noise(block, FIRST_PATHS, "information/0") for block in range(len(sampler.blocks))]
    noise = {name: torch.cat([block[name][:n_paths] for block in blocks], 1) for name in blocks[0]}
    return sampler.model.infer(sampler.x.unsqueeze(0), noise)


def _add(sampler: Sampler, mixtures: Mapping[str, Mixture], n_paths: int, number: int) -> None:
    """A further block of paths, some images at a time."""
    for block, images in enumerate(sampler.blocks):
        noise = sampler.block_noise(block, FIRST_PATHS, f"information/{number}")
        noise = {name: values[:n_paths] for name, values in noise.items()}
        trace = sampler.model.infer(sampler.x[images].unsqueeze(0), noise)
        for name, mixture in mixtures.items():
            mixture.add(trace[name], images)


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


def _at_large(
    sampler: Sampler, site: Site, name: str, intervals: Intervals, others: Alternatives | None,
    divergence: tuple[FloatArray, ...],
) -> Information:  # fmt: skip
    """I_l = J_l for parent x: from below on these images, from above for images at large."""
    low, mixed = _known(site, others)
    above = [mixed, *divergence]
    if others is None and site.family.exponential:
        above.append(_from_halves(sampler, name))
    if others is not None:
        above[0] = _from_above(mixed, others, site)
    on_images = float(low.mean())
    carried = ordered(intervals.low(low), intervals.high(*above), on_images)
    return Information(carried, carried, 1, on_images)


def _known(site: Site, others: Alternatives | None = None) -> tuple[FloatArray, FloatArray]:
    """Terms ``[n]`` of I_l = J_l for parent x, one draw an image.

    Lower: ``log q(z | x_i) - log 1/n Σ_j q(z | x_j)``, which is exact for "which of the n images?". Upper: the same
    over the n - 1 others. With a context j runs over the data that share it; 0 and infinity where too few do.
    """
    n, score = site.value.shape[1], scorer(site)
    scores = torch.cat([score(site.value[0, rows])[:, 0] for rows in torch.arange(n).split(ROWS)])
    own = scores.diagonal().clone()
    match = site.family.match(site.distribution) if site.family.exponential else None
    chance = control(site, match, own)
    log_n, scores = among(scores, others)
    log_rest = torch.log(torch.as_tensor(n if others is None else others.count).double() - 1)
    rest = scores.clone().fill_diagonal_(-math.inf)
    low, high = ((own - part.logsumexp(-1) + log).cpu().numpy() for part, log in ((scores, log_n), (rest, log_rest)))
    enough = True if others is None else others.enough.cpu().numpy()
    return np.where(enough, controlled(low, chance), 0.0), np.where(enough, controlled(high, chance), np.inf)


def _from_halves(sampler: Sampler, name: str) -> FloatArray:
    """``KL(q(z_l | x) ‖ r)``, r matched to the images of the other half: ``[n]``."""
    places = torch.arange(sampler.n_images)
    halves = [places[0::2], places[1::2]]
    drawn = sampler.noise(1, "halves")
    sites = [
        sampler.model.infer(sampler.x[half].unsqueeze(0), {z: values[:, half] for z, values in drawn.items()})[name]
        for half in halves
    ]
    found = np.empty(sampler.n_images)
    for half, site, other in zip(halves, sites, reversed(sites), strict=True):
        terms = kl(site.distribution, other.family.match(other.distribution)).double()
        found[half.numpy()] = terms.expand(1, len(half))[0].cpu().numpy()
    return found


def _from_above(terms: FloatArray, others: Alternatives, site: Site) -> FloatArray:
    """Upper terms: where too few share a context, the divergence from the moment match of all; infinite without one."""
    enough = others.enough.cpu().numpy()
    if enough.all() or not site.family.exponential:
        return terms
    far = kl(site.distribution, site.family.match(site.distribution)).double()
    return np.where(enough, terms, far.mean(0).expand(len(terms)).cpu().numpy())
