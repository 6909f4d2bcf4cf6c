"""`python -m hvae.experiments.truth`: the same as `hvae run truth`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "truth", *sys.argv[1:]]))
