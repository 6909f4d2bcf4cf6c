"""Run directories as records of arrays. With `layers` and `gap`, all that knows keys of the files.

What a run did not measure is NaN of the right shape, so that a figure drops a missing point in the
same way as a failed replica. Shapes lead with R, the replicas; an interval is a last axis of three,
(low, middle, high).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.gap import Annealed, Arrays, Exact, Gap, read_annealed, read_exact, read_gap
from hvae.analysis.gap import Array as Array
from hvae.analysis.kept import KeptRun, holds_kept, read_kept
from hvae.analysis.layers import NOT_MEASURED, Layer, read_layer
from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run, find_runs
from hvae.vocabulary import ACTIVE, FAILED, UNDECIDED


@dataclass(frozen=True)
class Likelihood:
    """L_K over C values of K, on B test images."""

    n_samples: Array
    """[C]"""
    bound_nats: Array
    """[R, C, 3] mean over the images"""
    elbo_nats: Array
    """[R, 3]"""
    pareto_k: Array
    """[R, B]; NaN where the weights are constant"""
    ess: Array
    """[R, B]"""
    warning: tuple[str, ...]
    """[R] a sentence, or empty when the number is to be trusted"""
    n_images: int

    @property
    def best(self) -> Array:
        """[R, 3] the bound of the largest K."""
        best: Array = self.bound_nats[:, -1]
        return best


@dataclass(frozen=True)
class Signal:
    """Signal-to-noise ratio of the gradients that training followed, over C numbers of samples."""

    n_samples: Array
    """[C]"""
    snr: Arrays
    """latent, "encoder" or "decoder" -> [R, C, 3]"""
    n_images: int


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


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run directory, read; two readings are two records."""

    path: Path
    experiment: str
    label: str
    config: RunConfig
    done: bool
    seeds: tuple[int, ...]
    alive: Array
    """[R] bool; False for a replica that went non-finite and was stopped"""
    died_at: Array
    """[R] training step, -1 where alive or not recorded"""
    culprit: tuple[str, ...]
    """[R] what became non-finite first; empty where alive or not recorded"""
    step: int | None
    """the training step that was measured, where that was recorded"""
    layers: tuple[Layer, ...]
    epsilons: tuple[float, ...]
    """thresholds of the verdict in nats: a lower one, the configured one, a higher one"""
    n_images: int
    """images of the information measures; 0 before the evaluation"""
    collapse_epsilons: Array
    likelihood: Likelihood | None
    likelihood_deep: Likelihood | None
    annealed: Annealed | None
    exact: Exact | None
    gap: Gap | None
    signal: Signal | None
    images: Arrays | None
    provenance: tuple[Mapping[str, Any], ...]
    """one entry per session that worked on the run"""
    metrics: Sequence[Mapping[str, Any]]
    source: Run | KeptRun
    """what was read"""
    beside: Arrays = field(default_factory=dict)
    """what the experiment measured of this run beside its evaluation"""

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def active_layers(self) -> Array:
        """[R] layers that the verdict calls active; NaN for a replica that failed or was not measured."""
        return self._layers_called(ACTIVE)

    @property
    def undecided_layers(self) -> Array:
        """[R] layers of which the verdict cannot tell; NaN as in `active_layers`."""
        return self._layers_called(UNDECIDED)

    def _layers_called(self, word: str) -> Array:
        words = np.stack([layer.verdict[:, self.epsilon_index] for layer in self.layers])  # [L, R]
        known = ~np.isin(words, (FAILED, NOT_MEASURED)).any(axis=0)
        return np.where(known, (words == word).sum(axis=0), np.nan)

    @property
    def yardstick(self) -> str:
        """Data and distribution of x: bounds on log p(x) compare within one only."""
        data, distribution = self.config.data, self.config.model.observation
        return f"{data.name} (seed {data.seed}, {distribution} x)"

    @property
    def n_replicas(self) -> int:
        return len(self.seeds)

    @property
    def evaluated(self) -> bool:
        return self.n_images > 0

    @property
    def measured_further(self) -> bool:
        """Whether more than the encoder's own bound on log p(x) was asked for."""
        return any(found is not None for found in (self.annealed, self.exact, self.gap))

    @property
    def exact_beside_gap(self) -> Exact | None:
        """The exact answers, unless they are of other images than the estimated gap."""
        others = self.gap is not None and self.exact is not None and self.gap.images != self.exact.images
        return None if others else self.exact

    @property
    def early(self) -> str:
        """ "measured at step s of n" for a run measured before its last step, otherwise empty."""
        last = self.config.training.n_steps
        return "" if self.step is None or self.step >= last else f"measured at step {self.step} of {last}"

    @property
    def title(self) -> str:
        """The label, with a star where a note says that the run was measured early."""
        return f"{self.label} *" if self.early else self.label

    @property
    def epsilon_index(self) -> int:
        """Where the configured threshold stands among `epsilons`."""
        return len(self.epsilons) // 2

    @cached_property
    def training(self) -> Training:
        """The metrics rows as arrays; a quantity that some rows lack is NaN there."""
        rows = self.metrics
        shape = (len(rows), self.n_replicas)
        bound = np.full(shape, np.nan)
        units = {layer.name: np.full((*shape, layer.n_units), np.nan) for layer in self.layers}
        active = {layer.name: np.full(shape, np.nan) for layer in self.layers}
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


def load_run(run: Run | KeptRun) -> LoadedRun:
    """Everything `analysis` may ask of a run, finished or not."""
    config, seeds = run.config, run.config.training.seeds
    diagnostics = _arrays(run, "diagnostics")
    likelihood, images = _arrays(run, "likelihood"), _arrays(run, "images")
    epsilon = config.evaluation.epsilon_nats
    alive = diagnostics.get("alive", np.ones(len(seeds), dtype=bool))
    epsilons = diagnostics.get("epsilons", epsilon * np.array([0.3, 1.0, 3.0]))
    names = [f"z{index}" for index in range(1, len(config.model.latents) + 1)]
    layers = tuple(
        read_layer(diagnostics, name, n_units, alive, len(epsilons))
        for name, n_units in zip(names, config.model.latents, strict=True)
    )
    return LoadedRun(
        path=run.path,
        experiment=run.experiment,
        label=run.label,
        config=config,
        done=run.done,
        seeds=seeds,
        alive=alive,
        died_at=diagnostics.get("died_at", np.full(len(seeds), -1)),
        culprit=tuple(str(text) for text in diagnostics.get("culprit", [""] * len(seeds))),
        step=int(diagnostics["step"]) if "step" in diagnostics else None,
        layers=layers,
        epsilons=tuple(float(value) for value in epsilons),
        n_images=int(diagnostics.get("n_images", 0)),
        collapse_epsilons=diagnostics.get("collapse_epsilons", np.zeros(0)),
        likelihood=_likelihood(likelihood, "", alive),
        likelihood_deep=_likelihood(likelihood, "_deep", alive),
        annealed=read_annealed(_arrays(run, "annealed"), len(seeds)),
        exact=read_exact(_arrays(run, "exact"), len(seeds), names),
        gap=read_gap(_arrays(run, "gap"), len(seeds), names, config.model.order),
        signal=_signal(_arrays(run, "gradients")),
        images=images or None,
        provenance=tuple(run.read_provenance()),
        metrics=run.read_metrics(),
        source=run,
    )


def load_runs(directory: Path) -> list[LoadedRun]:
    """Every run under `directory`, which may itself be one, or a page of results that keeps its arrays."""
    runs = read_kept(directory).runs if holds_kept(directory) else find_runs(directory)
    return [load_run(run) for run in runs]


def by_label(runs: Iterable[LoadedRun]) -> dict[str, LoadedRun]:
    return {run.label: run for run in runs}


def _arrays(run: Run | KeptRun, name: str) -> dict[str, Array]:
    return dict(run.load_arrays(name)) if run.has_arrays(name) else {}


def _likelihood(arrays: Arrays, suffix: str, alive: Array) -> Likelihood | None:
    if f"bound_nats{suffix}" not in arrays:
        return None
    bound = arrays[f"bound_nats{suffix}"]
    missing = np.full((len(bound), 0), np.nan)
    pareto_k = arrays.get(f"pareto_k{suffix}", missing)
    warning = arrays.get(f"warning{suffix}", np.full(len(bound), ""))
    return Likelihood(
        n_samples=arrays[f"n_samples{suffix}"],
        bound_nats=bound,
        elbo_nats=arrays.get(f"elbo_nats{suffix}", bound[:, 0]),
        pareto_k=pareto_k,
        ess=arrays.get(f"ess{suffix}", missing),
        warning=tuple(str(text) if good else "" for text, good in zip(warning, alive, strict=True)),
        n_images=pareto_k.shape[1],
    )


def _signal(arrays: Arrays) -> Signal | None:
    key = "gradient_snr/"
    snr = {name.removeprefix(key): values for name, values in arrays.items() if name.startswith(key)}
    return Signal(arrays["n_samples"], snr, int(arrays["n_images"])) if snr else None


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
