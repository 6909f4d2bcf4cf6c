"""Measure the costs of the arms of `objectives`, in one process and one thread, and keep them."""

import json
import os
import sys

from hvae.experiments.objectives import equal_steps
from hvae.experiments.shared.costs import FILE, step_seconds


def main() -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

    from hvae.lab.runs.files import write_atomically
    from hvae.lab.runs.provenance import session

    found: dict[str, object] = {}
    for preset in ("demo", "cpu"):
        seconds = step_seconds(equal_steps(preset))
        found[preset] = {label: round(1000 * min(each), 3) for label, each in seconds.items()}
    record = session("cpu", 1) | {"command": ["python", "-m", "hvae.experiments.shared.costs"]}
    write_atomically(FILE, (json.dumps(found | {"provenance": record}, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
