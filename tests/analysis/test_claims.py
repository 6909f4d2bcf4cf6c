"""Claims: the intervals against numbers worked out elsewhere, and a case for each outcome."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from hvae.analysis.claims import (
    Claim,
    Decision,
    NotMeasuredError,
    Relation,
    Sample,
    decide,
    decide_all,
    find_part,
    outcome,
    per_replica,
    single,
)
from hvae.analysis.load import LoadedRun, by_label
from hvae.analysis.samples import t_interval, welch_interval
from hvae.analysis.study import Study
from hvae.experiments import depth

SEEDS = (0, 1, 2, 3)
SLEEP = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
"""Student's own data (1908): extra hours of sleep, first drug; R: t.test(sleep$extra[1:10])."""


def made(first: Sample, second: Sample | None = None, relation: Relation = "above", margin: float = 0.5) -> Decision:
    claim = Claim("s", "source", "q", lambda runs: (first, second), relation, margin)
    return decide(claim, {}, {})


def test_t_interval_of_students_sleep_data() -> None:
    low, mean, high = t_interval(SLEEP)
    assert mean == pytest.approx(0.75)
    assert (low, high) == pytest.approx((-0.5297804, 2.0297804), abs=1e-7)


def test_welch_interval_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 5), rng.normal(0, 3, 9)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    low, middle, high = welch_interval(first, second)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert middle == pytest.approx(first.mean() - second.mean())


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("above", 0.6, 0.9, "supported"),
        ("above", 0.4, 0.9, "undecided"),
        ("above", 0.1, 0.5, "not supported"),
        ("below", 0.1, 0.4, "supported"),
        ("below", 0.1, 0.6, "undecided"),
        ("below", 0.5, 0.6, "not supported"),
        ("within", -0.4, 0.4, "supported"),
        ("within", -0.6, 0.4, "undecided"),
        ("within", 0.5, 0.9, "not supported"),
        ("within", -0.9, -0.5, "not supported"),
        ("above", float("nan"), float("nan"), "undecided"),
    ],
)
def test_outcome(relation: Relation, low: float, high: float, expected: str) -> None:
    assert outcome(relation, 0.5, low, high) == expected


def test_replicas_that_share_seeds_are_paired() -> None:
    """The spread between seeds is large, the difference is not: only pairing sees it."""
    base = np.array([0.0, 10.0, 20.0, 30.0])
    first, second = base + np.array([1.0, 1.1, 0.9, 1.0]), base
    paired = made(Sample(first, SEEDS), Sample(second, SEEDS))
    unpaired = made(Sample(first, SEEDS), Sample(second, (4, 5, 6, 7)))
    assert (paired.outcome, unpaired.outcome) == ("supported", "undecided")
    assert "paired by seed" in paired.how and "unpaired" in unpaired.how


def test_failed_replicas_are_left_out_and_said_to_be() -> None:
    decision = made(Sample(np.array([1.0, np.nan, 1.1, 0.9]), SEEDS))
    assert decision.n_replicas == 3
    assert "1 seed without a number left out" in decision.how


def test_one_replica_decides_nothing() -> None:
    decision = made(Sample(np.array([9.0]), (0,)))
    assert decision.outcome == "undecided"
    assert "two are needed" in decision.how


def test_what_stands_for_all_claims_together_is_holms_rule() -> None:
    """Against p-values of two-sided t-tests that are ordered and compared one by one."""
    source = np.random.default_rng(3)
    n_differ = 0
    for _ in range(40):
        samples = [source.normal(loc, 1.0, 5) for loc in source.choice([0.0, 1.0, 2.0, 4.0, 8.0], size=9)]
        every = [
            Claim(str(place), "source", "q", lambda runs, x=x: (Sample(x, tuple(range(5))), None), "above", 0.5)
            for place, x in enumerate(samples)
        ]
        p = np.array([stats.ttest_1samp(x, 0.5).pvalue for x in samples])
        stand, order = np.zeros(9, bool), np.argsort(p)
        for rank, place in enumerate(order):
            if p[place] > 0.05 / (9 - rank):
                break
            stand[place] = True
        found = decide_all(every, {}, {})
        assert [decision.together for decision in found] == stand.tolist()
        assert [decision.outcome != "undecided" for decision in found] == (p <= 0.05).tolist()
        assert [decision.alone for decision in found] == ((p <= 0.05) & ~stand).tolist()
        n_differ += int(((p <= 0.05) & ~stand).sum())
    assert n_differ > 20


def test_what_is_not_measured_does_not_count_among_the_claims() -> None:
    def missing(runs: object) -> tuple[Sample, None]:
        raise NotMeasuredError("nothing")

    x = np.array([1.0, 1.6, 1.2, 1.4])  # p = 0.01
    lone = Claim("s", "source", "q", lambda runs: (Sample(x, SEEDS), None), "above", 0.5)
    absent = [Claim(str(place), "source", "q", missing, "above", 0.5) for place in range(50)]
    assert decide_all([lone, *absent], {}, {})[0].together
    assert decide_all([], {}, {}) == []


def test_missing_run_is_not_measured_with_the_reason() -> None:
    decision = decide(depth.claims[-1], {}, {})
    assert decision.outcome == "not measured"
    assert "depth-5 ladder+WU+BN" in decision.how


def test_missing_part_is_not_measured_with_the_reason() -> None:
    part = {"step": np.arange(3)}
    assert find_part({"here": part}, "here") is part
    with pytest.raises(NotMeasuredError, match="the part 'there' is not measured yet"):
        find_part({"here": part}, "there")


def test_the_largest_of_the_rows_of_each_replica() -> None:
    """Rows in any order; those to keep alone; a number of one sample has no second."""
    rows, values = {"replica": np.array([4, 2, 4, 2])}, np.array([1.0, 5.0, 3.0, -2.0])
    found = per_replica(rows, values)
    assert found.seeds == (2, 4) and found.values.tolist() == [5.0, 3.0]
    assert per_replica(rows, values, np.array([True, False, False, True])).values.tolist() == [-2.0, 1.0]
    with pytest.raises(NotMeasuredError, match="none of the settings"):
        per_replica(rows, values, np.zeros(4, bool))
    assert single(lambda rows: per_replica(rows, values))(rows)[1] is None


def test_depth_claims_on_fabricated_runs(depth_study: Study) -> None:
    """The fabricated stack collapses from layer 3 and the ladder holds more: the claims on that must come out so."""
    runs = by_label(depth_study.runs)
    decisions = [decide(claim, runs, {}) for claim in depth.claims]
    assert all(decision.n_replicas == 4 for decision in decisions)
    assert decisions[0].outcome == "supported"
    assert decisions[5].outcome == decisions[6].outcome == "supported"


def test_information_above_the_first_layer_is_on_the_same_n_images(depth_study: Study) -> None:
    runs = by_label(depth_study.runs)
    bottom_up, ladder = runs["depth-5 bottom-up"], runs["depth-5 ladder+WU"]
    held, most = depth.upper_information(runs, "depth-5 ladder+WU", "depth-5 bottom-up")
    np.testing.assert_allclose(held.values, sum(layer.information_on_n for layer in ladder.layers[1:]))
    np.testing.assert_array_equal(most.values, bottom_up.layers[1].interval("information_nats")[:, 2])


def with_upper(run: LoadedRun, nats: float) -> LoadedRun:
    """The run with `nats` on n images in z2, and none above."""
    seeds = 1 + 1e-4 * np.arange(run.n_replicas)
    values = {layer.name: (nats if layer.name == "z2" else 0.0) * seeds for layer in run.layers}
    layers = [
        dataclasses.replace(
            layer,
            information_on_n=values[layer.name],
            intervals={**layer.intervals, "information_nats": np.stack([values[layer.name]] * 3, axis=1)},
        )
        for layer in run.layers
    ]
    return run.with_measured(layers=tuple(layers))


def test_two_stacks_that_tell_all_images_apart_cannot_be_compared(depth_study: Study) -> None:
    runs = by_label(depth_study.runs)
    cap = np.log(500)
    for label, nats in (("depth-5 ladder+WU", cap + 0.01), ("depth-5 bottom-up+WU", cap - 0.05)):
        runs[label] = with_upper(runs[label], nats)
    decision = decide(depth.claims[5], runs, {})
    assert decision.outcome == "not measured"
    assert decision.how == "both saturate at log n = 6.21 nats: 500 images cannot tell"
    runs["depth-5 bottom-up+WU"] = with_upper(runs["depth-5 bottom-up+WU"], cap - 1.0)
    decision = decide(depth.claims[5], runs, {})
    assert (decision.outcome, decision.middle) == ("supported", pytest.approx(1.0, abs=0.01))


def test_older_arrays_have_no_information_on_n_images(depth_study: Study) -> None:
    runs = by_label(depth_study.runs)
    runs["depth-5 ladder+WU"] = with_upper(runs["depth-5 ladder+WU"], np.nan)
    decision = decide(depth.claims[5], runs, {})
    assert decision.outcome == "not measured" and "evaluate it again" in decision.how


def test_a_run_measured_early_is_refused(depth_study: Study) -> None:
    runs = by_label(depth_study.runs)
    for label in runs:
        runs[label] = runs[label].with_measured(step=400)
    decisions = [decide(claim, runs, {}) for claim in depth.claims]
    assert {decision.outcome for decision in decisions} == {"not measured"}
    assert all("was measured at step 400 of 1000" in decision.how for decision in decisions)
    runs = {label: run.with_measured(step=None) for label, run in runs.items()}
    assert decide(depth.claims[0], runs, {}).outcome == "supported"


def test_a_claim_needs_an_evaluated_run(depth_study: Study) -> None:
    run = depth_study.runs[0].with_measured(n_images=0)
    with pytest.raises(NotMeasuredError, match="not evaluated yet"):
        depth.likelihood({"depth-1": run}, "depth-1")
