"""Runs compared with a baseline."""

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
        "Left: number of layers with the verdict active, one point per replica; hollow where another layer is "
        "undecided. Right: the bound on log p(x) minus the baseline's (bold), paired by seed and image. Points are "
        "replicas, the tick is their mean, the bar its 95 % interval over seeds and images. Linear up to 1 nat, "
        "logarithmic beyond. An arrow: a mean that lies far beyond all others. A bar that crosses 0 shows no sure "
        "difference. The intervals are not corrected for their number.",
        figure.comparison,
        "",
    ),
)

SECTION = Section(
    "comparison",
    "Comparison",
    "Active layers: their number in every seed by the verdict, “?” where another layer is undecided, “–” for a failed "
    "replica. Bound on log p(x): mean ± the longer half of its 95 % interval over seeds and images. Gain: it minus "
    "the baseline’s, paired by seed and image, with the same of the difference. Gap, where measured: log p(x) minus "
    "the ELBO (see The gap), ± over seeds only. Cost, where timed: CPU time of a training step divided by the "
    "baseline’s in the same round, with the t-interval over rounds. “Revives” names layers that are active in every "
    "seed here, and not in the baseline. The likelihood gains or costs where the interval of the gain excludes 0. "
    "Intervals are not corrected for their number. Every seed is in tables/comparison.csv.",
    _table,
    _csv,
    FIGURES,
)
