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
    bits = likelihood.bits_per_dim
    return number(np.nan if bits is None else _mean(bits[:, 1]), 3)


def beside_text(likelihood: Likelihood) -> str:
    """Bits per dimension, and the floor with what it was fitted to or why there is none; empty for runs of before."""
    bits = "" if likelihood.bits_per_dim is None else f"At most {bits_text(likelihood)} bits per dimension. "
    if likelihood.floor_fitted_to is None:
        return bits.strip()
    refusal = next(filter(None, likelihood.floor_refused), "")
    if refusal:
        return f"{bits}No floor. {refusal}"
    return f"{bits}Floor, independent columns fitted to {likelihood.floor_fitted_to}: {floor_text(likelihood)} nats."


def below(runs: Sequence[LoadedRun]) -> str:
    """One sentence on the runs with replicas below their floor; empty where there are none."""
    named = [
        f"{run.title} ({int(run.likelihood.below_floor.sum())}/{run.n_replicas})"
        for run in runs
        if run.likelihood is not None and run.likelihood.below_floor.any()
    ]
    if not named:
        return ""
    return (
        f"{BELOW_FLOOR.capitalize()}: {', '.join(named)}. Most images are told better by independent columns, so "
        "the verdicts are of a model that is not trained, or of a bound that is far too low."
    )


def _mean(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")
