"""What a training step of each arm of `objectives` costs: measured by `python -m experiments.costs`, and kept.

A configuration reads its number of steps from here, so the same command names the same runs on every machine.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("objectives.json")


@cache
def measured() -> dict[str, Any]:
    """Preset -> label -> CPU milliseconds a step, all replicas together; and `provenance`."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def milliseconds(preset: str, label: str) -> float:
    """CPU milliseconds of a step; the preset paper takes those of cpu, of which only ratios can hold."""
    return float(measured()["cpu" if preset == "paper" else preset][label])


def ratio(preset: str, label: str, reference: str) -> float:
    """cost(label) / cost(reference)."""
    return milliseconds(preset, label) / milliseconds(preset, reference)
