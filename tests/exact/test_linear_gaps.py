"""The gap split by layer against numpy: quadratic forms averaged over points, scipy's densities, dense inverses.

The mean of a quadratic function under N(m, C Cᵀ) is its mean over the 2n points `m ± √n C_i`, exactly. So here
no trace and no expectation is ever written down: log-densities, which are quadratic, are evaluated at points.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from hvae import rng
from hvae.evidence import HVAE
from hvae.exact import Gaps, LinearGaussian, NoReferenceError
from hvae.families import Bernoulli, DiagonalGaussian, FullGaussian
from hvae.nets import BatchNorm, Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior, alone, shared
from tests.exact.stacks import (
    NETWORKS,
    Array,
    EncoderKind,
    decoder,
    distributions,
    encoder,
    gaussian,
    grown,
    joint,
    ladder,
    ladder_distributions,
    linear,
    posterior,
)
from tests.statistics import assert_mean

WIDTHS = {1: (4, 3), 2: (4, 3, 2), 3: (5, 3, 2, 2), 4: (4, 3, 1, 2, 2)}
LADDERS = {"ladder": alone, "shared": shared}
KINDS = [*NETWORKS, *LADDERS]
ORDERS = ("bottom-up", "top-down")


def observations(n: int, width: int) -> torch.Tensor:
    return 2 * torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def model_of(kind: str, widths: Sequence[int], skips: bool = False) -> HVAE:
    visits = ladder(widths, top=LADDERS[kind]) if kind in LADDERS else posterior(kind, widths)
    return HVAE(decoder(widths, skips=skips, scale=1.0), visits)


def distributions_of(model: HVAE) -> dict[str, EncoderKind]:
    if isinstance(model.posterior, NetworkPosterior):
        return distributions(model.posterior.network)
    assert isinstance(model.posterior, Ladder)
    return ladder_distributions(model.posterior.upward, model.decoder, merged_top=model.posterior.top is shared)


def points(mean: Array, covariance: Array) -> Array:
    """`[2n, n]`: over these a quadratic function has the mean that it has under the Gaussian."""
    steps = np.sqrt(len(mean)) * np.linalg.cholesky(covariance).T
    return np.concatenate([mean + steps, mean - steps])


def log_density(values: Array, mean: Array, covariance: Array) -> Array:
    """`log N(values; mean, covariance)` where every value may have its own mean."""
    density = multivariate_normal(np.zeros(len(covariance)), covariance).logpdf(values - mean)
    return np.atleast_1d(density)


def kl(mean: Array, covariance: Array, other_mean: Array, other: Array) -> float:
    """KL of two Gaussians: E log-ratio over points."""
    at = points(mean, covariance)
    return float((log_density(at, mean, covariance) - log_density(at, other_mean, other)).mean())


def by_numpy(network: BeliefNetwork, conditionals: Mapping[str, EncoderKind], x: Array) -> dict[str, dict[str, float]]:
    """All numbers of `Gaps` for one datum `x [D]`: layers from KLs, remaining from marginals, total from the joint."""
    where, mean, covariance = joint(network)
    order, at_x = list(conditionals), (x, np.zeros((len(x), len(x))))
    q_where, q_mean, q_covariance = grown(conditionals, {"x": at_x})
    n_x = len(x)
    drawn = points(q_mean[n_x:], q_covariance[n_x:, n_x:])
    values = np.hstack([np.broadcast_to(x, (len(drawn), n_x)), drawn])  # in the order x, v_1, …, v_L

    def p_log(names: Sequence[str]) -> Array:
        index = [i for name in names for i in where[name]]
        seen = np.hstack([values[:, q_where[name]] for name in names])
        return log_density(seen, mean[index], covariance[np.ix_(index, index)])

    def q_log(names: Sequence[str]) -> Array:
        index = [i for name in names for i in q_where[name]]
        if not index:
            return np.zeros(len(values))
        return log_density(values[:, index], q_mean[index], q_covariance[np.ix_(index, index)])

    found: dict[str, dict[str, float]] = {"rates": {}, "layers": {}, "remaining": {}}
    everything = p_log(["x", *order])
    for position, name in enumerate(order):
        before = order[:position]
        parents, weight, bias, noise = conditionals[name]
        own = log_density(
            values[:, q_where[name]],
            np.hstack([values[:, q_where[parent]] for parent in parents]) @ weight.T + bias,
            noise,
        )
        above = list(network[name].parents)
        found["rates"][name] = float((own - p_log([name, *above]) + (p_log(above) if above else 0)).mean())
        later = everything - q_log(order) + q_log(order[: position + 1])
        found["remaining"][name] = float((p_log(["x", *order[: position + 1]]) - later).mean())
        # p(v_k | v_<k, x) by the inverse of the joint covariance, then a KL at every point of v_<k
        rows, columns = where[name], [i for seen in ["x", *before] for i in where[seen]]
        precision = np.linalg.inv(covariance[np.ix_(rows + columns, rows + columns)])
        n = len(rows)
        exact = np.linalg.inv(precision[:n, :n])
        divergences = []
        for value in values:
            seen = np.concatenate([value[q_where[other]] for other in ["x", *before]])
            target = mean[rows] - exact @ precision[:n, n:] @ (seen - mean[columns])
            here = weight @ np.concatenate([value[q_where[parent]] for parent in parents]) + bias
            divergences.append(kl(here, noise, target, exact))
        found["layers"][name] = float(np.mean(divergences))
    log_px = float(log_density(x[None], mean[where["x"]], covariance[np.ix_(where["x"], where["x"])])[0])
    elbo = float((everything - q_log(order)).mean())
    return {**found, "": {"log_px": log_px, "elbo": elbo}}


def assert_identities(gaps: Gaps) -> None:
    total = gaps.total
    torch.testing.assert_close(torch.stack([*gaps.layers.values()]).sum(0), total, rtol=0, atol=1e-10)
    left = total
    for name, layer in gaps.layers.items():
        torch.testing.assert_close(left - gaps.remaining[name], layer, rtol=0, atol=1e-10)
        left = gaps.remaining[name]
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-10)


@pytest.mark.parametrize("skips", [False, True], ids=["chain", "skips"])
@pytest.mark.parametrize("depth", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_gaps_equal_numpy_three_ways(kind: str, depth: int, skips: bool) -> None:
    model, x = model_of(kind, WIDTHS[depth], skips), observations(2, WIDTHS[depth][0])
    gaps = LinearGaussian.of(model.decoder).gaps(model.posterior, x)
    assert tuple(gaps.layers) == tuple(gaps.rates) == tuple(gaps.remaining) == model.posterior.order
    assert gaps.total.shape == (2,) and gaps.total.dtype == torch.float64 and gaps.error == 0
    assert_identities(gaps)
    for datum in range(len(x)):
        expected = by_numpy(model.decoder, distributions_of(model), x[datum].numpy())
        assert sum(expected["layers"].values()) == pytest.approx(
            expected[""]["log_px"] - expected[""]["elbo"], abs=1e-9
        )
        for field, numbers in expected.items():
            for name, number in numbers.items():
                found = getattr(gaps, field)[name] if field else getattr(gaps, name)
                assert abs(float(found[datum]) - number) < 1e-10, (field, name)


def test_every_layer_of_a_random_posterior_has_a_gap_to_be_seen() -> None:
    """Else the comparison above would compare zeros."""
    for kind in KINDS:
        model = model_of(kind, WIDTHS[3])
        gaps = LinearGaussian.of(model.decoder).gaps(model.posterior, observations(2, 5))
        assert min(float(layer.min()) for layer in gaps.layers.values()) > 0.01


def exact_noise(model: HVAE, n_data: int) -> dict[str, torch.Tensor]:
    """Points of noise `[2n, B, ·]` over which log-weights and rates, quadratic in it, have their exact means."""
    specs = model.noise_specs()
    n = sum(width for _, width in specs.values())
    flat = torch.as_tensor(points(np.zeros(n), np.eye(n))).unsqueeze(1).expand(-1, n_data, -1)
    return dict(zip(specs, flat.split([width for _, width in specs.values()], -1), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_elbo_and_rates_are_the_means_of_the_models_own_evidence(kind: str) -> None:
    model, x = model_of(kind, WIDTHS[3]), observations(4, 5)
    gaps = LinearGaussian.of(model.decoder).gaps(model.posterior, x)
    evidence = model(x.unsqueeze(0), exact_noise(model, 4))
    torch.testing.assert_close(evidence.log_weight.mean(0), gaps.elbo, rtol=0, atol=1e-10)
    for name, rate in gaps.rates.items():
        torch.testing.assert_close(evidence.rate(name).mean(0), rate, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["bottom-up", "mean field", "ladder", "shared"])
def test_elbo_and_rates_by_sampling(kind: str) -> None:
    model, x = model_of(kind, WIDTHS[2]), observations(2, 4)
    gaps = LinearGaussian.of(model.decoder).gaps(model.posterior, x)
    with torch.no_grad():
        noise = rng.noise(model.noise_specs(), 200_000, 2, seed=3, purpose="test", dtype=torch.float64)
        evidence = model(x.unsqueeze(0), noise)
        assert_mean(evidence.log_weight.numpy(), gaps.elbo.numpy(), detect=0.5)
        for name, rate in gaps.rates.items():
            assert_mean(evidence.rate(name).numpy(), rate.numpy(), detect=0.5)


@pytest.mark.parametrize("skips", [False, True], ids=["chain", "skips"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_exact_posterior_leaves_no_gap_in_any_layer(order: str, skips: bool) -> None:
    reference = LinearGaussian.of(decoder(WIDTHS[4], skips=skips))
    gaps = reference.gaps(reference.exact_posterior(order), observations(5, 4))  # type: ignore[arg-type]
    for number in (gaps.total, *gaps.layers.values(), *gaps.remaining.values()):
        torch.testing.assert_close(number, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("skips", [False, True], ids=["chain", "skips"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", WIDTHS)
def test_the_best_diagonal_posterior_misses_what_its_diagonal_misses(depth: int, order: str, skips: bool) -> None:
    network = decoder(WIDTHS[depth], skips=skips)
    reference, (where, _, covariance) = LinearGaussian.of(network), joint(network)
    gaps = reference.gaps(reference.best_posterior(order, "diagonal"), observations(3, WIDTHS[depth][0]))  # type: ignore[arg-type]
    visits = [name for name in where if name != "x"][:: 1 if order == "top-down" else -1]
    assert tuple(gaps.layers) == tuple(visits)
    for position, name in enumerate(visits):
        index = [i for other in [name, "x", *visits[:position]] for i in where[other]]
        own = np.linalg.inv(covariance[np.ix_(index, index)])[: len(where[name]), : len(where[name])]
        expected = (np.log(np.diag(own)).sum() - np.linalg.slogdet(own)[1]) / 2
        np.testing.assert_allclose(gaps.layers[name].numpy(), expected, atol=1e-10, rtol=0)
    assert float(gaps.total.min()) > 0.01
    assert_identities(gaps)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_best_mean_field_is_the_one_of_textbooks(depth: int) -> None:
    """`q(z_l | x)` around the exact mean with the diagonal of the precision Λ of p(z | x): whatever mean field misses
    is `(sum_i log Λ_ii - log |Λ|) / 2` (Bishop 2006, section 10.1.2), by numpy, and any step away costs more."""
    network = decoder(WIDTHS[depth], scale=1.0)
    x = observations(3, WIDTHS[depth][0])
    index, mean, covariance = joint(network)
    latents, seen = [i for name in index if name != "x" for i in index[name]], index["x"]
    gain = covariance[np.ix_(latents, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    precision = np.linalg.inv(covariance[np.ix_(latents, latents)] - gain @ covariance[np.ix_(seen, latents)])
    missed = (np.log(precision.diagonal()).sum() - np.linalg.slogdet(precision)[1]) / 2
    best = posterior("mean field", WIDTHS[depth])
    for name in best.order:
        rows = [latents.index(i) for i in index[name]]
        net, family = best.network[name].net, DiagonalGaussian(len(rows), variance="learned").double()
        best.network[name].family = family
        with torch.no_grad():
            net.weight.copy_(torch.from_numpy(gain[rows]))
            net.bias.copy_(torch.from_numpy(mean[index[name]] - gain[rows] @ mean[seen]))
            family.log_variance.copy_(torch.from_numpy(-np.log(precision.diagonal()[rows])))
    reference = LinearGaussian.of(network)
    total = reference.gaps(best, x).total
    np.testing.assert_allclose(total, missed, atol=1e-10)
    assert missed > 0.01
    source = torch.Generator().manual_seed(3)
    steps = [1e-3 * torch.randn(value.shape, generator=source, dtype=torch.float64) for value in best.parameters()]
    for sign in (1, -2):  # there, and as far on the other side
        with torch.no_grad():
            for value, step in zip(best.parameters(), steps, strict=True):
                value.add_(sign * step)
        assert (reference.gaps(best, x).total.mean() > total.mean() + 1e-8).all()


@pytest.mark.parametrize("order", ORDERS)
def test_no_optimiser_finds_a_better_diagonal_posterior(order: str) -> None:
    """Layer-wise optimal is jointly optimal: LBFGS on the exact ELBO ends at the best posterior, and not below it."""
    widths = (3, 2, 2)
    source, parents = torch.Generator().manual_seed(1), NETWORKS[order]
    visits = ["z1", "z2"][:: 1 if order == "bottom-up" else -1]
    n_in = {"x": 3, "z1": 2, "z2": 2}
    conditionals = []
    for position, name in enumerate(visits):
        seen, family = parents(visits[:position]), gaussian(2, source)
        net = linear(sum(n_in[parent] for parent in seen), family, source)
        conditionals.append(Conditional(name, seen, net, family))
    network = decoder(widths, scale=1.0).requires_grad_(False)
    model, x = HVAE(network, NetworkPosterior(BeliefNetwork(conditionals))), observations(6, 3)
    noise, reference = exact_noise(model, 6), LinearGaussian.of(network)
    best = reference.gaps(reference.best_posterior(order, "diagonal"), x).elbo.mean()  # type: ignore[arg-type]
    start = reference.gaps(model.posterior, x).elbo.mean()

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.LBFGS(
        weights, max_iter=2000, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = -model(x.unsqueeze(0), noise).log_weight.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = reference.gaps(model.posterior, x).elbo.mean()
    assert float(best - start) > 1
    assert float(found - best) < 1e-8
    assert float(best - found) < 1e-8, "the optimiser has not arrived, so it proves nothing"


def test_a_net_with_a_constant_variance_head_is_as_good_as_a_learned_variance() -> None:
    network, x = decoder(WIDTHS[2]), observations(3, 4)
    learned = encoder(WIDTHS[2])
    conditionals = []
    for name in learned.variables:
        net, log_variance = learned[name].net, learned[name].family.log_variance
        assert isinstance(net, nn.Linear) and isinstance(log_variance, torch.Tensor)
        headed = nn.Linear(net.in_features, 2 * net.out_features, dtype=torch.float64)
        with torch.no_grad():
            headed.weight.copy_(torch.cat([net.weight, torch.zeros_like(net.weight)]))
            headed.bias.copy_(torch.cat([net.bias, log_variance]))
        conditionals.append(Conditional(name, learned[name].parents, headed, DiagonalGaussian(net.out_features)))
    reference = LinearGaussian.of(network)
    ours, theirs = (reference.gaps(NetworkPosterior(q), x) for q in (BeliefNetwork(conditionals), learned))
    torch.testing.assert_close(ours.elbo, theirs.elbo, rtol=0, atol=1e-10)
    assert_identities(ours)


def test_the_modules_are_left_as_they_were_and_later_training_does_not_reach_the_reference() -> None:
    network, q, x = decoder(WIDTHS[2]).float(), ladder(WIDTHS[2]).float(), observations(3, 4).float()
    before = {**network.state_dict(prefix="p."), **q.state_dict(prefix="q.")}
    before = {name: tensor.clone() for name, tensor in before.items()}
    reference = LinearGaussian.of(network)
    first = reference.gaps(q, x)
    for name, tensor in {**network.state_dict(prefix="p."), **q.state_dict(prefix="q.")}.items():
        assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert torch.equal(first.elbo, reference.gaps(q, x).elbo)


def first_layer(net: nn.Module, family: nn.Module) -> Posterior:
    return NetworkPosterior(BeliefNetwork([Conditional("z1", ["x"], net, family)]))  # type: ignore[arg-type]


def shrinking(log_variance: float, slope: float) -> Posterior:
    """q(z1|x) whose log-variance moves with x, around a value of its own."""
    net = nn.Linear(4, 4, dtype=torch.float64)
    with torch.no_grad():
        net.weight[2:] = slope
        net.bias[2:] = log_variance
    return first_layer(net, DiagonalGaussian(2))


def rotating() -> Posterior:
    """q(z1|x) whose covariance turns with x while its variances are tiny."""
    net = nn.Linear(4, 5, dtype=torch.float64)
    with torch.no_grad():
        net.weight[2:] = 0
        net.weight[2] = 1e-6
        net.bias[2:] = torch.tensor([0.0, -13.0, -13.0])
    return first_layer(net, FullGaussian(2))


@pytest.mark.parametrize("log_variance", [0.0, -19.0])
def test_a_variance_that_moves_is_refused_however_small_it_is(log_variance: float) -> None:
    with pytest.raises(NoReferenceError, match=r"distribution of z1 .* variance depends"):
        LinearGaussian.of(decoder((4, 2))).gaps(shrinking(log_variance, 0.01), observations(2, 4))
    with pytest.raises(NoReferenceError, match=r"distribution of z1 .* variance depends"):
        LinearGaussian.of(decoder((4, 2))).gaps(rotating(), observations(2, 4))
    LinearGaussian.of(decoder((4, 2))).gaps(shrinking(log_variance, 0.0), observations(2, 4))


def test_posteriors_without_exact_answers_are_refused_with_the_reason() -> None:
    reference, x = LinearGaussian.of(decoder((4, 2))), observations(2, 4)
    learned = DiagonalGaussian(2, variance="learned")
    with pytest.raises(NoReferenceError, match=r"distribution of z1 .* not affine"):
        reference.gaps(first_layer(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), learned), x)
    with pytest.raises(NoReferenceError, match="z1 has a Bernoulli distribution"):
        reference.gaps(first_layer(nn.Linear(4, 2), Bernoulli(2)), x)
    normed = nn.Sequential(nn.Linear(4, 2, bias=False), BatchNorm(2))
    with pytest.raises(NoReferenceError, match=r"batch norm in training mode .* eval\(\)"):
        reference.gaps(first_layer(normed, learned), x)
    assert_identities(reference.gaps(first_layer(normed, learned).eval(), x))


def test_children_before_their_parents_are_refused() -> None:
    """Such a network can score and not draw; its covariance would be silently wrong."""
    source = torch.Generator().manual_seed(0)
    family = gaussian(2, source)
    above = Conditional("z2", [], Root(torch.zeros(2).double(), learned=False), family)
    below = Conditional("z1", ["z2"], linear(2, family, source), family)
    observed = Conditional("x", ["z1"], linear(2, four := gaussian(4, source), source), four)
    LinearGaussian.of(BeliefNetwork([above, below, observed]))
    with pytest.raises(NoReferenceError, match=r"distribution of z1 .* parents before children"):
        LinearGaussian.of(BeliefNetwork([below, above, observed]))


def test_data_and_posteriors_that_do_not_fit_are_named() -> None:
    reference, q = LinearGaussian.of(decoder((4, 2))), NetworkPosterior(encoder((4, 2)))
    with pytest.raises(ValueError, match=r"visits \['z1', 'z2'\] .* \['z1'\]"):
        reference.gaps(NetworkPosterior(encoder((4, 2, 2))), observations(2, 4))
    for wrong in (observations(2, 3), observations(2, 4)[0], observations(2, 4).unsqueeze(0)):
        with pytest.raises(ValueError, match="shape"):
            reference.gaps(q, wrong)
    broken = observations(2, 4)
    broken[0, 1] = torch.nan
    for ask in (reference.log_px, lambda x: reference.gaps(q, x)):
        with pytest.raises(ValueError, match="1 numbers that are nan"):
            ask(broken)


def test_a_distribution_too_narrow_for_its_family_is_refused_instead_of_clamped() -> None:
    network = decoder((4, 2))
    log_variance = network["x"].family.log_variance
    with torch.no_grad():
        assert isinstance(log_variance, torch.Tensor)
        log_variance.fill_(-19.9)
        network["x"].net.weight.mul_(10)  # type: ignore[union-attr]
    for covariance in ("full", "diagonal"):
        with pytest.raises(NoReferenceError, match="z1 has a log-variance"):
            LinearGaussian.of(network).best_posterior("bottom-up", covariance)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e3, 1e7])
def test_couplings_that_float64_cannot_resolve_are_refused(scale: float) -> None:
    widths = (6, 4, 3, 2)
    reference = LinearGaussian.of(decoder(widths, scale=scale))
    with pytest.raises(NoReferenceError, match=r"two routes to p\(.*couplings are too strong"):
        reference.gaps(posterior("bottom-up", widths), observations(2, 6))
