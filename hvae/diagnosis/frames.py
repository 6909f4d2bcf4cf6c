"""A diagnosis as a table of pandas, or as a tree of xarray."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hvae.diagnosis.layer import Layer, unit_of
from hvae.diagnosis.measured import Measured
from hvae.diagnosis.record import Array
from hvae.extras import need

COLUMNS = ("replica", "layer", "quantity", "low", "middle", "high", "unit")
BOUNDS = ["low", "middle", "high"]


def to_dataframe(diagnosis: Measured) -> Any:
    """Tidy: a row for every replica, layer and quantity; the layer is "" for what is of the whole model."""
    need("pandas", "A data frame needs")
    import pandas

    rows = [
        (seed, layer, quantity, *map(float, values[replica]), unit_of(quantity))
        for layer, quantity, values in _intervals(diagnosis)
        for replica, seed in enumerate(diagnosis.seeds)
    ]
    frame = pandas.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs = {"verdicts": dict(diagnosis.verdicts), **_attributes(diagnosis)}
    return frame


def _intervals(diagnosis: Measured) -> Iterator[tuple[str, str, Array]]:
    """Layer, quantity and [R, 3]."""
    for layer in diagnosis.layers:
        yield from ((layer.name, quantity, values) for quantity, values in layer.intervals.items())
        counts = layer.active_units()
        if np.isfinite(counts).any():
            yield layer.name, "active_units", np.stack([counts] * 3, axis=-1)
    if diagnosis.likelihood is not None and diagnosis.likelihood.has_log_px:
        yield "", "log_px_nats", diagnosis.likelihood.log_px_nats
    if diagnosis.likelihood is not None and np.isfinite(diagnosis.likelihood.floor_nats).any():
        yield "", "floor_nats", diagnosis.likelihood.floor_nats
    for quantity in ("bits_per_dim", "elbo_bits_per_dim", "floor_bits_per_dim"):
        bits = getattr(diagnosis.likelihood, quantity, None)
        if bits is not None:
            yield "", quantity, bits
    for name, curve in (("L", diagnosis.likelihood), ("deep_L", diagnosis.likelihood_deep)):
        if curve is not None:
            for index, k in enumerate(curve.n_samples):
                yield "", f"{name}_{k}_nats", curve.bound_nats[:, index]
    if diagnosis.annealed is not None:
        yield "", "annealed_nats", diagnosis.annealed.log_px_nats
        yield "", "sandwich_nats", diagnosis.annealed.sandwich_nats
    if diagnosis.exact is not None:
        yield "", "exact_log_px_nats", diagnosis.exact.log_px_nats
        yield from ((name, "exact_gap_nats", values) for name, values in diagnosis.exact.layer_gap_nats.items())
    if diagnosis.gap is not None:
        yield "", "total_gap_nats", diagnosis.gap.total_nats
        yield from ((name, "gap_nats", found.gap_nats) for name, found in diagnosis.gap.layers.items())


def to_datatree(diagnosis: Measured) -> Any:
    """A group for every layer, and one for the likelihood.

    Dimensions: `replica` (its seed), `bound` (low, middle, high), `epsilon` (the thresholds of the verdict), a layer's
    `unit`, `n_samples` (K) and `datum`. ArviZ reads a group with ``sample_dims="replica"``.
    """
    need("xarray", "A data tree needs")
    import xarray

    groups = {f"/{layer.name}": _layer(xarray, diagnosis, layer) for layer in diagnosis.layers}
    if diagnosis.likelihood is not None:
        groups["/likelihood"] = _likelihood(xarray, diagnosis)
    tree = xarray.DataTree.from_dict(groups)
    tree.attrs = _attributes(diagnosis)
    return tree


def _layer(xarray: Any, diagnosis: Measured, layer: Layer) -> Any:
    variables: dict[str, Any] = {"verdict": (("replica", "epsilon"), layer.verdict.astype(str))}
    for quantity, values in layer.intervals.items():
        variables[quantity] = (("replica", "bound"), values, {"units": unit_of(quantity)})
    for quantity, values in layer.unit_intervals.items():
        variables[quantity] = (("replica", "unit", "bound"), values, {"units": unit_of(quantity)})
    coordinates = {"replica": list(diagnosis.seeds), "bound": BOUNDS, "epsilon": list(diagnosis.epsilons)}
    return xarray.Dataset(variables, coordinates, {"n_units": layer.n_units})


def _likelihood(xarray: Any, diagnosis: Measured) -> Any:
    curve = diagnosis.likelihood
    assert curve is not None
    variables: dict[str, tuple[tuple[str, ...], Any]] = {
        "bound_nats": (("replica", "n_samples", "bound"), curve.bound_nats),
        "bound_datum_nats": (("replica", "datum"), curve.bound_datum_nats),
        "pareto_k": (("replica", "datum"), curve.pareto_k),
        "ess": (("replica", "datum"), curve.ess),
        "log_px_nats": (("replica", "bound"), curve.log_px_nats),
        "log_px_datum_nats": (("replica", "datum"), curve.log_px_datum_nats),
        "log_px_se_nats": (("replica", "datum"), curve.log_px_se_nats),
        "log_px_method": (("replica", "datum"), curve.log_px_method),
        "floor_nats": (("replica", "bound"), curve.floor_nats),
        "floor_datum_nats": (("replica", "datum"), curve.floor_datum_nats),
        "mark": (("replica",), list(curve.marks)),
        "warning": (("replica",), list(curve.warning)),
    }
    variables = {key: entry for key, entry in variables.items() if np.size(entry[1])}
    coordinates = {"replica": list(diagnosis.seeds), "bound": BOUNDS, "n_samples": curve.n_samples}
    return xarray.Dataset(variables, coordinates)


def _attributes(diagnosis: Measured) -> dict[str, Any]:
    return {
        "rule": diagnosis.rule,
        "schema": diagnosis.schema,
        "epsilon_nats": diagnosis.epsilon_nats,
        "order": diagnosis.order,
        "data": diagnosis.yardstick,
        "source": diagnosis.source,
    }
