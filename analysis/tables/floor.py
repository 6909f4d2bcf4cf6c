"""The floor of independent columns under a likelihood (`hvae.likelihood.floor`), its mark, and bits per dimension."""

from collections.abc import Sequence

import numpy as np

from hvae.analysis.load import Array, Likelihood, LoadedRun
from hvae.analysis.tables.table import number
from hvae.vocabulary import BELOW_FLOOR


def has_floor(run: LoadedRun) -> bool:
    """Whether a floor of independent columns is known."""
    return run.likelihood is not None and bool(np.isfinite(run.likelihood.floor_nats[:, 1]).any())


def floor_text(likelihood: Likelihood) -> str:
    """ "-205.83", or "-205.83, below the floor 2/4": the replicas that are marked.

    The columns are fitted once and measured on the images of the likelihood, so the floor has no ±
    of its own.
    """
    n_below = int(likelihood.below_floor.sum())
    marked = f", {BELOW_FLOOR} {n_below}/{len(likelihood.below_floor)}" if n_below else ""
    return number(_mean(likelihood.floor_nats[:, 1])) + marked


def bits_text(likelihood: Likelihood) -> str:
    """Mean bits per dimension over seeds; a dash where x has a density."""
    return _bits(likelihood.bits_per_dim)


def elbo_bits_text(likelihood: Likelihood) -> str:
    """The same of the ELBO."""
    return _bits(likelihood.elbo_bits_per_dim)


def floor_bits_text(likelihood: Likelihood) -> str:
    """The same of the floor."""
    return _bits(likelihood.floor_bits_per_dim)


def _bits(bits: Array | None) -> str:
    return number(np.nan if bits is None else _mean(bits[:, 1]), 3)


def beside_text(likelihood: Likelihood) -> str:
    """Bits per dimension; the floor with what it was fitted to and its mark, or why there is none.

    Empty for runs of before.
    """
    said = []
    if likelihood.bits_per_dim is not None:
        said.append(f"At most {bits_text(likelihood)} bits per dimension, {elbo_bits_text(likelihood)} by the ELBO.")
    refusal = next(filter(None, likelihood.floor_refused), "")
    n_below = int(likelihood.below_floor.sum())
    if refusal:
        said.append(f"No floor. {refusal}")
    elif likelihood.floor_fitted_to is not None:
        middle = number(_mean(likelihood.floor_nats[:, 1]))
        of_levels = likelihood.floor_bits_per_dim is not None
        bits = f" ({floor_bits_text(likelihood)} bits per dimension)" if of_levels else ""
        said.append(f"Floor: {middle} nats{bits}, independent columns fitted to {likelihood.floor_fitted_to}.")
    if n_below:
        said.append(f"{BELOW_FLOOR.capitalize()} in {n_below} of {len(likelihood.below_floor)} replicas. {_SO}")
    return " ".join(said)


def below(runs: Sequence[LoadedRun]) -> str:
    """One sentence on the runs with replicas below their floor; empty where there are none."""
    named = [
        f"{run.title} ({int(run.likelihood.below_floor.sum())}/{run.n_replicas})"
        for run in runs
        if run.likelihood is not None and run.likelihood.below_floor.any()
    ]
    return f"{BELOW_FLOOR.capitalize()}: {', '.join(named)}. {_SO}" if named else ""


_SO = (
    "Independent columns tell most data better, so the model is not trained, or the bound is far too low; its verdicts "
    "are of a model as it is."
)


def _mean(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")
