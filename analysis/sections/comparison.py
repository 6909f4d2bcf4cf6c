"""Runs held against a baseline."""

from collections.abc import Mapping

from hvae.analysis.exhibits import Exhibit
from hvae.analysis.figures import comparison as figure
from hvae.analysis.sections.section import Section
from hvae.analysis.study import Study
from hvae.analysis.tables.comparison import comparison, comparison_csv
from hvae.analysis.tables.table import Table


def _table(study: Study) -> Mapping[str, Table]:
    found = comparison(study)
    return {} if found is None else {"": found}


def _csv(study: Study) -> Mapping[str, str]:
    return {} if comparison(study) is None else {"comparison.csv": comparison_csv(study)}


FIGURES = (
    Exhibit(
        "comparison",
        "Layers kept and nats gained",
        "Left: layers that the verdict calls active, one point per replica; hollow where the verdict on another layer "
        "is undecided. Right: L_K less the baseline's (bold), paired by seed: points are replicas, the tick is their "
        "mean, the bar its 95 % t-interval; linear up to 1 nat, logarithmic beyond. A bar that crosses 0 shows no sure "
        "difference; the intervals are not corrected for their number.",
        figure.comparison,
        "",
    ),
)

SECTION = Section(
    "comparison",
    "Comparison",
    "Active layers of every seed by the verdict, “?” where the verdict on another layer is undecided, “–” for a "
    "replica that failed. L_K: mean over replicas ± half-width of the 95 % t-interval; gain: L_K less the baseline’s, "
    "paired by seed, with the t-interval of the difference. Gap, where it was measured: log p(x) less the ELBO (see "
    "The gap). Cost, where it was timed: CPU time of a training step as a multiple of the baseline’s in the same "
    "round, with the t-interval over rounds. “Revives” names layers that are active in every seed and are not so in "
    "the baseline; likelihood moves where the interval of the gain leaves 0 out. Intervals are not corrected for "
    "their number. Every seed is in tables/comparison.csv.",
    _table,
    _csv,
    FIGURES,
)
