"""A claim is decided by a t-interval over replicas against a margin that was fixed beforehand.

With the interval [low, high] of the mean (one sample) or of the mean difference (two samples):

    relation   supported            not supported              undecided
    above      low > margin         high <= margin             the rest
    below      high < margin        low >= margin              the rest
    within     |low|, |high| < m    low >= m or high <= -m     the rest

Two samples are paired when their replicas share seeds; otherwise the interval is Welch's (1947).
Replicas that failed in either sample are left out and counted. A claim is "not measured", with the
reason, where a run is missing or was measured before its last step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hvae.analysis.load import Array, Arrays, LoadedRun

Runs = Mapping[str, LoadedRun]
Measured = Mapping[str, Arrays]
"""part -> what an experiment measured apart from its runs"""
Relation = Literal["above", "below", "within"]
LATER = "(claimed after its runs were seen)"
"""at the end of a statement: the claim was not fixed beforehand"""
Outcome = Literal["supported", "not supported", "undecided", "not measured"]


class NotMeasuredError(LookupError):
    """The runs cannot decide a claim; the message says why."""


@dataclass(frozen=True)
class Sample:
    """One number per replica, `values` [R], and the seeds they were trained from."""

    values: Array
    seeds: tuple[int, ...]


Measure = Callable[[Any], tuple[Sample, Sample | None]]
Read = Callable[[Any, str], Sample]
"""what a claim reads, and the name of one measured thing in it, to its sample"""


@dataclass(frozen=True)
class Claim:
    """A statement from a source, as a number per replica, a relation and a margin."""

    statement: str
    source: str
    quantity: str
    """what is measured, in words; its interval is shown"""
    measure: Measure
    """`Runs` by label, or `Measured` -> one sample, or two for the difference first - second"""
    relation: Relation
    margin: float
    unit: str = "nats"
    reads: Literal["runs", "measured"] = "runs"

    @property
    def criterion(self) -> str:
        """The rule in words."""
        if self.relation == "within":
            return f"within ±{self.margin:g} {self.unit}"
        return f"{self.relation} {self.margin:g} {self.unit}".rstrip()


def single(read: Callable[[Any], Sample]) -> Measure:
    """One sample by itself."""
    return lambda found: (read(found), None)


def paired(read: Read, first: str, second: str) -> Measure:
    """The two samples themselves."""
    return lambda found: (read(found, first), read(found, second))


def difference(
    statement: str,
    source: str,
    what: str,
    read: Read,
    first: str,
    second: str,
    relation: Relation,
    margin: float,
    *,
    unit: str = "nats",
    pair: Callable[[Read, str, str], Measure] = paired,
    reads: Literal["runs", "measured"] = "runs",
) -> Claim:
    """A claim on ``what`` of ``first`` minus that of ``second``."""
    quantity = f"{what}, {first} minus {second},"
    return Claim(statement, source, quantity, pair(read, first, second), relation, margin, unit, reads)


@dataclass(frozen=True)
class Decision:
    """What the runs say about a claim."""

    claim: Claim
    outcome: Outcome
    low: float
    middle: float
    high: float
    n_replicas: int
    how: str
    """how the interval was made, or why there is none"""


def t_interval(values: Array, level: float = 0.95) -> tuple[float, float, float]:
    """(low, mean, high) of Student's interval; infinite ends for fewer than two values, NaN for none."""
    n = len(values)
    if n == 0:
        return (np.nan, np.nan, np.nan)
    mean = float(np.mean(values))
    if n == 1:
        return (-np.inf, mean, np.inf)
    half = float(_t(0.5 + level / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return (mean - half, mean, mean + half)


def welch_interval(first: Array, second: Array, level: float = 0.95) -> tuple[float, float, float]:
    """(low, difference, high) of two independent samples of unequal variance (Welch 1947)."""
    if min(len(first), len(second)) == 0:
        return (np.nan, np.nan, np.nan)
    difference = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) == 1:
        return (-np.inf, difference, np.inf)
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in (first, second)]
    total = sum(parts)
    if total == 0.0:
        return (difference, difference, difference)
    freedom = total**2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = float(_t(0.5 + level / 2, freedom)) * np.sqrt(total)
    return (difference - half, difference, difference + half)


def _t(level: float, freedom: float) -> Any:
    """The quantile of Student's t."""
    from scipy import (
        stats,  # here, since it takes most of a second to import, and a list of experiments decides nothing
    )

    return stats.t.ppf(level, freedom)


def outcome(relation: Relation, margin: float, low: float, high: float) -> Outcome:
    """On which side of the margin the interval lies."""
    if np.isnan(low) or np.isnan(high):
        return "undecided"
    if relation == "above":
        return "supported" if low > margin else "not supported" if high <= margin else "undecided"
    if relation == "below":
        return "supported" if high < margin else "not supported" if low >= margin else "undecided"
    if -margin < low and high < margin:
        return "supported"
    return "not supported" if low >= margin or high <= -margin else "undecided"


def decide(claim: Claim, runs: Runs, measured: Measured, level: float = 0.95) -> Decision:
    """Decide `claim` from what it reads: `runs`, or what was `measured` apart from them."""
    try:
        first, second = claim.measure(runs if claim.reads == "runs" else measured)
    except NotMeasuredError as missing:
        return Decision(claim, "not measured", np.nan, np.nan, np.nan, 0, str(missing))
    if second is None:
        kept = first.values[np.isfinite(first.values)]
        interval, n = t_interval(kept, level), len(kept)
        how = f"t-interval over {_replicas(n)}"
    elif first.seeds == second.seeds:
        difference = first.values - second.values
        kept = difference[np.isfinite(difference)]
        interval, n = t_interval(kept, level), len(kept)
        how = f"paired by seed, t-interval over {_replicas(n)}"
    else:
        one, other = (sample.values[np.isfinite(sample.values)] for sample in (first, second))
        interval, n = welch_interval(one, other, level), min(len(one), len(other))
        how = f"unpaired (the seeds differ), Welch's t-interval over {len(one)} and {_replicas(len(other))}"
    dropped = len(first.seeds) - n
    if n < 2:
        how = f"{_replicas(n)} cannot give an interval; two are needed"
    elif dropped > 0:
        how += f", {_replicas(dropped)} without a number left out"
    low, middle, high = interval
    return Decision(claim, outcome(claim.relation, claim.margin, low, high), low, middle, high, n, how)


def find(runs: Runs, label: str) -> LoadedRun:
    """The run called `label`, for a measure. Raises `NotMeasuredError`."""
    if label not in runs:
        raise NotMeasuredError(f"the run '{label}' is not among the runs")
    run = runs[label]
    if not run.evaluated:
        raise NotMeasuredError(f"the run '{label}' is not evaluated yet")
    if run.early:
        raise NotMeasuredError(f"the run '{label}' was {run.early}")
    return run


def find_part(measured: Measured, name: str) -> Arrays:
    """The arrays of the part called `name`, for a measure. Raises `NotMeasuredError`."""
    if name not in measured:
        raise NotMeasuredError(f"the part '{name}' is not measured yet")
    return measured[name]


def per_replica(rows: Arrays, values: Array, keep: Array | None = None) -> Sample:
    """[R] the largest of the `values` [N] in each replica's rows to `keep`. Raises `NotMeasuredError`."""
    replicas = np.unique(rows["replica"])
    chosen = np.ones(len(values), bool) if keep is None else keep
    if not chosen.any():
        raise NotMeasuredError("this preset has none of the settings that the claim is about")
    largest = [np.max(values[(rows["replica"] == replica) & chosen]) for replica in replicas]
    return Sample(np.array(largest, dtype=float), tuple(int(replica) for replica in replicas))


def _replicas(n: int) -> str:
    return f"{n} replica{'' if n == 1 else 's'}"
