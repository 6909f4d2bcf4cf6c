"""Words and thresholds of measurements and reports; plain Python, so that reports need no torch.

The verdicts on a layer (`hvae.diagnostics.verdict`), and the words for a collapse of the encoder or of the model. The
limits from which units count as active, and importance weights as too heavy-tailed.
"""

import math

COLLAPSED = "collapsed to N(0, I)"
"""to the standard distribution: N(0, I), or fair Bernoulli and categorical units"""
CONSTANT = "collapsed to a constant"
NOISE_ONLY = "codes noise only"
UNREAD = "coded but unread"
ACTIVE = "active"
UNDECIDED = "undecided"
FAILED = "failed"
"""the replica became non-finite"""

VERDICTS = (ACTIVE, UNREAD, NOISE_ONLY, CONSTANT, COLLAPSED, UNDECIDED, FAILED)

RULE = 1
"""the number of the rule from intervals to a verdict; it is recorded with every verdict"""

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
