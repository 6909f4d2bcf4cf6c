"""Claims of the experiment `conjecture`, decided by t-intervals over teachers.

Trials on other teachers fixed the margins before the run of `cpu`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hvae.analysis.claims import Claim, Measured, NotMeasuredError, Relation, Sample, find_part, single

PREMISE = "the conjecture's premise"
CAUSE = "the conjecture as a cause of collapse"
STRENGTHS = (0.5, 1.0, 2.0, 4.0)
LINEAR, RICH = "factorised linear", "autoregressive mlp 16"

Read = Callable[[Measured], Sample]


def per_teacher(measured: Measured, part: str, column: str, **where: Any) -> Sample:
    """``column`` of the one row that ``where`` picks for every teacher."""
    rows, what = find_part(measured, part), ", ".join(f"{name} {value}" for name, value in where.items())
    kept = np.all([rows[name] == value for name, value in where.items()], axis=0)
    numbers = rows["teacher"][kept].tolist()
    if not numbers:
        raise NotMeasuredError(f"no row of '{part}' has {what}")
    if len(set(numbers)) < len(numbers):
        raise NotMeasuredError(f"several rows of '{part}' have {what} and the same teacher")
    order = np.argsort(numbers)
    return Sample(rows[column][kept][order], tuple(sorted(numbers)))


def ratio(first: Sample, second: Sample) -> Sample:
    """First over second, teacher by teacher."""
    if first.seeds != second.seeds:
        raise NotMeasuredError("the teachers differ")
    return Sample(first.values / second.values, first.seeds)


def _fixed(measured: Measured, strength: float, net: str) -> Sample:
    return per_teacher(measured, "fixed", "layer_gap_nats", depth=3, strength=strength, net=net)


def _width(measured: Measured, strength: float) -> Sample:
    return ratio(_fixed(measured, strength, "table"), _fixed(measured, strength, "linear"))


def _growth(measured: Measured) -> Sample:
    strong, weak = (_fixed(measured, strength, "table") for strength in (4.0, 1.0))
    return Sample(strong.values - weak.values, strong.seeds)


def _rich(measured: Measured, strength: float) -> Sample:
    rich = per_teacher(measured, "rich", "layer_gap_nats", depth=3, strength=strength, net="mlp", hidden=16)
    return ratio(rich, _fixed(measured, strength, "table"))


def _released(measured: Measured, column: str, shape: str, strength: float, encoder: str = LINEAR) -> Sample:
    return per_teacher(measured, "release", column, shape=shape, strength=strength, encoder=encoder)


def _left(measured: Measured, shape: str, strength: float) -> Sample:
    after, before = (_released(measured, f"gap_{when}_nats", shape, strength) for when in ("after", "before"))
    return ratio(after, before)


def _lost(measured: Measured, shape: str, strength: float, encoder: str = LINEAR) -> Sample:
    after, before = (
        _released(measured, f"coupling_{when}3_nats", shape, strength, encoder) for when in ("after", "before")
    )
    return Sample(1 - ratio(after, before).values, after.seeds)


def _largest(measured: Measured, read: Callable[[float], Sample]) -> Sample:
    """The largest over the measured strengths, for every teacher."""
    strengths = find_part(measured, "release")["strength"].tolist()
    samples = [read(strength) for strength in sorted(set(strengths))]
    return Sample(np.max([sample.values for sample in samples], axis=0), samples[0].seeds)


def _diagonal(measured: Measured) -> Sample:
    return per_teacher(measured, "linear", "layer_gap_nats", depth=3, strength=2.0)


def claim(
    source: str, statement: str, quantity: str, read: Read, relation: Relation, margin: float, unit: str = "nats"
) -> Claim:
    return Claim(statement, source, quantity, single(read), relation, margin, unit, reads="measured")


def _premise() -> list[Claim]:
    table = "gap of the factorised table as a share of the linear encoder's, couplings of"
    rich = "its gap as a share of the factorised table's, couplings of"
    nats = "nats a layer"
    return [
        claim(
            PREMISE,
            "A fixed teacher of Bernoulli units leaves the best factorised linear encoder a gap.",
            "mean layer gap at couplings of 2",
            lambda m: _fixed(m, 2.0, "linear"),
            "above",
            0.01,
            nats,
        ),
        claim(
            PREMISE,
            "Width does not close it: a free logit for every parent state leaves more than half.",
            f"{table} 2,",
            lambda m: _width(m, 2.0),
            "above",
            0.5,
            "of it",
        ),
        claim(
            PREMISE, "Nor at the strongest couplings.", f"{table} 4,", lambda m: _width(m, 4.0), "above", 0.5, "of it"
        ),
        claim(
            PREMISE,
            "The gap grows with the couplings.",
            "mean layer gap of the factorised table, couplings of 4 less 1,",
            _growth,
            "above",
            0.01,
            nats,
        ),
        claim(
            PREMISE,
            "A fixed linear-Gaussian teacher leaves the best diagonal encoder a gap.",
            "mean layer gap at couplings of 2",
            _diagonal,
            "above",
            0.01,
            nats,
        ),
        *(
            claim(
                "a number to reach",
                f"An autoregressive encoder of 16 hidden units closes it (couplings of {strength:g}).",
                f"{rich} {strength:g},",
                lambda m, s=strength: _rich(m, s),  # type: ignore[misc]
                "below",
                0.01,
                "of it",
            )
            for strength in (2.0, 4.0)
        ),
    ]


def _release(shape: str) -> list[Claim]:
    return [
        claim(
            CAUSE,
            f"Released, the decoder moves to where the factorised encoder fits ({shape}).",
            "gap after as a share of the gap before, at the couplings where it is largest,",
            lambda m: _largest(m, lambda strength: _left(m, shape, strength)),
            "below",
            0.1,
            "of it",
        ),
        claim(
            CAUSE,
            f"It gives up next to no likelihood for that ({shape}).",
            "KL(p_teacher(x) ‖ p(x)), at the couplings where it is largest,",
            lambda m: _largest(m, lambda strength: _released(m, "given_up_nats", shape, strength)),
            "below",
            0.01,
        ),
        *(
            claim(
                CAUSE if encoder == LINEAR else "control",
                f"With {words} encoder it loses more than a tenth of I(z2; z3) ({shape}, couplings of {strength:g}).",
                "share of I_p(z2; z3) lost",
                lambda m, s=strength, e=encoder: _lost(m, shape, s, e),  # type: ignore[misc]
                "above",
                0.1,
                "of it",
            )
            for encoder, words in ((LINEAR, "a factorised"), (RICH, "an autoregressive"))
            for strength in STRENGTHS
        ),
    ]


claims = (
    *_premise(),
    *_release("wide"),
    *_release("bottleneck"),
)
