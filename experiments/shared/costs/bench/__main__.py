"""`make bench`: measure, and write the tables of docs/performance.md, or of the page that is named.

With ``--depth`` the table of deep residual stacks alone, for which no other package is needed.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

PAGE = Path(__file__).resolve().parents[4] / "docs" / "performance.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hvae.experiments.shared.costs.bench", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="the page whose tables are renewed")
    parser.add_argument("--depth", action="store_true", help="the table of deep residual stacks alone")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of that table")
    asked = parser.parse_args()
    page = asked.page
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    warnings.simplefilter("ignore")

    import torch

    from hvae.errors import ConfigError
    from hvae.experiments.shared.costs.bench import depth
    from hvae.experiments.shared.costs.bench import page as pages
    from hvae.experiments.shared.costs.bench.clock import pinned
    from hvae.experiments.shared.costs.bench.rows import agreements, every_row, missing
    from hvae.lab.runs.files import write_atomically
    from hvae.lab.runs.provenance import session

    torch.set_num_threads(1)
    where, absent = pinned(), missing()
    try:
        agreed = [] if asked.depth else list(agreements(absent))
        text = page.read_text(encoding="utf-8")
    except (ConfigError, OSError) as error:
        print(f"hvae: {error}", file=sys.stderr)
        return 2
    for sentence in agreed:
        print(sentence, flush=True)
    made = session("cpu", 1)
    measured = f"Measured {made['time'][:10]}, {where}, on {_machine()}, {_versions()}"
    tables = (
        pages.depth_table("step of a residual stack, ms", depth.measured(asked.rounds, 0.15)),
        pages.depth_table("diagnosis of a residual stack, s", depth.diagnoses()),
    )
    deep = "\n\n".join([f"{measured}, {asked.rounds} rounds of steps.", *tables])
    text = pages.renewed(text, deep, pages.DEPTH)
    if asked.depth:
        write_atomically(page, text.encode())
        print(deep)
        return 0
    rows = list(every_row(absent, lambda line: print(line, flush=True)))
    sentences = [
        f"{measured}.",
        "Checked before: " + " ".join(agreed),
        *([f"Not installed, and left out: {', '.join(absent)}."] if absent else []),
    ]
    write_atomically(page, pages.renewed(text, pages.tables(rows, sentences)).encode())
    print(f"Written: {page}")
    return 0


def _machine() -> str:
    """The processor's name, where Linux tells it."""
    import platform

    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("torch", "pyro-ppl", "jax", "pythae"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
