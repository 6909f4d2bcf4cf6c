"""Whether the decoder reads a layer, and the loss without it; per datum, nats.

- reading: ``U_l = E sum_v KL(p(v | z_l, ·) ‖ p(v | z~_l, ·))`` over the decoder's children v of z_l, with z~_l drawn
  for another datum and the other parents · of v as q drew them. A Markov decoder has one child, v = z_{l-1} or x; with
  generative skips the children are all below, and the sum compares their joint distributions along the draws of q.
  Where a child's distribution has no closed form, by `N_KL_DRAWS` draws of v for each draw of its parents.
- encoder knock-out: ELBO lost when q stops before layer l and the decoder draws the latents that it would visit from
  there on: z_{>=l} ~ p(z_{>=l}) where z1 is visited first, top-down z_{<=l} ~ p(z_{<=l} | z_{>l}).
- model knock-out: likelihood lost when z_l is clamped to its prior mean in the decoder (set there, not observed: the
  layers above keep their prior), both likelihoods by the same importance samples (``log 1/K Σ w``).
"""

import torch
from torch import Tensor
from torch.distributions import Distribution

from hvae.diagnostics.draws import Sampler, divergence, per_datum
from hvae.evidence import Evidence
from hvae.families import has_closed_kl
from hvae.network import Decoder, Site
from hvae.numerics import FloatArray, log_mean_exp
from hvae.rng import NoiseSpecs, noise
from hvae.shapes import LogProb

N_PRIOR_DRAWS = 4096
N_KL_DRAWS = 4


def reading(sampler: Sampler, evidence: Evidence) -> dict[str, FloatArray]:
    """``U_l`` of every layer ``[n]``; images stand in random order, so the next one serves as the other datum."""
    decoder = sampler.model.decoder
    values = {name: site.value for name, site in evidence.p.items()}

    def read(child: str, swapped: Distribution) -> LogProb:
        site = evidence.p[child]
        if not has_closed_kl(site.distribution, swapped):
            n_paths = len(evidence.q[evidence.latents[0]].value)
            specs: NoiseSpecs = {child: (site.family.noise, site.family.noise_width)}
            drawn = sampler.noise(N_KL_DRAWS * n_paths, "reading", specs)[child].unflatten(0, (N_KL_DRAWS, n_paths))
            site = Site(site.family.draw(site.distribution, drawn), site.distribution, site.family)
        return divergence(site, Site(site.value, swapped, site.family)).flatten(end_dim=-2)

    found = {}
    for name, site in evidence.q.items():
        other = {**values, name: site.value.roll(1, dims=1)}
        children = [child for child in decoder.variables if name in decoder.parents(child)]
        swapped = decoder.factors(children).walk(other, {})
        terms = [per_datum(read(child, swapped[child].distribution), sampler.n_images) for child in children]
        found[name] = sum(terms[1:], start=terms[0])
    return found


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
    clamp = prior_mean(sampler, name).expand(n_paths, sampler.n_images, -1)
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


def prior_mean(sampler: Sampler, name: str) -> Tensor:
    """``E_p z_l`` by ancestral sampling of its parents: ``[width]``."""
    specs = sampler.model.decoder.noise_specs()
    drawn = noise(
        specs, 1, N_PRIOR_DRAWS,
        seed=sampler.seed, purpose="prior mean", device=str(sampler.x.device), dtype=sampler.x.dtype,
    )  # fmt: skip
    site = sampler.model.decoder.walk({}, drawn)[name]
    return torch.broadcast_to(site.mean, site.value.shape).flatten(end_dim=-2).mean(0)
