"""Claims on the β threshold of a needed layer, decided by t-intervals over teachers; margins as in `claims`."""

import numpy as np

from hvae.analysis.claims import Claim, Measured, Sample
from hvae.experiments.conjecture.claims import LINEAR, claim, per_teacher, ratio

SOURCE = "inference or β threshold"
CASES = {
    f"{name}, {known} x": (part, {"kind": kind, "x_strength": x, "z_strength": z})
    for name, part, kind, sizes in (
        ("pairs", "threshold", "linear", ((3.0, 8.0), (6.0, 4.0))),
        ("parity", "threshold", "parity", ((3.0, 8.0), (6.0, 4.0))),
        ("Gaussian", "linear-threshold", "linear-Gaussian", ((0.5, 2.0), (1.0, 1.0))),
    )
    for known, (x, z) in zip(("ambiguous", "telling"), sizes, strict=True)
}
"""Teachers that need z2, in words: their part, and what picks their rows."""


def _column(measured: Measured, case: str, column: str, power: float, encoder: str) -> Sample:
    part, where = CASES[case]
    return per_teacher(measured, part, column, **where, power=power, inference=encoder)


def _lowered(measured: Measured, case: str, encoder: str) -> Sample:
    """log of the threshold under ``encoder`` over that under exact inference."""
    mine, exact = (_column(measured, case, "threshold_beta", 0.0, inference) for inference in (encoder, "exact"))
    return Sample(np.log(ratio(mine, exact).values), mine.seeds)


def _kept(measured: Measured, case: str) -> Sample:
    """The share of the worth of z2 that a factorised encoder keeps at β = 1."""
    value, worth = (_column(measured, case, column, 0.0, LINEAR) for column in ("value_nats", "worth_nats"))
    return ratio(value, worth)


def _above(measured: Measured, case: str) -> Sample:
    both = [_column(measured, case, "top_nats", 1.5, inference) for inference in ("exact", LINEAR)]
    return Sample(np.maximum(both[0].values, both[1].values), both[0].seeds)


def _of(case: str) -> list[Claim]:
    widest = ["factorised table"] if CASES[case][0] == "threshold" else []
    return [
        *(
            claim(
                SOURCE,
                f"A {name} encoder lowers the β threshold of z2 by more than 2 % ({case}).",
                "log of its threshold β* over that of exact inference",
                lambda m, name=name: _lowered(m, case, name),  # type: ignore[misc]
                "below",
                -0.02,
                "in log β",
            )
            for name in (LINEAR, *widest)
        ),
        claim(
            SOURCE,
            f"Half way from β = 1 to the exact threshold, z2 is empty under a {LINEAR} encoder ({case}).",
            "I_p(z1; z2) at the root of the exact β*",
            lambda m: _column(m, case, "top_nats", 0.5, LINEAR),
            "below",
            0.1,
        ),
        claim(
            SOURCE,
            f"As far above that threshold, z2 is empty under both inferences ({case}).",
            "the larger I_p(z1; z2) at the exact β* to the power of 1.5",
            lambda m: _above(m, case),
            "below",
            0.01,
        ),
        claim(
            SOURCE,
            f"At β = 1 a {LINEAR} encoder keeps more than half of the worth of z2 ({case}).",
            "gain of its bound over the bound without z2, as a share of the worth",
            lambda m: _kept(m, case),
            "above",
            0.5,
            "of it",
        ),
    ]


thresholds = tuple(one for case in CASES for one in _of(case))
