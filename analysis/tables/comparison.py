"""Runs compared with a baseline: layers kept, nats gained, and the cost of a step.

Differences of bounds are paired by seed and image, with a 95 % interval over both. Both runs have the same yardstick.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hvae.analysis.load import Array, LoadedRun, by_label
from hvae.analysis.measures import images_of
from hvae.analysis.samples import Interval, Sample, of_mean
from hvae.analysis.study import Study
from hvae.analysis.tables.likelihood import bound_heading, bound_of, bound_text, mean_text
from hvae.analysis.tables.table import Cell, Column, Table, number, span, to_csv
from hvae.vocabulary import ACTIVE

UNTIMED: Array = np.array([np.nan])


@dataclass(frozen=True)
class Compared:
    """A run, its baseline (None if the run is one itself), and the difference of their bounds."""

    run: LoadedRun
    baseline: LoadedRun | None
    gain_nats: Array
    """[R] bound on log p(x) minus the baseline's, seed by seed; NaN where either is missing"""
    gain_of_images: Array
    """[R, B] the same for every image; NaN where no value of each image is kept"""
    cost: Array
    """[round] CPU seconds of a step, as a multiple of the baseline's in the same round; NaN where it was not timed"""

    @property
    def gain(self) -> Interval:
        """Of the gain, over seeds and images; NaN where no value of each image is kept."""
        return of_mean(Sample(self.gain_of_images, self.run.seeds))


def compared(study: Study) -> list[Compared]:
    """Every run that has a baseline or is one; a baseline comes before its first run."""
    known, seconds = by_label(study.runs), _seconds(study)
    labels: dict[str, None] = {}
    for run in study.runs:
        if run.label in study.baselines:
            labels |= dict.fromkeys((study.baselines[run.label], run.label))
    found = []
    for run in (known[label] for label in labels if label in known):
        baseline = known.get(study.baselines.get(run.label, ""))
        gain, of_images = np.full(run.n_replicas, np.nan), np.full((run.n_replicas, 1), np.nan)
        if baseline is not None and _comparable(run, baseline):
            assert run.likelihood is not None and baseline.likelihood is not None
            gain = run.likelihood.shown[:, 1] - baseline.likelihood.shown[:, 1]
            ours, theirs = run.likelihood.shown_datum_nats, baseline.likelihood.shown_datum_nats
            of_images = ours - theirs if ours.shape == theirs.shape else of_images
        cost = seconds.get(run.label, UNTIMED) / seconds.get((baseline or run).label, UNTIMED)
        found.append(Compared(run, baseline, gain, of_images, cost))
    return found


def _seconds(study: Study) -> dict[str, Array]:
    """Label -> [round] CPU seconds of a step, where the experiment timed it."""
    cost = study.measured.get("cost", {})
    return dict(zip(cost.get("run", []), cost.get("step_seconds", []), strict=True))


def _comparable(run: LoadedRun, baseline: LoadedRun) -> bool:
    """Whether both are measured, with the same bound, images, distribution of x and seeds."""
    if run.likelihood is None or baseline.likelihood is None:
        return False
    same_bound = run.likelihood.shown_as == baseline.likelihood.shown_as
    return same_bound and images_of(run) == images_of(baseline) and run.seeds == baseline.seeds


def comparison(study: Study) -> Table | None:
    """One row per run; None where no run has a baseline."""
    rows = compared(study)
    if not rows:
        return None
    columns = [
        Column("run", numeric=False),
        Column("active layers", "seed by seed", numeric=False),
        Column(bound_heading([row.run for row in rows]), "nats"),
        Column("against", numeric=False),
        Column("gain", "nats"),
        Column("gap", "nats"),
        Column("cost", "of a step"),
        Column("so", numeric=False),
    ]
    cells = [
        (
            Cell(row.run.title, "" if row.baseline else "first"),
            Cell(layers_text(row.run)),
            Cell(
                number(np.nan)
                if row.run.likelihood is None
                else bound_of(row.run.likelihood, [each.run for each in rows])
            ),
            Cell(row.baseline.label if row.baseline else ""),
            Cell(_signed(row) if row.baseline else ""),
            Cell(_gap_text(row.run)),
            Cell(_cost_text(row)),
            Cell(_so(row)),
        )
        for row in rows
    ]
    table = Table(tuple(columns), tuple(cells))
    table = table if any(row.run.gap is not None for row in rows) else table.without("gap")
    table = table if any(np.isfinite(row.cost).any() for row in rows) else table.without("cost")
    single = len({row.baseline.label for row in rows if row.baseline}) == 1
    return table.without("against") if single else table


def layers_text(run: LoadedRun) -> str:
    """ "5 4? 4 –": active layers of every seed; "?" where the verdict on another layer is undecided."""
    each = zip(run.active_layers, run.undecided_layers, strict=True)
    return " ".join(number(active, 0) + ("?" if undecided > 0 else "") for active, undecided in each)


def _gap_text(run: LoadedRun) -> str:
    """log p(x) minus the ELBO; totals compare between inference orders, layer gaps do not."""
    return number(np.nan) if run.gap is None else mean_text(run.gap.total_nats[:, 1])


def _cost_text(row: Compared) -> str:
    """A multiple with its interval; for the baseline itself 1, without one."""
    return mean_text(row.cost) if row.baseline else number(float(np.mean(row.cost)))


def _signed(row: Compared) -> str:
    text = bound_text(np.stack([row.gain_nats] * 3, axis=1), row.gain_of_images)
    return text if text[0] in "\N{MINUS SIGN}\N{EN DASH}" or text.startswith(number(0.0)) else f"+{text}"


def _so(row: Compared) -> str:
    """Which layers become active or cease to be, and whether the likelihood surely changes."""
    if row.baseline is None:
        return _kept_text(row.run)
    revived, lost = _moved(row.run, row.baseline), _moved(row.baseline, row.run)
    words = [f"revives {span(revived)}"] if revived else []
    words += [f"loses {span(lost)}"] if lost else []
    words += ["no layer changes in every seed"] if not words and np.isfinite(row.run.active_layers).any() else []
    if not np.isnan(row.gain.low):
        moves = "gains" if row.gain.low > 0 else "costs" if row.gain.high < 0 else "no sure change of"
        words.append(f"{moves} likelihood")
    return "; ".join(words)


def _kept_text(run: LoadedRun) -> str:
    kept = [index for index, always in enumerate(_always(run), start=1) if always]
    return f"keeps {span(kept)} in every seed" if kept else "keeps no layer in every seed"


def _always(run: LoadedRun) -> list[bool]:
    """Which layers are active in every replica that did not fail."""
    alive = np.isfinite(run.active_layers)
    words = [layer.verdict[alive, run.epsilon_index] for layer in run.layers]
    return [bool(len(found)) and bool((found == ACTIVE).all()) for found in words]


def _never(run: LoadedRun) -> list[bool]:
    """Which layers are active in no replica that did not fail."""
    alive = np.isfinite(run.active_layers)
    words = [layer.verdict[alive, run.epsilon_index] for layer in run.layers]
    return [bool(len(found)) and not (found == ACTIVE).any() for found in words]


def _moved(run: LoadedRun, other: LoadedRun) -> list[int]:
    """Layers active in every replica of `run`, but not in every replica of `other`."""
    return [
        index
        for index, (here, there) in enumerate(zip(_always(run), _always(other), strict=False), start=1)
        if here and not there
    ]


def comparison_summary(study: Study) -> list[str]:
    """Runs that keep every layer, layers that no run keeps, and sure gains and losses; empty without baselines."""
    rows = [row for row in compared(study) if np.isfinite(row.run.active_layers).any()]
    if not rows:
        return []
    whole = [row.run.title for row in rows if all(_always(row.run))]
    sentences = [
        f"Every layer is active in every seed in {'; '.join(whole)}."
        if whole
        else "No run keeps every layer active in every seed."
    ]
    depth = max(row.run.depth for row in rows)
    never = [
        index + 1 for index in range(depth) if all(_never(row.run)[index] for row in rows if row.run.depth > index)
    ]
    sentences += [f"No run has {span(never)} active in any seed."] if never else []
    gains = sorted((row for row in rows if row.gain.low > 0), key=lambda row: -row.gain.middle)
    losses = [row.run.title for row in rows if row.gain.high < 0]
    if gains:
        best = ", ".join(f"{row.run.title} (+{number(row.gain.middle)})" for row in gains)
        sentences.append(f"The bound is surely higher than the baseline's, in nats, with {best}.")
    sentences += [f"The bound is surely lower than the baseline's with {', '.join(losses)}."] if losses else []
    return [" ".join(sentences)]


def comparison_csv(study: Study) -> str:
    """One row per run and seed."""
    heading = ["run", "against", "seed", "active_layers", "undecided_layers", "bound_nats", "gain_nats", "step_cost"]
    return to_csv(heading, list(_csv_rows(compared(study))))


def _csv_rows(rows: Sequence[Compared]) -> Iterator[list[object]]:
    for row in rows:
        run = row.run
        bound = np.full(run.n_replicas, np.nan) if run.likelihood is None else run.likelihood.best[:, 1]
        columns = (run.active_layers, run.undecided_layers, bound, row.gain_nats)
        for seed, *values in zip(run.seeds, *columns, strict=True):
            name = row.baseline.label if row.baseline else ""
            yield [run.label, name, seed, *map(float, values), float(np.mean(row.cost))]
