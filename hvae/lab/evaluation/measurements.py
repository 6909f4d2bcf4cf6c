"""What is measured of a run on request: annealed bounds, exact answers, the gap and its causes, gradients."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from hvae.data import Dataset
from hvae.diagnosis.arrays import further_arrays
from hvae.diagnosis.record import Setting
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.lab.assembly import build_objective, relax
from hvae.lab.config import ObjectiveConfig
from hvae.lab.evaluation.budget import Budget
from hvae.lab.evaluation.replicas import Replicas
from hvae.lab.runs.run import Run
from hvae.measuring import further
from hvae.measuring.replica import settings
from hvae.objectives import Objective
from hvae.vocabulary import FAILED


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


def _settings(run: Run, word: str, budget: Budget, n_test: int, step: int) -> dict[str, Setting]:
    """What the numbers depend on: the same settings, the same numbers."""
    config = run.config.evaluation
    common = {"seed": config.seed, "step": step, "n_test": n_test}
    return settings(budget, word, n_test) | common


def measure_further(
    run: Run, data: Dataset, words: Sequence[str], budget: Budget, *, device: str = "cpu", progress: bool = True
) -> list[str]:
    """Measure, and write the arrays of each word. Returns a sentence for each word that every replica refused.

    A replica refuses by a ValueError of one sentence. It has NaN, and the sentence is in `refused [R]`.
    """
    replicas = Replicas.of(run, data, device)
    config, step = run.config.evaluation, replicas.trained.step
    last = max(step - 1, 0)
    stage = run.config.stage_at(last)

    def as_trained(model: HVAE) -> tuple[HVAE, Objective]:
        return _as_trained(model, stage.objective)

    refusals = []
    total = len(words) * len(replicas.models)
    with tqdm(total=total, desc=f"{run.label} measured", disable=None if progress else True) as bar:
        for word, record in further(
            words, replicas.living, replicas.test, budget, replicas.models[0].latents,
            seed=config.seed, step=step,
            as_trained=as_trained, step_of_objective=last - stage.from_step, tick=_Ticks(bar), done=bar.update,
        ):  # fmt: skip
            if all(text or not good for text, good in zip(record.refused, replicas.alive, strict=True)):
                refusals.append(f"{run.label} has no {word} numbers: {next(filter(None, record.refused))}")
            run.save_arrays(word, further_arrays(record, replicas.alive))
    return refusals


def _as_trained(model: HVAE, config: ObjectiveConfig) -> tuple[HVAE, Objective]:
    """A copy in training mode, which draws discrete layers as in training, and its objective."""
    relaxed = relax(copy.deepcopy(model), config).train()
    return relaxed, build_objective(config, relaxed.latents)


class _Ticks:
    """Shows on the bar how many temperatures have passed."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar, self._n = bar, 0

    def __call__(self) -> None:
        self._n += 1
        if self._n % 20 == 0:
            self._bar.set_postfix_str(f"temperature {self._n}")
