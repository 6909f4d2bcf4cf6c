"""`python -m hvae.experiments.flach_equilibrium`: the same as `hvae run flach-equilibrium`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "flach-equilibrium", *sys.argv[1:]]))
