"""The signal of a gradient against its noise, for each part of a model (Rainforth et al. 2018, section 3).

Over draws g of the gradient of a loss on *fixed* data, with i the weights of a part,

    snr = sqrt(mean_i (E g_i)² / Var g_i),          variance = Σ_i Var g_i        (nats², per datum, in weights).

The paper averages |E g_i| / sd g_i. The mean of its squares, taken here, can be estimated without bias of order 1/n.
So it can say that there is no signal, where n draws of noise alone look like a signal of sqrt(1/n). A weight with a
gradient that does not vary over the draws, as behind a unit that is off, is left out.

With K samples the signal of IWAE's encoder falls like K^-1/2, its decoder's rises like K^1/2; doubly reparametrised
(Tucker et al. 2019) the encoder's rises too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from hvae import rng
from hvae.evidence import HVAE
from hvae.numerics import FloatArray
from hvae.objectives import Objective

CONSTANT = 1e-12
"""a variance that falls below this share of itself when one draw is left out is that of a single draw"""


@dataclass(frozen=True)
class Signal:
    """Two numbers of a part as (low, middle, high): 95 % by the jackknife over draws, less its bias of order 1/n.

    ``snr`` is NaN where no weight's gradient varies; a low end of 0 says that no signal was found.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.objectives import Elbo
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> found = signal(stack.model, Elbo(), stack.x, n_samples=1, n_draws=5, step=0, seed=0)
    >>> {part: measured.snr.shape for part, measured in sorted(found.items())}
    {'decoder': (3,), 'z1': (3,), 'z2': (3,), 'z3': (3,)}
    """

    snr: FloatArray
    variance: FloatArray


def signal(
    model: HVAE, objective: Objective, x: Tensor, n_samples: int, *, n_draws: int, step: int, seed: int
) -> dict[str, Signal]:
    """The signal of each owner of weights (`HVAE.owners`) on the batch ``x [B, D]``, with K = ``n_samples``.

    The gradient is that of ``objective`` at ``step``, of the model in the mode that it is in.
    Raises ValueError for fewer than 3 draws, and where an objective needs more samples.
    """
    if n_draws < 3:
        raise ValueError(f"n_draws is {n_draws}; give at least 3, else no draw can be left out.")
    weights = dict(model.named_parameters())
    found: dict[str, list[Tensor]] = {name: [] for name in weights}
    for draw in range(n_draws):
        noise = rng.noise(
            objective.noise_specs(model), n_samples, len(x),
            seed=seed, purpose=f"signal/{n_samples}", step=draw, device=str(x.device), dtype=x.dtype,
        )  # fmt: skip
        loss, _ = objective.on(model, x.unsqueeze(0), noise, step)
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        for kept, gradient in zip(found.values(), gradients, strict=True):
            kept.append(gradient.flatten().cpu())
    parts: dict[str, list[FloatArray]] = {owner: [] for owner in model.owners.values()}
    for name, kept in found.items():
        parts[model.owners[name]].append(torch.stack(kept).double().numpy())
    return {owner: summarise(iter(blocks)) for owner, blocks in parts.items()}


def summarise(blocks: Iterator[FloatArray]) -> Signal:
    """The signal from draws ``[n, weights]`` of the gradients of a part, which may come in blocks of weights."""
    ratio: list[FloatArray] = []
    variance: list[FloatArray] = []
    n_varying = 0
    for gradient in blocks:
        n = len(gradient)
        mean, centred = gradient.mean(0), gradient - gradient.mean(0)
        spread = np.square(centred).sum(0) / (n - 1)
        means = np.concatenate([mean[None], mean - centred / (n - 1)])  # of all, then without each draw
        spreads = np.concatenate([spread[None], ((n - 1) * spread - np.square(centred) * n / (n - 1)) / (n - 2)])
        variance.append(spreads.sum(1))
        varies = (spread > 0) & (spreads > CONSTANT * spread).all(0)
        n_varying += int(varies.sum())
        ratio.append((np.square(means[:, varies]) / spreads[:, varies]).sum(1))
    squares = _jackknife(np.sum(ratio, 0) / n_varying) if n_varying else np.full(3, np.nan)
    return Signal(np.sqrt(squares.clip(0)), _jackknife(np.sum(variance, 0)).clip(0))


def _jackknife(values: FloatArray) -> FloatArray:
    """(low, middle, high) of a statistic: its value on all n draws, then without each (Efron and Stein 1981)."""
    whole, without = values[0], values[1:]
    n = len(without)
    middle = n * whole - (n - 1) * without.mean()
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    interval: FloatArray = middle + np.array([-1.0, 0.0, 1.0]) * stats.t.ppf(0.975, n - 1) * error
    return interval
