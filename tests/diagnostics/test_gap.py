"""The gap by layer against exact answers: every order of visit, both directions of doubt."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hvae import nets
from hvae.diagnostics.gap import Gap, annealed_marginal, exact_marginal, split_gap
from hvae.diagnostics.marginals import Sampling, best_marginal, refutes
from hvae.diagnostics.terms import Term
from hvae.evidence import HVAE
from hvae.exact import Gaps, LinearGaussian, Quadrature
from hvae.exact.known_stacks import STRENGTHS, binary_decoder, binary_encoder, binary_stack, grid, linear_stack
from hvae.families import Bernoulli, DiagonalGaussian
from hvae.likelihood import Annealing, anneal, from_prior
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior, Posterior, shared
from tests.exact import stacks
from tests.statistics import assert_mean

WIDTHS = (5, 3, 2, 2)
FALSE_ALARM = 1e-6
"""of all the intervals of a test together"""


def data(n: int = 4) -> Tensor:
    return torch.randn(n, WIDTHS[0], dtype=torch.float64, generator=torch.Generator().manual_seed(5))


# Exact answers


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_an_exact_posterior_has_no_gap_in_any_layer(order: str, skips: bool) -> None:
    network = stacks.decoder(WIDTHS, skips=skips)
    reference = LinearGaussian.of(network)
    model = HVAE(network, reference.exact_posterior(order))  # type: ignore[arg-type]
    found = split_gap(model, data(), 3, Sampling(300, 0, ("q",)))
    for part in (found.total, *found.layers.values(), *found.remaining.values()):
        np.testing.assert_allclose(part.datum_nats, 0, atol=1e-10)
        assert part.standard_error.max() < 1e-6  # sqrt of float64's rounding of 1/ESS - 1/K
    assert tuple(found.layers) == tuple(found.remaining) == model.posterior.order
    np.testing.assert_allclose(found.log_px.estimate.log_px, reference.log_px(data()).numpy(), atol=1e-10)
    assert not found.layers[model.posterior.order[0]].trusted  # equal weights of q alone prove nothing
    widened = split_gap(model, data(), 3, Sampling(600, 0))
    assert all(layer.trusted and "widened" in layer.proposal for layer in widened.layers.values())


@pytest.mark.parametrize("n_wrong", [1, 2])
def test_where_the_later_conditionals_are_exact_the_first_bear_the_gap(n_wrong: int) -> None:
    """q(z1|x), q(z2|z1) wrong and the rest exact: G_l and R_l of the rest are 0 at 1e-10, path by path."""
    network = stacks.decoder(WIDTHS)
    reference = LinearGaussian.of(network)
    posterior = reference.exact_posterior("bottom-up")
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        for name in posterior.order[:n_wrong]:
            posterior.network[name].net.bias += 0.5  # type: ignore[operator]
    model = HVAE(network, posterior)
    found = split_gap(model, data(), 40, Sampling(40, 0, ("q",)), exact_marginal(reference, data()))
    exact = reference.gaps(posterior, data())
    for position, name in enumerate(posterior.order):
        if position >= n_wrong:
            np.testing.assert_allclose(found.layers[name].datum_nats, 0, atol=1e-10)
        if position >= n_wrong - 1:
            np.testing.assert_allclose(found.remaining[name].datum_nats, 0, atol=1e-10)
    np.testing.assert_array_equal(found.log_px.estimate.log_px, reference.log_px(data()).numpy())
    assert found.log_px.trusted and found.log_px.estimate.direction == "exact"
    assert found.total.trusted and found.total.proposal == "" and found.total.bias.max() == 0
    within(found, exact, 6)


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_with_skips_what_is_left_hangs_on_all_that_was_visited(order: str) -> None:
    """Only the first distribution of the visit is wrong: the others are p(v_l | v_<l, x) and have no gap, path by path.

    A Markov rule, with p(z_l | z_{l-1}) in its place, would charge them for what the skips tell them.
    """
    network = stacks.decoder(WIDTHS, skips=True)
    reference = LinearGaussian.of(network)
    posterior = reference.exact_posterior(order)  # type: ignore[arg-type]
    assert isinstance(posterior, NetworkPosterior)
    first, *others = posterior.order
    with torch.no_grad():
        posterior.network[first].net.bias += 0.5  # type: ignore[operator]
    model = HVAE(network, posterior)
    found = split_gap(model, data(), 40, Sampling(40, 0, ("q",)), exact_marginal(reference, data()))
    exact = reference.gaps(posterior, data())
    assert exact.layers[first].min() > 0.1
    for name in others:
        np.testing.assert_allclose(found.layers[name].datum_nats, 0, atol=1e-10)
        np.testing.assert_allclose(exact.layers[name], 0, atol=1e-10)
    for name in posterior.order:
        np.testing.assert_allclose(found.remaining[name].datum_nats, 0, atol=1e-10)
    within(found, exact, 6)


def test_parts_add_up_draw_by_draw() -> None:
    """Σ G = total, and what remains falls by G at each layer: no estimate is used with two values."""
    model = HVAE(stacks.decoder(WIDTHS), NetworkPosterior(stacks.encoder(WIDTHS)))
    found = split_gap(model, data(), 5, Sampling(50, 0, ("q",)))
    layers = [layer.datum_nats for layer in found.layers.values()]
    remaining = [found.total.datum_nats, *(layer.datum_nats for layer in found.remaining.values())]
    np.testing.assert_allclose(sum(layers), found.total.datum_nats, atol=1e-10)
    for layer, before, after in zip(layers, remaining, remaining[1:], strict=False):
        np.testing.assert_allclose(layer, before - after, atol=1e-10)
    np.testing.assert_allclose(found.elbo.datum_nats + found.total.datum_nats, found.log_px.estimate.log_px, atol=1e-10)
    assert found.remaining["z3"].trusted and found.remaining["z3"].marginals == ()
    assert found.layers["z2"].bias == pytest.approx(found.remaining["z1"].bias + found.remaining["z2"].bias)


def near(posterior: Posterior) -> Posterior:
    """Its weights a little off, for gaps that are neither 0 nor wild."""
    source = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=source, dtype=torch.float64)
    return posterior


def posteriors(reference: LinearGaussian) -> dict[str, Posterior]:
    return {
        "bottom-up": near(reference.best_posterior("bottom-up", "diagonal")),
        "top-down": near(reference.best_posterior("top-down", "diagonal")),
        "ladder": stacks.ladder(WIDTHS),
        "shared": stacks.ladder(WIDTHS, top=shared),
        "mean field": stacks.posterior("mean field", WIDTHS, scale=0.3),
        "bottom-up seeing x": stacks.posterior("bottom-up seeing x", WIDTHS, scale=0.3),
    }


def within(found: Gap, exact: Gaps, n_intervals: int) -> None:
    """Every exact number lies in its interval; a false alarm has the chance `FALSE_ALARM / n_intervals` each."""
    level = 1 - FALSE_ALARM / n_intervals
    parts = {"total": (found.total, exact.total)}
    for name in found.layers:
        parts[f"G {name}"] = found.layers[name], exact.layers[name]
        parts[f"R {name}"] = found.remaining[name], exact.remaining[name]
    for what, (part, truth) in parts.items():
        if part.trusted and (part.datum_nats != 0).any():
            low, middle, high = part.interval(level)
            rounding = 1e-9
            assert low - rounding <= truth.mean().item() <= high + rounding, (what, low, middle, high, truth.mean())


@pytest.mark.parametrize(
    ("kind", "skips"),
    [
        ("bottom-up", True),
        ("ladder", False),
        pytest.param("top-down", False, marks=pytest.mark.slow),
        pytest.param("mean field", True, marks=pytest.mark.slow),
        pytest.param("shared", False, marks=pytest.mark.slow),
        pytest.param("bottom-up seeing x", True, marks=pytest.mark.slow),
    ],
)
def test_every_order_of_visit(kind: str, skips: bool) -> None:
    """Trusted throughout, and right: G_l, R_l and the total, to within the layer's own gap or 0.25 nats."""
    network = stacks.decoder(WIDTHS, skips=skips, scale=0.7)
    reference = LinearGaussian.of(network)
    posterior = posteriors(reference)[kind]
    found = split_gap(HVAE(network, posterior), data(), 80, Sampling(500, 1))
    exact = reference.gaps(posterior, data())
    within(found, exact, 8 * 7)
    for name, layer in found.layers.items():
        assert layer.trusted and found.remaining[name].trusted, layer.reason
        low, _, high = layer.interval(1 - FALSE_ALARM / 56)
        assert (high - low) / 2 < max(exact.layers[name].mean().item(), 0.25)


# Doubt


def test_strong_couplings_with_q_as_its_own_proposal_are_untrusted() -> None:
    """An over-confident q misses mass and its own standard error does not see it."""
    for stack in (linear_stack(STRENGTHS[-1], "over-confident", 0), binary_stack(STRENGTHS[-1], "over-confident", 0)):
        found = split_gap(stack.model, stack.x, 8, Sampling(1000, 0, ("q",)))
        first = found.layers[stack.model.posterior.order[0]]
        assert not first.trusted
        assert "log p(x) is not trusted: with 1000 draws of the proposal q" in first.reason
        assert first.doubtful_share > 0.05 and "log p(x): q" in first.proposal


def test_a_gap_that_rests_on_two_estimates_needs_both() -> None:
    """log p(x, z1) is easy and log p(x) is not: G_1 and the total are untrusted, R_1 and G_2 are trusted."""
    network = stacks.decoder(WIDTHS)
    reference = LinearGaussian.of(network)
    posterior = reference.best_posterior("bottom-up", "full")
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        posterior.network["z1"].net.bias += 4  # type: ignore[operator]
    found = split_gap(HVAE(network, posterior), data(), 3, Sampling(500, 0, ("widened",)))
    assert not found.total.trusted and not found.layers["z1"].trusted
    assert found.remaining["z1"].trusted and found.layers["z2"].trusted and found.layers["z3"].trusted
    assert found.total.reason == found.layers["z1"].reason == found.log_px.reason
    assert found.layers["z1"].median_ess == pytest.approx(np.median(found.log_px.estimate.ess))
    assert found.layers["z1"].halving_nats == pytest.approx(found.log_px.halving_nats)
    assert found.layers["z1"].bias.mean() > found.remaining["z1"].bias.mean()


def test_a_single_sample_is_never_trusted() -> None:
    model = HVAE(stacks.decoder(WIDTHS), NetworkPosterior(stacks.encoder(WIDTHS)))
    found = split_gap(model, data(), 2, Sampling(1, 0, ("q",)))
    assert not found.total.trusted and found.total.bias.min() == math.inf


# The interval


def test_a_term_by_hand() -> None:
    draws = np.array([[1.0, 5.0], [3.0, 9.0], [2.0, 1.0]])
    term = Term.of(draws, shared_variance=np.array([0.1, 0.2]), bias=np.array([0.02, 0.04]))
    assert term.datum_nats == pytest.approx([2, 5])
    assert term.standard_error == pytest.approx([math.sqrt(1 / 3 + 0.1), math.sqrt(16 / 3 + 0.2)])
    error = math.sqrt(1 / 3 + 0.1 + 16 / 3 + 0.2) / 2
    variances = np.array([1 / 3 + 0.1, 16 / 3 + 0.2])
    half = stats.t.ppf(0.95, 2 * variances.sum() ** 2 / np.square(variances).sum()) * error + 0.03
    assert term.interval(0.9) == pytest.approx((3.5 - half, 3.5, 3.5 + half))
    assert Term.of(draws).bias.tolist() == [0, 0]


def test_intervals_cover_as_often_as_they_say() -> None:
    """90 % intervals of 4000 means of normal draws with an error in common: at least as often, and not much more.

    The error in common is known, and Welch's degrees of freedom take it for estimated: on the safe side.
    """
    source = np.random.default_rng(0)
    hits = []
    for _ in range(4000):
        draws = source.normal(size=(4, 3)) * [1, 2, 3] + source.normal(size=3)
        low, _, high = Term.of(draws, shared_variance=1.0).interval(0.9)
        hits.append(low <= 0 <= high)
    five_errors = 5 * math.sqrt(0.09 / 4000)
    assert 0.9 - five_errors < np.mean(hits) < 0.95


# What is refused


def test_too_few_draws_are_refused() -> None:
    model = HVAE(stacks.decoder(WIDTHS), NetworkPosterior(stacks.encoder(WIDTHS)))
    for n_draws in (0, 1):
        with pytest.raises(ValueError, match=f"n_draws is {n_draws}; give at least 2"):
            split_gap(model, data(), n_draws, Sampling(10, 0))


def test_log_densities_that_are_no_numbers_name_their_layer() -> None:
    model = HVAE(stacks.decoder(WIDTHS), NetworkPosterior(stacks.encoder(WIDTHS)))
    with torch.no_grad():
        model.decoder["z2"].net.bias.fill_(math.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match="The log-density of z2 along draws of q is not finite"):
        split_gap(model, data(), 3, Sampling(10, 0))


# The grid


@pytest.mark.slow
def test_every_trusted_gap_of_the_grid_lies_in_its_interval() -> None:
    """24 stacks from weak to strong, linear-Gaussian and binary; at 1e-6 for all intervals together."""
    n_intervals, trusted, n_layers = 12 * (7 + 5), {"linear": 0, "binary": 0}, {"linear": 0, "binary": 0}
    for seed, stack in enumerate(grid()):
        found = split_gap(stack.model, stack.x, 32, Sampling(1000, seed))
        within(found, stack.exact, n_intervals)
        kind = stack.name.split()[0]
        trusted[kind] += sum(layer.trusted for layer in found.layers.values())
        n_layers[kind] += len(found.layers)
    assert n_layers == {"linear": 36, "binary": 24}
    assert trusted["linear"] >= 30  # the full covariance is the exact posterior, but half the draws are widened
    assert 5 <= trusted["binary"] < 24


def test_the_error_of_log_px_is_part_of_the_gaps() -> None:
    """log p(x) is one number for all draws of a datum: its error does not fall with how many there are."""
    model = HVAE(stacks.decoder(WIDTHS), NetworkPosterior(stacks.encoder(WIDTHS)))
    found = split_gap(model, data(), 5, Sampling(50, 0, ("q",)))
    expected = np.square(found.elbo.standard_error) + np.square(found.log_px.estimate.standard_error)
    np.testing.assert_allclose(np.square(found.total.standard_error), expected, rtol=1e-10)
    assert found.log_px.estimate.standard_error.min() > 0.01


def two_modes() -> HVAE:
    """x = 2 z² + noise: p(z|x) has a mode on either side of 0, and q sits on the right one alone."""

    class Squared(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 2 * z.square()

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean = (x.clamp(min=0.5) / 2).sqrt()
            return torch.cat([mean, (0.05 / mean.square()).log()], -1)

    family = DiagonalGaussian(1, variance="fixed", log_variance=math.log(0.2)).double()
    top = DiagonalGaussian(1, variance="fixed").double()
    prior = Conditional("z1", [], nets.Root(torch.zeros(1).double(), learned=False), top)
    posterior = BeliefNetwork([Conditional("z1", ["x"], Root(), DiagonalGaussian(1))])
    return HVAE(BeliefNetwork([prior, Conditional("x", ["z1"], Squared(), family)]), NetworkPosterior(posterior))


def test_a_higher_bound_from_elsewhere_refutes_a_trusted_one() -> None:
    """Every proposal of q's stays on one of two modes, trusts itself and is off by log 2; annealing not."""
    model, x = two_modes(), torch.tensor([[3.0], [4.0], [5.0], [6.0]]).double()
    exact = Quadrature.of(model.decoder).log_px(x).numpy()
    alone = split_gap(model, x, 50, Sampling(2000, 0, ("widened", "full")))
    missed, error = exact - alone.log_px.estimate.log_px, alone.log_px.estimate.standard_error
    assert abs(missed.mean() - math.log(2)) < 5 * math.sqrt(np.square(error).sum()) / len(x)
    assert alone.total.trusted, "the rule of trust cannot see a mode that no draw reached: its docstring says so"
    known = annealed_marginal(anneal(from_prior(model.decoder, x), Annealing(100, 64, 3), seed=0))
    told = split_gap(model, x, 50, Sampling(2000, 0, ("widened", "full")), known)
    default = split_gap(model, x, 50, Sampling(2000, 0))
    for found, proposal in ((told, "annealed"), (default, "prior")):
        error = found.log_px.estimate.standard_error
        assert (np.abs(found.log_px.estimate.log_px - exact) < 5 * error + 0.01).all()
        assert not found.total.trusted and not found.layers["z1"].trusted and found.log_px.proposal == proposal
        assert "finds surely more than the proposal widened" in found.total.reason
    assert refutes(known, alone.log_px) and not refutes(alone.log_px, known) and not refutes(known, known)


def test_intervals_cover_where_one_datum_makes_the_error() -> None:
    """Welch's degrees of freedom: one of 100 data has draws 100 times as wide. 95 % intervals miss 5 % of the time."""
    source = np.random.default_rng(0)
    scale = np.ones(100)
    scale[3] = 100.0
    missed = []
    for _ in range(4000):
        low, _, high = Term.of(source.normal(size=(4, 100)) * scale).interval(0.95)
        missed.append(not low <= 0 <= high)
    assert_mean(np.array(missed, dtype=float), 0.05, detect=0.04)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_evidence_of_few_states_is_their_sum(dtype: torch.dtype) -> None:
    """Against numpy on every path; no draw goes into P_k, so layers hold the chance of q alone."""
    source = torch.Generator().manual_seed(4)
    decoder, encoder = binary_decoder(2.0, (5, 3, 2), source), binary_encoder((5, 3, 2), source)
    x = torch.randint(2, (4, 5), generator=source).double()
    weights = {
        n: (c.net.weight.detach().numpy(), c.net.bias.detach().numpy()) for n in ("z1", "x") for c in [decoder[n]]
    }

    def log_bernoulli(value: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0, np.where(value == 1, -logits, logits)).sum(-1)

    z1, z2 = (np.array([*np.ndindex(*(2,) * n)], dtype=float) for n in (3, 2))
    on_z2 = log_bernoulli(z1[:, None], z2 @ weights["z1"][0].T + weights["z1"][1]) - 2 * np.log(2)  # [8, 4]
    log_z1 = np.logaddexp.reduce(on_z2, 1)
    on_x = log_bernoulli(x.numpy()[:, None], z1 @ weights["x"][0].T + weights["x"][1])  # [4, 8]
    model = HVAE(decoder, encoder).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    gap = split_gap(model, x.to(dtype), 6, Sampling(50, seed=0))
    assert gap.log_px.estimate.direction == "exact" and gap.total.trusted
    np.testing.assert_allclose(
        gap.log_px.estimate.log_px, np.logaddexp.reduce(on_x + log_z1, 1), atol=tolerance, rtol=0
    )
    for code in range(8):
        given = {"z1": torch.tensor(z1[code]).to(dtype).expand(1, 4, 3)}
        found = best_marginal(model, x.to(dtype), given, Sampling(50, seed=0))
        expected = on_x[:, code] + log_z1[code]
        np.testing.assert_allclose(found.estimate.log_px, expected, atol=tolerance, rtol=0)
        assert (np.abs(found.estimate.log_px - expected) <= found.bias_datum_nats + 1e-13).all()


def test_draws_that_never_left_one_mode_are_no_certainty() -> None:
    """z1 is a fair bit that x does not tell: q says 1 in all but 1 of 10⁴ draws, and misses log 2 with SE 0."""
    root = Conditional("z1", [], Root(torch.zeros(1).double(), learned=False), Bernoulli(1))
    blind = Conditional("x", ["z1"], nn.Linear(1, 2).double(), Bernoulli(2))
    upward = Conditional("z1", ["x"], nn.Linear(2, 1).double(), Bernoulli(1))
    with torch.no_grad():
        for parameter in (*blind.parameters(), *upward.parameters()):
            parameter.zero_()
    x = torch.zeros(3, 2).double()
    for logit, doubtful in ((9.0, True), (40.0, False), (0.0, False)):  # at 0 both states are seen, which is all of q
        with torch.no_grad():
            upward.net.bias.fill_(logit)
        found = split_gap(
            HVAE(BeliefNetwork([root, blind]), NetworkPosterior(BeliefNetwork([upward]))), x, 20, Sampling(50, 0)
        )
        layer = found.layers["z1"]
        assert layer.standard_error.max() < 1e-12 and layer.trusted is not doubtful
        assert ("never left one mode" in layer.reason) == bool(found.elbo.reason) == doubtful
        assert found.remaining["z1"].trusted  # 0 by definition
        assert layer.datum_nats[0] == pytest.approx(np.log(2) if logit else 0, abs=1e-3)
