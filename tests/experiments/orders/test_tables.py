"""One decoder under every order: what tables, figures and claims make of the arrays."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.claims import decide
from hvae.analysis.load import by_label
from hvae.analysis.report import write_experiment_report
from hvae.analysis.study import open_study
from hvae.certain import crossed_interval
from hvae.experiments import orders
from hvae.experiments.orders.claims import OWNERS, part
from hvae.experiments.orders.figures import exact, informations, leads
from hvae.experiments.orders.tables import frozen, frozen_decoder_csv, frozen_decoder_summary, frozen_decoder_tables
from tests.analysis.fabricate import fabricate, measure_further

Measured = dict[str, dict[str, np.ndarray]]
SEEDS, N_OWN = (0, 1, 2), 4
LEVEL = {"bottom-up": -20.0, "bottom-up-x": -19.0, "mean-field": -22.0, "top-down": -20.1, "top-down-shared": -20.0}
AHEAD = {"bottom-up": 0.0, "top-down": 3.0}
"""what a decoder's own ladder is better by"""


def arrays(owner: str, order: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = N_OWN if order == "unamortised" else 10
    level = -21.0 if order == "unamortised" else LEVEL[order] + AHEAD[owner] * order.startswith("top-down")
    datum = level + 0.01 * rng.standard_normal((len(SEEDS), 1)) + np.linspace(-1, 1, n)
    datum = datum + 0.02 * rng.standard_normal((1, n))
    found = {"decoder": np.array(owner), "order": np.array(order), "seeds": np.array(SEEDS)}
    found |= {"elbo_datum_nats": datum, "bound_datum_nats": datum + 1.0}
    for layer in ("z1", "z2", "z3") if order != "unamortised" else ():
        for key in ("rate_nats", "information_nats", "layer_gap_nats"):
            found[f"{key}/{layer}"] = rng.uniform(0.1, 2.0, (len(SEEDS), 1)) + np.array([-0.05, 0.0, 0.05])
        found[f"trusted/{layer}"] = np.array([True, False, True])
    return found


@pytest.fixture
def measured() -> Measured:
    posteriors = (*sorted(LEVEL), "unamortised")
    found = {
        part(owner, order): arrays(owner, order, 10 * i + j)
        for i, owner in enumerate(OWNERS)
        for j, order in enumerate(posteriors)
    }
    rows = [(stack, order, seed) for stack in ("coins", "linear-Gaussian") for order in posteriors for seed in (0, 1)]
    stacks, orders_, seeds = (np.array(column) for column in zip(*rows, strict=True))
    known = {"stack": stacks, "order": orders_, "seed": seeds}
    gap = np.linspace(0.1, 1.0, len(rows))
    gap[-1] = np.nan
    known |= {"gap_nats": gap, "sampled_nats": np.linspace(0.1, 1.0, len(rows)) + 0.02, "best_nats": 0.05 + 0 * gap}
    return found | {"known": known | {"gap_z1_nats": gap / 2, "gap_z2_nats": gap / 2}}


def test_a_table_stands_for_each_decoder_and_pairs_seeds(measured: Measured) -> None:
    tables = frozen_decoder_tables(measured)
    assert list(tables) == [*(f"Frozen decoder, trained {owner}" for owner in OWNERS),
                            "Frozen decoders with a known posterior"]  # fmt: skip
    table = tables["Frozen decoder, trained bottom-up"]
    assert [row[0].text for row in table.rows] == list(orders.ORDERS)
    assert all(len(row) == len(found.columns) for found in tables.values() for row in found.rows)
    best, plain = (measured[part("bottom-up", order)]["elbo_datum_nats"] for order in ("bottom-up-x", "bottom-up"))
    low, middle, high = crossed_interval(best - plain)
    cells = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert cells["bottom-up"][2] == f"{middle:.2f} [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}]"
    assert cells["bottom-up-x"][2] == "" and cells["bottom-up"][-1].endswith(" (2/3)")
    own = measured[part("bottom-up", "unamortised")]["elbo_datum_nats"].mean(1) - plain[:, :N_OWN].mean(1)
    assert cells["bottom-up"][3].startswith(f"{own.mean():.2f}".replace("-", "\N{MINUS SIGN}"))


def test_a_failed_replica_is_left_out(measured: Measured) -> None:
    for name, values in measured[part("bottom-up", "mean-field")].items():
        if values.dtype == float:
            values[0] = np.nan
        elif name.startswith("trusted"):
            values[0] = False
    rows = frozen_decoder_tables(measured)["Frozen decoder, trained bottom-up"].rows
    assert rows[2][0].text == "mean-field" and rows[2][-1].text.endswith(" (1/2)")
    for name in [name for name in measured if name.startswith("top-down")]:
        measured[name]["elbo_datum_nats"] = measured[name]["elbo_datum_nats"] + np.nan
    assert [decoder.owner for decoder in frozen(measured)] == ["bottom-up"]


def test_the_reading_says_who_is_surely_ahead_and_how_far_off_draws_are(measured: Measured) -> None:
    first, second, known = frozen_decoder_summary(measured)
    assert first.startswith("At the decoder trained bottom-up, bottom-up-x leaves the smallest gap, surely ahead")
    assert "mean-field (" in first and "top-down (" in first and "top-down-shared leaves the smallest" in second
    assert known.endswith("off by at most 0.020 nats of the exact ones, in 23 posteriors.")
    assert frozen_decoder_summary({}) == []


def test_every_seed_is_in_the_csv(measured: Measured) -> None:
    files = frozen_decoder_csv(measured)
    rows = list(csv.DictReader(io.StringIO(files["same-decoder.csv"])))
    assert len(rows) == len(OWNERS) * 6 * len(SEEDS) and rows[0]["order"] == "bottom-up"
    assert float(rows[1]["elbo_nats"]) == pytest.approx(
        measured[part("bottom-up", "bottom-up")]["elbo_datum_nats"][1].mean(), rel=1e-5
    )
    fitted = next(row for row in rows if row["order"] == "unamortised")
    assert fitted["elbo_nats"] == "" == fitted["gap_z1_nats"] and float(fitted["elbo_nats_own_images"]) < 0
    assert len(list(csv.DictReader(io.StringIO(files["same-decoder-known.csv"])))) == 24
    assert frozen_decoder_csv({}) == {}


def test_the_points_of_the_figures_are_the_arrays(measured: Measured) -> None:
    made = leads(measured)
    assert made is not None
    left = made.axes[0]
    assert [label.get_text() for label in left.get_yticklabels()] == [*orders.ORDERS[1:], "unamortised"]
    points = [line.get_xdata() for line in left.lines if line.get_marker() == "o"]
    ladder, plain = (
        measured[part("bottom-up", order)]["elbo_datum_nats"].mean(1) for order in ("top-down", "bottom-up")
    )
    np.testing.assert_allclose(np.asarray(points[2], dtype=float), ladder - plain)
    assert informations(measured) is not None and exact(measured) is not None
    assert leads({}) is None and informations({}) is None and exact({}) is None


def test_claims_on_frozen_decoders_follow_the_arrays(measured: Measured) -> None:
    found = {
        decision.claim.statement: decision for decision in (decide(claim, {}, measured) for claim in orders.claims)
    }
    home = found["A decoder favours the order that it was trained with."]
    assert home.outcome == "supported" and home.middle == pytest.approx(3.0, abs=0.05)
    own = "At the decoder trained bottom-up, "
    assert found[own + "bottom-up-x leaves no larger gap than bottom-up."].outcome == "supported"
    assert found[own + "top-down and bottom-up leave the same gap."].outcome == "supported"
    assert found[own + "one net for all images costs mean field more than a margin."].outcome == "supported"
    other = "At the decoder trained top-down, top-down and bottom-up leave the same gap."
    assert found[other].outcome == "not supported" and found[other].middle == pytest.approx(2.9, abs=0.05)
    assert all(d.outcome == "not measured" for d in (decide(claim, {}, {}) for claim in orders.claims))
    del measured[part("bottom-up", "bottom-up")]["elbo_datum_nats"]  # where no replica could be measured
    assert decide(orders.claims[-1], {}, measured).how.startswith("no replica of the part")


@pytest.mark.slow
def test_gaps_of_joint_runs_need_trust_and_compare_totals(tmp_path: Path, measured: Measured) -> None:
    demo = orders.configs("demo")
    pair = ("bottom-up", "top-down")
    runs = fabricate(tmp_path, {label: demo[label] for label in pair}, experiment="orders")
    trusted = np.array([True, True, True])
    for run, total in zip(runs, (3.0, 1.0), strict=True):
        arrays = measure_further(run).load_arrays("gap")
        spread = 0.01 * np.arange(3)[:, None] + np.array([-0.1, 0.0, 0.1])
        run.save_arrays("gap", arrays | {"total_gap_nats": total + spread, "trusted/log_px": trusted})
    folder = tmp_path / "orders" / "measured" / "demo"
    folder.mkdir(parents=True)
    for name, values in measured.items():
        np.savez(folder / f"{name}.npz", **values)

    def decided() -> dict[str, str]:
        study = open_study(tmp_path / "orders")
        decisions = [decide(claim, by_label(study.runs), study.measured) for claim in orders.claims]
        return {decision.claim.statement: f"{decision.outcome} {decision.how}" for decision in decisions}

    smaller = "top-down leaves a smaller gap than bottom-up."
    assert decided()[smaller].startswith("supported")
    assert decided()["bottom-up-x leaves a smaller gap than mean-field."].startswith("not measured")
    arrays = runs[1].load_arrays("gap")
    runs[1].save_arrays("gap", arrays | {"trusted/log_px": np.array([True, False, True])})
    assert decided()[smaller] == ("not measured log p(x) is not trusted in 1 of 3 replicas of the run 'top-down'")
    page = write_experiment_report(tmp_path / "orders").read_text(encoding="utf-8")
    assert 'id="same-decoder"' in page and "figure-same-decoder-leads" in page
    assert (tmp_path / "orders" / "tables" / "same-decoder-known.csv").is_file()
