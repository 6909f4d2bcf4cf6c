"""Importance sampling against exact log p(x), against one-shot arithmetic, and against planted faults."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae import rng
from hvae.evidence import HVAE, Evidence
from hvae.exact import LinearGaussian
from hvae.exact.known_stacks import linear_stack
from hvae.likelihood import importance_sample, log_likelihood_curve
from hvae.posterior import NetworkPosterior
from tests.exact.stacks import decoder, encoder
from tests.statistics import assert_mean

WIDTHS = (6, 4, 2)


def table(n_samples: int, n_data: int, *, scale: float = 3.0, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n_samples, n_data, dtype=torch.float64, generator=source) - 700


def replay(log_weight: Tensor, chunk_samples: int) -> Callable[[int, int], Tensor]:
    """Fresh draws in chunks, taken from one table."""
    return lambda chunk, k: log_weight[chunk * chunk_samples : chunk * chunk_samples + k]


def one_shot(log_weight: Tensor, k: int) -> np.ndarray:
    """L_k by groups, in numpy, all at once."""
    n_groups = len(log_weight) // k
    groups = log_weight.numpy()[: n_groups * k].reshape(n_groups, k, -1)
    return np.log(np.exp(groups + 700).mean(1)).mean(0) - 700


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 2 * torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def exact() -> tuple[HVAE, LinearGaussian]:
    network = decoder(WIDTHS)
    reference = LinearGaussian.of(network)
    return HVAE(network, reference.exact_posterior("bottom-up")), reference


@pytest.fixture(scope="module")
def imperfect() -> HVAE:
    """The exact posterior, shifted and broadened: wrong in every layer, yet its weights are bounded."""
    network = decoder(WIDTHS)
    posterior = LinearGaussian.of(network).exact_posterior("top-down")
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        for name in posterior.order:
            scale = posterior.network[name].family.scale
            assert isinstance(scale, Tensor)
            scale[-posterior.network[name].family.units :] += 0.3  # log-variances
            posterior.network[name].net.bias += 0.1  # type: ignore[operator]
    return HVAE(network, posterior)


# One pass over chunks


@pytest.mark.parametrize("chunk_samples", [1, 7, 64, 1000, 5000])
def test_streaming_equals_one_shot_at_every_k(chunk_samples: int) -> None:
    log_weight = table(1000, 5)
    ks = (1, 3, 10, 64, 100, 333, 1000)
    curve = importance_sample(replay(log_weight, chunk_samples), ks, chunk_samples=chunk_samples)
    for k, bound in zip(ks, curve.bound_datum_nats, strict=True):
        np.testing.assert_allclose(bound, one_shot(log_weight, k), atol=1e-12 * 700, rtol=0)
    np.testing.assert_allclose(curve.estimate.log_px, curve.bound_datum_nats[-1], atol=1e-12 * 700, rtol=0)

    weights = np.exp(log_weight.numpy() + 700)
    np.testing.assert_allclose(curve.estimate.ess, weights.sum(0) ** 2 / (weights**2).sum(0), rtol=1e-11)
    relative_error = weights.std(0) / weights.mean(0) / math.sqrt(1000)
    np.testing.assert_allclose(curve.estimate.standard_error, relative_error, rtol=1e-9)
    whole = importance_sample(replay(log_weight, 1000), ks, chunk_samples=1000)
    np.testing.assert_array_equal(curve.estimate.pareto_k, whole.estimate.pareto_k)


def test_curve_never_falls_where_groups_nest() -> None:
    """Jensen: a group's log-mean is at least the mean of its parts' log-means, draw by draw."""
    curve = importance_sample(replay(table(1000, 50, scale=6), 130), (1, 10, 100, 1000), chunk_samples=130)
    assert (np.diff(curve.bound_datum_nats, axis=0) > 0).all()


def test_every_draw_is_asked_for_once() -> None:
    asked: list[tuple[int, int]] = []

    def draw(chunk: int, k: int) -> Tensor:
        asked.append((chunk, k))
        return torch.zeros(k, 2)

    assert importance_sample(draw, (1, 105), chunk_samples=50).estimate.n_samples == 105
    assert asked == [(0, 50), (1, 50), (2, 5)]


def test_one_sample_is_the_elbo() -> None:
    log_weight = table(1, 4)
    estimate = importance_sample(replay(log_weight, 1), (1,)).estimate
    np.testing.assert_array_equal(estimate.log_px, log_weight[0].numpy())
    assert np.isnan(estimate.pareto_k).all() and "too few" in estimate.warning


@pytest.mark.parametrize("n_samples", [(), (0, 10), (10, 1), (5, 5)])
def test_curves_that_make_no_sense_are_refused(n_samples: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="n_samples is"):
        importance_sample(replay(table(10, 1), 10), n_samples)


def test_no_chunks_are_refused(exact: tuple[HVAE, LinearGaussian], x: Tensor) -> None:
    with pytest.raises(ValueError, match="chunk_samples is 0"):
        importance_sample(replay(table(10, 1), 10), (10,), chunk_samples=0)
    with pytest.raises(ValueError, match="There are 0 data"):
        log_likelihood_curve(exact[0], x[:0], seed=0)


# Weights that are no numbers


def test_zero_weights_are_legal() -> None:
    log_weight = table(400, 3)
    log_weight[::2, 1] = -math.inf
    log_weight[:, 2] = -math.inf
    curve = importance_sample(replay(log_weight, 150), (100, 400), chunk_samples=150)
    kept = torch.logsumexp(log_weight[1::2, 1], 0) - math.log(400)
    assert curve.estimate.log_px[1] == pytest.approx(float(kept), abs=1e-12 * 700)
    assert curve.estimate.log_px[2] == -math.inf
    assert curve.estimate.ess[2] == 0
    assert curve.estimate.pareto_k[2] == math.inf
    assert curve.estimate.mean[1] == -math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_no_number_marks_its_datum_and_no_other(bad: float) -> None:
    log_weight = table(400, 3)
    good = importance_sample(replay(log_weight, 150), (1, 10, 400), chunk_samples=150)
    log_weight[151, 1] = bad
    curve = importance_sample(replay(log_weight, 150), (1, 10, 400), chunk_samples=150)
    arrays = (curve.estimate.log_px, curve.estimate.standard_error, curve.estimate.ess, curve.estimate.pareto_k)
    for array in (*arrays, *curve.bound_datum_nats):
        assert np.isnan(array).tolist() == [False, True, False]
    np.testing.assert_array_equal(curve.estimate.log_px[[0, 2]], good.estimate.log_px[[0, 2]])
    assert "1 of 3 data" in curve.estimate.warning


# Against exact answers


def test_with_the_exact_posterior_every_k_is_log_px(exact: tuple[HVAE, LinearGaussian], x: Tensor) -> None:
    """A missing or a wrong log k would show here as itself."""
    model, reference = exact
    curve = log_likelihood_curve(model, x, (1, 10, 100, 250), seed=0, chunk_samples=60, chunk_data=5)
    expected = np.broadcast_to(reference.log_px(x).numpy(), (4, 12))
    np.testing.assert_allclose(curve.bound_datum_nats, expected, atol=1e-10, rtol=0)
    estimate = curve.estimate
    np.testing.assert_allclose(estimate.ess, 250, rtol=1e-9)
    assert estimate.standard_error.max() < 1e-6
    assert np.isnan(estimate.pareto_k).all()
    assert estimate.warning == ""
    assert "12 of 12" in estimate.note and "one mode" in estimate.note


def test_equal_weights_in_float32_are_seen_as_equal(exact: tuple[HVAE, LinearGaussian], x: Tensor) -> None:
    model, reference = exact
    curve = log_likelihood_curve(model.float(), x.float(), (1, 300), seed=0)
    model.double()
    np.testing.assert_allclose(curve.estimate.log_px, reference.log_px(x).numpy(), atol=1e-4)
    assert np.isnan(curve.estimate.pareto_k).all()


def weight_ratios(model: HVAE, x: Tensor, weigh: Callable[[Evidence], Tensor]) -> Tensor:
    """w / p(x), averaged over data: one number a draw, of mean 1."""
    noise = rng.noise(model.noise_specs(), 30_000, len(x), seed=1, purpose="test", dtype=torch.float64)
    with torch.no_grad():
        log_weight = weigh(model(x.unsqueeze(0), noise))
    return (log_weight - LinearGaussian.of(model.decoder).log_px(x)).exp().mean(1)


def test_weights_are_unbiased(imperfect: HVAE, x: Tensor) -> None:
    """E[w / p(x)] = 1; finds a bias of 2 %, that is of 0.02 nats."""
    curve = log_likelihood_curve(imperfect, x, (1, 1000), seed=0)
    assert curve.estimate.pareto_k.max() < 0.5  # else no z-test could be trusted
    assert_mean(weight_ratios(imperfect, x, lambda evidence: evidence.log_weight), 1.0, detect=0.02)


def test_rates_weighed_by_a_little_more_do_not_pass_for_unbiased(imperfect: HVAE, x: Tensor) -> None:
    def wrong(evidence: Evidence) -> Tensor:
        return evidence.log_weight - 0.1 * sum(evidence.rate(name) for name in evidence.q)

    with pytest.raises(AssertionError, match="off by"):
        assert_mean(weight_ratios(imperfect, x, wrong), 1.0, detect=0.02)


def test_closed_form_rates_inside_a_weight_do_not_pass_for_unbiased(imperfect: HVAE, x: Tensor) -> None:
    def wrong(evidence: Evidence) -> Tensor:
        return -evidence.distortion - sum(evidence.kl(name) for name in evidence.q)

    ratios = weight_ratios(imperfect, x, wrong)
    assert ratios.mean() > 3  # "bounds" that lie far above log p(x)
    with pytest.raises(AssertionError):
        assert_mean(ratios, 1.0, detect=0.02)


def test_an_imperfect_posterior_converges_within_its_own_errors(imperfect: HVAE, x: Tensor) -> None:
    curve = log_likelihood_curve(imperfect, x, (1, 10, 100, 3000), seed=0)
    log_px = LinearGaussian.of(imperfect.decoder).log_px(x).numpy()
    assert (np.diff(curve.bound_datum_nats.mean(1)) > 0).all()
    gaps = (log_px - curve.bound_datum_nats).mean(1)
    assert gaps[0] > 0.05 > 0.005 > abs(gaps[-1])
    z = (curve.estimate.log_px - log_px) / curve.estimate.standard_error
    # 12 data at 1e-6 together; a missing log K would be hundreds of standard errors
    assert np.abs(z).max() < 5.6
    assert curve.estimate.standard_error.max() < math.log(3000) / 100
    assert curve.estimate.warning == "" and curve.estimate.note == ""


def test_a_poor_proposal_is_not_believed(x: Tensor) -> None:
    network = decoder(WIDTHS)
    estimate = log_likelihood_curve(HVAE(network, NetworkPosterior(encoder(WIDTHS))), x, (1, 500), seed=0).estimate
    assert "Not to be believed" in estimate.warning
    assert (LinearGaussian.of(network).log_px(x).numpy() - estimate.log_px > 5 * estimate.standard_error).any()


# Draws belong to a datum


def test_the_chunking_of_data_changes_nothing(imperfect: HVAE, x: Tensor) -> None:
    reference = log_likelihood_curve(imperfect, x, (1, 10, 120), seed=4, chunk_samples=50, chunk_data=12)
    for chunk_data in (1, 5, 100):
        curve = log_likelihood_curve(imperfect, x, (1, 10, 120), seed=4, chunk_samples=50, chunk_data=chunk_data)
        np.testing.assert_allclose(curve.bound_datum_nats, reference.bound_datum_nats, atol=1e-11, rtol=0)
        np.testing.assert_allclose(curve.estimate.pareto_k, reference.estimate.pareto_k, atol=1e-8)
    other = log_likelihood_curve(imperfect, x, (1, 10, 120), seed=5, chunk_samples=50)
    assert np.abs(other.bound_datum_nats - reference.bound_datum_nats).min() > 1e-9


@pytest.mark.parametrize("numbers", [1, 700, 1 << 30])
def test_what_is_walked_at_once_changes_nothing(
    imperfect: HVAE, x: Tensor, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = log_likelihood_curve(imperfect, x, (1, 120), seed=4)
    rows: list[int] = []
    walk = imperfect.posterior.walk

    def watched(decoder: Any, given: Any, noise: Any) -> Any:
        rows.append(next(iter(noise.values()))[..., 0].numel())
        return walk(decoder, given, noise)

    monkeypatch.setattr(imperfect.posterior, "walk", watched)
    monkeypatch.setattr("hvae.likelihood.importance.BLOCK_NUMBERS", numbers)
    curve = log_likelihood_curve(imperfect, x, (1, 120), seed=4)
    np.testing.assert_allclose(curve.bound_datum_nats, reference.bound_datum_nats, atol=1e-11, rtol=0)
    assert max(rows) <= max(numbers // x.shape[1], 120) and sum(rows) == 120 * len(x)


def test_data_do_not_share_their_draws(imperfect: HVAE, x: Tensor) -> None:
    same = log_likelihood_curve(imperfect, x[:1].expand(6, -1), (1, 50), seed=0, chunk_data=3)
    assert len(set(same.estimate.log_px.tolist())) == 6


def test_draws_do_not_depend_on_the_chunks() -> None:
    """Bounds of 700 draws by chunks of 500, 300 and 33; and of 20 draws, the first of those."""
    stack = linear_stack(1.0, "over-confident", seed=0)
    curves = [
        log_likelihood_curve(stack.model, stack.x, (20, 700), seed=0, chunk_samples=chunk) for chunk in (500, 300, 33)
    ]
    for curve in curves[1:]:
        np.testing.assert_allclose(curve.bound_datum_nats, curves[0].bound_datum_nats, rtol=0, atol=1e-10)
