"""Whether the decoder reads a layer, and the loss without it; per datum, nats.

- use: ``U_l = E sum_v KL(p(v | z_l, ·) ‖ p(v | z~_l, ·))`` over the decoder's children v of z_l, with z~_l drawn
  for another datum and the other parents · of v as q drew them. A Markov decoder has one child, v = z_{l-1} or x; with
  generative skips the children are all below, and the sum compares their joint distributions along the draws of q.
  Where a child's distribution has no closed form, by `N_KL_DRAWS` draws of v for each draw of its parents.
- encoder knock-out: ELBO lost when q stops before layer l and the decoder draws the latents that it would visit from
  there on: z_{>=l} ~ p(z_{>=l}) where z1 is visited first, top-down z_{<=l} ~ p(z_{<=l} | z_{>l}).
- model knock-out: likelihood lost when z_l is clamped to its prior mean in the decoder (set there, not observed: the
  layers above keep their prior), both likelihoods by the same importance samples (``log 1/K Σ w``).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import N_PRIOR_DRAWS, Sampler, divergence, per_datum
from hvae.evidence import Evidence
from hvae.families import has_closed_kl
from hvae.network import Decoder, Site
from hvae.numerics import FloatArray, log_mean_exp
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

    found = {}
    for name, site in evidence.q.items():
        other = {**values, name: swapped_value(sampler, name, site, values)}
        children = [child for child in decoder.variables if name in decoder.parents(child)]
        if not children:  # nothing in the decoder moves with it
            found[name] = np.zeros(sampler.n_images)
            continue
        swapped = decoder.factors(children).walk(other, {})
        terms = [per_datum(read(child, swapped[child]), sampler.n_images) for child in children]
        found[name] = sum(terms[1:], start=terms[0])
    return found


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


def encoder_knockout(sampler: Sampler, evidence: Evidence, name: str) -> FloatArray:
    """ELBO with q minus ELBO with q stopped before ``name``, on the same draws: ``[n]``."""
    order = sampler.model.posterior.order
    kept = order[: order.index(name)]
    n_paths = evidence.q[name].value.shape[0]
    given = {latent: evidence.q[latent].value for latent in kept} | {"x": sampler.x.unsqueeze(0)}
    from_prior = sampler.noise(n_paths, f"knock-out {name}", sampler.model.decoder.noise_specs())
    p = sampler.model.decoder.walk(given, from_prior)
    bound = p["x"].log_prob.double()
    for latent in kept:
        bound = bound + p[latent].log_prob.double() - evidence.q[latent].log_prob.double()
    return per_datum(evidence.log_weight, sampler.n_images) - per_datum(bound, sampler.n_images)


def model_knockout(sampler: Sampler, evidence: Evidence, name: str, purpose: str) -> FloatArray:
    """log-likelihood of the stack minus that of the stack with ``name`` at its prior mean: ``[n]``.

    ``purpose`` is the key of the draws of ``evidence``: layers that do not see the clamp keep their draws.
    With z_l fixed, only latents on which x still depends are weighed: those below z_l, and with generative skips also
    those above. A difference of two lower bounds, and no bound itself: q was not trained for the clamped stack, so that
    bound is the looser one, and the loss is rather overstated where other layers are weighed.
    """
    n_paths = evidence.q[name].value.shape[0]
    clamp = clamped_value(sampler, name, n_paths)
    x = sampler.x.unsqueeze(0)
    clamped = sampler.model.weigh(sampler.model.infer(x, sampler.noise(n_paths, purpose), {name: clamp}), x)
    weighed = _read(sampler.model.decoder, without=name)
    log_weight = sum((-clamped.rate(latent).double() for latent in weighed), start=-clamped.distortion.double())
    lost = log_mean_exp(evidence.log_weight, 0) - log_mean_exp(log_weight, 0)
    return per_datum(lost.unsqueeze(0), sampler.n_images)


def _read(decoder: Decoder, *, without: str) -> list[str]:
    """Latents on which x depends in the decoder once ``without`` is set, nearest first."""
    found = ["x"]
    for variable in found:
        found += [parent for parent in decoder.parents(variable) if parent not in (*found, without)]
    return found[1:]


def clamped_value(sampler: Sampler, name: str, n_paths: int) -> Tensor:
    """What z_l is set to, ``[K, n, D]``: its prior mean, given the context; a prior draw where a mean is no value."""
    decoder, x = sampler.model.decoder, sampler.x.unsqueeze(0)
    latents = decoder.factors([latent for latent in decoder.variables if latent != "x"])
    if not decoder.has_mean(name):
        drawn = latents.walk({"x": x}, sampler.noise(n_paths, "prior draw", latents.noise_specs()))[name].value
        return drawn.expand(n_paths, sampler.n_images, -1)
    if sampler.groups is None:
        return sampler.prior_means[name].expand(n_paths, sampler.n_images, -1)
    n_draws = max(1, N_PRIOR_DRAWS // sampler.n_images)
    site = latents.walk({"x": x}, sampler.noise(n_draws, "prior mean", latents.noise_specs()))[name]
    mean = site.mean.expand(n_draws, sampler.n_images, -1).mean(0)
    return mean.expand(n_paths, sampler.n_images, -1)
