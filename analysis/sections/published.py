"""A paper's numbers beside ours."""

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
    "Ours: mean over replicas with the 95 % t-interval; spread: their standard deviation. Agrees: the interval of ours "
    "less the paper’s lies within the tolerance, which was fixed before the runs; differs: outside; undecided: across. "
    "“Other scale”: this preset is not the paper’s setting, and the numbers stand side by side without a verdict; what "
    "must survive the change of scale is decided under Claims. Primary: read in the paper or its authors’ code; "
    "secondary: in a replication or a listing. Tables laid out as the paper’s are filled with ours: mean ± standard "
    "deviation over replicas.",
    _tables,
    _csv,
    (),
)
