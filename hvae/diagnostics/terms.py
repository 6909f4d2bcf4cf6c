"""Terms of a gap: a mean over draws for each datum, with the errors of the draws and of estimates that went in."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hvae.likelihood.estimate import ROUNDING, TOLERATED_SHARE
from hvae.numerics import FloatArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Term:
    """An expectation under q for each of n data, in nats.

    >>> term = Term.of(np.array([[1.0, 3.0], [2.0, 4.0]]))  # 2 draws for each of 2 data
    >>> term.datum_nats.tolist(), term.standard_error.tolist()
    ([1.5, 3.5], [0.5, 0.5])
    """

    datum_nats: FloatArray
    """``[n]``"""
    standard_error: FloatArray
    """``[n]``, from the draws of q"""
    bias: FloatArray
    """``[n]``, how far the estimates that went in may lie off, both ways; not negative"""
    n_draws: int
    """M: draws for each datum"""
    n_flat: int = 0
    """data of which all draws agree to rounding, though q might draw others"""

    @staticmethod
    def of(
        draws: FloatArray,
        shared_variance: FloatArray | float = 0.0,
        bias: FloatArray | float = 0.0,
        certain: BoolArray | bool = False,
    ) -> "Term":
        """The mean over ``draws [M, n]``; ``shared_variance [n]`` is of what the draws of a datum have in common.

        ``certain [n]`` where q draws nothing else, so that equal draws prove what they say.
        """
        n_draws, n = draws.shape
        if n_draws < 2:
            raise ValueError(f"There is {n_draws} draw for each datum; give at least 2, else chance is unknown.")
        error = np.sqrt(draws.var(0, ddof=1) / n_draws + shared_variance)
        flat = (np.ptp(draws, 0) <= ROUNDING * np.maximum(np.abs(draws).max(0), 1.0)) & ~np.asarray(certain)
        return Term(draws.mean(0), error, np.broadcast_to(bias, n).astype(np.float64), n_draws, int(flat.sum()))

    @property
    def reason(self) -> str:
        """Why its standard error is not to be believed; empty where nothing speaks against it.

        >>> Term.of(np.zeros((5, 2))).reason.split(":")[0]
        'All 5 draws are equal for 2 of 2 data, and a standard error of 0 proves nothing'
        """
        n = len(self.datum_nats)
        if self.n_flat <= TOLERATED_SHARE * n:
            return ""
        return (
            f"All {self.n_draws} draws are equal for {self.n_flat} of {n} data, and a standard error of 0 proves "
            "nothing: consistent with an exact posterior, but also with draws that never left one mode."
        )

    def interval(self, level: float = 0.95) -> tuple[float, float, float]:
        """(low, middle, high) of the mean over these n data: `middle ± (t SE + bias)`, for draws that are about normal.

        The data are taken as given, so their spread is no part of it: SE is that of the draws, `sqrt(sum SE_i^2) / n`,
        t Student's quantile with `(M - 1) (sum SE_i^2)^2 / sum SE_i^4` degrees of freedom (Welch 1947: few where few
        data make the error), bias the mean over data.
        """
        n, variance = len(self.datum_nats), np.square(self.standard_error)
        total, squares = float(variance.sum()), float(np.square(variance).sum())
        freedom = (self.n_draws - 1) * (total**2 / squares if 0 < squares < math.inf else n)
        t = float(stats.t.isf((1 - level) / 2, freedom))
        middle = float(self.datum_nats.mean())
        half = t * math.sqrt(total) / n + float(self.bias.mean())
        return middle - half, middle, middle + half
