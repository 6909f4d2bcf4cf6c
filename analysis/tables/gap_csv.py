"""Every number on the gap, replica by replica, as a long table."""

from collections.abc import Iterator, Sequence

import numpy as np

from hvae.analysis.load import LoadedRun
from hvae.analysis.tables.table import to_csv
from hvae.diagnosis.gap import Images
from hvae.diagnosis.record import Array, Texts


def gap_csv(runs: Sequence[LoadedRun]) -> str:
    """One row per run, replica and number, with its direction, how it was made, and its doubt."""
    heading = ["run", "seed", "images", "quantity", "layer", "low", "middle", "high", "unit", "direction", "how",
               "trusted", "remark"]  # fmt: skip
    rows = [row for run in runs for row in _csv_rows(run)]
    return to_csv(heading, rows)


Number = tuple[str, str, Array, str, Texts | str, str | Array, Texts]
"""quantity, layer, [R, 3], direction, how, trusted, remark"""


def _csv_rows(run: LoadedRun) -> Iterator[list[object]]:
    for images, (quantity, layer, values, direction, how, trusted, remark) in _numbers(run):
        unit = "units" if quantity.endswith("_units") else "nats"
        for replica, seed in enumerate(run.seeds):
            interval = [float(value) for value in values[replica]]
            said = remark[replica] if remark else ""
            if np.isnan(interval[1]) and not said:
                continue
            source = how if isinstance(how, str) else how[replica]
            sure = trusted if isinstance(trusted, str) else str(bool(trusted[replica])).lower()
            row = [run.label, seed, images.n, quantity, layer, *interval, unit, direction, source, sure, said]
            yield row


def _numbers(run: LoadedRun) -> Iterator[tuple[Images, Number]]:
    if run.annealed is not None:
        a = run.annealed
        k = f"K = {int(a.n_samples[-1])}"
        for row in (
            ("elbo_nats", "", a.elbo_nats, "lower", "q", "", ()),
            ("bound_nats", "", a.best, "lower", k, "", a.curve_warning),
            ("annealed_nats", "", a.log_px_nats, "lower", a.method, "", _joined(a.refused, a.warning)),
            ("simulated_elbo_nats", "", a.simulated_elbo_nats, "lower", "q", "", ()),
            ("simulated_lower_nats", "", a.simulated_lower_nats, "lower", a.method, "", a.simulated_warning),
            ("simulated_upper_nats", "", a.simulated_upper_nats, "upper", a.method, "", a.simulated_warning),
            ("sandwich_nats", "", a.sandwich_nats, "upper - lower", a.method, "", a.simulated_warning),
        ):
            yield a.images, row
    if run.exact is not None:
        e = run.exact
        yield e.images, ("log_px_nats", "", e.log_px_nats, "exact", e.reference, "", e.refused)
        yield e.images, ("elbo_nats", "", e.elbo_nats, "exact", e.reference, "", ())
        yield e.images, ("total_gap_nats", "", e.total_gap_nats, "exact", e.reference, "", e.gaps_refused)
        for name, values in e.layer_gap_nats.items():
            yield e.images, ("layer_gap_nats", name, values, "exact", e.reference, "", ())
    if run.gap is not None:
        g = run.gap
        how, sure, why = g.log_px_direction, g.log_px_trusted, g.log_px_reason
        yield g.images, ("log_px_nats", "", g.log_px_nats, "", how, sure, _joined(g.refused, g.warning))
        yield g.images, ("elbo_nats", "", g.elbo_nats, "lower", "q", "", ())
        yield g.images, ("total_gap_nats", "", g.total_nats, "", how, sure, why)
        yield g.images, ("approximation_nats", "", g.approximation_nats, "", how, sure, why)
        yield g.images, ("amortisation_nats", "", g.amortisation_nats, "", "refined q", "", g.suboptimality_refused)
        yield g.images, ("remainder_nats", "", g.remainder_nats, "", "refined q", "", ())
        for name, found in g.layers.items():
            layer = ("layer_gap_nats", name, found.gap_nats, "", found.proposal, found.trusted, found.reason)
            yield g.images, layer
            yield g.images, ("remaining_nats", name, found.remaining_nats, "lower", found.proposal, "", ())
            yield g.images, ("freed_nats", name, found.freed_nats, "", "refined q", "", ())
            for quantity, counts in (
                ("posterior_active", found.posterior_active),
                ("encoder_active", found.encoder_active),
            ):
                yield g.images, (f"{quantity}_units", name, _constant(counts), "", "", "", ())


def _joined(*texts: Texts) -> Texts:
    return tuple(" ".join(filter(None, said)) for said in zip(*texts, strict=True))


def _constant(values: Array) -> Array:
    return np.stack([np.full_like(values, np.nan), values, np.full_like(values, np.nan)], axis=1)
