"""All the papers that are reproduced, one after the other: `hvae run papers --preset smoke`.

Each is an experiment of its own; `hvae list` names them. What is missing for one of them, data or a GPU, is said before
anything is trained.
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
