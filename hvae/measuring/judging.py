"""What decides "active" and "collapsed": V_l, and the divergence of every image from a law that x does not move."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.arrays import epsilons
from hvae.diagnosis.sizes import Sizes
from hvae.diagnostics import laws
from hvae.diagnostics.critic import N_WALKS, Used, decoder_use
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.verdict import Found
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE, Evidence
from hvae.measuring.guard import Guard
from hvae.numerics import FloatArray, mean_interval
from hvae.vocabulary import COLLAPSED, TO_ANOTHER, TO_PRIOR, TO_STANDARD

USED = "used_nats"
FIRST_IMAGES = 128
"""images of V_l; more where these leave the threshold open"""
N_DRAWS = 4
"""draws of q for V_l in a second look"""
SEEDS_APART = 104_729
"""between the seeds of two of these draws"""
MOST_OTHERS = 256
"""images beside them whose codes are alternatives"""


@dataclass(frozen=True)
class Judged:
    """One layer: what is known of its verdict by V_l and the share of images.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sampler = Sampler(stack.model, stack.x, seed=0)
    >>> judge(sampler, sampler.evidence(4, "example"), Sizes(n_alternatives=4), None, Guard())["z1"].found.n_images
    6
    """

    found: Found
    cap: float
    """the most that V_l could say; NaN where it was not measured"""
    moved: bool
    """whether images move it: it has not collapsed"""

    @property
    def used(self) -> FloatArray:
        """V_l as (low, middle, high)."""
        return self.found.used


@torch.no_grad()
def judge(
    sampler: Sampler, evidence: Evidence, sizes: Sizes, rest: Tensor | None, guard: Guard
) -> dict[str, Judged]:  # fmt: skip
    """Every layer. ``rest`` are images beside the measured ones, whose codes are the alternatives of V_l."""
    names, n = list(sampler.model.latents), sampler.n_images
    if guard.measured([USED], names, partial(_check_likelihood, evidence)) is None:
        return {name: Judged(Found(0), np.nan, moved=False) for name in names}
    apart = _divergences(sampler, evidence, sizes.epsilon_nats)
    moved = [name for name in names if not _collapsed(n, apart[name], sizes.epsilon_nats)]
    used = _used(sampler.model, sampler.x, sizes, rest, guard, moved)
    nothing = np.full(3, np.nan), np.nan
    return {
        name: Judged(
            Found(n, used=interval, divergences=apart[name], by_x_alone=not sampler.model.bottom_up), cap, name in moved
        )
        for name, (interval, cap) in ((name, used.get(name, nothing)) for name in names)
    }


def sure_words(model: HVAE, x: Tensor, rest: Tensor | None, sizes: Sizes) -> dict[str, tuple[str, ...]]:
    """Layer -> its verdict at each threshold, by V_l and the share of images alone: active, collapsed or undecided.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sure_words(stack.model, stack.x, None, Sizes(n_paths=2))["z1"]
    ('undecided', 'undecided', 'undecided')
    """
    sampler = Sampler(model, x, sizes.seed)
    judged = judge(sampler, sampler.evidence(sizes.n_paths, "diagnostics"), sizes, rest, Guard())
    return {
        name: tuple(layer.found.verdict(epsilon) for epsilon in epsilons(sizes.epsilon_nats))
        for name, layer in judged.items()
    }


def _check_likelihood(evidence: Evidence) -> bool:
    """Whether the decoder's likelihood is a number on every datum. Raises `NotMeasuredError`."""
    broken = int((~evidence.distortion.isfinite()).any(0).sum())
    if broken:
        n = evidence.distortion.shape[1]
        raise NotMeasuredError(
            f"The decoder's likelihood is not finite for {broken} of {n} data, so there is no verdict."
        )
    return True


def _used(
    model: HVAE, x: Tensor, sizes: Sizes, rest: Tensor | None, guard: Guard, moved: Sequence[str]
) -> dict[str, tuple[FloatArray, float]]:  # fmt: skip
    """V_l by the middle path on the first `FIRST_IMAGES`, and its cap.

    A layer that x moves, and that this leaves open, is looked at once more on all images: by the mean of `N_DRAWS`
    draws of q where the middle path sees anything of it, else by walks. Two throws share the 5 %.
    """
    others = None if rest is None else rest[:MOST_OTHERS]
    sizes_of = partial(decoder_use, n_alternatives=sizes.n_alternatives, epsilon=sizes.epsilon_nats)

    def look(names: Sequence[str], n: int, n_walks: int, draw: int = 0) -> dict[str, Used]:
        sampler = Sampler(model, x[:n], sizes.seed + draw * SEEDS_APART)
        use = partial(sizes_of, sampler, sampler.evidence(1, "use"), others, names=names, n_walks=n_walks)
        return (guard.measured([USED], list(names), use) or {}) if names else {}

    found = look(model.latents, min(FIRST_IMAGES, len(x)), 0)
    ends = {name: mean_interval(used.terms, level=0.975) for name, used in found.items()}
    left = [name for name in moved if name in ends and not ends[name][0] > sizes.epsilon_nats]
    seen = [name for name in left if ends[name][1] > sizes.epsilon_nats / 4]
    again = [look(seen, len(x), 0, draw) for draw in range(N_DRAWS)] if seen else []
    walked = look([name for name in left if name not in seen], len(x), N_WALKS // 2)
    for name in left:
        looks = [each[name] for each in (*again, walked) if name in each]
        if looks:
            terms = np.mean([used.terms for used in looks], axis=0)
            found[name], ends[name] = looks[0], mean_interval(terms, level=0.975)
    return {name: (ends[name], found[name].cap) for name in found}


def _divergences(sampler: Sampler, evidence: Evidence, epsilon: float) -> dict[str, dict[str, FloatArray]]:
    """Layer -> phrase of collapse -> the divergence of every image from its law.

    Another law is looked for where neither the prior nor N(0, I) is one.
    """
    found: dict[str, dict[str, FloatArray]] = {}
    for name in evidence.latents:
        laws_of = {
            TO_STANDARD: laws.from_standard(evidence, name), TO_PRIOR: laws.from_prior(sampler.model, evidence, name)
        }  # fmt: skip
        found[name] = {law: terms for law, terms in laws_of.items() if terms is not None}
    left = [name for name in found if not _collapsed(sampler.n_images, found[name], epsilon)]
    for name, terms in laws.from_another(sampler, evidence, left).items():
        found[name][TO_ANOTHER] = terms
    return found


def _collapsed(n_images: int, divergences: Mapping[str, FloatArray], epsilon: float) -> bool:
    return Found(n_images, divergences=divergences).verdict(epsilon) in COLLAPSED
