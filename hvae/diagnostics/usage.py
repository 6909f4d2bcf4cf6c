"""Whether the decoder reads a layer, and what is lost without it; per datum, nats.

- reading: ``U_l = E KL(p(v | z_l) ‖ p(v | z~_l))`` with v the decoder's child of z_l (x for l = 1) and z~_l drawn
  for another datum; of a child without closed form by `N_KL_DRAWS` draws of v for each z_l.
- encoder knock-out: ELBO lost when q stops at layer l and the latents that it would visit from there
  on are drawn jointly from p, given those visited before: z_{>=l} ~ p(z_{>=l}) where z1 is visited first, top-down
  z_{<=l} ~ p(z_{<=l} | z_{>l}).
- model knock-out: likelihood lost when z_l is clamped to its prior mean in the decoder, both likelihoods
  by the same importance samples (``log 1/K Σ w``).
"""

import torch
from torch import Tensor

from hvae.diagnostics.draws import Sampler, divergence, per_datum
from hvae.evidence import Evidence
from hvae.families import has_closed_kl
from hvae.network import Site
from hvae.numerics import FloatArray, log_mean_exp
from hvae.rng import noise
from hvae.shapes import LogProb

N_PRIOR_DRAWS = 4096
N_KL_DRAWS = 4


def reading(sampler: Sampler, evidence: Evidence) -> dict[str, FloatArray]:
    """``U_l`` of every layer ``[n]``; images stand in random order, so the next one serves as the other datum."""
    decoder = sampler.model.decoder
    swapped = {name: site.value.roll(1, dims=1) for name, site in evidence.q.items()}
    other = decoder.walk({**swapped, "x": sampler.x.unsqueeze(0)}, {})
    children = {parent: name for name in decoder.variables for parent in decoder[name].parents}

    def read(child: str) -> LogProb:
        site, swap, family = evidence.p[child], other[child], evidence.p[child].family
        if not has_closed_kl(site.law, swap.law):
            n_paths = len(evidence.q[evidence.latents[0]].value)
            drawn = noise(
                {child: (family.noise, family.noise_width)}, N_KL_DRAWS * n_paths, sampler.n_images,
                seed=sampler.seed, purpose="reading", device=str(sampler.x.device), dtype=sampler.x.dtype,
            )[child].unflatten(0, (N_KL_DRAWS, n_paths))  # fmt: skip
            value = family.draw(site.law, drawn)
            site, swap = Site(value, site.law, family), Site(value, swap.law, family)
        return divergence(site, swap).flatten(end_dim=-2)

    return {name: per_datum(read(children[name]), sampler.n_images) for name in evidence.latents}


def encoder_knockout(sampler: Sampler, evidence: Evidence, name: str) -> FloatArray:
    """ELBO with q minus ELBO with q stopped before ``name``, on the same draws: ``[n]``."""
    order = sampler.model.posterior.order
    kept = order[: order.index(name)]
    n_paths = evidence.q[name].value.shape[0]
    given = {latent: evidence.q[latent].value for latent in kept} | {"x": sampler.x.unsqueeze(0)}
    from_prior = noise(
        sampler.model.decoder.noise_specs(), n_paths, sampler.n_images,
        seed=sampler.seed, purpose=f"knock-out {name}", device=str(sampler.x.device), dtype=sampler.x.dtype,
    )  # fmt: skip
    p = sampler.model.decoder.walk(given, from_prior)
    bound = p["x"].log_prob.double()
    for latent in kept:
        bound = bound + p[latent].log_prob.double() - evidence.q[latent].log_prob.double()
    return per_datum(evidence.log_weight, sampler.n_images) - per_datum(bound, sampler.n_images)


def model_knockout(sampler: Sampler, evidence: Evidence, name: str, purpose: str) -> FloatArray:
    """log-likelihood of the stack minus that of the stack with ``name`` at its prior mean: ``[n]``.

    ``purpose`` is the key of the draws of ``evidence``: layers that do not see the clamp keep their draws.
    With z_l fixed nothing above it matters, so only the latents below it are weighed. A difference of two lower
    bounds, and no bound itself: q was not trained for the clamped stack, whose bound is the looser one, so what
    is lost is rather overstated where layers below z_l are weighed.
    """
    n_paths = evidence.q[name].value.shape[0]
    clamp = prior_mean(sampler, name).expand(n_paths, sampler.n_images, -1)
    x = sampler.x.unsqueeze(0)
    clamped = sampler.model.weigh(sampler.model.infer(x, sampler.noise(n_paths, purpose), {name: clamp}), x)
    below = evidence.latents[: evidence.latents.index(name)]
    log_weight = sum((-clamped.rate(latent).double() for latent in below), start=-clamped.distortion.double())
    lost = log_mean_exp(evidence.log_weight, 0) - log_mean_exp(log_weight, 0)
    return per_datum(lost.unsqueeze(0), sampler.n_images)


def prior_mean(sampler: Sampler, name: str) -> Tensor:
    """``E_p z_l`` by ancestral sampling of its parents: ``[width]``."""
    specs = sampler.model.decoder.noise_specs()
    drawn = noise(
        specs, 1, N_PRIOR_DRAWS,
        seed=sampler.seed, purpose="prior mean", device=str(sampler.x.device), dtype=sampler.x.dtype,
    )  # fmt: skip
    site = sampler.model.decoder.walk({}, drawn)[name]
    return torch.broadcast_to(site.mean, site.value.shape).flatten(end_dim=-2).mean(0)
