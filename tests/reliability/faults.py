"""Realistic bugs, each planted by itself into the library in memory, and the tests of the part it is planted in."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.faults.fault import Fault
from tests.faults.faults import FAULTS
from tests.faults.harness import run
from tests.reliability.figure import Figure, Row, share

PARTS = {
    "hvae.diagnos": "diagnostics and verdict",
    "hvae.likelihood": "estimators of log p(x)",
    "hvae.exact": "exact references",
    "hvae.topdown": "stacks of blocks",
    "hvae.lab": "training",
}
"""beginning of a module's name -> what it is; the rest is the model itself"""


def measure(n: int) -> Sequence[Row]:
    """n faults, evenly over all."""
    chosen = list(FAULTS.values())[:: max(1, len(FAULTS) // max(1, n))]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = list(pool.map(lambda fault: run(fault.tests, fault.name), chosen))
    caught = {fault.name: outcome.caught(fault) is not None for fault, outcome in zip(chosen, outcomes, strict=True)}
    rows = []
    for what in (*PARTS.values(), "model, objectives and sums"):
        of = [fault for fault in chosen if part(fault) == what]
        missed = [fault.what for fault in of if not caught[fault.name]]
        words = "; ".join([share(len(of) - len(missed), len(of), "caught"), *missed])
        if of:
            rows.append(Row(what, words, not missed))
    sound = run(chosen[0].tests)
    found = f"the {sound.record.n_passed if sound.record else 0} tests of the first pass"
    return [*rows, Row("no fault", found, sound.passed, twin=True)]


def part(fault: Fault) -> str:
    module = fault.plant.module
    return next((what for start, what in PARTS.items() if module.startswith(start)), "model, objectives and sums")


PLANTED = Figure(
    "faults",
    "Planted bugs are caught",
    "Each bug is planted by itself, in memory, before the tests of its part run. It is caught if one of them fails by "
    "an assertion. The twin is the library without a bug, where the same tests must pass. The "
    "[table](../experiments/results/truth/planted-faults.md) has the smallest size of each that is caught.",
    1000,
    measure,
)
