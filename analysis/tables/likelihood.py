"""Likelihood of the test images, and whether to believe the number."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from hvae.analysis.load import Array, Likelihood, LoadedRun
from hvae.analysis.samples import Sample, of_mean
from hvae.analysis.tables.floor import bits_text, elbo_bits_text, floor_bits_text, floor_text, has_floor
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv
from hvae.vocabulary import good_k

DOUBTED = "*"
"""the mark of a number that a warning speaks of; the sentence stands in the details"""


def likelihoods(runs: Sequence[LoadedRun]) -> Table | None:
    """One row per run: log p(x) from below, the ELBO, L_K at three values of K, `bound_text` but for L_K in between.

    Then the floor of independent columns and bits per dimension, where a run has them. A number that a replica's
    warning speaks of has the mark `DOUBTED`; a replica below its floor is counted beside it.
    """
    measured = [run for run in runs if run.likelihood is not None]
    if not measured:
        return None
    shown = _shown(measured[0].likelihood)
    deep = next((run.likelihood_deep for run in measured if run.likelihood_deep is not None), None)
    reaching = any(run.likelihood is not None and run.likelihood.has_log_px for run in measured)
    columns = [Column("run", numeric=False)]
    if reaching:
        columns += [Column("log p(x) ≥", "nats"), Column("reached", "% of images")]
        columns += [Column("cost", "evaluations")]
    columns += [Column("ELBO", "nats"), *(Column(f"L_{k}", "nats") for k in shown)]
    if deep is not None:
        columns.append(Column(f"L_{int(deep.n_samples[-1])} on {deep.n_images} images", "nats"))
    with_floor = any(has_floor(run) for run in measured)
    in_bits = any(run.likelihood is not None and run.likelihood.bits_per_dim is not None for run in measured)
    columns += [Column("floor", "nats")] if with_floor else []
    columns += [Column("floor", "bits/dim")] if with_floor and in_bits else []
    columns += [Column("ELBO", "bits/dim"), Column("bits/dim ≤", "bits")] if in_bits else []
    rows = []
    for run in measured:
        likelihood = run.likelihood
        assert likelihood is not None
        mark = DOUBTED if warned(run) else ""
        cells = [Cell(run.title)]
        if reaching:
            cells.append(Cell(log_px_text(likelihood) + (mark if likelihood.has_log_px else "")))
            cells += [Cell(number(100.0 * reached_share(likelihood), 0)), Cell(number(_cost(likelihood), 0))]
        cells.append(Cell(elbo_text(likelihood)))
        for k in shown:
            where = np.flatnonzero(likelihood.n_samples == k)
            if len(where) and where[0] == len(likelihood.n_samples) - 1:
                cells.append(Cell(best_text(likelihood) + ("" if likelihood.has_log_px else mark)))
            else:
                cells.append(Cell(number(_mean(likelihood.bound_nats[:, where[0], 1]) if len(where) else np.nan)))
        if deep is not None:
            best = run.likelihood_deep
            cells.append(Cell(number(np.nan) if best is None else best_text(best)))
        cells += [Cell(floor_text(likelihood))] if with_floor else []
        cells += [Cell(floor_bits_text(likelihood))] if with_floor and in_bits else []
        cells += [Cell(elbo_bits_text(likelihood)), Cell(bits_text(likelihood))] if in_bits else []
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def bound_heading(runs: Sequence[LoadedRun]) -> str:
    """What a column of bounds on log p(x) is called: that of the cheapest methods where all runs have it, else L_K."""
    return "log p(x) ≥" if _all_have_log_px(runs) else "L_K"


def bound_of(likelihood: Likelihood, runs: Sequence[LoadedRun]) -> str:
    """A cell of that column, with `DOUBTED` where a replica's warning speaks of it."""
    if not _all_have_log_px(runs):
        return best_text(likelihood)
    return log_px_text(likelihood) + (DOUBTED if any(likelihood.warning) else "")


def _all_have_log_px(runs: Sequence[LoadedRun]) -> bool:
    return all(run.likelihood is None or run.likelihood.has_log_px for run in runs)


def shown_text(likelihood: Likelihood) -> str:
    """The number to show with its name and direction, in nats."""
    relation = "≥" if likelihood.has_log_px else "="
    text = log_px_text(likelihood) if likelihood.has_log_px else best_text(likelihood)
    return f"{likelihood.shown_as} {relation} {text} nats"


def reached_share(likelihood: Likelihood, replica: int | slice = slice(None)) -> float:
    """Share of images (and replicas) with the standard error that was wanted; NaN where only the curve is there."""
    if not likelihood.has_log_px:
        return float("nan")
    measured = np.isfinite(likelihood.log_px_nats[:, 1])
    measured &= np.isin(np.arange(len(measured)), np.arange(len(measured))[replica])
    return float(likelihood.log_px_reached[measured].mean()) if measured.any() else float("nan")


def _cost(likelihood: Likelihood) -> float:
    """Evaluations an image, on average."""
    values = likelihood.log_px_evaluations
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def mean_text(values: Array, digits: int = 2) -> str:
    """Mean over seeds ± the longer half of its 95 % interval: over seeds for values [R], and images for [R, B].

    Without ± where there is no interval: for one seed, and for seeds that are all the same.
    """
    found = of_mean(Sample(values, tuple(range(len(values)))))
    return _text(found.middle, found.half, digits)


def log_px_text(likelihood: Likelihood) -> str:
    """`bound_text` of log p(x) from below."""
    return bound_text(likelihood.log_px_nats, likelihood.log_px_datum_nats)


def best_text(likelihood: Likelihood) -> str:
    """`bound_text` of the largest K."""
    return bound_text(likelihood.best, likelihood.bound_datum_nats)


def elbo_text(likelihood: Likelihood) -> str:
    """`bound_text` of K = 1."""
    return bound_text(likelihood.elbo_nats, likelihood.elbo_datum_nats)


def bound_text(bound: Array, of_images: Array, digits: int = 2) -> str:
    """Mean of a likelihood [R, 3] over seeds ± the longer half of its 95 % interval over seeds and images [R, B].

    Without ± where no value of each image is kept: an interval over seeds alone does not hold.
    """
    half = of_mean(Sample(of_images, tuple(range(len(of_images))))).half if np.isfinite(of_images).any() else np.nan
    return _text(_mean(bound[:, 1]), half, digits)


def _text(mean: float, half: float, digits: int) -> str:
    return number(mean, digits) + ("" if np.isnan(half) else f" ± {number(half, digits)}")


def _mean(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def bad_share(likelihood: Likelihood, replica: int | slice = slice(None)) -> float:
    """Share of images (and replicas) with a k-hat above `good_k`, +inf included; NaN where none is defined."""
    k = likelihood.pareto_k[replica]
    known = k[~np.isnan(k)]
    return float((known > good_k(int(likelihood.n_samples[-1]))).mean()) if known.size else float("nan")


def warned(run: LoadedRun) -> int:
    """How many replicas carry a warning on the main likelihood."""
    return sum(map(bool, run.likelihood.warning)) if run.likelihood is not None else 0


def reliability(runs: Sequence[LoadedRun]) -> str:
    """One sentence on how many replicas carry a warning; empty where nothing was measured."""
    total = sum(len(run.likelihood.warning) for run in runs if run.likelihood is not None)
    bad = sum(map(warned, runs))
    if not total:
        return ""
    if not bad:
        return "Reliability: no replica carries a warning."
    nats = [run.likelihood.doubt_nats for run in runs if run.likelihood is not None]
    known = np.concatenate([values[np.isfinite(values)] for values in nats])
    far = f" by up to {number(known.max())} nats" if known.size else ""
    return (
        f"Reliability: {bad} of {total} replicas carry a warning (marked {DOUBTED}). Their bound holds on average, but "
        f"log p(x) may be higher{far}."
    )


def warnings(runs: Sequence[LoadedRun]) -> list[str]:
    """The warnings, replica by replica."""
    return [
        f"{run.label}, seed {seed}: {text}"
        for run in runs
        for likelihood in (run.likelihood, run.likelihood_deep)
        if likelihood is not None
        for seed, text in zip(run.seeds, likelihood.warning, strict=True)
        if text
    ]


def likelihood_csv(runs: Sequence[LoadedRun]) -> str:
    """One row per run, replica and K, with bits; that of log p(x) has the share of images without their error.

    A row "floor" is of independent columns; it has the mark of the replica.
    """
    heading = ["run", "seed", "images", "n_samples", "bound_nats_low", "bound_nats_middle", "bound_nats_high",
               "high_pareto_k_share", "direction", "mark", "bits_per_dim"]  # fmt: skip
    rows: list[list[object]] = []
    for run in runs:
        for likelihood in (run.likelihood, run.likelihood_deep):
            if likelihood is None:
                continue
            for replica, seed in enumerate(run.seeds):
                share, bits = bad_share(likelihood, replica), partial(_bits, likelihood)
                start, end = [run.label, seed, likelihood.n_images], [likelihood.direction, ""]
                for index, n_samples in enumerate(likelihood.n_samples):
                    interval = [float(value) for value in likelihood.bound_nats[replica, index]]
                    rows.append([*start, int(n_samples), *interval, share, *end, bits(interval[1])])
                if likelihood.has_log_px:
                    interval = [float(value) for value in likelihood.log_px_nats[replica]]
                    unreached = 1 - reached_share(likelihood, replica)
                    rows.append([*start, "log p(x)", *interval, unreached, *end, bits(interval[1])])
                if np.isfinite(likelihood.floor_nats[replica, 1]):
                    interval = [float(value) for value in likelihood.floor_nats[replica]]
                    rows.append([*start, "floor", *interval, np.nan, "", likelihood.marks[replica], bits(interval[1])])
    return to_csv(heading, rows)


def _bits(likelihood: Likelihood, nats: float) -> float:
    """A bound as bits per dimension; NaN where x has a density."""
    found = likelihood.in_bits(np.array([[nats]]))
    return float("nan") if found is None else float(found[0, 0])


def _shown(likelihood: Likelihood | None) -> list[int]:
    """At most three values of K above 1 (K = 1 is the ELBO): the smallest, a middle one, the largest."""
    assert likelihood is not None
    several = [int(k) for k in likelihood.n_samples if k > 1]
    if len(several) <= 3:
        return several
    return [several[0], several[len(several) // 2], several[-1]]
