"""What is measured on request: annealed bounds, exact answers, the gap and its causes, the signal of gradients."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.arrays import FURTHER
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.record import Setting, joined, read
from hvae.diagnosis.sizes import Budget
from hvae.evidence import HVAE
from hvae.measuring.annealed import measure_annealed
from hvae.measuring.exact import measure_exact
from hvae.measuring.gap import measure_gap
from hvae.measuring.gradients import measure_gradients
from hvae.measuring.replica import AsTrained, Replica, settings, silent

MEASURES: Mapping[str, Callable[[Replica], Any]] = {
    "annealed": measure_annealed,
    "exact": measure_exact,
    "gap": measure_gap,
    "gradients": measure_gradients,
}
"""word -> what measures it of one replica"""
ALL_FAILED = "Every replica failed in training, so there is nothing to measure."


def further(
    words: Sequence[str],
    models: Sequence[HVAE | None],
    x: Tensor,
    budget: Budget,
    layers: Sequence[str],
    *,
    seed: int = 0,
    as_trained: AsTrained | None = None,
    step: int = 0,
    step_of_objective: int = 0,
    tick: Callable[[], object] = silent,
    done: Callable[[], object] = silent,
) -> Iterator[tuple[str, Any]]:
    """Each word of `MEASURES` and its record: an `Annealed`, `Exact`, `Gap` or `Signal`, as it is made.

    ``x [N, D]`` are all data in random order, of which the budget's images are taken; None is a replica that died;
    ``layers`` are the names of the latents. A replica refuses by a ValueError of one sentence. It has NaN, and the
    sentence is in `refused [R]`. The record says what it depends on: its part of the budget, seeds, the training
    ``step``, the number of data. ``tick`` is called after every temperature, ``done`` after every replica and word.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> models = [stack.model, None]
    >>> ((word, found),) = further(["exact"], models, stack.x, Budget(images=5), ["z1", "z2"])
    >>> word, found.reference, found.log_px_nats.shape, found.settings["n_images"]
    ('exact', 'LinearGaussian', (2, 3), 5)
    """
    images = x[: budget.images]
    replicas = [
        None if model is None else Replica(model, images, budget, seed, tick, as_trained, step_of_objective)
        for model in models
    ]
    common: dict[str, Setting] = {"seed": seed, "step": step, "n_test": len(x)}
    for word in words:
        each, refused = [], []
        for replica in replicas:
            record, reason = (None, "") if replica is None else _measured(MEASURES[word], replica)
            each.append(record)
            refused.append(reason)
            done()
        depends_on = settings(budget, word, len(x)) | common
        if any(record is not None for record in each):
            yield word, replace(joined(each), settings=depends_on, refused=tuple(refused))
        else:
            yield word, _refused(word, refused if any(refused) else [ALL_FAILED] * len(models), depends_on, layers)


def _refused(word: str, reasons: Sequence[str], depends_on: Mapping[str, Setting], layers: Sequence[str]) -> Any:
    """A record without numbers."""
    arrays = {name: np.array(value) for name, value in depends_on.items()} | {"refused": np.array(reasons)}
    return read(FURTHER[word], arrays, len(reasons), () if word == "gradients" else layers)


def _measured(measure: Callable[[Replica], Any], replica: Replica) -> tuple[Any, str]:
    """The record and no reason, or none and the reason."""
    try:
        return measure(replica), ""
    except torch.linalg.LinAlgError as failure:  # type: ignore[attr-defined]
        return None, f"A matrix of the stack is singular in floating point ({' '.join(str(failure).split())})."
    except ValueError as refusal:
        return None, " ".join(str(refusal).split())


def with_further(diagnosis: Diagnosis, records: Mapping[str, Any]) -> Diagnosis:
    """The diagnosis with further records, by word."""
    names = {"gradients": "signal"}
    if "gap" in records:
        records = {**records, "gap": replace(records["gap"], order=diagnosis.order)}
    return replace(diagnosis, **{names.get(word, word): record for word, record in records.items()})
