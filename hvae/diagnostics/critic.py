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

Far from x a layer has fewer alternatives and walks, so that all layers together cost a time that grows with their
number and not with its square. Walks are asked for only where the middle path leaves the question "more than epsilon?"
open. Images are taken `IMAGES` at a time, each block with a key of its own, so memory does not grow with their number.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.alternatives import Block, Partners, codes_of, from_prior, of_others
from hvae.diagnostics.draws import IMAGES, Sampler
from hvae.errors import NotMeasuredError
from hvae.evidence import Evidence
from hvae.network import Decoder, Trace
from hvae.numerics import FloatArray, log_mean_exp
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, Value

N_ALTERNATIVES = 64
N_WALKS = 16
WALKED = 8
"""alternatives that are walked: walks settle whether V_l is more than epsilon, for which few serve"""
FEWEST_ALTERNATIVES, FEWEST_WALKS = 16, 2
VISITS, WALKED_VISITS = 512, 512
"""layers below z_l that all its alternatives may visit on the middle path, and on walks"""
TEMPERS = (*(2.0**-power for power in range(21)), 0.0)
"""t; at 0 the critic says nothing, and V is 0"""
DEEPEST = 10.0
"""nats below the best of the values where the critic stops: one image that it is badly wrong on costs no more"""
NUMBERS = 2**22
"""numbers of x that the decoder is asked for at once: bounds the memory"""
SURELY = 4.0
"""standard errors above epsilon where no walks are asked for: so far that the second look costs no coverage"""


@dataclass(frozen=True)
class Used:
    """What the decoder uses of one layer.

    >>> used = Used(np.array([0.5, 1.5]), cap=math.log(65), alternatives="other images")
    >>> float(used.terms.mean())
    1.0
    """

    terms: FloatArray
    """``[n]``"""
    cap: float
    """log (N + 1)"""
    alternatives: str
    """those that left less: "prior" or "other images" """


@torch.no_grad()
def decoder_use(
    sampler: Sampler, evidence: Evidence, others: Tensor | None = None, *, names: Collection[str] | None = None,
    n_alternatives: int = N_ALTERNATIVES, n_walks: int = N_WALKS, epsilon: float = math.inf,
) -> dict[str, Used]:  # fmt: skip
    """V_l of every layer, or of those among ``names``, on the first path of ``evidence``.

    ``others [m, D]`` are images that are not measured. Without them each measured one has the rest for alternatives.
    A layer with d layers below has ``max(16, min(n_alternatives, 512 // d))`` alternatives. Walks are left out where
    V_l is surely above ``epsilon`` without them.

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
    decoder = sampler.model.decoder
    numbers = {z: alternatives(decoder, z, n_alternatives) for z in evidence.latents if names is None or z in names}
    if not numbers:
        return {}
    partners = Partners.of(sampler, pool, max(numbers.values()), own)
    critics = partial(_critics, sampler, evidence, pool, partners, numbers)
    kinds = ("other images",) if sampler.model.bottom_up else ("other images", "prior")
    tried = {key: [log_c] for key, log_c in critics({name: kinds for name in numbers}, 0).items()}
    terms = {key: _terms(found, partners.counts(key)) for key, found in tried.items()}
    while True:
        left = {name: min(kinds, key=lambda kind, name=name: terms[name, kind].mean()) for name in numbers}
        walked = {
            name: (kind,)
            for name, kind in left.items()
            if len(tried[name, kind]) == 1 and _below(decoder, name) and not _surely(terms[name, kind], epsilon)
        }
        if not walked or not n_walks:
            break
        for key, log_c in critics(walked, n_walks).items():
            tried[key].append(log_c)
            terms[key] = _terms(tried[key], partners.counts(key))
    caps = {name: math.log(numbers[name] + 1) for name in numbers}
    if partners.count is not None:
        caps = {name: float(partners.count.clamp(max=n).log1p().mean()) for name, n in numbers.items()}
    return {name: Used(terms[name, kind], caps[name], kind) for name, kind in left.items()}


def alternatives(decoder: Decoder, name: str, n: int = N_ALTERNATIVES) -> int:
    """N_l: how many alternatives of a layer are tried, of ``n`` at most."""
    return min(n, max(FEWEST_ALTERNATIVES, VISITS // max(1, len(_below(decoder, name)))))


def _below(decoder: Decoder, name: str) -> list[str]:
    latents = [latent for latent in decoder.variables if latent != "x"]
    return latents[latents.index(name) + 1 :]


def _surely(terms: FloatArray, epsilon: float) -> bool:
    return len(terms) > 1 and bool(terms.mean() - SURELY * terms.std(ddof=1) / len(terms) ** 0.5 > epsilon)


def _critics(
    sampler: Sampler, evidence: Evidence, pool: Tensor, partners: Partners, numbers: Mapping[str, int],
    asked: Mapping[str, tuple[str, ...]], n_walks: int,
) -> dict[tuple[str, str], LogProb]:  # fmt: skip
    """``[N_l + 1, n]`` of each layer and kind of alternatives: by the middle path, or by walks if there are any."""
    parts: dict[tuple[str, str], list[LogProb]] = {(name, kind): [] for name in asked for kind in asked[name]}
    values = {name: site.value[:1].expand(1, sampler.n_images, -1) for name, site in evidence.q.items()}
    codes = codes_of(sampler, pool) if sampler.model.bottom_up and partners.alone is None else None
    for number, images in enumerate(torch.arange(sampler.n_images).split(IMAGES)):
        draws = {name: value[:, images] for name, value in values.items()}
        block = Block(sampler.model, sampler.x[images], sampler.seed, number, draws)
        for kind in sorted({kind for kinds in asked.values() for kind in kinds}):
            names = [name for name in asked if kind in asked[name]]
            here = partners.at(images)
            if kind == "prior":
                others: Iterable[tuple[str, Value]] = from_prior(block, {name: numbers[name] for name in names})
            elif codes is not None:
                others = ((name, codes[name][here.places]) for name in names)
            else:
                others = ((name, values) for name, values in of_others(block, pool, here).items() if name in names)
            for name, other in others:
                n = min(numbers[name], WALKED) if n_walks else numbers[name]
                found = _critic(block, name, torch.cat([draws[name], other[:n]]), n_walks)
                parts[name, kind].append(found)
    return {key: torch.cat(found, 1) for key, found in parts.items()}


def _terms(critics: list[LogProb], count: Tensor | None = None) -> FloatArray:
    """``[n]``: the best critic of each half, chosen on the other half; of the alternatives the first ``count [n]``."""
    broken = ~critics[0][0].isfinite()
    if broken.any():
        raise NotMeasuredError(
            f"The decoder's likelihood is not finite for {int(broken.sum())} of {len(broken)} data: no verdict."
        )
    tried = np.stack([_ratio(log_c, t, count) for log_c in critics for t in TEMPERS])  # [critic, n]
    n = tried.shape[1]
    halves, terms = np.arange(n) % 2, np.empty(n)
    for half in (0, 1):
        chosen = tried[:, halves != half].mean(1).argmax() if (halves != half).any() else len(TEMPERS) - 1
        terms[halves == half] = tried[chosen, halves == half]
    return terms


def _ratio(log_c: LogProb, t: float, count: Tensor | None) -> FloatArray:
    """``log c_0^t - log mean c^t`` for each image; the first row is its own."""
    scaled = t * log_c if t else torch.zeros_like(log_c)
    n = torch.full_like(scaled[0], len(scaled) - 1) if count is None else count.clamp(max=len(scaled) - 1)
    beyond = torch.arange(len(scaled), device=scaled.device).unsqueeze(1) > n
    best = scaled.masked_fill(beyond, -math.inf).amax(0)  # of those that count, so as symmetric and valid a critic
    scaled = torch.maximum(scaled, best - DEEPEST)
    found: FloatArray = (scaled[0] - scaled.masked_fill(beyond, -math.inf).logsumexp(0) + n.log1p()).cpu().numpy()
    return found


def _critic(block: Block, name: str, values: Value, n_walks: int) -> LogProb:
    """Log-likelihoods ``[N_l + 1, B]``: at the middle of the layers below, or the mean over walks through them."""
    decoder, below, like = block.model.decoder, _below(block.model.decoder, name), block.x
    specs: NoiseSpecs = {latent: (decoder.family(latent).noise, decoder.family(latent).noise_width) for latent in below}
    given = {z: draw for z, draw in block.draws.items() if z not in (*below, name)} | {"x": like.unsqueeze(0)}
    if not n_walks:
        middle = {"normal": 0.0, "uniform": 0.5}
        halfway = {
            latent: torch.full((1, len(like), width), middle[kind], dtype=like.dtype, device=like.device)
            for latent, (kind, width) in specs.items()
        }
        return _log_likelihood(decoder, given, name, values, halfway)
    n = max(FEWEST_WALKS, min(n_walks, WALKED_VISITS // (len(values) * max(1, len(below)))))
    drawn = block.noise(specs, n, "walks below")
    walks = [
        _log_likelihood(decoder, given, name, values, {latent: drawn[latent][w : w + 1] for latent in below})
        for w in range(n)
    ]
    return log_mean_exp(torch.stack(walks), 0)


def _log_likelihood(
    decoder: Decoder, given: Mapping[str, Value], name: str, values: Value, below: Mapping[str, Noise]
) -> LogProb:
    """``log p(x | z_l, z_{>l}, the layers below by their noise)``, ``[N_l + 1, B]``, float64, some rows at a time."""
    n_images, parts = values.shape[1], []
    for some in values.split(max(1, NUMBERS // (n_images * decoder.row_size))):
        trace: Trace = decoder.walk({**given, name: some}, below)
        parts.append(trace["x"].log_prob.double().expand(len(some), n_images))
    return torch.cat(parts)
