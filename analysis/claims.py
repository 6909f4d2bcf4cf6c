"""A claim is decided by an interval of a mean, or a share of seeds, against a margin that was fixed beforehand.

With the interval [low, high] of the mean (one sample) or of the mean difference (two samples), by `samples`:

    relation   supported            not supported              undecided
    above      low > margin         high <= margin             the rest
    below      high < margin        low >= margin              the rest
    within     |low|, |high| < m    low >= m or high <= -m     the rest

A likelihood has a value for each seed and image, and both count. Other numbers have one for each seed, and their
interval is over seeds only. Of counts (active layers, units) no interval of a mean is made: four equal counts would
have one of width 0, which decided a false claim 67 % of the time. A claim on a count is read as "in more than half of
all seeds": the share of seeds in which it holds, with the limits of Clopper and Pearson (1934), is held above one half.
So is one on numbers that are the same in all seeds. Six seeds are the fewest that can decide it. Each false claim is
supported with a chance of 2.5 % at most for counts, and about that for means. Of many claims some false one is: which
outcomes stand for all claims of a page together is said beside them, by the rule of Holm (1979).

Two samples are paired when their replicas share seeds; otherwise the interval is Welch's (1947), or has a term of seeds
for each. Replicas that failed in either sample are left out and counted. A claim is "not measured", with the reason,
where a run is missing, was measured before its last step, or on other images than the run it is held against.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hvae.analysis.load import Array, Arrays, LoadedRun
from hvae.analysis.samples import NotMeasuredError as NotMeasuredError
from hvae.analysis.samples import Sample as Sample
from hvae.analysis.samples import combined, in_words, of_difference, of_mean
from hvae.certain import share_above

Runs = Mapping[str, LoadedRun]
Measured = Mapping[str, Arrays]
"""part -> what an experiment measured apart from its runs"""
Relation = Literal["above", "below", "within"]
LATER = "(claimed after its runs were seen)"
"""at the end of a statement: the claim was not fixed beforehand"""
Outcome = Literal["supported", "not supported", "undecided", "not measured", "too small to say"]
DECIDED: tuple[Outcome, ...] = ("supported", "not supported")
OF_SEEDS = "of all seeds"
"""the unit of a share, as tables keep it"""
"""unit of a share of seeds"""
FEWEST_SEEDS = 6
"""1 - 0.025^(1/S) is below one half from here on"""

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
    over: str = ""
    """what the interval counts: "4 seeds and 100 images", "4 seeds only"; empty for none"""
    unit: str = ""
    """of the interval: that of the claim, or `OF_SEEDS`"""
    together: bool = False
    """whether the outcome also stands for all claims of the page together (`decide_all`)"""

    @property
    def alone(self) -> bool:
        """Whether it is decided by itself, and not with all claims of the page."""
        return self.outcome in DECIDED and not self.together

    @property
    def criterion(self) -> str:
        """The rule in words, as it was applied."""
        return f"{self.claim.criterion}{' in more than half' * (self.unit == OF_SEEDS)}"


def found_text(middle: float, low: float, high: float, unit: str, digits: Callable[[float], str]) -> str:
    """ "0.42 [0.31, 0.53] nats"; of a claim on a count the share of seeds in which it holds."""
    if unit == OF_SEEDS:
        return f"in {100 * middle:.0f} % [{100 * low:.0f} %, {100 * high:.0f} %] of seeds"
    return f"{digits(middle)} [{digits(low)}, {digits(high)}] {unit}"


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


def holds(relation: Relation, margin: float, values: Array) -> Array:
    """Which of the values are on the claimed side of the margin."""
    found: Array = {"above": values > margin, "below": values < margin, "within": np.abs(values) < margin}[relation]
    return found


def decide(claim: Claim, runs: Runs, measured: Measured, level: float = 0.95) -> Decision:
    """Decide `claim` from what it reads: `runs`, or what was `measured` apart from them."""
    try:
        first, second = claim.measure(runs if claim.reads == "runs" else measured)
        if first.count or _alike(first, second):
            return _by_share(claim, first, second, level)
        found = of_mean(first, level) if second is None else of_difference(first, second, level)
    except NotMeasuredError as missing:
        return Decision(claim, "not measured", np.nan, np.nan, np.nan, 0, str(missing))
    pairing = ""
    if second is not None:
        pairing = "paired by seed, " if first.seeds == second.seeds else "unpaired (the seeds differ), "
    how = f"{pairing}over {found.over}{_dropped(len(first.seeds) - found.n_seeds)}"
    said = outcome(claim.relation, claim.margin, found.low, found.high)
    if found.n_seeds < 2:
        said, how = "undecided", f"{in_words(found.n_seeds)} cannot tell of others; two are needed"
    return Decision(claim, said, found.low, found.middle, found.high, found.n_seeds, how, found.over, claim.unit)


def decide_all(claims: Sequence[Claim], runs: Runs, measured: Measured, level: float = 0.95) -> list[Decision]:
    """Every claim by itself, and whether its outcome stands for all of them together, by Holm (1979).

    Of m claims that are left, those that are decided at ``1 - (1 - level) / m`` stand, and m falls by their number,
    until none is added. So the chance that any outcome that stands is false is ``1 - level`` at most.
    """
    alone = [decide(claim, runs, measured, level) for claim in claims]
    left = [place for place, decision in enumerate(alone) if decision.outcome != "not measured"]
    standing: set[int] = set()
    while left:
        stricter = 1 - (1 - level) / len(left)
        added = {place for place in left if decide(claims[place], runs, measured, stricter).outcome in DECIDED}
        if not added:
            break
        standing |= added
        left = [place for place in left if place not in added]
    return [replace(decision, together=place in standing) for place, decision in enumerate(alone)]


def _alike(first: Sample, second: Sample | None) -> bool:
    """Whether one number of each seed is the same in all, so that a spread over seeds says nothing."""
    if first.values.ndim > 1 or (second is not None and first.seeds != second.seeds):
        return False
    values = first.values if second is None else first.values - second.values
    kept = values[np.isfinite(values)]
    return len(kept) > 1 and bool(np.ptp(kept) == 0)


def _by_share(claim: Claim, first: Sample, second: Sample | None, level: float) -> Decision:
    """A claim on a count, by the share of all seeds in which it holds."""
    found = first if second is None else combined(np.subtract, first, second)
    values = found.finite.values
    n = len(values)
    if n == 0:
        return Decision(claim, "undecided", np.nan, np.nan, np.nan, 0, "no seed has a number")
    count = int(holds(claim.relation, claim.margin, values).sum())
    low, middle, high = share_above(count, n, level)
    mean = f"mean {float(np.mean(values)):.4g} {claim.unit}".rstrip()
    how = f"{mean}; {claim.criterion} in {count} of {in_words(n)}, with the limits of Clopper and Pearson"
    how += f", which {FEWEST_SEEDS} seeds or more can pass" if n < FEWEST_SEEDS else ""
    how += _dropped(len(first.seeds) - n)
    said = outcome("above", 0.5, low, high)
    return Decision(claim, said, low, middle, high, n, how, f"{in_words(n)}, as a count", OF_SEEDS)


def _dropped(n: int) -> str:
    return f", {in_words(n)} without a number left out" if n > 0 else ""


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


def per_replica(rows: Arrays, values: Array, keep: Array | None = None, *, count: bool = False) -> Sample:
    """[R] the largest of the `values` [N] in each replica's rows to `keep`. Raises `NotMeasuredError`."""
    replicas = np.unique(rows["replica"])
    chosen = np.ones(len(values), bool) if keep is None else keep
    if not chosen.any():
        raise NotMeasuredError("this preset has none of the settings that the claim is about")
    largest = [np.max(values[(rows["replica"] == replica) & chosen]) for replica in replicas]
    return Sample(np.array(largest, dtype=float), tuple(int(replica) for replica in replicas), count=count)
