"""Signal-to-noise ratio of the gradients that training follows, against the number of samples."""

import numpy as np

from hvae.diagnosis.likelihood import Signal
from hvae.diagnosis.record import of_one
from hvae.diagnostics.signal import signal
from hvae.errors import NotMeasuredError
from hvae.measuring.replica import Replica

N_DRAWS = 100
"""draws of the gradient on the same images"""


def measure_gradients(replica: Replica) -> Signal:
    """The record of one replica, R = 1, over C numbers of samples.

    They are of a copy in training mode: batch norm by the batch, and draws of discrete layers as in training. Raises
    `NotMeasuredError` where nothing is known of its training.
    """
    if replica.as_trained is None:
        raise NotMeasuredError("The signal of the gradients needs the objective that training followed.")
    model, objective = replica.as_trained(replica.model)
    found = []
    for n_samples in replica.budget.gradients:
        found.append(
            signal(
                model, objective, replica.x, n_samples, n_draws=N_DRAWS, step=replica.step, seed=replica.seed,
            )
        )  # fmt: skip
        replica.tick()
    return of_one(
        Signal,
        settings={},
        snr={part: np.stack([signals[part].snr for signals in found]) for part in found[0]},
        variance={part: np.stack([signals[part].variance for signals in found]) for part in found[0]},
        refused="",
    )
