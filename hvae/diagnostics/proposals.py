"""Proposals for the evidence of the rest of a stack, cheap first.

    q          the posterior itself
    widened    half the draws from q, half from a flatter copy of it, weighed against the mixture of both
    prior      the decoder's own conditionals of the free latents: modes that are far from q, in few dimensions
    refined    q refined for each datum by its ELBO, diagonal in noise (`refinement.refine`), then widened
    full       the same with a full covariance (`refinement.linearise`), then widened; up to `MOST_DIMENSIONS`
    annealed   annealed importance sampling from the refined q

The mixture's weight is ``log p - log (q/2 + r/2)``, the balance heuristic of a defensive mixture (Hesterberg 1995;
Veach and Guibas 1995): it exceeds neither that of q nor that of r by more than log 2. r is q with noise of deviation
`spread`; for Bernoulli and categorical units it is q with halved logits. The last three need normal noise.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from hvae import rng
from hvae.diagnostics.rest import Rest
from hvae.errors import NotMeasuredError
from hvae.families.general import DistributionOfOutputs
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.importance import DrawLogWeight
from hvae.likelihood.refinement import Refinement, linearise, refine, scaled
from hvae.likelihood.target import Target
from hvae.network import Site
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, Value

MOST_DIMENSIONS = 64
"""free latents up to which a full covariance is fitted"""


@dataclass(frozen=True)
class Proposal:
    """A way to draw the free latents: weights as a function of (rest, refinement, seed, purpose), and where it works.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> draw = PROPOSALS["widened"].sampler(Rest.of(stack.model, stack.x, given={}), Refinement(), 0, "example")
    >>> draw(0, 5).shape  # chunk 0, K = 5
    torch.Size([5, 6])
    """

    sampler: Callable[[Rest, Refinement, int, str], DrawLogWeight]
    suits: Callable[[Rest], bool]


def _q(rest: Rest, refinement: Refinement, seed: int, purpose: str) -> DrawLogWeight:
    return lambda chunk, k: rest.log_weight(_noise(rest, rest.specs, k, seed, purpose, chunk))


def _widened(rest: Rest, refinement: Refinement, seed: int, purpose: str) -> DrawLogWeight:
    return _wide(rest.target(), seed, purpose) if rest.gaussian else _flattened(rest, seed, purpose)


def _refined(rest: Rest, refinement: Refinement, seed: int, purpose: str) -> DrawLogWeight:
    target = rest.target()
    return _wide(scaled(target, *refine(target, refinement, seed=seed, purpose=purpose)), seed, purpose)


def _full(rest: Rest, refinement: Refinement, seed: int, purpose: str) -> DrawLogWeight:
    target = rest.target()
    return _wide(target.moved(*linearise(target, refinement, seed=seed, purpose=purpose)), seed, purpose)


def _prior(rest: Rest, refinement: Refinement, seed: int, purpose: str) -> DrawLogWeight:
    """Free latents from the decoder's own conditionals: in few dimensions it finds modes that are far from q."""
    specs = {name: spec for name, spec in rest.decoder.noise_specs().items() if name in rest.specs}

    def draw(chunk: int, k: int) -> LogProb:
        trace = rest.decoder.walk(rest.known, _noise(rest, specs, k, seed, purpose, chunk))
        scored = (site.log_prob.double() for name, site in trace.items() if name not in specs)
        return sum(scored, start=rest.constant).expand(k, -1)

    return draw


PROPOSALS: Mapping[str, Proposal] = {
    "q": Proposal(_q, lambda rest: True),
    "widened": Proposal(_widened, lambda rest: True),
    "prior": Proposal(_prior, lambda rest: True),
    "refined": Proposal(_refined, lambda rest: rest.gaussian),
    "full": Proposal(_full, lambda rest: rest.gaussian and rest.width <= MOST_DIMENSIONS),
}


def annealed(rest: Rest, annealing: Annealing, refinement: Refinement, seed: int, purpose: str) -> LogProb:
    """Weights ``[C, B]`` of annealed chains that start from the refined q."""
    target = rest.target()
    shift, log_scale = refine(target, refinement, seed=seed, purpose=purpose)
    return anneal(scaled(target, shift, log_scale), annealing, seed, purpose).log_weight


def spread(width: int) -> float:
    """Deviation of the wide half's noise in D dimensions, ``sqrt(1 + 2 / sqrt(D))``.

    Its mean squared length is then sqrt 2 of the deviations of N(0, I)'s squared length larger, ``D + 2 sqrt(D)``
    against ``D ± sqrt(2 D)``: the halves overlap whatever D.
    """
    return math.sqrt(1 + 2 / math.sqrt(width))


def _wide(target: Target, seed: int, purpose: str) -> DrawLogWeight:
    """Noise from ``N(0, I)/2 + N(0, s² I)/2``."""
    deviation = spread(target.width)

    def draw_log_weight(chunk: int, k: int) -> LogProb:
        noise = target.noise(k, seed=seed, purpose=purpose, step=chunk)
        noise = torch.where(_half(noise, seed, purpose, chunk), deviation * noise, noise)
        squares = noise.double().square().sum(-1)
        log_ratio = squares / 2 * (1 - deviation**-2) - target.width * math.log(deviation)  # wide half to N(0, I)
        return target.log_weight(noise) - torch.logaddexp(log_ratio, torch.zeros_like(log_ratio)) + math.log(2)

    return draw_log_weight


def _flattened(rest: Rest, seed: int, purpose: str) -> DrawLogWeight:
    """Half of q, half of its flat copy, for latents of any family: each is drawn given those before it."""
    deviation = spread(rest.width)

    def draw_log_weight(chunk: int, k: int) -> LogProb:
        noise = _noise(rest, rest.specs, k, seed, purpose, chunk)
        flat = _half(next(iter(noise.values())), seed, purpose, chunk)
        values: dict[str, Value] = {}
        for name in rest.specs:
            site = rest.visit(noise, values)[name]
            values[name] = torch.where(flat, _flat_draw(site, noise[name], deviation), site.value)
        log_q = log_r = torch.zeros((), dtype=torch.float64, device=rest.x.device)
        for site in rest.visit({}, values).values():
            log_q = log_q + site.log_prob.double()
            log_r = log_r + _flat_log_prob(site, deviation)
        return rest.log_joint(values) - torch.logaddexp(log_q, log_r) + math.log(2)

    return draw_log_weight


def _flat_draw(site: Site, noise: Noise, deviation: float) -> Value:
    """A draw from the flat copy of the site's distribution: with grown noise, or with halved logits."""
    if site.family.noise == "normal":
        return site.family.draw(site.distribution, deviation * noise)
    return site.family.draw(_halved(site), noise)


def _flat_log_prob(site: Site, deviation: float) -> LogProb:
    """Of the site's value under the flat copy; for noise ε it is ``log q + log N(ε; 0, s²) / N(ε; 0, 1)``."""
    if site.family.noise == "normal":
        squares = site.family.noise_of(site.distribution, site.value).double().square().sum(-1)
        return site.log_prob.double() + squares / 2 * (1 - deviation**-2) - site.family.width * math.log(deviation)
    return site.family.log_prob(_halved(site), site.value).double()


def _halved(site: Site) -> Distribution:
    """The site's distribution with half the logits; of autoregressive units, with half the outputs of their net."""
    if site.family.exponential:
        return site.family.distribution(site.family.natural(site.distribution)[0] / 2)
    if not isinstance(site.distribution, DistributionOfOutputs):
        raise NotMeasuredError(
            "The gap takes draws from a wider copy of each latent's distribution, and Gaussian, Bernoulli and one-hot "
            "latents have one, others none; split the gap of a model of such latents."
        )
    return site.family.distribution(site.distribution.outputs / 2)


def _noise(rest: Rest, specs: NoiseSpecs, k: int, seed: int, purpose: str, chunk: int) -> dict[str, Noise]:
    x = rest.x
    return rng.noise(specs, k, len(x), seed=seed, purpose=purpose, step=chunk, device=str(x.device), dtype=x.dtype)


def _half(noise: Noise, seed: int, purpose: str, chunk: int) -> Tensor:
    """A fair Bernoulli draw ``[K, B, 1]`` for each draw of a mixture: the half that it belongs to."""
    source = rng.generator(seed, f"{purpose}/coins", chunk, device=str(noise.device))
    return torch.rand(*noise.shape[:2], 1, generator=source, device=noise.device) < 0.5
