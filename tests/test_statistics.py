"""The checker is checked: right means pass, wrong means fail, and so does a sample that could not tell."""

import numpy as np
import pytest

from tests.statistics import assert_mean

RNG_SEED = 20240501


def draws(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(RNG_SEED).normal(size=(n, *shape))


def test_right_mean_passes() -> None:
    assert assert_mean(3.0 + draws(20_000), 3.0, detect=0.1) < 5


def test_wrong_mean_fails() -> None:
    with pytest.raises(AssertionError, match="off by"):
        assert_mean(draws(20_000) + 0.1, 0.0, detect=0.1)


def test_one_wrong_coordinate_among_many_fails() -> None:
    samples = draws(20_000, 4, 5)
    samples[:, 2, 3] -= 0.12
    with pytest.raises(AssertionError, match="coordinate 13"):
        assert_mean(samples, np.zeros((4, 5)), detect=0.12)


def test_sample_that_could_not_tell_fails_and_says_how_many_it_takes() -> None:
    with pytest.raises(AssertionError, match="too small") as failure:
        assert_mean(draws(500), 0.0, detect=0.05)
    n_needed = int(str(failure.value).split("draw ")[1].rstrip("."))
    assert_mean(draws(int(1.1 * n_needed)), 0.0, detect=0.05)


def test_a_weight_wrong_by_a_tenth_does_not_pass_unseen() -> None:
    """The fault that a z-test of 20,000 samples without a power figure once let through."""
    noisy = 10 * draws(20_000) + 0.1
    with pytest.raises(AssertionError, match="too small"):
        assert_mean(noisy, 0.0, detect=0.1)


def test_both_error_rates_are_kept() -> None:
    """At rates of 5 %: 2000 trials, counts within the binomial's range of 1e-6 below."""
    trials = np.random.default_rng(RNG_SEED).normal(size=(2000, 400))
    detect = (1.97 + 1.65) * 1.2 / 20  # the detectable shift at n = 400, with room for the estimated spread
    failures = misses = 0
    for sample in trials:
        for shift in (0.0, detect):
            try:
                assert_mean(sample + shift, 0.0, detect=detect, false_fail=0.05, false_pass=0.05)
                misses += shift > 0
            except AssertionError as failure:
                assert "off by" in str(failure)
                failures += shift == 0
    assert 55 <= failures <= 150
    assert misses <= 150


def test_non_finite_samples_and_tiny_samples_are_refused() -> None:
    with pytest.raises(AssertionError, match="not finite"):
        assert_mean([*draws(200), np.nan], 0.0, detect=1)
    with pytest.raises(AssertionError, match="too few"):
        assert_mean(draws(50), 0.0, detect=1)


def test_samples_without_spread() -> None:
    assert_mean(np.full(200, 0.1), 0.1, detect=1e-9)
    with pytest.raises(AssertionError, match="off by"):
        assert_mean(np.full(200, 0.1), 0.1 + 1e-12, detect=1e-9)
