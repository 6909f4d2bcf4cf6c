"""The section on the gap: what was measured is shown, what was refused or doubted says so, nothing else is there."""

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hvae.analysis import style
from hvae.analysis.exhibits import GAP
from hvae.analysis.figures.gap import causes, curves, layer_gaps
from hvae.analysis.load import LoadedRun, load_runs
from hvae.analysis.report import verdict_text, write_experiment_report
from hvae.analysis.results import write_results
from hvae.analysis.study import open_study
from hvae.analysis.tables.gap import layer_table, likelihood_bounds
from hvae.analysis.tables.gap_doubt import gap_reliability, gap_remarks
from hvae.certain import crossed_interval
from hvae.experiments.depth import configs
from hvae.lab.runs.run import Run
from hvae.vocabulary import ENCODER_COLLAPSE, IN_USE, LOSES
from tests.analysis.fabricate import GAP_IMAGES, fabricate, measure_further, refuse

BOTTOM_UP, LADDER = "depth-3 bottom-up", "depth-3 ladder+WU"
SENTENCE = "z1 is discrete, and annealing needs Gaussian latents."


def bare(root: Path, *labels: str, experiment: str = "trial") -> list[Run]:
    """Runs of which nothing is measured yet: quick to report."""
    return [Run.create_or_open(root, experiment, label, configs("demo")[label]) for label in labels]


def loaded(run: Run) -> LoadedRun:
    (found,) = load_runs(run.path)
    return found


def change(run: Run, name: str, **arrays: object) -> None:
    """Other values under keys of one file; a slash in a key is written as two underscores."""
    new = {key.replace("__", "/"): np.asarray(values) for key, values in arrays.items()}
    run.save_arrays(name, {**run.load_arrays(name), **new})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return measure_further(bare(tmp_path, BOTTOM_UP)[0])


def drawn_points(figure: Figure, panel: str) -> np.ndarray:
    """[n, 3] place, height and whether it is filled, of every replica of a panel, from the left."""
    (axes,) = (axes for axes in figure.axes if axes.get_label() == panel)
    lines = [line for line in axes.lines if line.get_marker() in "os^D"]
    found = [(x, y, line.get_markerfacecolor() != "none") for line in lines for x, y in line.get_xydata()]
    return np.array(sorted(found), dtype=float).reshape(-1, 3)


def visible(page: str) -> str:
    return re.sub(r"<style.*?</style>|<svg.*?</svg>|<img[^>]*>|<[^>]*>", " ", page, flags=re.DOTALL)


# -- records -------------------------------------------------------------------------------------------


def test_records_are_the_arrays(run: Run) -> None:
    found = loaded(run)
    annealed, exact, gap = found.annealed, found.exact, found.gap
    assert annealed is not None and exact is not None and gap is not None and found.measured_further
    files = {name: run.load_arrays(name) for name in ("annealed", "exact", "gap")}
    for record, name, pairs in (
        (annealed, "annealed", {"log_px_nats": "annealed_nats", "pareto_k": "annealed_pareto_k"}),
        (annealed, "annealed", {key: key for key in ("elbo_nats", "curve_nats", "sandwich_nats", "simulated_upper_nats",
                                                     "simulated_lower_nats", "simulated_curve_nats")}),
        (exact, "exact", {key: key for key in ("log_px_nats", "elbo_nats", "total_gap_nats", "error")}),
        (gap, "gap", {"total_nats": "total_gap_nats", "approximation_nats": "approximation_nats",
                      "amortisation_nats": "amortisation_nats", "remainder_nats": "remainder_nats"}),
        (gap.layers["z2"], "gap", {key: f"{key}/z2" for key in ("freed_nats", "posterior_active", "encoder_active",
                                                                "posterior_share", "encoder_share")}),
        (gap.layers["z2"], "gap", {"gap_nats": "layer_gap_nats/z2", "se_nats": "layer_gap_se_nats/z2",
                                   "bias_nats": "layer_gap_bias_nats/z2", "trusted": "trusted/z2"}),
    ):  # fmt: skip
        for field, key in pairs.items():
            np.testing.assert_array_equal(getattr(record, field), files[name][key], err_msg=key)
    np.testing.assert_array_equal(exact.layer_gap_nats["z3"], files["exact"]["layer_gap_nats/z3"])
    assert gap.layers["z3"].proposal == ("refined",) * 4 and gap.layers["z1"].reason == ("",) * 4


def test_a_failed_replica_has_neither_number_nor_sentence(tmp_path: Path) -> None:
    (run,) = bare(tmp_path, BOTTOM_UP)
    found = loaded(measure_further(run, failed=2))
    assert found.gap is not None and found.annealed is not None
    assert found.annealed.warning == ("",) * 4
    assert np.isnan(found.gap.layers["z1"].gap_nats[2]).all() and found.gap.layers["z1"].cause()[2] == ""
    assert "failed" not in " ".join(gap_remarks([found]))


def test_a_layer_is_read_from_its_own_shares(run: Run) -> None:
    """By what is sure: few chains on few images make the middle of an idle unit's interval look active."""
    on, off = (0.02, 0.1, 0.2), (-0.01, 0.0, 0.009)
    change(run, "gap", posterior_share__z2=[(on, on)] * 4, encoder_share__z2=[(on, off), (off, off)] * 2)
    gap = loaded(run).gap
    assert gap is not None and gap.layers["z2"].cause() == (LOSES, ENCODER_COLLAPSE) * 2


# -- tables --------------------------------------------------------------------------------------------


def cells(found: LoadedRun) -> dict[str, str]:
    table = likelihood_bounds([found])
    assert table is not None and len(table.rows) == 1
    return {column.name: cell.text for column, cell in zip(table.columns, table.rows[0], strict=True)}


def test_bounds_of_a_run_in_one_row(run: Run) -> None:
    change(run, "annealed", annealed_nats=np.full((4, 3), -7.25), sandwich_nats=np.full((4, 3), 0.125))
    values = np.random.default_rng(0).normal(size=(4, GAP_IMAGES))
    change(run, "annealed", annealed_datum_nats=values)
    change(run, "annealed", curve_pareto_k=np.tile([0.9, 0.1, np.nan, np.inf], (4, 1)), warning=["doubt", "", "", ""])
    change(run, "exact", log_px_nats=np.full((4, 3), -7.0), log_px_datum_nats=np.full((4, GAP_IMAGES), np.nan))
    row = cells(loaded(run))
    low, middle, high = crossed_interval(values)
    assert row["AIS"] == f"−7.25 ± {max(middle - low, high - middle):.2f}"
    assert row["log p(x)"] == "−7.00" and row["sandwich"] == "0.12", "no value of each image, no spread: no ±"
    assert row["high k-hat"] == "67" and row["warned"] == "1/4"
    assert row["trusted layers"] == "z1, z2 4/4, z3 0/4" and row["images"] == str(GAP_IMAGES)


def test_numbers_of_other_images_stand_in_other_rows(run: Run) -> None:
    change(run, "exact", n_images=25)
    table = likelihood_bounds([loaded(run)])
    assert table is not None
    column = [c.name for c in table.columns].index("images")
    assert [row[column].text for row in table.rows] == [str(GAP_IMAGES), "25"]
    layers = layer_table([loaded(run)])
    assert layers is not None and "G exact" not in [c.name for c in layers.columns]
    figure, gaps = curves([loaded(run)]), layer_gaps([loaded(run)])
    assert figure is not None and gaps is not None
    assert "exact" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not any(line.get_marker() == "_" for line in gaps.axes[0].lines)


def test_layers_with_their_sum_and_reading(run: Run) -> None:
    intervals = np.array(run.load_arrays("gap")["layer_gap_nats/z1"])
    intervals[:, 0], intervals[:, 2] = intervals[:, 1] - 0.1, intervals[:, 1] + 0.1
    intervals[2, 2] += 0.3
    change(run, "gap", layer_gap_nats__z1=intervals)
    table = layer_table([loaded(run)])
    assert table is not None
    rows = {row[1].text: {c.name: cell.text for c, cell in zip(table.columns, row, strict=True)} for row in table.rows}
    assert list(rows) == ["z1", "z2", "z3", "all"]
    assert (rows["z1"]["trusted"], rows["z3"]["trusted"]) == ("4/4", "0/4")
    assert rows["z3"]["p(z|x)"] == "8 of 8" and rows["z3"]["q"] == "0 of 8"
    assert rows["z3"]["cause"] == f"{ENCODER_COLLAPSE} 4/4" and rows["z1"]["cause"] == f"{IN_USE} 4/4"
    assert rows["z1"]["± in a seed"] == "0.25"
    sums = [sum(float(rows[name][key].split()[0]) for name in ("z1", "z2", "z3")) for key in ("G", "G exact")]
    assert sums == pytest.approx([float(rows["all"][key].split()[0]) for key in ("G", "G exact")], abs=0.021)


def test_reliability_in_words(run: Run) -> None:
    change(run, "annealed", annealed_pareto_k=np.tile([0.9, 0.1, 0.1, 0.1], (4, 1)), warning=["doubt", "", "", ""])
    text = gap_reliability([loaded(run)])
    assert "above 0.34 for 25 % after annealing" in text and "above 0.50 for" in text
    assert "; 1 of 4 annealed bounds carry a warning" in text
    assert "8 of 12 estimated layer gaps are trusted" in text and "nats apart" in text
    assert gap_reliability([loaded(run).with_measured(annealed=None, gap=None)]) == ""
    annealed = loaded(run).annealed
    assert annealed is not None
    few = loaded(run).with_measured(
        annealed=dataclasses.replace(annealed, settings={**annealed.settings, "n_chains": 8}), gap=None
    )
    text = gap_reliability([few])
    assert "8 weights are too few to judge the bounds by k-hat (25 are needed)" in text and "k-hat is above" not in text


def test_every_doubt_is_a_sentence_of_its_own(run: Run) -> None:
    texts = {"warning": "W a", "simulated_warning": "W b", "curve_warning": "W c", "note": "N d"}
    change(run, "annealed", **{key: [text, "", text, ""] for key, text in texts.items()})
    change(run, "exact", gaps_refused=["R e"] * 4)
    change(run, "gap", warning=["", "W f", "", ""], suboptimality_refused=["R g"] * 4, posterior_warning=["W h"] * 4)
    change(run, "gap", posterior_refused=["R i"] * 4, reason__z1=["R j", "", "", ""])
    lines = gap_remarks([loaded(run)])
    for end in ("W a", "W b", "W c", "N d", "R e", "W f", "R g", "W h", "R i", "R j"):
        (line,) = (line for line in lines if line.endswith(f": {end}"))
        assert ("seeds 0, 2" in line) == (end in ("W a", "W b", "W c", "N d"))
        assert ("seed 1:" in line) == (end == "W f") and ("seed 0:" in line) == (end == "R j")
    text = verdict_text(run.path)
    assert "W a" in text and "more, in the report" in text and max(map(len, text.splitlines())) <= 100
    page = visible(write_experiment_report(run.path).read_text(encoding="utf-8"))
    assert all(line in page for line in lines)


def test_sentences_that_differ_in_numbers_only_are_one(run: Run) -> None:
    texts = ["k is 0.5 for 3 of 9.", "k is 12 for 1 of 9.", "", "Other words 3."]
    change(run, "annealed", warning=texts)
    lines = [line for line in gap_remarks([loaded(run)]) if ": annealed bound" in line]
    assert lines == [
        f"{BOTTOM_UP}, seeds 0, 1: annealed bound (numbers of seed 0): k is 0.5 for 3 of 9.",
        f"{BOTTOM_UP}, seed 3: annealed bound: Other words 3.",
    ]


# -- figures -------------------------------------------------------------------------------------------


def test_curves_stand_between_the_elbo_and_the_bounds(run: Run) -> None:
    found = loaded(run)
    figure = curves([found])
    assert figure is not None and found.annealed is not None and found.exact is not None
    test, simulated = figure.axes

    def levels(axes: object, color: str) -> list[float]:
        lines = [line for line in axes.lines if to_hex(line.get_color()) == color.lower()]  # type: ignore[attr-defined]
        return sorted(float(line.get_ydata()[0]) for line in lines)

    annealed = found.annealed
    zero, own = annealed.elbo_nats[:, 1], annealed.simulated_elbo_nats[:, 1]
    lower, upper = annealed.simulated_lower_nats[:, 1] - own, annealed.simulated_upper_nats[:, 1] - own
    assert levels(test, style.color(2)) == sorted(annealed.log_px_nats[:, 1] - zero)
    assert levels(test, style.color(4)) == sorted(found.exact.log_px_nats[:, 1] - zero)
    assert levels(simulated, style.color(2)) == sorted([*lower, *upper])
    for axes, bound, start in ((test, annealed.curve_nats, zero), (simulated, annealed.simulated_curve_nats, own)):
        drawn = [np.asarray(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 3]
        np.testing.assert_array_equal(np.stack(drawn), bound[..., 1] - start[:, None])
    bands = sorted(tuple(patch.get_y() + np.array([0, patch.get_height()])) for patch in simulated.patches)
    np.testing.assert_allclose(bands, sorted(zip(lower, upper, strict=True)), atol=1e-12)


def test_points_are_the_layer_gaps_and_hollow_where_untrusted(run: Run) -> None:
    change(run, "gap", trusted__z2=[True, False, True, True])
    found = loaded(run)
    figure = layer_gaps([found])
    assert figure is not None and found.gap is not None and found.exact is not None
    _, heights, filled = drawn_points(figure, BOTTOM_UP).T
    expected = np.concatenate([layer.gap_nats[:, 1] for layer in found.gap.layers.values()])
    np.testing.assert_allclose(heights, expected)
    assert filled.tolist() == [1] * 4 + [1, 0, 1, 1] + [0] * 4
    (axes,) = figure.axes
    assert "not trusted: z2 1/4, z3 4/4" in axes.get_xlabel().replace("\N{NO-BREAK SPACE}", " ")
    dashes = np.concatenate([line.get_ydata() for line in axes.lines if line.get_marker() == "_"])
    np.testing.assert_array_equal(dashes, np.concatenate([v[:, 1] for v in found.exact.layer_gap_nats.values()]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["estimated, trusted", "not trusted", "exact"]
    ends = [segment[:, 1] for bar in axes.collections for segment in bar.get_segments()]  # type: ignore[attr-defined]
    intervals = np.concatenate([layer.gap_nats[:, [0, 2]] for layer in found.gap.layers.values()])
    np.testing.assert_array_equal(ends, intervals)


def test_two_orders_never_share_a_panel(tmp_path: Path) -> None:
    runs = [loaded(measure_further(run)) for run in bare(tmp_path, BOTTOM_UP, LADDER)]
    figure = layer_gaps(runs)
    assert figure is not None
    assert [axes.get_xlabel().split("\n")[0] for axes in figure.axes] == [
        "layer, bottom-up", "layer, top-down",
    ]  # fmt: skip
    assert [len(drawn_points(figure, label)) for label in (BOTTOM_UP, LADDER)] == [12, 12]


def test_causes_are_drawn_with_their_remainder(run: Run) -> None:
    found = loaded(run)
    figure = causes([found])
    assert figure is not None and found.gap is not None
    gap = found.gap
    parts = [gap.approximation_nats, gap.amortisation_nats, *(layer.freed_nats for layer in gap.layers.values())]
    expected = np.concatenate([values[:, 1] for values in (*parts, gap.remainder_nats)])
    np.testing.assert_allclose(drawn_points(figure, BOTTOM_UP)[:, 1], expected)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["", "", "z1", "z2", "z3", ""]


def test_a_failed_replica_is_not_drawn(tmp_path: Path) -> None:
    (run,) = bare(tmp_path, BOTTOM_UP)
    found = loaded(measure_further(run, failed=1))
    for make, n_points in ((layer_gaps, 3 * 3), (causes, 3 * 6)):
        figure = make([found])
        assert figure is not None and len(drawn_points(figure, BOTTOM_UP)) == n_points


# -- page, terminal, files -----------------------------------------------------------------------------


def test_the_section_stands_only_where_something_was_measured(tmp_path: Path) -> None:
    (run,) = bare(tmp_path, BOTTOM_UP)
    page = write_experiment_report(run.path).read_text(encoding="utf-8")
    assert 'id="gap"' not in page and "#gap" not in page and "The gap" not in verdict_text(run.path)
    assert not (run.path / "tables" / "gap.csv").exists()
    assert all(exhibit.make(open_study(run.path)) is None for exhibit in GAP)


@pytest.mark.parametrize("only", ["annealed", "exact", "gap"])
def test_each_measure_stands_alone(only: str, tmp_path: Path) -> None:
    (run,) = bare(tmp_path, BOTTOM_UP)
    measure_further(run)
    for name in {"annealed", "exact", "gap"} - {only}:
        (run.path / "evaluation" / f"{name}.npz").unlink()
    page = write_experiment_report(run.path).read_text(encoding="utf-8")
    figures = set(re.findall(r'id="figure-(gap-\w+)"', page))
    assert figures == {"annealed": {"gap-curves"}, "exact": {"gap-layers"}, "gap": {"gap-layers", "gap-causes"}}[only]
    assert "nan" not in visible(page).lower().split() and "The gap" in verdict_text(run.path)
    rows = list(csv.DictReader((run.path / "tables" / "gap.csv").read_text(encoding="utf-8").splitlines()))
    assert rows and "nan" not in {value.lower() for row in rows for value in row.values()}


def test_a_refusal_is_shown_in_the_numbers_place(tmp_path: Path) -> None:
    (run,) = bare(tmp_path, BOTTOM_UP)
    for name in ("annealed", "exact", "gap"):
        refuse(run, name, SENTENCE)
    found = loaded(run)
    row = cells(found)
    assert row["AIS"] == row["sandwich"] == row["log p(x)"] == row["trusted layers"] == "refused"
    assert all(exhibit.make(open_study(run.path)) is None for exhibit in GAP) and layer_table([found]) is None
    page = write_experiment_report(run.path).read_text(encoding="utf-8")
    text = verdict_text(run.path)
    for words in ("annealing refused", "exact answer refused", "gap refused"):
        assert f"{words}: {SENTENCE}" in visible(page) and f"{words}: {SENTENCE}" in text
    assert "Nothing of what was asked for could be measured." in page
    rows = list(csv.DictReader((run.path / "tables" / "gap.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["quantity"] for row in rows} == {"annealed_nats", "log_px_nats"}
    assert all(row["middle"] == "" and row["remark"] == SENTENCE for row in rows)


def test_csv_has_every_replica(run: Run) -> None:
    write_experiment_report(run.path)
    rows = list(csv.DictReader((run.path / "tables" / "gap.csv").read_text(encoding="utf-8").splitlines()))
    found = loaded(run)
    assert found.gap is not None and found.annealed is not None
    (row,) = (
        r for r in rows if (r["quantity"], r["layer"], r["seed"], r["how"]) == ("layer_gap_nats", "z3", "2", "refined")
    )
    assert [float(row[end]) for end in ("low", "middle", "high")] == pytest.approx(
        list(found.gap.layers["z3"].gap_nats[2]), rel=1e-5
    )
    assert row["trusted"] == "false" and "effective sample size" in row["remark"] and row["images"] == str(GAP_IMAGES)
    directions = {r["quantity"]: r["direction"] for r in rows if not r["layer"] and r["how"].startswith("400")}
    assert directions == {
        "annealed_nats": "lower", "simulated_lower_nats": "lower", "simulated_upper_nats": "upper",
        "sandwich_nats": "upper - lower",
    }  # fmt: skip
    exact = [r for r in rows if r["quantity"] == "log_px_nats" and r["direction"] == "exact"]
    assert len(exact) == 4 and {r["how"] for r in exact} == {"LinearGaussian"}
    units = {r["quantity"]: r["middle"] for r in rows if r["layer"] == "z3" and r["unit"] == "units"}
    assert units == {"posterior_active_units": "8", "encoder_active_units": "0"}


def test_several_runs_share_a_narrow_terminal_and_one_page(tmp_path: Path) -> None:
    runs = bare(tmp_path, BOTTOM_UP, LADDER, "depth-1", "depth-5 bottom-up")
    for run in runs[:2]:
        measure_further(run)
    refuse(runs[2], "annealed", SENTENCE)
    measure_further(runs[3])
    text = verdict_text(tmp_path / "trial")
    section = text[text.index("The gap between") :]
    assert max(map(len, text.splitlines())) <= 100
    assert ENCODER_COLLAPSE in section and "refused" in section and f"depth-1: annealing refused: {SENTENCE}" in section
    page = write_experiment_report(tmp_path / "trial").read_text(encoding="utf-8")
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers)) and identifiers.count("figure-gap-layers") == 1
    assert page.index('id="gap"') < page.index('id="details"')


def test_results_keep_the_new_tables_and_figures(tmp_path: Path) -> None:
    (run,) = fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]}, experiment="kept")
    measure_further(run)
    text = write_results(run.path, tmp_path / "to").read_text(encoding="utf-8")
    assert "[tables/gap.csv](tables/gap.csv)" in text and "The gap between" in text
    for file in ("tables/gap.csv", "figures/gap-curves.png", "figures/gap-layers.png", "figures/gap-causes.png"):
        assert (tmp_path / "to" / file).is_file() and file in text
