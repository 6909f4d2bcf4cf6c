"""The CPU time of a training step, and of a step of each arm of `objectives`.

`python -m hvae.experiments.shared.costs` measures them, and the result is committed. A configuration reads its number
of steps from here, so one command names the same runs on every machine.
"""

import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run

FILE = Path(__file__).with_name("objectives.json")


@cache
def measured() -> dict[str, Any]:
    """Preset -> label -> CPU milliseconds a step, all replicas together; and `provenance`."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def milliseconds(preset: str, label: str) -> float:
    """CPU milliseconds of a step; the preset paper takes those of cpu, of which only ratios can hold."""
    return float(measured()["cpu" if preset == "paper" else preset][label])


ROUNDS, SPANS, SPAN = 4, 3, 20
"""rounds over all runs; spans that are timed in a training after one that is not, and steps of a span"""


def step_seconds(configs: Mapping[str, RunConfig], data_dir: Path | None = None) -> dict[str, list[float]]:
    """CPU seconds of a training step of every run, one value of each round: the least over its spans of steps.

    Other work on the machine makes CPU time too high, never too low: hence the least. All runs are timed in turn, so
    a slow phase of the machine slows all of them. A ratio of two runs is of one round.
    """
    from hvae.lab.completion import load_data

    data = {config.data: config for config in configs.values()}
    sets = {wanted: load_data(config, data_dir) for wanted, config in data.items()}
    first = next(iter(configs.values()))
    _least_seconds(first, sets[first.data])  # what a process does once
    found: dict[str, list[float]] = {label: [] for label in configs}
    for _ in range(ROUNDS):
        for label, config in configs.items():
            found[label].append(_least_seconds(config, sets[config.data]))
    return found


@dataclass(frozen=True)
class _Clocked(Run):
    """A run that notes the CPU time at every row of metrics: between two rows there are steps and what logs one row."""

    times: list[float] = field(default_factory=list)

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().append_metrics(rows)
        self.times.append(time.process_time())


def _least_seconds(config: RunConfig, data: Any) -> float:
    """CPU seconds of a step over the cheapest span of a training."""
    from hvae.lab.training.loop import train

    n_steps = SPAN * (SPANS + 1)
    training = dataclasses.replace(
        config.training, n_steps=n_steps, log_every_steps=SPAN, checkpoint_every_steps=n_steps
    )
    with tempfile.TemporaryDirectory() as folder:
        made = Run.create_or_open(Path(folder), "costs", "timed", dataclasses.replace(config, training=training))
        run = _Clocked(made.path, made.label, made.config)
        train(run, data, progress=False)
        return min(after - before for before, after in itertools.pairwise(run.times)) / SPAN


def ratio(preset: str, label: str, reference: str) -> float:
    """cost(label) / cost(reference)."""
    return milliseconds(preset, label) / milliseconds(preset, reference)
