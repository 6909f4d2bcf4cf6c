"""The verdict on a layer: the sure statement at a threshold epsilon, in one phrase. Rule 3.

    active              V_l surely > epsilon, from `FEWEST_IMAGES` images on
    collapsed …         the share of images with d_i > epsilon surely below `RARE_SHARE`: from `FEWEST_FOR_ABSENCE` on
      … to its prior      d_i is the divergence from it; bottom-up below the top M_l surely < epsilon
      … to N(0, I)        d_i is the divergence from it
      … to another distribution    d_i is the divergence from a law of its own
    codes noise only    I_l surely < epsilon, J_l surely > epsilon, from `FEWEST_FOR_SMALL` images on
    weakly coded        I_l surely < epsilon, the share of images surely above `RARE_SHARE`, from as many
    coded but unread    coded, and U_l or U_x surely < epsilon
    undecided           the rest

in this order. V_l is what the decoder uses of z_l (`hvae.diagnostics.critic`), a lower bound; d_i the divergence of
image i from a law that x does not move (`hvae.diagnostics.laws`); J_l the information from the parent, I_l that about
the datum (`hvae.diagnostics.information`). Two upper bounds are U_l, how far the layer below moves with z_l
(`hvae.diagnostics.usage`), and U_x, what of the image comes back from it (`hvae.diagnostics.redrawn`). Of its prior
and N(0, I) the nearer is named where both hold. "Surely" means that the whole interval lies on one side; of a share it
is that of Clopper and Pearson (`hvae.certain`), which holds for every law of d.

Coded means I_l surely > epsilon; top-down, where at the layers above x alone moves z_l, also that surely more than
`RARE_SHARE` of images move it: I_l has no lower end below layers that tell the images apart.

Collapsed is said of a share and weakly coded of a mean, so that a layer below epsilon on average has a word whatever
its share is: such a layer no number of images would decide by the share alone.

Unread is a statement of absence by a mean, so it waits for as many images as a collapse. Noise only and weakly coded,
where the mean itself is small, wait for `FEWEST_FOR_SMALL`. A code of a few images may make a layer active that says
nothing of the rest: active comes first, and the share stands beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hvae.certain import share_above
from hvae.numerics import FloatArray
from hvae.vocabulary import (
    ACTIVE,
    FEWEST_FOR_ABSENCE,
    FEWEST_FOR_SMALL,
    FEWEST_IMAGES,
    NOISE_ONLY,
    RARE_SHARE,
    TO_ANOTHER,
    TO_PRIOR,
    TO_STANDARD,
    TOO_FEW,
    UNDECIDED,
    UNREAD,
    WEAK,
)


def _unknown() -> FloatArray:
    return np.full(3, np.nan)


@dataclass(frozen=True)
class Found:
    """What was found of a layer. An interval is (low, middle, high), NaN where it was not measured. Nats.

    >>> dead = np.zeros(100)
    >>> found = Found(100, divergences={"collapsed to its prior": dead})
    >>> found.verdict(0.1), found.moved_share(0.1).round(3).tolist()
    ('collapsed to its prior', [0.0, 0.0, 0.036])
    """

    n_images: int
    used: FloatArray = field(default_factory=_unknown)
    """V_l"""
    from_parent: FloatArray = field(default_factory=_unknown)
    """J_l"""
    about_datum: FloatArray = field(default_factory=_unknown)
    """I_l"""
    read: FloatArray = field(default_factory=_unknown)
    """U_l"""
    comes_back: FloatArray = field(default_factory=_unknown)
    """U_x of the layer"""
    from_prior: FloatArray = field(default_factory=_unknown)
    """M_l"""
    by_x_alone: bool = False
    """whether x alone moves the layer at what q drew before it: top-down"""
    divergences: Mapping[str, FloatArray] = field(default_factory=dict)
    """a phrase of collapse -> d_i ``[n]`` from its law"""

    def verdict(self, epsilon: float) -> str:
        """The phrase of `hvae.vocabulary`."""
        if self.n_images < FEWEST_IMAGES:
            return UNDECIDED
        if self.used[0] > epsilon:
            return ACTIVE
        if self.moved_share(epsilon)[2] < RARE_SHARE:
            return self._law(epsilon)
        if self.n_images < FEWEST_FOR_ABSENCE:
            return UNDECIDED
        if small := self._small(epsilon):
            return small if self.n_images >= FEWEST_FOR_SMALL else UNDECIDED
        if self.coded(epsilon) and (self.read[2] < epsilon or self.comes_back[2] < epsilon):
            return UNREAD
        return UNDECIDED

    def coded(self, epsilon: float) -> bool:
        """Whether the layer surely says something of the image."""
        moved = self.by_x_alone and self.moved_share(epsilon)[0] > RARE_SHARE
        return bool(self.about_datum[0] > epsilon or moved)

    def moved_share(self, epsilon: float) -> FloatArray:
        """(low, middle, high) of the share of images with d_i > epsilon, from the law that leaves the fewest."""
        counts = [self._n_moved(law, epsilon) for law in self.divergences]
        return np.array(share_above(min(counts), self.n_images)) if counts else np.array([0.0, np.nan, 1.0])

    def mark(self, epsilon: float) -> str:
        """What stands beside the verdict: too few images, where more of them might decide."""
        needed = FEWEST_IMAGES
        if self.verdict(epsilon) == UNDECIDED:
            needed = FEWEST_FOR_SMALL if self._small(epsilon) else FEWEST_FOR_ABSENCE
        return TOO_FEW if self.n_images < needed else ""

    def _small(self, epsilon: float) -> str:
        """The word for a layer that says surely less than epsilon of the image, on average; or empty."""
        if not self.about_datum[2] < epsilon:
            return ""
        if self.from_parent[0] > epsilon:
            return NOISE_ONLY
        return WEAK if self.moved_share(epsilon)[0] > RARE_SHARE else ""

    def _n_moved(self, law: str, epsilon: float) -> int:
        return int((~(self.divergences[law] <= epsilon)).sum())  # nan counts as moved

    def _law(self, epsilon: float) -> str:
        """Of its prior and N(0, I) the nearer one that holds; N(0, I) where the prior is just that."""
        near: dict[str, float] = {}
        for law in (TO_STANDARD, TO_PRIOR):
            terms = self.divergences.get(law)
            if terms is not None and share_above(self._n_moved(law, epsilon), self.n_images)[2] < RARE_SHARE:
                near[law] = float(np.median(terms))
        if TO_PRIOR not in self.divergences and self.from_prior[2] < epsilon:
            near[TO_PRIOR] = float(self.from_prior[1])
        return min(near, key=lambda law: near[law] - ROUNDING * (law == TO_STANDARD)) if near else TO_ANOTHER


ROUNDING = 1e-6
"""nats by which a prior that is N(0, I) may seem nearer than that"""
