"""What is measured of every run: its diagnosis, from its newest checkpoint."""

import dataclasses
from collections.abc import Callable, Sequence

from tqdm import tqdm

from hvae.data import Dataset
from hvae.diagnosis import Diagnosis, Sizes
from hvae.diagnosis.arrays import to_arrays
from hvae.diagnosis.layer import Layer
from hvae.lab.config import EvaluationConfig
from hvae.lab.evaluation.replicas import Replicas
from hvae.lab.runs.run import Run
from hvae.lab.training.halfway import not_settled
from hvae.measuring import measure


def sizes_of(config: EvaluationConfig) -> Sizes:
    """What is measured, as a run's configuration says; the rest has its default."""
    return Sizes(**dataclasses.asdict(config))


def evaluate(
    run: Run, data: Dataset, *, until_se: float | None = None, device: str = "cpu", progress: bool = True
) -> None:
    """Measure every replica of the newest checkpoint and write the arrays.

    log p(x) is brought to the standard error ``until_se`` in nats an image, by default that of `Sizes`. Of a run still
    in training, nothing is written if it ended and was measured meanwhile.
    """
    replicas = Replicas.of(run, data, device)
    with tqdm(total=2 * len(replicas.models), desc=f"{run.label} evaluated", disable=None if progress else True) as bar:
        found = diagnosed(run, replicas, data, bar.update, until_se)
    if run.done and replicas.trained.step < run.config.training.n_steps:
        return
    for name, arrays in to_arrays(found).items():
        run.save_arrays(name, arrays, step=found.step)


def diagnosed(
    run: Run, replicas: Replicas, data: Dataset, tick: Callable[[], object], until_se: float | None = None
) -> Diagnosis:
    """The diagnosis of the replicas of a run."""
    config, sizes, health = run.config, sizes_of(run.config.evaluation), replicas.trained.health
    if until_se is not None:
        sizes = dataclasses.replace(sizes, until_se=until_se)
    found = measure(
        replicas.living,
        replicas.test,
        sizes,
        seeds=config.training.seeds,
        like=replicas.models[0],
        order=config.model.order,
        yardstick=config.yardstick,
        shape=data.image_shape,
        label=run.label,
        source="",
        train=data.train,
        tick=tick,
    )
    assert found.likelihood is not None
    settled = not_settled(run, {layer.name: layer.verdict for layer in found.layers})
    return dataclasses.replace(
        found,
        layers=tuple(_marked(layer, settled[layer.name]) for layer in found.layers),
        step=replicas.trained.step,
        cards=run.read_cards(),
        died_at=health.died_at.cpu().numpy(),
        culprit=tuple("" if good else health.culprit(r) for r, good in enumerate(replicas.alive)),
        likelihood=dataclasses.replace(found.likelihood, image_index=replicas.index[: sizes.n_likelihood]),
    )


def _marked(layer: Layer, marks: Sequence[str]) -> Layer:
    """The layer with further marks beside those that it has."""
    both = (", ".join(filter(None, pair)) for pair in zip(layer.marks, marks, strict=True))
    return dataclasses.replace(layer, marks=tuple(both))
