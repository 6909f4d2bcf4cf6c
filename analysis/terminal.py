"""The output on the terminal: the verdict on every layer, or two runs compared. At most 100 columns."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hvae.analysis.claims import decide, t_interval, welch_interval
from hvae.analysis.load import Array, LoadedRun, by_label, load_runs
from hvae.analysis.study import Study, open_study
from hvae.analysis.summary import measured_summary
from hvae.analysis.tables.comparison import comparison
from hvae.analysis.tables.gap import IN_A_SEED, causes_seen, layer_table, likelihood_bounds
from hvae.analysis.tables.gap_doubt import gap_reliability, gap_remarks
from hvae.analysis.tables.likelihood import mean_text, reliability, warnings
from hvae.analysis.tables.table import Cell, Column, Table, interval_text, number
from hvae.analysis.tables.verdict import (
    ABBREVIATION,
    KIND,
    MEANING,
    QUANTITIES,
    counted,
    counts,
    kind_counts,
    overview,
    short,
)
from hvae.diagnosis.layer import Layer
from hvae.diagnosis.measured import OUTSIDE
from hvae.errors import ConfigError

WIDTH = 100
GAIN = (
    "Active layers: their number in every seed (? where another layer is undecided). Gain: L_K minus the baseline's, "
    "paired by seed, ± half of its 95 % t-interval. Gap, where measured: log p(x) minus the ELBO. Cost, where timed: "
    "CPU time of a step divided by the baseline's."
)
SHOWN_REMARKS = 6
"""number of sentences of doubt on the gap; the rest are in the report"""


def verdict_text(directory: Path, preset: str = "") -> str:
    """The verdicts at `directory`: one line per run, or for a single run one line per layer."""
    study = open_study(directory, preset)
    return _single(study) if study.single else _several(study)


def _several(study: Study) -> str:
    for level in range(3):
        table = overview(study.runs, level)
        if table.width <= WIDTH:
            break
    words = {word for run in study.runs for layer in run.layers for word in kind_counts(layer, run.epsilon_index)}
    first = study.runs[0]
    lines = [_wrapped(sentence) + "\n" for sentence in measured_summary(study)]
    lines += [table.to_text(), ""]
    against = comparison(study)
    if against is not None:
        shown = against.without("so")
        lines += [shown.narrowed(WIDTH, ("against", "cost")).to_text(), "", _wrapped(GAIN), ""]
    epsilon = first.epsilon_nats
    replicas = sorted({run.n_replicas for run in study.runs})
    lines.append(
        _wrapped(
            f"Verdict per layer at {epsilon:g} nats, counted over {' or '.join(map(str, replicas))} replicas (seeds); "
            "z1 is next to the image. L_K: lower bound of log p(x), mean over images and replicas "
            "± half of its 95 % t-interval over replicas."
        )
    )
    lines += _legend(words, abbreviated=level > 0 or any(_mixed(run) for run in study.runs))
    if study.claims:
        decisions = [decide(claim, by_label(study.runs), study.measured) for claim in study.claims]
        lines += ["", "Claims (95 % t-interval over replicas against a margin fixed beforehand)"]
        for decision in decisions:
            reason = f" Reason: {decision.how}." if decision.outcome == "not measured" else ""
            lines.append(_wrapped(decision.claim.statement + reason, f"  {decision.outcome:<14}", indent=16))
    lines += _gap_lines(study)
    lines += ["", *(_wrapped(text) for text in (reliability(study.runs), *study.notes) if text)]
    return "\n".join(lines)


def _gap_lines(study: Study) -> list[str]:
    """What was measured of log p(x) and of the gap, with every doubt; empty where nothing was."""
    if not any(run.measured_further for run in study.runs):
        return []
    lines = ["", "The gap between the ELBO and log p(x) (nats; AIS and L_K are lower bounds)"]
    bounds, layers = likelihood_bounds(study.runs), layer_table(study.runs)
    for table, expendable in (
        (bounds, ("trusted layers", "high k-hat")),
        (layers, ("freed", "G exact", "q", "p(z|x)", "± in a seed")),
    ):
        if table is not None:
            shown = table.without("run") if study.single else table
            lines += [shown.narrowed(WIDTH, expendable).to_text(), ""]
    lines += [_wrapped(f"± after a mean: spread over seeds. {IN_A_SEED}", "  ")] if layers is not None else []
    lines += [_wrapped(meaning, f"  {word}: ", indent=4) for word, meaning in causes_seen(study.runs).items()]
    doubt = gap_reliability(study.runs)
    lines += [_wrapped(doubt)] if doubt else []
    remarks = gap_remarks(study.runs)
    lines += [_wrapped(text, "- ", indent=2) for text in remarks[:SHOWN_REMARKS]]
    if len(remarks) > SHOWN_REMARKS:
        lines.append(f"- and {len(remarks) - SHOWN_REMARKS} more, in the report.")
    return lines


def _mixed(run: LoadedRun) -> bool:
    return any(len(kind_counts(layer, run.epsilon_index)) > 1 for layer in run.layers)


def _legend(words: set[str], abbreviated: bool) -> list[str]:
    """The meaning of every word that occurs."""
    lines = []
    for kind in dict.fromkeys(KIND.values()):
        if kind in words:
            meaning = MEANING[next(word for word in KIND if KIND[word] == kind)]
            if kind == "collapsed":
                meaning = "J surely below the threshold: to N(0, I), or to another constant distribution"
            name = f"{kind} ({ABBREVIATION[kind]})" if abbreviated else kind
            lines.append(_wrapped(meaning, f"  {name:<19}", indent=21))
    lines.append(
        _wrapped(
            "J: information from all that q of the layer sees; I: information about the image; U: use by the decoder, "
            "how far the layer below changes when the layer is taken from another image."
        )
    )
    return lines


def _single(study: Study) -> str:
    """Layers as rows; a quantity is its median over replicas with the lowest and highest end."""
    (run,) = study.runs
    first = _layer_table(run, QUANTITIES[:3], with_verdict=_verdict_words)
    second = _layer_table(run, QUANTITIES[3:], with_verdict=None)
    lines = [run.title, first.to_text(), "", second.to_text(), ""]
    lines.append(
        _wrapped(
            f"Verdict at {run.epsilon_nats:g} nats, counted over {run.n_replicas} "
            f"replica{'' if run.n_replicas == 1 else 's'}. Numbers: median over replicas [lowest, highest end of "
            "their intervals]."
        )
    )
    words = {word for layer in run.layers for word in kind_counts(layer, run.epsilon_index)}
    lines += _legend(words, abbreviated=_mixed(run))
    if run.likelihood is not None:
        k = int(run.likelihood.n_samples[-1])
        lines.append(
            f"ELBO {mean_text(run.likelihood.elbo_nats[:, 1])} nats, L_{k} {mean_text(run.likelihood.best[:, 1])} nats "
            "(higher is better)."
        )
        notes = warnings([run])
        lines += [_wrapped(text) for text in (reliability([run]), *notes[:1]) if notes]
    if not run.evaluated:
        lines.append("Not evaluated yet; run `hvae evaluate` on it.")
    lines += _gap_lines(study)
    lines += map(_wrapped, study.notes)
    return "\n".join(lines)


def _verdict_words(run: LoadedRun, layer: Layer) -> str:
    found = counts(layer, run.epsilon_index)
    if len(found) > 1:
        return short(kind_counts(layer, run.epsilon_index), 1)
    return counted(found)


def _layer_table(
    run: LoadedRun,
    quantities: Sequence[tuple[str, str, str]],
    with_verdict: Callable[[LoadedRun, Layer], str] | None,
) -> Table:
    """Layers as rows, quantities with intervals as columns; intervals are left out from the right until it fits."""
    columns = [Column("layer", numeric=False), Column("units")]
    if with_verdict is not None:
        columns.append(Column("verdict", numeric=False))
    n_words = len(columns)
    columns += [Column(heading, "nats") for heading, _, _ in quantities]
    rows = []
    for layer in run.layers:
        words = [layer.name, str(layer.n_units)]
        if with_verdict is not None:
            words.append(with_verdict(run, layer))
        words += [interval_text(layer.interval(key)) for _, key, _ in quantities]
        rows.append(words)
    for column in range(len(columns), n_words - 1, -1):
        cells = tuple(
            tuple(Cell(text.partition(" ")[0] if index >= column else text) for index, text in enumerate(row))
            for row in rows
        )
        table = Table(tuple(columns), cells)
        if table.width <= WIDTH:
            break
    return table


def compare_text(run_a: Path, run_b: Path) -> str:
    """Two runs compared: settings that differ, then b minus a for the bound and per layer."""
    a, b = (_the_run(path) for path in (run_a, run_b))
    named = [", ".join(filter(None, (f"{run.label} ({run.path.name})", run.early))) for run in (a, b)]
    lines = [f"a: {named[0]}", f"b: {named[1]}", ""]
    differing = _differences(a.settings, b.settings)
    outside = [name for name, run in (("a", a), ("b", b)) if run.config is None]
    if outside:
        differing = {}
        lines.append(f"The settings of {' and '.join(outside)} are not known: {OUTSIDE}.")
    else:
        lines += ["Settings that differ"] if differing else ["The settings are the same."]
    lines += [_wrapped(f"{old} -> {new}", f"  {key}: ", indent=4) for key, (old, new) in differing.items()]
    columns = (
        Column("", numeric=False),
        Column("unit", numeric=False),
        Column("a"),
        Column("b"),
        Column("b - a [95 % interval]"),
    )
    rows = []
    if a.yardstick != b.yardstick:
        lines.append(_wrapped(f"ELBO and L_K are left out, since they do not compare: {a.yardstick} | {b.yardstick}."))
    elif a.likelihood is not None and b.likelihood is not None:
        rows.append(_compared("ELBO", a.likelihood.elbo_nats[:, 1], b.likelihood.elbo_nats[:, 1], a, b))
        k_a, k_b = int(a.likelihood.n_samples[-1]), int(b.likelihood.n_samples[-1])
        heading = f"L_{k_a}" if k_a == k_b else f"L_{k_a} | L_{k_b}"
        rows.append(_compared(heading, a.likelihood.best[:, 1], b.likelihood.best[:, 1], a, b))
    for layer_a, layer_b in zip(a.layers, b.layers, strict=False):
        for heading, key, _ in QUANTITIES[:4]:
            first, second = (layer.interval(key)[:, 1] for layer in (layer_a, layer_b))
            rows.append(_compared(f"{layer_a.name} {heading}", first, second, a, b))
        rows.append(
            _compared(f"{layer_a.name} active", layer_a.active_units(), layer_b.active_units(), a, b, unit="units")
        )
    table = Table(columns, tuple(row for row in rows if row[2].text != "\N{EN DASH}" or row[3].text != "\N{EN DASH}"))
    if table.rows:
        how = "paired by seed" if a.seeds == b.seeds else "unpaired, Welch"
        lines += ["", table.to_text(), "", f"a, b: mean over replicas; interval: Student's t, {how}."]
    lines += ["", "Verdicts"]
    for index in range(max(a.depth, b.depth)):
        words = [
            " ".join(f"{w} {c}/{run.n_replicas}" for w, c in counts(run.layers[index], run.epsilon_index).most_common())
            if index < run.depth
            else "no such layer"
            for run in (a, b)
        ]
        lines.append(_wrapped(f"a: {words[0]} | b: {words[1]}", f"  z{index + 1}  ", indent=6))
    if a.order != b.order:
        lines.append(
            _wrapped(
                "The inference orders differ, so J, I and rate of a layer are different quantities in a and b: "
                "I(x; z) where z1 is visited first, I(x; z | layers above) top-down; J is the information "
                "from all that q of the layer sees."
            )
        )
    return "\n".join(lines)


def _the_run(path: Path) -> LoadedRun:
    runs = load_runs(path)
    if len(runs) != 1:
        raise ConfigError(f"{path} holds {len(runs)} runs; give one run directory.")
    return runs[0]


def _compared(
    name: str, first: Array, second: Array, a: LoadedRun, b: LoadedRun, unit: str = "nats"
) -> tuple[Cell, ...]:
    if a.seeds == b.seeds:
        difference = second - first
        low, middle, high = t_interval(difference[np.isfinite(difference)])
    else:
        low, middle, high = welch_interval(second[np.isfinite(second)], first[np.isfinite(first)])
    means = (number(t_interval(values[np.isfinite(values)])[1]) for values in (first, second))
    text = number(middle) if np.isinf(low) or np.isnan(low) else f"{number(middle)} [{number(low)}, {number(high)}]"
    return (Cell(name), Cell(unit), *(Cell(mean) for mean in means), Cell(text))


def _differences(
    a: Mapping[str, object], b: Mapping[str, object], prefix: str = ""
) -> dict[str, tuple[object, object]]:
    """Dotted key -> the two values, for keys whose values differ."""
    found: dict[str, tuple[object, object]] = {}
    for key in dict.fromkeys([*a, *b]):
        old, new = a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
            found |= _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = (old, new)
    return found


def _wrapped(text: str, first: str = "", indent: int = 0) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent)
