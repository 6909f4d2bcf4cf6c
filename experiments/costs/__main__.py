"""Measure the costs: every arm in turn, several rounds, the least CPU time of each; one process, one thread.

CPU time of a machine that does other work is too high by what the other work slows it, never too low: hence the least.
"""

import json
import os
import sys

from experiments.costs import FILE, cpu_seconds
from experiments.objectives import equal_steps

ROUNDS, SHORT, LONG = 4, 5, 25
"""rounds over all arms; steps of two trainings, whose difference leaves out what a training does once"""


def main() -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

    from hvae.completion import load_data
    from hvae.files import write_atomically
    from hvae.provenance import session

    found: dict[str, object] = {}
    for preset in ("demo", "cpu"):
        arms = equal_steps(preset)
        data = load_data(next(iter(arms.values())))
        least = {(label, n_steps): float("inf") for label in arms for n_steps in (SHORT, LONG)}
        cpu_seconds(next(iter(arms.values())), SHORT, data)  # what a process does once
        for _ in range(ROUNDS):
            for label, n_steps in least:
                least[label, n_steps] = min(least[label, n_steps], cpu_seconds(arms[label], n_steps, data))
        found[preset] = {
            label: round(1000 * (least[label, LONG] - least[label, SHORT]) / (LONG - SHORT), 3) for label in arms
        }
    record = session("cpu", 1) | {"command": ["python", "-m", "experiments.costs"]}
    write_atomically(FILE, (json.dumps(found | {"provenance": record}, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
