"""How long runs take: their relative cost, the time that is left, durations in words."""

import math
import os
from collections.abc import Iterable

from hvae.errors import ConfigError
from hvae.lab.config import ModelConfig, RunConfig
from hvae.lab.runs.run import Run


def cost(config: RunConfig) -> float:
    """Relative time of a run: replicas times steps times work per step. Only ratios mean anything."""
    layers, of_a_datum = _of_a_step(config.model)
    work = config.training.batch_size * of_a_datum
    ends = [*(stage.from_step for stage in config.training.then), config.training.n_steps]
    samples = sum(
        (end - stage.from_step) * stage.objective.n_samples for stage, end in zip(config.stages, ends, strict=True)
    )
    n_steps = config.training.n_steps
    return math.sqrt(len(config.training.seeds)) * (n_steps + 500) * (layers + work * samples / n_steps)


def _of_a_step(model: ModelConfig) -> tuple[float, float]:
    """What a step costs whatever the batch is, and for a datum: a layer of blocks takes as long as 14 dense ones."""
    if model.blocks is None:
        return model.n_layers, model.n_layers * (sum(model.latents) + sum(map(sum, model.hidden))) / 2e4
    states = sum(side**2 * model.blocks.width_at.get(side, model.blocks.width) for side in model.blocks.resolutions)
    return 14 * model.n_layers, 1.4e-4 * states


def seconds_left(done: Iterable[Run], left: Iterable[RunConfig], core_minutes: float) -> float:
    """Seconds of one core that the runs that are left may take; NaN where nothing tells.

    From the runs that are done here and were timed, and else from `core_minutes`, what all of them took elsewhere.
    """
    runs, costs = list(done), sum(map(cost, left))
    timed = [(cost(run.config), seconds) for run in runs if (seconds := _seconds(run)) > 0]
    if timed:
        return costs * sum(seconds for _, seconds in timed) / sum(known for known, _ in timed)
    every = costs + sum(cost(run.config) for run in runs)
    return 60 * core_minutes * costs / every if every else 0.0


def _seconds(run: Run) -> float:
    """What its sessions took; 0 where one was not timed."""
    try:
        times = [session.get("seconds", math.nan) for session in run.read_provenance()]
        total = float(sum(times))
    except (ConfigError, AttributeError, TypeError, ValueError):
        return 0.0
    return total if math.isfinite(total) else 0.0


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
