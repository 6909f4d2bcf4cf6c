"""`python -m hvae.experiments.sonderby_depth`: the same as `hvae run sonderby-depth`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "sonderby-depth", *sys.argv[1:]]))
