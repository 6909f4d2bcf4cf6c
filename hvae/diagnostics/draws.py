"""Draws for diagnostics: q-traces of n images, a function of one key, and their arrays.

Every diagnostic sees the same n images and asks for K paths through the stack per image. The images stand in random
order, so the neighbour of an image is another datum drawn at random. Images are neighbours in pairs, so that what they
share stays within a pair.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hvae.evidence import HVAE, Evidence
from hvae.exact.discrete_visits import all_states, enumerable, has_states, log_table, parameters
from hvae.families import has_closed_kl, kl
from hvae.network import Site, Trace
from hvae.numerics import FloatArray, IntArray
from hvae.rng import NoiseSpecs, noise
from hvae.shapes import LogProb, Noise

IMAGES = 64
"""images of a block, which has keys of its own"""
N_PRIOR_DRAWS = 4096
"""draws behind the prior means"""
MOST_STATES = 2**8
"""states of a layer up to which a divergence is summed over them"""


@dataclass(frozen=True)
class Sampler:
    """q of one model on the images ``x [n, D]``.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> Sampler(stack.model, stack.x, seed=0).evidence(5, "example").log_weight.shape
    torch.Size([5, 6])
    """

    model: HVAE
    x: Tensor
    seed: int

    @property
    def n_images(self) -> int:
        """n."""
        return len(self.x)

    @cached_property
    def groups(self) -> Tensor | None:
        """Labels ``[n]``, equal where data share a context; None without."""
        return self.model.groups(self.x)

    @cached_property
    def neighbours(self) -> Tensor:
        """Another datum for each, ``[n]``: the two of a pair are each other's; of three left over each has the next.

        With a context both share it; a datum that shares its context with none has itself.
        """
        return self._paired[0]

    @property
    def pairs(self) -> IntArray:
        """Labels ``[n]`` of the pairs, equal for data that are neighbours: terms of two pairs share no draw."""
        return self._paired[1]

    @cached_property
    def _paired(self) -> tuple[Tensor, IntArray]:
        places = torch.arange(self.n_images, device=self.x.device)
        groups = torch.zeros_like(places) if self.groups is None else self.groups
        order = torch.argsort(groups, stable=True)
        label = groups[order]
        first = torch.searchsorted(label, label, right=False)
        size = torch.searchsorted(label, label, right=True) - first
        rank = places - first
        start = torch.minimum(rank - rank % 2, (size - 2 - size % 2).clamp(min=0))  # of the pair, or of the three
        length = torch.where(start + 3 == size, 3, 2).minimum(size)
        found, pairs = torch.empty_like(places), torch.empty_like(places)
        found[order] = order[first + start + (rank - start + 1) % length]
        pairs[order] = first + start
        return found, pairs.cpu().numpy()

    @cached_property
    def prior_means(self) -> Mapping[str, Tensor]:
        """``E_p z_l [width]`` of every layer whose mean is a value, by one ancestral sampling of the latents."""
        decoder = self.model.decoder
        drawn = noise(
            decoder.noise_specs(), 1, N_PRIOR_DRAWS,
            seed=self.seed, purpose="prior mean", device=str(self.x.device), dtype=self.x.dtype,
        )  # fmt: skip
        sites = decoder.factors([latent for latent in decoder.variables if latent != "x"]).walk({}, drawn)
        return {
            name: torch.broadcast_to(site.mean, site.value.shape).flatten(end_dim=-2).mean(0)
            for name, site in sites.items()
            if decoder.has_mean(name)
        }

    def noise(self, n_paths: int, purpose: str, specs: NoiseSpecs | None = None) -> Mapping[str, Noise]:
        """Noise of ``n_paths`` draws per image: of ``specs``, or of a visit of the latents."""
        return noise(
            self.model.noise_specs() if specs is None else specs, n_paths, self.n_images,
            seed=self.seed, purpose=purpose, device=str(self.x.device), dtype=self.x.dtype,
        )  # fmt: skip

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """The places of the images, some at a time."""
        return tuple(torch.arange(self.n_images, device=self.x.device).split(IMAGES))

    def block_noise(self, block: int, n_paths: int, purpose: str) -> Mapping[str, Noise]:
        """Noise of a visit for one of `blocks`: an image's is the same however many images there are."""
        drawn = noise(
            self.model.noise_specs(), n_paths, IMAGES,
            seed=self.seed, purpose=f"{purpose}/{block}", device=str(self.x.device), dtype=self.x.dtype,
        )  # fmt: skip
        return {name: values[:, : len(self.blocks[block])] for name, values in drawn.items()}

    def paths(self, n_paths: int, purpose: str) -> Trace:
        """``n_paths`` visits of the latents per image."""
        return self.model.infer(self.x.unsqueeze(0), self.noise(n_paths, purpose))

    def evidence(self, n_paths: int, purpose: str) -> Evidence:
        """``n_paths`` visits per image, weighed."""
        return self.model.weigh(self.paths(n_paths, purpose), self.x.unsqueeze(0))


FEWEST_SHARING = 20
"""data that must share a context before they serve as alternatives to each other"""


@dataclass(frozen=True)
class Alternatives:
    """Which data of a mixture ``[N]`` may stand for which of ``n`` data: those of the same context.

    >>> few = Alternatives.of(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1, 1]), fewest=2)
    >>> few.count.tolist(), few.enough.tolist()
    ([2.0, 2.0, 2.0], [True, True, True])
    """

    same: Tensor
    """``[n, N]`` bool"""
    count: Tensor
    """``[n]``, float64"""
    enough: Tensor
    """``[n]`` bool: whether as many share the context as an estimate takes"""

    @staticmethod
    def of(groups: Tensor | None, mixture: Tensor | None, *, fewest: int = FEWEST_SHARING) -> "Alternatives | None":
        """None without a context, where all may stand for each other."""
        if groups is None or mixture is None:
            return None
        same = groups.unsqueeze(1) == mixture.unsqueeze(0)
        count = same.sum(1).double()
        return Alternatives(same, count, count >= fewest)

    def cap(self) -> float:
        """The most that "which of them?" can tell on average, ``E log n``; infinite where too few share a context."""
        return float(self.count.log().mean()) if bool(self.enough.all()) else math.inf


def divergence(site: Site, other: Site) -> LogProb:
    """``KL(site.distribution ‖ other.distribution)`` in closed form or by its states, else the log-ratio at the value.

    States are summed up to `MOST_STATES`. The log-ratio at the value of the two sites has the KL for its mean if the
    value was drawn from ``site.distribution``.
    """
    if has_closed_kl(site.distribution, other.distribution):
        return kl(site.distribution, other.distribution)
    if 0 < _n_states(site) == _n_states(other) <= MOST_STATES:
        states = all_states(site.family).to(site.value.device)
        log_q, log_p = (log_table(s.family, parameters(s.family, s.distribution), states) for s in (site, other))
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    return site.log_prob - other.log_prob


def _n_states(site: Site) -> int:
    """0 where they cannot be enumerated."""
    if not has_states(site.family):
        return 0
    n_units, n_classes = enumerable(site.family)
    return int(n_classes**n_units)


def per_datum(values: Tensor, n_images: int) -> FloatArray:
    """Mean over samples of ``[K, B, ...]`` in float64, as ``[..., B]``: the layout of `mean_interval`."""
    mean = values.detach().double().expand(values.shape[0], n_images, *values.shape[2:]).mean(0)
    return np.moveaxis(mean.cpu().numpy(), 0, -1)


def controlled(terms: FloatArray, control: FloatArray) -> FloatArray:
    """``terms [n]``, or ``terms - control`` where that varies less: the same mean, as ``control [n]`` has mean 0.

    It swaps a log-ratio for its divergence, best where little is carried; near the cap log n the ratio hardly moves and
    is kept. A coefficient fitted to the terms (Owen 2013, section 8.9) would be shared by all of them: where few images
    bear a code it fits these, and the interval missed the information of 5 % of 72 images one time in seven.
    """
    if not np.isfinite(terms).all():
        return terms
    less = terms - control
    return less if less.var() < terms.var() else terms
