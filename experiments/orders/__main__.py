"""`python -m hvae.experiments.orders`: the same as `hvae run orders`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "orders", *sys.argv[1:]]))
