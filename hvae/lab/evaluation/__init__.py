"""Evaluation: a trained run -> arrays on disk.

Every quantity is measured for every replica by itself, on test images drawn at random with
``evaluation.seed``. It is stored with the replica axis first, as an interval (low, middle, high):
the estimator's two bounds, widened by a bootstrap over images. Replicas are never pooled with
images. A replica that became non-finite has NaN and the verdict "failed".

`evaluate` (file `whole`) writes what every run has, ``evaluation/diagnostics.npz``, ``likelihood.npz`` and
``images.npz``; `measure_further` (file `measurements`) what is asked for further: ``annealed.npz``, ``exact.npz``,
``gap.npz``, ``gradients.npz``, each with its settings and, where it cannot be had, with a sentence for each replica,
`refused`. These files are all that figures and reports read.
"""

from hvae.lab.evaluation.budget import MEASUREMENTS, WORDS, Budget, read_words
from hvae.lab.evaluation.images import image_arrays
from hvae.lab.evaluation.layers import layer_diagnostics
from hvae.lab.evaluation.likelihood import likelihood_arrays
from hvae.lab.evaluation.measurements import measure_further, missing
from hvae.lab.evaluation.whole import evaluate

__all__ = [
    "MEASUREMENTS",
    "WORDS",
    "Budget",
    "evaluate",
    "image_arrays",
    "layer_diagnostics",
    "likelihood_arrays",
    "measure_further",
    "missing",
    "read_words",
]
