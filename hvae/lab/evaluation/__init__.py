"""Evaluation: a trained run -> its diagnosis (`hvae.diagnosis`), as arrays on disk.

What is measured, and how, is `hvae.measuring`; here a run's configuration becomes sizes, and its newest checkpoint
becomes models, on test images drawn at random with ``evaluation.seed``.

`evaluate` (file `whole`) writes what every run has, ``evaluation/diagnostics.npz``, ``likelihood.npz`` and
``images.npz``; `measure_further` (file `measurements`) what is asked for further: ``annealed.npz``, ``exact.npz``,
``gap.npz``, ``gradients.npz``, each with its settings and, where it cannot be had, with a sentence for each replica,
`refused`. These files are all that figures and reports read. A replica that became non-finite has NaN and the verdict
"failed".
"""

from hvae.lab.evaluation.budget import MEASUREMENTS, WORDS, Budget, read_words
from hvae.lab.evaluation.measurements import measure_further, missing
from hvae.lab.evaluation.whole import evaluate, sizes_of

__all__ = [
    "MEASUREMENTS",
    "WORDS",
    "Budget",
    "evaluate",
    "measure_further",
    "missing",
    "read_words",
    "sizes_of",
]
