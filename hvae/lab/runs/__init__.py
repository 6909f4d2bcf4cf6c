"""A run on disk: its files, its provenance, its checkpoints."""

from hvae.lab.runs.run import Failure as Failure
from hvae.lab.runs.run import Run as Run
from hvae.lab.runs.survey import find_runs as find_runs
from hvae.lab.runs.survey import survey as survey
