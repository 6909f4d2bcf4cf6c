"""What the tests of all adapters ask: draws of a foreign model with their log-weights, and parity of two estimators."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvae.evidence import Evidence
from hvae.foreign.model import Model
from hvae.foreign.stack import Stack
from hvae.numerics import log_mean_exp
from hvae.rng import noise
from tests.statistics import assert_mean

EXACT = 1e-4
"""the largest difference of a log-weight in float32, nats; what is seen is 3e-5"""


def stack_of(model: Model, x: Tensor | dict[str, Tensor], context: Any = None) -> Stack:
    if model.module is not None:
        model.module.eval()
    return Stack.of(model, x if isinstance(x, dict) else {"x": x}, context, whole=not isinstance(x, dict))


@torch.no_grad()
def draws(stack: Stack, n_samples: int, seed: int) -> Evidence:
    n = len(stack.numbers)
    found = stack(stack.numbers.unsqueeze(0), noise(stack.noise_specs(), n_samples, n, seed=seed, purpose="test"))
    return found


def assert_same_bound(
    stack: Stack, theirs: Callable[[], float], *, n_samples: int, detect: float, repeats: int = 100
) -> None:
    """The library's estimate of ``E log 1/K Σ w_k``, a mean over the same data, against ours of the same K.

    Both draw the same estimator if the adapter is right, so that their difference has mean 0 for any K.
    """
    differences = []
    for seed in range(repeats):
        ours = log_mean_exp(draws(stack, n_samples, seed).log_weight, 0).mean().item()
        differences.append(ours - theirs())
    assert np.std(differences) > 0
    assert_mean(differences, 0.0, detect=detect)
