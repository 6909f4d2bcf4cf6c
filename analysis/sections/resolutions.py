"""Stacks with several resolutions: where layers are active, where they collapsed, and what the coarse ones say of x."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.figures.above import ABOVE, bounds_above
from hvae.analysis.load import LoadedRun
from hvae.analysis.resolutions import at_place, kinds, rate, resolutions
from hvae.analysis.samples import t_interval
from hvae.analysis.sections.section import Section
from hvae.analysis.study import Study
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv, with_ends

FEW = ("active", "collapsed")
"""kinds of a verdict that have a table"""


def stacks(study: Study) -> list[LoadedRun]:
    """Runs that were measured and have latents at two resolutions or more."""
    return [run for run in study.runs if run.evaluated and len(resolutions([run])) > 1]


def tables(study: Study) -> Mapping[str, Table]:
    """How many layers of how many, counted over seeds, and how many nats."""
    runs = stacks(study)
    if not runs:
        return {}
    places = resolutions(runs)
    counted = {f"Layers that are {kind}, of all layers in all seeds": _table(runs, places, kind) for kind in FEW}
    return counted | {"Rate, nats: sum over the layers at a resolution": _rates(runs, places)}


def _table(runs: Sequence[LoadedRun], places: Sequence[str], kind: str) -> Table:
    def cell(run: LoadedRun, place: str) -> Cell:
        found = kinds(run, place)
        return Cell(f"{found.count(kind)} of {len(found)}" if found else "\N{EN DASH}")

    return _grid(runs, places, cell)


def _rates(runs: Sequence[LoadedRun], places: Sequence[str]) -> Table:
    def cell(run: LoadedRun, place: str) -> Cell:
        if not at_place(run, place):
            return Cell("\N{EN DASH}")
        values = rate(run, place)
        known = values[np.isfinite(values)]
        if len(known) < 2:
            return Cell(number(known.mean() if len(known) else np.nan, 1))
        return Cell(with_ends(*t_interval(known), digits=1))

    return _grid(runs, places, cell)


def _grid(runs: Sequence[LoadedRun], places: Sequence[str], cell: Callable[[LoadedRun, str], Cell]) -> Table:
    rows = tuple((Cell(run.label), *(cell(run, place) for place in places)) for run in runs)
    return Table((Column("run", numeric=False), *map(Column, places)), rows)


def csv(study: Study) -> Mapping[str, str]:
    """Every layer and seed in its place."""
    rows = [
        (run.label, z.name, z.place, seed, str(z.verdict[r, run.epsilon_index]), z.interval("rate_nats")[r, 1],
         *z.interval(ABOVE)[r])
        for run in stacks(study) for z in run.layers for r, seed in enumerate(run.seeds)
    ]  # fmt: skip
    ends = [f"bound_above_nats_{end}" for end in ("low", "middle", "high")]
    heading = ["run", "layer", "resolution", "seed", "verdict", "rate_nats", *ends]
    return {"resolutions.csv": to_csv(heading, rows)} if rows else {}


SECTION = Section(
    "resolutions",
    "By resolution",
    "Layers of the same resolution stand together. Counts are over layers and over the seeds that did not fail. Layers "
    "that are neither active nor collapsed are weakly coded, code noise only, or are undecided. Rates are means over "
    "seeds with 95 % t-intervals over seeds. Every layer and seed is in tables/resolutions.csv.",
    tables,
    csv,
    (
        Exhibit(
            "bounds-above",
            "What the upper layers say of the image",
            "L^{>l} is the bound on log p(x) when z_l and all layers below it are drawn from p, and those above from q "
            "(Havtorn et al. 2021). Shown in nats: L^{>1}, with z1 alone from p, less L^{>l}. Across: the layer z_l, "
            "from z1 to the top of the stack. A rise from one layer to the next is what the image loses with it. One "
            "line per replica. Linear up to 0.1 nats, logarithmic beyond.",
            lambda study: bounds_above(stacks(study)),
            "",
        ),
    ),
)
