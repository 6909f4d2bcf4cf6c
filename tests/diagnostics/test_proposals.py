"""Proposals for what is left of a stack: their weights against exact marginals, and when they are trusted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.diagnostics.marginals import Marginal, Sampling, best_marginal, measured
from hvae.diagnostics.proposals import PROPOSALS, spread
from hvae.diagnostics.rest import Rest
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family
from hvae.likelihood import Estimate
from hvae.likelihood.annealing import Annealing
from hvae.likelihood.refinement import Refinement, linearise, scaled
from hvae.likelihood.sandwich import simulate
from hvae.likelihood.target import Target
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior
from tests.exact import stacks
from tests.statistics import assert_mean

WIDTHS = (5, 3, 2, 2)
QUICK = Refinement(n_steps=60, n_samples=4, n_iterations=4)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(4, WIDTHS[0], dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def noisy(posterior: Posterior, factor: float = 1.2) -> Posterior:
    """A posterior of full Gaussians, each a little too wide and shifted: imperfect, with bounded weights."""
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        for name in posterior.order:
            scale = posterior.network[name].family.scale
            assert isinstance(scale, Tensor)
            scale[-posterior.network[name].family.units :] += math.log(factor)
            posterior.network[name].net.bias += 0.1  # type: ignore[operator]
    return posterior


def linear(order: str, *, skips: bool = False) -> HVAE:
    network = stacks.decoder(WIDTHS, skips=skips, scale=0.7)
    return HVAE(network, noisy(LinearGaussian.of(network).exact_posterior(order)))  # type: ignore[arg-type]


def drawn(model: HVAE, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Values of the named latents from one path of q, ``[1, B, D]``."""
    source = torch.Generator().manual_seed(3)
    noise = {
        name: torch.rand(1, len(x), width, generator=source, dtype=x.dtype)
        if kind == "uniform"
        else torch.randn(1, len(x), width, generator=source, dtype=x.dtype)
        for name, (kind, width) in model.noise_specs().items()
    }
    with torch.no_grad():
        trace = model.infer(x.unsqueeze(0), noise)
    return {name: trace[name].value for name in names}


# What is left of a stack


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_with_exact_conditionals_every_weight_is_the_exact_marginal(order: str, skips: bool, x: Tensor) -> None:
    """log p(given, x) at 1e-10, draw by draw, for all that may be given; q is far off for the given ones."""
    network = stacks.decoder(WIDTHS, skips=skips)
    reference = LinearGaussian.of(network)
    model = HVAE(network, reference.exact_posterior(order))  # type: ignore[arg-type]
    names = model.posterior.order
    for n_given in range(len(names)):
        given = {name: 2 * value + 1 for name, value in drawn(model, x, names[:n_given]).items()}
        found = best_marginal(model, x, given, Sampling(64, 0, ("q",)))
        exact = reference.log_prob({"x": x, **{name: value[0] for name, value in given.items()}})
        np.testing.assert_allclose(found.estimate.log_px, exact.numpy(), atol=1e-10, rtol=0)
        np.testing.assert_allclose(found.estimate.ess, 64)
        assert found.what == f"log p({', '.join(['x', *names[:n_given]])})"


def test_what_the_free_latents_do_not_touch_is_evaluated_once(x: Tensor) -> None:
    """With z1 given, bottom-up, p(x|z1) sees B rows in all, and the encoder of z1 none."""
    model = linear("bottom-up")
    rows = {"p(x|z1)": 0, "q(z1|x)": 0, "p(z1|z2)": 0}
    assert isinstance(model.posterior, NetworkPosterior)
    watched = (model.decoder["x"], model.posterior.network["z1"], model.decoder["z1"])
    for name, conditional in zip(rows, watched, strict=True):

        def count(net: nn.Module, given: tuple[Tensor, ...], outputs: Tensor, name: str = name) -> None:
            rows[name] += outputs[..., 0].numel()

        conditional.net.register_forward_hook(count)
    given = drawn(model, x, ("z1",))
    rows.update(dict.fromkeys(rows, 0))
    best_marginal(model, x, given, Sampling(100, 0, ("widened",)))
    assert rows == {"p(x|z1)": 4, "q(z1|x)": 0, "p(z1|z2)": 400}


# Every proposal's weights are unbiased


def ratios(rest: Rest, exact: Tensor, proposal: str, n_samples: int) -> np.ndarray:
    """w / p(given, x), averaged over data: one number a draw, of mean 1."""
    with torch.no_grad():
        draw = PROPOSALS[proposal].sampler(rest, QUICK, 0, "test")
        log_weight = torch.cat([draw(chunk, 2000) for chunk in range(n_samples // 2000)])
    return (log_weight - exact).exp().mean(1).numpy()


@pytest.mark.parametrize("proposal", [name for name in PROPOSALS if name != "prior"])
@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_gaussian_weights_are_unbiased(order: str, proposal: str, x: Tensor) -> None:
    """E[w / p] = 1 for log p(x) and for what is left after one latent; finds a bias of 5 %."""
    model = linear(order)
    reference = LinearGaussian.of(model.decoder)
    given = drawn(model, x, model.posterior.order[:1])
    for fixed in ({}, given):
        exact = reference.log_prob({"x": x, **{name: value[0] for name, value in fixed.items()}})
        assert_mean(ratios(Rest.of(model, x, fixed), exact, proposal, 20_000), 1.0, detect=0.045)


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_weights_of_the_prior_are_unbiased(order: str, x: Tensor) -> None:
    """The same on a stack of weak couplings, where they have a variance; with z1 given, and with the top."""
    network = stacks.decoder(WIDTHS, scale=0.15)
    reference = LinearGaussian.of(network)
    model = HVAE(network, reference.exact_posterior(order))  # type: ignore[arg-type]
    near = simulate(model, len(x), 0, x)[0]
    for fixed in ({}, drawn(model, near, model.posterior.order[:1])):
        exact = reference.log_prob({"x": near, **{name: value[0] for name, value in fixed.items()}})
        assert_mean(ratios(Rest.of(model, near, fixed), exact, "prior", 40_000), 1.0, detect=0.045)


def bernoulli(order: str, families: tuple[Family, Family], seed: int = 0) -> HVAE:
    """Two layers of the given families and x of three Bernoulli units, weights at random."""
    source = torch.Generator().manual_seed(seed)

    def net(n_in: int, n_out: int) -> nn.Linear:
        layer = nn.Linear(n_in, n_out, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(0.5 * torch.randn(n_out, n_in, generator=source, dtype=torch.float64))
            layer.bias.copy_(0.3 * torch.randn(n_out, generator=source, dtype=torch.float64))
        return layer

    z1, z2 = families
    down = BeliefNetwork(
        [
            Conditional("z2", [], Root(z2.standard_outputs().double() + 0.2, learned=False), z2),
            Conditional("z1", ["z2"], net(z2.width, z1.n_outputs), z1),
            Conditional("x", ["z1"], net(z1.width, 3), Bernoulli(3)),
        ]
    )
    up = BeliefNetwork(
        [
            Conditional("z1", ["x"], net(3, z1.n_outputs), z1),
            Conditional("z2", ["z1"], net(z1.width, z2.n_outputs), z2),
        ]
    )
    return HVAE(down, Ladder(up) if order == "top-down" else NetworkPosterior(up))


def enumerated(model: HVAE, x: Tensor) -> Tensor:
    """log p(x) by all states of two discrete layers, with the families' own log-probabilities."""

    def states(family: Family) -> Tensor:
        one = torch.eye(family.width // family.units) if isinstance(family, Categorical) else torch.tensor([[0.0], [1]])
        index = torch.cartesian_prod(*[torch.arange(len(one))] * family.units).reshape(-1, family.units)
        return one[index].flatten(1).double()

    z1, z2 = (states(model.decoder[name].family) for name in ("z1", "z2"))
    pairs = {"z1": z1.repeat(len(z2), 1).unsqueeze(1), "z2": z2.repeat_interleave(len(z1), 0).unsqueeze(1)}
    trace = model.decoder.walk({**pairs, "x": x.unsqueeze(0)}, {})
    return sum(site.log_prob for site in trace.values()).logsumexp(0)  # type: ignore[union-attr]


@pytest.mark.parametrize("proposal", ["q", "widened"])
@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
@pytest.mark.parametrize(
    "families", [(Bernoulli(3), Bernoulli(2)), (Categorical(2, 3), Bernoulli(2))], ids=["coins", "dice"]
)
def test_discrete_weights_are_unbiased(families: tuple[Family, Family], order: str, proposal: str) -> None:
    model = bernoulli(order, families)
    x = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=torch.float64)
    exact = enumerated(model, x).detach()
    assert_mean(ratios(Rest.of(model, x, {}), exact, proposal, 40_000), 1.0, detect=0.06)


def test_a_gaussian_below_bernoulli_is_widened_too() -> None:
    """Mixed stacks: log p(x) over the Bernoulli units by enumeration, over the Gaussian unit by the trapezoid rule."""
    model = bernoulli("bottom-up", (DiagonalGaussian(1).double(), Bernoulli(2)))
    x = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=torch.float64)
    grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    terms = []
    for state in ([0, 0], [0, 1], [1, 0], [1, 1]):
        given = {"z2": torch.tensor([[state]], dtype=torch.float64), "z1": grid[:, None, None], "x": x.unsqueeze(0)}
        trace = model.decoder.walk(given, {})
        terms.append(sum(site.log_prob for site in trace.values()).logsumexp(0) + math.log(120 / 60_000))  # type: ignore[union-attr]
    exact = torch.stack(terms).logsumexp(0).detach()
    assert_mean(ratios(Rest.of(model, x, {}), exact, "widened", 40_000), 1.0, detect=0.06)


@pytest.mark.parametrize("n_wide", [0, 1])
def test_the_widened_weight_is_bounded_by_both_halves(n_wide: int, x: Tensor) -> None:
    """With q exact the weight of the mixture lies below 2 p(x), however far out; s² = 1 + 2/sqrt D."""
    network = stacks.decoder(WIDTHS)
    model = HVAE(network, LinearGaussian.of(network).exact_posterior("bottom-up"))
    exact = LinearGaussian.of(network).log_px(x)
    log_ratio = PROPOSALS["widened"].sampler(Rest.of(model, x, {}), QUICK, 0, "test")(0, 5000) - exact
    assert log_ratio.max() < math.log(2)
    assert log_ratio.min() < -3  # some draws do come from far out
    assert spread(4) == pytest.approx(math.sqrt(2))


def test_full_covariance_is_exact_where_the_posterior_is_gaussian(x: Tensor) -> None:
    """From an encoder that is far off: constant weights after the fit, whatever the noise."""
    network = stacks.decoder(WIDTHS)
    model = HVAE(network, NetworkPosterior(stacks.encoder(WIDTHS, scale=0.5)))
    target = Rest.of(model, x, {}).target()
    moved = target.moved(*linearise(target, Refinement(), seed=0, purpose="test"))
    spread_nats = moved.log_weight(target.noise(200, seed=1, purpose="other")) - LinearGaussian.of(network).log_px(x)
    assert spread_nats.abs().max() < 1e-8  # conditioning: log-weights of q itself range over thousands of nats


def test_full_covariance_finds_the_gaussian_of_least_divergence() -> None:
    """log w = -cosh(3 ε) in one dimension: E ∇ = 0 and -E ∇² = 1 at the answer, by quadrature."""
    like = torch.zeros(1, 1, dtype=torch.float64)
    target = Target(lambda noise: -(3 * (noise - 0.3)).cosh().sum(-1), {"z": ("normal", 1)}, like)
    fits = [linearise(target, Refinement(), seed=seed, purpose="test") for seed in range(60)]
    nodes = np.linspace(-9, 9, 2001)
    weights = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
    mean, deviation = 0.0, 1.0
    for _ in range(200):
        at = mean + deviation * nodes
        slope, curvature = -3 * np.sinh(3 * (at - 0.3)) - at, 9 * np.cosh(3 * (at - 0.3)) + 1
        deviation = (weights @ curvature) ** -0.5
        mean += deviation**2 * (weights @ slope)
    found = np.array([[float(shift), float(tril)] for shift, tril in fits])
    # each fit is Newton's step from 20 draws, so the mean over fits is off by its curvature: 2 % is what 20 draws leave
    assert found.mean(0) == pytest.approx([mean, deviation], abs=0.02)


def test_full_covariance_is_found_where_newtons_step_overshoots() -> None:
    """log w = -5 sqrt(1 + 100 (ε - 3)²), straight far from its kink, so that a whole step lands 40 deviations off."""
    like = torch.zeros(1, 1, dtype=torch.float64)

    def log_weight(noise: Tensor) -> Tensor:
        return -5 * (1 + 100 * (noise - 3).square()).sqrt().sum(-1)

    target = Target(log_weight, {"z": ("normal", 1)}, like)
    nodes = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    weights = torch.softmax(-nodes.square() / 2, 0)

    def bound(shift: float, scale: float) -> float:
        at = shift + scale * nodes
        return float(weights @ (log_weight(at[:, None]) + (nodes.square() - at.square()) / 2)) + math.log(scale)

    best = max(bound(m, s) for m in np.linspace(2.8, 3, 41) for s in np.geomspace(0.01, 0.5, 60))
    shift, scale_tril = linearise(target, Refinement(n_iterations=20), seed=0, purpose="test")
    assert best - 0.1 < bound(float(shift), float(scale_tril)) < best + 1e-3  # 20 draws a step leave 0.1 nats


# Trust


def marginal(proposal: str = "widened", halving: float = 0.001, n: int = 100, **changes: object) -> Marginal:
    good = Estimate(np.zeros(n), "lower", np.full(n, 0.01), np.full(n, 201.0), np.full(n, 0.69), 1000)
    return Marginal("log p(x)", replace(good, **changes), np.full(n, halving), proposal)  # type: ignore[arg-type]


def some(n_bad: int, good: float, bad: float) -> np.ndarray:
    return np.where(np.arange(100) < n_bad, bad, good)


@pytest.mark.parametrize(
    ("trusted", "changes"),
    [
        (True, {}),
        (True, {"ess": some(5, 201, 200)}),
        (False, {"ess": some(6, 201, 200)}),
        (True, {"pareto_k": some(5, 0.69, 0.7)}),
        (False, {"pareto_k": some(6, 0.69, 0.7)}),
        (False, {"pareto_k": some(6, 0.69, math.inf)}),
        (False, {"ess": some(3, 201, 1), "pareto_k": some(3, 0.69, 0.7)[::-1]}),
        (True, {"halving": 0.0099}),
        (False, {"halving": 0.0101}),
        (False, {"halving": math.inf}),
        (False, {"halving": math.nan}),
        (True, {"pareto_k": np.full(100, math.nan), "ess": np.full(100, 999.5)}),
        (True, {"pareto_k": np.full(100, math.nan), "ess": np.full(100, 998.0)}),  # tied: half of the draws suffice
        (True, {"pareto_k": np.full(100, math.nan), "ess": np.full(100, 501.0), "proposal": "q"}),
        (False, {"pareto_k": np.full(100, math.nan), "ess": np.full(100, 500.0)}),
        (False, {"pareto_k": np.full(100, math.nan), "ess": np.full(100, 1000.0), "proposal": "q"}),
        (False, {"pareto_k": np.full(100, math.nan), "ess": np.full(100, 1000.0), "proposal": "annealed"}),
        (
            True,
            {"pareto_k": np.full(100, math.nan), "ess": np.full(100, math.inf), "direction": "exact", "halving": 0.0},
        ),
    ],
)
def test_the_rule_of_trust(trusted: bool, changes: dict[str, object]) -> None:
    found = marginal(**changes)  # type: ignore[arg-type]
    assert found.trusted == trusted
    assert (found.reason == "") == trusted
    assert trusted or "log p(x) is not trusted" in found.reason


def test_the_bias_is_the_larger_of_delta_and_halving() -> None:
    n = 100
    assert marginal(halving=0.0).bias_datum_nats == pytest.approx((1 / 201 - 1 / 1000) / 2)
    assert marginal(halving=0.05).bias_datum_nats == pytest.approx(0.05)
    assert marginal(direction="exact", halving=0.0, ess=np.full(n, math.inf)).bias_datum_nats == pytest.approx(0)


def test_the_bias_of_a_mean_of_weights_is_seen() -> None:
    """Log-normal weights, ESS far above 1: log E w - E L_K is about what delta and halving say."""
    sigma, n_samples, n = 0.7, 200, 2000
    source = torch.Generator().manual_seed(0)
    table = sigma * torch.randn(n_samples, n, generator=source, dtype=torch.float64) - sigma**2 / 2
    found = measured("log p(x)", "widened", lambda chunk, k: table[chunk * 50 : chunk * 50 + k], n_samples, 50)
    bias = (math.exp(sigma**2) - 1) / 2 / n_samples
    log_px = found.estimate.log_px
    assert_mean(np.exp(log_px) - 1 - log_px, bias, detect=0.4 * bias)  # the mean weight less 1 has mean 0
    assert_mean(found.halving_datum_nats, bias, detect=0.4 * bias)
    assert bias < found.bias_datum_nats.mean() < 2 * bias
    assert found.halving_nats == found.halving_datum_nats.mean()


# Escalation, and what is refused


def test_the_first_trusted_proposal_is_taken(x: Tensor) -> None:
    good = linear("bottom-up")
    assert best_marginal(good, x, {}, Sampling(1000, 0)).proposal == "widened"
    bad = HVAE(good.decoder, NetworkPosterior(stacks.encoder(WIDTHS, scale=0.5)))
    assert not best_marginal(bad, x, {}, Sampling(1000, 0, ("q",))).trusted
    assert best_marginal(bad, x, {}, Sampling(1000, 0)).proposal == "full"


def test_without_trust_the_highest_mean_is_kept(x: Tensor) -> None:
    bad = HVAE(stacks.decoder(WIDTHS), NetworkPosterior(stacks.encoder(WIDTHS, scale=0.5)))
    alone = [best_marginal(bad, x, {}, Sampling(100, 0, (name,), QUICK)) for name in ("refined", "q")]
    assert not alone[0].trusted and not alone[1].trusted
    best = max(alone, key=lambda marginal: marginal.estimate.log_px.mean())
    assert best.proposal == "refined"
    for order in (("q", "refined"), ("refined", "q")):
        kept = best_marginal(bad, x, {}, Sampling(100, 0, order, QUICK))
        assert kept.proposal == best.proposal
        np.testing.assert_array_equal(kept.estimate.log_px, best.estimate.log_px)


def test_annealing_comes_last(x: Tensor) -> None:
    """256 chains pass the rule that q fails; the answer is exact up to its error."""
    network = stacks.decoder(WIDTHS[:3], scale=0.7)
    reference = LinearGaussian.of(network)
    x = x[:2]
    model = HVAE(network, NetworkPosterior(stacks.encoder(WIDTHS[:3], scale=0.5)))
    sampling = Sampling(100, 0, ("q",), QUICK, Annealing(n_temperatures=40, n_chains=320, n_leapfrog=3))
    found = best_marginal(model, x, {}, sampling)
    assert found.proposal == "annealed" and found.estimate.n_samples == 320 and found.trusted
    z = (found.estimate.log_px - reference.log_px(x).numpy()) / found.estimate.standard_error
    assert np.abs(z).max() < 5.5  # false alarm 1e-7 for two data


def test_the_answer_is_a_function_of_the_seed_and_not_of_the_gradient_mode(x: Tensor) -> None:
    model = linear("bottom-up").requires_grad_(True)
    budgets = [Sampling(50, seed, ("refined",), QUICK) for seed in (0, 0, 1)]
    with torch.no_grad():
        one = best_marginal(model, x, {}, budgets[0]).estimate.log_px
    other, different = (best_marginal(model, x, {}, sampling).estimate.log_px for sampling in budgets[1:])
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, different)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_data_in_several_parts(monkeypatch: pytest.MonkeyPatch, x: Tensor) -> None:
    """Exact conditionals give each datum its own exact answer, however the data are cut."""
    monkeypatch.setattr("hvae.diagnostics.marginals.DATA", 3)
    network = stacks.decoder(WIDTHS)
    reference = LinearGaussian.of(network)
    model = HVAE(network, reference.exact_posterior("bottom-up"))
    given = drawn(model, x, ("z1",))
    found = best_marginal(model, x, given, Sampling(30, 0, ("q",)))
    exact = reference.log_prob({"x": x, "z1": given["z1"][0]})
    np.testing.assert_allclose(found.estimate.log_px, exact.numpy(), atol=1e-10, rtol=0)


def test_bad_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="n_samples is 0; give at least 1"):
        Sampling(0, 0)
    with pytest.raises(ValueError, match=r"The proposals are \['q', 'wide'\]; choose among"):
        Sampling(10, 0, ("q", "wide"))
    with pytest.raises(ValueError, match="The proposals are"):
        Sampling(10, 0, ())
    with pytest.raises(ValueError, match="n_steps of a refinement is 0"):
        Refinement(n_steps=0)


def test_proposals_that_suit_no_latent_are_refused() -> None:
    model = bernoulli("bottom-up", (Bernoulli(8), Bernoulli(4)))  # more joint states than are summed
    with pytest.raises(ValueError, match=r"None of the proposals \['full'\] suits log p\(x\), where z1, z2 are free"):
        best_marginal(model, torch.zeros(2, 3).double(), {}, Sampling(10, 0, ("full",)))


def test_weights_that_are_no_numbers_are_refused(x: Tensor) -> None:
    model = linear("bottom-up")
    with torch.no_grad():
        model.decoder["z1"].net.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
    given = drawn(model, x, ("z1",))
    with pytest.raises(ValueError, match=r"log p\(x, z1\) has no estimate: .* 4 of 4 evaluations"):
        best_marginal(model, x, given, Sampling(10, 0, ("q", "widened")))


def test_a_scaled_target_has_the_same_mean(x: Tensor) -> None:
    """`scaled` is `Target.moved` with a diagonal, weight by weight."""
    target = Rest.of(linear("bottom-up"), x, {}).target()
    source = torch.Generator().manual_seed(1)
    shift, log_scale = 0.3 * torch.randn(2, 4, target.width, generator=source, dtype=torch.float64)
    noise = target.noise(50, seed=0, purpose="test")
    moved = target.moved(shift, torch.diag_embed(log_scale.exp())).log_weight(noise)
    torch.testing.assert_close(scaled(target, shift, log_scale).log_weight(noise), moved, atol=1e-10, rtol=0)
