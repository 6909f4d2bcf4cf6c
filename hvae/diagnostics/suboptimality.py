"""The causes of the gap: q's family (approximation), or one encoder for all data (amortisation). Nats.

With q* the best of q's family for each datum (Cremer, Li and Duvenaud 2018, section 3),

    gap = log p(x) - ELBO(q) = [log p(x) - ELBO(q*)] + [ELBO(q*) - ELBO(q)] = approximation + amortisation.

Here q* is q with a shift and a scale of its own for each datum and latent unit, z = mean_q + std_q (m + s ε), fitted by
its ELBO (`refinement`). For the first latent visited that is every diagonal Gaussian, where q's distribution there is
one (of a flow, a mixture or a full covariance it is a family of its own, neither all of q's nor within it). Later
latents keep the amortised conditional, with mean and deviation modulated affinely, so their share of "approximation"
may hold gains of a freer conditional. A fit that stops early calls amortisation "approximation" too.

One layer at a time, ``freed_l = ELBO(q with layer l refined) - ELBO(q)``. The parts do not add up to the amortisation:
layers can mend the same fault twice, or only together. The difference is the `remainder`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.marginals import Marginal
from hvae.diagnostics.terms import Term
from hvae.evidence import HVAE
from hvae.likelihood.refinement import DEFAULT, Refinement, refine, scaled
from hvae.likelihood.target import Target, from_encoder
from hvae.numerics import FloatArray


@dataclass(frozen=True)
class Suboptimality:
    """The gap of n data by cause.

    >>> from hvae.diagnostics.gap import exact_marginal
    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "over-confident", seed=0, widths=(6, 4))
    >>> log_px, budget = exact_marginal(stack.reference, stack.x), Refinement(n_steps=10, n_samples=2)
    >>> found = suboptimality(stack.model, stack.x, log_px, n_draws=5, seed=0, refinement=budget)
    >>> found.amortisation.datum_nats.shape, list(found.freed)
    ((6,), ['z1'])
    """

    elbo: Term
    refined_elbo: Term
    """ELBO(q*)"""
    amortisation: Term
    """at least 0, up to chance"""
    approximation: Term
    """a lower bound where log p(x) was one"""
    freed: Mapping[str, Term]
    """by layer, z1 first"""
    remainder: Term
    """amortisation less the sum of `freed`; of either sign"""


def suboptimality(
    model: HVAE, x: Tensor, log_px: Marginal, *, n_draws: int, seed: int, refinement: Refinement = DEFAULT
) -> Suboptimality:
    """Approximation and amortisation on `x [n, D]`, measured on ``n_draws`` draws that no fit has seen.

    All ELBOs of a datum see the same noise, so differences are paired; approximation + amortisation is the gap on these
    draws. Raises `NotWhitenedError` for discrete latents, and ValueError where log-weights are not finite.
    """
    if n_draws < 2:
        raise ValueError(f"n_draws is {n_draws}; give at least 2, else nothing is known of the error.")
    target = from_encoder(model, x)
    noise = target.noise(n_draws, seed=seed, purpose="suboptimality")

    def bounds(free: Tensor | None, purpose: str) -> FloatArray:
        shift, log_scale = refine(target, refinement, seed=seed, purpose=f"suboptimality/{purpose}", free=free)
        return _log_weight(scaled(target, shift, log_scale), noise, purpose)

    amortised, refined = _log_weight(target, noise, "q"), bounds(None, "q refined")
    layers = {name: bounds(_columns(target, name), f"q with {name} refined") for name in model.latents}
    freed = {name: layer - amortised for name, layer in layers.items()}
    return Suboptimality(
        elbo=Term.of(amortised),
        refined_elbo=Term.of(refined),
        amortisation=Term.of(refined - amortised),
        approximation=Term.of(
            log_px.estimate.log_px - refined, np.square(log_px.estimate.standard_error), log_px.bias_datum_nats
        ),
        freed={name: Term.of(draws) for name, draws in freed.items()},
        remainder=Term.of(refined - amortised - sum(freed.values())),
    )


def _columns(target: Target, name: str) -> Tensor:
    """1 where the noise is that of the named latent."""
    kinds = [torch.full((width,), float(other == name)) for other, (_, width) in target.specs.items()]
    return torch.cat(kinds).to(target.like)


@torch.no_grad()
def _log_weight(target: Target, noise: Tensor, what: str) -> FloatArray:
    values = target.log_weight(noise)
    if not values.isfinite().all():
        broken = int((~values.isfinite()).any(0).sum())
        raise ValueError(f"{what} has log-weights that are not finite for {broken} of {target.n_data} data.")
    found: FloatArray = values.cpu().numpy()
    return found
