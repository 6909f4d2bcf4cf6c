"""Papers: what a published number is held against, the page of all of them, and what every paper has."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from hvae.analysis.claims import NotMeasuredError, Sample
from hvae.analysis.figures.curves import curves
from hvae.analysis.overview import main, overview
from hvae.analysis.papers import Curves, Line, Number, Published, hold
from hvae.analysis.study import open_study
from hvae.analysis.tables.published import published_table
from hvae.experiments import depth, papers
from hvae.experiments.shared.published import numbers, published
from hvae.lab.experiment import find
from tests.analysis.fabricate import fabricate

NAMES = papers.members()
RESULTS = Path(papers.__file__).parent / "results"


def a_number(values: list[float], tolerance: float = 0.5, value: float = 10.0) -> Number:
    row = Published("key", "Table 1", "MNIST", "VAE", "NLL", value, "nats", "primary", "full text")
    sample = Sample(np.array(values), tuple(range(len(values))))
    return Number(row, lambda measured: sample, tolerance, comparable=("paper",), reads="measured")


@pytest.mark.parametrize(
    ("values", "agreement"),
    [
        ([10.0, 10.1, 10.2], "agrees"), ([12.0, 12.1, 12.2], "differs"), ([10.0, 11.0, 12.0], "undecided"),
        ([10.0], "undecided"), ([9.4, 9.3, 9.2], "undecided"), ([9.0, 8.9, 8.8], "differs"),
    ],
)  # fmt: skip
def test_a_number_agrees_where_the_whole_interval_is_within_the_tolerance(values: list[float], agreement: str) -> None:
    found = hold(a_number(values), "paper", {}, {})
    assert found.agreement == agreement
    if len(values) > 1:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        ends = (found.ours.low, found.ours.middle, found.ours.high)
        assert ends == pytest.approx((low, np.mean(values), high))
        assert found.spread == pytest.approx(np.std(values, ddof=1))


def test_at_another_scale_nothing_is_decided_of_a_number() -> None:
    found = hold(a_number([10.0, 10.1, 10.2]), "cpu", {}, {})
    assert found.agreement == "other scale" and found.ours.middle == pytest.approx(10.1)


def test_what_was_not_measured_says_why() -> None:
    def missing(measured: object) -> Sample:
        raise NotMeasuredError("no such run")

    row = a_number([1.0]).published
    found = hold(Number(row, missing, 1.0, ("paper",), "measured"), "paper", {}, {})
    assert found.agreement == "not measured" and found.why == "no such run" and math.isnan(found.ours.middle)


def test_a_number_from_memory_is_never_a_reference() -> None:
    with pytest.raises(ValueError, match="memory"):
        Published("key", "Table 1", "MNIST", "VAE", "NLL", 1.0, "nats", "memory", "?")
    assert len(numbers()) > 100 and {row.provenance for row in numbers()} == {"primary", "secondary", "evaluated"}


def test_what_a_formula_gives_is_not_called_printed() -> None:
    """A row that says of itself that it was evaluated or derived is so by its provenance, and no other is."""
    for row in numbers():
        assert ("evaluated" in row.table) == (row.provenance == "evaluated"), row


def test_a_number_stands_beside_the_same_quantity_in_the_same_unit() -> None:
    """Fréchet distances in features of our own are no FID."""
    for name in NAMES:
        for number in getattr(find(name), "numbers", ()):
            assert number.published.unit in {"nats", "nats/image", "units", "modes", ""}, number.what


def test_a_published_number_is_picked_by_what_names_it() -> None:
    row = published("burda2016iwae", "Table 1", "IWAE 1 stoch. layer k=50", "test NLL (-L5000)", "MNIST (dynamic bin.)")
    assert row.value == 84.78
    with pytest.raises(LookupError, match="2 rows"):
        published("burda2016iwae", "Table 1", "IWAE 1 stoch. layer k=50", "test NLL (-L5000)")


def test_every_number_that_is_kept_is_shown() -> None:
    shown = [number for name in NAMES for number in getattr(find(name), "numbers", ())]
    kept = {number.published for number in shown} | {row for number in shown for row in number.replications}
    assert set(numbers()) == kept


def test_replications_stand_beside_the_number_that_they_repeat() -> None:
    (number,) = (
        number
        for number in find("burda-tables").numbers
        if (number.published.value, number.published.model) == (83.89, "IWAE 2 stoch. layer k=5")
    )
    ((*_, where),) = published_table([hold(number, "cpu", {}, {})]).rows
    assert [row.value for row in number.replications] == [84.69, 83.48]
    assert where.text.startswith("primary: full text") and "replications, secondary: 84.69 (README of x" in where.text


def test_the_committed_page_is_what_its_tables_make() -> None:
    page = RESULTS / "README.md"
    if not list(RESULTS.glob("*/tables/published.json")):
        pytest.skip("no paper has results yet")
    assert page.read_text(encoding="utf-8") == overview(RESULTS)


def test_the_page_shows_numbers_and_claims_and_who_made_them(tmp_path: Path) -> None:
    tables = tmp_path / "burda-tables" / "tables"
    tables.mkdir(parents=True)
    number = {
        "table": "Table 1", "what": "VAE, NLL", "dataset": "MNIST", "paper": 86.76, "unit": "nats",
        "provenance": "primary",
        "source": "text", "low": 90.0, "ours": 91.25, "high": 92.5, "spread": 0.5, "n_replicas": 6, "tolerance": 1.0,
        "outcome": "other scale", "how": "t-interval",
    }  # fmt: skip
    made = {"command": "hvae run burda-tables", "commit": "0" * 40, "device": "cpu", "took": "3.0 min", "begun": "2026"}
    record = {
        "citation": "Burda, arXiv:1509.00519.",
        "exhibits": "Table 1",
        "preset": "cpu",
        "limits": "Short.",
        "numbers": [number],
    }
    (tables / "published.json").write_text(json.dumps(record | {"made": [made]}))
    claim = {
        "statement": "It falls.",
        "quantity": "L_K at 5 minus 1,",
        "n_replicas": 6,
        "middle": -1.5,
        "low": -2.0,
        "high": -1.0,
        "unit": "nats",
        "criterion": "below -1 nats",
        "outcome": "supported",
    }
    same = claim | {"statement": "All stay.", "middle": 1.0, "low": 1.0, "high": 1.0, "unit": ""}
    (tables / "claims.json").write_text(json.dumps([claim, same]))
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for words in (
        "Burda, [arXiv:1509.00519](https://arxiv.org/abs/1509.00519). Table 1. Preset cpu.",
        "| Table 1: VAE, NLL, MNIST | 86.76 nats (primary) | 91.25 [90, 92.5] | 0.5 | other scale (±1) |",
        "| It falls. | L_K at 5 minus 1 | −1.5 [−2, −1] nats | below -1 nats | supported |",
        "| All stay. | L_K at 5 minus 1 | 1 in 6 of 6 | below -1 nats | supported |",
        "Made by `hvae run burda-tables`, commit 000000000, on cpu, 3.0 min, begun 2026.",
    ):
        assert words in text


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("hvae: give one folder")


def test_a_figure_tells_the_closed_form_from_what_was_trained_and_draws_intervals(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": depth.configs("demo")["depth-1"]})
    study = open_study(tmp_path / "depth")
    x, values = np.arange(3.0), np.ones((3, 2))
    bars = np.stack([values - 1, values + 2], axis=-1)

    def legend_and_bars(line: Line) -> tuple[list[str], list[tuple[float, float]]]:
        wanted = Curves("name", "Title", "Caption.", "x", "y", lambda runs, measured: {"panel": {"line": line}})
        made = curves(wanted, study)
        assert made is not None
        spans = [
            (float(path.vertices[:, 1].min()), float(path.vertices[:, 1].max()))
            for drawn in made.axes[0].collections
            for path in drawn.get_paths()
        ]
        return [text.get_text() for legend in made.legends for text in legend.get_texts()], spans

    assert legend_and_bars(Line(x, values, expected=(x, x))) == (["closed form", "measured"], [])
    assert legend_and_bars(Line(x, values)) == ([], [])
    assert legend_and_bars(Line(x, values, intervals=bars)) == ([], [(0.0, 3.0)] * 6)


@pytest.mark.parametrize(
    ("x", "scale", "ticks"),
    [([1, 2, 3, 5], "linear", "1 2 3 5"), ([1, 5, 20], "log", "1 5 20"), ([1, 2.75, 3], "linear", "")],
)
def test_few_whole_numbers_have_their_own_ticks_and_y_may_be_linear_near_zero(
    tmp_path: Path, x: list[float], scale: Literal["linear", "log"], ticks: str
) -> None:
    fabricate(tmp_path, {"depth-1": depth.configs("demo")["depth-1"]})
    line = Line(np.array(x), np.array([[-0.5, 100.0]] * len(x)))
    wanted = Curves(
        "name", "Title", "Caption.", "x", "y", lambda runs, measured: {"panel": {"line": line}}, x_scale=scale,
        y_linear_below=1.0,
    )  # fmt: skip
    made = curves(wanted, open_study(tmp_path / "depth"))
    assert made is not None and made.axes[0].get_yscale() == "symlog"
    shown = " ".join(text.get_text() for text in made.axes[0].get_xticklabels())
    assert shown == ticks if ticks else shown != "1 2.75 3"


def test_a_panel_of_closed_forms_alone_is_drawn(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": depth.configs("demo")["depth-1"]})
    line = Line(np.zeros(0), np.zeros((0, 0)), expected=(np.arange(3.0), np.arange(3.0)))
    wanted = Curves("name", "Title", "Caption.", "x", "y", lambda runs, measured: {"panel": {"line": line}})
    made = curves(wanted, open_study(tmp_path / "depth"))
    assert made is not None and len(made.axes[0].get_xticks()) > 2


# -- what every paper has beyond other experiments -----------------------------------------------------


@pytest.fixture(params=NAMES)
def paper(request: pytest.FixtureRequest) -> ModuleType:
    return find(request.param)


def test_a_paper_has_three_presets_and_says_what_each_leaves_out(paper: ModuleType) -> None:
    assert paper.PRESETS == papers.PRESETS and paper.claims
    assert set(paper.PAPER.limits) >= {"smoke", "cpu"} and all(paper.PAPER.limits.values())
    assert "arXiv" in paper.PAPER.citation and paper.PAPER.exhibits
    assert set(getattr(paper, "NEED_GPU", ())) <= {"paper"}
    assert len((paper.__doc__ or "").split("\n\n")) >= 2 and "Source:" in (paper.__doc__ or "")


def test_its_smoke_is_short(paper: ModuleType) -> None:
    for label, config in paper.configs("smoke").items():
        assert config.data.name.startswith(("digits", "synthetic")), f"{label}: no data to fetch in a smoke test"
        assert config.training.n_steps <= 60 and len(config.training.seeds) >= 2


def test_its_numbers_are_printed_somewhere_and_have_a_tolerance(paper: ModuleType) -> None:
    for number in getattr(paper, "numbers", ()):
        assert number.published in numbers() and number.tolerance >= 0 and set(number.comparable) <= set(papers.PRESETS)


def test_its_curves_draw_nothing_from_nothing(paper: ModuleType) -> None:
    for wanted in getattr(paper, "curves", ()):
        assert not any(wanted.panels({}, {}).values()) and wanted.caption and wanted.x_label and wanted.y_label
