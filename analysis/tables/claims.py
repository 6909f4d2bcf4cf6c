"""Claims, what was measured for them, and whether they hold."""

import json
from collections.abc import Sequence

from hvae.analysis.claims import Decision, found_text
from hvae.analysis.tables.table import Cell, Column, Table, number

ALONE = "(alone)"
"""beside an outcome that does not stand for all claims of the page together"""


def claims_table(decisions: Sequence[Decision]) -> Table:
    """One row per claim."""
    columns = (
        Column("claim", numeric=False),
        Column("holds when", numeric=False),
        Column("found", "mean [95 % interval]"),
        Column("outcome", numeric=False),
        Column("how", numeric=False),
    )
    rows = []
    for decision in decisions:
        claim = decision.claim
        found = found_text(decision.middle, decision.low, decision.high, decision.unit, number)
        rows.append(
            (
                Cell(claim.statement),
                Cell(f"{claim.quantity} is {decision.criterion}"),
                Cell(found if decision.n_replicas else number(float("nan"))),
                Cell(
                    f"{decision.outcome} {ALONE}" if decision.alone else decision.outcome,
                    f"is-{decision.outcome.replace(' ', '-')}",
                ),
                Cell(f"{decision.how}. Source: {claim.source}"),
            )
        )
    return Table(columns, tuple(rows))


def claims_json(decisions: Sequence[Decision]) -> str:
    """The decisions with statement, source, margin and interval; a number that is not finite is null."""

    def finite(value: float) -> float | None:
        return float(f"{value:.6g}") if abs(value) < float("inf") else None

    records = [
        {
            "statement": decision.claim.statement,
            "source": decision.claim.source,
            "quantity": decision.claim.quantity,
            "criterion": decision.criterion,
            "outcome": decision.outcome,
            "together": decision.together,
            "low": finite(decision.low),
            "middle": finite(decision.middle),
            "high": finite(decision.high),
            "unit": decision.unit,
            "n_replicas": decision.n_replicas,
            "over": decision.over,
            "how": decision.how,
        }
        for decision in decisions
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"
