"""`python -m hvae.experiments.dang_strengths`: the same as `hvae run dang-strengths`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "dang-strengths", *sys.argv[1:]]))
