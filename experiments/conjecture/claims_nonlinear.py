"""Claims on non-linear teachers, decided by t-intervals over teachers.

Trials on other teachers fixed the margins before the run of `cpu`.
"""

from hvae.analysis.claims import Measured, Sample
from hvae.experiments.conjecture.claims import PREMISE, claim, per_teacher, ratio

STRONGEST, WEAK = 4.0, 1.0
FREE, LINEAR = "gaussian free", "gaussian linear"
MIXTURE, FLOW = "mixture of 4 mlp 16", "nsf mlp 16"


def _gap(measured: Measured, encoder: str, strength: float = STRONGEST) -> Sample:
    return per_teacher(measured, "nonlinear", "layer_gap_nats", encoder=encoder, strength=strength)


def _share(measured: Measured, encoder: str, of: str) -> Sample:
    return ratio(_gap(measured, encoder), _gap(measured, of))


def _growth(measured: Measured) -> Sample:
    strong, weak = (_gap(measured, FREE, strength) for strength in (STRONGEST, WEAK))
    return Sample(strong.values - weak.values, strong.seeds)


shapes = (
    claim(
        PREMISE,
        "A fixed non-linear teacher of one unit a layer leaves a Gaussian encoder of any net a gap.",
        f"mean layer gap, least of any mean and deviation, couplings of {STRONGEST:g},",
        lambda m: _gap(m, FREE),
        "above",
        0.05,
        "nats a layer",
    ),
    claim(
        PREMISE,
        "That gap grows with the couplings.",
        f"the same, couplings of {STRONGEST:g} less {WEAK:g},",
        _growth,
        "above",
        0.02,
        "nats a layer",
    ),
    claim(
        PREMISE,
        "Free mean and deviation close more than a quarter of the linear encoder's gap.",
        f"least gap of any Gaussian as a share of the linear encoder's, couplings of {STRONGEST:g},",
        lambda m: _share(m, FREE, LINEAR),
        "below",
        0.75,
        "of it",
    ),
    claim(
        PREMISE,
        "A mixture of four Gaussians leaves less than a fifth of what any Gaussian must.",
        f"its gap as a share of the least of any Gaussian, couplings of {STRONGEST:g},",
        lambda m: _share(m, MIXTURE, FREE),
        "below",
        0.2,
        "of it",
    ),
    claim(
        PREMISE,
        "So does a neural spline flow.",
        f"its gap as a share of the least of any Gaussian, couplings of {STRONGEST:g},",
        lambda m: _share(m, FLOW, FREE),
        "below",
        0.2,
        "of it",
    ),
)
