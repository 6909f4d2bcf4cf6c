"""Every inference order at frozen decoders: tables, CSV and sentences.

One decoder has one log p(x), so on the same images the gaps of two posteriors differ exactly by their ELBOs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from hvae.analysis.claims import Measured
from hvae.analysis.load import Array, Arrays
from hvae.analysis.samples import Interval, Sample, of_mean
from hvae.analysis.tables.likelihood import mean_text
from hvae.analysis.tables.table import Cell, Column, Table, number, to_csv, with_ends
from hvae.lab.config import Order

UNAMORTISED = "unamortised"
ORDERS = get_args(Order)
SHOWN = {"coins": "Bernoulli"}
"""name of a known decoder in the arrays -> its name in tables and figures"""


@dataclass(frozen=True)
class FrozenDecoder:
    """Every order at the frozen decoders of one run, R replicas."""

    owner: str
    """the run of the decoders"""
    orders: Mapping[str, Arrays]
    """order -> its arrays"""

    def elbo(self, order: str, *, own_images: bool = False) -> Array:
        """[R, n] ELBO on all of its images, or on those with their own posterior."""
        n = self.orders[UNAMORTISED]["elbo_datum_nats"].shape[1] if own_images else None
        return self.orders[order]["elbo_datum_nats"][:, :n]

    @property
    def encoders(self) -> list[str]:
        return [order for order in self.orders if order != UNAMORTISED]

    @property
    def best(self) -> str:
        """The order of the highest mean ELBO."""
        return max(self.encoders, key=lambda order: float(np.nanmean(self.elbo(order))))

    @property
    def layers(self) -> list[str]:
        key = "rate_nats/"
        return sorted(name.removeprefix(key) for name in self.orders[self.encoders[0]] if name.startswith(key))


def frozen(measured: Measured) -> list[FrozenDecoder]:
    """One for each decoder with a refitted encoder."""
    found: dict[str, dict[str, Arrays]] = {}
    for arrays in measured.values():
        if {"decoder", "order", "elbo_datum_nats"} <= set(arrays):
            found.setdefault(str(arrays["decoder"]), {})[str(arrays["order"])] = arrays
    each = (
        FrozenDecoder(owner, {order: orders[order] for order in sorted(orders, key=ORDERS.index)})
        for owner, orders in found.items()
    )
    return [decoder for decoder in each if any(np.isfinite(decoder.elbo(order)).any() for order in decoder.encoders)]


def known(measured: Measured) -> Arrays | None:
    """Rows of known decoders."""
    rows = measured.get("known", {})
    return rows if {"stack", "order", "sampled_nats"} <= set(rows) else None


def frozen_decoder_tables(measured: Measured) -> dict[str, Table]:
    """Heading -> table: one for each frozen decoder, one of known decoders."""
    tables = {f"Frozen decoder, trained {decoder.owner}": _table(decoder) for decoder in frozen(measured)}
    rows = known(measured)
    return tables if rows is None else tables | {"Frozen decoders with a known posterior": _known_table(rows)}


def _table(decoder: FrozenDecoder) -> Table:
    layers, fitted = decoder.layers, UNAMORTISED in decoder.orders
    columns = (
        Column("posterior", numeric=False),
        Column("ELBO", "nats"),
        Column("behind the best", "nats"),
        *([Column("behind a fit per image", "nats")] if fitted else []),
        *(Column(f"I, {name}", "nats") for name in layers),
        *(Column(f"rate, {name}", "nats") for name in layers),
        *(Column(f"G, {name}", "nats (trusted)") for name in layers),
    )
    rows = []
    for order in decoder.encoders:
        cells = [order, mean_text(decoder.elbo(order)), _behind(decoder.elbo(decoder.best), decoder.elbo(order))]
        if fitted:
            cells.append(_behind(*(decoder.elbo(name, own_images=True) for name in (UNAMORTISED, order))))
        arrays = decoder.orders[order]
        cells += [mean_text(arrays[f"information_nats/{name}"][:, 1]) for name in layers]
        cells += [mean_text(arrays[f"rate_nats/{name}"][:, 1]) for name in layers]
        cells += [_gap_text(arrays, name) for name in layers]
        rows.append(tuple(map(Cell, cells)))
    return Table(columns, tuple(rows))


def lead(first: Array, second: Array) -> Interval:
    """Of first - second [R, n], paired by seed and image."""
    return of_mean(Sample(first - second, tuple(range(len(first)))))


def _behind(first: Array, second: Array) -> str:
    return "" if first is second or np.array_equal(first, second) else span_text(lead(first, second))


def span_text(found: Interval) -> str:
    """ "0.31 [0.20, 0.42]"."""
    return with_ends(found.low, found.middle, found.high)


def _gap_text(arrays: Arrays, name: str) -> str:
    """Mean over replicas, and in how many of those that did not fail the estimate is trusted."""
    gap = arrays[f"layer_gap_nats/{name}"][:, 1]
    alive = np.isfinite(gap)
    return f"{mean_text(gap)} ({int((arrays[f'trusted/{name}'][alive] == 1).sum())}/{int(alive.sum())})"


def _known_table(rows: Arrays) -> Table:
    layers = sorted(name for name in rows if name.startswith("gap_z"))
    columns = (
        Column("decoder", numeric=False),
        Column("posterior", numeric=False),
        Column("gap", "nats, exact"),
        Column("gap", "nats, by draws"),
        Column("least gap", "nats, closed form"),
        *(Column(f"G, {name[4:-5]}", "nats, exact") for name in layers),
    )
    cells = []
    for stack, order, at in each_order(rows):
        decoder = SHOWN.get(stack, stack)
        texts = [mean_text(rows[name][at], 3) for name in ("gap_nats", "sampled_nats")]
        texts += [number(float(rows["best_nats"][at][0]), 3)]  # of the decoder, the same for all seeds
        texts += [mean_text(rows[name][at], 3) for name in layers]
        cells.append(tuple(map(Cell, (decoder, order, *texts))))
    return Table(columns, tuple(cells))


def each_order(rows: Arrays) -> Iterator[tuple[str, str, Array]]:
    """(decoder, order, which rows), in order of appearance."""
    pairs = list(zip(rows["stack"].tolist(), rows["order"].tolist(), strict=True))
    for pair in dict.fromkeys(pairs):
        yield (*pair, np.array([other == pair for other in pairs]))


def frozen_decoder_csv(measured: Measured) -> dict[str, str]:
    """File name -> every seed of every order."""
    files = {}
    decoders, rows = frozen(measured), known(measured)
    if decoders:
        layers = decoders[0].layers
        names = [f"{what}_{name}" for what in ("information", "rate", "gap") for name in layers]
        heading = ["decoder", "order", "seed", "elbo_nats", "elbo_nats_own_images", "bound_nats"]
        heading += [f"{name}_nats" for name in names] + [f"trusted_{name}" for name in layers]
        files["same-decoder.csv"] = to_csv(heading, [row for decoder in decoders for row in _csv_rows(decoder, layers)])
    if rows is not None:
        files["same-decoder-known.csv"] = to_csv(list(rows), [list(row) for row in zip(*rows.values(), strict=True)])
    return files


def _csv_rows(decoder: FrozenDecoder, layers: list[str]) -> Iterator[list[object]]:
    for order, arrays in decoder.orders.items():
        own = (
            decoder.elbo(order, own_images=True).mean(-1)
            if UNAMORTISED in decoder.orders
            else np.full(len(arrays["seeds"]), np.nan)
        )
        whole = decoder.elbo(order).mean(-1) if order != UNAMORTISED else np.full(len(own), np.nan)
        nothing = np.full((len(own), 3), np.nan)
        for r, seed in enumerate(arrays["seeds"].tolist()):
            keys = [f"{what}_nats/{name}" for what in ("information", "rate", "layer_gap") for name in layers]
            numbers = [float(arrays.get(key, nothing)[r, 1]) for key in keys]
            trusted = [bool(arrays[f"trusted/{name}"][r]) if f"trusted/{name}" in arrays else "" for name in layers]
            bound = float(arrays["bound_datum_nats"][r].mean())
            yield [decoder.owner, order, seed, float(whole[r]), float(own[r]), bound, *numbers, *trusted]


def frozen_decoder_summary(measured: Measured) -> list[str]:
    """Which order leads at each decoder, and by how much; how far draws are off at known decoders."""
    found = []
    for decoder in frozen(measured):
        best = decoder.best
        behind = {order: lead(decoder.elbo(best), decoder.elbo(order)) for order in decoder.encoders if order != best}
        sure = [f"{order} ({span_text(ahead)})" for order, ahead in behind.items() if ahead.low > 0]
        tail = f"surely ahead, in nats, of {', '.join(sure)}" if sure else "surely ahead of none"
        found.append(f"At the decoder trained {decoder.owner}, {best} leaves the smallest gap, {tail}.")
    rows = known(measured)
    if rows is not None:
        off = np.abs(rows["gap_nats"] - rows["sampled_nats"])
        found.append(
            f"At known decoders gaps by draws are off by at most {number(float(np.nanmax(off)), 3)} nats of the "
            f"exact ones, in {int(np.isfinite(off).sum())} posteriors."
        )
    return found
