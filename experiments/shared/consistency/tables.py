"""Objectives side by side: likelihood, collapse, and how far encoder and decoder agree."""

from collections.abc import Sequence

import numpy as np

from hvae.analysis.load import Array, Arrays, LoadedRun
from hvae.analysis.study import Study
from hvae.analysis.tables.comparison import layers_text
from hvae.analysis.tables.likelihood import bound_heading, bound_text, mean_text
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv

DISTANCES = {
    "limit-shot": "limit – single-shot",
    "limit-test": "limit – test",
    "shot-test": "single-shot – test",
    "settling": "step T/2 – step T",
    "starts": "two starts",
}
"""key of a distance -> the two ends of it"""


def compared(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """The runs with measured consistency."""
    return [run for run in runs if "limit-shot" in run.beside]


def consistency_tables(study: Study) -> dict[str, Table]:
    """Title of the panel -> one row per run: steps, CPU time where it is known, bounds, active layers, distances."""
    costed = any("cpu_seconds" in run.beside for run in study.runs)
    columns = (
        Column("objective", numeric=False),
        Column("steps"),
        *((Column("CPU", "s, all seeds"),) if costed else ()),
        Column("ELBO", "nats"),
        Column(bound_heading(study.runs), "nats"),
        Column("gap ≥", "nats"),
        Column("active layers", "seed by seed"),
        Column("I, top", "nats"),
        *(Column(words, "Fréchet") for words in DISTANCES.values()),
    )
    return {
        title: Table(columns, tuple(_row(run, costed) for run in compared(runs)))
        for title, runs in study.panels.items()
        if compared(runs)
    }


def _row(run: LoadedRun, costed: bool) -> tuple[Cell, ...]:
    cells = [run.title, str(run.config.training.n_steps)]
    if costed:
        cells.append(number(float(run.beside.get("cpu_seconds", np.nan)), 0))
    if run.likelihood is None:
        cells += [number(np.nan)] * 3
    else:
        found = run.likelihood
        elbo, best = (found.elbo_nats, found.elbo_datum_nats), (found.shown, found.shown_datum_nats)
        cells += [_bound_text(*elbo), _bound_text(*best), _bound_text(best[0] - elbo[0], best[1] - elbo[1])]
    cells += [layers_text(run), mean_text(run.layers[-1].interval("information_nats")[:, 1])]
    cells += [mean_text(run.beside[key][:, 1]) for key in DISTANCES]
    return tuple(map(Cell, cells))


def _bound_text(bound: Array, of_images: Array) -> str:
    """`bound_text`, but one figure of a bound that has left every scale."""
    mean = float(np.nanmean(bound[:, 1])) if np.isfinite(bound[:, 1]).any() else np.nan
    return f"{mean:.0e}".replace("-", "\N{MINUS SIGN}", 1) if abs(mean) > 1e5 else bound_text(bound, of_images)


def consistency_csv(study: Study) -> dict[str, str]:
    """File name -> one row per run, replica and distance; nothing where none was measured."""
    rows = [
        [run.label, seed, key, run.config.training.n_steps, float(run.beside[f"{key}/plain"][r]), *run.beside[key][r]]
        for run in compared(study.runs)
        for r, seed in enumerate(run.seeds)
        for key in DISTANCES
    ]
    heading = ["run", "seed", "distance", "n_steps", "plain", "low", "corrected", "high"]
    return {"consistency.csv": to_csv(heading, rows)} if rows else {}


def consistency_summary(study: Study) -> list[str]:
    """Accuracy of the classifier, distance of two halves of the test images, and whether the chains came to rest."""
    runs, classifier = compared(study.runs), study.measured.get("classifier")
    if not runs or classifier is None:
        return []
    n, n_steps = int(classifier["n_samples"]), int(classifier["n_steps"])
    plain = float(classifier["floor/plain"])
    low, middle, high = classifier["floor"]
    moving = [run.title for run in runs if _still_moving(run.beside, plain)]
    found = [
        f"Fréchet distances are of {n} images against {n}, in features of a classifier that is right on "
        f"{100 * float(classifier['test_accuracy']):.1f} % of the test images. Two halves of the test images lie "
        f"{number(middle)} [{number(low)}, {number(high)}] apart, uncorrected {number(plain)}."
    ]
    rule = (
        f"from step {n_steps // 2} to step {n_steps}, and between its two starts, less than a tenth of its distance to "
        "single-shot samples, or than the uncorrected distance of the halves"
    )
    if not moving:
        return [*found, f"Every chain came to rest: {rule}."]
    return [*found, f"{len(runs) - len(moving)} of {len(runs)} chains came to rest ({rule}); not {', '.join(moving)}."]


def _still_moving(distances: Arrays, floor: float) -> bool:
    moved = max(float(np.nanmean(distances[key][:, 1])) for key in ("settling", "starts"))
    return moved > max(floor, 0.1 * float(np.nanmean(distances["limit-shot"][:, 1])))
