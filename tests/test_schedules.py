"""Schedules against hand-computed values: a schedule is a function of the step and nothing else."""

from typing import Any

import pytest

from hvae.schedules import Constant, CosineDecay, Cyclical, LinearWarmup, PiecewiseConstant, Schedule, StepDecay


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.3), {0: 0.3, 10**9: 0.3}),
        (LinearWarmup(200), {0: 0.0, 1: 0.005, 50: 0.25, 199: 0.995, 200: 1.0, 10**9: 1.0}),
        (LinearWarmup(4, start=2.0, stop=-2.0), {0: 2.0, 1: 1.0, 2: 0.0, 3: -1.0, 4: -2.0, 5: -2.0}),
        (Cyclical(100), {0: 0.0, 25: 0.5, 50: 1.0, 99: 1.0, 100: 0.0, 125: 0.5, 1050: 1.0}),
        (Cyclical(10, rising=1.0, start=1.0, stop=2.0), {0: 1.0, 5: 1.5, 9: 1.9, 10: 1.0}),
        (StepDecay(10, factor=0.5, start=0.8), {0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 20: 0.2, 30: 0.1}),
        (
            CosineDecay(9, peak=2.0, warmup_steps=3, stop=1.0),
            {0: 0.0, 1: 2 / 3, 3: 2.0, 5: 1.75, 6: 1.5, 9: 1.0},
        ),
        (CosineDecay(4, peak=1.0), {0: 1.0, 1: 0.5 + 0.5**1.5, 2: 0.5, 4: 0.0, 10**9: 0.0}),
        (PiecewiseConstant((3.0, 1.0, 2.0), (4, 9)), {0: 3.0, 3: 3.0, 4: 1.0, 8: 1.0, 9: 2.0, 10**9: 2.0}),
    ],
)
def test_values(schedule: Schedule, expected: dict[int, float]) -> None:
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, abs=1e-12)
    assert {step: schedule(step) for step in reversed(expected)} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (LinearWarmup, {"warmup_steps": 0}, "warmup_steps is 0"),
        (Cyclical, {"period_steps": 0}, "period_steps is 0"),
        (Cyclical, {"period_steps": 5, "rising": 0.0}, "rising is 0.0"),
        (Cyclical, {"period_steps": 5, "rising": 1.5}, "rising is 1.5"),
        (StepDecay, {"every_steps": 0, "factor": 0.5, "start": 1.0}, "every_steps is 0"),
        (StepDecay, {"every_steps": 5, "factor": 1.5, "start": 1.0}, "factor is 1.5"),
        (CosineDecay, {"n_steps": 0, "peak": 1.0}, "warmup_steps is 0 of n_steps 0"),
        (CosineDecay, {"n_steps": 5, "peak": 1.0, "warmup_steps": 5}, "warmup_steps is 5 of n_steps 5"),
        (PiecewiseConstant, {"values": (1.0,), "boundaries": (5,)}, "values is .* with boundaries .5."),
        (PiecewiseConstant, {"values": (), "boundaries": ()}, "values is .*"),
        (PiecewiseConstant, {"values": (1.0, -0.1), "boundaries": (5,)}, "values is .*"),
        (PiecewiseConstant, {"values": (1.0, 2.0, 3.0), "boundaries": (5, 5)}, "boundaries is .*"),
        (PiecewiseConstant, {"values": (1.0, 2.0), "boundaries": (0,)}, "boundaries is .*"),
    ],
)
def test_refusals_name_the_thing_and_the_value(kind: type, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}; give "):
        kind(**values)
