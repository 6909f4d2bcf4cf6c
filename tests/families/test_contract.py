"""One contract for every family, against distributions built by hand with numpy, scipy and `torch.distributions`."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor
from torch.distributions import (
    Bernoulli as TorchBernoulli,
)
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    kl_divergence,
)
from torch.func import grad, vmap

from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family, FullGaussian, kl, unit_kl
from tests.statistics import assert_mean

EXACT = {"atol": 1e-10, "rtol": 1e-10}
LEARNED = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)
SCALE = torch.tensor([[0.7, 0.0, 0.0], [-0.4, 1.9, 0.0], [0.2, 0.8, 0.3]], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """A family, and its distribution by other means: a fresh distribution of `torch.distributions`, logs by scipy."""

    make: Callable[[], Family]
    twin: Callable[[Tensor], Distribution]
    log_prob: Callable[[np.ndarray, np.ndarray], float]
    """(outputs [n_outputs], value [width]) -> nats"""
    states: np.ndarray | None = None
    """all values of a discrete family"""


def learned() -> Family:
    family = DiagonalGaussian(3, variance="learned").double()
    assert family.log_variance is not None
    family.log_variance.data.copy_(LEARNED)
    return family


def tril(outputs: Tensor) -> Tensor:
    """C from a head's numbers, entry by entry: below the diagonal, in its row's scale over 3, then log-variances."""
    c10, c20, c21, d0, d1, d2 = outputs[..., 3:].unbind(-1)
    zero = torch.zeros_like(d0)
    s0, s1, s2 = (d0 / 2).exp(), (d1 / 2).exp(), (d2 / 2).exp()
    rows = [[s0, zero, zero], [s1 * c10 / 3, s1, zero], [s2 * c20 / 3, s2 * c21 / 3, s2]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def diagonal(mean: Tensor, log_variance: Tensor) -> Distribution:
    return Independent(Normal(mean, torch.exp(log_variance / 2) + torch.zeros_like(mean)), 1)


def by_scipy(covariance: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda outputs, value: float(stats.multivariate_normal(outputs[:3], covariance(outputs)).logpdf(value))


def bernoulli(outputs: np.ndarray, value: np.ndarray) -> float:
    return float(stats.bernoulli(special.expit(outputs)).logpmf(value).sum())


def categorical(outputs: np.ndarray, value: np.ndarray) -> float:
    p = special.softmax(outputs.reshape(2, 3), axis=1)
    return float(np.log(p[value.reshape(2, 3).astype(bool)]).sum())


FACES = np.eye(3)
CASES = {
    "diagonal": Case(
        lambda: DiagonalGaussian(3),
        lambda outputs: diagonal(outputs[..., :3], outputs[..., 3:]),
        by_scipy(lambda outputs: np.diag(np.exp(outputs[3:]))),
    ),
    "diagonal-learned": Case(
        learned,
        lambda outputs: diagonal(outputs, LEARNED),
        by_scipy(lambda outputs: np.diag(np.exp(LEARNED.numpy()))),
    ),
    "diagonal-fixed": Case(
        lambda: DiagonalGaussian(3, variance="fixed", log_variance=-1.5).double(),
        lambda outputs: diagonal(outputs, torch.full((3,), -1.5, dtype=torch.float64)),
        by_scipy(lambda outputs: math.exp(-1.5) * np.eye(3)),
    ),
    "full": Case(
        lambda: FullGaussian(3),
        lambda outputs: MultivariateNormal(outputs[..., :3], scale_tril=tril(outputs)),
        by_scipy(lambda outputs: (c := tril(torch.from_numpy(outputs)).numpy()) @ c.T),
    ),
    "full-fixed": Case(
        lambda: FullGaussian(3, variance="fixed", scale_tril=SCALE),
        lambda outputs: MultivariateNormal(outputs, scale_tril=SCALE),
        by_scipy(lambda outputs: (SCALE @ SCALE.T).numpy()),
    ),
    "coins": Case(
        lambda: Bernoulli(3),
        lambda outputs: Independent(TorchBernoulli(logits=outputs), 1),
        bernoulli,
        np.array(list(itertools.product([0.0, 1.0], repeat=3))),
    ),
    "dice": Case(
        lambda: Categorical(2, 3),
        lambda outputs: Independent(OneHotCategorical(logits=outputs.unflatten(-1, (2, 3))), 1),
        categorical,
        np.array([np.concatenate(pair) for pair in itertools.product(FACES, repeat=2)]),
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
unbound = pytest.mark.parametrize("case", [c for name, c in CASES.items() if not name.endswith(("learned", "fixed"))])
"""families whose every distribution is a matter of outputs"""
gaussian = pytest.mark.parametrize("case", [c for c in CASES.values() if c.states is None])
discrete = pytest.mark.parametrize("case", [c for c in CASES.values() if c.states is not None])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(case: Case, *shape: int, seed: int = 1) -> Tensor:
    """Any values [..., width]: states of a discrete family, else normal numbers."""
    if case.states is None:
        return normal(*shape, 3, seed=seed)
    index = torch.randint(len(case.states), shape, generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(case.states)[index]


def moments(case: Case, distribution: Distribution) -> Tensor:
    """Mean [..., S] of (v, v vᵀ) of a twin's distribution."""
    if case.states is not None:
        return distribution.mean.flatten(distribution.mean.dim() - len(distribution.event_shape))
    covariance = (
        distribution.covariance_matrix
        if isinstance(distribution, MultivariateNormal)
        else torch.diag_embed(distribution.variance)
    )
    return torch.cat(
        [
            distribution.mean,
            (covariance + distribution.mean.unsqueeze(-1) * distribution.mean.unsqueeze(-2)).flatten(-2),
        ],
        -1,
    )


@every
def test_log_prob_equals_scipy_and_broadcasts(case: Case) -> None:
    family = case.make()
    outputs, value = normal(1, 5, family.n_outputs), values(case, 4, 1)
    found = family.log_prob(family.distribution(outputs), value).detach()
    assert found.shape == (4, 5)
    expected = [[case.log_prob(outputs[0, b].numpy(), value[k, 0].numpy()) for b in range(5)] for k in range(4)]
    np.testing.assert_allclose(found, expected, **EXACT)


@every
def test_terms_per_unit_sum_to_the_whole_or_are_refused(case: Case) -> None:
    family = case.make()
    distribution, value = family.distribution(normal(2, 5, family.n_outputs)), values(case, 2, 5)
    if not family.factorised:
        with pytest.raises(TypeError, match="no terms per unit"):
            family.unit_log_prob(distribution, value)
        return
    terms = family.unit_log_prob(distribution, value)
    assert terms.shape == (2, 5, family.units)
    torch.testing.assert_close(terms.sum(-1), family.log_prob(distribution, value), **EXACT)
    others = values(case, 2, 5, seed=9)
    others[..., : family.width // family.units] = value[..., : family.width // family.units]
    torch.testing.assert_close(family.unit_log_prob(distribution, others)[..., 0], terms[..., 0], **EXACT)


@every
def test_mean_is_the_mean(case: Case) -> None:
    family = case.make()
    outputs = normal(2, 5, family.n_outputs)
    mean = family.mean(family.distribution(outputs))
    assert mean.shape == (2, 5, family.width)
    torch.testing.assert_close(mean, moments(case, case.twin(outputs))[..., : family.width], **EXACT)


@gaussian
def test_gaussian_draws_are_mean_plus_scale_times_noise(case: Case) -> None:
    family = case.make()
    assert (family.noise, family.noise_width) == ("normal", 3)
    outputs, noise = normal(1, 5, family.n_outputs), normal(4, 5, 3, seed=2)
    twin = case.twin(outputs)
    assert isinstance(twin, Independent | MultivariateNormal)
    scale = torch.diag_embed(twin.stddev) if isinstance(twin, Independent) else twin.scale_tril
    expected = twin.mean + torch.einsum("kbij,kbj->kbi", scale.expand(4, 5, 3, 3), noise)
    torch.testing.assert_close(family.draw(family.distribution(outputs), noise), expected, **EXACT)


@discrete
def test_discrete_draws_fall_with_the_distribution_of_every_joint_state(case: Case) -> None:
    family = case.make()
    assert case.states is not None and (family.noise, family.noise_width) == ("uniform", family.width)
    outputs = normal(family.n_outputs)
    noise = torch.rand(20_000, 1, family.noise_width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    drawn = family.draw(family.distribution(outputs), noise)[:, 0].numpy()
    hits = (drawn[:, None] == case.states).all(-1)
    assert hits.any(1).all()
    expected = np.exp([case.log_prob(outputs.numpy(), state) for state in case.states])
    np.testing.assert_allclose(expected.sum(), 1, **EXACT)
    assert_mean(hits, expected, detect=0.04)


@every
def test_exponential_family_form(case: Case) -> None:
    """log p(v) - (<T(v), eta> - A) is the base measure: -D/2 log 2π for Gaussians and 0 for Bernoulli and categorical
    units."""
    family = case.make()
    value = values(case, 4, 1)
    distribution = family.distribution(normal(1, 5, family.n_outputs))
    eta, normaliser = family.natural(distribution)
    base = family.log_prob(distribution, value) - ((family.statistic(value) * eta).sum(-1) - normaliser)
    expected = -1.5 * math.log(2 * math.pi) if case.states is None else 0.0
    torch.testing.assert_close(base, torch.full((4, 5), expected, dtype=torch.float64), **EXACT)


@every
def test_product_is_the_normalised_product(case: Case) -> None:
    """log product - log a - log b does not depend on the value, and the product is a distribution: it sums to 1."""
    family = case.make()
    a, b = (
        family.distribution(normal(1, 5, family.n_outputs)),
        family.distribution(normal(2, 5, family.n_outputs, seed=5)),
    )
    product = family.product(a, b)
    points = values(case, 30, 1, 1) if case.states is None else torch.from_numpy(case.states)[:, None, None]
    rest = family.log_prob(product, points) - family.log_prob(a, points) - family.log_prob(b, points)
    torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-9, rtol=1e-10)
    if case.states is not None:
        torch.testing.assert_close(family.log_prob(product, points).exp().sum(0), torch.ones(2, 5).double(), **EXACT)
    else:  # normalised as scipy says, at the product's own moments
        covariance = getattr(product, "covariance_matrix", None)
        covariance = torch.diag_embed(product.variance) if covariance is None else covariance
        mean, covariance = product.mean[1, 2].detach(), covariance.expand(2, 5, 3, 3)[1, 2].detach()
        expected = stats.multivariate_normal(mean, covariance).logpdf(points[:, 0, 0])
        np.testing.assert_allclose(family.log_prob(product, points)[:, 1, 2].detach(), expected, **EXACT)


@every
def test_match_has_the_moments_of_the_mixture(case: Case) -> None:
    family = case.make()
    outputs = normal(4, 5, family.n_outputs)
    matched = family.match(family.distribution(outputs))
    expected = moments(case, case.twin(outputs)).flatten(end_dim=1).mean(0)
    twin = matched
    if case.states is None and not isinstance(matched, MultivariateNormal):
        twin, width = Independent(Normal(matched.mean, matched.stddev), 1), 3
        covariance = (expected[width:].unflatten(0, (3, 3)) - expected[:3, None] * expected[:3]).diagonal()
        torch.testing.assert_close(matched.variance, covariance, **EXACT)
        torch.testing.assert_close(matched.mean, expected[:3], **EXACT)
    else:
        torch.testing.assert_close(moments(case, twin), expected, **EXACT)


@unbound
def test_match_is_nearest_to_the_mixture(case: Case) -> None:
    """No other distribution of the family has a smaller mean KL from the batch."""
    family = case.make()
    distributions = family.distribution(normal(4, 5, family.n_outputs))
    matched = family.match(distributions)
    best = kl(distributions, matched).mean()
    for seed in range(10):
        assert kl(distributions, family.distribution(normal(family.n_outputs, seed=100 + seed))).mean() > best


@every
def test_kl_equals_torch_and_enumeration(case: Case) -> None:
    family = case.make()
    outputs, others = normal(1, 5, family.n_outputs), normal(4, 1, family.n_outputs, seed=5)
    a, b = family.distribution(outputs), family.distribution(others)
    found = kl(a, b)
    assert found.shape == (4, 5)
    expand = outputs.expand(4, 5, -1), others.expand(4, 5, -1)
    torch.testing.assert_close(found, kl_divergence(case.twin(expand[0]), case.twin(expand[1])), **EXACT)
    if case.states is not None:
        points = torch.from_numpy(case.states)[:, None, None]
        log_a, log_b = family.log_prob(a, points), family.log_prob(b, points)
        torch.testing.assert_close(found, (log_a.exp() * (log_a - log_b)).sum(0), **EXACT)
    torch.testing.assert_close(kl(a, a), torch.zeros(1, 5).double(), **EXACT)
    if family.factorised:
        assert unit_kl(a, b).shape == (4, 5, family.units)
        torch.testing.assert_close(unit_kl(a, b).sum(-1), found, **EXACT)


def test_kl_between_full_and_diagonal_gaussians() -> None:
    full, flat = CASES["full"], CASES["diagonal"]
    outputs, others = normal(4, 5, 9), normal(4, 5, 6, seed=5)
    a, b = full.make().distribution(outputs), flat.make().distribution(others)
    twin = MultivariateNormal(others[..., :3], torch.diag_embed(others[..., 3:].exp()))
    torch.testing.assert_close(kl(a, b), kl_divergence(full.twin(outputs), twin), **EXACT)
    torch.testing.assert_close(kl(b, a), kl_divergence(twin, full.twin(outputs)), **EXACT)


@pytest.mark.parametrize("pair", list(itertools.permutations(("diagonal", "full", "coins", "dice"), 2)))
def test_kl_between_different_kinds_is_refused(pair: tuple[str, str]) -> None:
    families = [CASES[name].make() for name in pair]
    distributions = [family.distribution(normal(family.n_outputs)) for family in families]
    if set(pair) != {"diagonal", "full"}:
        with pytest.raises(TypeError, match="no closed-form KL"):
            kl(*distributions)
    with pytest.raises(TypeError, match="no closed-form KL per unit"):
        unit_kl(*distributions)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standard_distribution(case: Case, dtype: torch.dtype) -> None:
    """N(0, I), fair Bernoulli units or fair categorical units, whatever variance the family has of its own; outputs 0
    start there."""
    family, value = case.make(), values(case, 6).to(dtype)
    standard = family.standard(value)
    if case.states is None:
        expected = stats.norm().logpdf(value).sum(-1)
        found = diagonal(standard.mean, standard.variance.log()).log_prob(value)
    else:
        expected = np.full(6, -math.log(len(case.states)))
        found = family.log_prob(standard, value)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == torch.float32 else 1e-12)
    if family.n_outputs > 3 or case.states is not None:
        start = family.distribution(family.standard_outputs().to(dtype))
        np.testing.assert_allclose(family.log_prob(start, value), expected, rtol=1e-6)


def test_natural_parameters_of_narrow_float32_distributions_lose_nothing() -> None:
    """mean²/variance and its kin nearly cancel: in float32 the sum would be off by tenths of a nat."""
    family = DiagonalGaussian(1)
    outputs, value = torch.tensor([3.0, -14.0]), torch.tensor([3.001])
    distribution = family.distribution(outputs)
    eta, normaliser = family.natural(distribution)
    found = (family.statistic(value.double()) * eta).sum(-1) - normaliser - math.log(2 * math.pi) / 2
    assert found.item() == pytest.approx(stats.norm(3.0, math.exp(-7)).logpdf(float(value)), abs=1e-6)


@every
def test_gradients_and_vmap(case: Case) -> None:
    """Under vmap: the same draws, scores, divergences and products, and their gradients, as one at a time."""
    family = case.make()
    outputs, others = normal(6, family.n_outputs), normal(6, family.n_outputs, seed=5)
    noise = torch.rand(6, family.noise_width, dtype=torch.float64, generator=torch.Generator().manual_seed(6))

    def score(outputs: Tensor, others: Tensor, noise: Tensor) -> Tensor:
        a, b = family.distribution(outputs), family.distribution(others)
        value = family.draw(a, noise)
        product = family.product(a, b)
        return kl(a, b) + family.log_prob(a, value) * family.log_prob(b, value) + family.log_prob(product, value)

    arguments = (outputs, others, noise)
    found = vmap(grad(score), randomness="error")(*arguments)
    alone = torch.stack([torch.func.grad(score)(*(argument[i] for argument in arguments)) for i in range(6)])
    assert found.abs().max() > 0.1
    torch.testing.assert_close(found, alone, **EXACT)
    assert torch.autograd.gradcheck(
        lambda outputs, others: vmap(score)(outputs, others, noise),
        (outputs.requires_grad_(), others.requires_grad_()),
        eps=1e-6,
    )


@every
def test_float32_agrees_with_float64(case: Case) -> None:
    family = case.make()
    outputs, value = normal(1, 50, family.n_outputs), values(case, 20, 1)
    exact = family.log_prob(family.distribution(outputs), value)
    single = case.make().float()
    found = single.log_prob(single.distribution(outputs.float()), value.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=3e-5)


# Extremes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_answer_1000_where_the_truth_is_1000(dtype: torch.dtype) -> None:
    family = Bernoulli(1)
    for logit, value, expected in ((1000, 0, -1000), (-1000, 1, -1000), (1e4, 1, 0), (-1e4, 0, 0), (1e4, 0, -1e4)):
        outputs = torch.tensor([float(logit)], dtype=dtype, requires_grad=True)
        found = family.log_prob(family.distribution(outputs), torch.tensor([float(value)], dtype=dtype))
        assert found.item() == expected
        (slope,) = torch.autograd.grad(found, outputs)
        assert slope.item() == (value - (logit > 0))
    by_probs = TorchBernoulli(probs=torch.tensor(1000.0).sigmoid(), validate_args=False).log_prob(torch.tensor(0.0))
    assert by_probs.item() == pytest.approx(-15.9, abs=0.1)  # the fault


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_categorical_and_divergences_at_extreme_logits(dtype: torch.dtype) -> None:
    categorical, bernoulli = Categorical(1, 3), Bernoulli(1)
    distribution = categorical.distribution(torch.tensor([1e4, 0.0, -1e4], dtype=dtype))
    found = categorical.log_prob(distribution, torch.eye(3, dtype=dtype))
    assert found.tolist() == [0, -1e4, -2e4]
    assert kl(distribution, categorical.distribution(torch.zeros(3, dtype=dtype))).item() == pytest.approx(
        math.log(3), rel=1e-6
    )
    assert kl(
        distribution, categorical.distribution(torch.tensor([-1e4, 0.0, 0.0], dtype=dtype))
    ).item() == pytest.approx(1e4, rel=1e-4)
    up, down = (bernoulli.distribution(torch.tensor([sign * 1e4], dtype=dtype)) for sign in (1, -1))
    assert kl(up, down).item() == kl(down, up).item() == 1e4
    for noise in (0.0, 0.5, 1 - 1e-7):
        assert bernoulli.draw(up, torch.tensor([noise], dtype=dtype)).item() == 1
        assert bernoulli.draw(down, torch.tensor([noise], dtype=dtype)).item() == 0
        assert categorical.draw(distribution, torch.full((3,), noise, dtype=dtype)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_match_of_certain_bernoulli_and_categorical_is_finite(dtype: torch.dtype) -> None:
    """A unit that is on for every datum, at a logit where its probability has rounded to 1."""
    bernoulli, categorical = Bernoulli(2), Categorical(1, 3)
    distributions = bernoulli.distribution(torch.tensor([[50.0, -40.0], [50.0, -41.0]], dtype=dtype))
    matched = bernoulli.match(distributions)
    assert isinstance(matched, Independent)
    expected = [50.0, math.log((math.exp(-40) + math.exp(-41)) / 2)]
    assert matched.base_dist.logits.tolist() == pytest.approx(expected, rel=1e-6)
    assert kl(distributions, matched).isfinite().all()
    rolls = categorical.distribution(torch.tensor([[200.0, 0.0, 0.0], [200.0, 1.0, 0.0]], dtype=dtype))
    matched = categorical.match(rolls)
    mean = math.log((1 + math.e) / 2) - 200
    assert categorical.log_prob(matched, torch.eye(3, dtype=dtype)).tolist() == pytest.approx([0, mean, -200], rel=1e-6)
    assert kl(rolls, matched).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_variance", [-1e4, -80.0, 80.0, 1e4])
def test_log_variances_are_clamped_and_everything_stays_finite(log_variance: float, dtype: torch.dtype) -> None:
    family = DiagonalGaussian(1)
    outputs = torch.tensor([0.5, log_variance], dtype=dtype, requires_grad=True)
    clamped = math.copysign(20, log_variance)
    distribution = family.distribution(outputs)
    assert family.draw(distribution, torch.tensor([2.0])).item() == pytest.approx(
        0.5 + 2 * math.exp(clamped / 2), rel=1e-5
    )
    found = family.log_prob(distribution, torch.tensor([0.25], dtype=dtype))
    assert found.item() == pytest.approx(stats.norm(0.5, math.exp(clamped / 2)).logpdf(0.25), rel=1e-5)
    standard = family.standard(distribution.mean)
    divergence = kl(distribution, standard) + kl(standard, distribution)
    assert divergence.isfinite().all() and divergence > 0
    (slope,) = torch.autograd.grad(found.sum() + divergence.sum(), outputs)
    assert slope.isfinite().all() and slope[1] == 0


def test_full_gaussian_clamps_its_diagonal() -> None:
    family = FullGaussian(2)
    for extreme, std in ((80.0, math.exp(10)), (-80.0, math.exp(-10))):
        outputs = torch.tensor([0.0, 0.0, 0.0, extreme, extreme], dtype=torch.float64)
        expected = stats.norm(0, std).logpdf(1e-4) * 2
        found = family.log_prob(family.distribution(outputs), torch.full((2,), 1e-4, dtype=torch.float64))
        assert found.item() == pytest.approx(expected, rel=1e-10)
