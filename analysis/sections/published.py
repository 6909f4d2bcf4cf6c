"""A paper's numbers and ours, side by side."""

from collections.abc import Mapping

from hvae.analysis.sections.section import Section
from hvae.analysis.study import Study
from hvae.analysis.tables.published import grid_table, held, published_json, published_table
from hvae.analysis.tables.table import Table


def _tables(study: Study) -> Mapping[str, Table]:
    grids = {grid.title: grid_table(grid, study) for grid in study.grids}
    tables = {title: table for title, table in grids.items() if table is not None}
    found = held(study)
    numbers = {study.paper.citation.rstrip("."): published_table(found)} if study.paper and found else {}
    return numbers | tables


def _csv(study: Study) -> Mapping[str, str]:
    return {"published.json": published_json(study, held(study))} if study.paper else {}


SECTION = Section(
    "published",
    "Paper and ours",
    "Ours: mean with its 95 % interval, of likelihoods over replicas and images, of other numbers over replicas only; "
    "a count has none. Spread: standard deviation over replicas. The interval of ours minus the paper’s is held "
    "against a tolerance fixed before the runs; a count agrees where more than half of all seeds do. Agrees: inside; "
    "differs: outside; undecided: across. “Other scale”: this preset is not the paper’s setting, so its number has no "
    "outcome; Claims decides what must survive the change of scale. Primary: read in the paper or its authors’ code. "
    "Secondary: read in a replication or a listing. Evaluated: not printed, but what the authors’ formula gives. "
    "Tables laid out as the paper’s hold our numbers: mean ± standard deviation over replicas.",
    _tables,
    _csv,
    (),
)
