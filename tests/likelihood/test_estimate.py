"""k-hat against published values, its sign, its degenerate cases; and what an estimate says of itself."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hvae.likelihood import Estimate
from hvae.likelihood.estimate import pareto_k, tail_length

# Proposals N(0, s^2) for N(0, 1) in three dimensions, 50,000 draws of generator 42: k-hat by Vehtari's own code,
# as NumPyro's test/infer/test_importance.py stores it.
PUBLISHED = {0.5: 0.9080815512205151, 0.7: 0.6371459500343336, 0.9: 0.27494481323913184, 0.99: 0.08018355166699344}


def proposal(scale: float, n_samples: int = 50_000) -> np.ndarray:
    z = np.random.default_rng(42).normal(0, scale, size=(n_samples, 3))
    return (z**2 / scale**2 - z**2).sum(1) / 2 + 3 * math.log(scale)


def k_hat(log_weight: np.ndarray) -> float:
    return float(pareto_k(log_weight[:, None], len(log_weight))[0])


def estimate(n_data: int = 100, **changes: object) -> Estimate:
    fields: dict[str, object] = {
        "log_px": np.linspace(-90, -80, n_data),
        "direction": "lower",
        "standard_error": np.full(n_data, 0.05),
        "ess": np.full(n_data, 300.0),
        "pareto_k": np.full(n_data, 0.3),
        "n_samples": 1000,
    }
    return Estimate(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", PUBLISHED)
def test_k_hat_equals_published_values(scale: float) -> None:
    assert k_hat(proposal(scale)) == pytest.approx(PUBLISHED[scale], abs=1e-3)


@pytest.mark.parametrize("scale", PUBLISHED)
def test_k_hat_needs_the_largest_weights_only(scale: float) -> None:
    log_weight = np.sort(proposal(scale))
    kept = log_weight[-tail_length(len(log_weight)) - 1 :]
    assert pareto_k(kept[:, None], len(log_weight))[0] == k_hat(log_weight)


def test_k_hat_reads_log_weights_and_not_their_negatives() -> None:
    """The two `psislw` of ArviZ take opposite signs; the wrong one reads heavy tails as excellent."""
    heavy = 0.7 * np.random.default_rng(0).exponential(size=20_000)  # Pareto weights of tail index 0.7
    assert k_hat(heavy) == pytest.approx(0.7, abs=0.1)
    assert k_hat(-heavy) < 0


def test_k_hat_of_equal_weights_is_undefined() -> None:
    assert math.isnan(k_hat(np.full(1000, -87.5)))
    rounding = 1e-5 * np.random.default_rng(0).uniform(size=1000)
    assert math.isnan(k_hat(rounding - 87.5))


def test_k_hat_is_fitted_to_the_weights_above_a_tie() -> None:
    """A tail that begins with ties reads as 0.05 if it is handed to arviz as it is."""
    heavy = np.sort(np.random.default_rng(0).exponential(size=60))
    tied = np.concatenate([np.full(940, -1.0), heavy])
    assert tail_length(1000) == 94
    assert k_hat(tied) > 0.5
    assert math.isnan(k_hat(np.concatenate([np.full(996, -1.0), heavy[:4]])))


@pytest.mark.parametrize("n_values", [2, 4, 5, 20, 46])
def test_k_hat_of_discrete_weights_is_undefined(n_values: int) -> None:
    """A tail of 94 draws with at most 46 different weights: no continuous distribution can be fitted to it."""
    draws = np.random.default_rng(0).integers(n_values, size=94)
    values = np.sort(np.random.default_rng(1).exponential(size=n_values))
    assert math.isnan(k_hat(np.concatenate([np.full(906, -1.0), values[draws]])))


def test_k_hat_bears_a_few_ties() -> None:
    """As log-weights in float32 have: rounded to 1e-3, fewer than half of the tail's draws meet another."""
    log_weight = proposal(0.7, 10_000)
    assert k_hat(log_weight.round(3)) == pytest.approx(k_hat(log_weight), abs=0.01)


@pytest.mark.parametrize("factor", [1.0, 1 + 1e-9])
def test_k_hat_where_a_candidate_of_the_fit_is_exactly_exponential(factor: float) -> None:
    """0/0 in the fit's formula at factor 1; it used to leave the prior alone, which is 0.19."""
    tail = np.concatenate([[0.1, 0.2, 0.3, factor / 3], np.linspace(0.4, 0.9, 11), [1.0]])
    log_weight = np.concatenate([np.full(64, -690.0), np.log(tail)])
    assert k_hat(log_weight) == pytest.approx(-0.3737, abs=1e-4)


@given(st.lists(st.integers(0, 6), min_size=25, max_size=400), st.floats(0.01, 200), st.floats(-800, 100))
def test_k_hat_of_any_grid_of_weights_warns_of_nothing(steps: list[int], scale: float, offset: float) -> None:
    """Weights of discrete latents lie on few values; a warning is an error here (pyproject.toml)."""
    found = k_hat(offset + scale * np.array(steps, dtype=float))
    assert math.isnan(found) or found == math.inf or -50 < found < 1000


def test_k_hat_at_the_edges() -> None:
    log_weight = proposal(0.9, 1000)
    assert math.isnan(k_hat(np.append(log_weight, math.nan)))
    assert math.isnan(k_hat(np.append(log_weight, math.inf)))
    some_zero = log_weight.copy()
    some_zero[np.argsort(log_weight)[:500]] = -math.inf
    assert k_hat(some_zero) == k_hat(log_weight)
    few = np.full(1000, -math.inf)
    few[:20] = log_weight[:20]
    assert k_hat(few) == math.inf
    assert math.isnan(k_hat(log_weight[:24]))
    assert math.isfinite(k_hat(log_weight[:25]))
    assert k_hat(log_weight - 700) == pytest.approx(k_hat(log_weight), abs=1e-3)


def test_k_hat_never_improves_as_weights_spread_beyond_what_exp_can_carry() -> None:
    spread = [k_hat(factor * proposal(0.9, 1000)) for factor in (1, 10, 100, 500, 700, 800, 1e3, 1e4, 1e6)]
    assert spread == sorted(spread)
    assert spread[4] > 80 and spread[-1] == math.inf
    assert k_hat(np.full(1000, -math.inf)) == math.inf


def test_the_limit_of_k_hat() -> None:
    assert estimate(n_samples=100).largest_pareto_k == 0.5
    assert estimate(n_samples=1000).largest_pareto_k == pytest.approx(2 / 3)
    assert estimate(n_samples=5000).largest_pareto_k == 0.7


def test_an_estimate_without_fault_says_nothing() -> None:
    assert estimate().warning == "" and estimate().note == ""


def test_a_warning_is_about_the_mean_in_nats() -> None:
    """Many data that hardly move the mean say nothing; one that moves it by much does."""
    k, reach = np.full(100, 0.3), np.full(100, 90.0)  # what sound data would reach counts nothing
    k[:50], reach[:50] = 2.0, 0.1
    assert estimate(pareto_k=k, reach=reach).warning == ""
    k[1:50] = 0.3
    reach[0] = 11.0
    assert "its mean may lie 0.11 nats below. 1 of 100 data" in estimate(pareto_k=k, reach=reach).warning
    assert "may lie 0.11 nats above" in estimate(pareto_k=k, reach=reach, direction="upper").warning
    assert estimate(pareto_k=k, reach=reach).warning.startswith("Doubtful as log p(x)")
    assert estimate(pareto_k=k, reach=10 * reach).warning.startswith("Not to be believed as log p(x)")
    assert estimate(pareto_k=k, reach=reach, direction="exact").warning == ""


def test_a_doubtful_datum_of_which_nothing_is_known_is_warned_of() -> None:
    k, ess, reach = np.full(100, 0.3), np.full(100, 300.0), np.zeros(100)
    k[0] = math.inf
    assert "any number of nats below" in estimate(pareto_k=k).warning
    ess[7], reach[7] = 1.2, math.nan  # a weight of zero
    assert "any number of nats below" in estimate(ess=ess, reach=reach).warning


def test_a_bound_that_still_rises_is_warned_of() -> None:
    assert estimate(halving=np.full(100, 0.09)).warning == ""
    assert "the others may by 0.2." in estimate(halving=np.full(100, 0.2)).warning


def test_few_samples_and_broken_data_are_said() -> None:
    assert "too few" in estimate(n_samples=10).warning
    log_px = np.linspace(-90, -80, 100)
    log_px[3] = math.nan
    assert "1 of 100" in estimate(log_px=log_px).warning


def test_equal_weights_are_called_neither_exact_nor_bad() -> None:
    """A proposal on one of two equal modes: constant weights, and off by log 2 all the same."""
    z = np.random.default_rng(0).normal(20, 1, size=1000)
    log_weight = np.logaddexp(-((z - 20) ** 2) / 2, -((z + 20) ** 2) / 2) - math.log(2) + (z - 20) ** 2 / 2
    np.testing.assert_allclose(log_weight, -math.log(2), atol=1e-12)
    one = estimate(1, log_px=log_weight[:1], ess=np.array([1000.0]), pareto_k=pareto_k(log_weight[:, None], 1000))
    assert np.isnan(one.pareto_k[0])
    assert one.warning == ""
    assert "consistent with an exact posterior, but also with draws that never left one mode" in one.note
    assert "1 of 1" in one.note


def test_tied_weights_are_left_to_the_effective_sample_size() -> None:
    k = np.full(100, 0.3)
    k[:7] = math.nan
    note = estimate(pareto_k=k).note
    assert "largest weights of 7 of 100 data are tied" in note and "equal" not in note
    ess = np.full(100, 300.0)
    ess[:3] = 1000.0
    note = estimate(pareto_k=k, ess=ess).note
    assert "weights of 3 of 100 data are equal" in note and "weights of 4 of 100 data are tied" in note
    assert estimate(pareto_k=k, direction="exact").note == ""


def test_mean_over_data() -> None:
    low, middle, high = estimate().mean
    assert middle == pytest.approx(-85)
    half = stats.t.isf(0.025, 99) * np.linspace(-90, -80, 100).std(ddof=1) / 10
    assert (middle - low, high - middle) == pytest.approx((half, half))


def test_tied_weights_above_the_cutoff_have_no_k() -> None:
    """Discrete latents give few different weights: seven equal ones above the rest are no tail to fit."""
    log_weight = np.full((1000, 1), -1.0)
    log_weight[:7] = 0.0
    assert np.isnan(pareto_k(np.sort(log_weight, axis=0)[-tail_length(1000) - 1 :], 1000)).all()
