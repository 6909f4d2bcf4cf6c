"""The command line: `hvae run | train | complete | evaluate | report | list | compare | verify | data`."""

from hvae.lab.cli.entry import main as main
