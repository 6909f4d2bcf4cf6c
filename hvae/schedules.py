"""Schedules: a number that changes with the optimisation step.

A schedule is a frozen record; called with a step, it answers a float. It has no hidden counter, so
a run that is resumed at step t sees what an uninterrupted run would have seen.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi


@dataclass(frozen=True)
class Constant:
    """The same ``value`` at every step.

    >>> Constant(0.5)(1000)
    0.5
    """

    value: float

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class LinearWarmup:
    """From ``start`` to ``stop`` in a straight line over ``warmup_steps``, then ``stop``.

    ``start + (stop - start) * min(step / warmup_steps, 1)``; the deterministic warm-up of
    Sønderby et al. 2016 (section 2.2) is ``start=0, stop=1``.

    >>> [LinearWarmup(100)(step) for step in (0, 50, 100, 200)]
    [0.0, 0.5, 1.0, 1.0]
    """

    warmup_steps: int
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if self.warmup_steps < 1:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; give at least 1 step.")

    def __call__(self, step: int) -> float:
        return self.start + (self.stop - self.start) * min(step / self.warmup_steps, 1.0)


@dataclass(frozen=True)
class Cyclical:
    """A linear warm-up that starts again every ``period_steps`` (Fu et al. 2019, equation 6).

    Within a cycle the value rises from ``start`` to ``stop`` over the first ``rising`` fraction and
    stays at ``stop`` for the rest.

    >>> [Cyclical(100)(step) for step in (0, 25, 50, 75, 100)]
    [0.0, 0.5, 1.0, 1.0, 0.0]
    """

    period_steps: int
    rising: float = 0.5
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if self.period_steps < 1:
            raise ValueError(f"period_steps is {self.period_steps}; give at least 1 step.")
        if not 0.0 < self.rising <= 1.0:
            raise ValueError(f"rising is {self.rising}; give a fraction of the period in (0, 1].")

    def __call__(self, step: int) -> float:
        phase = (step % self.period_steps) / self.period_steps
        return self.start + (self.stop - self.start) * min(phase / self.rising, 1.0)


@dataclass(frozen=True)
class StepDecay:
    """A staircase for the learning rate: ``start * factor ** (step // every_steps)``.

    >>> [StepDecay(100, factor=0.5, start=1.0)(step) for step in (0, 99, 100, 200)]
    [1.0, 1.0, 0.5, 0.25]
    """

    every_steps: int
    factor: float
    start: float

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise ValueError(f"every_steps is {self.every_steps}; give at least 1 step.")
        if not 0.0 < self.factor <= 1.0:
            raise ValueError(f"factor is {self.factor}; give a number in (0, 1].")

    def __call__(self, step: int) -> float:
        return float(self.start * self.factor ** (step // self.every_steps))


@dataclass(frozen=True)
class CosineDecay:
    """For the learning rate: up to ``peak`` over ``warmup_steps``, then half a cosine down to ``stop`` at ``n_steps``.

    ``peak * step / warmup_steps`` first, then ``stop + (peak - stop) (1 + cos(pi u)) / 2`` with
    ``u = (step - warmup_steps) / (n_steps - warmup_steps)``, at most 1 (Loshchilov and Hutter 2017, equation 5).

    >>> [round(CosineDecay(300, peak=1.0, warmup_steps=100)(step), 3) for step in (0, 50, 100, 200, 300)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    n_steps: int
    peak: float
    warmup_steps: int = 0
    stop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.n_steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps} of n_steps {self.n_steps}; give 0 to n_steps - 1.")

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        done = min((step - self.warmup_steps) / (self.n_steps - self.warmup_steps), 1.0)
        return self.stop + (self.peak - self.stop) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class PiecewiseConstant:
    """``values[i]`` until step ``boundaries[i]``, and ``values[i + 1]`` from there; one value more than boundaries.

    >>> [PiecewiseConstant((1.0, 0.1), (100,))(step) for step in (0, 99, 100)]
    [1.0, 1.0, 0.1]
    """

    values: tuple[float, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1 or min(self.values) < 0:
            raise ValueError(
                f"values is {list(self.values)} with boundaries {list(self.boundaries)}; give numbers of 0 or more, "
                "one more than boundaries."
            )
        if any(a >= b for a, b in pairwise((0, *self.boundaries))):
            raise ValueError(f"boundaries is {list(self.boundaries)}; give rising steps above 0.")

    def __call__(self, step: int) -> float:
        return self.values[bisect_right(self.boundaries, step)]


def unfinished(schedule: object, n_steps: int) -> str:
    """What of a schedule does not end within ``n_steps``, as the predicate of a sentence; empty where all does.

    >>> unfinished(LinearWarmup(5000), 100)
    'warms up for 5000 of 100 steps and is 0.0198 at the last one'
    >>> unfinished(Cyclical(60), 100), unfinished(Cyclical(60), 115), unfinished(LinearWarmup(100), 100)
    ('', '', '')
    """
    if isinstance(schedule, LinearWarmup) and schedule.warmup_steps > n_steps:
        begun = f"warms up for {schedule.warmup_steps} of {n_steps} steps"
    elif (
        isinstance(schedule, Cyclical) and 0 < n_steps % schedule.period_steps < schedule.rising * schedule.period_steps
    ):
        begun = f"rises anew every {schedule.period_steps} of {n_steps} steps"
    elif isinstance(schedule, CosineDecay) and schedule.n_steps > n_steps:
        begun = f"falls for {schedule.n_steps} of {n_steps} steps"
    else:
        return ""
    return f"{begun} and is {schedule(n_steps - 1):.3g} at the last one"


Schedule = Constant | LinearWarmup | Cyclical | StepDecay | CosineDecay | PiecewiseConstant
