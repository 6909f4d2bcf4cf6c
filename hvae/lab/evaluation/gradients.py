"""Signal-to-noise ratio of the gradients that training follows, against the number of samples."""

import copy

import numpy as np

from hvae.diagnostics.signal import signal
from hvae.lab.assembly import build_objective, relax
from hvae.lab.evaluation.replica import Replica
from hvae.lab.evaluation.replicas import Arrays

N_DRAWS = 100
"""draws of the gradient on the same images"""


def gradient_arrays(replica: Replica) -> Arrays:
    """Arrays of one replica, without a replica axis: each ``[C, 3]``, for C numbers of samples.

    They are of a copy in training mode: batch norm by the batch, and draws of discrete layers as in training.
    """
    model = relax(copy.deepcopy(replica.model), replica.objective).train()
    objective = build_objective(replica.objective, model.latents)
    counts = replica.budget.gradients
    found = []
    for n_samples in counts:
        found.append(
            signal(
                model, objective, replica.x, n_samples,
                n_draws=N_DRAWS, step=replica.step, seed=replica.config.seed,
            )
        )  # fmt: skip
        replica.tick()
    arrays: Arrays = {}
    for part in found[0]:
        arrays[f"gradient_snr/{part}"] = np.stack([signals[part].snr for signals in found])
        arrays[f"gradient_variance/{part}"] = np.stack([signals[part].variance for signals in found])
    return arrays
