"""Which layer has collapsed: verdicts counted over replicas, and the numbers they rest on."""

from collections import Counter
from collections.abc import Mapping, Sequence

from analysis.load import NOT_MEASURED, Layer, LoadedRun
from analysis.tables.table import Cell, Column, Table, interval_text, number, to_csv

COLLAPSED_STANDARD = "collapsed to N(0, I)"
COLLAPSED_CONSTANT = "collapsed to a constant"

MEANING: Mapping[str, str] = {
    "active": "I and U surely above the threshold: the layer tells images apart and the layer below reads it",
    COLLAPSED_STANDARD: "J and the divergence from N(0, I) surely below the threshold: the layer repeats the prior",
    COLLAPSED_CONSTANT: "J surely below the threshold, but the layer has settled on a law of its own",
    "codes noise only": "J surely above, I surely below: the layer codes the noise of the layer below, not the image",
    "coded but unread": "I surely above, U surely below: the layer knows the image, the decoder does not listen",
    "undecided": "an interval crosses the threshold",
    "failed": "training of this replica went non-finite and was stopped",
    NOT_MEASURED: "the run is not evaluated yet",
}
"""A verdict and what was found, in words."""

KIND: Mapping[str, str] = {
    "active": "active",
    COLLAPSED_STANDARD: "collapsed",
    COLLAPSED_CONSTANT: "collapsed",
    "codes noise only": "noise only",
    "coded but unread": "unread",
    "undecided": "undecided",
    "failed": "failed",
    NOT_MEASURED: "not measured",
}
"""The shorter word for a column of counts; both ways to collapse are one kind."""

ABBREVIATION: Mapping[str, str] = {
    "active": "act",
    "collapsed": "col",
    "noise only": "noi",
    "unread": "unr",
    "undecided": "und",
    "failed": "fail",
    "not measured": "n/a",
}

QUANTITIES: tuple[tuple[str, str, str], ...] = (
    (
        "J",
        "parent_information_nats",
        "information from the parent: I(z(l−1); z(l)) bottom-up, I(x; z(l) | layers above) top-down",
    ),
    (
        "I",
        "information_nats",
        "information about the image: I(x; z(l)) bottom-up, I(x; z(l) | layers above) top-down",
    ),
    (
        "U",
        "reading_nats",
        "use by the decoder: divergence of the law of the layer below when z(l) is taken from another image",
    ),
    (
        "rate",
        "rate_nats",
        "mean of log q(z(l)|·) − log p(z(l)|·); not a divergence bottom-up, and then it may be negative",
    ),
    (
        "KL to N(0, I)",
        "kl_standard_nats",
        "mean divergence of q(z(l)|·) from N(0, I); below the top it depends on the layer's arbitrary scale",
    ),
    (
        "encoder k.o.",
        "knockout_encoder_nats",
        "bound lost when q of this layer and of those after it in the inference order is replaced by the prior",
    ),
    (
        "model k.o.",
        "knockout_model_nats",
        "likelihood lost when the decoder sees this layer's prior mean in place of the layer",
    ),
)
"""Heading, recorded quantity, meaning."""


def counts(layer: Layer, epsilon_index: int) -> Counter[str]:
    """How many replicas have which verdict."""
    return Counter(str(word) for word in layer.verdict[:, epsilon_index])


def kind_counts(layer: Layer, epsilon_index: int) -> Counter[str]:
    """`counts` by `KIND`: both ways to collapse are one."""
    merged: Counter[str] = Counter()
    for word, count in counts(layer, epsilon_index).items():
        merged[KIND.get(word, word)] += count
    return merged


def counted(found: Counter[str]) -> str:
    """Words with counts, the most frequent first: "active 3/4, undecided 1/4"."""
    n = sum(found.values())
    words = ((word.replace("0, I", "0,\N{NO-BREAK SPACE}I"), count) for word, count in found.most_common())
    return ", ".join(f"{word} {count}/{n}" for word, count in words)


def short(found: Counter[str], level: int = 0) -> str:
    """A cell of the overview: "active 4/4", or "act 3 und 1"; higher levels are shorter."""
    n = sum(found.values())
    (word, count), *others = found.most_common()
    if level == 0 and not others:
        return f"{word} {count}/{n}"
    if level <= 1:
        return " ".join(f"{ABBREVIATION.get(word, word[:3])} {count}" for word, count in found.most_common())
    return f"{ABBREVIATION.get(word, word)[0].upper()}{count}" + ("+" if others else "")


def overview(runs: Sequence[LoadedRun], level: int = 0) -> Table:
    """One row per run, one column per layer, z1 first; last the bound of the largest K."""
    depth = max(run.depth for run in runs)
    columns = [Column("run", numeric=False), *(Column(f"z{index + 1}", numeric=False) for index in range(depth))]
    with_bound = any(run.likelihood is not None for run in runs)
    if with_bound:
        columns.append(Column("L_K", "nats"))
    rows = []
    previous = 0
    for run in runs:
        cells = [Cell(run.label, "first" if run.depth != previous else "")]
        previous = run.depth
        for layer in run.layers:
            found = kind_counts(layer, run.epsilon_index)
            cells.append(Cell(short(found, level), kind_class(found)))
        cells += [Cell("")] * (depth - run.depth)
        if with_bound:
            mean = float("nan") if run.likelihood is None else _mean(run)
            cells.append(Cell(number(mean)))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def kind_class(found: Counter[str]) -> str:
    """The style class of the replicas' verdict, where those that did not fail agree; "mixed" where they differ."""
    words = [word for word in found if word != "failed"] or ["failed"]
    return f"is-{words[0].replace(' ', '-')}" if len(words) == 1 else "is-mixed"


def details(runs: Sequence[LoadedRun]) -> Table:
    """One row per run and layer: the verdict at every threshold, and each quantity as median [low, high]."""
    thresholds = {run.epsilons[run.epsilon_index] for run in runs}
    heading = f"verdict at {thresholds.pop():g} nats" if len(thresholds) == 1 else "verdict at the run's threshold"
    columns = [
        Column("run", numeric=False),
        Column("layer", numeric=False),
        Column("units", numeric=True),
        Column(heading, numeric=False),
        Column("at the other thresholds", numeric=False),
        *(Column(name, "nats") for name, _, _ in QUANTITIES),
    ]
    rows = []
    for run in runs:
        for position, layer in enumerate(run.layers):
            found = counts(layer, run.epsilon_index)
            rows.append(
                (
                    Cell(run.label if position == 0 else "", "first" if position == 0 else ""),
                    Cell(layer.name),
                    Cell(str(layer.n_units)),
                    Cell(counted(found), kind_class(kind_counts(layer, run.epsilon_index))),
                    Cell(moves(run, layer)),
                    *(Cell(interval_text(layer.interval(key))) for _, key, _ in QUANTITIES),
                )
            )
    return Table(tuple(columns), tuple(rows))


def moves(run: LoadedRun, layer: Layer) -> str:
    """How the verdict changes at the smaller and the larger threshold."""
    here = counts(layer, run.epsilon_index)
    changed = [
        f"at {epsilon:g}: {counted(counts(layer, index))}"
        for index, epsilon in enumerate(run.epsilons)
        if index != run.epsilon_index and counts(layer, index) != here
    ]
    return "; ".join(changed) or "the same"


def verdict_csv(runs: Sequence[LoadedRun]) -> str:
    """One row per run, layer and replica, with every interval."""
    heading = ["run", "layer", "units", "seed", "active_units", "epsilon_nats"]
    heading += ["verdict_at_lower_epsilon", "verdict", "verdict_at_higher_epsilon"]
    keys = [key for _, key, _ in QUANTITIES]
    heading += [f"{key}_{end}" for key in keys for end in ("low", "middle", "high")]
    rows: list[list[object]] = []
    for run in runs:
        for layer in run.layers:
            active = layer.active_units()
            for replica, seed in enumerate(run.seeds):
                row: list[object] = [run.label, layer.name, layer.n_units, seed, float(active[replica])]
                row.append(run.epsilons[run.epsilon_index])
                row += [str(word) for word in layer.verdict[replica]]
                row += [float(value) for key in keys for value in layer.interval(key)[replica]]
                rows.append(row)
    return to_csv(heading, rows)


def _mean(run: LoadedRun) -> float:
    assert run.likelihood is not None
    kept = [float(value) for value in run.likelihood.best[:, 1] if value == value]
    return sum(kept) / len(kept) if kept else float("nan")
