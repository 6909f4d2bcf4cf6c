"""What became of the mutants, part by part, for the page."""

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.reliability.figure import Figure, Row
from tests.reliability.mutants.parts import PARTS, REPO, part_of
from tests.reliability.mutants.trial import NOTHING, RESULTS, Result, results

LEAST = 0.9
"""share of the mutants that the tests kill"""
SURVIVORS = Path(__file__).parent / "survivors.toml"


def measure(n: int) -> list[Row]:
    """Tries what has not been tried of the first n. Raises CalledProcessError where that cannot be done."""
    subprocess.run([sys.executable, "-m", "tests.reliability.mutants", "--n", str(n)], cwd=REPO, check=True)
    found = list(results(RESULTS).values())
    mutants = [result for result in found if result.operator != NOTHING]
    return rows([*mutants[:n], *(result for result in found if result.operator == NOTHING)], explained())


def explained(file: Path = SURVIVORS) -> dict[str, str]:
    """Key of a mutant that survives -> why."""
    return {key: entry["why"] for key, entry in tomllib.loads(file.read_text("utf-8")).items()}


def rows(found: Sequence[Result], why: dict[str, str]) -> list[Row]:
    """All, what survived, the parts (not as they should be where surely below 90 %), and the twins."""
    mutants = [result for result in found if result.operator != NOTHING]
    twins = [result for result in found if result.operator == NOTHING]
    killed, survivors = _killed(mutants), [result for result in mutants if not result.killed]
    unsaid = [result.key for result in survivors if result.key not in why]
    of_parts = [(part, [result for result in mutants if part_of(result.source) == part]) for part in PARTS]
    return [
        Row("mutants killed, of a random sample: at least 90 %", counted(mutants), killed >= LEAST * len(mutants)),
        Row(
            "survivors explained, each by a sentence",
            f"{len(survivors) - len(unsaid)} of {len(survivors)}" + (f", not {', '.join(unsaid)}" if unsaid else ""),
            not unsaid,
        ),
        *(Row(part, counted(of_part), _interval(of_part)[1] >= LEAST) for part, of_part in of_parts),
        Row(
            "a mutant that changes nothing, against every test that killed one of its part",
            f"{_killed(twins)} of {len(twins)} killed, by {sum(twin.n_tests for twin in twins)} tests",
            len(twins) == len(PARTS) and not _killed(twins),
            twin=True,
        ),
    ]


def _killed(found: Sequence[Result]) -> int:
    return sum(result.killed for result in found)


def counted(found: Sequence[Result]) -> str:
    """``58 of 61 killed, 95 % interval [86 %, 99 %]``, by Clopper and Pearson."""
    low, high = _interval(found)
    return f"{_killed(found)} of {len(found)} killed, 95 % interval [{100 * low:.0f} %, {100 * high:.0f} %]"


def _interval(found: Sequence[Result]) -> tuple[float, float]:
    from scipy import stats

    if not found:
        return 0.0, 1.0
    low, high = stats.binomtest(_killed(found), len(found)).proportion_ci(0.95, method="exact")
    return float(low), float(high)


MUTANTS = Figure(
    "mutants",
    "Mutants of the mathematics",
    "Places of the source are drawn at random, and one operator of cosmic-ray changes each in memory, as `+` to `-` or "
    "1 to 2. The tests that run the line follow, the quickest first, for 150 seconds of tests. A mutant is killed when "
    "one fails or hangs. Each of those not killed has a sentence in `tests/reliability/mutants/survivors.toml`.",
    400,
    measure,
)
