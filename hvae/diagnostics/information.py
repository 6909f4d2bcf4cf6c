"""Information a layer carries, between two bounds, on n fixed images ("which of the n images?", nats).

Bottom-up, for z_l drawn along a path x_i -> z_1 -> … -> z_{l-1} -> z_l, with M paths per image:

    I_l = I_q(x; z_l)         = E log q(z_l | x_i) / q(z_l)
    J_l = I_q(z_{l-1}; z_l)   = E log q(z_l | z_{l-1}) / q(z_l)

q(z_l | x_i) is the mixture over image i's M parents, q(z_l) the one over all n·M parents. The draw's own path
kept in a mixture makes its log too large in expectation (the mixture's KL is positive), left out
too small (Jensen). Numerator without and denominator with the own path bound I_l from below, the
reverse from above; the denominator always keeps the own *image*, since leaving that out explodes.
J_l has a second upper bound, ``E KL(q(z_l | z_{l-1}) ‖ r)`` with r the moment match of q(z_l)
(Barber and Agakov 2003), which is tight for a layer that says nothing. l = 1 is exact but for the
cap log n. Bounds are clipped by data processing: ``I_l <= I_k`` for k < l, ``I_l <= J_l``, ``I_l <= log n``.

Top-down, with a_l = log q(z_{>=l} | x_i) - log 1/n Σ_j q(z_{>=l} | x_j), all densities known:

    I_l = J_l = I_q(x; z_l | z_{>l})

The mean of a_l - a_{l+1} is exact for "which of the n images", and so a lower bound for images at
large: it is 0 for a layer that is busy while the layers above already tell the n images apart.
Upper bounds are ``E KL(q(z_l|z_{l+1}, x) ‖ r)`` with r = p(z_l|z_{l+1}) or r the mixture of
q(z_l | z_{l+1}, x_j) over the *other* images; the smaller counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from hvae.diagnostics.draws import FloatArray, Sampler, controlled, per_datum
from hvae.families import kl
from hvae.network import Site
from hvae.numerics import bootstrap_bounds

ROWS = 32
"""draws scored at once against all parents: bounds the memory"""


@dataclass(frozen=True)
class Information:
    """Intervals (low, middle, high) in nats, and what they took."""

    about_datum: FloatArray
    """I_l"""
    from_parent: FloatArray
    """J_l"""
    n_paths: int
    """M bottom-up; top-down the number of images in the mixture"""


def information(
    sampler: Sampler, *, epsilon: float, max_paths: int, n_bootstrap: int, extra: Tensor | None = None
) -> dict[str, Information]:
    """I_l and J_l of every layer.

    Bottom-up M doubles from 16 to ``max_paths``, top-down the images of the mixture double from n by
    ``extra`` images ``[N, D]``, until no interval contains ``epsilon`` or there is no more.
    """
    interval = partial(bootstrap_bounds, n_bootstrap=n_bootstrap, seed=sampler.seed)
    with torch.no_grad():
        if sampler.model.posterior.order == sampler.model.latents:
            return _bottom_up(sampler, interval, epsilon, max_paths)
        return _top_down(sampler, interval, epsilon, extra)


def _bottom_up(
    sampler: Sampler, interval: "partial[FloatArray]", epsilon: float, max_paths: int
) -> dict[str, Information]:
    cap = math.log(sampler.n_images)
    found: dict[str, Information] = {}
    for name in sampler.model.latents:
        n_paths = min(16, max_paths)
        while True:
            trace = sampler.paths(n_paths, f"information {n_paths}")
            if not found:  # z1: its law given x is known
                lower = upper = _exact(trace[name])
                parent = np.clip(interval(lower, upper), 0, None)
                datum = np.clip(parent, 0, cap)
            else:
                bounds = _nested(trace[name])
                parent = interval(bounds["parent_lower"], bounds["parent_upper"])
                matched = interval(bounds["matched"], bounds["matched"])
                parent = _ordered(parent[0], min(parent[2], matched[2]))
                datum = interval(bounds["datum_lower"], bounds["datum_upper"])
                below = min(layer.about_datum[2] for layer in found.values())
                datum = _ordered(datum[0], min(datum[2], parent[2], below, cap))
            open_questions = [bounds for bounds in (parent, datum) if bounds[0] < epsilon < bounds[2]]
            if not found or not open_questions or parent[2] < epsilon or 2 * n_paths > max_paths:
                break
            n_paths *= 2
        found[name] = Information(datum, parent, n_paths)
    return found


def _ordered(low: float, high: float) -> FloatArray:
    """(low, middle, high), none below 0; a clipped high end takes the low one along."""
    high = max(high, 0.0)
    low = min(max(low, 0.0), high)
    return np.array([low, (low + high) / 2, high])


def _cross_log_prob(site: Site, values: Tensor, law: Distribution) -> Tensor:
    """log-density, up to a term of the value alone, of ``values [r, width]`` under a batch of laws: ``[r, *batch]``."""
    eta, log_normaliser = site.family.natural(law)
    statistic = site.family.statistic(values.double())
    scores = statistic @ eta.double().reshape(-1, eta.shape[-1]).T - log_normaliser.double().flatten()
    return scores.reshape(len(values), *log_normaliser.shape)


def _match_log_prob(site: Site, values: Tensor) -> Tensor:
    """`_cross_log_prob` under the moment match of the site's laws: ``[r]``."""
    return _cross_log_prob(site, values, site.family.match(site.law))


def _exact(site: Site) -> FloatArray:
    """Terms ``[n]`` whose mean is I_1 = J_1, for the first draw of every image; q(z_1 | x) is known.

    ``KL(q(z_1 | x_i) ‖ r) - (log 1/n Σ_j q(z | x_j) - log r(z))``, r the moment match: the divergence in closed
    form, and only the remainder, which is small where it matters, by sampling.
    """
    remainders = []
    n = site.value.shape[1]
    for rows in torch.arange(n).split(ROWS):
        values = site.value[0, rows]
        mixture = _cross_log_prob(site, values, site.law)[:, 0].logsumexp(-1) - math.log(n)
        remainders.append(mixture - _match_log_prob(site, values))
    return per_datum(kl(site.law, site.family.match(site.law)), n) - torch.cat(remainders).cpu().numpy()


def _nested(site: Site) -> dict[str, FloatArray]:
    """The terms ``[n]`` of all bounds, for the first draw of every image against all M·n parents.

    J_l's numerator is in closed form, as in `_exact`; I_l's is itself a mixture.
    """
    n_paths, n = site.value.shape[:2]
    with_path, without, datum_lower, datum_upper = [], [], [], []
    for rows in torch.arange(n).split(ROWS):
        here, values = torch.arange(len(rows)), site.value[0, rows]
        scores = _cross_log_prob(site, values, site.law)  # [r, M, n]
        own = scores[here, 0, rows]
        scores[here, 0, rows] = -math.inf
        image = scores.logsumexp(1)  # [r, n], the own path missing from the own image
        rest = image[here, rows]
        image_without = rest - math.log(n_paths - 1)
        image_with = torch.logaddexp(rest, own) - math.log(n_paths)
        image[here, rows] = -math.inf
        others = image.logsumexp(-1) - math.log(n_paths)
        all_with = torch.logaddexp(others, image_with) - math.log(n)
        all_without = torch.logaddexp(others, image_without) - math.log(n)
        matched = _match_log_prob(site, values)
        with_path.append(all_with - matched)
        without.append(all_without - matched)
        datum_lower.append(image_without - all_with)
        datum_upper.append(image_with - all_without)
    divergence = per_datum(kl(site.law, site.family.match(site.law)), n)
    with_path_, without_, lower, upper = (
        torch.cat(terms).cpu().numpy() for terms in (with_path, without, datum_lower, datum_upper)
    )
    return {
        "parent_lower": divergence - with_path_,
        "parent_upper": divergence - without_,
        "matched": divergence,
        "datum_lower": lower,
        "datum_upper": upper,
    }


def _top_down(
    sampler: Sampler, interval: "partial[FloatArray]", epsilon: float, extra: Tensor | None
) -> dict[str, Information]:
    images = sampler.x
    pool = images if extra is None else torch.cat([images, extra])
    evidence = sampler.evidence(1, "information")
    prior = {name: per_datum(evidence.kl(name), len(images)) for name in evidence.latents}
    chance = {name: per_datum(evidence.rate(name), len(images)) - prior[name] for name in evidence.latents}
    n_mixture = len(images)
    while True:
        terms = _conditional(sampler, {name: site.value[0] for name, site in evidence.q.items()}, pool[:n_mixture])
        found = {}
        for name in terms:
            on_images, to_others = (controlled(bound, chance[name]) for bound in terms[name])
            low = interval(on_images, on_images)[0]
            high = min(interval(bound, bound)[2] for bound in (prior[name], to_others))
            bounds = _ordered(low, high)
            found[name] = Information(bounds, bounds, n_mixture)
        undecided = any(layer.from_parent[0] < epsilon < layer.from_parent[2] for layer in found.values())
        if not undecided or n_mixture == len(pool):
            return found
        n_mixture = min(2 * n_mixture, len(pool))


def _conditional(
    sampler: Sampler, draws: dict[str, Tensor], mixture: Tensor
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Terms ``[n]`` of each layer, one draw an image: ``a_l - a_{l+1}``, and of the KL to the mixture of the others."""
    order: Sequence[str] = sampler.model.posterior.order
    parts: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in order}
    n = len(mixture)
    for rows in torch.arange(sampler.n_images).split(ROWS):
        given = {name: values[rows].unsqueeze(1) for name, values in draws.items()}
        trace = sampler.model.infer(mixture.unsqueeze(0), {}, given)
        here = torch.arange(len(rows))
        joint = torch.zeros(len(rows), n, dtype=torch.float64, device=mixture.device)
        above = torch.zeros(len(rows), dtype=torch.float64, device=mixture.device)
        for name in order:
            scores = trace[name].log_prob.double().expand(len(rows), n).clone()  # [r, n]
            joint = joint + scores
            ratio = joint[here, rows] - joint.logsumexp(-1) + math.log(n)
            own = scores[here, rows].clone()
            scores[here, rows] = -math.inf
            parts[name][0].append(ratio - above)
            parts[name][1].append(own - scores.logsumexp(-1) + math.log(n - 1))
            above = ratio
    return {name: (torch.cat(a).cpu().numpy(), torch.cat(b).cpu().numpy()) for name, (a, b) in parts.items()}
