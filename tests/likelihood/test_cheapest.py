"""The cheapest bound: unbiased weights whatever was chosen, when it stops, what it says where it does not get there."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.exact.known_stacks import KnownStack, binary_stack, linear_stack
from hvae.families import Bernoulli, DiagonalGaussian
from hvae.likelihood import Spending, cheapest, cheapest_bound, log_likelihood_curve
from hvae.likelihood.annealing import Annealed, Annealing, Path
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.spending import ANNEALED, BUDGET, IMPORTANCE, MARGIN, REFINED, Bound
from hvae.likelihood.target import Target, from_encoder
from hvae.likelihood.weights import estimate
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior
from tests.statistics import assert_mean


def bound_of(stack: KnownStack, n_times: int, spending: Spending, seed: int = 0) -> tuple[Bound, np.ndarray]:
    """The bound of every datum, ``n_times`` over with draws of its own; and the exact log p(x)."""
    x = stack.x.repeat(n_times, 1)
    _, found = cheapest_bound(stack.model, x, (1, spending.n_samples), spending, seed=seed, chunk_data=256)
    return found, stack.reference.log_px(x).detach().numpy()


def assert_unbiased(found: Bound, exact: np.ndarray, detect: float) -> None:
    """E exp(log_px) = p(x), so log_px is a lower bound in expectation. False alarm 1e-6; sees a factor 1 + detect."""
    assert_mean(np.exp(found.estimate.log_px - exact), 1.0, detect=detect)
    assert found.estimate.direction == "lower"


def test_the_draws_that_are_needed_by_hand() -> None:
    """3 (K / ess - 1) / se^2, at least the 10^(1 / (1 - k)) draws that a k-hat takes, infinite for too heavy a tail."""
    ess, k_hat = np.array([50.0, 100.0, 99.0, 100.0, 4.0]), np.array([0.2, 0.5, np.nan, 0.9, 0.2])
    pilot = Estimate(np.zeros(5), "lower", np.ones(5), ess, pareto_k=k_hat, n_samples=100)
    found = Spending(200, until_se=0.1).needed(pilot, 0.7)
    wanted = [MARGIN * 100.0, 100.0, MARGIN * 100 / 99 - MARGIN, math.inf, math.inf]
    wanted[2] *= 100
    np.testing.assert_allclose(found, wanted, atol=0, rtol=1e-12)


# whatever is chosen, the weights that count are unbiased


@pytest.mark.parametrize(("strength", "encoder"), [(1.0, "best"), (1.0, "over-confident"), (0.3, "tilted")])
def test_the_mean_weight_is_p_of_x_where_methods_mix(strength: float, encoder: str) -> None:
    found, exact = bound_of(linear_stack(strength, encoder, seed=0), 200, Spending(200, until_se=0.2))
    assert REFINED in found.method
    assert_unbiased(found, exact, detect=0.15)


def test_the_mean_weight_of_chains_is_p_of_x(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvae.likelihood.spending.SMALLEST_ESS", math.inf)  # no pilot is ever good enough
    found, exact = bound_of(linear_stack(1.0, "over-confident", seed=0), 50, Spending(1000))
    assert set(found.method) == {ANNEALED}
    assert_unbiased(found, exact, detect=0.06)


def test_chains_are_as_many_as_the_pilots_spread_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times ``(exp(variance) - 1) / se²``, and a power of 2 not below that: 32 at least, what is left at most."""
    monkeypatch.setattr("hvae.likelihood.spending.SMALLEST_ESS", math.inf)
    wanted, se = np.array([1.0, 33.0, 50.0, 64.5, 69.0, 1e9]), 0.2
    variance = torch.from_numpy(np.log1p(wanted * se**2 / 3))
    counted: list[tuple[int, int]] = []

    def run_forward(target: Target, path: Path, budget: Annealing, seed: int, purpose: str) -> Annealed:
        n = budget.n_chains
        signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(n // 2)[:, None]
        log_weight = (variance * (n - 1) / n).sqrt() * signs
        if not purpose.endswith("/pilot"):
            counted.append((target.n_data, n))
            log_weight = torch.zeros(n, target.n_data).double()
        return Annealed(estimate(log_weight), torch.empty(0), log_weight, 1.0)

    monkeypatch.setattr(cheapest, "tune", lambda target, *_: Path((0.0, 1.0), torch.ones(1, target.n_data)))
    monkeypatch.setattr(cheapest, "run_forward", run_forward)
    stack = linear_stack(1.0, "over-confident", seed=0)
    cheapest_bound(stack.model, stack.x, (1, 4000), Spending(4000, se), seed=0)
    assert counted == [(1, 32), (3, 64), (2, 70)], "70 chains at most"


def test_the_mean_weight_of_discrete_layers_is_p_of_x() -> None:
    found, exact = bound_of(binary_stack(0.3, "tilted", seed=0), 150, Spending(100, until_se=0.2))
    assert set(found.method) == {IMPORTANCE} and len(set(found.evaluations)) > 1
    assert_unbiased(found, exact, detect=0.1)


class Switch(nn.Module):
    """Logits 40 where z is 1, else -40."""

    def forward(self, z: Tensor) -> Tensor:
        return 80 * z - 40


def coin() -> HVAE:
    """p(x = 1) = 1/2: z is a fair coin, q(z|x) is it too, and x = z. So a weight is 0 or 1."""
    half = Conditional("z1", [], Root(torch.zeros(1).double(), learned=False), Bernoulli(1))
    decoder = BeliefNetwork([half, Conditional("x", ["z1"], Switch(), Bernoulli(1))])
    blind = nn.Linear(1, 1, dtype=torch.float64)
    nn.init.zeros_(blind.weight)
    nn.init.zeros_(blind.bias)
    return HVAE(decoder, NetworkPosterior(BeliefNetwork([Conditional("z1", ["x"], blind, Bernoulli(1))])))


def test_draws_that_stop_do_not_count() -> None:
    """Weights of 0 or 1, stopped where there were many ones: with the pilot among the counted, p(x) is 8 % too high."""
    x = torch.ones(3000, 1, dtype=torch.float64)
    _, found = cheapest_bound(coin(), x, (1, 50), Spending(50, until_se=0.35), seed=0, chunk_data=1000)
    stopped = found.evaluations == 50
    assert 0.25 < stopped.mean() < 0.75
    assert_mean(np.exp(found.estimate.log_px), 0.5, detect=0.025)
    assert_mean(np.exp(found.estimate.log_px)[stopped], 0.5, detect=0.035)


def test_the_curve_is_that_of_the_encoder_alone() -> None:
    stack = linear_stack(3.0, "tilted", seed=0)
    curve, _ = cheapest_bound(stack.model, stack.x, (1, 10, 100), Spending(100), seed=3)
    alone = log_likelihood_curve(stack.model, stack.x, (1, 10, 100), seed=3)
    np.testing.assert_array_equal(curve.bound_datum_nats, alone.bound_datum_nats)


# when it stops


def test_an_exact_posterior_costs_no_more_than_the_curve() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    assert isinstance(stack.reference, LinearGaussian)
    model = HVAE(stack.model.decoder, stack.reference.exact_posterior("bottom-up"))
    _, found = cheapest_bound(model, stack.x, (1, 100), Spending(100), seed=0)
    assert set(found.evaluations) == {100.0} and found.reached.all() and set(found.method) == {IMPORTANCE}
    np.testing.assert_allclose(found.estimate.log_px, stack.reference.log_px(stack.x).detach().numpy(), atol=1e-10)


@pytest.mark.parametrize("stack", [linear_stack(10.0, "over-confident", 0), binary_stack(10.0, "tilted", 0)])
@pytest.mark.parametrize("n_samples", [2, 60, 1000])
def test_the_budget_is_kept(stack: KnownStack, n_samples: int) -> None:
    spending = Spending(n_samples, until_se=0.001)
    _, found = cheapest_bound(stack.model, stack.x, (1, n_samples), spending, seed=0)
    assert (found.evaluations <= BUDGET * n_samples).all() and (found.evaluations >= n_samples).all()
    if stack.family == "binary" and n_samples > 2:
        assert not found.reached.any()
        assert "6 of 6 data did not reach a standard error of 0.001 nats within the budget" in found.note


def test_more_is_spent_where_less_error_is_wanted() -> None:
    stack = binary_stack(1.0, "tilted", seed=0)
    cost = [
        cheapest_bound(stack.model, stack.x, (1, 1000), Spending(1000, until_se), seed=0)[1].evaluations.mean()
        for until_se in (1.0, 0.1, 0.02)
    ]
    assert cost == sorted(cost) and cost[0] < cost[-1]


def test_a_wanted_error_is_reached_where_importance_sampling_is_nats_off() -> None:
    """Strong couplings, 0.4 of the deviations: L_1000 is nats too low; the fit is exact, since log w is quadratic."""
    stack = linear_stack(10.0, "over-confident", seed=0)
    exact = stack.reference.log_px(stack.x).detach().numpy()
    curve, found = cheapest_bound(stack.model, stack.x, (1, 1000), Spending(1000), seed=0)
    assert (exact - curve.estimate.log_px).mean() > 1 and curve.estimate.warning
    assert found.reached.all() and set(found.method) == {REFINED} and found.estimate.warning == ""
    np.testing.assert_allclose(found.estimate.log_px, exact, atol=0.5)


def test_without_gradients_there_are_importance_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(model: HVAE, x: Tensor) -> Target:
        target = from_encoder(model, x)
        return Target(lambda noise: target.log_weight(noise.detach()), target.specs, target.like)

    monkeypatch.setattr(cheapest, "from_encoder", cut)
    stack = linear_stack(3.0, "over-confident", seed=0)
    _, found = cheapest_bound(stack.model, stack.x, (1, 1000), Spending(1000), seed=0)
    assert set(found.method) == {IMPORTANCE} and found.evaluations.max() > 1000


@pytest.mark.parametrize("wrong", [0.0, -0.1, math.nan, math.inf])
def test_an_error_that_cannot_be_wanted_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="give a standard error above 0 nats"):
        Spending(1000, wrong)


# the case of data that q never meets


def hopeless(share: float, n: int = 300) -> tuple[HVAE, Tensor, np.ndarray]:
    """z ~ N(0, 1), x1 | z ~ N(z, .1), x2 ~ N(0, 1) apart; q is exact where x2 = 0, 16.6 deviations off else."""
    source = np.random.default_rng(0)
    x2 = (np.arange(n) < share * n).astype(float)
    x1 = source.normal(size=n) * 1.1**0.5
    exact = -0.5 * x1**2 / 1.1 - 0.5 * np.log(2 * np.pi * 1.1) - 0.5 * x2**2 - 0.5 * np.log(2 * np.pi)

    def linear(weight: list[list[float]], log_variance: list[float]) -> nn.Linear:
        net = nn.Linear(len(weight[0]), 2 * len(weight), dtype=torch.float64)
        with torch.no_grad():
            net.weight.copy_(torch.tensor(weight + [[0.0] * len(weight[0])] * len(weight)))
            net.bias.copy_(torch.tensor([0.0] * len(weight) + log_variance))
        return net

    prior = Conditional("z1", [], Root(torch.zeros(2).double(), learned=False), DiagonalGaussian(1))
    seen = Conditional("x", ["z1"], linear([[1.0], [0.0]], [math.log(0.1), 0.0]), DiagonalGaussian(2))
    q = Conditional("z1", ["x"], linear([[1 / 1.1, 5.0]], [math.log(0.1 / 1.1)]), DiagonalGaussian(1))
    model = HVAE(BeliefNetwork([prior, seen]), NetworkPosterior(BeliefNetwork([q]))).requires_grad_(False)
    return model, torch.tensor(np.stack([x1, x2], 1)), exact


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_few_hopeless_data_are_warned_of_by_nats_and_mended(share: float) -> None:
    """The share of doubtful data is small; the mean of L_1000 is 1.8 or 4.6 nats low all the same."""
    model, x, exact = hopeless(share)
    curve, found = cheapest_bound(model, x, (1, 1000), Spending(1000), seed=0)
    error = exact.mean() - curve.estimate.log_px.mean()
    assert error > 80 * share
    assert sum(curve.estimate.doubt_nats) == pytest.approx(error, rel=0.1)
    assert curve.estimate.warning.startswith("Not to be believed as log p(x): its mean may lie")
    assert found.estimate.warning == "" and found.reached.all()
    np.testing.assert_allclose(found.estimate.log_px, exact, atol=0.2)
    far = x[:, 1].numpy() == 1
    assert set(np.array(found.method)[far]) == {REFINED} and set(np.array(found.method)[~far]) == {IMPORTANCE}


# what doubt is made of


def test_halving_and_reach_by_hand() -> None:
    log_weight = torch.tensor(np.random.default_rng(0).normal(size=(40, 3)) - 700)
    found, w = estimate(log_weight), np.exp(log_weight.numpy() + 700)
    halves = (np.log(w[:20].mean(0)) + np.log(w[20:].mean(0))) / 2
    np.testing.assert_allclose(found.halving, np.log(w.mean(0)) - halves, atol=1e-10)
    by_cumulants = log_weight.numpy().mean(0) + log_weight.numpy().var(0) / 2
    np.testing.assert_allclose(found.reach, (by_cumulants - found.log_px).clip(0), atol=1e-10)
    upper = estimate(log_weight, "upper")
    np.testing.assert_allclose(upper.log_px, -found.log_px, atol=1e-10)
    assert (upper.halving >= 0).all()


def test_a_weight_of_zero_leaves_the_reach_unknown() -> None:
    log_weight = torch.zeros(40, 2).double()
    log_weight[0, 0] = -math.inf
    found = estimate(log_weight)
    assert np.isnan(found.reach[0]) and found.reach[1] == 0


def test_the_same_bits_wherever_things_lie_in_memory() -> None:
    """A run that is measured again has the same arrays. LAPACK's default least squares differ in the last digits."""
    stack, kept, found = linear_stack(1.0, "over-confident", seed=0), [], set()
    for n in range(12):
        kept += [np.empty(100 + 17 * n), torch.empty(33 + 7 * n)]
        bound, _ = bound_of(stack, 1, Spending(200, until_se=0.05))
        found.add((bound.estimate.log_px.tobytes(), bound.estimate.ess.tobytes()))
    assert REFINED in bound.method and len(found) == 1
