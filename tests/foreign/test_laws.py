"""`hvae.law`, `hvae.pushed` and `hvae.masked` alone: densities by formula, draws, refusals."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Dirichlet, Gamma, Independent, MultivariateNormal, Normal

import hvae
from hvae.errors import NotMeasuredError
from hvae.foreign.draws import draw, noise_kind, noise_width, score
from hvae.foreign.laws import summed
from tests.statistics import assert_mean

ROWS = 6


def test_sums_are_in_float64_and_one_a_row() -> None:
    terms = torch.full((2, 1000, 3), 0.1)
    assert summed(terms).dtype == torch.float64 and summed(terms).shape == (2,)
    assert summed(terms[:, 0, 0]).shape == (2,)
    torch.testing.assert_close(summed(terms), torch.full((2,), 3000 * 0.1).double(), rtol=1e-7, atol=0)


def log_normal(mean: Tensor, *, inverse: bool) -> hvae.foreign.laws.Pushed:
    push = lambda e: (e.exp(), e)  # noqa: E731
    pull = lambda z: (z.log(), z.log())  # noqa: E731
    return hvae.pushed(Normal(mean, 1.0), push, pull if inverse else None)


@pytest.mark.parametrize("inverse", [True, False])
def test_a_push_forward_has_the_density_of_the_change_of_variables(inverse: bool) -> None:
    mean = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0))
    flow = log_normal(mean, inverse=inverse)
    noise = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(1))
    z, log_q = draw(flow, noise)
    assert log_q is not None and torch.equal(z, (mean + noise).exp())
    own = torch.distributions.LogNormal(mean, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(log_q.float(), own, rtol=1e-5, atol=1e-5)
    if inverse:
        torch.testing.assert_close(score(flow, z).float(), own, rtol=1e-5, atol=1e-5)
    else:
        with pytest.raises(NotMeasuredError, match=r"hand `pull` to hvae.pushed"):
            score(flow, z)


def test_a_log_determinant_of_a_row_or_of_each_element() -> None:
    base, e = Normal(torch.zeros(ROWS, 2, 3), 1.0), torch.ones(ROWS, 2, 3)
    once = hvae.pushed(base, lambda e: (2 * e, torch.full((ROWS,), 6 * 0.6931472)))
    each = hvae.pushed(base, lambda e: (2 * e, torch.full_like(e, 0.6931472)))
    torch.testing.assert_close(once.scored(e)[1], each.scored(e)[1])


MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])


def test_what_is_masked_has_no_density_and_no_value() -> None:
    law = Normal(torch.zeros(3, 3), torch.arange(1.0, 4.0))
    part = hvae.masked(law, MASK, fill=float("nan"))
    noise = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    value, _ = draw(part, noise)
    assert torch.equal(value.isnan(), ~MASK)
    assert torch.equal(value[MASK], draw(law, noise)[0][MASK])
    expected = torch.stack([law.log_prob(value.nan_to_num())[row][MASK[row]].sum() for row in range(3)])
    torch.testing.assert_close(score(part, value).float(), expected)
    assert torch.equal(score(part, value), score(part, value.nan_to_num(7.0)))


def test_a_mask_of_fewer_axes_covers_whole_elements() -> None:
    """``[rows, T]`` over ``[rows, T, D]``: independent vectors, one-hot states, and vectors of full covariance."""
    full = MultivariateNormal(torch.zeros(3, 3, 2), torch.eye(2))
    for law in (full, Normal(torch.zeros(3, 3, 2), 1.0), Independent(Normal(torch.zeros(3, 3, 2), 1.0), 2)):
        part = hvae.masked(law, MASK)
        value = draw(part, torch.ones(3, noise_width(part, True)))[0]
        assert value.shape == (3, 3, 2) and (value[~MASK] == 0).all()
        torch.testing.assert_close(score(part, value).float(), MASK.sum(1) * (-1.8378771 - 1.0))


def test_a_mask_over_dependent_elements_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a mask of shape .* stands over elements that depend on each other"):
        hvae.masked(MultivariateNormal(torch.zeros(3, 3), torch.eye(3)), MASK)


@pytest.mark.parametrize(
    "law",
    [
        Gamma(torch.ones(3, 3), 1.0), Bernoulli(torch.full((3, 3), 0.3)), Categorical(torch.ones(3, 3, 4)),
        Dirichlet(torch.ones(3, 3, 4)), torch.distributions.OneHotCategorical(torch.ones(3, 3, 4)),
        torch.distributions.Poisson(torch.ones(3, 3)), torch.distributions.Beta(torch.ones(3, 3), 2.0),
    ],
    ids=lambda law: type(law).__name__,
)  # fmt: skip
def test_what_fills_the_holes_need_not_be_admissible(law: torch.distributions.Distribution) -> None:
    """With torch's validation on: -9 is no value of any of these."""
    part = hvae.masked(law, MASK, fill=-9)
    value = draw(part, torch.rand(3, noise_width(part, True), generator=torch.Generator().manual_seed(0)))[0]
    assert (value[~MASK] == -9).all() and score(part, value).isfinite().all()
    inside = law.log_prob(torch.where(value == -9, law.sample(), value))
    expected = torch.stack([inside[row][MASK[row]].sum() for row in range(3)])
    torch.testing.assert_close(score(part, value).float(), expected)


def test_masked_coins_are_drawn_by_a_map_of_noise() -> None:
    """False alarms 1e-6, and a shift of 0.05 would be seen."""
    n = 20_000
    part = hvae.masked(Bernoulli(torch.tensor([0.2, 0.7]).expand(n, 2)), torch.tensor([True, False]).expand(n, 2))
    assert noise_kind(part) == "uniform"
    value = draw(part, torch.rand(n, 2, generator=torch.Generator().manual_seed(0)))[0]
    assert_mean(value.numpy(), [0.2, 0.0], detect=0.05)


def test_a_law_draws_under_a_seed_of_the_noise() -> None:
    law = hvae.law(lambda z: -z.square().sum(-1), lambda: torch.randn(ROWS, 2))
    state, noise = torch.random.get_rng_state(), torch.rand(ROWS, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(law, noise)[0], draw(law, noise)[0])
    assert not torch.equal(draw(law, noise)[0], draw(law, 1 - noise)[0])
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(NotMeasuredError, match="was given no function that draws"):
        draw(hvae.law(lambda z: -z.square().sum(-1)), noise)
