"""What is measured of every run: its layers, the bounds on its likelihood, pictures."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from hvae.data import Dataset
from hvae.diagnostics import units
from hvae.evidence import HVAE
from hvae.lab.evaluation.images import image_arrays
from hvae.lab.evaluation.layers import epsilons, layer_diagnostics
from hvae.lab.evaluation.likelihood import likelihood_arrays
from hvae.lab.evaluation.replicas import Arrays, Replicas, stack
from hvae.lab.runs.run import Run

N_MIXTURE = 8
"""a top-down mixture has at most this many times n images"""


@torch.no_grad()
def evaluate(run: Run, data: Dataset, *, device: str = "cpu", progress: bool = True) -> None:
    """Measure every replica of the newest checkpoint and write the arrays.

    Of a run still in training, nothing is written if it ended and was measured meanwhile.
    """
    config = run.config.evaluation
    replicas = Replicas.of(run, data, device)
    found, models, alive, test = replicas.trained, replicas.models, replicas.alive, replicas.test
    x, rest = test[: config.n_images], test[config.n_images : N_MIXTURE * config.n_images]
    silent = None if progress else True
    with tqdm(total=2 * len(models), desc=f"{run.label} evaluated", disable=silent) as bar:

        def every(measure: Callable[[HVAE], Arrays]) -> Arrays:
            """The arrays of all replicas, stacked; a replica that is not alive takes NaN."""
            each: list[Arrays | None] = []
            for model, good in zip(models, alive, strict=True):
                each.append(measure(model) if good else None)
                bar.update()
            measured = [arrays for arrays in each if arrays is not None]
            return stack(each, template=measured[0] if measured else measure(models[0]))

        diagnostics = every(partial(layer_diagnostics, x=x, config=config, extra=rest))
        likelihood = every(partial(likelihood_arrays, x=test, config=config))
    if run.done and found.step < run.config.training.n_steps:
        return
    run.save_arrays(
        "diagnostics",
        diagnostics
        | {
            "seeds": np.array(run.config.training.seeds),
            "step": np.array(found.step),
            "alive": np.array(alive),
            "died_at": found.health.died_at.cpu().numpy(),
            "culprit": np.array(["" if good else found.health.culprit(r) for r, good in enumerate(alive)]),
            "n_images": np.array(len(x)),
            "epsilons": epsilons(config),
            "order": np.array(run.config.model.order),
            "bottom_up": np.array(models[0].bottom_up),
            "layers": np.array(models[0].latents),
            "collapse_epsilons": units.EPSILONS,
        },
    )
    run.save_arrays("likelihood", likelihood | {"image_index": replicas.index[: config.n_likelihood]})
    first = next((model for model, good in zip(models, alive, strict=True) if good), None)
    if first is not None:
        run.save_arrays("images", image_arrays(first, test[:10], data.image_shape, config.seed))
