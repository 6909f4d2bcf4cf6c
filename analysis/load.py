"""Run directories, and what was measured from outside, as records of arrays.

A run is a `hvae.diagnosis.Diagnosis`, and what only a run has: its configuration, its training, its provenance. What
was not measured is NaN of the right shape, so that a figure drops a missing point in the same way as a failed replica.
Shapes lead with R, the replicas; an interval is a last axis of three, (low, middle, high).
"""

import dataclasses
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.kept import KeptRun, holds_kept, read_kept
from hvae.analysis.trained import Training
from hvae.diagnosis.arrays import Outline, from_arrays, outline_of
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.gap import Annealed, Exact, Gap
from hvae.diagnosis.layer import Layer
from hvae.diagnosis.likelihood import Likelihood as Likelihood
from hvae.diagnosis.likelihood import Pictures, Signal
from hvae.diagnosis.measured import OUTSIDE, Doubt
from hvae.diagnosis.record import Array as Array
from hvae.diagnosis.record import Arrays as Arrays
from hvae.diagnosis.record import Texts
from hvae.diagnosis.saved import Saved, find_saved
from hvae.errors import ConfigError
from hvae.lab.config import MERGING, RunConfig
from hvae.lab.runs.remarks import START, remarks, skipped, unlucky
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import stale
from hvae.lab.runs.survey import find_runs
from hvae.outside import sound

Source = Run | KeptRun | Saved


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run directory, or a saved diagnosis, read; two readings are two records."""

    path: Path
    experiment: str
    label: str
    config: RunConfig | None
    """None for what was measured from outside"""
    done: bool
    diagnosis: Diagnosis
    provenance: tuple[Mapping[str, Any], ...]
    """one entry per session that worked on the run"""
    metrics: Sequence[Mapping[str, Any]]
    source: Source | None = None
    """what was read; None for a diagnosis that is not on disk"""
    elbo_halfway_nats: Array | None = None
    """[R, n] at half of training, of the first n images of the likelihood"""
    beside: Arrays = field(default_factory=dict)
    """what the experiment measured of this run beside its evaluation"""

    def with_measured(self, **changes: Any) -> "LoadedRun":
        """The same with other fields of its diagnosis."""
        return dataclasses.replace(self, diagnosis=dataclasses.replace(self.diagnosis, **changes))

    # what tables and figures read of its diagnosis

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.diagnosis.seeds

    @property
    def alive(self) -> Array:
        return self.diagnosis.alive

    @property
    def died_at(self) -> Array:
        return self.diagnosis.died_at

    @property
    def culprit(self) -> Texts:
        return self.diagnosis.culprit

    @property
    def step(self) -> int | None:
        return self.diagnosis.step

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.diagnosis.layers

    @property
    def epsilons(self) -> tuple[float, ...]:
        return self.diagnosis.epsilons

    @property
    def epsilon_nats(self) -> float:
        return self.diagnosis.epsilon_nats

    @property
    def epsilon_index(self) -> int:
        return self.diagnosis.epsilon_index

    @property
    def n_images(self) -> int:
        return self.diagnosis.n_images

    @property
    def order(self) -> str:
        return self.diagnosis.order

    @property
    def collapse_epsilons(self) -> Array:
        return self.diagnosis.collapse_epsilons

    @property
    def likelihood(self) -> Likelihood | None:
        return self.diagnosis.likelihood

    @property
    def likelihood_deep(self) -> Likelihood | None:
        return self.diagnosis.likelihood_deep

    @property
    def annealed(self) -> Annealed | None:
        return self.diagnosis.annealed

    @property
    def exact(self) -> Exact | None:
        return self.diagnosis.exact

    @property
    def exact_beside_gap(self) -> Exact | None:
        return self.diagnosis.exact_beside_gap

    @property
    def gap(self) -> Gap | None:
        return self.diagnosis.gap

    @property
    def signal(self) -> Signal | None:
        return self.diagnosis.signal

    @property
    def pictures(self) -> Pictures | None:
        return self.diagnosis.pictures

    @property
    def depth(self) -> int:
        return self.diagnosis.depth

    @property
    def n_replicas(self) -> int:
        return self.diagnosis.n_replicas

    @property
    def active_layers(self) -> Array:
        return self.diagnosis.active_layers

    @property
    def undecided_layers(self) -> Array:
        return self.diagnosis.undecided_layers

    @property
    def yardstick(self) -> str:
        return self.diagnosis.yardstick

    @property
    def evaluated(self) -> bool:
        return self.diagnosis.evaluated

    @property
    def measured_further(self) -> bool:
        return self.diagnosis.measured_further

    # what only a run has

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration, section by section; empty where there is none."""
        return {} if self.config is None else dataclasses.asdict(self.config)

    @property
    def data_name(self) -> str:
        """The data, by name where they have one."""
        return self.yardstick if self.config is None else self.config.data.name

    @property
    def early(self) -> str:
        """ "measured at step s of n" for a run measured before its last step, otherwise empty."""
        if self.config is None or self.step is None or self.step >= self.config.training.n_steps:
            return ""
        return f"measured at step {self.step} of {self.config.training.n_steps}"

    @property
    def beta_at_end(self) -> float:
        """The weight of the rates at the last step of training; NaN where there was none."""
        if self.config is None:
            return np.nan
        last = self.config.training.n_steps - 1
        stage = self.config.stage_at(last)
        return stage.objective.beta(last - stage.from_step)

    @property
    def gained_nats(self) -> Array:
        """[R, n] by how much the ELBO rose in the last half of training, image by image; [R, 0] where unknown."""
        half = self.elbo_halfway_nats
        if half is None or self.likelihood is None or self.early:
            return np.zeros((self.n_replicas, 0))
        end = self.likelihood.elbo_datum_nats
        n = min(half.shape[1], end.shape[1])
        return end[:, :n] - half[:, :n]

    @property
    def title(self) -> str:
        """The label, with a star where a note says that the run was measured early."""
        return f"{self.label} *" if self.early else self.label

    @cached_property
    def training(self) -> Training:
        """What was written while training, as arrays."""
        return Training.of(self.metrics, self.layers, self.n_replicas)


def load_run(run: Source) -> LoadedRun:
    """Everything `analysis` may ask of a run, finished or not, or of a saved diagnosis."""
    old = stale(run) if isinstance(run, Run) else {}
    arrays = partial(arrays_of, run, old)
    cards, start = run.read_cards(), arrays(START)
    known = outline_of(arrays("diagnostics")) if run.config is None else outline(run.config)
    origin = run.source if isinstance(run, Saved) else OUTSIDE if run.config is None else ""
    found = from_arrays(Diagnosis, arrays, known, label=run.label, source=origin)
    rows = run.read_metrics()
    said = () if run.config is None else (
        *remarks(run.config, cards), *(unlucky(start, run.config) if start else ()), *skipped(rows, run.config),
        *(Doubt(sentence, "files") for sentence in old.values()),
    )  # fmt: skip
    notes, checks = (run.notes, run.checks) if isinstance(run, Saved) else (said, ())
    return LoadedRun(
        path=run.path,
        experiment=run.experiment,
        label=run.label,
        config=run.config,
        done=run.done,
        diagnosis=dataclasses.replace(found, cards=cards, notes=notes, checks=checks),
        provenance=tuple(run.read_provenance()),
        metrics=rows,
        source=run,
        elbo_halfway_nats=arrays("halfway").get("elbo_datum_nats"),
    )


def arrays_of(run: Source, old: Collection[str], name: str) -> Arrays:
    """The arrays of a file; none where there is no such file, or it is ``old``: numbers of two steps are not mixed."""
    return run.load_arrays(name) if run.has_arrays(name) and name not in {*old} - {"diagnostics"} else {}


def outline(config: RunConfig) -> Outline:
    """What a configuration says of a run before it is measured."""
    model = config.model
    return Outline(
        seeds=config.training.seeds,
        units={f"z{index}": units for index, units in enumerate(model.units, start=1)},
        order=model.order,
        bottom_up=model.order not in MERGING,
        epsilon_nats=config.evaluation.epsilon_nats,
        yardstick=config.yardstick,
    )


def of_diagnosis(diagnosis: Diagnosis) -> LoadedRun:
    """A diagnosis that lies nowhere, for tables and figures."""
    label = diagnosis.label or "this model"
    return LoadedRun(Path(), "", label, None, True, diagnosis, provenance=(), metrics=())


def load_runs(directory: Path) -> list[LoadedRun]:
    """Every run and saved diagnosis under `directory`, which may itself be one, or a page of results with arrays.

    One that cannot be read is left out with a warning; `ConfigError` where none can.
    """
    if holds_kept(directory):
        return [load_run(run) for run in read_kept(directory).runs]
    runs, refused = [], []
    for run in (*find_runs(directory), *find_saved(directory)):
        try:
            with sound(run.path, f"see `hvae verify {run.path}`"):
                runs.append(load_run(run))
        except ConfigError as error:
            refused.append(error)
    if refused and not runs:
        raise refused[0]
    for error in refused:
        warnings.warn(f"{error} Its run is left out.", stacklevel=2)
    return runs


def by_label(runs: Iterable[LoadedRun]) -> dict[str, LoadedRun]:
    return {run.label: run for run in runs}
