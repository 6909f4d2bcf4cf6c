"""What the decoder's next distributions take from a layer; per datum, nats.

``U_l = E sum_v KL(p(v | z_l, ·) ‖ p(v | z~_l, ·))`` over the decoder's children v of z_l, with z~_l drawn for another
datum and the other parents · of v as q drew them. A Markov decoder has one child, v = z_{l-1} or x; with generative
skips the children are all below, and the sum compares their joint distributions along the draws of q. Where a child's
distribution has no closed form, by `N_KL_DRAWS` draws of v for each draw of its parents.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from hvae.diagnostics.draws import Sampler, divergence, per_datum
from hvae.evidence import Evidence
from hvae.families import has_closed_kl
from hvae.network import Decoder, Site, Trace
from hvae.numerics import FloatArray
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Value

N_KL_DRAWS = 4


def use(sampler: Sampler, evidence: Evidence) -> dict[str, FloatArray]:
    """``U_l`` of every layer ``[n]``; the other datum is the image's neighbour (`Sampler.neighbours`).

    Neighbours share draws, so an interval takes `Sampler.pairs`. With a context both share it. A datum that shares its
    context with no other takes z~_l from the code of a datum that the decoder draws in that context, under the same
    layers above. Where x has no closed form and its draws cannot be scored anew, the child x counts by the data
    themselves, ``log p(x|z_l) - log p(x|z~_l)``.
    """
    decoder = sampler.model.decoder
    values = {name: site.value for name, site in evidence.p.items()}

    def read(child: str, swapped: Site) -> LogProb:
        site = evidence.p[child]
        if not has_closed_kl(site.distribution, swapped.distribution) and not decoder.can_redraw(child):
            return site.log_prob - swapped.log_prob
        if not has_closed_kl(site.distribution, swapped.distribution):
            n_paths = len(evidence.q[evidence.latents[0]].value)
            specs: NoiseSpecs = {child: (site.family.noise, site.family.noise_width)}
            drawn = sampler.noise(N_KL_DRAWS * n_paths, "reading", specs)[child].unflatten(0, (N_KL_DRAWS, n_paths))
            site = Site(site.family.draw(site.distribution, drawn), site.distribution, site.family)
        return divergence(site, Site(site.value, swapped.distribution, site.family)).flatten(end_dim=-2)

    found = {name: np.zeros(sampler.n_images) for name in evidence.q}  # where nothing in the decoder moves with it
    others = {name: swapped_value(sampler, name, site, values) for name, site in evidence.q.items()}
    for name, children in swapped(decoder, values, others):
        for child, site in children.items():
            found[name] = found[name] + per_datum(read(child, site), sampler.n_images)
    return found


def swapped(decoder: Decoder, values: Mapping[str, Value], others: Mapping[str, Value]) -> Iterator[tuple[str, Trace]]:
    """The decoder's children of each latent, scored at their own ``values`` where the latent alone takes another one.

    Children that hang from a single latent are walked once for all layers, with all latents at their other values;
    those of several parents once a layer.
    """
    latents = [name for name in decoder.variables if name != "x"]
    of = {child: [name for name in latents if name in decoder.parents(child)] for child in decoder.variables}
    lone = [child for child in decoder.variables if len(of[child]) == 1 and of[child][0] in others]
    at_once = decoder.factors(lone).walk({**values, **others}, {})
    for name in others:
        found = {}
        for child in (child for child in lone if name in of[child]):
            site = at_once[child]
            found[child] = site if child not in others else Site(values[child], site.distribution, site.family)
        several = [child for child in decoder.variables if name in of[child] and child not in lone]
        if several:
            found |= decoder.factors(several).walk({**values, name: others[name]}, {})
        yield name, {child: found[child] for child in decoder.variables if child in found}


def swapped_value(sampler: Sampler, name: str, site: Site, values: Mapping[str, Value]) -> Value:
    """``z~_l`` of another datum: of one that shares the context."""
    alone = sampler.neighbours == torch.arange(sampler.n_images, device=sampler.x.device)
    other = site.value.expand(-1, sampler.n_images, -1)[:, sampler.neighbours]
    if sampler.groups is None or not alone.any():
        return other
    decoder, posterior = sampler.model.decoder, sampler.model.posterior
    before = posterior.order[: posterior.order.index(name)]
    kept = {latent: values[latent].expand(-1, sampler.n_images, -1)[:, alone] for latent in before}
    n_paths = site.value.shape[0]
    of_p, of_q = sampler.noise(n_paths, "swap", decoder.noise_specs()), sampler.noise(n_paths, "swap")
    x = sampler.x[alone].unsqueeze(0)
    drawn = sampler.model.redrawn(x, kept, {variable: numbers[:, alone] for variable, numbers in of_p.items()})
    code = sampler.model.infer(drawn, {latent: numbers[:, alone] for latent, numbers in of_q.items()}, kept)[name]
    other = other.clone()
    other[:, alone] = code.value
    sampler.model.forget()
    return other
