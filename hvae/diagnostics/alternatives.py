"""Alternatives of z_l for `hvae.diagnostics.critic`: draws of p, and of q for other images, some images at a time.

A block of images has noise of its own, so what is drawn for an image does not depend on how many others there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hvae.diagnostics.draws import IMAGES, Sampler
from hvae.evidence import HVAE
from hvae.rng import NoiseSpecs, noise, permutation
from hvae.shapes import Noise, Value


@dataclass(frozen=True)
class Partners:
    """The other images of each datum: a run of neighbours, never the datum itself, none twice.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> Partners.of(Sampler(stack.model, stack.x[:4], seed=0), stack.x[:4], 2, own=True).places.tolist()
    [[1, 2, 3, 0], [2, 3, 0, 1]]
    """

    places: Tensor
    """``[N, B]``"""
    count: Tensor | None
    """``[B]`` how many of the N are of the same context, where there is one; the first so many"""
    alone: Tensor | None
    """``[B]`` bool, data that share their context with no other"""

    def at(self, images: Tensor) -> "Partners":
        """Those of some of the data."""
        count, alone = (None if part is None else part[images] for part in (self.count, self.alone))
        return Partners(self.places[:, images], count, alone if alone is not None and alone.any() else None)

    def counts(self, key: tuple[str, str]) -> Tensor | None:
        """How many alternatives of a layer and a kind count, where that differs between data."""
        return self.count if key[1] == "other images" else None

    @staticmethod
    def of(sampler: Sampler, pool: Tensor, n: int, own: bool) -> "Partners":
        n_images, device = sampler.n_images, sampler.x.device
        run, each = torch.arange(n, device=device).unsqueeze(1), torch.arange(n_images, device=device)
        groups = sampler.groups if own else sampler.model.groups(torch.cat([sampler.x, pool]))
        if groups is None and own:
            return Partners((each + 1 + run) % n_images, None, None)
        order = permutation(len(pool), seed=sampler.seed, purpose="partners", device=str(device))
        if groups is None:
            return Partners(order[(each * 7919 + run) % len(pool)], None, None)
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
        return Partners(places, torch.where(alone, n, counts), alone if alone.any() else None)


@dataclass(frozen=True)
class Block:
    """Some of the images, with noise of their own.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> few, more = (Block(stack.model, stack.x[:n], 0, 0, {}).noise({"z1": ("normal", 2)}, 3, "") for n in (2, 5))
    >>> torch.equal(few["z1"], more["z1"][:, :2])
    True
    """

    model: HVAE
    x: Tensor
    seed: int
    number: int
    draws: Mapping[str, Value]
    """``[1, B, D]``: z of q"""

    def noise(self, specs: NoiseSpecs, n: int, purpose: str) -> Mapping[str, Noise]:
        """``[n, B, width]``, the same whatever images are in the block beside them."""
        found = _noise(self, specs, n, max(IMAGES, len(self.x)), f"{purpose}/{self.number}")
        return {name: numbers[:, : len(self.x)] for name, numbers in found.items()}


def from_prior(block: Block, numbers: Mapping[str, int]) -> Iterator[tuple[str, Value]]:
    """Draws ``[N_l, B, D]`` of p(z_l | z_{>l}) at the layers above as they were drawn."""
    sites = block.model.decoder.walk({**block.draws, "x": block.x.unsqueeze(0)}, {})
    for name, n in numbers.items():
        family = sites[name].family
        specs: NoiseSpecs = {name: (family.noise, family.noise_width)}
        yield name, family.draw(sites[name].distribution, block.noise(specs, n, "alternatives of p")[name])


def codes_of(sampler: Sampler, pool: Tensor) -> dict[str, Tensor]:
    """A draw ``[m, D]`` of every layer for each other image, where z1 is visited first."""
    trace = sampler.model.infer(
        pool.unsqueeze(0), _noise(sampler, sampler.model.noise_specs(), 1, len(pool), "other images")
    )
    return {name: site.value.expand(1, len(pool), -1)[0] for name, site in trace.items()}


def of_others(block: Block, pool: Tensor, partners: Partners) -> dict[str, Value]:
    """Draws ``[N, B, D]`` of every layer for other images, with the layers that q visits before it as they were.

    A datum that shares its context with no other has images that the decoder draws in that context.
    """
    model, n, draws = block.model, len(partners.places), block.draws
    kept = {} if model.bottom_up else dict(draws)
    noises = block.noise(model.noise_specs(), n, "alternatives of q")
    found = drawn_at(model, pool[partners.places], kept, noises)
    if partners.alone is not None:
        alone = partners.alone
        kept = {name: values[:, alone] for name, values in draws.items()}
        for name in model.posterior.order:  # the layers that q visits before it are kept, and those only
            before = {} if model.bottom_up else _before(model, kept, name)
            of_p = block.noise(model.decoder.noise_specs(), n, "images of p")
            x = model.redrawn(block.x[alone].unsqueeze(0), before, {v: e[:, alone] for v, e in of_p.items()})
            code = drawn_at(model, x, before, {v: e[:, alone] for v, e in noises.items()})[name]
            found[name] = found[name].clone()
            found[name][:, alone] = code
            model.forget()
    return found


NUMBERS = 2**24
"""of the widest layer, in a walk for other images"""


def _before(model: HVAE, values: Mapping[str, Value], name: str) -> dict[str, Value]:
    order = model.posterior.order
    return {latent: values[latent] for latent in order[: order.index(name)]}


def drawn_at(model: HVAE, x: Value, kept: Mapping[str, Value], noises: Mapping[str, Noise]) -> dict[str, Value]:
    """A draw of every layer at the layers that ``kept`` has; the kept ones are drawn anew, not returned.

    Of wide decoders some of ``x [N, B, D]`` are walked at a time; ``kept`` are ``[1, B, D]``.
    """
    n, at_once = len(next(iter(noises.values()))), max(1, NUMBERS // (x.shape[1] * model.decoder.row_size))
    parts = []
    for start in range(0, n, at_once):
        some = slice(start, start + at_once)
        numbers = {name: noise[some] for name, noise in noises.items()}
        fresh = {name: noise for name, noise in numbers.items() if name not in kept}
        trace = model.infer(x if len(x) == 1 else x[some], fresh, kept)
        parts.append(
            {
                name: site.family.draw(site.distribution, numbers[name]) if name in kept else site.value
                for name, site in trace.items()
            }
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _noise(sampler: "Sampler | Block", specs: NoiseSpecs, n: int, n_data: int, purpose: str) -> Mapping[str, Noise]:
    x = sampler.x
    return noise(specs, n, n_data, seed=sampler.seed, purpose=purpose, device=str(x.device), dtype=x.dtype)
