"""All the papers that are reproduced, one after the other: `hvae run papers --preset smoke`.

Each is an experiment; `hvae list` names them. Missing data or a missing GPU is reported before any training.
"""

import sys

from hvae.lab import experiment

PRESETS = ("smoke", "cpu", "paper")


def members() -> tuple[str, ...]:
    """Names of the experiments that reproduce a paper, as `hvae run` takes them."""
    return tuple(name for name in experiment.names() if hasattr(experiment.find(name), "PAPER"))


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "papers", *sys.argv[1:]]))
