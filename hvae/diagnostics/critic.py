"""What the decoder uses of a layer: its own likelihood of the image as critic, against alternatives of z_l. Nats.

For a draw z of q at image x, with c(z_l) the decoder's likelihood of x at z_l and the layers above as they were drawn,

    V_l = E log [c(z_l)^t / mean of c^t over {z_l, z_l^1 … z_l^N}],

N alternatives z_l^j of the layer. If z_l and its alternatives were exchangeable given what is kept, the mean of the
ratio would be 1 for every critic c >= 0 and every t, so V_l is at most log (N + 1), and

    (a) alternatives from p(z_l | z_{>l}):                    V_l <= E KL(q(z_l | ·) ‖ p(z_l | z_{>l})),
    (b) from q(z_l | z_{>l}, x') of other images x':          V_l <= E KL(q(z_l | ·) ‖ mixture over the images),
        where z1 is visited first, other images' draws:       V_l <= I_q(x; z_l).

The smaller counts. It is 0 for a layer that the decoder does not read, that has collapsed, or that codes noise only. It
is no estimate of I(x; z_l | z_{>l}), does not add up over layers, and at the cap says "at least".

The layers below z_l are set to the middle of their distributions, one after another, or drawn by `N_WALKS` walks whose
mean likelihood counts. Any critic is allowed, so path and t are chosen: for each half of the images by the other half.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import Sampler
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE, Evidence
from hvae.network import Trace
from hvae.numerics import FloatArray, log_mean_exp
from hvae.rng import NoiseSpecs, noise, permutation
from hvae.shapes import LogProb, Noise, Value

N_ALTERNATIVES = 64
N_WALKS = 16
TEMPERS = (*(2.0**-power for power in range(21)), 0.0)
"""t; at 0 the critic says nothing, and V is 0"""
PAIRS = 2**14
"""rows of the decoder that are asked for at once: bounds the memory"""


@dataclass(frozen=True)
class Used:
    """What the decoder uses of one layer.

    >>> used = Used(np.array([0.5, 1.5]), cap=math.log(65), alternatives="other images")
    >>> float(used.terms.mean()), used.at_cap
    (1.0, False)
    """

    terms: FloatArray
    """``[n]``"""
    cap: float
    """log (N + 1)"""
    alternatives: str
    """those that left less: "prior" or "other images" """

    @property
    def at_cap(self) -> bool:
        """Whether only "at least" can be said: the mean is within a tenth of the cap."""
        return bool(self.terms.mean() > 0.9 * self.cap)


@torch.no_grad()
def decoder_use(
    sampler: Sampler, evidence: Evidence, others: Tensor | None = None, *, names: Collection[str] | None = None,
    n_alternatives: int = N_ALTERNATIVES, n_walks: int = N_WALKS,
) -> dict[str, Used]:  # fmt: skip
    """V_l of every layer, or of those among ``names``, on the first path of ``evidence``.

    ``others [m, D]`` are images that are not measured. Without them each measured one has the rest for alternatives.

    With a context the alternatives of (b) come from images that share it. A datum that shares it with none has images
    that the decoder draws in that context.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sampler = Sampler(stack.model, stack.x[:4], seed=0)
    >>> found = decoder_use(sampler, sampler.evidence(1, "use"), stack.x[4:], n_alternatives=8, n_walks=2)
    >>> list(found), found["z1"].terms.shape
    (['z1', 'z2', 'z3'], (4,))
    """
    pool = sampler.x if others is None or not len(others) else others
    own = pool is sampler.x
    n_alternatives = min(n_alternatives, len(pool) - own)
    if n_alternatives < 1:
        raise NotMeasuredError("There is one datum alone, so there are no alternatives to its code.")
    draws = {name: site.value[:1].expand(1, sampler.n_images, -1) for name, site in evidence.q.items()}
    partners = _Partners.of(sampler, pool, n_alternatives, own)
    drawn = _of_others(sampler, draws, pool, partners)
    found = {}
    for name in evidence.latents if names is None else [name for name in evidence.latents if name in names]:
        tried = {"other images": _terms(sampler, draws, name, drawn[name], n_walks, partners.count)}
        if not sampler.model.bottom_up:
            prior = _from_prior(sampler, evidence, name, n_alternatives)
            tried["prior"] = _terms(sampler, draws, name, prior, n_walks)
        which = min(tried, key=lambda kind: tried[kind].mean())
        cap = math.log(n_alternatives + 1) if partners.count is None else float(partners.count.log1p().mean())
        found[name] = Used(tried[which], cap, which)
    return found


def _from_prior(sampler: Sampler, evidence: Evidence, name: str, n: int) -> Value:
    """Draws ``[N, B, D]`` of p(z_l | z_{>l}) at the layers above as they were drawn."""
    values = {other: site.value[:1] for other, site in evidence.p.items() if other != "x"}
    site = sampler.model.decoder.factors([name]).walk({**values, "x": sampler.x.unsqueeze(0)}, {})[name]
    family = site.family
    specs: NoiseSpecs = {name: (family.noise, family.noise_width)}
    return family.draw(site.distribution, sampler.noise(n, "alternatives of p", specs)[name])


@dataclass(frozen=True)
class _Partners:
    """The other images of each datum: a run of neighbours, never the datum itself, none twice."""

    places: Tensor
    """``[N, B]``"""
    count: Tensor | None
    """``[B]`` how many of the N are of the same context, where there is one; the first so many"""
    alone: Tensor | None
    """``[B]`` bool, data that share their context with no other"""

    @staticmethod
    def of(sampler: Sampler, pool: Tensor, n: int, own: bool) -> "_Partners":
        n_images, device = sampler.n_images, sampler.x.device
        run, each = torch.arange(n, device=device).unsqueeze(1), torch.arange(n_images, device=device)
        groups = sampler.groups if own else sampler.model.groups(torch.cat([sampler.x, pool]))
        if groups is None and own:
            return _Partners((each + 1 + run) % n_images, None, None)
        order = permutation(len(pool), seed=sampler.seed, purpose="partners", device=str(device))
        if groups is None:
            return _Partners(order[(each * 7919 + run) % len(pool)], None, None)
        places, count = torch.zeros(n, n_images, dtype=torch.long, device=device), []
        of_pool = (groups if own else groups[n_images:])[order]
        for place in range(n_images):
            same = order[of_pool == groups[place]]
            same = same[same != place] if own else same
            count.append(min(n, len(same)))
            if len(same):
                places[:, place] = same[(run.squeeze(1) + place * 7919) % len(same)]
        counts = torch.tensor(count, dtype=torch.float64, device=device)
        alone = counts == 0
        return _Partners(places, torch.where(alone, n, counts), alone if alone.any() else None)


def _of_others(sampler: Sampler, draws: Mapping[str, Value], pool: Tensor, partners: _Partners) -> dict[str, Value]:
    """Draws ``[N, B, D]`` of every layer for other images, with the layers that q visits before it as they were.

    A datum that shares its context with no other has images that the decoder draws in that context.
    """
    model, n = sampler.model, len(partners.places)
    specs = model.noise_specs()
    if model.bottom_up and partners.alone is None:
        trace = model.infer(pool.unsqueeze(0), _noise(sampler, specs, 1, len(pool), "other images"))
        return {name: site.value.expand(1, len(pool), -1)[0][partners.places] for name, site in trace.items()}
    kept = {} if model.bottom_up else dict(draws)
    noises = _noise(sampler, specs, n, sampler.n_images, "alternatives of q")
    found = _drawn(model, pool[partners.places], kept, noises)
    if partners.alone is not None:
        alone = partners.alone
        kept = {name: values[:, alone] for name, values in draws.items()}
        for name in model.posterior.order:  # the layers that q visits before it are kept, and those only
            before = {} if model.bottom_up else _before(model, kept, name)
            of_p = _noise(sampler, model.decoder.noise_specs(), n, sampler.n_images, "images of p")
            x = model.redrawn(sampler.x[alone].unsqueeze(0), before, {v: e[:, alone] for v, e in of_p.items()})
            code = _drawn(model, x, before, {v: e[:, alone] for v, e in noises.items()})[name]
            found[name] = found[name].clone()
            found[name][:, alone] = code
            model.forget()
    return found


def _before(model: HVAE, values: Mapping[str, Value], name: str) -> dict[str, Value]:
    order = model.posterior.order
    return {latent: values[latent] for latent in order[: order.index(name)]}


def _drawn(model: HVAE, x: Value, kept: Mapping[str, Value], noises: Mapping[str, Noise]) -> dict[str, Value]:
    """A draw of every layer at the layers that ``kept`` has; the kept ones are drawn anew, not returned."""
    if not kept:
        return {name: site.value for name, site in model.infer(x, noises).items()}
    trace = model.infer(x, {name: noises[name] for name in noises if name not in kept}, kept)
    return {
        name: site.family.draw(site.distribution, noises[name]) if name in kept else site.value
        for name, site in trace.items()
    }


def _terms(
    sampler: Sampler, draws: Mapping[str, Value], name: str, other: Value, n_walks: int, count: Tensor | None = None
) -> FloatArray:
    """``[n]``: the best critic of each half, chosen on the other half; of the alternatives the first ``count [n]``."""
    critics = _critics(sampler, draws, name, torch.cat([draws[name], other]), n_walks)
    broken = ~critics[0][0].isfinite()
    if broken.any():
        n_broken, n = int(broken.sum()), sampler.n_images
        raise NotMeasuredError(f"The decoder's likelihood is not finite for {n_broken} of {n} data: no verdict.")
    tried = np.stack([_ratio(log_c, t, count) for log_c in critics for t in TEMPERS])  # [critic, n]
    halves = np.arange(sampler.n_images) % 2
    terms = np.empty(sampler.n_images)
    for half in (0, 1):
        chosen = tried[:, halves != half].mean(1).argmax() if (halves != half).any() else len(TEMPERS) - 1
        terms[halves == half] = tried[chosen, halves == half]
    return terms


def _ratio(log_c: LogProb, t: float, count: Tensor | None) -> FloatArray:
    """``log c_0^t - log mean c^t`` for each image; the first row is its own."""
    scaled = t * log_c if t else torch.zeros_like(log_c)
    n = torch.full_like(scaled[0], len(scaled) - 1) if count is None else count
    beyond = torch.arange(len(scaled), device=scaled.device).unsqueeze(1) > n
    found: FloatArray = (scaled[0] - scaled.masked_fill(beyond, -math.inf).logsumexp(0) + n.log1p()).cpu().numpy()
    return found


def _critics(sampler: Sampler, draws: Mapping[str, Value], name: str, values: Value, n_walks: int) -> list[LogProb]:
    """Log-likelihoods ``[N + 1, n]`` of the images: at the middle of the layers below, and by walks through them."""
    decoder = sampler.model.decoder
    latents = [latent for latent in decoder.variables if latent != "x"]
    below = latents[latents.index(name) + 1 :]
    specs: NoiseSpecs = {latent: (decoder.family(latent).noise, decoder.family(latent).noise_width) for latent in below}
    above = {latent: draws[latent] for latent in latents[: latents.index(name)]}
    middle = {"normal": 0.0, "uniform": 0.5}
    like = sampler.x
    halfway = {
        latent: torch.full((1, sampler.n_images, width), middle[kind], dtype=like.dtype, device=like.device)
        for latent, (kind, width) in specs.items()
    }
    found = [_log_likelihood(sampler, above, name, values, halfway)]
    if below and n_walks:
        drawn = sampler.noise(n_walks, "walks below", specs)
        walks = [
            _log_likelihood(sampler, above, name, values, {latent: drawn[latent][w : w + 1] for latent in below})
            for w in range(n_walks)
        ]
        found.append(log_mean_exp(torch.stack(walks), 0))
    return found


def _log_likelihood(
    sampler: Sampler, above: Mapping[str, Value], name: str, values: Value, below: Mapping[str, Noise]
) -> LogProb:
    """``log p(x | z_l, z_{>l}, the layers below by their noise)``, ``[N + 1, n]`` in float64, some rows at a time."""
    parts = []
    for some in values.split(max(1, PAIRS // sampler.n_images)):
        trace: Trace = sampler.model.decoder.walk({**above, name: some, "x": sampler.x.unsqueeze(0)}, below)
        parts.append(trace["x"].log_prob.double().expand(len(some), sampler.n_images))
    return torch.cat(parts)


def _noise(sampler: Sampler, specs: NoiseSpecs, n: int, n_data: int, purpose: str) -> Mapping[str, Noise]:
    x = sampler.x
    return noise(specs, n, n_data, seed=sampler.seed, purpose=purpose, device=str(x.device), dtype=x.dtype)
