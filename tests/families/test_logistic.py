"""Grey values in steps: exact log-probabilities, against high-precision differences of the logistic function."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.func import grad, vmap

from hvae.families import DiscretisedLogistic, Family, kl, unit_kl
from hvae.families.logistic import LOG_SCALE_START
from tests.statistics import assert_mean

EXACT = {"atol": 1e-10, "rtol": 1e-10}
LEARNED = torch.tensor([-3.0, -1.0, 0.5], dtype=torch.float64)


def levels(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) / (n - 1)


def family_of(kind: str, n_levels: int = 256) -> DiscretisedLogistic:
    family = DiscretisedLogistic(3, n_levels=n_levels, variance=kind).double()  # type: ignore[arg-type]
    if kind == "learned":
        assert family.log_scale is not None
        family.log_scale.data.copy_(LEARNED)
    return family


def outputs_for(family: Family, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, family.n_outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(location: float, log_scale: float, level: int, n_levels: int) -> float:
    """log P(level) with 60 digits, from the nearer tail."""
    with mpmath.workdps(60):
        scale, half = mpmath.exp(log_scale), mpmath.mpf(1) / (2 * (n_levels - 1))
        value = mpmath.mpf(level) / (n_levels - 1)

        side = -1 if value > location else 1

        def tail(edge: mpmath.mpf) -> mpmath.mpf:
            return 1 / (1 + mpmath.exp(-side * (edge - location) / scale))

        below, above = (0, 1) if side == 1 else (1, 0)
        low = below if level == 0 else tail(value - half)
        high = above if level == n_levels - 1 else tail(value + half)
        return float(mpmath.log(abs(high - low)))


@pytest.mark.parametrize("kind", ["network", "learned", "fixed"])
@pytest.mark.parametrize("n_levels", [2, 17, 256])
def test_probabilities_sum_to_one_and_equal_high_precision(kind: str, n_levels: int) -> None:
    family = family_of(kind, n_levels)
    outputs = outputs_for(family, 1, 4)
    distribution = family.distribution(outputs)
    terms = family.unit_log_prob(distribution, levels(n_levels)[:, None, None].expand(n_levels, 4, 3)).detach()
    torch.testing.assert_close(terms.exp().sum(0), torch.ones(4, 3).double(), **EXACT)
    for b, d, level in ((0, 0, 0), (1, 1, n_levels - 1), (2, 2, n_levels // 2), (3, 0, 1)):
        log_scale = {
            "network": outputs[0, b, (3 + d) % family.n_outputs].item() + LOG_SCALE_START,
            "learned": LEARNED[d].item(),
            "fixed": LOG_SCALE_START,
        }[kind]
        expected = by_hand(outputs[0, b, d].item(), log_scale, level, n_levels)
        assert terms[level, b, d].item() == pytest.approx(expected, abs=1e-10)
    whole = levels(n_levels)[[0, n_levels // 2, -1]].expand(2, 4, 3)
    torch.testing.assert_close(
        family.log_prob(distribution, whole), family.unit_log_prob(distribution, whole).sum(-1), **EXACT
    )
    assert family.factorised and family.log_prob(distribution, whole).shape == (2, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("location", [-30.0, 0.0, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, 3.0, 9.0])
def test_extremes_lose_nothing_and_have_gradients(location: float, log_scale: float, dtype: torch.dtype) -> None:
    family = DiscretisedLogistic(1, variance="network")
    outputs = torch.tensor([location, log_scale - LOG_SCALE_START], dtype=dtype, requires_grad=True)
    for level in (0, 1, 100, 255):
        found = family.log_prob(family.distribution(outputs), levels(256)[level : level + 1].to(dtype))
        (slope,) = torch.autograd.grad(found, outputs)
        assert slope.isfinite().all()
        # the rounding of a level and of the scale, as many scales away as it lies
        distance = 1 + (abs(location) + 1) * np.exp(-log_scale)
        error = 16 * torch.finfo(dtype).eps * distance
        assert found.item() == pytest.approx(by_hand(location, log_scale, level, 256), rel=1e-5, abs=error)


def test_scales_are_clamped() -> None:
    family = DiscretisedLogistic(1, variance="network").double()
    for extreme, clamped in ((1e4, 10.0), (-1e4, -10.0)):
        found = family.log_prob(family.distribution(torch.tensor([0.501, extreme]).double()), levels(256)[128:129])
        assert found.item() == pytest.approx(by_hand(0.501, clamped, 128, 256), abs=1e-6)


def test_draws_are_the_quantiles_of_the_levels() -> None:
    """Noise u becomes the lowest level whose distribution function reaches u."""
    family = family_of("learned", 17)
    distribution = family.distribution(torch.tensor([0.3, 0.9, 0.5]).double())
    noise = torch.rand(500, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = family.draw(distribution, noise)
    cdf = family.unit_log_prob(distribution, levels(17)[:, None].expand(17, 3)).exp().cumsum(0)
    expected = levels(17)[(cdf[:, None] < noise).sum(0).clamp(max=16)]
    torch.testing.assert_close(value, expected, **EXACT)
    edges = family.draw(distribution, torch.tensor([[0.0] * 3, [1.0] * 3]).double())
    assert edges.tolist() == [[0.0] * 3, [1.0] * 3]
    assert family.draw(DiscretisedLogistic(1).distribution(torch.tensor([0.5])), torch.tensor([1.0])).isfinite().all()


def test_draws_fall_with_their_probabilities_and_have_the_mean() -> None:
    family = family_of("fixed", 5)
    distribution = family.distribution(torch.tensor([0.3, 0.6, 0.5]).double())
    noise = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hits = (family.draw(distribution, noise).unsqueeze(-1) == levels(5)).flatten(1)
    p = family.unit_log_prob(distribution, levels(5)[:, None].expand(5, 3)).exp().T.detach()
    assert_mean(hits, p.flatten(), detect=0.04)
    torch.testing.assert_close(family.mean(distribution), p @ levels(5), **EXACT)


@pytest.mark.parametrize("kind", ["network", "learned"])
def test_mean_and_divergence_equal_sums_over_the_levels(kind: str) -> None:
    family = family_of(kind)
    distribution, other = (
        family.distribution(outputs_for(family, 2, 1)),
        family.distribution(outputs_for(family, 1, 4, seed=1)),
    )
    log_p, log_q = (
        family.unit_log_prob(one, levels(256)[:, None, None, None].expand(256, 2, 4, 3))
        for one in (distribution, other)
    )
    expected = (log_p.exp() * levels(256)[:, None, None, None]).sum(0)[:, :1]
    torch.testing.assert_close(family.mean(distribution), expected, **EXACT)
    found = unit_kl(distribution, other)
    torch.testing.assert_close(found, (log_p.exp() * (log_p - log_q)).sum(0), **EXACT)
    torch.testing.assert_close(kl(distribution, other), found.sum(-1), **EXACT)
    assert (found > 0).all() and kl(distribution, distribution).abs().max() == 0


def test_close_to_the_density_for_many_levels() -> None:
    """log P + log(n - 1) tends to the log-density."""
    family = DiscretisedLogistic(1, n_levels=100_001, variance="network").double()
    found = family.log_prob(
        family.distribution(torch.tensor([0.4, 0.0], dtype=torch.float64)), torch.tensor([0.7], dtype=torch.float64)
    )
    density = stats.logistic(0.4, np.exp(LOG_SCALE_START)).logpdf(0.7)
    assert found.item() + np.log(100_000) == pytest.approx(density, abs=1e-7)


def test_gradients_and_vmap() -> None:
    family = family_of("network", 9)
    outputs, value = outputs_for(family, 5), levels(9)[[0, 3, 8]]

    def score(outputs: Tensor) -> Tensor:
        distribution = family.distribution(outputs)
        return (
            family.log_prob(distribution, value)
            + kl(distribution, family.distribution(-outputs))
            + family.mean(distribution).sum(-1)
        )

    found = vmap(grad(score), randomness="error")(outputs)
    torch.testing.assert_close(found, torch.stack([grad(score)(row) for row in outputs]), **EXACT)
    assert torch.autograd.gradcheck(score, (outputs.requires_grad_(),), eps=1e-6, atol=1e-6)


def test_what_it_cannot_do_is_refused() -> None:
    family = family_of("network")
    distribution = family.distribution(outputs_for(family, 2))
    for ask in (
        lambda: family.natural(distribution),
        lambda: family.statistic(torch.zeros(3)),
        lambda: family.product(distribution, distribution),
        lambda: family.match(distribution),
        lambda: family.standard(torch.zeros(3)),
    ):
        with pytest.raises(TypeError, match="DiscretisedLogistic is of no exponential family"):
            ask()
    with pytest.raises(TypeError, match="no closed-form KL"):
        kl(distribution, DiscretisedLogistic(3, n_levels=17).distribution(torch.zeros(3)))
    with pytest.raises(ValueError, match="n_levels is 1"):
        DiscretisedLogistic(3, n_levels=1)
