"""The page of coverage: its truths by simulation that shares no code, and broken intervals that it must see."""

import math
from pathlib import Path

import numpy as np
import pytest

from hvae.experiments import truth
from hvae.experiments.truth import coverage
from hvae.experiments.truth.coverage_gaps import gap_coverage_rows
from hvae.experiments.truth.coverage_page import coverage_csv, coverage_page, read_rows, withheld
from hvae.experiments.truth.coverage_tables import coverage_summary, coverage_tables, failing
from hvae.experiments.truth.planted import PIXELS, STACKS, Planted
from hvae.experiments.truth.repeated import Effort
from hvae.experiments.truth.tally import STATEMENT, Tally
from hvae.numerics import FloatArray, mean_interval
from tests.statistics import assert_mean

SMALL = Effort(4, 1, 16)
CASES = [(stack, PIXELS[pixel]) for stack in STACKS[::4] for pixel in ("Gaussian", "5 % of images")]
TERMS = ("rate", "KL to N(0, I)", "U")
IDS = [f"{stack.inference}, {pixel.name}" for stack, pixel in CASES]


def quiet(_: str) -> None:
    return None


def log_normal(value: FloatArray, mean: FloatArray, variance: float) -> FloatArray:
    return -0.5 * (math.log(2 * math.pi * variance) + (value - mean) ** 2 / variance)


def simulated(stack: Planted, x: FloatArray, source: np.random.Generator) -> dict[str, FloatArray]:
    values = {"x": x}
    for name, link in stack.q.items():
        mean = sum(weight * values[parent] for parent, weight in link.weights.items())
        values[name] = mean + math.sqrt(link.variance) * source.normal(size=len(x))
    return values


@pytest.mark.parametrize(("stack", "pixel"), CASES, ids=IDS)
def test_truths_of_terms_are_means_over_a_simulation(stack: Planted, pixel: coverage.Pixel) -> None:
    source = np.random.default_rng(0)
    x = pixel.draw(source, 200_000)
    assert_mean(np.stack([x, x**2], 1), [0.0, 1.0], detect=0.3)
    values = simulated(stack, x, source)

    def log(links: object, name: str, at: dict[str, FloatArray]) -> FloatArray:
        link = links[name]  # type: ignore[index]
        mean = sum((weight * at[parent] for parent, weight in link.weights.items()), start=0.0 * x)
        return log_normal(at[name], mean, link.variance)

    for name in ("z1", "z2"):
        rate = log(stack.q, name, values) - log(stack.p, name, values)
        standard = log(stack.q, name, values) - log_normal(values[name], 0.0 * x, 1.0)
        child = "x" if name == "z1" else "z1"
        other = simulated(stack, pixel.draw(source, len(x)), source)[name]
        apart = stack.p[child].weights[name] * (values[name] - other)
        means = values[name] - sum(weight * values[p] for p, weight in stack.q[name].weights.items())
        found = np.stack([rate, standard, apart**2 / (2 * stack.p[child].variance), means**2], 1)
        expected = np.array([*(stack.truth(name, what, pixel) for what in TERMS), stack.q[name].variance])
        assert_mean(found / (1 + abs(expected)), expected / (1 + abs(expected)), detect=0.15)


@pytest.mark.parametrize(("stack", "pixel"), CASES, ids=IDS)
def test_knock_outs_are_what_a_simulation_loses(stack: Planted, pixel: coverage.Pixel) -> None:
    source = np.random.default_rng(1)
    x = pixel.draw(source, 200_000)
    values, order = simulated(stack, x, source), tuple(stack.q)

    def elbo(kept: tuple[str, ...]) -> FloatArray:
        at, bound = {"x": x, **{name: values[name] for name in kept}}, 0.0 * x
        for name in ("z2", "z1", "x"):
            link = stack.p[name]
            mean = sum((weight * at[parent] for parent, weight in link.weights.items()), start=0.0 * x)
            if name in at:
                bound = bound + log_normal(at[name], mean, link.variance)
            else:
                at[name] = mean + math.sqrt(link.variance) * source.normal(size=len(x))
        for name in kept:
            mean = sum(weight * at[parent] for parent, weight in stack.q[name].weights.items())
            bound = bound - log_normal(at[name], mean, stack.q[name].variance)
        return bound

    for place, name in enumerate(order):
        assert_mean(elbo(order) - elbo(order[:place]), stack.truth(name, "encoder knock-out", pixel), detect=0.5)


def test_information_of_a_gaussian_and_of_two_values() -> None:
    for snr in (0.01, 0.3, 5.0):
        assert PIXELS["Gaussian"].information(snr) == pytest.approx(math.log1p(snr) / 2, abs=1e-6)
    entropy = -0.05 * math.log(0.05) - 0.95 * math.log(0.95)
    assert PIXELS["5 % of images"].information(1e4) == pytest.approx(entropy, abs=1e-6)
    heavy = [PIXELS["heavy tails"].information(snr) for snr in (1e-3, 1.0)]
    assert heavy[0] == pytest.approx(0.5e-3, rel=0.02) and heavy[1] < math.log(2) / 2  # a Gaussian says most


@pytest.mark.parametrize("stack", [stack for stack in STACKS if stack.name == "above"], ids=lambda s: s.inference)
def test_information_is_the_mean_log_ratio_of_listed_densities(stack: Planted) -> None:
    """Two values of x: q(z1, z2 | x) and its mixture written out as densities of two variables."""
    pixel, source = PIXELS["5 % of images"], np.random.default_rng(2)
    (low, high), (often, rare) = pixel.nodes()
    x = pixel.draw(source, 200_000)
    values = simulated(stack, x, source)

    def moments(at: float) -> tuple[FloatArray, FloatArray]:
        many = simulated(stack, np.full(2, at), _Silent())  # means alone
        loading, noise = np.zeros((2, 2)), np.zeros(2)
        for place, link in enumerate(stack.q.values()):
            loading[place] = sum(link.weights.get(p, 0.0) * loading[k] for k, p in enumerate(list(stack.q)[:place]))
            loading[place, place], noise[place] = 1.0, link.variance
        names = list(stack.q)
        return np.array([many[name][0] for name in names]), (loading * noise) @ loading.T

    drawn = np.stack([values[name] for name in stack.q], 1)

    def density(columns: list[int], at: float) -> FloatArray:
        mean, covariance = moments(at)
        off, part = drawn[:, columns] - mean[columns], covariance[np.ix_(columns, columns)]
        return np.exp(-0.5 * (off @ np.linalg.inv(part) * off).sum(1)) / np.sqrt(np.linalg.det(2 * math.pi * part))

    def told(columns: list[int]) -> FloatArray:
        two = np.stack([density(columns, low), density(columns, high)], 1)
        return np.log(np.where(x > 0, two[:, 1], two[:, 0]) / (two @ np.array([often, rare])))

    order = list(stack.q)
    first, second = told([0]), told([1]) if stack.z1_first else told([0, 1]) - told([0])
    assert_mean(np.stack([first, second], 1), [stack.truth(name, "I", pixel) for name in order], detect=0.02)


class _Silent(np.random.Generator):
    """Draws that are 0."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64())

    def normal(self, *, size: int) -> FloatArray:  # type: ignore[override]
        return np.zeros(size)


CELL = [(STACKS[0], PIXELS["Gaussian"], 100)]


def found(interval: coverage.Interval, repetitions: int = 60) -> coverage.Arrays:
    return coverage.coverage_rows(CELL, SMALL, repetitions, quiet, interval)


def test_the_products_interval_passes_and_a_narrow_one_is_seen() -> None:
    """Sixty repetitions: an interval of 95 % fails with chance 1e-3 at most, one of 49 % passes with 1e-6."""

    def narrow(values: FloatArray, *, clusters: FloatArray | None = None) -> FloatArray:
        ends = mean_interval(values, clusters=clusters)
        return ends[..., 1:2] + (ends - ends[..., 1:2]) / 3

    for interval, fails in ((mean_interval, False), (narrow, True)):
        rows = found(interval)
        seen = dict(zip(zip(rows["layer"], rows["quantity"], strict=True), failing(rows), strict=True))
        for layer in ("z1", "z2"):
            for quantity in ("rate", "KL to N(0, I)", "U", "encoder knock-out"):
                assert seen[layer, quantity] == fails, (layer, quantity)
        assert not any(seen[layer, quantity] for layer in ("z1", "z2") for quantity in ("I", "J", "twins"))


def test_an_end_that_is_surely_wrong_is_counted() -> None:
    """z1 says .12 nats. Ends a nat too low are all surely below; a V a nat too high makes "active" of unread layers."""
    rows = found(lambda values, clusters=None: mean_interval(values, clusters=clusters) - 1.0, 5)
    at = (rows["layer"] == "z1") & (rows["quantity"] == "KL to N(0, I)")
    assert rows["falsely_below"][at].tolist() == [1.0] and rows["high_too_low"][at].tolist() == [1.0]
    below = [(STACKS[1], PIXELS["Gaussian"], 100)]
    raised = coverage.coverage_rows(
        below, SMALL, 5, quiet, lambda values, clusters=None: mean_interval(values, clusters=clusters) + 1.0
    )
    at = (raised["layer"] == "z1") & (raised["quantity"] == "active")
    assert raised["falsely_above"][at].tolist() == [1.0] and failing(raised)[at].all()


def test_statements_are_those_of_the_rule() -> None:
    """Clear layers are called active; below 20 images nothing is said; noise only is not said of 100."""
    said = {}
    for stack, n in ((STACKS[2], 100), (STACKS[2], 18), (STACKS[3], 100), (STACKS[1], 100)):
        rows = coverage.coverage_rows([(stack, PIXELS["Gaussian"], n)], SMALL, 4, quiet)
        at = rows["covers"] == STATEMENT
        for layer, quantity, share in zip(rows["layer"][at], rows["quantity"][at], rows["covered"][at], strict=True):
            said[stack.name, n, layer, quantity] = share
    assert said["clear", 100, "z1", "active"] == 1.0
    assert not any(share for (name, n, *_), share in said.items() if (name, n) == ("clear", 18))
    assert not any(share for (*_, word), share in said.items() if word == "codes noise only")
    assert said["below", 100, "z1", "collapsed"] == 0.0  # most images are beyond 0.1 nats of it: its mean is not


def test_refused_intervals_are_counted_apart() -> None:
    tally = Tally("gap", 0.2)
    tally.add(np.array([[np.nan, np.nan], [0.1, 0.3], [0.3, 0.4]]))
    row = tally.row()
    assert (row["refused"], row["repetitions"], row["covered"], row["low_too_high"]) == (1, 2, 0.5, 0.5)
    nothing = Tally("gap", 0.2)
    nothing.add(np.full((2, 2), np.nan))
    assert nothing.row()["repetitions"] == 0 and math.isnan(nothing.row()["covered"])


def test_tables_of_seeds_and_images_hold() -> None:
    rows = coverage.crossed_rows([PIXELS["Gaussian"]], [50], 200, quiet)
    assert (rows["covered"] >= 0.88).all() and not failing(rows).any()  # of 95 %: a false alarm of 1e-4


def test_gaps_and_annealed_bounds_have_rows() -> None:
    rows = gap_coverage_rows([PIXELS["Gaussian"]], [10], 100, 20, quiet)
    assert rows["quantity"].tolist() == ["gap", "gap", "annealed bound"]
    assert (rows["covered"] >= 0.7).all()


def test_the_page_names_what_fails() -> None:
    rows = found(mean_interval, 40)
    at = (rows["layer"] == "z2") & (rows["quantity"] == "I")
    rows["covered"][at] = 0.5
    (sentence,) = coverage_summary(rows)
    assert "I (Gaussian)" in sentence and "40 repetitions" in sentence
    tables = coverage_tables(rows)
    assert "50.0" in tables["Lowest coverage from 100 images on"].to_text()
    assert [table.columns[-1].name for table in tables.values()] == ["Gaussian", *["n = 100"] * 3]


RESULTS = Path(truth.__file__).parents[1] / "results" / "truth"


def test_the_page_of_results_is_made_of_its_table() -> None:
    table = (RESULTS / "tables" / "accuracy-coverage.csv").read_text(encoding="utf-8")
    assert coverage_csv(read_rows(table)) == table
    page = coverage_page(read_rows(table), coverage.MADE_WITH)
    assert page == (RESULTS / "coverage.md").read_text(encoding="utf-8")


def test_the_table_of_results_has_every_part_of_the_preset() -> None:
    rows = read_rows((RESULTS / "tables" / "accuracy-coverage.csv").read_text(encoding="utf-8"))
    knobs = truth.COVERAGE["cpu"]
    assert set((rows["repetitions"] + rows["refused"]).tolist()) == {knobs["repetitions"]}
    keys = ("inference", "stack", "pixel", "n")
    seen = set(zip(*(rows[key].tolist() for key in keys), strict=True))
    planted = {cell for cell in seen if cell[1] not in ("known", "tables")}
    assert len(planted) == len(coverage.parts(**knobs, say=quiet)) - 2
    assert {"gap", "annealed bound", "L over seeds"} <= set(rows["quantity"].tolist())


def test_the_summary_says_what_the_table_says() -> None:
    rows = read_rows((RESULTS / "tables" / "accuracy-coverage.csv").read_text(encoding="utf-8"))
    summary = " ".join((RESULTS / "summary.md").read_text(encoding="utf-8").split())
    assert coverage_summary(rows)[0] in summary


def test_sentences_of_what_is_withheld_follow_the_rows() -> None:
    rows = read_rows((RESULTS / "tables" / "accuracy-coverage.csv").read_text(encoding="utf-8"))
    at = (rows["quantity"] == "active") & rows["counted"]
    rows["falsely_above"][np.flatnonzero(at)[0]] = 0.777
    (line,) = (line for line in withheld(rows) if "*Active*" in line)
    assert "77.7 %" in line


def test_the_command_makes_page_and_table_and_skips_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = {**truth.COVERAGE["demo"], "repetitions": 2, "cells": ((("unread",), ("Gaussian",), (20,)),)}
    monkeypatch.setattr(truth, "COVERAGE", {"demo": demo})
    coverage.main([str(tmp_path / "rows"), "--preset", "demo", "--to", str(tmp_path)])
    assert "coverage of bottom-up, unread, Gaussian, n = 20" in capsys.readouterr().out
    page = (tmp_path / "coverage.md").read_bytes()
    table = (tmp_path / "tables" / "accuracy-coverage.csv").read_text(encoding="utf-8")
    assert page.decode() == coverage_page(read_rows(table), coverage.MADE_WITH)
    coverage.main([str(tmp_path / "rows"), "--preset", "demo", "--to", str(tmp_path)])
    assert not capsys.readouterr().out and (tmp_path / "coverage.md").read_bytes() == page
