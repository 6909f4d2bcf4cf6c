"""Annealed importance sampling against exact log p(x): the mean weight, and the sandwich on simulated data."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.likelihood import Annealing, anneal, from_prior, sandwich
from hvae.likelihood import annealing as module
from hvae.likelihood.hmc import State, move
from hvae.likelihood.sandwich import simulate
from hvae.posterior import NetworkPosterior
from tests.exact.stacks import decoder
from tests.reliability.figure import Figure, Row

SEEDS = 5
N_DATA = 20
FALSE_ALARM = 1e-6


def model(widths: tuple[int, ...], off: float) -> HVAE:
    """A linear-Gaussian decoder; the encoder is its exact posterior with means moved by ``off`` in every layer."""
    network = decoder(widths, scale=0.8)
    posterior = LinearGaussian.of(network).exact_posterior("bottom-up")
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        for name in posterior.order:
            posterior.network[name].net.bias.add_(off)  # type: ignore[operator, union-attr]
    return HVAE(network, posterior)


@contextmanager
def broken(fault: Callable[..., Any] | None) -> Iterator[None]:
    """With another move of the chains."""
    module.move = fault or move  # type: ignore[assignment]
    try:
        yield
    finally:
        module.move = move


def never_rejected(target: Any, state: State, beta: float, step: Tensor, n: int, momentum: Tensor, draw: Tensor) -> Any:
    """Every move is made: the accept step is missing."""
    always = torch.stack([draw[..., 0], torch.zeros_like(draw[..., 1])], -1)
    return move(target, state, beta, 3 * step, n, momentum, always)


def elsewhere(target: Any, state: State, beta: float, *others: Any) -> Any:
    """Chains move at another temperature than the weights are taken for."""
    return move(target, state, beta**2, *others)


def weights_of(made: HVAE, exact: LinearGaussian, x: Tensor, n_chains: int, seed: int) -> np.ndarray:
    """w / p(x) of every chain."""
    found = anneal(from_prior(made.decoder, x), Annealing(60, n_chains, 2), seed=seed)
    return np.asarray((found.log_weight - exact.log_px(x)).exp().numpy().ravel())


def mean_weight(n_chains: int) -> Sequence[Row]:
    made = model((5, 3, 2, 2), 0.2)
    exact = LinearGaussian.of(made.decoder)
    like = torch.zeros(1, 5, dtype=torch.float64)
    x = simulate(made, N_DATA, 3, like)[0]
    rows = []
    for what, fault in (
        ("annealing from the prior, 60 temperatures", None),
        ("no accept step", never_rejected),
        ("moves at another temperature than the weights", elsewhere),
    ):
        with broken(fault):
            ratio = np.concatenate([weights_of(made, exact, x, n_chains, seed) for seed in range(SEEDS)])
        error = ratio.std(ddof=1) / math.sqrt(len(ratio))
        z, limit = (ratio.mean() - 1) / error, float(stats.norm.isf(FALSE_ALARM / 2))
        smallest = (limit + float(stats.norm.isf(FALSE_ALARM))) * error
        found = f"z = {z:.1f}; would see a bias of {smallest:.2g} nats"
        rows.append(Row(what, found, bool(abs(z) < limit) == (fault is None), twin=fault is not None))
    return rows


def gap(n_data: int) -> Sequence[Row]:
    made = model((64, 8), 0.5)
    exact, like = LinearGaussian.of(made.decoder), torch.zeros(1, 64, dtype=torch.float64)
    rows, last = [], math.inf
    for n_temperatures, fault in ((5, None), (20, None), (80, None), (80, never_rejected)):
        begun = time.process_time()
        with broken(fault):
            found = sandwich(made, n_data, Annealing(n_temperatures, 8, 2), seed=0, like=like)
        seconds = time.process_time() - begun
        truth = exact.log_px(found.x).numpy()
        below, above = found.lower.log_px - truth, found.upper.log_px - truth
        holds = all(of.mean() <= 5 * of.std(ddof=1) / math.sqrt(len(of)) for of in (below, -above))
        width = float(found.gap_datum_nats.mean())
        words = (
            f"gap {width:.3f} nats; lower bound off by {below.mean():+.3f}, upper by {above.mean():+.3f}; "
            f"{seconds:.0f} s for {n_data} data"
        )
        if fault is None:
            rows.append(Row(f"{n_temperatures} temperatures, 64 and 8 numbers", words, bool(holds and width < last)))
            last = width
        else:
            rows.append(Row(f"{n_temperatures} temperatures, no accept step", words, not holds, twin=True))
    return rows


ANNEALING = Figure(
    "annealing",
    "The mean annealed weight is p(x)",
    f"E w / p(x) = 1 for annealed weights w, pooled over {SEEDS} seeds, {N_DATA} data and all chains. The model is a "
    "linear-Gaussian stack of three layers. The limit of |z| has a false-alarm rate of 1e-6.",
    400,
    mean_weight,
)
SANDWICH = Figure(
    "sandwich",
    "Bounds from both sides close on log p(x)",
    "Bidirectional Monte Carlo on simulated data (Grosse et al. 2015), where log p(x) is known. Both bounds hold on "
    "average, and their gap falls with the number of temperatures.",
    100,
    gap,
)
