"""What a training costs, and what `python -m experiments.costs` measured of a step of each arm of `objectives`.

That is kept: a configuration reads its number of steps from here, so the same command names the same runs on every
machine.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hvae.config import RunConfig

FILE = Path(__file__).with_name("objectives.json")


@cache
def measured() -> dict[str, Any]:
    """Preset -> label -> CPU milliseconds a step, all replicas together; and `provenance`."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def milliseconds(preset: str, label: str) -> float:
    """CPU milliseconds of a step; the preset paper takes those of cpu, of which only ratios can hold."""
    return float(measured()["cpu" if preset == "paper" else preset][label])


ROUNDS, SHORT, LONG = 4, 5, 25
"""rounds over all runs; steps of two trainings, whose difference leaves out what a training does once"""


def step_seconds(configs: Mapping[str, RunConfig], data_dir: Path | None = None) -> dict[str, float]:
    """CPU seconds of a training step of every run: all in turn, several rounds, the least of each.

    CPU time of a machine that does other work is too high by what the other work slows it, never too low: hence the
    least; and in turn, so that what slows the machine for a while slows all of them.
    """
    from hvae.completion import load_data

    data = {config.data: config for config in configs.values()}
    sets = {wanted: load_data(config, data_dir) for wanted, config in data.items()}
    least = {(label, n_steps): float("inf") for label in configs for n_steps in (SHORT, LONG)}
    first = next(iter(configs.values()))
    _cpu_seconds(first, SHORT, sets[first.data])  # what a process does once
    for _ in range(ROUNDS):
        for label, n_steps in least:
            config = configs[label]
            least[label, n_steps] = min(least[label, n_steps], _cpu_seconds(config, n_steps, sets[config.data]))
    return {label: (least[label, LONG] - least[label, SHORT]) / (LONG - SHORT) for label in configs}


def _cpu_seconds(config: RunConfig, n_steps: int, data: Any) -> float:
    """CPU seconds of a training of so many steps, with one row of metrics and one checkpoint."""
    from hvae.runs import Run
    from hvae.training import train

    training = dataclasses.replace(
        config.training, n_steps=n_steps, log_every_steps=n_steps, checkpoint_every_steps=n_steps
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create_or_open(Path(folder), "costs", "timed", dataclasses.replace(config, training=training))
        started = time.process_time()
        train(run, data, progress=False)
        return time.process_time() - started


def ratio(preset: str, label: str, reference: str) -> float:
    """cost(label) / cost(reference)."""
    return milliseconds(preset, label) / milliseconds(preset, reference)
