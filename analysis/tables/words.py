"""What verdicts and quantities are called on a page, and what they mean."""

from collections.abc import Mapping

from hvae.diagnosis.layer import NOT_MEASURED
from hvae.vocabulary import (
    ACTIVE,
    COLLAPSED,
    FAILED,
    NOISE_ONLY,
    TO_A_CONSTANT,
    TO_ANOTHER,
    TO_PRIOR,
    TO_STANDARD,
    UNDECIDED,
    UNREAD,
    WEAK,
)

MEANING: Mapping[str, str] = {
    ACTIVE: "V above the threshold: the decoder uses this layer to tell images apart",
    TO_PRIOR: "on more than 95 % of images q of the layer is its prior, whatever the image",
    TO_STANDARD: "on more than 95 % of images q of the layer is N(0, I), or for discrete units uniform",
    TO_ANOTHER: "on more than 95 % of images q of the layer is one fixed distribution, neither its prior nor N(0, I)",
    TO_A_CONSTANT: "by rule 1: J below the threshold, and not near N(0, I); its prior was not compared",
    NOISE_ONLY: "J above the threshold, I below: the layer encodes the noise of the layer below, not the image",
    WEAK: "more than 5 % of images move the layer, but I is below the threshold: it says little about the image",
    UNREAD: "the layer encodes the image (I above the threshold, or in a ladder moved by more than 5 % of images), but "
    "the decoder does not use it (U below, or no image drawn from it tells of x)",
    UNDECIDED: "a 95 % interval contains the threshold, or there are too few images",
    FAILED: "training of this replica became non-finite and was stopped",
    NOT_MEASURED: "the run is not evaluated yet",
}
"""A verdict and what was found, in words."""

KIND: Mapping[str, str] = {
    ACTIVE: "active",
    **dict.fromkeys((*COLLAPSED, TO_A_CONSTANT), "collapsed"),
    NOISE_ONLY: "noise only",
    WEAK: "weak",
    UNREAD: "unread",
    UNDECIDED: "undecided",
    FAILED: "failed",
    NOT_MEASURED: "not measured",
}
"""The shorter word for a column of counts; all ways to collapse are one kind."""

ADJECTIVE: Mapping[str, str] = {"noise only": "coding noise only", "weak": "weakly coded"}
"""The word as it follows "z1 is", where that is not the word itself."""

ABBREVIATION: Mapping[str, str] = {
    "active": "act",
    "collapsed": "col",
    "noise only": "noi",
    "weak": "weak",
    "unread": "unr",
    "undecided": "und",
    "failed": "fail",
    "not measured": "n/a",
}

LETTER: Mapping[str, str] = {
    "active": "A",
    "collapsed": "C",
    "noise only": "N",
    "weak": "W",
    "unread": "U",
    "undecided": "?",
    "failed": "F",
    "not measured": "-",
}

QUANTITIES: tuple[tuple[str, str, str], ...] = (
    (
        "V",
        "used_nats",
        "use by the decoder: how much better it explains the image by z(l) than by other codes, with the layers above "
        "kept; at least so much. 0 for a layer that is not read, has collapsed, or codes noise. It does not add up "
        "over layers",
    ),
    (
        "I",
        "information_nats",
        "information about the image: I(x; z(l)) where z1 is visited first (bottom-up, bottom-up-x, mean-field); "
        "layers may then share it. I(x; z(l) | layers above) top-down",
    ),
    (
        "J",
        "parent_information_nats",
        "information from all that q(z(l)|·) sees: I(z(l−1); z(l)) bottom-up, I(z(l−1), x; z(l)) bottom-up-x, "
        "I(x; z(l)) mean-field, I(x; z(l) | layers above) top-down",
    ),
    (
        "KL to prior",
        "kl_prior_nats",
        "mean divergence of q(z(l)|·) from its prior p(z(l)|layers above). Bottom-up below the top its prior is the "
        "decoder's marginal p(z(l)): then [J, sum of the rates from z(l) up], in between unknown",
    ),
    (
        "KL to N(0, I)",
        "kl_standard_nats",
        "mean divergence of q(z(l)|·) from N(0, I), or for discrete units from uniform Bernoulli or categorical ones; "
        "below the top it depends on the layer's arbitrary scale",
    ),
    (
        "rate",
        "rate_nats",
        "mean of log q(z(l)|·) − log p(z(l)|·); where z1 is visited first it is no divergence and may be negative",
    ),
    (
        "U",
        "reading_nats",
        "at most what the layer below can tell of the image by z(l): how far its distribution diverges when z(l) is "
        "taken from another image, and no more than I",
    ),
    (
        "encoder k.o.",
        "knockout_encoder_nats",
        "knock-out: bound lost when the prior replaces q of this layer and of all later ones in the inference order",
    ),
    (
        "model k.o.",
        "knockout_model_nats",
        "knock-out: likelihood lost when the decoder sees this layer's prior mean instead of the layer, and q sees "
        "nothing of it; a difference of two bounds without an interval, refused where one may miss more than 0.25 nats",
    ),
    (
        "L above",
        "bound_above_nats",
        "bound on log p(x) from the layers above alone: this layer and those below are drawn from p, as many samples "
        "as knock-outs take. Only where q draws the layers above without those below (top-down, mean-field), and at "
        "the top, where all is drawn from p",
    ),
)
"""Heading, recorded quantity, meaning."""
