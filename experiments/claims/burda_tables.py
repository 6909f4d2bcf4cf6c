"""What Burda et al. say of their tables, as numbers of a replica; names of the runs that they are read from."""

from collections.abc import Callable, Mapping

import numpy as np

from analysis.claims import Claim, NotMeasuredError, Relation, Runs, Sample, difference, find, single
from analysis.load import Array
from experiments.depth import EPSILON_NATS, likelihood

SOURCE = "Burda et al. 2016, section 5 (arXiv:1509.00519)"

KS = (1, 3, 5, 20, 50)
VAE, IWAE = "VAE", "IWAE"
OBJECTIVES: Mapping[str, str] = {VAE: "elbo", IWAE: "iwae"}
DATA: Mapping[str, tuple[str, str, str]] = {
    "": ("mnist-dynamic", "MNIST (dynamic bin.)", "Table 1"),
    "static ": ("mnist-static", "MNIST (fixed bin., Larochelle)", "Table 3 (App. D)"),
    "OMNIGLOT ": ("omniglot-dynamic", "OMNIGLOT (dynamic bin.)", "Table 1"),
}
"""what stands before a label -> name of the data here, name in the paper, table in the paper"""
TABLE_2 = "table 2"
ACTIVE, VALLEY = 0.01, 10**0.5
"""threshold of A_u, and how near to it a unit is on neither side"""
TURNS = tuple((first, second) for first in OBJECTIVES for second in OBJECTIVES)
"""table 2, and beside it the two controls that go on as they were"""


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
    """[R] -L_K, as the paper prints it."""
    found = likelihood(runs, name)
    return Sample(-found.values, found.seeds)


def burda_units(runs: Runs, name: str, layer: int = 1) -> Sample:
    """[R] units of a layer with A_u above 0.01."""
    run = find(runs, name)
    return Sample(run.layers[layer - 1].active_units("burda_variance"), run.seeds)


def coding_units(runs: Runs, name: str, layer: int = 1) -> Sample:
    """[R] units of a layer with a rate above 0.1 nats, which a unit just above 0.01 of A_u falls far short of."""
    run = find(runs, name)
    return Sample(run.layers[layer - 1].active_units("rate_unit_nats", EPSILON_NATS), run.seeds)


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


def gain_less_half(runs: Runs, depth: int) -> Sample:
    """[R] what the VAE's likelihood gains from K = 1 to the largest, less half of what the IWAE's gains."""
    one = likelihood(runs, label(VAE, 1, depth))
    vae, iwae = (likelihood(runs, best(runs, objective, depth)) for objective in (VAE, IWAE))
    return Sample(vae.values - one.values - (iwae.values - one.values) / 2, one.seeds)


def most_in_second(runs: Runs) -> Sample:
    """[R] the most active units that z2 has in any stack of two layers."""
    names = [name for name in panels["2 layers"] if name in runs]
    if not names:
        raise NotMeasuredError("no stack of two layers is there")
    found = [burda_units(runs, name, 2) for name in names]
    return Sample(np.max([sample.values for sample in found], axis=0), found[0].seeds)


def shares(runs: Runs) -> tuple[Array, tuple[int, ...]]:
    """[3, R] shares of units with A_u well below 0.01, within a factor `VALLEY` of it, well above it; and the seeds.

    Over all layers of all runs of tables 1 and 3 together.
    """
    names = [name for title, members in panels.items() if title != TABLE_2 for name in members if name in runs]
    if not names:
        raise NotMeasuredError("no run of table 1 is there")
    pooled, seeds = [], ()
    for name in names:
        for layer in range(1, runs[name].depth + 1):
            found, seeds = variances(runs, name, layer)
            pooled.append(found)
    units = np.concatenate(pooled, axis=1)
    edges = (units < ACTIVE / VALLEY, (units >= ACTIVE / VALLEY) & (units < ACTIVE * VALLEY), units >= ACTIVE * VALLEY)
    return np.stack([edge.mean(axis=1) for edge in edges]), seeds


def in_valley(runs: Runs) -> Sample:
    """[R] share of units with A_u near 0.01."""
    found, seeds = shares(runs)
    return Sample(found[1], seeds)


def smaller_mode(runs: Runs) -> Sample:
    """[R] share of units on that side of 0.01 that has fewer."""
    found, seeds = shares(runs)
    return Sample(np.minimum(found[0], found[2]), seeds)


def removal(runs: Runs) -> Sample:
    """[R] the largest change of L_K, either way, by the removal of inactive units, over all runs."""
    found = {name: find(runs, name) for name in runs}
    changes = [np.abs(run.beside["lost_nats"][:, 1]) for run in found.values() if "lost_nats" in run.beside]
    if not changes:
        raise NotMeasuredError("no run has its likelihood without inactive units")
    return Sample(np.max(changes, axis=0), next(iter(found.values())).seeds)


# -- what the paper says, with margins fixed before any run of cpu -------------------------------------

RISE_MARGIN_NATS = 0.2
"""a tenth of what the paper's IWAE gains from K = 1 to 50"""
UNITS_MARGIN = 0.5
"""more units in most seeds"""
SECOND_LAYER_UNITS = 10.0
"""the paper's "less than 10" of 50"""
VALLEY_SHARE, MODE_SHARE = 0.1, 0.1
REMOVAL_NATS = 0.06
"""the paper's own"""


def _table_1(depth: int) -> tuple[Claim, ...]:
    one, where = label(VAE, 1, depth), layers(depth)
    return (
        Claim(
            f"The IWAE's likelihood rises with K, {where}.", SOURCE, "L_K, IWAE of the most samples minus 1,",
            lambda runs: (likelihood(runs, best(runs, IWAE, depth)), likelihood(runs, one)), "above", RISE_MARGIN_NATS,
        ),
        Claim(
            f"The IWAE's likelihood rises from 1 sample to 5, {where}.", SOURCE, "L_K, IWAE of 5 samples minus 1,",
            lambda runs: (likelihood(runs, label(IWAE, middle(runs), depth)), likelihood(runs, one)),
            "above", RISE_MARGIN_NATS,
        ),
        Claim(
            f"The IWAE's likelihood rises beyond 5 samples, {where}.", SOURCE, "L_K, IWAE of the most samples minus 5,",
            lambda runs: (
                likelihood(runs, best(runs, IWAE, depth)), likelihood(runs, label(IWAE, middle(runs), depth))
            ),
            "above", 0.0,
        ),
        Claim(
            f"The VAE's likelihood hardly rises with K: by less than half as much, {where}.", SOURCE,
            "gain in L_K from 1 sample to the largest number, VAE's minus half of IWAE's,",
            single(lambda runs: gain_less_half(runs, depth)), "below", 0.0,
        ),
        Claim(
            f"The IWAE has a better likelihood than the VAE, {where} (claimed after its runs were seen).", SOURCE,
            "L_K at the largest number of samples, IWAE minus VAE,",
            lambda runs: (likelihood(runs, best(runs, IWAE, depth)), likelihood(runs, best(runs, VAE, depth))),
            "above", RISE_MARGIN_NATS,
        ),
        Claim(
            f"The IWAE has more active units in z1 than the VAE, {where}.", SOURCE,
            "units with A_u above 0.01 at the largest number of samples, IWAE minus VAE,",
            lambda runs: (burda_units(runs, best(runs, IWAE, depth)), burda_units(runs, best(runs, VAE, depth))),
            "above", UNITS_MARGIN, "units",
        ),
        Claim(
            f"The IWAE has more active units in z1 where it has more samples, {where}.", SOURCE,
            "units with A_u above 0.01, IWAE of the most samples minus 1,",
            lambda runs: (burda_units(runs, best(runs, IWAE, depth)), burda_units(runs, one)),
            "above", UNITS_MARGIN, "units",
        ),
        Claim(
            f"The IWAE has more units of z1 that hold 0.1 nats than the VAE, {where} (claimed after its runs were "
            "seen).", "a question of this project: what do the units hold that A_u counts?",
            "units with a rate above 0.1 nats at the largest number of samples, IWAE minus VAE,",
            lambda runs: (coding_units(runs, best(runs, IWAE, depth)), coding_units(runs, best(runs, VAE, depth))),
            "above", UNITS_MARGIN, "units",
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
        *claim("likelihood", "L_K", likelihood, RISE_MARGIN_NATS, "nats"),
        *claim("active units", "units with A_u above 0.01", burda_units, UNITS_MARGIN, "units"),
    )


claims = (
    *_table_1(1),
    *_table_1(2),
    Claim(
        "The second stochastic layer has less than 10 active units of 50, whatever the objective.", SOURCE,
        "the most units of z2 with A_u above 0.01 in any run of two layers", single(most_in_second),
        "below", SECOND_LAYER_UNITS, "units",
    ),
    *_table_2(VAE, "above", "gains"),
    *_table_2(IWAE, "below", "loses"),
    Claim(
        "The histogram of log A_u has two modes apart: few units lie near the threshold.", SOURCE,
        "share of units of all runs of table 1 with A_u between 0.0032 and 0.032", single(in_valley),
        "below", VALLEY_SHARE, "of units",
    ),
    Claim(
        "Both modes are there.", SOURCE, "share of units below 0.0032 or above 0.032, whichever is smaller,",
        single(smaller_mode), "above", MODE_SHARE, "of units",
    ),
    Claim(
        "Removing the inactive units hardly changes the likelihood.", SOURCE,
        "the largest change of L_K over all runs", single(removal), "below", REMOVAL_NATS,
    ),
)  # fmt: skip
