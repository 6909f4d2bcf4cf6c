"""What of a study is kept with its page: all that tables and figures read, digit for digit where a table reads it.

    left out    other numbers of images that only their shares and medians are read of, weights of classifiers
    rounded     likelihoods of images, to 1/1024 nat in float32; shares of units, to float32
    reduced     k-hat to the side of its limit that it is on, effective sample sizes to their median (both read so),
                units to the middle of their intervals, in float32
    for the eye rates per unit over training in float16 at some 48 steps, of the runs and the replica that are drawn;
                images and samples in 16 greys, of the same runs, at most three with the draws that a grid shows

What is reduced once is not changed by being reduced again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hvae.analysis.figures.resampling import MAX_DRAWS, cuts
from hvae.analysis.figures.unit_rates import first_alive
from hvae.analysis.kept import METRICS, Arrays, Kept, KeptRun
from hvae.analysis.load import Array, LoadedRun, arrays_of
from hvae.analysis.study import Study
from hvae.diagnosis.pixels import Pixels
from hvae.lab.runs.remarks import START
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import stale
from hvae.vocabulary import good_k

N_STEPS = 48
N_IMAGES = 3
GREYS = 16
"""levels above white; sixteenths are exact in float16, and all but its first byte is 0"""

LEFT_OUT = ("kl_standard_unit_nats", "kl_prior_unit_nats", "collapse_reference")
"""of the diagnostics"""
WHOLE = ("moved_share",)
"""intervals that stay whole; of units only the middle is kept"""
LIKELIHOOD = (
    "n_samples", "bound_nats", "elbo_nats", "warning", "image_index", "log_px_nats", "log_px_reached", "doubt_nats",
    "until_se", "floor_nats", "floor_fitted_to", "floor_refused", "n_columns", "n_levels",
)  # fmt: skip
OF_IMAGES = ("bound_datum_nats", "elbo_datum_nats", "annealed_datum_nats", "log_px_datum_nats", "floor_datum_nats")
"""likelihoods of images, which their intervals are made of"""
SHARES = ("posterior_share", "encoder_share")
"""intervals of units that are kept in single precision"""
PARTS_OF_NETS = "layer/"
"""of a part beside the runs: weights of a classifier"""
PICTURES = "images/"
UNIT_RATES = "rate_unit_nats/"


def kept(study: Study) -> Kept:
    """The study's runs and what was measured beside them, reduced."""
    shown = {id(run) for run in study.deepest.values()}
    beside = {run.path.name: run.beside for run in study.runs if run.beside}
    return Kept(
        preset=study.preset,
        runs=tuple(_run(run, shown=id(run) in shown) for run in study.runs),
        measured={part: _part(arrays) for part, arrays in {**study.measured, **beside}.items()},
        measured_by=study.measured_by,
    )


def _run(run: LoadedRun, *, shown: bool) -> KeptRun:
    source = run.source
    assert source is not None  # it was read
    files = {METRICS: _metrics(run, shown)} if run.metrics else {}
    old = stale(source) if isinstance(source, Run) else {}
    for name, reduced in FILES.items():
        if arrays := arrays_of(source, old, name):
            files[name] = reduced(arrays)
    if images := arrays_of(source, old, "images"):
        files["images"] = _images(images, [layer.name for layer in cuts(run)] if shown else None)
    return KeptRun(
        run.path, run.experiment, run.label, run.config, run.done, run.provenance, files, run.diagnosis.cards
    )


def _diagnostics(arrays: Arrays) -> Arrays:
    found = {}
    for key, values in arrays.items():
        stem = key.partition("/")[0]
        if stem == "collapsed_fraction":
            found[key] = values.astype(np.float32)
        elif stem not in LEFT_OUT:
            found[key] = _middle(values) if values.ndim == 3 and stem not in WHOLE else values
    return found


def _likelihood(arrays: Arrays) -> Arrays:
    found = {}
    for suffix in ("", "_deep"):
        found |= {f"{key}{suffix}": arrays[f"{key}{suffix}"] for key in LIKELIHOOD if f"{key}{suffix}" in arrays}
        found |= {f"{key}{suffix}": _nats(arrays[f"{key}{suffix}"]) for key in OF_IMAGES if f"{key}{suffix}" in arrays}
        cost = f"log_px_evaluations{suffix}"
        if cost in arrays and arrays[cost].size:
            found[cost] = arrays[cost].mean(-1, keepdims=True)
        if f"pareto_k{suffix}" in arrays:
            found[f"pareto_k{suffix}"] = _side(arrays[f"pareto_k{suffix}"], int(arrays[f"n_samples{suffix}"][-1]))
        if f"ess{suffix}" in arrays:
            found[f"ess{suffix}"] = _median(arrays[f"ess{suffix}"])
    return found


def _annealed(arrays: Arrays) -> Arrays:
    found = _without_data(arrays)
    for left_out in ("annealed_se_nats", "annealed_ess"):
        found.pop(left_out, None)
    for key, n_samples in (("annealed_pareto_k", "n_chains"), ("curve_pareto_k", "n_samples")):
        if key in found:
            found[key] = _side(found[key], int(np.max(arrays[n_samples])))
    return found


def _without_data(arrays: Arrays) -> Arrays:
    """All but what is of single data, likelihoods excepted."""
    kept = {key: values for key, values in arrays.items() if "datum" not in key}
    return kept | {key: _nats(arrays[key]) for key in OF_IMAGES if key in arrays}


def _single(arrays: Arrays, stems: tuple[str, ...]) -> Arrays:
    return {
        key: values.astype(np.float32) if key.partition("/")[0] in stems else values for key, values in arrays.items()
    }


def _nats(values: Array) -> Array:
    """To 1/1024 nat: as fine as any table, and small. Seeds that failed are NaN."""
    return (np.round(values * 1024) / 1024).astype(np.float32)


FILES: Mapping[str, Any] = {
    "diagnostics": _diagnostics,
    "likelihood": _likelihood,
    "annealed": _annealed,
    "exact": _without_data,
    "gap": lambda arrays: _single(_without_data(arrays), SHARES),
    "gradients": _without_data,
    "halfway": lambda arrays: {key: _nats(arrays[key]) for key in OF_IMAGES if key in arrays},
    START: dict,
}
"""name of a file of a run's evaluation -> how it is reduced"""


def _middle(intervals: Array) -> Array:
    """`[R, D, 3]` with the middles alone."""
    found = np.full(intervals.shape, np.nan, dtype=np.float32)
    found[..., 1] = intervals[..., 1]
    return found


def _side(pareto_k: Array, n_samples: int) -> Array:
    """0 where k-hat is good, infinite where it is not, NaN where there is none: all that is read of it."""
    sides = np.where(pareto_k > good_k(n_samples), np.inf, 0.0)
    return np.where(np.isnan(pareto_k), np.nan, sides).astype(np.float16)


def _median(values: Array) -> Array:
    """The median of all in place of each that is finite: medians of it are the same."""
    finite = np.isfinite(values)
    return np.where(finite, np.median(values[finite]) if finite.any() else np.nan, np.nan)


def _metrics(run: LoadedRun, shown: bool) -> Arrays:
    """Steps, active units, and of a run that is drawn the rates of units."""
    rows = run.metrics
    keys = dict.fromkeys(key for row in rows for key in row)
    found: dict[str, Array] = {"step": np.array([row["step"] for row in rows])}
    for key in keys:
        if key.startswith("active_units/"):
            found[key] = _stacked(rows, key, np.float32)
        elif key.startswith(UNIT_RATES) and shown:
            rates = _stacked(rows, key, np.float16)
            replica, steps = first_alive(run), np.flatnonzero(~np.isnan(rates).all(axis=(1, 2)))
            if len(steps) > N_STEPS:
                steps = steps[np.linspace(0, len(steps) - 1, N_STEPS).round().astype(int)]
            found[key] = np.full_like(rates, np.nan)
            found[key][steps, replica] = rates[steps, replica]
    return found


def _stacked(rows: Sequence[Mapping[str, Any]], key: str, dtype: Any) -> Array:
    """`[T, …]`, NaN in rows without the key."""
    shape = np.shape(next(row[key] for row in rows if key in row))
    values = [np.array(row[key], dtype=float) if key in row else np.full(shape, np.nan) for row in rows]
    return np.stack(values).astype(dtype)


def _images(images: Arrays, resampled: Sequence[str] | None) -> Arrays:
    """Of a run that has a grid of its own the first images, where they are images; of the others their shape."""
    shape = {key: images[key] for key in ("image_shape",) if key in images}
    if resampled is None or Pixels.of(np.atleast_1d(shape.get("image_shape", ()))) is None:
        return shape
    drawn = {key: values for key, values in images.items() if key in ("x", "reconstruction")}
    draws = [key for key in (f"resample/{name}" for name in resampled) if key in images]
    found = {key: _greys(values[:N_IMAGES]) for key, values in drawn.items()}
    found |= {key: _greys(images[key][:N_IMAGES, :MAX_DRAWS]) for key in draws}
    return shape | found | {key: _greys(images[key][: N_IMAGES * MAX_DRAWS]) for key in ("samples",) if key in images}


def _part(arrays: Arrays) -> Arrays:
    """What was measured beside the runs."""
    return {
        key: _greys(values) if key.startswith(PICTURES) else _nats(values) if key in OF_IMAGES else values
        for key, values in arrays.items()
        if not key.startswith(PARTS_OF_NETS)
    }


def _greys(values: Array) -> Array:
    """Images as they are drawn, between white (0) and black (1)."""
    levels = np.nan_to_num(np.clip(values, 0, 1)) * GREYS
    return (np.round(levels) / GREYS).astype(np.float16)
