"""What was written while a run was trained, as arrays over its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvae.diagnosis.layer import Layer
from hvae.diagnosis.record import Array, Arrays


@dataclass(frozen=True)
class Training:
    """What was written while training: T rows, at `step` [T]."""

    step: Array
    bound_nats: Array
    """[R, T]"""
    rate_unit_nats: Arrays
    """layer -> [R, T, D]"""
    active_units: Arrays
    """layer -> [R, T] units whose mean varies over the batch by more than `ACTIVE_VARIANCE` (Burda's statistic)"""

    @staticmethod
    def of(rows: Sequence[Mapping[str, Any]], layers: Sequence[Layer], n_replicas: int) -> "Training":
        """The metrics rows as arrays; a quantity that some rows lack is NaN there."""
        shape = (len(rows), n_replicas)
        bound = np.full(shape, np.nan)
        units = {layer.name: np.full((*shape, layer.n_units), np.nan) for layer in layers}
        active = {layer.name: np.full(shape, np.nan) for layer in layers}
        for t, row in enumerate(rows):
            _put(bound, t, row.get("bound_nats"))
            for name, array in units.items():
                _put(array, t, row.get(f"rate_unit_nats/{name}"))
                _put(active[name], t, row.get(f"active_units/{name}"))
        return Training(
            step=np.array([row["step"] for row in rows], dtype=int),
            bound_nats=bound.swapaxes(0, 1),
            rate_unit_nats={name: array.swapaxes(0, 1) for name, array in units.items() if np.isfinite(array).any()},
            active_units={name: array.swapaxes(0, 1) for name, array in active.items()},
        )


def _put(array: Array, index: int, values: Any) -> None:
    """Write one row where its shape fits; a row of another shape stays NaN."""
    if values is None:
        return
    try:
        row = np.array(values, dtype=float)
    except (TypeError, ValueError):
        return
    if row.shape == array[index].shape:
        array[index] = row
