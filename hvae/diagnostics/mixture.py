"""q(z_l) as a mixture over sampled paths, which come in blocks: log-sums of scores, and their bounds, nats.

What is kept is ``[n, n]`` and ``[n, D]`` a layer, whatever the number M of paths. The docstring of
`hvae.diagnostics.nested` says why the bounds hold.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics.draws import Alternatives, controlled
from hvae.families import kl
from hvae.network import Site
from hvae.numerics import FloatArray

PAIRS = 2**18
"""pairs of a draw and a distribution that are scored at once: bounds the memory"""


@dataclass(frozen=True)
class Bounds:
    """Terms ``[n]`` of each bound: one draw an image.

    >>> nothing = np.zeros(5)
    >>> Bounds(nothing, nothing, None, nothing, nothing, nothing).datum_lower.shape
    (5,)
    """

    parent_lower: FloatArray
    parent_upper: FloatArray
    divergence: FloatArray | None
    """KL to the moment match, a second upper bound on J_l; None for distributions without a match"""
    datum_lower: FloatArray
    datum_upper: FloatArray
    classified: FloatArray
    """the classifier's lower bound on I_l"""


class Mixture:
    """The mixtures of all images over their paths, scored at the first draw of each image.

    >>> from hvae.diagnostics.draws import Sampler
    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> with torch.no_grad():
    ...     site = Sampler(stack.model, stack.x, seed=0).paths(8, "example")["z2"]
    >>> mixture = Mixture(site)
    >>> mixture.add(site, torch.arange(6))
    >>> mixture.n_paths, mixture.bounds().datum_lower.shape
    (8, (6,))
    """

    def __init__(self, first: Site) -> None:
        """Some paths of every image ``[F, n, D]``: the first draws are judged, r is matched to the distributions."""
        self.draws = first.value[0]
        n, width = self.draws.shape
        like = torch.zeros(n, dtype=torch.float64, device=self.draws.device)
        self._seen = torch.zeros(n, dtype=torch.long)
        self._images = like.new_full((n, n), -math.inf)  # the own path missing from the own image
        self._own, self._far = like.clone(), like.clone()
        self._moments = like.new_zeros(3, n, width)  # sums over the other paths: of means, squares and variances
        self._match = first.family.match(first.distribution) if first.family.exponential else None
        self._first = first

    @property
    def n_paths(self) -> int:
        """M, of every image."""
        return int(self._seen.min())

    def add(self, site: Site, images: Tensor) -> None:
        """Further paths ``[M, b, D]`` of some images; the first ones of an image begin with its first draw."""
        n_paths, n_images = site.value.shape[:2]
        score, begins = scorer(site), int(self._seen[images[0]]) == 0
        for rows in torch.arange(len(self.draws)).split(max(1, PAIRS // (n_paths * n_images))):
            scores = score(self.draws[rows])  # [r, M, b]
            if begins:
                here = (images.unsqueeze(0) == rows.unsqueeze(1)).nonzero()
                self._own[rows[here[:, 0]]] = scores[here[:, 0], 0, here[:, 1]]
                scores[here[:, 0], 0, here[:, 1]] = -math.inf
            place = rows.unsqueeze(1), images.unsqueeze(0)
            self._images[place] = torch.logaddexp(self._images[place], scores.logsumexp(1))
        if self._match is not None:
            self._far[images] += kl(site.distribution, self._match).double().expand(n_paths, n_images).sum(0)
        q, others = site.distribution, slice(1 if begins else 0, None)
        mean, variance = (q.mean, q.variance) if site.family.exponential else (site.value, site.value * 0)
        mean, variance = (part.double().reshape(site.value.shape)[others] for part in (mean, variance))
        self._moments[:, images] += torch.stack([mean.sum(0), mean.square().sum(0), variance.sum(0)])
        self._seen[images] += n_paths

    def bounds(self, others: Alternatives | None = None) -> Bounds:
        """All bounds, for the first draw of every image against all M·n parents; with a context those that share it."""
        n, n_paths = len(self.draws), self.n_paths
        log_n, image = among(self._images, others)
        rest = image.diagonal()
        image_without = rest - math.log(n_paths - 1)
        image_with = torch.logaddexp(rest, self._own) - math.log(n_paths)
        rest_of_all = image.clone().fill_diagonal_(-math.inf).logsumexp(-1) - math.log(n_paths)
        all_with = torch.logaddexp(rest_of_all, image_with) - log_n
        all_without = torch.logaddexp(rest_of_all, image_without) - log_n
        chance = control(self._first, self._match, self._own)
        far = None if self._match is None else _array(self._far / n_paths)
        above = np.full(n, np.inf) if far is None else far
        enough = np.ones(n, dtype=bool) if others is None else others.enough.cpu().numpy()

        def terms(ratio: Tensor, otherwise: FloatArray | float = 0.0) -> FloatArray:
            return np.where(enough, controlled(_array(ratio), chance), otherwise)

        return Bounds(
            parent_lower=terms(self._own - all_with),
            parent_upper=terms(self._own - all_without, above),
            divergence=far,
            datum_lower=terms(image_without - all_with),
            datum_upper=terms(image_with - all_without, above),
            classified=np.where(enough, self.classified(others), 0.0),
        )

    def classified(self, others: Alternatives | None = None) -> FloatArray:
        """``log n + log r(i | z)``: Gaussians fitted to paths 1 … M-1 of each image, the draws of path 0 told apart."""
        mean, square, variance = self._moments / (self.n_paths - 1)
        within = variance.mean(0) + (square - mean.square()).clamp(min=0).mean(0)
        white = (within + 1e-12).rsqrt()
        squares = torch.cdist(self.draws.double() * white, mean * white).square()  # [n draws, n images]
        log_n, scores = among(-squares / 2, others)
        return _array(-squares.diagonal() / 2 - scores.logsumexp(-1) + log_n)


def bounds_of(site: Site, others: Alternatives | None = None) -> Bounds:
    """`Mixture.bounds` of paths ``[M, n, D]`` at hand."""
    mixture = Mixture(site)
    mixture.add(site, torch.arange(site.value.shape[1]))
    return mixture.bounds(others)


def among(scores: Tensor, others: Alternatives | None) -> tuple[Tensor | float, Tensor]:
    """The log of how many alternatives each of n data has, and the scores ``[n, n]`` with all others at -inf."""
    if others is None:
        return math.log(len(scores)), scores
    return others.count.to(scores.device).log(), scores.masked_fill(~others.same.to(scores.device), -math.inf)


def scorer(site: Site) -> Callable[[Tensor], Tensor]:
    """``values [r, width]`` -> scores as of `scores_under` under all parents: ``[r, M, n]`` or ``[r, 1, n]``."""
    if site.family.exponential:
        natural = site.family.natural(site.distribution)
        return lambda values: scores_under(site, values, natural)
    n_distributions = site.distribution.batch_shape.numel()

    def log_probs(values: Tensor) -> Tensor:
        parts = values.unsqueeze(1).unsqueeze(1).split(max(1, PAIRS // n_distributions))
        return torch.cat([site.family.log_prob(site.distribution, part).double() for part in parts])

    return log_probs


def scores_under(site: Site, values: Tensor, natural: tuple[Tensor, Tensor]) -> Tensor:
    """Log-densities ``[r, *batch]`` of ``values [r, width]`` under a batch, up to a term of the value alone."""
    eta, log_normaliser = natural
    statistic = site.family.statistic(values.double())
    scores = statistic @ eta.double().reshape(-1, eta.shape[-1]).T - log_normaliser.double().flatten()
    return scores.reshape(len(values), *log_normaliser.shape)


def control(first: Site, match: torch.distributions.Distribution | None, own: Tensor) -> FloatArray:
    """``log q(z | parent) - log r(z) - KL(q(z | parent) ‖ r)`` of the first draws, of mean 0: ``[n]``.

    It is 0 where distributions have no match.
    """
    if match is None:
        return np.zeros(len(own))
    score = scores_under(first, first.value[0], first.family.natural(match))
    return _array(own - score - kl(first.distribution, match)[0].double())


def _array(values: Tensor) -> FloatArray:
    found: FloatArray = values.cpu().numpy()
    return found
