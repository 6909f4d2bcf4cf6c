"""`python -m hvae.experiments.burda_tables`: the same as `hvae run burda-tables`."""

import sys

from hvae.lab.cli import main

sys.exit(main(["run", "burda-tables", *sys.argv[1:]]))
