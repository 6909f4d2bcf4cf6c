"""The page, the terminal tables and the files beside them."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.load import load_runs
from hvae.analysis.report import compare_text, verdict_text, write_experiment_report
from hvae.analysis.study import open_study
from hvae.analysis.summary import summary
from hvae.analysis.tables.likelihood import bad_share
from hvae.analysis.tables.table import interval_text
from hvae.analysis.tables.verdict import active_text, details
from hvae.certain import crossed_interval
from hvae.errors import ConfigError
from hvae.experiments.depth import configs
from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run
from tests.analysis.fabricate import fabricate, images


class Page(HTMLParser):
    """What a browser would load, run and list."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "poster", "action"):
                self.loaded.append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def page(depth_directory: Path) -> str:
    return write_experiment_report(depth_directory).read_text(encoding="utf-8")


def test_page_is_self_contained(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in parsed.loaded)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_page_has_no_identifier_twice_and_no_dead_link(page: str) -> None:
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {target[1:] for target in parsed.loaded if target.startswith("#")} <= set(parsed.ids)


def test_page_follows_its_order(page: str) -> None:
    order = [
        "question",
        "verdict",
        "legend",
        "figures",
        "likelihood",
        "claims",
        "details",
        "configuration",
        "provenance",
    ]
    places = [page.index(f'<h1 id="{order[0]}"'), *(page.index(f'<h2 id="{name}"') for name in order[1:])]
    assert places == sorted(places)


def test_page_states_the_counts_and_the_outcomes(page: str) -> None:
    assert page.count("collapsed 4/4") > 5
    assert "z3 to z5 collapsed in 4 of 4 replicas" in page
    assert "Sønderby" in page
    for outcome in ("supported", "undecided"):
        assert f">{outcome}</td>" in page
    assert "Pareto k-hat exceeds 0.7" in page
    card = "digits-threshold: 1297 training and 500 test images of 8 x 8, 0/1, 30 % of them 1. 3 of 64 columns are "
    assert page.count(card) == 1 and '<a href="#data">' in page  # the same for all runs


def test_files_beside_the_page(page: str, depth_directory: Path) -> None:
    tables = depth_directory / "tables"
    rows = list(csv.DictReader((tables / "verdict.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 4 * (3 * 1 + 4 * (2 + 3 + 5))
    run = next(run for run in load_runs(depth_directory) if run.label == "depth-5 ladder+WU")
    row = next(row for row in rows if (row["run"], row["layer"], row["seed"]) == (run.label, "z3", "2"))
    assert float(row["information_nats_high"]) == pytest.approx(
        run.layers[2].interval("information_nats")[2, 2], rel=1e-5
    )
    assert row["verdict"] == "active"
    bounds = list(csv.DictReader((tables / "likelihood.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["n_samples"] for row in bounds} == {"1", "10", "100", "500", "floor"}
    decisions = json.loads((tables / "claims.json").read_text(encoding="utf-8"))
    assert decisions[0]["criterion"] == "below 0.1 nats"
    assert (depth_directory / "figures" / "information.svg").read_text(encoding="utf-8").startswith("<svg")


def only_images(root: Path, label: str) -> Run:
    """A run of which nothing but a resampling grid can be shown: quick to draw, label included."""
    config = configs("demo")["depth-2 bottom-up"]
    run = Run.create_or_open(root, "train", label, config)
    run.save_arrays("images", images(config, np.random.default_rng(0)))
    return run


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = only_images(tmp_path, "again")

    def written() -> str:
        return re.sub(r"written [^<]*", "", write_experiment_report(run.path).read_text(encoding="utf-8"))

    assert written() == written()


def test_labels_are_escaped(tmp_path: Path) -> None:
    run = only_images(tmp_path, "<script>alert(1)<b> & co")
    text = write_experiment_report(run.path).read_text(encoding="utf-8")
    parsed = Page(text)
    assert "script" not in parsed.tags and "b" not in parsed.tags
    assert text.count("&lt;script&gt;alert(1)&lt;b&gt; &amp; co") > 3
    assert "<figure" in text


def test_one_run_has_a_page_without_claims(tmp_path: Path) -> None:
    (run,) = fabricate(tmp_path, {"my stack": configs("demo")["depth-3 ladder+WU"]}, experiment="train", failed=2)
    text = write_experiment_report(run.path).read_text(encoding="utf-8")
    assert 'id="claims"' not in text
    assert "failed 1/4" in text
    assert "nan" not in re.sub(r"<svg.*?</svg>|<img[^>]*>", "", text, flags=re.DOTALL).lower().split()


def test_a_failed_replica_says_where(tmp_path: Path) -> None:
    (run,) = fabricate(tmp_path, {"my stack": configs("demo")["depth-2 bottom-up"]}, experiment="train", failed=3)
    sentence = "Failed: my stack, seed 3 stopped at step 120 in the rate of z1."
    assert sentence in write_experiment_report(run.path).read_text(encoding="utf-8")
    assert sentence in verdict_text(run.path)


def measured_at(run: Run, step: int) -> None:
    run.save_arrays("diagnostics", {**run.load_arrays("diagnostics"), "step": np.array(step)})


def test_a_run_measured_early_is_marked(tmp_path: Path) -> None:
    labels = ("depth-1", "depth-2 bottom-up")
    first, second = fabricate(tmp_path, {label: configs("demo")[label] for label in labels})
    measured_at(second, 600)
    sentence = "* Measured before the last step: depth-2 bottom-up measured at step 600 of 1000."
    for path in (tmp_path / "depth", second.path):
        text = verdict_text(path)
        assert sentence in text and "depth-2 bottom-up *" in text
    page = write_experiment_report(tmp_path / "depth").read_text(encoding="utf-8")
    assert sentence in page and page.count(">depth-2 bottom-up *</td>") == 3 and "depth-1 *" not in page
    assert ">not measured</td>" in page and ">supported</td>" not in page
    assert "measured at step 600 of 1000" in compare_text(first.path, second.path)


def test_arrays_of_before_say_nothing_of_steps(tmp_path: Path) -> None:
    older = ("step", "died_at", "culprit", "information_on_n")
    (run,) = fabricate(tmp_path, {"depth-1": configs("demo")["depth-1"]}, failed=1, drop=older)
    assert open_study(run.path).notes == ()


def test_details_show_both_counts_and_the_mismatch(depth_directory: Path) -> None:
    run = next(run for run in load_runs(depth_directory) if run.label == "depth-3 ladder+WU")
    layer = run.layers[2]
    units = dict(layer.unit_intervals)
    units["residual_variance"], units["burda_variance"] = (
        np.where(np.arange(8)[None, :, None] < n, 1.0, 0.0) * np.ones((4, 1, 3)) for n in (3, 8)
    )
    words = np.full((4, 3), "collapsed to a constant")
    nats = {**layer.intervals, "kl_prior_nats": np.full((4, 3), 0.42)}
    layer = dataclasses.replace(layer, unit_intervals=units, verdict=words, intervals=nats)
    assert active_text(layer) == "residual 3, Burda 8 of 8"
    table = details([run.with_measured(layers=(layer,))])
    shown = table.rows[0][3].text.replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "collapsed to a constant 4/4 (0.42 nats from its prior)"
    assert "KL to prior" in [column.name for column in table.columns]


@pytest.mark.parametrize(
    ("nats", "text"), [(0.5, "0.50 [0.50, 0.50]"), (12.34, "12.3 [12.3, 12.3]"), (4711.2, "4711 [4711, 4711]")]
)
def test_decimals_shrink_with_the_number(nats: float, text: str) -> None:
    assert interval_text(np.full((2, 3), nats)).replace("\N{NO-BREAK SPACE}", " ") == text


def test_an_infinite_k_hat_is_high(depth_directory: Path) -> None:
    likelihood = load_runs(depth_directory)[0].likelihood
    assert likelihood is not None
    pareto_k = np.array([[0.1, np.inf, np.nan, 0.2]])
    assert bad_share(dataclasses.replace(likelihood, pareto_k=pareto_k)) == pytest.approx(1 / 3)


def test_unfinished_run_has_a_page(tmp_path: Path) -> None:
    run = Run.create_or_open(tmp_path, "train", "new", RunConfig())
    text = write_experiment_report(run.path).read_text(encoding="utf-8")
    assert "Nothing is measured yet." in text
    assert "not measured" in verdict_text(run.path)
    assert "<figure" not in text


def test_terminal_table_of_an_experiment(depth_directory: Path) -> None:
    text = verdict_text(depth_directory)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("depth-") for line in lines) == 15
    (deepest,) = (line for line in lines if line.startswith("depth-5 bottom-up "))
    assert deepest.count("act 4") == 2 and deepest.count("col 4") == 3
    (bottom_up,) = (run for run in load_runs(depth_directory) if run.title == "depth-5 bottom-up")
    assert bottom_up.likelihood is not None
    low, middle, high = crossed_interval(bottom_up.likelihood.bound_datum_nats)
    bound = f"{middle:.2f} ± {max(middle - low, high - middle):.2f}"
    low, middle, high = crossed_interval(bottom_up.gained_nats)  # planted: half a nat, at beta 1
    assert deepest.endswith(f"{bound}  1  {middle:.2f} ± {max(middle - low, high - middle):.2f}") and low < 0.5 < high
    assert "Claims" in text and "  collapsed (col)  " in text


def test_terminal_table_stays_narrow_when_replicas_differ(tmp_path: Path) -> None:
    runs = fabricate(tmp_path, {label: c for label, c in configs("demo").items() if label.startswith("depth-5")})
    words = np.array(["active", "undecided", "collapsed to a constant", "coded but unread"])
    for run in runs:
        arrays = run.load_arrays("diagnostics")
        arrays |= {key: np.tile(words[:, None], 3) for key in arrays if key.startswith("verdict/")}
        run.save_arrays("diagnostics", arrays)
    assert max(map(len, verdict_text(tmp_path / "depth").splitlines())) <= 100


@pytest.mark.parametrize("n_replicas", [1, 4])
def test_terminal_table_of_a_run(tmp_path: Path, n_replicas: int) -> None:
    (run,) = fabricate(tmp_path, {"depth-5 bottom-up": configs("demo")["depth-5 bottom-up"]}, n_replicas=n_replicas)
    text = verdict_text(run.path)
    assert max(map(len, text.splitlines())) <= 100
    assert f"collapsed to N(0, I) {n_replicas}/{n_replicas}" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "L_500" in text


def test_compare_names_settings_and_pairs_seeds(depth_directory: Path) -> None:
    runs = {run.label: run for run in load_runs(depth_directory)}
    text = compare_text(runs["depth-5 bottom-up"].path, runs["depth-5 ladder+WU"].path)
    assert "  a: --model.order bottom-up\n  b: --model.order top-down\n" in text
    assert "paired by seed" in text
    assert "different quantities" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "The settings are the same." in compare_text(runs["depth-1"].path, runs["depth-1"].path)


def test_bounds_on_other_data_are_not_compared(tmp_path: Path) -> None:
    config = configs("demo")["depth-1"]
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, name="mnist-dynamic"))
    fabricate(tmp_path, {"one": config, "two": other})
    (tmp_path / "depth").rename(tmp_path / "own")
    one, two = (run.path for run in load_runs(tmp_path / "own"))
    assert "ELBO  " in compare_text(one, one)
    text = compare_text(one, two)
    assert "ELBO and L_K are left out, since they do not compare" in text and "ELBO  " not in text
    (_, sentence) = summary(open_study(tmp_path / "own"))
    assert sentence.startswith("The bounds of these runs compare only where data and distribution of x are the same")


def test_compare_wants_single_runs(depth_directory: Path) -> None:
    with pytest.raises(ConfigError, match="holds 15 runs"):
        compare_text(depth_directory, depth_directory)


def test_empty_directory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        verdict_text(tmp_path)


def test_one_preset_is_shown_and_the_rest_mentioned(tmp_path: Path) -> None:
    fabricate(tmp_path, {"depth-1": configs("cpu")["depth-1"]})
    demo = configs("demo")
    fabricate(tmp_path, {label: demo[label] for label in ("depth-1", "depth-2 bottom-up")})
    study = open_study(tmp_path / "depth")
    assert (study.preset, len(study.runs)) == ("demo", 2)
    assert study.notes == (
        "1 other run is in this directory (another preset, older settings or a copy) and not shown here.",
    )
    assert open_study(tmp_path / "depth", preset="cpu").runs[0].config == configs("cpu")["depth-1"]
    with pytest.raises(ConfigError, match="preset 'paper'"):
        open_study(tmp_path / "depth", preset="paper")


def test_older_settings_of_a_label_give_way(tmp_path: Path) -> None:
    config = configs("demo")["depth-1"]
    older = dataclasses.replace(config, training=dataclasses.replace(config.training, n_steps=7))
    fabricate(tmp_path, {"same": older}, experiment="unknown")
    fabricate(tmp_path, {"same": config, "other": configs("demo")["depth-2 bottom-up"]}, experiment="unknown")
    study = open_study(tmp_path / "unknown")
    assert {run.config.training.n_steps for run in study.runs} == {1000}
    assert study.claims == ()


def test_analysis_and_experiments_never_import_torch() -> None:
    code = "import sys, hvae.analysis.report, hvae.experiments.depth; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
