"""Claims of Sønderby et al. on depth, as numbers of a replica; names of the runs."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from hvae.analysis.claims import LATER, Claim, NotMeasuredError, Relation, Runs, Sample, difference, find, single
from hvae.analysis.load import Array
from hvae.analysis.measures import EPSILON_NATS, LIKELIHOOD_MARGIN_NATS, elbo, importance_bound
from hvae.analysis.samples import combined
from hvae.schedules import LinearWarmup

SOURCE = "Sønderby et al. 2016, section 4 (arXiv:1602.02282)"

PLAIN, NORMED, WARM, LADDER = "plain", "+BN", "+BN+WU", "LVAE+BN+WU"
ARMS: Mapping[str, tuple[str, bool]] = {
    PLAIN: ("bottom-up", False), NORMED: ("bottom-up", True), WARM: ("bottom-up+WU", True), LADDER: ("ladder+WU", True),
}  # fmt: skip
"""arm -> the arm of `depth` with its order and warm-up, and whether batch normalisation is on"""

DEEPEST = 5
MNIST, OMNIGLOT = "", "OMNIGLOT "
"""prefix of a label"""


def label(depth: int, arm: str, data: str = MNIST) -> str:
    """The name of a run."""
    return f"{data}depth-{depth} {arm}"


DEEP = {arm: label(DEEPEST, arm) for arm in ARMS}
"""the deepest runs on MNIST"""

# -- what is measured of a replica ------------------------------------------------------------------


def upper_kl(runs: Runs, name: str) -> Sample:
    """[R] rates of z3 and above together, nats: bottom-up E_q KL(q(z_>=3 | z_2) ‖ p(z_>=3)), which is never below 0."""
    run = find(runs, name)
    return Sample(np.sum([layer.interval("rate_nats")[:, 1] for layer in run.layers[2:]], axis=0), run.seeds)


def beyond(runs: Runs, read: Callable[[Runs, str], Sample], place: Callable[..., Array]) -> Sample:
    """A number of the deepest ladder less that of the other arm whose mean is the largest (or smallest), by seed."""
    found = {arm: read(runs, DEEP[arm]) for arm in ARMS}
    others = [found[arm] for arm in ARMS if arm != LADDER]

    def less(ladder: Array, *values: Array) -> Array:
        chosen = place([other.means for other in others], axis=0)  # [R] arms
        return np.stack([ladder[r] - values[arm][r] for r, arm in enumerate(chosen)])

    return combined(less, found[LADDER], *others)


def units_at(runs: Runs, name: str, step: float) -> Sample:
    """[R] active units of all layers by Burda's statistic on the batch, at the recorded step nearest to ``step``."""
    run = find(runs, name)
    if not len(run.training.step):
        raise NotMeasuredError(f"the run '{name}' has no metrics")
    row = int(np.argmin(np.abs(run.training.step - min(step, run.training.step[-1]))))
    return Sample(
        np.sum([units[:, row] for units in run.training.active_units.values()], axis=0), run.seeds, count=True
    )


def early(runs: Runs) -> float:
    """Half of the warm-up, in steps."""
    beta = find(runs, label(DEEPEST, WARM)).config.objective.beta
    assert isinstance(beta, LinearWarmup)
    return beta.warmup_steps / 2


def lead(runs: Runs, layer: int) -> Sample:
    """[R] active units of a layer of the deepest ladder less the most that another arm has there."""

    def units(runs: Runs, name: str) -> Sample:
        run = find(runs, name)
        return Sample(run.layers[layer - 1].active_units(), run.seeds, count=True)

    return beyond(runs, units, np.argmax)


def looseness(runs: Runs, name: str) -> Sample:
    """[R, B] L_K - L_1 in nats, both as the paper prints them; a lower estimate of the gap."""
    return combined(np.subtract, importance_bound(runs, name), elbo(runs, name))


# -- what the paper says, with margins fixed before any run of cpu ------------------------------------

COLLAPSED_NATS = 3 * EPSILON_NATS
"""the verdict's threshold for each of z3, z4 and z5"""
LADDER_MARGIN_NATS = 0.2
"""a third of the lead of the paper's best ladder over its best other stack"""
UNITS_MARGIN = 1.0
LEAD_MARGIN = 0.5


def _gains(statement: str, depth: int, better: str, worse: str, margin: float) -> Claim:
    def of_arm(runs: Runs, arm: str) -> Sample:
        return importance_bound(runs, label(depth, arm))

    return difference(statement, SOURCE, f"L_K at depth {depth}", of_arm, better, worse, "above", margin)


def _leads(
    statement: str, quantity: str, measure: Callable[[Runs], Sample], relation: Relation, margin: float,
    unit: str = "nats",
) -> Claim:  # fmt: skip
    return Claim(statement, SOURCE, quantity, single(measure), relation, margin, unit)


claims = (
    Claim(
        statement="Without tricks the layers from the third up hold nothing.",
        source=SOURCE,
        quantity="rates of z3 to z5 together at depth 5, plain: the divergence of q(z3, z4, z5 | z2) from the prior,",
        measure=single(lambda runs: upper_kl(runs, DEEP[PLAIN])),
        relation="below",
        margin=COLLAPSED_NATS,
    ),
    Claim(
        statement="Without tricks, layers beyond the second do not help.",
        source=SOURCE,
        quantity="L_K, plain, at depth 5 minus depth 2",
        measure=lambda runs: (importance_bound(runs, DEEP[PLAIN]), importance_bound(runs, label(2, PLAIN))),
        relation="below",
        margin=LIKELIHOOD_MARGIN_NATS,
    ),
    _gains("Batch normalisation helps at two layers.", 2, NORMED, PLAIN, LIKELIHOOD_MARGIN_NATS),
    _gains("Batch normalisation helps at five layers.", DEEPEST, NORMED, PLAIN, LIKELIHOOD_MARGIN_NATS),
    Claim(
        statement="Warm-up keeps more units active early.",
        source=SOURCE,
        quantity="active units of the batch at half of the warm-up, depth 5, +BN+WU minus +BN,",
        measure=lambda runs: (units_at(runs, DEEP[WARM], early(runs)), units_at(runs, DEEP[NORMED], early(runs))),
        relation="above",
        margin=UNITS_MARGIN,
        unit="units",
    ),
    Claim(
        statement="Of the units that warm-up keeps active early, some are pruned later.",
        source=SOURCE,
        quantity="active units of the batch, depth 5, +BN+WU, at half of the warm-up minus at the end",
        measure=lambda runs: (units_at(runs, DEEP[WARM], early(runs)), units_at(runs, DEEP[WARM], math.inf)),
        relation="above",
        margin=UNITS_MARGIN,
        unit="units",
    ),
    *(
        _leads(
            f"The ladder has the most active units in z{layer}.",
            f"active units of z{layer} at depth 5, the ladder's minus the most of any other arm,",
            partial(lead, layer=layer), "above", LEAD_MARGIN, "units",
        )
        for layer in range(1, DEEPEST + 1)
    ),
    _gains("The ladder has the best likelihood.", DEEPEST, LADDER, WARM, LADDER_MARGIN_NATS),
    _leads(
        f"The ladder has the best ELBO {LATER}.",
        "L_1 at depth 5, the ladder's minus the best of any other arm,",
        lambda runs: beyond(runs, elbo, np.argmax), "above", LADDER_MARGIN_NATS,
    ),
    _leads(
        f"The ladder has the smallest gap {LATER}.",
        "L_K − L_1 at depth 5, the ladder's minus the smallest of any other arm,",
        lambda runs: beyond(runs, looseness, np.argmin), "below", 0.0,
    ),
    Claim(
        statement="In the ladder, layers beyond the second help.",
        source=SOURCE,
        quantity="L_K, LVAE+BN+WU, at depth 5 minus depth 2",
        measure=lambda runs: (importance_bound(runs, DEEP[LADDER]), importance_bound(runs, label(2, LADDER))),
        relation="above",
        margin=LADDER_MARGIN_NATS,
    ),
)  # fmt: skip
