"""How often intervals hold the truth, and how often "surely above" or "surely below" epsilon is false."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvae.numerics import FloatArray

EPSILON = 0.1
"""nats"""
STATEMENT = "a statement"
"""rows whose `covered` is how often it was said, `falsely_above` how often falsely, `truth` whether it is true"""
LOWER = ("V", "L_8", "annealed bound")
"""bounds from below: their low end is to be below the truth"""
COVERS = {True: "low end below the truth", False: "truth within"}


@dataclass
class Tally:
    """Counts of one kind of interval in one cell.

    >>> tally = Tally("I", truth=0.12)
    >>> tally.add(np.array([[0.0, 0.2], [0.0, 0.09], [0.13, 0.3], [0.0, 0.2]]))
    >>> [tally.row()[key] for key in ("covered", "falsely_below", "falsely_above")]
    [0.5, 0.25, 0.0]
    """

    quantity: str
    truth: float
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, ends: FloatArray, truth: FloatArray | float | None = None) -> None:
        """More intervals ``[R, 2]``, NaN where one was refused; ``truth [R]`` where it differs between repetitions."""
        measured = ~np.isnan(ends).any(1)
        self.counts["refused"] += int(np.count_nonzero(~measured))
        truth = np.broadcast_to(self.truth if truth is None else truth, len(ends))[measured]
        ends = ends[measured]
        low, high = ends.T
        if self.quantity in LOWER:
            high = high + np.inf
        slack = 1e-9 * (1 + np.abs(truth))  # rounding, where an interval is a point
        self.counts["n"] += len(ends)
        self.counts["low"] += int(np.count_nonzero(low > truth + slack))
        self.counts["high"] += int(np.count_nonzero(high < truth - slack))
        self.counts["above"] += int(np.count_nonzero((low > EPSILON) & (truth < EPSILON)))
        self.counts["below"] += int(np.count_nonzero((high < EPSILON) & (truth > EPSILON)))

    def row(self) -> dict[str, Any]:
        """Shares of the repetitions in which there was an interval; NaN if there was none."""
        n = self.counts["n"]
        shares = (self.counts[key] / n if n else np.nan for key in ("low", "high", "above", "below"))
        low, high, above, below = shares
        return {
            "quantity": self.quantity, "covers": COVERS[self.quantity in LOWER], "truth": self.truth,
            "repetitions": n, "refused": self.counts["refused"],
            "covered": 1 - low - high, "low_too_high": low, "high_too_low": high,
            "falsely_above": above, "falsely_below": below,
        }  # fmt: skip
