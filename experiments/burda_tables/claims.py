"""Claims of Burda et al. on their tables, as numbers of a replica; names of the runs."""

from collections.abc import Callable, Mapping

import numpy as np

from hvae.analysis.claims import (
    LATER,
    Claim,
    Measure,
    NotMeasuredError,
    Relation,
    Runs,
    Sample,
    difference,
    find,
    single,
)
from hvae.analysis.load import Array
from hvae.analysis.measures import EPSILON_NATS, importance_bound
from hvae.analysis.samples import combined

SOURCE = "Burda et al. 2016, section 5 (arXiv:1509.00519)"

KS = (1, 3, 5, 20, 50)
VAE, IWAE = "VAE", "IWAE"
OBJECTIVES: Mapping[str, str] = {VAE: "elbo", IWAE: "iwae"}
DATA: Mapping[str, tuple[str, str, str]] = {
    "": ("mnist-dynamic", "MNIST (dynamic bin.)", "Table 1"),
    "static ": ("mnist-static", "MNIST (fixed bin., Larochelle)", "Table 3 (App. D)"),
    "OMNIGLOT ": ("omniglot-dynamic", "OMNIGLOT (dynamic bin.)", "Table 1"),
}
"""prefix of a label -> name of the data here, name in the paper, table in the paper"""
TABLE_2 = "table 2"
ACTIVE, VALLEY = 0.01, 10**0.5
"""threshold of A_u, and the factor within which a unit is on neither side"""
TURNS = tuple((first, second) for first in OBJECTIVES for second in OBJECTIVES)
"""table 2, and two controls that keep their objective"""


def layers(depth: int) -> str:
    """In words."""
    return f"{depth} layer{'s' * (depth > 1)}"


def label(objective: str, k: int, depth: int = 1, data: str = "") -> str:
    """The name of a run; at K = 1 both objectives are the same."""
    return f"{data}{'K=1' if k == 1 else f'{objective} K={k}'}, {layers(depth)}"


def turn(first: str, second: str) -> str:
    """The name of a run of table 2."""
    return f"{first} then {second}"


panels = {
    **{
        f"{data}{layers(depth)}": tuple(
            dict.fromkeys(label(objective, k, depth, data) for objective in OBJECTIVES for k in KS)
        )
        for data in DATA
        for depth in (1, 2)
    },
    TABLE_2: tuple(turn(first, second) for first, second in TURNS),
}

# -- what is measured of a replica --------------------------------------------------------------------


def nll(runs: Runs, name: str) -> Sample:
    """[R, B] -L_K, as the paper prints it, of the K of evaluation: its own 5000 at `cpu` and `paper`."""
    return combined(np.negative, importance_bound(runs, name))


def burda_units(runs: Runs, name: str, layer: int = 1) -> Sample:
    """[R] units of a layer with A_u above 0.01."""
    run = find(runs, name)
    return Sample(run.layers[layer - 1].active_units("burda_variance"), run.seeds, count=True)


def coding_units(runs: Runs, name: str) -> Sample:
    """[R] units of a stack of one layer with a rate above 0.1 nats.

    With two layers a rate is a difference of informations, and small for a unit of z1 that z2 predicts.
    """
    run = find(runs, name)
    if run.depth > 1:
        raise NotMeasuredError("rates count units of one layer only")
    return Sample(run.layers[0].active_units("rate_unit_nats", EPSILON_NATS), run.seeds, count=True)


def variances(runs: Runs, name: str, layer: int) -> tuple[Array, tuple[int, ...]]:
    """A_u [R, D], and the seeds."""
    run = find(runs, name)
    found = run.layers[layer - 1].unit_intervals
    if "burda_variance" not in found:
        raise NotMeasuredError(f"the run '{name}' has no variances of units")
    return found["burda_variance"][..., 1], run.seeds


def largest(runs: Runs) -> int:
    """The largest K among the runs."""
    found = [k for k in KS if k > 1 and label(IWAE, k) in runs]
    if not found:
        raise NotMeasuredError("no run of more than one sample is there")
    return max(found)


def middle(runs: Runs) -> int:
    """The K between 1 and the largest."""
    if label(IWAE, 5) not in runs or largest(runs) == 5:
        raise NotMeasuredError("there is no K between 1 and the largest")
    return 5


def best(runs: Runs, objective: str, depth: int) -> str:
    """The name of the run of the largest K."""
    return label(objective, largest(runs), depth)


def _gains(runs: Runs, depth: int, read: Callable[[Runs, str], Sample]) -> tuple[Sample, Sample]:
    """The gain of a number from K = 1 to the largest, for VAE and IWAE."""
    one = read(runs, label(VAE, 1, depth))
    vae, iwae = (combined(np.subtract, read(runs, best(runs, objective, depth)), one) for objective in (VAE, IWAE))
    return vae, iwae


def gain_less_half(runs: Runs, depth: int) -> Sample:
    """[R, B] the gain of the VAE's likelihood from K = 1 to the largest, less half of the IWAE's gain."""
    return combined(lambda vae, iwae: vae - iwae / 2, *_gains(runs, depth, importance_bound))


def change_less_half(runs: Runs, depth: int) -> Sample:
    """[R] the change of the VAE's active units of z1 from K = 1 to the largest, less half of the IWAE's gain."""
    return combined(lambda vae, iwae: np.abs(vae) - iwae / 2, *_gains(runs, depth, burda_units))


def _there(runs: Runs, *titles: str) -> list[str]:
    """The runs of these panels that exist."""
    names = [name for title in titles for name in panels[title] if name in runs]
    if not names:
        raise NotMeasuredError(f"no run of {', '.join(titles)} is there")
    return names


TABLES_1_3 = tuple(title for title in panels if title != TABLE_2)


def _second(runs: Runs, extreme: Callable[..., Array]) -> Sample:
    found = [burda_units(runs, name, 2) for name in _there(runs, "2 layers")]
    return Sample(extreme([sample.values for sample in found], axis=0), found[0].seeds, count=True)


def most_in_second(runs: Runs) -> Sample:
    """[R] the most active units that z2 has in any stack of two layers."""
    return _second(runs, np.max)


def fewest_in_second(runs: Runs) -> Sample:
    """[R] the fewest."""
    return _second(runs, np.min)


def most_used(runs: Runs) -> Sample:
    """[R] the largest share of z1's units that is active in any run of tables 1 and 3."""
    found = [(burda_units(runs, name), runs[name].layers[0].n_units) for name in _there(runs, *TABLES_1_3)]
    return Sample(np.max([sample.values / n for sample, n in found], axis=0), found[0][0].seeds, count=True)


def _shares(units: Array) -> Array:
    """[3, R] shares of units [R, D] with A_u well below 0.01, within a factor `VALLEY` of it, well above it."""
    edges = (units < ACTIVE / VALLEY, (units >= ACTIVE / VALLEY) & (units < ACTIVE * VALLEY), units >= ACTIVE * VALLEY)
    return np.stack([edge.mean(axis=1) for edge in edges])


def in_valley(runs: Runs) -> Sample:
    """[R] share of units with A_u near 0.01, over all layers of all runs of tables 1 and 3 together."""
    names = _there(runs, *TABLES_1_3)
    every = [variances(runs, name, layer + 1) for name in names for layer in range(runs[name].depth)]
    return Sample(_shares(np.concatenate([units for units, _ in every], axis=1))[1], every[0][1], count=True)


def smaller_mode(runs: Runs) -> Sample:
    """[R] share of z1's units on that side of 0.01 that has fewer, the smallest over stacks of one layer."""
    every = [variances(runs, name, 1) for name in _there(runs, "1 layer")]
    return Sample(np.min([_shares(units)[[0, 2]].min(axis=0) for units, _ in every], axis=0), every[0][1], count=True)


def small_units(runs: Runs) -> Sample:
    """[R] L_K that the IWAE of one layer and the most samples loses by the removal of all units of at most 0.1 nats."""
    run = find(runs, best(runs, IWAE, 1))
    if "small_lost_nats" not in run.beside:
        raise NotMeasuredError(f"the run '{run.label}' has no likelihood without its units of small rate")
    return Sample(run.beside["small_lost_nats"][:, 1], run.seeds)


def removal(runs: Runs) -> Sample:
    """[R] the largest change of L_K, either way, by the removal of inactive units, over all runs."""
    found = {name: find(runs, name) for name in runs}
    changes = [np.abs(run.beside["lost_nats"][:, 1]) for run in found.values() if "lost_nats" in run.beside]
    if not changes:
        raise NotMeasuredError("no run has its likelihood without inactive units")
    return Sample(np.max(changes, axis=0), next(iter(found.values())).seeds)


# -- what the paper says, with margins fixed before the runs of cpu that are kept ----------------------

BETWEEN = "(claimed when some of its runs were made)"

RISE_MARGIN_NATS = 0.2
"""a tenth of what the paper's IWAE gains from K = 1 to 50"""
UNITS_MARGIN = 0.5
"""half a unit"""
SECOND_LAYER_UNITS = 10.0
"""the paper's "less than 10" of 50"""
VALLEY_SHARE, MODE_SHARE = 0.1, 0.1
REMOVAL_NATS = 0.06
"""the paper's own"""


def _claim(
    statement: str, quantity: str, measure: Measure, relation: Relation, margin: float, unit: str = "nats",
    source: str = SOURCE,
) -> Claim:  # fmt: skip
    return Claim(statement, source, quantity, measure, relation, margin, unit)


def _between(
    read: Callable[[Runs, str], Sample], first: Callable[[Runs], str], second: Callable[[Runs], str]
) -> Measure:
    """A number of two runs; their names depend on the runs that exist."""
    return lambda runs: (read(runs, first(runs)), read(runs, second(runs)))


def _table_1(depth: int) -> tuple[Claim, ...]:
    where = layers(depth)

    def one(runs: Runs) -> str:
        return label(VAE, 1, depth)

    def five(runs: Runs) -> str:
        return label(IWAE, middle(runs), depth)

    def most(runs: Runs) -> str:
        return best(runs, IWAE, depth)

    def vae(runs: Runs) -> str:
        return best(runs, VAE, depth)

    return (
        _claim(
            f"The IWAE's likelihood rises with K, {where}.", "L_5000, IWAE of the most samples minus 1,",
            _between(importance_bound, most, one), "above", RISE_MARGIN_NATS,
        ),
        _claim(
            f"The IWAE's likelihood rises from 1 sample to 5, {where} {BETWEEN}.",
            "L_5000, IWAE of 5 samples minus 1,",
            _between(importance_bound, five, one), "above", RISE_MARGIN_NATS,
        ),
        _claim(
            f"The IWAE's likelihood rises beyond 5 samples, {where}.",
            "L_5000, IWAE of the most samples minus 5,",
            _between(importance_bound, most, five), "above", 0.0,
        ),
        _claim(
            f"The VAE's likelihood hardly rises with K: by less than half as much, {where}.",
            "gain in L_5000 from 1 sample to the largest number, VAE's minus half of IWAE's,",
            single(lambda runs: gain_less_half(runs, depth)), "below", 0.0,
        ),
        _claim(
            f"The IWAE has a better likelihood than the VAE, {where} {LATER}.",
            "L_5000 at the largest number of samples, IWAE minus VAE,",
            _between(importance_bound, most, vae), "above", RISE_MARGIN_NATS,
        ),
        _claim(
            f"The IWAE has more active units in z1 than the VAE, {where}.",
            "units with A_u above 0.01 at the largest number of samples, IWAE minus VAE,",
            _between(burda_units, most, vae), "above", UNITS_MARGIN, "units",
        ),
        _claim(
            f"The IWAE has more active units in z1 where it has more samples, {where} {BETWEEN}.",
            "units with A_u above 0.01, IWAE of the most samples minus 1,",
            _between(burda_units, most, one), "above", UNITS_MARGIN, "units",
        ),
        _claim(
            f"The VAE's active units in z1 hardly change with K: by less than half as many, {where} {LATER}.",
            "units with A_u above 0.01, change of the VAE's from 1 sample to the largest number minus half of what the "
            "IWAE gains,",
            single(lambda runs: change_less_half(runs, depth)), "below", 0.0, "units",
        ),
    )  # fmt: skip


def _table_2(first: str, relation: Relation, verb: str) -> tuple[Claim, ...]:
    second = IWAE if first == VAE else VAE
    turned, kept, sign = turn(first, second), turn(first, first), 1 if relation == "above" else -1

    def stage_1(runs: Runs) -> str:
        return label(first, 1 if first == VAE else largest(runs))

    def claim(what: str, quantity: str, of: Callable[[Runs, str], Sample], margin: float, unit: str) -> list[Claim]:
        before = Claim(
            f"A trained {first} that goes on as {second} {verb} {what}.", SOURCE, f"{quantity}, after minus before,",
            lambda runs: (of(runs, turned), of(runs, stage_1(runs))), relation, sign * margin, unit,
        )  # fmt: skip
        control = difference(
            f"It {verb} {what} against one that goes on as {first} for as many steps.",
            "a control of this project: here the first stage is not converged",
            quantity, of, turned, kept, relation, sign * margin, unit=unit,
        )  # fmt: skip
        return [before, control]

    return (
        *claim("likelihood", "L_5000", importance_bound, RISE_MARGIN_NATS, "nats"),
        *claim("active units", "units with A_u above 0.01", burda_units, UNITS_MARGIN, "units"),
    )


OWN = "a question of this project: what do the units hold that A_u counts?"
HISTOGRAM = "Burda et al. 2016, appendix C (arXiv:1509.00519)"

claims = (
    *_table_1(1),
    *_table_1(2),
    _claim(
        f"Two layers have a better likelihood than one {LATER}.",
        "L_5000, IWAE of the most samples, 2 layers minus 1,",
        lambda runs: (importance_bound(runs, best(runs, IWAE, 2)), importance_bound(runs, best(runs, IWAE, 1))),
        "above", RISE_MARGIN_NATS,
    ),
    _claim(
        f"In every run fewer than half of z1's units are active {LATER}.",
        "the largest share of z1's units with A_u above 0.01 in any run of table 1",
        single(most_used), "below", 0.5, "of units",
    ),
    _claim(
        "The second stochastic layer has fewer than 10 active units of 50, whatever the objective.",
        "the most units of z2 with A_u above 0.01 in any run of two layers",
        single(most_in_second), "below", SECOND_LAYER_UNITS, "units",
    ),
    _claim(
        f"The second stochastic layer has active units, whatever the objective {LATER}.",
        "the fewest units of z2 with A_u above 0.01 in any run of two layers",
        single(fewest_in_second), "above", 1.0, "units",
    ),
    _claim(
        f"The IWAE has more active units in z2 where it has more samples {LATER}.",
        "units with A_u above 0.01, IWAE of the most samples minus 1,",
        lambda runs: (burda_units(runs, best(runs, IWAE, 2), 2), burda_units(runs, label(VAE, 1, 2), 2)),
        "above", UNITS_MARGIN, "units",
    ),
    _claim(
        f"The IWAE has more units of z1 with a rate above 0.1 nats than the VAE, 1 layer {LATER}.",
        "units with a rate above 0.1 nats at the largest number of samples, IWAE minus VAE,",
        lambda runs: (coding_units(runs, best(runs, IWAE, 1)), coding_units(runs, best(runs, VAE, 1))),
        "above", UNITS_MARGIN, "units", OWN,
    ),
    _claim(
        f"The IWAE's units with a rate of at most 0.1 nats are worth likelihood together, 1 layer {LATER}.",
        "nats of L_5000 that their removal costs the IWAE of the most samples",
        single(small_units), "above", RISE_MARGIN_NATS, source=OWN,
    ),
    *_table_2(VAE, "above", "gains"),
    *_table_2(IWAE, "below", "loses"),
    _claim(
        "The histogram of log A_u has two modes apart: few units lie near the threshold.",
        "share of units of all runs of table 1 with A_u between 0.0032 and 0.032", single(in_valley),
        "below", VALLEY_SHARE, "of units", HISTOGRAM,
    ),
    _claim(
        f"Both modes are there in z1 of every stack of one layer {LATER}.",
        "the smallest share of z1's units below 0.0032, or above 0.032, in any run of one layer",
        single(smaller_mode), "above", MODE_SHARE, "of units", HISTOGRAM,
    ),
    _claim(
        "Removing the inactive units hardly changes the likelihood.",
        "the largest change of L_5000 over all runs",
        single(removal), "below", REMOVAL_NATS, source=HISTOGRAM,
    ),
)  # fmt: skip
