"""Which bound on log p(x) a claim reads, and that its words say so."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvae.analysis.claims import Decision, decide
from hvae.analysis.load import LoadedRun, by_label, load_runs
from hvae.analysis.measures import BOUND, elbo, importance_bound, least_gap, likelihood
from hvae.analysis.samples import NotMeasuredError, of_difference
from hvae.analysis.study import open_study
from hvae.lab import experiment
from tests.analysis.fabricate import fabricate

IMPORTANCE = re.compile(r"\bL_(K|5000)\b")
WITH_BOUNDS = [
    name
    for name in experiment.names()
    if any(
        BOUND in claim.quantity or IMPORTANCE.search(claim.quantity)
        for claim in getattr(experiment.find(name), "claims", ())
        if claim.reads == "runs"
    )
]


def reached(run: LoadedRun, more_nats: float) -> LoadedRun:
    """The run with the bound of the cheapest methods, so much above its L_K."""
    found = run.likelihood
    assert found is not None
    best = replace(
        found,
        until_se=0.1,
        log_px_nats=found.best + more_nats,
        log_px_datum_nats=found.bound_datum_nats + more_nats,
    )
    return run.with_measured(likelihood=best)


@pytest.fixture
def depth_runs(tmp_path: Path) -> Mapping[str, LoadedRun]:
    configs = experiment.find("depth").configs("demo")
    fabricate(tmp_path, {label: configs[label] for label in ("depth-1", "depth-1+WU")})
    return by_label(load_runs(tmp_path / "depth"))


def test_a_claim_of_our_own_reads_the_number_that_the_tables_show(depth_runs: Mapping[str, LoadedRun]) -> None:
    best = {label: reached(run, 1.25) for label, run in depth_runs.items()}
    shown, curve = likelihood(best, "depth-1").values, importance_bound(best, "depth-1").values
    np.testing.assert_allclose(shown, curve + 1.25)
    run = best["depth-1"].likelihood
    assert run is not None and run.shown_as == "log p(x)"
    np.testing.assert_array_equal(shown, run.shown_datum_nats)
    np.testing.assert_allclose(least_gap(best, "depth-1").values, shown - elbo(best, "depth-1").values)


def test_different_bounds_are_never_held_against_each_other(depth_runs: Mapping[str, LoadedRun]) -> None:
    mixed = {**depth_runs, "depth-1": reached(depth_runs["depth-1"], 1.25)}
    with pytest.raises(NotMeasuredError, match="different bounds"):
        of_difference(likelihood(mixed, "depth-1"), likelihood(mixed, "depth-1+WU"))


@pytest.mark.parametrize("name", WITH_BOUNDS)
def test_the_words_of_a_claim_name_the_bound_that_it_reads(name: str, tmp_path: Path) -> None:
    """A bound that lies above L_K, by another amount in every run, moves the claims that name it, and no other."""
    fabricate(tmp_path, experiment.find(name).configs("cpu"), experiment=name)
    study = open_study(tmp_path / name)
    runs = by_label(study.runs)
    raised = {label: reached(run, 1.0 + 0.37 * place**2) for place, (label, run) in enumerate(runs.items())}

    def decided(of: Mapping[str, LoadedRun]) -> dict[tuple[str, str], Decision]:
        return {(c.statement, c.quantity): decide(c, of, study.measured) for c in study.claims}

    before, after = decided(runs), decided(raised)
    seen = set()
    for (statement, quantity), decision in before.items():
        if decision.outcome == "not measured":
            continue
        moved = not np.allclose(decision.middle, after[statement, quantity].middle)
        assert moved == (BOUND in quantity), f"{statement} ({quantity})"
        seen |= {moved} if BOUND in quantity or IMPORTANCE.search(quantity) else set()
    assert seen, "no claim on a bound was measured"
