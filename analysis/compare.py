"""Two runs side by side on the terminal: the sentence that answers, settings that differ, numbers, verdicts."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from hvae.analysis.load import Array, LoadedRun, load_runs
from hvae.analysis.measures import images_of
from hvae.analysis.samples import Interval, NotMeasuredError, Sample, of_difference
from hvae.analysis.tables.table import Cell, Column, Table, number, span
from hvae.analysis.tables.text import PAGE, typed, wrapped
from hvae.analysis.tables.verdict import AT_LEAST, counts, kind_counts, used_text
from hvae.analysis.tables.words import ADJECTIVE, QUANTITIES
from hvae.diagnosis.layer import Layer
from hvae.errors import ConfigError
from hvae.lab.config import as_typed
from hvae.vocabulary import FAILED

Settings = dict[str, tuple[str, str]]
"""option -> its value in a and in b, as typed"""

DASH = "\N{EN DASH}"
MOST_CHANGES = 2
"""with more settings that differ, the sentence names the runs by their labels"""
MODELS = {"has": "this model", "have": "these models"}
BRIEF = 24
"""characters of a value that the sentence can hold"""


def compare_text(run_a: Path, run_b: Path, width: int = PAGE) -> str:
    """What b changes against a: in a sentence, then setting by setting and number by number."""
    wrap = partial(wrapped, width=width)
    a, b = (_the_run(path) for path in (run_a, run_b))
    settings = differing(a, b)
    lines = [wrap(answer(a, b)), ""]
    for letter, run in (("a", a), ("b", b)):
        named = ", ".join(filter(None, (f"{run.label} ({run.path.name})", run.early)))
        lines.append(wrap(named, f"{letter}: ", indent=3))
    outside = [letter for letter, run in (("a", a), ("b", b)) if run.config is None]
    if outside:
        verb = "has" if len(outside) == 1 else "have"
        lines += ["", wrap(f"{' and '.join(outside)} {verb} no settings, as hvae did not train {MODELS[verb]}.")]
    else:
        lines += ["", "Settings that differ, as they are typed" if settings else "The settings are the same."]
    for option, values in settings.items():
        lines += [typed(f"{option} {v}", f"  {x}: ", 7, width=width) for x, v in zip("ab", values, strict=True)]
    if a.yardstick != b.yardstick:
        lines += ["", wrap(f"ELBO and L_K are left out, since they do not compare: {a.yardstick} | {b.yardstick}.")]
    table = _table(a, b)
    if table.rows:
        how = "paired by seed" if a.seeds == b.seeds else "unpaired, Welch"
        lines += ["", table.to_text(), ""]
        lines.append(
            wrap(
                f"a, b: mean over replicas. Interval ({how}): of ELBO and L_K over seeds and images, of the rest "
                "Student's t over seeds only; a count has none."
            )
        )
        if any(row[0].text.endswith(" V") and row[4].text == DASH for row in table.rows):
            lines.append(wrap("V has no difference where it is at its ceiling (≥), or where the ceilings are not one."))
    lines += ["", "Verdicts"]
    for index in range(max(a.depth, b.depth)):
        words = [
            " ".join(f"{w} {c}/{run.n_replicas}" for w, c in counts(run.layers[index], run.epsilon_index).most_common())
            if index < run.depth
            else "no such layer"
            for run in (a, b)
        ]
        lines.append(wrap(f"a: {words[0]} | b: {words[1]}", f"  z{index + 1}  ", indent=6))
    if a.order != b.order:
        lines.append(
            wrap(
                "The inference orders differ, so J, I and rate of a layer are different quantities in a and b: "
                "I(x; z) where z1 is visited first, I(x; z | layers above) top-down; J is the information "
                "from all that q of the layer sees."
            )
        )
    return "\n".join(lines)


def differing(a: LoadedRun, b: LoadedRun) -> Settings:
    """The settings in which two runs differ; none where they are not known."""
    if a.config is None or b.config is None:
        return {}
    first, second = as_typed(a.config), as_typed(b.config)
    return {option: (first[option], second[option]) for option in first if first[option] != second[option]}


# -- the sentence --------------------------------------------------------------------------------------


def answer(a: LoadedRun, b: LoadedRun) -> str:
    """ "warm-up: z3 active in 4 of 4 instead of 0 of 4; the likelihoods cannot be told apart with 4 seeds." """
    unmeasured = [letter for letter, run in (("a", a), ("b", b)) if not run.evaluated]
    if unmeasured:
        verb = "is" if len(unmeasured) == 1 else "are"
        return f"{change(a, b)}: {' and '.join(unmeasured)} {verb} not measured yet; `hvae evaluate` measures a run."
    return f"{change(a, b)}: {_layers(a, b)}; {_likelihood(a, b)}."


def change(a: LoadedRun, b: LoadedRun) -> str:
    """What b has that a has not, in words: "warm-up", "batch norm and training.n_steps 600 instead of 300"."""
    if a.config is None or b.config is None:
        return f"{b.label} instead of {a.label}"
    settings = {option: values for option, values in differing(a, b).items() if not option.startswith("--evaluation")}
    if not settings:
        return "the same settings"
    if len(settings) > MOST_CHANGES:
        return f"{b.label} instead of {a.label}" if a.label != b.label else f"b against a ({len(settings)} settings)"
    return " and ".join(_change(option.removeprefix("--"), old, new) for option, (old, new) in settings.items())


def _change(knob: str, old: str, new: str) -> str:
    switches = {
        "objective.beta": ("warmup_steps", "warm-up"),
        "model.batch_norm": ("true", "batch norm"),
    }
    mark, word = switches.get(knob, ("", ""))
    if mark and (mark in old) != (mark in new):
        return word if mark in new else f"without {word}"
    if knob == "model.order":
        return f"{new} instead of {old}"
    if max(len(old), len(new)) > BRIEF:
        return f"another {knob}"
    return f"{knob} {new} instead of {old}"


def _layers(a: LoadedRun, b: LoadedRun) -> str:
    """Where the counts of verdicts differ; layers that say the same are named together."""
    said: dict[str, list[int]] = {}
    for index, (first, second) in enumerate(zip(a.layers, b.layers, strict=False), start=1):
        text = _moved(kind_counts(first, a.epsilon_index), kind_counts(second, b.epsilon_index))
        if text:
            said.setdefault(text, []).append(index)
    parts = [f"{span(layers)} {text}" for text, layers in said.items()] or ["every layer has the same verdicts"]
    deeper = range(min(a.depth, b.depth) + 1, max(a.depth, b.depth) + 1)
    parts += [f"{span(list(deeper))} only in {'a' if a.depth > b.depth else 'b'}"] if deeper else []
    return ", ".join(parts)


def _moved(first: Counter[str], second: Counter[str]) -> str:
    """ "active in 4 of 4 instead of 0 of 4"; empty where the counts are the same."""
    n_first, n_second = (sum(found.values()) - found[FAILED] for found in (first, second))
    words = [word for word in ("active", *second, *first) if first[word] != second[word]]
    if not words:
        return ""
    word = words[0] if words[0] == "active" else max(words, key=lambda word: second[word] - first[word])
    adjective = ADJECTIVE.get(word, word)
    return f"{adjective} in {second[word]} of {n_second} instead of {first[word]} of {n_first}"


def _likelihood(a: LoadedRun, b: LoadedRun) -> str:
    if a.yardstick != b.yardstick:
        return "the likelihoods do not compare, as data or distribution of x differ"
    if a.likelihood is None or b.likelihood is None:
        return "the likelihoods were not measured"
    name, other = a.likelihood.shown_as, b.likelihood.shown_as
    if name != other:
        return f"the likelihoods do not compare, as {name} and {other} are different bounds"
    if images_of(a) != images_of(b):
        return "the likelihoods do not compare, as they are of different images"
    first, second = _samples(a.likelihood.shown_datum_nats, b.likelihood.shown_datum_nats, a, b)
    if any(sample.values.shape[1] < 2 for sample in (first, second)):
        return "the likelihoods of single images are not kept, so that no interval tells them apart"
    found = of_difference(second, first)
    if np.isnan(found.low):
        return "no seed has both likelihoods"
    if found.low <= 0 <= found.high:
        return f"the likelihoods cannot be told apart with {found.over}"
    low, high = (found.low, found.high) if found.low > 0 else (-found.high, -found.low)
    nats = f"{number(abs(found.middle))} nats [{number(low)}, {number(high)}]"
    alone = ", and other seeds may differ" if found.n_seeds < 2 else ""
    return f"{name} is {'higher' if found.low > 0 else 'lower'} by {nats} with {found.over}{alone}"


# -- the table -----------------------------------------------------------------------------------------


def _table(a: LoadedRun, b: LoadedRun) -> Table:
    rows = []
    if a.yardstick == b.yardstick and a.likelihood is not None and b.likelihood is not None:
        first, second = a.likelihood, b.likelihood
        if first.has_log_px and second.has_log_px:
            found = _samples(first.log_px_datum_nats, second.log_px_datum_nats, a, b)
            rows.append(_row("log p(x), bound", first.log_px_nats[:, 1], second.log_px_nats[:, 1], found))
        elbos = _samples(first.elbo_datum_nats, second.elbo_datum_nats, a, b)
        rows.append(_row("ELBO", first.elbo_nats[:, 1], second.elbo_nats[:, 1], elbos))
        k_a, k_b = int(first.n_samples[-1]), int(second.n_samples[-1])
        heading = f"L_{k_a}" if k_a == k_b else f"L_{k_a} | L_{k_b}"
        bounds = _samples(first.bound_datum_nats, second.bound_datum_nats, a, b)
        rows.append(_row(heading, first.best[:, 1], second.best[:, 1], bounds))
        floors = _samples(first.floor_datum_nats, second.floor_datum_nats, a, b)
        rows.append(_row("floor", first.floor_nats[:, 1], second.floor_nats[:, 1], floors))
    for layer_a, layer_b in zip(a.layers, b.layers, strict=False):
        for heading, key, _ in QUANTITIES[:4]:
            if key == "used_nats" and not _one_ceiling(layer_a, layer_b):
                texts = (f"{layer_a.name} {heading}", "nats", used_text(layer_a), used_text(layer_b), DASH)
                rows.append(tuple(map(Cell, texts)))
                continue
            ends = [_known(layer.interval(key)) for layer in (layer_a, layer_b)]
            numbers = (Sample(ends[0], a.seeds), Sample(ends[1], b.seeds))
            rows.append(_row(f"{layer_a.name} {heading}", ends[0], ends[1], numbers))
        units = [layer.active_units() for layer in (layer_a, layer_b)]
        counted = (Sample(units[0], a.seeds, count=True), Sample(units[1], b.seeds, count=True))
        rows.append(_row(f"{layer_a.name} active", units[0], units[1], counted, unit="units"))
    columns = (
        Column("", numeric=False),
        Column("unit", numeric=False),
        Column("a"),
        Column("b"),
        Column("b - a [95 % interval]"),
    )
    return Table(columns, tuple(row for row in rows if row[2].text != DASH or row[3].text != DASH))


def _one_ceiling(a: Layer, b: Layer) -> bool:
    """Whether V of two layers may be subtracted: both could show as much, and neither shows the most that it could."""
    caps = np.unique(np.concatenate([a.used_cap, b.used_cap]).round(6))
    return len(caps) == 1 and not any(used_text(layer).startswith(AT_LEAST) for layer in (a, b))


def _samples(first: Array, second: Array, a: LoadedRun, b: LoadedRun) -> tuple[Sample, Sample]:
    """Likelihoods of every image."""
    return Sample(first, a.seeds, images_of(a)), Sample(second, b.seeds, images_of(b))


def _row(name: str, first: Array, second: Array, of: tuple[Sample, Sample], unit: str = "nats") -> tuple[Cell, ...]:
    """The means of both, and the interval of the second of the samples less the first."""
    means = [float(np.mean(kept)) if (kept := each[np.isfinite(each)]).size else np.nan for each in (first, second)]
    found = _difference(of)
    text = number(means[1] - means[0] if np.isnan(found.middle) else found.middle)
    if np.isfinite([found.low, found.high]).all():
        text += f" [{number(found.low)}, {number(found.high)}]"
    return (Cell(name), Cell(unit), *(Cell(number(mean)) for mean in means), Cell(text))


def _known(interval: Array) -> Array:
    """The middle ``[R]`` of intervals ``[R, 3]``; NaN where an end is unknown, as a middle is then no estimate."""
    return np.where(np.isfinite(interval).all(1), interval[:, 1], np.nan)


def _difference(of: tuple[Sample, Sample]) -> Interval:
    """The second less the first; without ends where they are of different images."""
    try:
        return of_difference(of[1], of[0])
    except NotMeasuredError:
        return Interval(np.nan, np.nan, np.nan, 0, "")


def _the_run(path: Path) -> LoadedRun:
    runs = load_runs(path)
    if len(runs) != 1:
        raise ConfigError(f"{path} holds {len(runs)} runs; give one run directory.")
    return runs[0]
