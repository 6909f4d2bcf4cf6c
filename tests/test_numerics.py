"""Arithmetic at the extremes, against known values, and against torch's own forms where those hold."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from hvae.numerics import (
    StreamingLogMeanExp,
    bernoulli_kl,
    categorical_kl,
    ess,
    frechet_distance,
    frechet_interval,
    frechet_of_samples,
    gaussian_kl,
    log_mean_exp,
    mean_interval,
)
from tests.statistics import assert_mean


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Means of weights


def test_log_mean_exp_of_known_weights_at_any_scale() -> None:
    for shift in (-1e5, -800.0, 0.0, 800.0, 1e5):
        x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64).log() + shift
        assert abs(float(log_mean_exp(x, 0)) - (math.log(3.0) + shift)) < 1e-15 * max(10.0, abs(shift))


def test_log_mean_exp_takes_zero_weights() -> None:
    zero = -math.inf
    x = torch.tensor([[0.0, zero, zero], [zero, zero, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(log_mean_exp(x, 0), torch.tensor([0.0, zero, 2.0]).double() - math.log(2))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100, 1000])
def test_streaming_equals_one_shot(chunk: int) -> None:
    log_weight = 30 * normal(1000, 4) - 500
    log_weight[::3, 1] = -math.inf
    streaming = StreamingLogMeanExp()
    for part in log_weight.split(chunk):
        streaming.update(part)
    assert (streaming.value - log_mean_exp(log_weight, 0)).abs().max() < 1e-12 * 500
    torch.testing.assert_close(streaming.ess, ess(log_weight, 0), rtol=1e-11, atol=0)


def test_streaming_sums_float32_weights_in_float64() -> None:
    streaming = StreamingLogMeanExp()
    streaming.update(torch.full((3, 2), -1000.0))
    assert streaming.value.dtype == torch.float64
    assert streaming.value.tolist() == pytest.approx([-1000.0, -1000.0], abs=1e-12)


def test_streaming_of_zero_weights_only_is_minus_infinity_and_not_nan() -> None:
    streaming = StreamingLogMeanExp()
    for _ in range(2):
        streaming.update(torch.full((3, 1), -math.inf))
    assert streaming.value.item() == -math.inf
    assert streaming.ess.item() == 0


def test_streaming_refuses_the_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="no log-weights"):
        _ = StreamingLogMeanExp().value


def test_nan_and_infinity_are_passed_on() -> None:
    x = torch.tensor([[0.0, 0.0], [math.nan, math.inf]], dtype=torch.float64)
    assert log_mean_exp(x, 0)[0].isnan()
    assert log_mean_exp(x, 0)[1] == math.inf
    assert ess(x, 0).isnan().all()


def test_ess_counts() -> None:
    weights = torch.tensor([[1.0, 1.0, 2.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    for shift in (-2000.0, 0.0, 2000.0):  # exp() would underflow or overflow
        expected = torch.tensor([4.0, 1.0, 16 / 6], dtype=torch.float64)
        torch.testing.assert_close(ess(weights.log() + shift, 0), expected, rtol=1e-11, atol=0)
    assert ess(torch.full((5,), -math.inf), 0) == 0


# Divergences


def test_gaussian_kl_equals_torch_where_torch_holds() -> None:
    mean_a, mean_b = normal(50, seed=1), normal(50, seed=2)
    log_var_a, log_var_b = 2 * normal(50, seed=3), 2 * normal(50, seed=4)
    expected = kl_divergence(Normal(mean_a, (log_var_a / 2).exp()), Normal(mean_b, (log_var_b / 2).exp()))
    torch.testing.assert_close(gaussian_kl(mean_a, log_var_a, mean_b, log_var_b), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_kl_against_the_prior_is_finite_and_right_at_extreme_variances(dtype: torch.dtype) -> None:
    for log_var in (-120.0, -80.0, -1e-3, 0.0, 1e-3, 80.0):
        zero = torch.zeros((), dtype=dtype)
        kl = float(gaussian_kl(zero, torch.tensor(log_var, dtype=dtype), zero, zero))
        assert kl == pytest.approx((math.expm1(log_var) - log_var) / 2, rel=1e-3 if dtype == torch.float32 else 1e-9)
    # the form with a variance in it, which this one replaces: inf where the truth is 59.5
    assert float(kl_divergence(Normal(0.0, math.exp(-60.0)), Normal(0.0, 1.0))) == math.inf


def test_gaussian_kl_is_finite_and_non_negative_on_the_whole_square() -> None:
    log_var = torch.linspace(-80, 80, 81, dtype=torch.float64)
    kl = gaussian_kl(torch.zeros(()), log_var[:, None], torch.ones(()), log_var[None, :])
    assert kl.isfinite().all()
    assert (kl >= 0).all()
    assert (gaussian_kl(torch.ones(()), log_var, torch.ones(()), log_var) == 0).all()


def test_bernoulli_kl_equals_torch_where_torch_holds() -> None:
    a, b = 3 * normal(50, seed=1), 3 * normal(50, seed=2)
    expected = kl_divergence(Bernoulli(logits=a), Bernoulli(logits=b))
    torch.testing.assert_close(bernoulli_kl(a, b), expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_kl_at_extreme_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e4, -1e3, -30.0, 0.0, 30.0, 1e3, 1e4], dtype=dtype)
    kl = bernoulli_kl(logits[:, None], logits[None, :])
    assert kl.isfinite().all()
    assert (kl >= 0).all()
    assert (kl.diagonal() == 0).all()
    assert float(kl[5, 1]) == 1000.0
    assert float(kl[1, 5]) == 1000.0
    assert float(kl[6, 0]) == 10_000.0
    assert float(kl[3, 5]) == pytest.approx(500 - math.log(2), rel=1e-6)


def test_bernoulli_kl_has_finite_gradients_at_extreme_logits() -> None:
    a = torch.tensor([1e4, -1e4, 0.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-1e4, 1e4, 1e4], dtype=torch.float64, requires_grad=True)
    bernoulli_kl(a, b).sum().backward()
    assert a.grad is not None and a.grad.isfinite().all()
    assert b.grad is not None and b.grad.isfinite().all()


def test_categorical_kl() -> None:
    a, b = 3 * normal(20, 5, seed=1), 3 * normal(20, 5, seed=2)
    expected = kl_divergence(Categorical(logits=a), Categorical(logits=b))
    torch.testing.assert_close(categorical_kl(a, b), expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(categorical_kl(a + 7, b - 3), expected, rtol=1e-11, atol=1e-13)
    two = torch.stack([a[:, 0], torch.zeros(20)], -1), torch.stack([b[:, 0], torch.zeros(20)], -1)
    torch.testing.assert_close(categorical_kl(*two), bernoulli_kl(a[:, 0], b[:, 0]), rtol=1e-10, atol=1e-14)
    extreme = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]], dtype=torch.float64)
    assert categorical_kl(extreme[0], extreme[1]) == 2e4


# Intervals


def test_the_interval_of_constants_is_a_point() -> None:
    np.testing.assert_allclose(mean_interval(np.full((2, 10), 3.5)), 3.5, rtol=1e-14)


def test_without_skew_it_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, size=25)
    symmetric = np.concatenate([values, 4.0 - values])
    expected = stats.t.interval(0.9, 49, loc=2.0, scale=symmetric.std(ddof=1) / math.sqrt(50))
    low, middle, high = mean_interval(symmetric, level=0.9)
    assert (low, middle, high) == pytest.approx((expected[0], 2.0, expected[1]), abs=1e-12)


def test_only_the_end_on_the_side_of_the_tail_is_wider() -> None:
    """Twice Hall's term in longhand; the mirrored values have the mirrored interval."""
    values = np.array([0.0, 0.0, 0.0, 0.0, 5.0])
    t, error = stats.t.isf(0.025, 4), math.sqrt(np.var(values, ddof=1) / 5)
    skewness = (4 * (-1.0) ** 3 + 4.0**3) / 5 / ((4 * 1 + 16) / 5) ** 1.5
    expected = (1 - t * error, 1.0, 1 + (t + skewness * (1 + 2 * t**2) / (3 * math.sqrt(5))) * error)
    assert mean_interval(values) == pytest.approx(expected, abs=1e-12)
    assert -mean_interval(-values)[::-1] == pytest.approx(expected, abs=1e-12)


def terms(kind: str, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Values and their mean."""
    source = np.random.default_rng(0)
    if kind == "lognormal":
        return np.exp(source.normal(size=size)), math.exp(0.5)
    if kind == "square of t5":
        return source.standard_t(5, size=size) ** 2, 5 / 3
    if kind == "t3":
        return source.standard_t(3, size=size), 0.0
    if kind == "normal":
        return source.normal(size=size), 0.0
    share = float(kind)
    return np.where(source.random(size) < share, 3.0, 0.0) + 0.3 * source.normal(size=size), 3 * share


@pytest.mark.parametrize("n", [100, 512])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "t3", "square of t5", "0.05", "0.01", "0.005"])
def test_the_interval_covers(kind: str, n: int) -> None:
    """93 % at least, heavy tails and means that a twentieth to a two-hundredth of the data bear included.

    Of 4000 repetitions: a false alarm of 1e-6 at 93 %, and a coverage of 89 % is found with as much certainty.
    """
    values, mean = terms(kind, (4000, n))
    low, _, high = mean_interval(values).T
    held = np.count_nonzero((low <= mean) & (mean <= high))
    assert held >= stats.binom.ppf(1e-6, 4000, 0.93)
    assert held <= stats.binom.isf(1e-6, 4000, 0.985)  # nor is it wide


def test_terms_that_share_a_draw_are_told() -> None:
    """Pairs of equal terms: half as many data, to the digit; taken as independent they cover 83 %, not 95 %."""
    values = np.random.default_rng(0).exponential(size=(4000, 50))
    pairs = np.arange(50)
    twice, clusters = np.repeat(values, 2, axis=-1), np.repeat(pairs, 2)
    np.testing.assert_allclose(mean_interval(twice, clusters=clusters), mean_interval(values), rtol=1e-10)
    low, _, high = mean_interval(twice).T
    assert np.mean((low <= 1) & (high >= 1)) < 0.9


def test_clusters_of_unequal_sizes() -> None:
    """Sums of errors over clusters are the terms: longhand for one pair and three singles."""
    values, clusters = np.array([1.0, 2.0, 4.0, 8.0, 5.0]), np.array([7, 7, 1, 0, 3])
    sums = np.array([-5.0, 0.0, 4.0, 1.0])
    error = math.sqrt((sums**2).sum() * 4 / 3) / 5
    t, skewness = stats.t.isf(0.025, 3), (sums**3).mean() / (sums**2).mean() ** 1.5
    low, middle, high = mean_interval(values, clusters=clusters)
    assert (middle, high) == pytest.approx((4.0, 4 + t * error), abs=1e-12)
    assert low == pytest.approx(4 - (t - skewness * (1 + 2 * t**2) / 6) * error, abs=1e-12)


def test_one_term_has_no_end() -> None:
    assert mean_interval(np.array([2.0])).tolist() == [-math.inf, 2.0, math.inf]
    one_cluster = np.zeros(2, dtype=np.int64)
    assert mean_interval(np.array([2.0, 4.0]), clusters=one_cluster).tolist() == [-math.inf, 3.0, math.inf]


def test_a_row_with_a_nan_has_no_interval_and_spoils_no_other() -> None:
    values = np.random.default_rng(0).normal(size=(3, 30))
    whole = mean_interval(values)
    values[1, 3], values[2, 4] = math.nan, math.inf
    interval = mean_interval(values)
    assert np.isnan(interval[1]).all() and np.isnan(interval[2, [0, 2]]).all()
    np.testing.assert_allclose(interval[0], whole[0], rtol=1e-12)


def test_the_mean_of_no_data_is_refused() -> None:
    with pytest.raises(ValueError, match="no data"):
        mean_interval(np.empty((2, 0)))


# The Fréchet distance


def gaussian_distribution(d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    root = source.normal(size=(d, d))
    return source.normal(size=d), root @ root.T + 0.1 * np.eye(d)


def test_frechet_distance_of_known_pairs() -> None:
    """Diagonal: sum of squared differences of means and deviations; one dimension, scaled, rotated; commuting."""
    mean, cov = gaussian_distribution(5, 0)
    assert abs(frechet_distance(mean, cov, mean, cov)) < 1e-10
    assert abs(frechet_distance(mean, cov, mean + 2, cov) - 20) < 1e-10
    assert abs(frechet_distance(mean, cov, mean, 9 * cov) - 4 * np.trace(cov)) < 1e-10
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 0.25, 0.0])
    expected = (2.0**2 + 1.5**2) + 3
    assert abs(frechet_distance(np.zeros(3), np.diag(a), np.ones(3), np.diag(b)) - expected) < 1e-10
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = (turn @ np.diag(values) @ turn.T for values in (a, b))
    one, other = turned
    assert abs(frechet_distance(np.zeros(3), one, turn @ np.ones(3), other) - expected) < 1e-7  # C is singular
    x, y = np.array([[2.0]]), np.array([[0.5]])
    one_dimension = 1 + (2**0.5 - 0.5**0.5) ** 2
    assert abs(frechet_distance(np.zeros(1), x, np.ones(1), y) - one_dimension) < 1e-10


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_is_scipys_root_of_the_product(seed: int) -> None:
    (m, a), (n, b) = gaussian_distribution(6, seed), gaussian_distribution(6, 100 + seed)
    root = np.real(linalg.sqrtm(a @ b))
    expected = np.square(m - n).sum() + np.trace(a + b - 2 * root)
    assert abs(frechet_distance(m, a, n, b) - expected) < 1e-10
    assert abs(frechet_distance(m, a, n, b) - frechet_distance(n, b, m, a)) < 1e-10


def test_frechet_interval_corrects_what_finite_samples_add() -> None:
    """Equal distributions: plain is too high by what theory says of the means and more, corrected is about 0."""
    n, d, true = 200, 4, 0.0
    plain, middle, inside = [], [], []
    for seed in range(150):
        a, b = np.random.default_rng(seed).normal(size=(2, n, d))
        low, mid, high = frechet_interval(a, b, 40, seed)
        plain.append(frechet_of_samples(a, b))
        middle.append(mid)
        inside.append(low <= true <= high)
    assert np.mean(plain) > 2 * d / n
    assert abs(np.mean(middle)) < 0.15 * np.mean(plain)
    assert np.mean(inside) > 0.85


def test_frechet_interval_holds_a_true_distance() -> None:
    n, shift = 500, np.array([1.0, 0.0])
    found = []
    for seed in range(150):
        a, b = np.random.default_rng(seed).normal(size=(2, n, 2))
        found.append(frechet_interval(a, 2 * b + shift, 60, seed))
    low, middle, high = np.transpose(found)
    assert_mean(middle, 3.0, detect=0.3)
    assert 0.85 < np.mean((low <= 3.0) & (high >= 3.0)) <= 1


def test_frechet_interval_of_pairs_sees_what_they_share() -> None:
    a = np.random.default_rng(0).normal(size=(400, 3))
    b = a + 0.01 * np.random.default_rng(1).normal(size=(400, 3))
    alone, together = (frechet_interval(a, b, 100, 0, paired=paired) for paired in (False, True))
    assert together[2] - together[0] < 0.1 * (alone[2] - alone[0])
