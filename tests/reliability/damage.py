"""Bits that are flipped and files that are cut, in every file of a run, and what is read of it then."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab.runs.made import finished, make_old
from tests.lab.runs.test_manifest import PLACES, silent
from tests.reliability.figure import Figure, Row, share

UNSEEN = ("metrics.jsonl", "provenance.json", "label.txt")
"""files that have no sum of their own, so that only the manifest tells"""


def measure(n: int) -> Sequence[Row]:
    """n flips and n truncations of each file."""
    rows = []
    for place in PLACES:
        with tempfile.TemporaryDirectory() as scratch:
            quiet = silent(finished(Path(scratch)).path, place, n)
        rows.append(Row(f"`{place}`", share(2 * n - quiet, 2 * n, "caught or harmless"), quiet == 0))
    for place in UNSEEN:
        with tempfile.TemporaryDirectory() as scratch:
            run = finished(Path(scratch))
            make_old(run)
            quiet = silent(run.path, place, n)
        found = share(2 * n - quiet, 2 * n, "caught or harmless")
        rows.append(Row(f"`{place}` without a manifest", found, quiet > 0, twin=True))
    return rows


DAMAGE = Figure(
    "damage",
    "Damaged files are seen",
    "In each file of a finished run, one bit is flipped, or the end is cut off, at random places. Then everything is "
    "read: configuration, state, checkpoint, metrics, arrays, cards, provenance. A case is not caught if a "
    "value differs and nothing is said.",
    200,
    measure,
)
