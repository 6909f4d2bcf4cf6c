"""What a training costs, and what `python -m experiments.costs` measured of a step of each arm of `objectives`.

That is kept: a configuration reads its number of steps from here, so the same command names the same runs on every
machine.
"""

import dataclasses
import json
import tempfile
import time
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


def cpu_seconds(config: RunConfig, n_steps: int, data: Any) -> float:
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
