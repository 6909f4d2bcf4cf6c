"""Counts: against scipy's mass functions, sums over values, high precision at the extremes, and scipy's quantiles."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hvae.families import Family, NegativeBinomial, Poisson, has_closed_kl, has_unit_kl, kl, unit_kl
from hvae.families.counts import LOG_LIMIT
from hvae.families.quantiles import gamma_quantile, inner, poisson_quantile
from tests.statistics import assert_mean

EXACT = {"atol": 1e-10, "rtol": 1e-10}
LEARNED = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
VALUES = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [40.0, 0.0, 7.0], [1000.0, 65.0, 300.0]], dtype=torch.float64)


def learned() -> NegativeBinomial:
    family = NegativeBinomial(3).double()
    assert family.log_dispersion is not None
    family.log_dispersion.data.copy_(LEARNED)
    return family


FAMILIES = {
    "poisson": lambda: Poisson(3),
    "learned": learned,
    "network": lambda: NegativeBinomial(3, variance="network"),
}
every = pytest.mark.parametrize("name", FAMILIES)


def outputs(family: Family, n: int = 5) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return 2 * torch.randn(1, n, family.n_outputs, generator=source, dtype=torch.float64)


def frozen(name: str, outputs: np.ndarray) -> "stats.rv_frozen":
    """The distribution of scipy at outputs ``[..., n_outputs]``; its p is the probability of the r other events."""
    mean = np.exp(outputs[..., :3])
    if name == "poisson":
        return stats.poisson(mean)
    r = np.exp(LEARNED.numpy() if name == "learned" else outputs[..., 3:])
    return stats.nbinom(r, r / (r + mean))


@every
def test_log_probabilities_are_those_of_scipy(name: str) -> None:
    family = FAMILIES[name]()
    parameters = outputs(family)
    found = family.unit_log_prob(family.distribution(parameters), VALUES[:, None]).detach()
    assert found.shape == (4, 5, 3)
    np.testing.assert_allclose(found, frozen(name, parameters.numpy()).logpmf(VALUES[:, None].numpy()), **EXACT)
    whole = family.log_prob(family.distribution(parameters), VALUES[:, None]).detach()
    np.testing.assert_allclose(whole, found.sum(-1), **EXACT)


@every
def test_means_are_those_of_scipy(name: str) -> None:
    family = FAMILIES[name]()
    parameters = outputs(family)
    found = family.mean(family.distribution(parameters))
    np.testing.assert_allclose(found, frozen(name, parameters.numpy()).mean(), **EXACT)


@every
def test_divergences_are_sums_over_the_counts(name: str) -> None:
    """Closed where both have one dispersion; else refused, never a number."""
    family = FAMILIES[name]()
    a, b = outputs(family)[0, :1], outputs(family)[0, 1:2]
    p, q = family.distribution(a), family.distribution(b)
    if name == "network":
        assert not has_closed_kl(p, q) and not has_unit_kl(p, q)
        with pytest.raises(TypeError, match="no closed-form KL per unit"):
            kl(p, q)
        b = torch.cat([b[:, :3], a[:, 3:]], -1)  # the same dispersion
        q = family.distribution(b)
    assert has_closed_kl(p, q) and has_unit_kl(p, q)
    values = np.arange(200_000)[:, None]
    log_p, log_q = (frozen(name, parameters.numpy()[0]).logpmf(values) for parameters in (a, b))
    wanted = (np.exp(log_p) * (log_p - log_q)).sum(0)
    np.testing.assert_allclose(unit_kl(p, q).detach()[0], wanted, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(kl(p, q).detach(), [wanted.sum()], rtol=1e-8, atol=1e-8)


def test_a_poisson_count_and_a_dispersed_one_have_no_closed_divergence() -> None:
    p, q = Poisson(3).distribution(torch.zeros(3)), NegativeBinomial(3).distribution(torch.zeros(3))
    assert not has_closed_kl(p, q)


def by_hand(log_m: float, log_r: float, v: int) -> float:
    with mpmath.workdps(60):
        m, r = mpmath.exp(log_m), mpmath.exp(log_r)
        return float(
            mpmath.loggamma(v + r) - mpmath.loggamma(r) - mpmath.loggamma(v + 1)
            - r * mpmath.log1p(m / r) + v * (mpmath.log(m) - mpmath.log(r + m))
        )  # fmt: skip


@pytest.mark.parametrize("log_r", [-20.0, -7.0, 0.0, 2.2, 2.4, 9.0, 20.0])
@pytest.mark.parametrize("log_m", [-20.0, -3.0, 0.0, 10.0, 19.0])
def test_extremes_neither_overflow_nor_cancel(log_m: float, log_r: float) -> None:
    """Up to 2^24, on both sides of where Stirling's series is taken; the largest error seen is 4e-9 of the value."""
    family = NegativeBinomial(1, variance="network")
    parameters = torch.tensor([log_m, log_r], dtype=torch.float64, requires_grad=True)
    for v in (0, 1, 7, 1000, 2**24):
        found = family.log_prob(family.distribution(parameters), torch.tensor([float(v)], dtype=torch.float64))
        (slope,) = torch.autograd.grad(found, parameters)
        assert slope.isfinite().all()
        assert found.item() == pytest.approx(by_hand(log_m, log_r, v), rel=1e-10 if v < 2**24 else 1e-8, abs=1e-10)


def test_stirlings_series_leaves_less_than_1e_13_where_it_begins() -> None:
    """Just above r = 10, where its last term is 8e-13."""
    family, log_m, log_r = NegativeBinomial(1, variance="network"), 0.5, 2.31
    distribution = family.distribution(torch.tensor([log_m, log_r], dtype=torch.float64))
    for v in range(1, 7):
        found = family.log_prob(distribution, torch.tensor([float(v)], dtype=torch.float64))
        assert found.item() == pytest.approx(by_hand(log_m, log_r, v), rel=0, abs=1e-13)


def test_float32_keeps_the_decimals_of_a_large_count() -> None:
    """Its terms are 2e8 nats large, where float32 has steps of 16."""
    rate, value = 2.0**24, torch.tensor([2.0**24 - 300])
    log_mean = torch.tensor([np.log(rate)], dtype=torch.float32)
    found = Poisson(1).log_prob(Poisson(1).distribution(log_mean), value)
    wanted = stats.poisson(np.exp(log_mean.double().item())).logpmf(value.double().item())
    assert found.dtype == torch.float32 and found.item() == pytest.approx(wanted, abs=1e-4)


def test_means_and_dispersions_are_held() -> None:
    family = NegativeBinomial(1, variance="network")
    beyond, at = (family.distribution(torch.tensor([a, b])) for a, b in ((1e4, 1e4), (LOG_LIMIT, LOG_LIMIT)))
    assert torch.equal(family.mean(beyond), family.mean(at)) and family.mean(beyond).isfinite().all()
    assert family.log_prob(beyond, torch.ones(1)).isfinite().all()
    assert family.log_prob(family.distribution(torch.tensor([-1e4, -1e4])), torch.zeros(1)).isfinite().all()
    assert Poisson(1).log_prob(Poisson(1).distribution(torch.tensor([-1e4])), torch.ones(1)).item() == -1e4


def test_a_large_dispersion_is_poisson() -> None:
    log_m = torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64)
    family = NegativeBinomial(3, variance="network")
    found = family.unit_log_prob(family.distribution(torch.cat([log_m, torch.full_like(log_m, 20.0)])), VALUES[:3])
    np.testing.assert_allclose(found, stats.poisson(np.exp(log_m.numpy())).logpmf(VALUES[:3].numpy()), atol=2e-6)


def test_quantiles_are_those_of_scipy() -> None:
    """Means from 1e-9 to 3e6, where scipy's own are right; the noise of float32 and its ends, and float64 beyond."""
    us = [2.0**-26, 2.0**-24, 1e-6, 1e-3, *np.linspace(0.01, 0.99, 37), 0.999, 1 - 1e-6, 1 - 2.0**-24]
    rates = np.concatenate([[1e-9, 1e-5, 1e-3, 0.01, 0.1], np.linspace(0.2, 40, 60), np.geomspace(50, 1e6, 40)])
    rate, u = np.meshgrid(rates, us)
    found = poisson_quantile(torch.tensor(rate), torch.tensor(u)).numpy()
    np.testing.assert_array_equal(found, stats.poisson.ppf(u, rate))
    shape, u = np.meshgrid(1 + np.geomspace(1e-9, 1e6, 60), us)
    found = gamma_quantile(torch.tensor(shape), torch.tensor(u)).numpy()
    np.testing.assert_allclose(stats.gamma.cdf(found, shape), u, rtol=3e-5, atol=1e-12)


def test_quantiles_of_huge_means_are_the_expansion() -> None:
    """Of Cornish and Fisher to the next order, within two counts of 20,000 a standard deviation."""
    rate, u = np.meshgrid(np.geomspace(2e6, 4.8e8, 20), [2.0**-26, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6, 1 - 2.0**-24])
    z = stats.norm.ppf(u)
    wanted = rate + z * np.sqrt(rate) + (z**2 - 1) / 6 + (z - z**3) / (72 * np.sqrt(rate))
    assert np.abs(poisson_quantile(torch.tensor(rate), torch.tensor(u)).numpy() - wanted).max() < 2
    wanted = rate + z * np.sqrt(rate) + (z**2 - 1) / 3 + (z**3 - 7 * z) / (36 * np.sqrt(rate))
    assert np.abs((gamma_quantile(torch.tensor(rate), torch.tensor(u)).numpy() - wanted) / np.sqrt(rate)).max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_noise_are_no_ends_of_the_draws(dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    assert (inner(ends) > 0).all() and (inner(ends) < 1).all()
    for family in (Poisson(2), NegativeBinomial(2, variance="network")):
        parameters = torch.full((family.n_outputs,), 1.0, dtype=dtype)
        noise = ends.repeat_interleave(family.noise_width // 2)
        drawn = family.draw(family.distribution(parameters), noise)
        assert drawn.dtype == dtype and drawn.isfinite().all() and (drawn >= 0).all()


@every
def test_draws_fall_with_the_distribution(name: str) -> None:
    """Share of each count up to 6, and the rest; false alarm 1e-6, an error of 0.03 in a share is seen."""
    family = FAMILIES[name]()
    parameters = outputs(family, 1)[0] / 2
    n = 60_000
    noise = torch.rand(n, 1, family.noise_width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    drawn = family.draw(family.distribution(parameters), noise)[:, 0].detach().numpy()
    np.testing.assert_array_equal(drawn, np.round(drawn))
    law = frozen(name, parameters[0].numpy())
    values = np.arange(7)[:, None]
    shares = np.concatenate([law.pmf(values), law.sf(6)[None]])
    hits = np.concatenate([drawn[:, None] == values, (drawn > 6)[:, None]], 1)
    common = np.minimum(shares, 1 - shares) > 0.01  # so that the central limit theorem holds
    assert common.sum() > 8
    assert_mean(hits[:, common], shares[common], detect=0.03)


def test_draws_of_every_size_have_mean_and_shares() -> None:
    """Means from 1 to 1e7, dispersions from 0.5 to 1e6; false alarm 1e-6 of each, errors of 0.06 deviations and of
    0.035 in a share are seen."""
    log_m, log_r = np.meshgrid(np.log([1.0, 30.0, 1e4, 1e7]), np.log([0.5, 1.0, 5.0, 100.0, 1e6]))
    family = NegativeBinomial(log_m.size, variance="network")
    parameters = torch.tensor(np.concatenate([log_m.ravel(), log_r.ravel()]))
    noise = torch.rand(40_000, family.noise_width, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    drawn = family.draw(family.distribution(parameters), noise).numpy()
    m, r = np.exp(log_m.ravel()), np.exp(log_r.ravel())
    standard = (drawn - m) / np.sqrt(m + m**2 / r)
    assert_mean(standard, 0.0, detect=0.06)
    law = stats.nbinom(r, r / (r + m))
    for at in (-0.5, 0.0, 1.0):  # standard deviations from the mean
        edge = np.floor(m + at * np.sqrt(m + m**2 / r))
        assert_mean(drawn <= edge, law.cdf(edge), detect=0.035)


@every
def test_what_counts_lack_is_refused(name: str) -> None:
    family = FAMILIES[name]()
    distribution = family.distribution(outputs(family))
    for ask in (family.natural, family.match):
        with pytest.raises(TypeError, match="is of no exponential family"):
            ask(distribution)
    with pytest.raises(TypeError, match="has no standard distribution"):
        family.standard(torch.zeros(3))


def test_no_fixed_dispersion() -> None:
    with pytest.raises(ValueError, match="no one dispersion suits all counts"):
        NegativeBinomial(3, variance="fixed")
