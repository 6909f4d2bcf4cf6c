"""A paper's numbers and curves next to ours, with their provenance.

An experiment that reproduces a paper names it (`PAPER`), the numbers to compare (`numbers`) and the figures to draw
(`curves`). The paper's statements in words are its `claims`. A published number is shown only if it was read in the
paper or its authors' code (primary), or in a replication or a listing (secondary). What nobody printed, and their
formula gives, is called so (evaluated).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hvae.analysis.claims import Claim, Decision, Measure, Measured, Runs, Sample, decide
from hvae.analysis.load import Array
from hvae.analysis.samples import Interval, of_mean

SHOWN = ("primary", "secondary", "evaluated")

Agreement = Literal["agrees", "differs", "undecided", "other scale", "not measured"]


@dataclass(frozen=True)
class Paper:
    """What is reproduced."""

    citation: str
    """authors, title, venue, arXiv number"""
    exhibits: str
    """the figures and tables meant"""
    limits: Mapping[str, str]
    """preset -> what it leaves out of the paper's setting, in a sentence or two"""


def linked(text: str) -> str:
    """Markdown in which every arXiv number is a link."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


@dataclass(frozen=True)
class Published:
    """A number that was printed, or that a printed formula gives (``provenance`` evaluated)."""

    paper: str
    table: str
    dataset: str
    model: str
    metric: str
    value: float
    unit: str
    provenance: str
    source: str

    def __post_init__(self) -> None:
        if self.provenance not in SHOWN:
            raise ValueError(f"{self.paper}, {self.table}: provenance {self.provenance!r} is never shown; see {SHOWN}")


@dataclass(frozen=True)
class Number:
    """A published number and how ours is measured. They agree within ``tolerance``."""

    published: Published
    measure: Callable[..., Sample]
    """`Runs` by label, or `Measured` -> one number per replica"""
    tolerance: float
    """fixed before the runs: the spread of replications, the rounding of the print, the optimiser's tolerance"""
    comparable: tuple[str, ...]
    """presets that should reach it; at others both are shown and nothing is decided"""
    reads: Literal["runs", "measured"] = "runs"
    arm: str = ""
    """which of ours it is, where several compare with one printed number"""
    replications: tuple[Published, ...] = ()
    """the same number by others, shown with it"""

    @property
    def what(self) -> str:
        """The number in words."""
        arm = f" (ours: {self.arm})" if self.arm else ""
        return f"{self.published.model}, {self.published.metric}{arm}"


@dataclass(frozen=True)
class Held:
    """A published number, ours, and whether they agree."""

    number: Number
    ours: Interval
    """of the mean"""
    spread: float
    """standard deviation over replicas"""
    n_replicas: int
    agreement: Agreement
    why: str


def hold(number: Number, preset: str, runs: Runs, measured: Measured, level: float = 0.95) -> Held:
    """Whether ours minus the published value is within the tolerance; decided as a claim is."""
    found: list[Sample] = []

    def difference(what: Runs | Measured) -> tuple[Sample, None]:
        found.append(number.measure(what))
        return dataclasses.replace(found[0], values=found[0].values - number.published.value), None

    decision = decide(_claim(number, difference), runs, measured, level)
    if not found:
        nothing = Interval(np.nan, np.nan, np.nan, 0, "")
        return Held(number, nothing, np.nan, 0, "not measured", decision.how)
    kept = found[0].finite.means
    spread = float(np.std(kept, ddof=1)) if len(kept) > 1 else np.nan
    agreement: Agreement = "other scale" if preset not in number.comparable else _agreement(decision)
    return Held(number, of_mean(found[0], level), spread, len(kept), agreement, decision.how)


def _claim(number: Number, measure: Measure) -> Claim:
    published = number.published
    return Claim(
        "", published.source, published.metric, measure, "within", number.tolerance, published.unit, number.reads
    )


def _agreement(decision: Decision) -> Agreement:
    words: Mapping[str, Agreement] = {
        "supported": "agrees", "not supported": "differs", "undecided": "undecided", "not measured": "not measured",
    }  # fmt: skip
    return words[decision.outcome]


@dataclass(frozen=True)
class Line:
    """One line of a figure: points of every replica, and the expected curve."""

    x: Array
    """`[N]`"""
    values: Array
    """`[N, R]`, one column per replica; `[N, 0]` where nothing was measured"""
    expected: tuple[Array, Array] | None = None
    """x and y of the closed form or of the paper, drawn as a line"""
    joined: bool = True
    """whether a line joins the means, where no curve is expected"""
    intervals: Array | None = None
    """`[N, R, 2]`, each replica's own interval (low, high), drawn as a bar"""


@dataclass(frozen=True)
class Curves:
    """A figure of a paper, redrawn: panels of lines."""

    name: str
    title: str
    caption: str
    x_label: str | Mapping[str, str]
    """of all panels, or of each by its title"""
    y_label: str | Mapping[str, str]
    """the same; panels with labels of their own do not share their scale"""
    panels: Callable[[Runs, Measured], Mapping[str, Mapping[str, Line]]]
    """title of a panel -> name of a line -> the line; empty where nothing is measured"""
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    y_linear_below: float = 0.0
    """if not 0: y is linear up to this value on both sides of 0, logarithmic beyond"""
    marks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """title of a panel -> x of its dashed lines: thresholds"""
    mean: Literal["line", "steps"] = "line"
    """how the mean over replicas is drawn where no curve is expected; steps around every x for a histogram"""
    as_png: bool = False
    """for thousands of points, which take half a megabyte as outlines"""


@dataclass(frozen=True)
class Grid:
    """A table of a paper, laid out as printed and filled with our numbers."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cell: Callable[[Runs, Measured, str, str], Sample]
    """row, column -> one number per replica; `NotMeasuredError` leaves a dash"""
    unit: str = "nats"
    digits: int = 2
