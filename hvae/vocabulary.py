"""Words and thresholds of measurements and reports; plain Python, so that reports need no torch.

The verdicts on a layer (`hvae.diagnostics.verdict`), and the words for a collapse of the encoder or of the model. The
limits from which units count as active, and importance weights as too heavy-tailed.
"""

import math

TO_PRIOR = "collapsed to its prior"
TO_STANDARD = "collapsed to N(0, I)"
"""to the standard distribution: N(0, I), or fair Bernoulli and categorical units"""
TO_ANOTHER = "collapsed to another distribution"
"""to a distribution that x does not move, neither its prior nor the standard one"""
FORMER = {"collapsed to another law": TO_ANOTHER}
"""words of older files, and how they are said now"""
COLLAPSED = (TO_PRIOR, TO_STANDARD, TO_ANOTHER)
NOISE_ONLY = "codes noise only"
UNREAD = "coded but unread"
WEAK = "weakly coded"
"""images move the layer, and yet it says less of them than the threshold, on average"""
ACTIVE = "active"
UNDECIDED = "undecided"
FAILED = "failed"
"""the replica became non-finite"""
TO_A_CONSTANT = "collapsed to a constant"
"""what rule 1 said of a layer that had left N(0, I), its own prior or not"""

VERDICTS = (ACTIVE, UNREAD, NOISE_ONLY, WEAK, *COLLAPSED, UNDECIDED, FAILED)

FIRST_RULE = 1
"""of measurements that record none"""
RULE = 3
"""the number of the rule from measurements to a verdict (`hvae.diagnostics.verdict`); it is recorded with every verdict

1: by J, I and the use U, means in nats; no number of images too small.
2: active by what the decoder uses (V), collapsed by the share of images: to its prior, N(0, I) or another distribution.
3: as 2, with a word for layers that more images would never have decided: weakly coded.
"""

FEWEST_IMAGES = 20
"""below this there is no verdict: 20 of 20 images only say that a share is above 83 %"""
RARE_SHARE = 0.05
"""a layer has collapsed if the share of images that move it is surely below this"""
FEWEST_FOR_ABSENCE = 72
"""images from which "none of them" makes a share surely below `RARE_SHARE`: 1 - 0.025^(1/72) < 0.05"""

FEWEST_FOR_SMALL = 144
"""images from which "codes noise only" and "weakly coded" may be said, as they rest on a small mean: where 5 % of
images bear a code, an I just above 0.1 nats seemed surely below in 5.8 % of 400 samples of 72 images, in 3.8 % of 100
and 1.0 % of 144 (experiment `truth`)"""

TOO_FEW, BELOW_FLOOR, NOT_SETTLED = "too few images", "below the floor", "not settled"
"""marks that stand beside a verdict, and are none"""
BELOW_FLOOR_NATS = 0.01
"""a column: how far log p(x) of most images lies below independent columns (`hvae.likelihood.floor`) for the mark; on
MNIST 7.8 nats, where a collapsed stack with logits that are off by a deviation of 0.3 lies 3.6 nats below"""

ACTIVE_VARIANCE = 0.01
"""a unit is active if the variance of its mean over data exceeds this (Burda et al. 2016, section 5.2)"""

ACTIVE_SHARE = 0.01
"""a unit is in use if the image decides more than this share of its distribution (`hvae.diagnostics.collapse`); for a
variance of 1 over all images, which the prior wants of a top layer, the share is the variance of Burda et al."""

ENCODER_COLLAPSE = "collapse of the encoder"
MODEL_COLLAPSE = "collapse of the model"
ENCODER_ALONE = "used by the encoder alone"
IN_USE = "in use"
LOSES, ADDS = f"{IN_USE}, encoder loses units", f"{IN_USE}, encoder adds units"

PARETO_K_LIMIT = 0.7
FEWEST_SAMPLES = 25
"""below this the tail of the weights has fewer than 5 draws, and k-hat is not computed"""


def good_k(n_samples: int) -> float:
    """The largest Pareto k-hat that K samples can carry: min(1 - 1/log10 K, 0.7) (Vehtari et al. 2024)."""
    return min(1 - 1 / math.log10(n_samples), PARETO_K_LIMIT) if n_samples > 1 else 0.0


LAST_PART = 0.1
FEWEST_STEPS = 10
"""a replica that skipped the last part of all steps, each of them and no fewer than these, is said to stand still"""


def skips(n_skipped: int, in_a_row: int, n_steps: int) -> str:
    """What a replica skipped of the steps so far, ``in_a_row`` of them the last ones, as the predicate of a sentence.

    >>> skips(3, 1, 100)
    'skipped 3 of 100 steps, as its gradient was larger than skip_norm'
    >>> skips(60, 40, 100)
    'skipped 60 of 100 steps, as its gradient was larger than skip_norm, the last 40 among them, so it stands still \
since step 60: give a larger skip_norm, or a smaller learning rate'
    """
    said = f"skipped {n_skipped} of {n_steps} steps, as its gradient was larger than skip_norm"
    if in_a_row < max(FEWEST_STEPS, LAST_PART * n_steps):
        return said
    return (
        f"{said}, the last {in_a_row} among them, so it stands still since step {n_steps - in_a_row}: give a larger "
        "skip_norm, or a smaller learning rate"
    )
