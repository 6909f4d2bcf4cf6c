"""All planted faults, by name."""

from collections.abc import Mapping

from tests.faults import blocks, diagnostics, estimators, model, references, training
from tests.faults.fault import Fault

ALL = (*model.FAULTS, *blocks.FAULTS, *training.FAULTS, *estimators.FAULTS, *references.FAULTS, *diagnostics.FAULTS)
FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in ALL}


def parse(key: str) -> tuple[Fault, float | None]:
    """The fault and its size from `Fault.key`. Raises ValueError for one that is not known."""
    name, _, size = key.partition("=")
    if name not in FAULTS:
        raise ValueError(f"There is no fault {name!r}; the faults are {', '.join(FAULTS)}.")
    return FAULTS[name], float(size) if size else None
