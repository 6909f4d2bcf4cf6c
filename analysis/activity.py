"""Whose collapse it is: what units of the exact posterior p(z|x) against those of q surely say of a layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.vocabulary import ACTIVE_VARIANCE, UNDECIDED

ENCODER_COLLAPSE = "collapse of the encoder"
MODEL_COLLAPSE = "collapse of the model"
ENCODER_ALONE = "used by the encoder alone"
IN_USE = "in use"
POSTERIOR_READING: Mapping[str, str] = {
    ENCODER_COLLAPSE: "units are active in the exact posterior p(z|x), and none in q",
    MODEL_COLLAPSE: "no unit is active in the exact posterior either: the decoder has no use for the layer",
    ENCODER_ALONE: "units are active in q, and none in the exact posterior",
    f"{IN_USE}, encoder loses units": "units are active in both, and some of the exact posterior's not in q",
    f"{IN_USE}, encoder adds units": "units are active in both, and some of q's not in the exact posterior",
    IN_USE: "units are active in the exact posterior and in q, and none surely in one alone",
    UNDECIDED: "an interval crosses the variance of 0.01; more images or chains would tell",
}
"""A reading, and what was found."""


def read_units(posterior: NDArray[Any], encoder: NDArray[Any]) -> str:
    """The reading of intervals [D, 3] of the variance over images; empty where they were not measured."""
    if not posterior.size or not np.isfinite(posterior).all() or not np.isfinite(encoder).all():
        return ""
    (in_posterior, out_posterior), (in_encoder, out_encoder) = (
        (units[:, 0] > ACTIVE_VARIANCE, units[:, 2] < ACTIVE_VARIANCE) for units in (posterior, encoder)
    )
    if in_posterior.any() and in_encoder.any():
        lost, added = (in_posterior & out_encoder).any(), (out_posterior & in_encoder).any()
        return f"{IN_USE}, encoder {'loses' if lost else 'adds'} units" if lost or added else IN_USE
    if out_encoder.all() and (in_posterior.any() or out_posterior.all()):
        return ENCODER_COLLAPSE if in_posterior.any() else MODEL_COLLAPSE
    return ENCODER_ALONE if in_encoder.any() and out_posterior.all() else UNDECIDED
