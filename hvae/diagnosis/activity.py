"""The cause of a collapse: the encoder or the model, from the units that are active in p(z|x) and in q.

This is the one rule from intervals to words. The shares themselves: `hvae.diagnostics.collapse`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.vocabulary import (
    ACTIVE_SHARE,
    ADDS,
    ENCODER_ALONE,
    ENCODER_COLLAPSE,
    IN_USE,
    LOSES,
    MODEL_COLLAPSE,
    UNDECIDED,
)

CAUSES: Mapping[str, str] = {
    ENCODER_COLLAPSE: "units move with the image in the exact posterior p(z|x), but none does in q",
    MODEL_COLLAPSE: "no unit moves with the image in q, and none in the exact posterior: neither its mean nor its "
    "variance",
    ENCODER_ALONE: "units move with the image in q, but none does in the exact posterior",
    LOSES: "units move with the image in both; some that move in the exact posterior do not in q",
    ADDS: "units move with the image in both; some that move in q do not in the exact posterior",
    IN_USE: "units move with the image in both, the exact posterior and q; none surely does in one alone",
    UNDECIDED: f"an interval crosses the share of {ACTIVE_SHARE:g}, or the chains are doubted; more images or chains "
    "would tell",
}
"""A cause, and what was found."""


def cause(posterior: NDArray[Any], encoder: NDArray[Any]) -> str:
    """The cause, from intervals [D, 3] of the share that the image decides; empty where they were not measured.

    Doubted chains have intervals from 0 to 1, so all that rests on them is undecided.
    """
    if not posterior.size or not np.isfinite(posterior).all() or not np.isfinite(encoder).all():
        return ""
    (in_posterior, out_posterior), (in_encoder, out_encoder) = (
        (units[:, 0] > ACTIVE_SHARE, units[:, 2] < ACTIVE_SHARE) for units in (posterior, encoder)
    )
    if in_posterior.any() and in_encoder.any():
        lost, added = (in_posterior & out_encoder).any(), (out_posterior & in_encoder).any()
        return LOSES if lost else ADDS if added else IN_USE
    if out_encoder.all() and (in_posterior.any() or out_posterior.all()):
        return ENCODER_COLLAPSE if in_posterior.any() else MODEL_COLLAPSE
    return ENCODER_ALONE if in_encoder.any() and out_posterior.all() else UNDECIDED
