"""Bounds of log p(x) from both sides, the layers in which the ELBO's gap lies, and whether to believe them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hvae.analysis.load import LoadedRun
from hvae.analysis.tables.likelihood import bound_text, mean_text
from hvae.analysis.tables.table import Cell, Column, Table, number, span
from hvae.diagnosis.activity import CAUSES
from hvae.diagnosis.gap import Annealed, Images, high_share
from hvae.diagnosis.record import Array, Texts

IN_A_SEED = "± in a seed: half of the widest seed's own 95 % interval over images and paths."
REFUSED, DASH = "refused", "\N{EN DASH}"


def likelihood_bounds(runs: Sequence[LoadedRun]) -> Table | None:
    """One row per run and set of images: ELBO, L_K, annealed bound, exact value, and their doubt.

    All numbers of a row are of the same images. None where nothing was measured.
    """
    rows = [_bounds_row(run, images) for run in runs for images in _image_sets(run)]
    columns = (
        Column("run", numeric=False),
        Column("images"),
        Column("ELBO", "nats"),
        Column("L_K", "nats"),
        Column("AIS", "nats, lower"),
        Column("log p(x)", "nats, exact"),
        Column("sandwich", "nats, simulated"),
        Column("high k-hat", "% of images"),
        Column("warned", "replicas"),
        Column("trusted layers", "of replicas", numeric=False),
    )
    return _without_empty(Table(columns, tuple(rows))) if rows else None


def _image_sets(run: LoadedRun) -> list[Images]:
    measured = (run.annealed, run.exact, run.gap)
    return list(dict.fromkeys(found.images for found in measured if found is not None))


def _bounds_row(run: LoadedRun, images: Images) -> tuple[Cell, ...]:
    annealed = run.annealed if run.annealed is not None and run.annealed.images == images else None
    exact = run.exact if run.exact is not None and run.exact.images == images else None
    gap = run.gap if run.gap is not None and run.gap.images == images else None
    nothing = np.full((run.n_replicas, 3), np.nan)
    elbos = [found.elbo_nats for found in (annealed, exact, gap) if found is not None]
    elbo = next((values for values in elbos if np.isfinite(values).any()), nothing)
    high = high_share(annealed.curve_pareto_k, int(annealed.n_samples[-1])) if annealed is not None else nothing[:, 0]
    cells = [
        Cell(run.title),
        Cell(str(images.n)),
        Cell(number(_mean(elbo[:, 1]))),
        Cell(number(_mean(nothing[:, 1] if annealed is None else annealed.best[:, 1]))),
        _value(annealed, lambda found: bound_text(found.log_px_nats, found.log_px_datum_nats)),
        Cell(_exact_text(run, images)),
        _value(annealed, lambda found: mean_text(found.sandwich_nats[:, 1])),
        Cell(number(100 * _mean(high), 0)),
        Cell(_warned_text(run, images)),
        Cell(trusted_text(run) if gap is not None else DASH),
    ]
    return tuple(cells)


def _value(annealed: Annealed | None, text: Callable[[Annealed], str]) -> Cell:
    if annealed is None:
        return Cell(DASH)
    found = text(annealed)
    return Cell(REFUSED, "is-refused") if found == DASH and any(annealed.refused) else Cell(found)


def _exact_text(run: LoadedRun, images: Images) -> str:
    if run.exact is None or run.exact.images != images:
        return DASH
    values = run.exact.log_px_nats
    refused = not np.isfinite(values[:, 1]).any() and any(run.exact.refused)
    return REFUSED if refused else bound_text(values, run.exact.log_px_datum_nats)


def _warned_text(run: LoadedRun, images: Images) -> str:
    """How many replicas have a warning on any estimate of these images, of all that were estimated."""
    found = [texts for record, texts in _warnings(run) if record == images]
    if not found:
        return DASH
    return f"{sum(map(any, zip(*found, strict=True)))}/{run.n_replicas}"


def _warnings(run: LoadedRun) -> Iterator[tuple[Images, Texts]]:
    if run.annealed is not None and np.isfinite(run.annealed.elbo_nats).any():
        for texts in (run.annealed.warning, run.annealed.simulated_warning, run.annealed.curve_warning):
            yield run.annealed.images, texts
    if run.gap is not None and np.isfinite(run.gap.elbo_nats).any():
        yield run.gap.images, run.gap.warning


def trusted_text(run: LoadedRun) -> str:
    """ "z1 to z3 4/4, z4 0/4": how many replicas' layer gaps are trusted, of those measured."""
    assert run.gap is not None
    counts: dict[str, list[int]] = {}
    for number_, layer in enumerate(run.gap.layers.values(), start=1):
        known = np.isfinite(layer.gap_nats[:, 1])
        if known.any():
            counts.setdefault(f"{int((layer.trusted & known).sum())}/{int(known.sum())}", []).append(number_)
    text = ", ".join(f"{span(layers)} {count}" for count, layers in counts.items())
    return text or (REFUSED if any(run.gap.refused) else DASH)


def _without_empty(table: Table) -> Table:
    """The table without columns that are empty in every row."""
    kept = [i for i in range(len(table.columns)) if any(row[i].text != DASH for row in table.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Table(tuple(table.columns[i] for i in kept), rows)


def layer_table(runs: Sequence[LoadedRun]) -> Table | None:
    """One row per run and layer: G_l estimated and exact, what refining q there frees, and the cause of a collapse.

    A last row per run is the whole gap. All numbers of a row are of the same images. None where nothing was measured.
    """
    columns = (
        Column("run", numeric=False),
        Column("layer", numeric=False),
        Column("G", "nats"),
        Column("± in a seed", "nats"),
        Column("trusted", "replicas"),
        Column("G exact", "nats"),
        Column("freed", "nats"),
        Column("p(z|x)", "surely active"),
        Column("q", "surely active"),
        Column("cause", "replicas", numeric=False),
    )
    rows = [row for run in runs for row in _layer_rows(run)]
    return _without_empty(Table(columns, tuple(rows))) if rows else None


def _layer_rows(run: LoadedRun) -> list[tuple[Cell, ...]]:
    gap, exact = run.gap, run.exact_beside_gap
    rows = []
    for layer in run.layers:
        cells = [DASH] * 8
        if gap is not None:
            found = gap.layers[layer.name]
            known = np.isfinite(found.gap_nats[:, 1])
            cells[0], cells[1] = mean_text(found.gap_nats[:, 1]), half_width_text(found.gap_nats)
            cells[2] = f"{int((found.trusted & known).sum())}/{int(known.sum())}" if known.any() else DASH
            cells[4] = mean_text(found.freed_nats[:, 1])
            cells[5:7] = (
                _units_text(active, layer.n_units) for active in (found.posterior_active, found.encoder_active)
            )
            cells[7] = _counted([word for word in found.cause() if word])
        if exact is not None:
            cells[3] = mean_text(exact.layer_gap_nats[layer.name][:, 1])
        rows.append([layer.name, *cells])
    whole = ["all", *[DASH] * 8]
    if gap is not None:
        whole[1], whole[2] = mean_text(gap.total_nats[:, 1]), half_width_text(gap.total_nats)
        whole[5] = mean_text(gap.amortisation_nats[:, 1])
        known = np.isfinite(gap.total_nats[:, 1])
        whole[3] = f"{int((gap.log_px_trusted & known).sum())}/{int(known.sum())}" if known.any() else DASH
    if exact is not None:
        whole[4] = mean_text(exact.total_gap_nats[:, 1])
    if all(text == DASH for row in (*rows, whole) for text in row[1:]):
        return []
    first = (Cell(run.title, "first"), *[Cell("")] * run.depth)
    return [(head, *map(Cell, row)) for head, row in zip(first, (*rows, whole), strict=True)]


def half_width_text(interval: Array) -> str:
    """Half of the widest of the replicas' own intervals ``[R, 3]``: what new images and paths may change.

    The ± of a mean is a t-interval over seeds only.
    """
    halves = (interval[:, 2] - interval[:, 0]) / 2
    known = halves[np.isfinite(halves)]
    return number(float(known.max())) if known.size else DASH


def _units_text(active: Array, n_units: int) -> str:
    """Median over replicas: "3 of 8"."""
    known = active[np.isfinite(active)]
    return f"{np.median(known):g} of {n_units}" if known.size else DASH


def _counted(words: Sequence[str]) -> str:
    counts = {word: words.count(word) for word in CAUSES if word in words}
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return "; ".join(f"{word} {count}/{len(words)}" for word, count in ordered) or DASH


def causes_seen(runs: Sequence[LoadedRun]) -> dict[str, str]:
    """The causes that occur, with their meaning."""
    seen = {word for run in runs if run.gap is not None for layer in run.gap.layers.values() for word in layer.cause()}
    return {word: meaning for word, meaning in CAUSES.items() if word in seen}


def _mean(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")
