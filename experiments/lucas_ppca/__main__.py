"""`python -m hvae.experiments.lucas_ppca`: the same as `hvae run lucas-ppca`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "lucas-ppca", *sys.argv[1:]]))
