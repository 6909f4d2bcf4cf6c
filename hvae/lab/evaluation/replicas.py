"""The replicas of a trained run, and their arrays side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import Trained, load_trained
from hvae.vocabulary import FAILED

Arrays = dict[str, NDArray[Any]]
Say = Callable[[str], None]
"""hears a line on what is being measured"""

SHARED = ("n_samples", "collapse_reference/", "reference")
"""arrays without a replica axis"""


@dataclass(frozen=True)
class Replicas:
    """A run at its newest checkpoint, and the test images in the random order that all measurements share."""

    trained: Trained
    test: Tensor
    index: NDArray[np.int64]
    """their places in the data set"""

    @staticmethod
    def of(run: Run, data: Dataset, device: str) -> "Replicas":
        """Raises `ConfigError` where there is no checkpoint."""
        order = data.test_order(run.config.evaluation.seed)
        return Replicas(load_trained(run, data, device), data.test[order].to(device), order.numpy())

    @property
    def models(self) -> list[HVAE]:
        """One a replica, in evaluation mode."""
        return self.trained.models

    @property
    def living(self) -> list[HVAE | None]:
        """None in place of a replica that became non-finite."""
        return [model if good else None for model, good in zip(self.models, self.alive, strict=True)]

    @property
    def alive(self) -> list[bool]:
        """Which replicas were finite so far."""
        return self.trained.alive


def stack(found: Sequence[Arrays | None], template: Arrays, words: Sequence[str] = ()) -> Arrays:
    """Arrays of all replicas along a first axis. A replica without arrays has NaN under the template's names.

    ``words`` replaces its texts, replica by replica; "failed" if not given.
    """
    words = words or [FAILED] * len(found)
    return {
        key: like if key.startswith(SHARED) else _column([None if a is None else a[key] for a in found], like, words)
        for key, like in template.items()
    }


def _column(found: Sequence[NDArray[Any] | None], like: NDArray[Any], words: Sequence[str]) -> NDArray[Any]:
    missing = {"U": words, "i": [-1] * len(found), "b": [False] * len(found)}.get(
        like.dtype.kind, [np.nan] * len(found)
    )
    dtype = "U64" if like.dtype.kind == "U" else None
    return np.stack(
        [
            np.full_like(like, fill, dtype=dtype) if values is None else values
            for values, fill in zip(found, missing, strict=True)
        ]
    )
