"""What is measured of a run on request: annealed bounds, exact answers, the gap and its causes, gradients."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hvae.data import Dataset
from hvae.errors import ConfigError
from hvae.lab.evaluation.annealed import annealed_arrays
from hvae.lab.evaluation.budget import Budget, settings
from hvae.lab.evaluation.exact import exact_arrays
from hvae.lab.evaluation.gap import gap_arrays
from hvae.lab.evaluation.gradients import gradient_arrays
from hvae.lab.evaluation.replica import Replica
from hvae.lab.evaluation.replicas import Arrays, Replicas, stack
from hvae.lab.runs.run import Run
from hvae.vocabulary import FAILED

Measure = Callable[[Replica], Arrays]
MEASURES: Mapping[str, Measure] = {
    "annealed": annealed_arrays,
    "exact": exact_arrays,
    "gap": gap_arrays,
    "gradients": gradient_arrays,
}


def missing(run: Run, words: Sequence[str], budget: Budget, step: int) -> list[str]:
    """The measurements to do: not on disk, refused, or of another checkpoint or other settings."""
    return [word for word in words if not _is_there(run, word, budget, step)]


def _is_there(run: Run, word: str, budget: Budget, step: int) -> bool:
    try:
        arrays = run.load_arrays(word)
    except ConfigError:  # missing, or damaged and to be written again
        return False
    if any(text not in ("", FAILED) for text in arrays["refused"].tolist()):
        return False
    wanted = _settings(run, word, budget, int(arrays["n_test"]), step)
    return all(name in arrays and np.array_equal(arrays[name], value) for name, value in wanted.items())


def _settings(run: Run, word: str, budget: Budget, n_test: int, step: int) -> dict[str, int | tuple[int, ...]]:
    """What the numbers depend on: the same settings, the same numbers."""
    config = run.config.evaluation
    common = {"seed": config.seed, "n_bootstrap": config.n_bootstrap, "step": step, "n_test": n_test}
    return settings(budget, word, n_test) | common


def measure_further(
    run: Run, data: Dataset, words: Sequence[str], budget: Budget, *, device: str = "cpu", progress: bool = True
) -> list[str]:
    """Measure, and write the arrays of each word. Returns a sentence for each word that every replica refused.

    A replica refuses by a ValueError of one sentence. It has NaN, and the sentence is in `refused [R]`.
    """
    trained = Replicas.of(run, data, device)
    x, config = trained.test[: budget.images], run.config.evaluation
    refusals = []
    with tqdm(
        total=len(words) * len(trained.models), desc=f"{run.label} measured", disable=None if progress else True
    ) as bar:
        step = trained.trained.step
        last = max(step - 1, 0)
        stage = run.config.stage_at(last)
        replicas = [
            Replica(model, x, config, budget, _Ticks(bar), stage.objective, last - stage.from_step)
            for model in trained.models
        ]
        for word in words:
            each: list[Arrays | None] = []
            refused = []
            for replica, good in zip(replicas, trained.alive, strict=True):
                arrays, reason = _measured(MEASURES[word], replica) if good else (None, FAILED)
                each.append(arrays)
                refused.append(reason)
                bar.update()
            measured = [arrays for arrays in each if arrays is not None]
            if not measured:
                if set(refused) == {FAILED}:
                    refused = ["Every replica failed in training, so there is nothing to measure."] * len(refused)
                refusals.append(
                    f"{run.label} has no {word} numbers: {next(text for text in refused if text != FAILED)}"
                )
            texts = [FAILED if text == FAILED else "" for text in refused]
            stacked = stack(each, measured[0], texts) if measured else {}
            depends_on = _settings(run, word, budget, len(trained.test), step)
            stacked |= {name: np.array(value) for name, value in depends_on.items()}
            run.save_arrays(word, stacked | {"refused": np.array(refused)})
    return refusals


def _measured(measure: Measure, replica: Replica) -> tuple[Arrays | None, str]:
    """The arrays and no reason, or none and the reason."""
    try:
        return measure(replica), ""
    except torch.linalg.LinAlgError as failure:  # type: ignore[attr-defined]
        return None, f"A matrix of the stack is singular in floating point ({' '.join(str(failure).split())})."
    except ValueError as refusal:
        return None, " ".join(str(refusal).split())


class _Ticks:
    """Shows on the bar how many temperatures have passed."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar, self._n = bar, 0

    def __call__(self) -> None:
        self._n += 1
        if self._n % 20 == 0:
            self._bar.set_postfix_str(f"temperature {self._n}")
