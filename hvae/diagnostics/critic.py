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
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import Sampler
from hvae.errors import NotMeasuredError
from hvae.evidence import Evidence
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
    sampler: Sampler, evidence: Evidence, others: Tensor, *, n_alternatives: int = N_ALTERNATIVES,
    n_walks: int = N_WALKS,
) -> dict[str, Used]:  # fmt: skip
    """V_l of every layer, on the first path of ``evidence``; ``others [m, D]`` are images that are not measured.

    With a context the alternatives of (b) come from images that share it; a datum that shares it with none keeps (a).

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sampler = Sampler(stack.model, stack.x[:4], seed=0)
    >>> found = decoder_use(sampler, sampler.evidence(1, "use"), stack.x[4:], n_alternatives=8, n_walks=2)
    >>> list(found), found["z1"].terms.shape
    (['z1', 'z2', 'z3'], (4,))
    """
    if len(others) == 0:
        raise NotMeasuredError("there are no images beside the measured ones, whose codes would be the alternatives")
    draws = {name: site.value[:1].expand(1, sampler.n_images, -1) for name, site in evidence.q.items()}
    drawn = _of_others(sampler, draws, others, n_alternatives)
    found = {}
    for name in evidence.latents:
        tried = {"other images": _terms(sampler, draws, name, drawn[name], n_walks)}
        if not sampler.model.bottom_up:
            prior = _from_prior(sampler, evidence, name, n_alternatives)
            tried["prior"] = _terms(sampler, draws, name, prior, n_walks)
        which = min(tried, key=lambda kind: tried[kind].mean())
        found[name] = Used(tried[which], math.log(n_alternatives + 1), which)
    return found


def _from_prior(sampler: Sampler, evidence: Evidence, name: str, n: int) -> Value:
    """Draws ``[N, B, D]`` of p(z_l | z_{>l}) at the layers above as they were drawn."""
    values = {other: site.value[:1] for other, site in evidence.p.items() if other != "x"}
    site = sampler.model.decoder.factors([name]).walk({**values, "x": sampler.x.unsqueeze(0)}, {})[name]
    family = site.family
    specs: NoiseSpecs = {name: (family.noise, family.noise_width)}
    return family.draw(site.distribution, sampler.noise(n, "alternatives of p", specs)[name])


def _of_others(sampler: Sampler, draws: Mapping[str, Value], others: Tensor, n: int) -> dict[str, Value]:
    """Draws ``[N, B, D]`` of every layer for other images, with the layers that q visits before it as they were."""
    model, places = sampler.model, _partners(sampler, others, n)
    if model.bottom_up:
        trace = model.infer(others.unsqueeze(0), _noise(sampler, model.noise_specs(), 1, len(others), "other images"))
        return {name: site.value.expand(1, len(others), -1)[0][places] for name, site in trace.items()}
    x = others[places]  # [N, B, D]
    trace = model.infer(x, {}, dict(draws))
    noises = _noise(sampler, model.noise_specs(), n, sampler.n_images, "alternatives of q")
    return {name: site.family.draw(site.distribution, noises[name]) for name, site in trace.items()}


def _partners(sampler: Sampler, others: Tensor, n: int) -> Tensor:
    """Places ``[N, B]`` among the others: a run of neighbours from a random start, within the same context."""
    groups = sampler.model.groups(torch.cat([sampler.x, others]))
    n_images = sampler.n_images
    device = sampler.x.device
    order = permutation(len(others), seed=sampler.seed, purpose="partners", device=str(device))
    if groups is None:
        start = torch.arange(n_images, device=device) * 7919
        return order[(start.unsqueeze(0) + torch.arange(n, device=device).unsqueeze(1)) % len(others)]
    found = torch.empty(n, n_images, dtype=torch.long, device=device)
    of_others = groups[n_images:]
    for place in range(n_images):
        same = (of_others == groups[place]).nonzero().squeeze(-1)
        if not len(same):
            raise NotMeasuredError("a datum shares its context with no other, so there are no alternatives of its code")
        found[:, place] = same[(torch.arange(n, device=device) + place * 7919) % len(same)]
    return found


def _terms(sampler: Sampler, draws: Mapping[str, Value], name: str, other: Value, n_walks: int) -> FloatArray:
    """``[n]``: the best critic of each half, chosen on the other half."""
    critics = _critics(sampler, draws, name, torch.cat([draws[name], other]), n_walks)
    tried = np.stack([_ratio(log_c, t) for log_c in critics for t in TEMPERS])  # [critic, n]
    halves = np.arange(sampler.n_images) % 2
    terms = np.empty(sampler.n_images)
    for half in (0, 1):
        chosen = tried[:, halves != half].mean(1).argmax() if (halves != half).any() else len(TEMPERS) - 1
        terms[halves == half] = tried[chosen, halves == half]
    return terms


def _ratio(log_c: LogProb, t: float) -> FloatArray:
    """``log c_0^t - log mean c^t`` for each image; the first row is its own."""
    scaled = t * log_c
    found: FloatArray = (scaled[0] - log_mean_exp(scaled, 0)).cpu().numpy()
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
    if below:
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
