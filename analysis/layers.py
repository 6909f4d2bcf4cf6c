"""What was measured of each latent layer, as a record of arrays; its keys among a run's diagnostics.

What a run did not measure is NaN of the right shape. Shapes lead with R, the replicas. An interval is a last axis of
three: (low, middle, high).
"""

from dataclasses import dataclass

import numpy as np

from hvae.analysis.gap import Array, Arrays
from hvae.lab.config import MERGING
from hvae.vocabulary import ACTIVE_VARIANCE, FAILED

NOT_MEASURED = "not measured"

INTERVALS = (
    "rate_nats",
    "kl_standard_nats",
    "kl_prior_nats",
    "parent_information_nats",
    "information_nats",
    "reading_nats",
    "knockout_encoder_nats",
    "knockout_model_nats",
)
UNIT_INTERVALS = (
    "rate_unit_nats",
    "kl_standard_unit_nats",
    "burda_variance",
    "twin_covariance",
    "residual_variance",
)


@dataclass(frozen=True)
class Layer:
    """What was measured of one latent layer."""

    name: str
    n_units: int
    intervals: Arrays
    """each of `INTERVALS` -> [R, 3]"""
    unit_intervals: Arrays
    """those of `UNIT_INTERVALS` that were measured -> [R, D, 3]"""
    verdict: Array
    """[R, 3] words, one per epsilon"""
    collapsed_fraction: Array | None
    """[R, E'] share of units that are (epsilon, delta)-collapsed"""
    information_on_n: Array
    """[R] mean of the information's terms on exactly n images, nats; NaN where the layer sees another one below it"""
    n_mixture: int
    """top-down: the most images in a replica's mixture; otherwise 0"""

    def interval(self, quantity: str) -> Array:
        """[R, 3], NaN where it was not measured."""
        return self.intervals[quantity]

    @property
    def active_statistic(self) -> str:
        """The variance over data by which units are active; without what a unit inherits, where that was measured."""
        for quantity in ("twin_covariance", "residual_variance", "burda_variance"):
            if quantity in self.unit_intervals:
                return quantity
        return ""

    def active_units(self, statistic: str = "", threshold: float = ACTIVE_VARIANCE) -> Array:
        """[R] number of units with a statistic above a threshold; NaN where a unit has no statistic.

        By default the statistic is a variance over data, `active_statistic`.
        """
        statistic = statistic or self.active_statistic
        if statistic not in self.unit_intervals:
            return np.full(len(self.verdict), np.nan)
        middle = self.unit_intervals[statistic][..., 1]
        counts = (middle > threshold).sum(axis=1).astype(float)
        return np.where(np.isfinite(middle).all(axis=1), counts, np.nan)


def read_layer(arrays: Arrays, name: str, n_units: int, alive: Array, n_epsilons: int) -> Layer:
    """The layer called `name` in the arrays of a run's diagnostics; `alive` [R]."""
    nothing = np.full((len(alive), 3), np.nan)
    words = np.where(alive[:, None], NOT_MEASURED, FAILED).repeat(n_epsilons, axis=1)
    units = {key: arrays[f"{key}/{name}"] for key in UNIT_INTERVALS if f"{key}/{name}" in arrays}
    return Layer(
        name=name,
        n_units=n_units,
        intervals={key: arrays.get(f"{key}/{name}", nothing) for key in INTERVALS},
        unit_intervals=units,
        verdict=arrays.get(f"verdict/{name}", words),
        collapsed_fraction=arrays.get(f"collapsed_fraction/{name}"),
        information_on_n=arrays.get(f"information_on_n_nats/{name}", nothing[:, 0]),
        n_mixture=int(np.max(arrays.get(f"n_paths/{name}", 0), initial=0))
        if not arrays.get("bottom_up", str(arrays.get("order")) not in MERGING)  # older runs hold the order alone
        else 0,
    )
