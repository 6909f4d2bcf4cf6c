"""`python -m hvae`: the same as the console command `hvae`."""

import sys

from hvae.lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
