"""`python -m tests.faults --to FOLDER`: plants every fault, and writes what caught it and the smallest size caught.

`planted-faults.csv` is the table, `planted-faults.md` the same to be read, with what made it.
"""

import argparse
import csv
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hvae.lab.runs.files import write_atomically
from hvae.lab.runs.provenance import session
from tests.faults.fault import LADDER, Fault
from tests.faults.faults import FAULTS
from tests.faults.harness import run, smallest_caught

HEADINGS = ("fault", "what is wrong", "planted in", "size", "caught by", "how", "smallest size caught", "seconds")
NOT_GRADED = "not graded"


@dataclass(frozen=True)
class Row:
    """One fault, as it was found."""

    fault: Fault
    test: str
    """node id of the first test that failed; empty if none did"""
    how: str
    """the kind of exception"""
    smallest: str
    seconds: float

    @staticmethod
    def of(fault: Fault) -> "Row":
        outcome = run(fault.tests, fault.name)
        smallest = NOT_GRADED
        if fault.size is not None:
            found = smallest_caught(fault)
            smallest = "none" if found is None else share(found)
        caught = outcome.caught(fault)
        return Row(fault, caught.node if caught else "", caught.kind if caught else "", smallest, outcome.seconds)

    @property
    def cells(self) -> tuple[str, ...]:
        fault = self.fault
        size = NOT_GRADED if fault.size is None else share(fault.size)
        found = (self.test or "NOT CAUGHT", self.how, self.smallest, f"{self.seconds:.1f}")
        return (fault.name, fault.what, fault.plant.target, size, *found)


def share(size: float) -> str:
    """``0.02`` as ``2 %``."""
    return f"{100 * size:.6f}".rstrip("0").rstrip(".") + " %"


def table_csv(rows: Sequence[Row]) -> str:
    """Every fault with every column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADINGS, *(row.cells for row in rows)])
    return text.getvalue()


def page(rows: Sequence[Row], origin: dict[str, object]) -> str:
    """The table to be read, and what made it."""
    caught = sum(bool(row.test) for row in rows)
    cells = [tuple(cell.replace("|", "\\|") for cell in row.cells) for row in rows]
    ladder = ", ".join(share(size) for size in LADDER)
    lines = [
        "# Planted faults",
        "",
        f"{caught} of {len(rows)} bugs, each planted by itself into the running library, are caught by the tests of "
        "the part they are planted in.",
        "",
        "Graded faults are wrong by a share of what is right. The smallest share caught is found by bisection over "
        f"{ladder}, taking it that what is caught at one size is caught at every larger one; below the last nothing "
        "was tried.",
        "",
        *("| " + " | ".join(row) + " |" for row in (HEADINGS, ("---",) * len(HEADINGS), *cells)),
        "",
        "## What made it",
        "",
        *(f"- {name}: {value}" for name, value in origin.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, help="folder for planted-faults.csv and planted-faults.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once, one thread each")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(tqdm(pool.map(Row.of, FAULTS.values()), total=len(FAULTS), unit="fault"))
    origin = session(device="cpu", n_threads=1)
    origin["command"] = f"python -m tests.faults --to {arguments.to}"
    origin["versions"] = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    write_atomically(arguments.to / "planted-faults.csv", table_csv(rows).encode())
    write_atomically(arguments.to / "planted-faults.md", page(rows, origin).encode())
    missed = [row.fault.name for row in rows if not row.test]
    parser.exit(1 if missed else 0, f"Not caught: {', '.join(missed)}.\n" if missed else "")


if __name__ == "__main__":
    main()
