"""What the experiment `conjecture` decides, by t-intervals over teachers.

The margins were fixed by trials on other teachers, before the run of `cpu`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.claims import Claim, Measured, NotMeasuredError, Relation, Sample

PREMISE = "the conjecture's premise"
CAUSE = "the conjecture as a cause of collapse"
PRICE = "Dang et al. 2024, arXiv:2306.05023: a layer below its price collapses under exact inference too"

Read = Callable[[Measured], Sample]


def per_teacher(measured: Measured, part: str, column: str, **where: Any) -> Sample:
    """``column`` of the one row of every teacher that ``where`` picks, by teacher."""
    if part not in measured:
        raise NotMeasuredError(f"the part '{part}' is not measured yet")
    rows, what = measured[part], ", ".join(f"{name} {value}" for name, value in where.items())
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


def _released(measured: Measured, column: str, shape: str, law: str = "factorised") -> Sample:
    return per_teacher(measured, "release", column, shape=shape, strength=2.0, law=law)


def _left(measured: Measured, shape: str) -> Sample:
    return ratio(_released(measured, "gap_after_nats", shape), _released(measured, "gap_before_nats", shape))


def _lost(measured: Measured, shape: str, law: str = "factorised") -> Sample:
    after, before = (_released(measured, f"coupling_{when}3_nats", shape, law) for when in ("after", "before"))
    return Sample(1 - ratio(after, before).values, after.seeds)


def _cell(measured: Measured, inference: str, beta: float) -> Sample:
    return per_teacher(measured, "threshold", "top_nats", shape="bottleneck", inference=inference, beta=beta)


def _diagonal(measured: Measured) -> Sample:
    return per_teacher(measured, "linear", "layer_gap_nats", depth=3, strength=2.0)


def _flat(measured: Measured, inference: str, beta: float) -> Sample:
    return per_teacher(measured, "linear-threshold", "top_nats", inference=inference, beta=beta)


def _claim(
    source: str, statement: str, quantity: str, read: Read, relation: Relation, margin: float, unit: str = "nats"
) -> Claim:
    return Claim(
        statement, source, quantity, lambda found: (read(found), None), relation, margin, unit, reads="measured"
    )


def _premise() -> list[Claim]:
    table = "gap of the factorised table as a share of the linear encoder's, couplings of"
    rich = "its gap as a share of the factorised table's, couplings of"
    nats = "nats a layer"
    return [
        _claim(
            PREMISE,
            "A fixed teacher of coins leaves the best factorised linear encoder a gap.",
            "mean layer gap at couplings of 2",
            lambda m: _fixed(m, 2.0, "linear"),
            "above",
            0.01,
            nats,
        ),
        _claim(
            PREMISE,
            "Width does not close it: a free logit for every parent state leaves more than half.",
            f"{table} 2,",
            lambda m: _width(m, 2.0),
            "above",
            0.5,
            "of it",
        ),
        _claim(
            PREMISE, "Nor at the strongest couplings.", f"{table} 4,", lambda m: _width(m, 4.0), "above", 0.5, "of it"
        ),
        _claim(
            PREMISE,
            "The gap grows with the couplings.",
            "mean layer gap of the factorised table, couplings of 4 less 1,",
            _growth,
            "above",
            0.01,
            nats,
        ),
        _claim(
            PREMISE,
            "A fixed linear-Gaussian teacher leaves the best diagonal encoder a gap.",
            "mean layer gap at couplings of 2",
            _diagonal,
            "above",
            0.01,
            nats,
        ),
        *(
            _claim(
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
        _claim(
            CAUSE,
            f"Released, the decoder moves to where the factorised encoder fits ({shape}).",
            "gap after as a share of the gap before, couplings of 2,",
            lambda m: _left(m, shape),
            "below",
            0.1,
            "of it",
        ),
        _claim(
            CAUSE,
            f"It gives up next to no likelihood for that ({shape}).",
            "KL(p_teacher(x) ‖ p(x)), couplings of 2,",
            lambda m: _released(m, "given_up_nats", shape),
            "below",
            0.01,
        ),
        _claim(
            CAUSE,
            f"It loses more than half of I(z2; z3) ({shape}).",
            "share of I_p(z2; z3) lost, couplings of 2,",
            lambda m: _lost(m, shape),
            "above",
            0.5,
            "of it",
        ),
    ]


CELLS = (
    (PRICE, "Exact inference above the threshold keeps the top", "exact", 1.0, "above"),
    (PRICE, "Exact inference below the threshold empties it", "exact", 4.0, "below"),
    (CAUSE, "Factorised inference above the threshold empties it", "factorised linear", 1.0, "below"),
    (PRICE, "Factorised inference below the threshold empties it", "factorised linear", 4.0, "below"),
)
FLAT_CELLS = (
    (PRICE, "Exact inference keeps the top of a linear-Gaussian stack where its rate is cheap", "exact", 0.5, "above"),
    (PRICE, "Exact inference empties it where its rate is dear", "exact", 4.0, "below"),
    (CAUSE, "Factorised inference empties it where its rate is cheap", "factorised", 0.5, "below"),
    (PRICE, "Factorised inference empties it where its rate is dear", "factorised", 4.0, "below"),
)

claims = (
    *_premise(),
    *_release("wide"),
    *_release("bottleneck"),
    _claim(
        "control",
        "With an autoregressive encoder the released decoder keeps I(z2; z3) (bottleneck).",
        "share of I_p(z2; z3) lost, couplings of 2,",
        lambda m: _lost(m, "bottleneck", "autoregressive"),
        "within",
        0.1,
        "of it",
    ),
    *(
        _claim(
            source,
            f"{statement} (coins, bottleneck, from random weights).",
            f"I_p(z1; z2), {inference} inference, β = {beta:g},",
            lambda m, i=inference, b=beta: _cell(m, i, b),  # type: ignore[misc]
            relation,  # type: ignore[arg-type]
            0.1,
        )
        for source, statement, inference, beta, relation in CELLS
    ),
    *(
        _claim(
            source,
            f"{statement}.",
            f"I_p(z1; z2), {inference} inference, β = {beta:g},",
            lambda m, i=inference, b=beta: _flat(m, i, b),  # type: ignore[misc]
            relation,  # type: ignore[arg-type]
            0.1,
        )
        for source, statement, inference, beta, relation in FLAT_CELLS
    ),
)
