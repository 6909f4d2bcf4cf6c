"""Whether anything of the image comes back, as an upper bound on I(x; x~ | z_{>l}), x~ drawn from z_l. Nats.

U_l holds what the decoder reads of a layer's noise. Here x~ ~ p(x | z_{>=l}), with z_l of q at image x_i and z_{<l} of
p, so noise that is read comes back as noise. For paths w = z_{<=l} of image i at the layers above as they were drawn,
and paths of other images at the same layers above,

    U_x = E log [1/M Σ_m p(x~ | w_im)] / [1/N Σ_j p(x~ | w_j)],    x~ ~ p(x | w_i1).

The own path is kept in the first mean and makes its log too large in expectation. The second mean estimates a law r
that x does not move, and its log comes out too small (Jensen). ``E KL(p(x~ | z_{>l}, x) ‖ r)`` is at least the
information, so U_x is an upper bound. How much it is too high falls with M and N only once they exceed the exponential
of what x~ tells of its own path: 256 paths serve for about 3 nats of noise that is read, 100 images are enough to say
"surely below 0.1" then, and with more noise U_x is large and says nothing.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hvae.diagnostics.alternatives import Block, Partners, codes_of, drawn_at, of_others
from hvae.diagnostics.draws import Sampler
from hvae.evidence import Evidence
from hvae.network import Decoder
from hvae.numerics import FloatArray
from hvae.shapes import Value

N_PATHS = 256
"""M and N"""
ROWS, NUMBERS = 2**13, 2**23
"""rows of the decoder that are asked for at once: bounds the memory"""


@torch.no_grad()
def redrawn_information(
    sampler: Sampler, evidence: Evidence, names: Sequence[str], others: Tensor | None = None, *, n_paths: int = N_PATHS
) -> dict[str, FloatArray]:
    """Terms ``[n]`` of U_x for some layers; ``others [m, D]`` are images that are not measured, or else the rest.

    The layers share two walks of q. Raises `NotMeasuredError` where x that was drawn cannot be scored.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sampler = Sampler(stack.model, stack.x[:4], seed=0)
    >>> redrawn_information(sampler, sampler.evidence(1, "use"), ["z2"], stack.x[4:], n_paths=8)["z2"].shape
    (4,)
    """
    model, decoder = sampler.model, sampler.model.decoder
    pool = sampler.x if others is None or not len(others) else others
    own = pool is sampler.x
    partners = Partners.of(sampler, pool, min(n_paths, len(pool) - own), own=own)
    codes = codes_of(sampler, pool) if model.bottom_up and partners.alone is None else None
    values = {z: site.value[:1].expand(1, sampler.n_images, -1) for z, site in evidence.q.items()}
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for number, images in enumerate(sampler.blocks):
        block = Block(
            model, sampler.x[images], sampler.seed, number, {z: value[:, images] for z, value in values.items()}
        )
        here = partners.at(images)
        of_own = _own(block, n_paths)
        if codes is None:
            of_other = of_others(block, pool, here)
        else:
            of_other = {name: codes[name][here.places] for name in names}
        for name in names:
            found[name].append(_ratio(block, decoder, name, torch.cat([of_own[name], of_other[name]]), n_paths))
    return {name: torch.cat(terms).cpu().numpy() for name, terms in found.items()}


def _own(block: Block, n_paths: int) -> dict[str, Value]:
    """Draws ``[M, B, D]`` of every layer for the own images; the first is that of q.

    Top-down at the layers above as they were drawn. Where z1 is visited first, at layers below that are drawn anew.
    """
    model = block.model
    kept = {} if model.bottom_up else dict(block.draws)
    noises = block.noise(model.noise_specs(), n_paths, "redrawn paths")
    drawn = drawn_at(model, block.x.unsqueeze(0), kept, noises)
    found = {name: value.expand(n_paths, len(block.x), -1) for name, value in drawn.items()}
    return {name: torch.cat([block.draws[name], value[1:]]) for name, value in found.items()}


def _ratio(block: Block, decoder: Decoder, name: str, tried: Value, n_paths: int) -> Tensor:
    """``[B]``: x~ of the first path, scored under the paths of its own image and those of others."""
    latents = [z for z in decoder.variables if z != "x"]
    above = latents[: latents.index(name)]
    every = decoder.noise_specs()
    specs = {z: every[z] for z in latents if z not in above and z != name}
    noise = block.noise(specs, len(tried), "redrawn walks")
    kept = {z: block.draws[z] for z in above}
    of_x = block.noise({"x": every["x"]}, 1, "redrawn x")
    first = {**{z: numbers[:1] for z, numbers in noise.items()}, **of_x}
    again = block.model.redrawn(block.x.unsqueeze(0), {**kept, name: tried[:1]}, first)
    try:
        scores = []
        for rows in torch.arange(len(tried)).split(max(1, min(ROWS, NUMBERS // decoder.row_size) // len(block.x))):
            below = {z: noise[z][rows] for z in specs}
            trace = decoder.walk({**kept, name: tried[rows], "x": again}, below)
            scores.append(trace["x"].log_prob.double().expand(len(rows), len(block.x)))
    finally:
        block.model.forget()
    own, other = torch.cat(scores).tensor_split([n_paths])
    return own.logsumexp(0) - other.logsumexp(0) + math.log(len(other) / n_paths)
