"""`python -m hvae.experiments.wang_staircase`: the same as `hvae run wang-staircase`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "wang-staircase", *sys.argv[1:]]))
