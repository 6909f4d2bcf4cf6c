"""Which layer has collapsed: verdicts counted over replicas, and the numbers they rest on."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.resolutions import at_place, resolutions
from hvae.analysis.tables.likelihood import bound_heading, bound_of, mean_text
from hvae.analysis.tables.table import Cell, Column, Table, hull, interval_text, number, to_csv
from hvae.analysis.tables.words import ABBREVIATION, KIND, LETTER, QUANTITIES
from hvae.diagnosis.layer import Layer
from hvae.vocabulary import COLLAPSED, FAILED, TO_A_CONSTANT, TO_ANOTHER, TO_PRIOR, TO_STANDARD

BETA, GAINED = "β", "last half"
"""columns of the overview: beta at the last step, and by how much the ELBO rose in the last half of training"""
LEVELS = 4
"""of the overview, from words to letters"""
BY_PLACE = LEVELS
"""beyond them: layers of one resolution counted together, where a column for each has no room"""


def counts(layer: Layer, epsilon_index: int) -> Counter[str]:
    """How many replicas have which verdict."""
    return Counter(str(word) for word in layer.verdict[:, epsilon_index])


def kind_counts(layer: Layer, epsilon_index: int) -> Counter[str]:
    """`counts` by `KIND`: all ways to collapse are one."""
    merged: Counter[str] = Counter()
    for word, count in counts(layer, epsilon_index).items():
        merged[KIND.get(word, word)] += count
    return merged


def counted(found: Counter[str], remarks: Mapping[str, str] | None = None) -> str:
    """Words with counts and remarks, the most frequent first: "active 3/4, undecided 1/4"."""
    n = sum(found.values())
    text = ", ".join(f"{word} {count}/{n}{(remarks or {}).get(word, '')}" for word, count in found.most_common())
    return text.replace("0, I", "0,\N{NO-BREAK SPACE}I")


def mismatch(layer: Layer, epsilon_index: int) -> str:
    """ " (0.42 nats from its prior)": the median over the replicas that collapsed to another distribution."""
    words = layer.verdict[:, epsilon_index]
    for quantity, law in (("kl_prior_nats", "its prior"), ("kl_standard_nats", "N(0, I)")):
        nats = layer.interval(quantity)[np.isin(words, (TO_ANOTHER, TO_A_CONSTANT)), 1]
        if np.isfinite(nats).any():
            return f" ({number(_median(nats))} nats from {law})"
    return ""


def share_text(layer: Layer, epsilon_index: int) -> str:
    """ "on at least 96 % of images": what holds for all replicas that collapsed; empty where none has one recorded."""
    fallen = np.isin(layer.verdict[:, epsilon_index], COLLAPSED)
    shares = layer.shares(epsilon_index)[fallen, 2]
    shares = shares[np.isfinite(shares)]
    return f"on at least {math.floor(100 * (1 - shares.max()))} % of images" if shares.size else ""


def moved_text(layer: Layer, epsilon_index: int) -> str:
    """ "100 [97, 100]": per cent of images that move the layer, with the limits over replicas."""
    low, middle, high = hull(100 * layer.shares(epsilon_index))
    if np.isnan(middle):
        return number(np.nan)
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]" if np.isfinite([low, high]).all() else f"{middle:.0f}"


def used_text(layer: Layer) -> str:
    """V as "0.42 [0.31, 0.53]", or as "at least 3.9" where it is at the most that it could say."""
    used, caps = layer.interval("used_nats"), layer.used_cap
    known = np.isfinite(used[:, 1]) & np.isfinite(caps)
    if known.any() and (used[known, 1] > AT_CAP * caps[known]).all():
        return f"{AT_LEAST} {number(float(used[known, 0].min()), 1)}"
    return interval_text(used)


AT_CAP = 0.9
"""share of its cap from which V says "at least" """


def cap_text(layers: Sequence[Layer]) -> str:
    """What "≥" means and how large V can be, where one of the layers shows it; else empty."""
    caps = [layer.used_cap for layer in layers if used_text(layer).startswith(AT_LEAST)]
    if not caps:
        return ""
    most = sorted({number(float(cap), 2) for each in caps for cap in each[np.isfinite(each)]})
    return f"{AT_LEAST}: as many other codes as were tried show a V of {' or '.join(most)} nats at most."


AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"


def quantity_text(layer: Layer, quantity: str) -> str:
    """A quantity of a layer as it stands in a cell."""
    if quantity == "used_nats":
        return used_text(layer)
    values = layer.interval(quantity)
    if quantity == "reading_nats":  # an upper bound, as I is: of what the layer below tells of x by z_l
        values = np.fmin(values, layer.interval("information_nats")[:, 2:])
    return interval_text(values)


def active_text(layer: Layer) -> str:
    """ "twin 3, Burda 8 of 8": active units by either variance, medians over replicas."""
    short_names = {"twin_covariance": "twin", "residual_variance": "residual", "burda_variance": "Burda"}
    statistics = dict.fromkeys((layer.active_statistic, "burda_variance"))
    medians = {short_names[name]: _median(layer.active_units(name)) for name in statistics if name}
    known = ", ".join(f"{name} {median:g}" for name, median in medians.items() if not np.isnan(median))
    return f"{known} of {layer.n_units}" if known else f"\N{EN DASH} of {layer.n_units}"


def short(found: Counter[str], level: int = 0) -> str:
    """A cell of the overview: "active 4/4", "act 3 und 1", "A3 ?1" or "A3+"; a higher level is shorter."""
    n = sum(found.values())
    (word, count), *others = found.most_common()
    if level == 0 and not others:
        return f"{word} {count}/{n}"
    if level <= 1:
        return " ".join(f"{ABBREVIATION.get(word, word[:3])} {count}" for word, count in found.most_common())
    if level == 2:
        return " ".join(f"{LETTER.get(word, word[:1])}{count}" for word, count in found.most_common())
    return f"{LETTER.get(word, word[:1])}{count}" + ("+" if others else "")


def overview(runs: Sequence[LoadedRun], level: int = 0) -> Table:
    """One row per run, one column per layer, z1 first; then the bound on log p(x), else L_K.

    At `BY_PLACE` there is a column per resolution, the coarsest first, and one for latents without any.
    Last, where it is known, beta at the last step and what the ELBO gained in the last half of training.
    """
    depth = max(run.depth for run in runs)
    groups: dict[str, Callable[[LoadedRun], Sequence[Layer]]] = {
        f"z{index + 1}": lambda run, index=index: run.layers[index : index + 1] for index in range(depth)
    }
    if level == BY_PLACE:
        measured = [run for run in runs if run.evaluated]
        places = [*resolutions(runs), *[""] * any(not layer.place for run in measured for layer in run.layers)]
        groups = {place or "dense": lambda run, place=place: at_place(run, place) for place in places}
    columns = [Column("run", numeric=False), *(Column(heading, numeric=False) for heading in groups)]
    with_bound = any(run.likelihood is not None for run in runs)
    if with_bound:
        columns.append(Column(bound_heading(runs), "nats"))
    trained = any(run.gained_nats.size for run in runs)
    if trained:
        columns += [Column(BETA), Column(GAINED, "nats")]
    rows = []
    previous = 0
    for run in runs:
        cells = [Cell(run.title, "first" if run.depth != previous else "")]
        previous = run.depth
        for layers_of in groups.values():
            found: Counter[str] = sum((kind_counts(layer, run.epsilon_index) for layer in layers_of(run)), Counter())
            cells.append(
                Cell(short(found, min(level, 2) if level == BY_PLACE else level), kind_class(found))
                if found
                else Cell("")
            )
        if with_bound:
            bound = run.likelihood
            cells.append(Cell(number(np.nan) if bound is None else bound_of(bound, runs)))
        if trained:
            cells += [Cell(beta_text(run)), Cell(mean_text(run.gained_nats))]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def overview_within(runs: Sequence[LoadedRun], width: int) -> tuple[Table, int]:
    """The overview and its level: words give way first, down to letters with counts, then what is known of training."""
    tables = [overview(runs, level) for level in range(LEVELS)]
    n_places = len(resolutions(runs))
    for left_out in ((), (BETA,), (BETA, GAINED)):
        for level, full in enumerate(tables):
            table = functools.reduce(Table.without, left_out, full)
            if table.width <= width and (level < LEVELS - 1 or (len(left_out) == 2 and n_places < 2)):
                return table, level
    if n_places > 1:
        full = overview(runs, BY_PLACE)
        narrower = [full, full.without(BETA), full.without(BETA).without(GAINED)]
        return next((table for table in narrower if table.width <= width), narrower[-1]), BY_PLACE
    return table, level


def beta_text(run: LoadedRun) -> str:
    """Beta at the last step."""
    return number(np.nan) if np.isnan(run.beta_at_end) else f"{run.beta_at_end:.3g}"


def kind_class(found: Counter[str]) -> str:
    """The style class of the verdict where all replicas that did not fail agree, otherwise "mixed"."""
    words = [word for word in found if word != FAILED] or [FAILED]
    return f"is-{words[0].replace(' ', '-')}" if len(words) == 1 else "is-mixed"


def details(runs: Sequence[LoadedRun]) -> Table:
    """One row per run and layer: the verdict at every threshold, and each quantity as median [low, high]."""
    thresholds = {run.epsilons[run.epsilon_index] for run in runs}
    heading = f"verdict at {thresholds.pop():g} nats" if len(thresholds) == 1 else "verdict at the run's threshold"
    columns = [
        Column("run", numeric=False),
        Column("layer", numeric=False),
        Column("active units", "median", numeric=False),
        Column(heading, numeric=False),
        Column("at the other thresholds", numeric=False),
        Column("flags", numeric=False),
        Column("moved", "% of x"),
        *(Column(name, "nats") for name, _, _ in QUANTITIES),
    ]
    rows = []
    for run in runs:
        for position, layer in enumerate(run.layers):
            found = counts(layer, run.epsilon_index)
            rows.append(
                (
                    Cell(run.title if position == 0 else "", "first" if position == 0 else ""),
                    Cell(layer.name),
                    Cell(active_text(layer)),
                    Cell(
                        counted(found, _remarks(layer, run.epsilon_index)),
                        kind_class(kind_counts(layer, run.epsilon_index)),
                    ),
                    Cell(moves(run, layer)),
                    Cell(", ".join(dict.fromkeys(filter(None, layer.marks)))),
                    Cell(moved_text(layer, run.epsilon_index)),
                    *(Cell(quantity_text(layer, key)) for _, key, _ in QUANTITIES),
                )
            )
    return Table(tuple(columns), tuple(rows))


def _remarks(layer: Layer, epsilon_index: int) -> Mapping[str, str]:
    share, far = share_text(layer, epsilon_index), mismatch(layer, epsilon_index)
    on = f" {share}" if share else ""
    return {TO_PRIOR: on, TO_STANDARD: on, TO_ANOTHER: on + far, TO_A_CONSTANT: far}


def moves(run: LoadedRun, layer: Layer) -> str:
    """Where the verdict differs at the smaller and the larger threshold."""
    here = counts(layer, run.epsilon_index)
    changed = [
        f"at {epsilon:g}: {counted(counts(layer, index))}"
        for index, epsilon in enumerate(run.epsilons)
        if index != run.epsilon_index and counts(layer, index) != here
    ]
    return "; ".join(changed) or "the same"


def verdict_csv(runs: Sequence[LoadedRun]) -> str:
    """One row per run, layer and replica, with every interval."""
    heading = ["run", "layer", "units", "seed", "active_units", "burda_active_units", "epsilon_nats"]
    heading += ["verdict_at_lower_epsilon", "verdict", "verdict_at_higher_epsilon", "mark"]
    heading += ["moved_share_low", "moved_share_middle", "moved_share_high"]
    keys = [key for _, key, _ in QUANTITIES]
    heading += [f"{key}_{end}" for key in keys for end in ("low", "middle", "high")]
    rows: list[list[object]] = []
    for run in runs:
        for layer in run.layers:
            active, burda = layer.active_units(), layer.active_units("burda_variance")
            for replica, seed in enumerate(run.seeds):
                row: list[object] = [run.label, layer.name, layer.n_units, seed, float(active[replica])]
                row.append(float(burda[replica]))
                row.append(run.epsilons[run.epsilon_index])
                row += [str(word) for word in layer.verdict[replica]] + [layer.marks[replica]]
                row += [float(value) for value in layer.shares(run.epsilon_index)[replica]]
                row += [float(value) for key in keys for value in layer.interval(key)[replica]]
                rows.append(row)
    return to_csv(heading, rows)


def _median(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(np.median(kept)) if kept.size else float("nan")
