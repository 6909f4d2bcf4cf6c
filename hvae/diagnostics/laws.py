"""How far q(z_l | ·) of each image lies from a law that x does not move, nats.

A layer has collapsed if one law r serves nearly all images: ``d_i = KL(q(z_l | ·, x_i) ‖ r)`` is small. Three laws:

- its prior p(z_l | z_{>l}), where q has drawn z_{>l} before z_l, or where p(z_l) has no parent;
- the standard distribution N(0, I), or fair units;
- another: the moment match of q(z_l | ·) over the images. Where q draws z_{>l} first, of q(z_l | z_{>l}, x_j) over the
  images x_j at the z_{>l} of image i, which may move with it.

The divergence from "its prior" has a mean M_l of its own. Where no parent of z_l in p was drawn from z_l it is the mean
rate. Elsewhere, as bottom-up below the top, the prior is the decoder's marginal p(z_l):

    M_l = E KL(q(z_l | ·) ‖ p(z_l)) = J_l + KL(q(z_l) ‖ p(z_l)),    J_l <= M_l <= T_l = sum_{k >= l} E rate_k,

by the chain rule for p(z_{>=l}); T_l = M_l where q(z_{>l} | z_l) reverses p. It is the quantity of Hoffman and Johnson
(2016), layer by layer. rate_l alone is none: three healthy layers of 2.31 nats have rates -.005, -.005 and 2.317.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.bounds import ROWS
from hvae.diagnostics.draws import Alternatives, Sampler, divergence, per_datum
from hvae.diagnostics.rates import standard_of
from hvae.evidence import HVAE, Evidence
from hvae.families import kl
from hvae.network import Trace
from hvae.numerics import FloatArray
from hvae.shapes import Value


def rate_is_divergence(model: HVAE, evidence: Evidence, name: str) -> bool:
    """Whether E rate_l = E KL(q(z_l | ·) ‖ p(z_l | ·)): no parent of z_l in p was drawn from z_l."""
    drawn_from = {name}
    for latent in model.posterior.order:
        if drawn_from & set(model.posterior.parents(latent)):
            drawn_from.add(latent)
    return not drawn_from & set(evidence.prior_parents[name])


def from_standard(evidence: Evidence, name: str) -> FloatArray | None:
    """``[n]`` KL to N(0, I), or to fair units; None where a layer has neither."""
    site = evidence.q[name]
    standard = standard_of(site)
    return None if standard is None else per_datum(divergence(site, standard), evidence.p["x"].value.shape[1])


def from_prior(model: HVAE, evidence: Evidence, name: str) -> FloatArray | None:
    """``[n]`` KL to the prior, in closed form or as the mean rate; None where that is no divergence."""
    if not rate_is_divergence(model, evidence, name):
        return None
    values = evidence.kl(name) if evidence.closed_form(name) else evidence.rate(name)
    return per_datum(values, evidence.p["x"].value.shape[1])


def up_to_the_top(evidence: Evidence, name: str) -> FloatArray:
    """``[n]`` terms of T_l = sum_{k >= l} rate_k: M_l is at most their mean, bottom-up."""
    latents = evidence.latents
    above = [evidence.rate(latent).double() for latent in latents[latents.index(name) :]]
    return per_datum(sum(above[1:], start=above[0]), evidence.p["x"].value.shape[1])


MATCHED = 128
"""images that a match takes in at the latents of each other image: bounds the cost"""


def from_another(sampler: Sampler, evidence: Evidence, names: Sequence[str]) -> dict[str, FloatArray]:
    """``[n]`` KL to the moment match over the images, of the layers among ``names`` whose family has one.

    Infinite for a datum that shares its context with too few.
    """
    names = [name for name in names if evidence.q[name].family.exponential]
    if not names:
        return {}
    if sampler.groups is None and sampler.model.bottom_up:
        sites = {name: evidence.q[name] for name in names}
        return {
            name: per_datum(kl(site.distribution, site.family.match(site.distribution)), sampler.n_images)
            for name, site in sites.items()
        }
    n, parts = sampler.n_images, {name: list[Tensor]() for name in names}
    others = Alternatives.of(sampler.groups, sampler.groups)
    mixture = slice(0, n if others is not None else min(n, MATCHED))
    first = sampler.paths(1, "laws")
    draws = {name: site.value.expand(1, n, -1)[0] for name, site in first.items()}
    for rows in torch.arange(n, device=sampler.x.device).split(ROWS):
        same = sampler.x.new_ones(len(rows), n) if others is None else others.same[rows].to(sampler.x.dtype)
        weight = same[:, mixture] / same[:, mixture].sum(1, keepdim=True)
        own, every, place = first, first, rows
        if not sampler.model.bottom_up:  # the latents stay those of the image, the codes are those of all
            given = {name: values[rows] for name, values in draws.items()}
            own = _at(sampler, rows, {name: values.unsqueeze(0) for name, values in given.items()})
            every = _at(sampler, mixture, {name: values.unsqueeze(1) for name, values in given.items()})
            place = torch.arange(len(rows), device=rows.device)
        for name in names:
            match = every[name].family.match(every[name].distribution, weight)
            divergence = kl(own[name].distribution, match).double().expand(len(rows), n if own is first else len(rows))
            parts[name].append(divergence[torch.arange(len(rows), device=rows.device), place])
    enough = True if others is None else others.enough.cpu().numpy()
    return {name: np.where(enough, torch.cat(terms).cpu().numpy(), np.inf) for name, terms in parts.items()}


def _at(sampler: Sampler, images: Tensor | slice, given: Mapping[str, Value]) -> Trace:
    """q of the images at latents that are given."""
    return sampler.model.infer(sampler.x[images].unsqueeze(0), {}, given)
