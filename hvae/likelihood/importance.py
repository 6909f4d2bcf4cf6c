"""Importance sampling of log p(x): the curve of bounds L_1 ≤ L_10 ≤ … from one pass over K draws.

    L_k = E log 1/k sum_j w_j,    w_j = p(x, z_j) / q(z_j | x),    z_j ~ q(z | x)

is a lower bound on log p(x) that rises with k (Burda et al. 2016, theorem 1); L_1 is the ELBO. K draws make
K // k disjoint groups of k, and the mean over groups is unbiased for L_k. Draws come in chunks. What is kept does
not grow with K, but for the O(sqrt K) largest weights that Pareto k-hat is fitted to. Nats, weights summed in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvae import rng
from hvae.evidence import HVAE, Evidence
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.weights import Weights
from hvae.numerics import FloatArray, StreamingLogMeanExp, log_mean_exp
from hvae.shapes import LogProb

CHUNK_SAMPLES = 500
"""draws at a time"""
CHUNK_DATA = 16
"""data at a time, of which every log-weight is kept until they are summed"""
BLOCK_NUMBERS = 1 << 20
"""numbers of the widest layer that a CPU walks at once: with what nets make of them they stay near its cache. More rows
of wide data wait for memory, fewer rows of narrow data for the start of every operation"""
DrawLogWeight = Callable[[int, int], LogProb]
"""(number of the chunk, k) -> log-weights `[k, B]` of fresh draws"""


@dataclass(frozen=True)
class Curve:
    """The bounds L_k of each datum, and the estimate that the largest k makes.

    >>> curve = importance_sample(lambda chunk, k: torch.zeros(k, 3), (1, 10, 100))  # all weights are 1
    >>> curve.bound_datum_nats.shape, curve.estimate.ess.round()
    ((3, 3), array([100., 100., 100.]))
    """

    n_samples: tuple[int, ...]
    """k, increasing"""
    bound_datum_nats: FloatArray
    """`[C, B]`, one row for each k"""
    estimate: Estimate

    @staticmethod
    def joined(curves: Sequence["Curve"]) -> "Curve":
        """One curve for the data of several."""
        return Curve(
            curves[0].n_samples,
            np.concatenate([curve.bound_datum_nats for curve in curves], axis=1),
            Estimate.joined([curve.estimate for curve in curves]),
        )


class _GroupedBound:
    """L_k as the mean of `log_mean_exp` over disjoint groups of k consecutive draws."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._n_groups = 0
        self._total: Tensor | float = 0.0
        self._open = StreamingLogMeanExp()

    def update(self, log_weight: LogProb) -> None:
        while len(log_weight):
            if self._open.n_samples == 0 and len(log_weight) >= self._k:
                n_whole = len(log_weight) // self._k
                whole, log_weight = log_weight.tensor_split([n_whole * self._k])
                self._add(log_mean_exp(whole.reshape(n_whole, self._k, -1), 1))
            else:
                head, log_weight = log_weight.tensor_split([self._k - self._open.n_samples])
                self._open.update(head)
                if self._open.n_samples == self._k:
                    self._add(self._open.value.unsqueeze(0))
                    self._open = StreamingLogMeanExp()

    def _add(self, bounds: Tensor) -> None:
        self._total = self._total + bounds.sum(0)
        self._n_groups += len(bounds)

    @property
    def value(self) -> Tensor:
        assert isinstance(self._total, Tensor)
        return self._total / self._n_groups


def importance_sample(
    draw_log_weight: DrawLogWeight, n_samples: Sequence[int], *, chunk_samples: int = CHUNK_SAMPLES
) -> Curve:
    """The curve of bounds at every k of `n_samples`, from as many draws as the largest, `chunk_samples` at a time.

    A weight of zero (-inf) is legal; a datum with a nan or +inf among its weights is nan throughout.
    """
    ks = tuple(n_samples)
    if not ks or min(ks) < 1 or list(ks) != sorted(set(ks)):
        raise ValueError(f"n_samples is {list(ks)}; give increasing numbers of samples from 1, such as [1, 10, 100].")
    if chunk_samples < 1:
        raise ValueError(f"chunk_samples is {chunk_samples}; give at least 1.")
    total = ks[-1]
    weights, bounds = Weights(total), [_GroupedBound(k) for k in ks]
    for chunk, start in enumerate(range(0, total, chunk_samples)):
        log_weight = draw_log_weight(chunk, min(chunk_samples, total - start)).detach().double()
        weights.update(log_weight)
        for bound in bounds:
            bound.update(log_weight)
    estimate = weights.estimate()
    broken = np.isnan(estimate.log_px)
    curve = np.stack([np.where(broken, np.nan, bound.value.cpu().numpy()) for bound in bounds])
    return Curve(ks, curve, estimate)


@torch.no_grad()
def log_likelihood_curve(
    model: HVAE, x: Tensor, n_samples: Sequence[int] = (1, 10, 100, 1000), *, seed: int,
    chunk_samples: int = CHUNK_SAMPLES, chunk_data: int = CHUNK_DATA,
) -> Curve:  # fmt: skip
    """L_k of every datum of x `[N, D]`, with the model's posterior as proposal; the model in evaluation mode.

    Each datum has draws of its own, a function of (seed, its position, the draw's number): the answer depends neither
    on the chunks, but for rounding, nor on what other data there are.

    >>> from hvae import log_likelihood_curve
    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> log_likelihood_curve(stack.model, stack.x, (1, 10), seed=0).bound_datum_nats.shape
    (2, 6)
    """
    if len(x) == 0 or chunk_data < 1:
        raise ValueError(f"There are {len(x)} data in chunks of {chunk_data}; give at least 1 of each.")
    return Curve.joined(
        [
            importance_sample(
                encoder_draws(
                    model, x[first : first + chunk_data], seed=seed, first=first, chunk_samples=chunk_samples
                ),
                n_samples,
                chunk_samples=chunk_samples,
            )
            for first in range(0, len(x), chunk_data)
        ]
    )


def encoder_draws(
    model: HVAE, x: Tensor, *, seed: int, first: int | Sequence[int] = 0, purpose: str = "likelihood",
    chunk_samples: int = CHUNK_SAMPLES,
) -> DrawLogWeight:  # fmt: skip
    """Log-weights of draws of q(z|x) for ``x [B, D]``, whose first datum has the number ``first``; or one number each.

    Each datum has draws of its own, a function of (seed, purpose, its number, number of the draw).
    """
    specs = model.noise_specs()
    places = range(first, first + len(x)) if isinstance(first, int) else first
    keys = [f"{purpose}/{datum}" for datum in places]

    def draw_log_weight(chunk: int, k: int) -> LogProb:
        numbers = range(chunk * chunk_samples, chunk * chunk_samples + k)
        most = max(1, BLOCK_NUMBERS // (k * model.decoder.row_size)) if x.device.type == "cpu" else len(x)
        return torch.cat(
            [of(x[start : start + most], keys[start : start + most], numbers) for start in range(0, len(x), most)], 1
        )

    def of(block: Tensor, keys: Sequence[str], numbers: range) -> LogProb:
        draws = [rng.draws(specs, numbers, seed=seed, purpose=key, device=str(x.device), dtype=x.dtype) for key in keys]
        noise = {name: torch.cat([draw[name] for draw in draws], dim=1) for name in specs}
        evidence = model(block.unsqueeze(0), noise)
        assert isinstance(evidence, Evidence)
        return evidence.log_weight

    return draw_log_weight
