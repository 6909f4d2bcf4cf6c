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

import numpy as np
import torch

from hvae.diagnostics.bounds import ROWS
from hvae.diagnostics.draws import Alternatives, Sampler, divergence, per_datum
from hvae.diagnostics.rates import standard_of
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE, Evidence
from hvae.families import kl
from hvae.numerics import FloatArray


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


def from_another(sampler: Sampler, evidence: Evidence, name: str) -> FloatArray:
    """``[n]`` KL to the moment match over the images; infinite for a datum that shares its context with too few.

    Raises `NotMeasuredError` for a family that has no match.
    """
    site, order = evidence.q[name], sampler.model.posterior.order
    if not site.family.exponential:
        raise NotMeasuredError(f"The distributions of {name} have no moment match over the images.")
    before = [] if sampler.model.bottom_up else list(order[: order.index(name)])
    others = Alternatives.of(sampler.groups, sampler.groups)
    if others is None and not before:
        return per_datum(kl(site.distribution, site.family.match(site.distribution)), sampler.n_images)
    n, found = sampler.n_images, []
    first = sampler.paths(1, "laws")
    draws = {latent: one.value.expand(1, n, -1)[0] for latent, one in first.items()}
    for rows in torch.arange(n, device=sampler.x.device).split(ROWS):
        site = first[name]
        if before:
            given = {latent: values[rows].unsqueeze(1) for latent, values in draws.items()}
            site = sampler.model.infer(sampler.x.unsqueeze(0), {}, given)[name]
        same = sampler.x.new_ones(len(rows), n) if others is None else others.same[rows].to(sampler.x.dtype)
        match = site.family.match(site.distribution, same / same.sum(1, keepdim=True))
        divergence = kl(site.distribution, match).double().expand(len(rows), n)
        found.append(divergence[torch.arange(len(rows), device=rows.device), rows])
    terms = torch.cat(found).cpu().numpy()
    return terms if others is None else np.where(others.enough.cpu().numpy(), terms, np.inf)
