"""`python -m tests.reliability [FIGURE ...]`: measures the figures, or all, and writes docs/reliability.md.

Each is written as soon as it is measured. Ends with 1 where a row is not as it should be.
"""

import argparse
import json
import time

from hvae.lab.runs.files import write_atomically
from hvae.lab.runs.provenance import session
from tests.reliability.figures import FIGURES
from tests.reliability.page import PAGE, RECORD, entry, page, read_record


def main() -> None:
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__.splitlines()[0])
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(names)}; all where none is named")
    parser.add_argument("--draw", action="store_true", help="measure nothing, write the page from the record")
    arguments = parser.parse_args()
    if unknown := {*arguments.figures} - {*names}:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; choose of {', '.join(names)}")
    bad = []
    for figure in () if arguments.draw else FIGURES:
        if arguments.figures and figure.name not in arguments.figures:
            continue
        start = time.monotonic()
        rows = figure.measure(figure.full)
        seconds = time.monotonic() - start
        record = read_record() | {figure.name: entry(rows, figure.full, seconds, session(device="cpu", n_threads=1))}
        write_atomically(RECORD, (json.dumps(record, indent=1) + "\n").encode())
        write_atomically(PAGE, page(record, FIGURES).encode())
        for row in rows:
            print(f"{figure.name}: {'twin: ' if row.twin else ''}{row.what}: {row.found}{'' if row.ok else '  NO'}")
        bad += [row.what for row in rows if not row.ok]
    if arguments.draw:
        write_atomically(PAGE, page(read_record(), FIGURES).encode())
    parser.exit(1 if bad else 0, f"Not as it should be: {'; '.join(bad)}.\n" if bad else "")


if __name__ == "__main__":
    main()
