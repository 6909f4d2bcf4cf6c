"""`python -m hvae.experiments.conjecture`: the same as `hvae run conjecture`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "conjecture", *sys.argv[1:]]))
