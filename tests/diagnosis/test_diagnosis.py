"""A diagnosis as a value: kept and read again, printed with its answer last, drawn, listed and compared like a run."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from hvae.analysis.keep import kept
from hvae.analysis.kept import write_kept
from hvae.analysis.study import open_study
from hvae.analysis.terminal import verdict_text
from hvae.diagnosis import OUTSIDE, Diagnosis, Layer, find_saved
from hvae.diagnosis.arrays import to_arrays
from hvae.errors import ConfigError, MissingExtraError
from hvae.evidence import HVAE
from hvae.exact.known_stacks import linear_stack
from hvae.lab.cli import main
from hvae.lab.runs.run import Run
from hvae.measuring import Budget, Sizes, measure
from hvae.vocabulary import FAILED, RULE

SIZES = Sizes(n_images=6, max_paths=16, n_likelihood=6, n_samples=20, n_likelihood_deep=4, n_samples_deep=30)
BUDGET = Budget(images=4, temperatures=3, chains=5, leapfrog=1, samples=20)
RELEASED = Path(__file__).parents[1] / "released" / "own"


def stack() -> tuple[HVAE, Tensor]:
    known = linear_stack(1.0, "over-confident", seed=0, widths=(6, 4, 3))
    return known.model, known.x


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    """Two replicas and one that died."""
    model, x = stack()
    words = ("annealed", "exact", "gradients")
    return measure([model, None, model], x, SIZES, seeds=(3, 5, 7), label="mine", words=words, budget=BUDGET)


@pytest.fixture(scope="module")
def saved(diagnosis: Diagnosis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return diagnosis.save(tmp_path_factory.mktemp("outside") / "mine")


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Every field of every record, NaN where NaN."""
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        assert type(a) is type(b), where
        for f in dataclasses.fields(a):
            assert_equal(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}[{key}]")
    elif isinstance(a, tuple) and a and dataclasses.is_dataclass(a[0]):
        assert len(a) == len(b)
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=where)


# kept and read again


def test_what_is_read_is_what_was_saved(diagnosis: Diagnosis, saved: Path) -> None:
    assert_equal(Diagnosis.read(saved), diagnosis)
    record = json.loads((saved / "diagnosis.json").read_text())
    assert (record["schema"], record["rule"], record["source"]) == (1, RULE, OUTSIDE)
    assert record["layers"] == {"z1": 4, "z2": 3} and record["sizes"]["n_paths_use"] == 32
    assert set(record["provenance"]["versions"]) == {"hvae", "torch", "numpy"}


def test_saving_again_leaves_nothing_of_before(diagnosis: Diagnosis, tmp_path: Path) -> None:
    diagnosis.save(tmp_path)
    dataclasses.replace(diagnosis, annealed=None, likelihood_deep=None).save(tmp_path)
    again = Diagnosis.read(tmp_path)
    assert again.annealed is None and again.likelihood_deep is None and again.exact is not None


def test_quantities_that_arise_later_are_read_by_their_names(diagnosis: Diagnosis, tmp_path: Path) -> None:
    v = np.array([[0.1, 0.2, 0.3]] * 3)
    layer = diagnosis.layers[0]
    later = dataclasses.replace(
        layer, intervals={**layer.intervals, "decoder_use_nats": v}, marks=("not settled", "", "")
    )
    dataclasses.replace(diagnosis, layers=(later, *diagnosis.layers[1:]), rule=2).save(tmp_path)
    again = Diagnosis.read(tmp_path)
    np.testing.assert_array_equal(again.layers[0].interval("decoder_use_nats"), v)
    assert again.rule == 2 and again.layers[0].marks == ("not settled", "", "")
    assert ("z1", 3, "not settled") in [(doubt.what, doubt.seed, doubt.sentence) for doubt in again.doubts]
    units = {row.quantity: row.unit for row in again.to_dataframe().itertuples()}
    assert units["decoder_use_nats"] == "nats" and units["active_units"] == "units"


def test_a_run_that_was_released_is_a_diagnosis_too() -> None:
    found = Diagnosis.read(RELEASED / "binary-measured-further-568ea61e")
    assert found.rule == 1 and found.schema == 0 and found.sizes is None and found.source == ""
    assert found.gap is not None and found.exact is not None and found.evaluated


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "holds no diagnosis.json; give the directory"),
        (lambda file: file.write_text("{"), "is damaged"),
        (lambda file: file.write_text('{"label": "a"}'), "is damaged"),
        (lambda file: file.write_text('{"schema": 99, "label": "a"}'), "has schema 99, and this hvae reads up to 1"),
    ],
)
def test_a_spoilt_record_is_one_sentence(spoil: Any, said: str, diagnosis: Diagnosis, tmp_path: Path) -> None:
    diagnosis.save(tmp_path)
    spoil(tmp_path / "diagnosis.json")
    with pytest.raises(ConfigError, match=said):
        Diagnosis.read(tmp_path)


def test_no_run_is_written_over(diagnosis: Diagnosis, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run; save the diagnosis in a directory of its own"):
        diagnosis.save(tmp_path)


# what it holds


def test_a_replica_that_died_has_its_place(diagnosis: Diagnosis) -> None:
    assert diagnosis.alive.tolist() == [True, False, True] and diagnosis.n_replicas == 3
    for layer in diagnosis.layers:
        assert (layer.verdict[1] == FAILED).all() and np.isnan(layer.interval("rate_nats")[1]).all()
        assert np.isfinite(layer.interval("rate_nats")[[0, 2]]).all()
    assert np.isnan(diagnosis.active_layers[1]) and "failed, seed 5: Stopped, and not measured." in map(
        str, diagnosis.doubts
    )
    stored = to_arrays(diagnosis)
    assert stored["likelihood"]["warning"][1] == stored["exact"]["refused"][1] == FAILED


def test_equal_models_have_equal_numbers_and_what_was_refused_says_why(diagnosis: Diagnosis) -> None:
    for layer in diagnosis.layers:
        for values in (*layer.intervals.values(), *layer.unit_intervals.values()):
            np.testing.assert_array_equal(values[0], values[2])
    assert "needs the objective that training followed" in diagnosis.not_measured["gradients", ""]


# how it is shown


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_prints_within_its_width_and_the_answer_stands_last(diagnosis: Diagnosis, width: int) -> None:
    lines = diagnosis.to_text(width).splitlines()
    assert max(map(len, lines)) <= width
    said = " ".join(lines)
    assert said.index("verdict") < said.index("at thresholds from") < said.index("log p(x) is on average at least")
    assert " nats (L_20 = " in said
    assert "2 of 3 replicas" in said and f"rule {RULE}" in said and lines[0] == "mine"
    assert "z1" in said and "Doubt: " in said.partition("log p(x) is on average")[2]


def test_print_takes_the_width_of_the_terminal(diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert str(diagnosis) == diagnosis.to_text(70) != diagnosis.to_text(120)


def deep(n_layers: int) -> Diagnosis:
    """A ladder of many layers, of which the upper half has collapsed; no model stands behind it."""
    one = np.array([[0.4, 0.5, 0.6]])
    layers = tuple(
        Layer(
            f"z{index}",
            1000,
            verdict=np.array([["active" if active else "collapsed to N(0, I)"] * 3]),
            moved_share=np.array([[[0.9, 1.0, 1.0] if active else [0.0, 0.0, 0.0072]] * 3]),
            used_cap=np.full(1, np.log(65)),
            n_paths=np.array([512]),
            information_on_n=np.full(1, np.nan),
            event=None,
            collapsed_fraction=None,
            collapse_reference=None,
            marks=("",),
            intervals={key: one for key in ("used_nats", "information_nats", "kl_prior_nats", "rate_nats")},
            unit_intervals={},
            not_measured={},
        )
        for index, active in ((index, index <= n_layers // 2) for index in range(1, n_layers + 1))
    )
    return Diagnosis(
        layers, (0,), np.array([True]), np.array([-1]), ("",), None, (0.03, 0.1, 0.3), 512, "top-down", False, "x",
        np.zeros(0),
    )  # fmt: skip


def test_twenty_layers_are_answered_in_one_sentence() -> None:
    said = " ".join(deep(20).to_text(80).split())
    assert "z1 to z10 are active; z11 to z20 are collapsed to N(0, I), on at least 99 % of images." in said
    assert "The verdicts are the same at thresholds from 0.03 to 0.3 nats." in said
    assert max(map(len, deep(20).to_text(80).splitlines())) <= 80


def test_what_was_not_measured_is_said_where_a_verdict_needs_it() -> None:
    one = deep(2)
    why = {"used_nats": ("z2 has no sample.",), "reading_nats": ("no closed form.",)}
    layers = (one.layers[0], dataclasses.replace(one.layers[1], not_measured=why))
    said = " ".join(dataclasses.replace(one, layers=layers).to_text(80).split())
    assert "Not measured: V of z2. z2 has no sample." in said and "closed form" not in said


def test_a_notebook_gets_the_table_and_one_figure(diagnosis: Diagnosis) -> None:
    found = diagnosis._repr_html_()
    assert found.count("<table>") == 1 and found.count("<svg") == 1 and "<th>verdict</th>" in found
    assert "&" not in deep(1)._repr_html_() and "<script" not in found


def test_figures_by_name(diagnosis: Diagnosis) -> None:
    assert {"information", "likelihood", "gap-curves"} <= set(diagnosis.figures)
    assert "unit-rates" not in diagnosis.figures
    assert diagnosis.figure("rate").axes
    with pytest.raises(ConfigError, match="There is no figure 'rates'; there are information, rate"):
        diagnosis.figure("rates")
    with pytest.raises(ConfigError, match="No run has written rates per unit"):
        diagnosis.figure("unit-rates")


def test_the_page_stands_alone(diagnosis: Diagnosis, tmp_path: Path) -> None:
    page = diagnosis.report(tmp_path / "mine.html")
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text and "The gap" in text and [file.name for file in tmp_path.iterdir()] == ["mine.html"]


def test_a_data_frame_is_tidy(diagnosis: Diagnosis) -> None:
    frame = diagnosis.to_dataframe()
    assert list(frame.columns) == ["replica", "layer", "quantity", "low", "middle", "high", "unit"]
    picked = frame[(frame.layer == "z2") & (frame.quantity == "information_nats")].set_index("replica")
    np.testing.assert_array_equal(
        picked[["low", "middle", "high"]].to_numpy(), diagnosis.layers[1].interval("information_nats")
    )
    assert picked.index.tolist() == [3, 5, 7] and set(picked.unit) == {"nats"}
    assert not frame.duplicated(["replica", "layer", "quantity"]).any()
    assert frame.attrs["verdicts"]["z1"][1] == FAILED and frame.attrs["rule"] == RULE


def test_a_data_tree_has_a_group_for_every_layer(diagnosis: Diagnosis) -> None:
    tree = diagnosis.to_datatree()
    assert tree.groups == ("/", "/z1", "/z2", "/likelihood")
    found = tree["z2"].dataset["information_nats"].sel(replica=7, bound="middle").item()
    assert found == diagnosis.layers[1].interval("information_nats")[2, 1]
    assert tree["z1"].dataset["burda_variance"].dims == ("replica", "unit", "bound")
    assert tree["z1"].dataset["verdict"].sel(replica=5, epsilon=0.1).item() == FAILED
    assert tree["likelihood"].dataset["bound_nats"].sizes["n_samples"] == 3


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_dataframe"), ("xarray", "to_datatree")])
def test_a_package_that_is_missing_is_one_sentence(
    package: str, method: str, diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}; pip install 'hvae\[frames\]'\.$"):
        getattr(diagnosis, method)()


# like a run


def test_it_is_listed_shown_and_compared(
    saved: Path, diagnosis: Diagnosis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [found.label for found in find_saved(saved.parent)] == ["mine"]
    assert main(["list", "--runs-dir", str(saved.parent)]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "mine" in listed and f"({OUTSIDE})" in listed
    assert "z2" in verdict_text(saved) and "The gap between" in verdict_text(saved)
    other = dataclasses.replace(diagnosis, label="other").save(tmp_path / "other")
    assert main(["compare", str(saved), str(other)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a and b have no settings, as hvae did not train these models." in said and "L_20" in said
    assert main(["compare", str(saved), str(RELEASED / "binary-measured-further-568ea61e")]) == 0
    assert "do not compare: " in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigError, match="is not a run"):
        Run.open(saved)


def test_a_page_keeps_its_arrays(saved: Path, tmp_path: Path) -> None:
    write_kept(tmp_path, kept(open_study(saved)))
    (run,) = open_study(tmp_path).runs
    texts = [re.sub(r"(± \d+\.\d)\d", r"\1", verdict_text(place)) for place in (tmp_path, saved)]  # kept to 1/1024 nat
    assert run.config is None and texts[0] == texts[1]


@pytest.mark.slow
def test_the_command_reports_it_and_keeps_a_page(saved: Path, tmp_path: Path) -> None:
    assert main(["report", str(saved), "--to", str(tmp_path / "page")]) == 0
    assert (saved / "report.html").exists() and main(["report", str(tmp_path / "page")]) == 0
