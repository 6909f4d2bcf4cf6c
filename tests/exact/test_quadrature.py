"""Quadrature against grids in value space that read the weights themselves, scipy, and Gaussian closed forms."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from torch import nn

from hvae.diagnostics.gap import exact_marginal
from hvae.exact import quadrature
from hvae.exact.answers import Gaps, NoReferenceError
from hvae.exact.known_stacks import linear_stack
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.exact.nodes import nodes
from hvae.exact.quadrature import Quadrature
from hvae.families import Bernoulli, DiagonalGaussian, Family
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior
from tests.exact.stacks import decoder as linear_decoder
from tests.exact.stacks import joint, linear, parameters

Array = np.ndarray
WIDTH = 2  # of x
TANH, SOFTPLUS = nn.Tanh, nn.Softplus
POSTERIORS = ("bottom-up", "bottom-up seeing x", "mean field", "top-down", "ladder")


# stacks with one unit a layer


def mlp(
    n_in: int, family: Family, source: torch.Generator, activation: Callable[[], nn.Module], scale: float
) -> nn.Module:
    net = nn.Sequential(nn.Linear(n_in, 3), activation(), nn.Linear(3, family.n_outputs)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return net


def unit(log_variance: float = -0.7) -> DiagonalGaussian:
    return DiagonalGaussian(1, variance="learned", log_variance=log_variance).double()


def stack(
    depth: int, activation: Callable[[], nn.Module] = TANH, *, x: Family | None = None, log_variance: float = -0.7
) -> BeliefNetwork:
    source = torch.Generator().manual_seed(depth)
    top = Root(torch.tensor([0.3], dtype=torch.float64), learned=True)
    conditionals = [Conditional(f"z{depth}", [], top, unit(0.2))]
    for layer in range(depth - 1, 0, -1):
        conditionals.append(
            Conditional(f"z{layer}", [f"z{layer + 1}"], mlp(1, unit(), source, activation, 0.7), unit(log_variance))
        )
    x = x or DiagonalGaussian(WIDTH, variance="learned", log_variance=log_variance).double()
    return BeliefNetwork([*conditionals, Conditional("x", ["z1"], mlp(1, x, source, activation, 0.7), x)])


def posterior(kind: str, depth: int, activation: Callable[[], nn.Module] = TANH) -> Posterior:
    """Every distribution has a variance of its own that moves with its parents."""
    source = torch.Generator().manual_seed(10 + depth)
    names = [f"z{layer}" for layer in range(1, depth + 1)]
    visits = names[::-1] if kind == "top-down" else names
    conditionals = []
    for position, name in enumerate(visits):
        before = visits[position - 1 : position] if position else []
        parents = before or ["x"]
        if kind == "mean field":
            parents = ["x"]
        elif kind in ("bottom-up seeing x", "top-down"):
            parents = [*before, "x"]
        family = DiagonalGaussian(1)
        n_in = sum(WIDTH if parent == "x" else 1 for parent in parents)
        conditionals.append(Conditional(name, parents, mlp(n_in, family, source, activation, 0.35), family))
    network = BeliefNetwork(conditionals)
    return Ladder(network) if kind == "ladder" else NetworkPosterior(network)


def data(n: int = 3) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


# their answers, on a grid of values

GRID = np.linspace(-18, 18, 721)
LOG_H = np.log(GRID[1] - GRID[0])


def outputs(conditional: Conditional, parents: Array) -> tuple[Array, Array]:
    """Mean and log-variance, or logits and nothing, read from the tensors by numpy."""
    h = parents
    if isinstance(conditional.net, Root):
        h = conditional.net.outputs.detach().numpy()
    else:
        assert isinstance(conditional.net, nn.Sequential)
        for module in conditional.net:
            if isinstance(module, nn.Linear):
                h = h @ module.weight.detach().numpy().T + module.bias.detach().numpy()
            else:
                h = np.tanh(h) if isinstance(module, nn.Tanh) else np.logaddexp(0, h)
    family = conditional.family
    if isinstance(family, Bernoulli):
        return h, np.zeros(0)
    assert isinstance(family, DiagonalGaussian)
    if family.log_variance is None:
        return h[..., : family.units], h[..., family.units :]
    return h, np.broadcast_to(family.log_variance.detach().numpy(), h.shape)


def log_density(conditional: Conditional, value: Array, parents: Array) -> Array:
    first, log_variance = outputs(conditional, parents)
    if isinstance(conditional.family, Bernoulli):
        return (value * first - np.logaddexp(0, first)).sum(-1)
    return norm.logpdf(value, first, np.exp(log_variance / 2)).sum(-1)


def log_q(found: Posterior, decoder: BeliefNetwork, x: Array) -> list[Array]:
    """``log q(v_k = i | v_{k-1} = j, x)`` as [j, i], in the order of visits; ladder merged by precisions."""
    column, row = GRID[:, None, None], GRID[None, :, None]
    tables = []
    if isinstance(found, NetworkPosterior):
        for name in found.order:
            sees = found.network[name].parents
            parts = [np.broadcast_to(x, (len(GRID), 1, len(x))) if parent == "x" else column for parent in sees]
            tables.append(log_density(found.network[name], row, np.concatenate(parts, -1)))
        return tables
    assert isinstance(found, Ladder)
    passed, upward = x, {}
    for name in found.upward.variables:
        upward[name] = outputs(found.upward[name], passed)
        passed = upward[name][0]
    for name in found.order:
        mean, log_variance = upward[name]
        if decoder[name].parents:
            prior_mean, prior_log_variance = outputs(decoder[name], column)
            precision = np.exp(-log_variance) + np.exp(-prior_log_variance)
            mean = (mean * np.exp(-log_variance) + prior_mean * np.exp(-prior_log_variance)) / precision
            log_variance = -np.log(precision)
        tables.append(norm.logpdf(row, mean, np.exp(log_variance / 2)).sum(-1))
    return tables


def on_a_grid(decoder: BeliefNetwork, found: Posterior, x: Array) -> dict[str, float]:
    """All answers for one datum, by tables p(z_l | z_{l+1}) over values and products of them."""
    depth, names = len(found.order), list(found.order)
    down = {f"z{m}": log_density(decoder[f"z{m}"], GRID[:, None, None], GRID[None, :, None]) for m in range(1, depth)}
    prior = {f"z{depth}": log_density(decoder[f"z{depth}"], GRID[:, None], GRID[:, None])}
    for m in range(depth - 1, 0, -1):
        prior[f"z{m}"] = logsumexp(down[f"z{m}"] + prior[f"z{m + 1}"] + LOG_H, 1)
    says = {"z1": log_density(decoder["x"], x, GRID[:, None])}
    for m in range(2, depth + 1):
        says[f"z{m}"] = logsumexp(down[f"z{m - 1}"] + says[f"z{m - 1}"][:, None] + LOG_H, 0)
    log_px = logsumexp(prior["z1"] + says["z1"] + LOG_H)

    tables = log_q(found, decoder, x)
    here, pairs = np.eye(1, len(GRID))[0], []
    for table in tables:
        pairs.append(here[:, None] * np.exp(table + LOG_H))
        here = pairs[-1].sum(0)
    bottom_up = names[0] == "z1"
    answers = {"log_px": log_px, "elbo": 0.0}
    for k, name in enumerate(names):
        m = int(name[1:])
        if bottom_up:
            exact = (down[f"z{m - 1}"] - prior[f"z{m - 1}"][:, None] if m > 1 else says["z1"] - log_px) + prior[name]
            mean_prior = (pairs[k + 1] * down[name]).sum() if m < depth else (pairs[k] * prior[name]).sum()
        else:
            exact = (down[name].T - says[f"z{m + 1}"][:, None] if m < depth else prior[name] - log_px) + says[name]
            mean_prior = (pairs[k] * (down[name].T if m < depth else prior[name])).sum()
        answers[f"layer {name}"] = (pairs[k] * (tables[k] - exact)).sum()
        answers[f"rate {name}"] = (pairs[k] * tables[k]).sum() - mean_prior
        answers["elbo"] -= answers[f"rate {name}"]
        if m == 1:
            answers["elbo"] += (pairs[k] * says["z1"]).sum()
    left = log_px - answers["elbo"]
    for name in names:
        left -= answers[f"layer {name}"]
        answers[f"remaining {name}"] = left
    return answers


def flat(gaps: Gaps) -> dict[str, Array]:
    """The numbers of a record under the names that the grid gives them."""
    parts: dict[str, Mapping[str, torch.Tensor]] = {"rate": gaps.rates, "layer": gaps.layers}
    parts["remaining"] = gaps.remaining
    named = {f"{part} {name}": value.numpy() for part, values in parts.items() for name, value in values.items()}
    return {"log_px": gaps.log_px.numpy(), "elbo": gaps.elbo.numpy(), **named}


def assert_answers(gaps: Gaps, truth: list[dict[str, float]], *, shown: float) -> None:
    """Every number is as near the truth as the doubling of the nodes shows, and that is within ``shown``.

    What is shown is the error of the grid before doubling; that of the answers themselves is smaller still.
    """
    found = flat(gaps)
    assert found.keys() == truth[0].keys()
    assert gaps.error <= shown
    for name, values in found.items():
        assert values.shape == (len(truth),) and values.dtype == np.float64
        expected = [answers[name] for answers in truth]
        np.testing.assert_allclose(values, expected, rtol=0, atol=max(gaps.error, 1e-10), err_msg=name)


def assert_three_ways(gaps: Gaps, atol: float) -> None:
    """G_k from normalised conditionals, R_{k-1} - R_k from marginals, and log p(x) - ELBO."""
    before = gaps.total
    for name, layer in gaps.layers.items():
        np.testing.assert_allclose((before - gaps.remaining[name]).numpy(), layer.numpy(), rtol=0, atol=atol)
        before = gaps.remaining[name]
    np.testing.assert_allclose(sum(gaps.layers.values()).numpy(), gaps.total.numpy(), rtol=0, atol=atol)
    assert float(before.abs().max()) < 1e-12


@pytest.mark.parametrize("activation", [TANH, SOFTPLUS])
@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_answers_equal_a_grid_of_values(depth: int, kind: str, activation: Callable[[], nn.Module]) -> None:
    network, found, x = stack(depth, activation), posterior(kind, depth, activation), data(4 - depth)
    gaps = Quadrature.of(network, 24 if depth == 3 else None).gaps(found, x)
    assert tuple(gaps.layers) == found.order
    assert_answers(gaps, [on_a_grid(network, found, datum) for datum in x.numpy()], shown=1e-4 if depth == 3 else 1e-8)
    assert_three_ways(gaps, 1e-6 if depth == 3 else 1e-10)


def test_answers_for_bernoulli_equal_a_grid_of_values() -> None:
    network, found = stack(2, x=Bernoulli(WIDTH)), posterior("bottom-up", 2)
    x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float32)
    reference = Quadrature.of(network)
    gaps = reference.gaps(found, x)
    assert_answers(gaps, [on_a_grid(network, found, datum) for datum in x.numpy()], shown=1e-8)
    assert float(reference.log_px(x).exp().sum()) == pytest.approx(1, abs=1e-10)


def test_log_px_equals_scipy() -> None:
    network, x = stack(1), data()
    for log_px, datum in zip(Quadrature.of(network).log_px(x), x.numpy(), strict=True):

        def joint_density(z: float, datum: Array = datum) -> float:
            value = np.array([z])
            prior = log_density(network["z1"], value, np.zeros(0))
            return float(np.exp(prior + log_density(network["x"], datum, value)))

        assert float(log_px) == pytest.approx(
            np.log(quad(joint_density, -15, 15, epsabs=0, epsrel=1e-12)[0]), abs=1e-10
        )


# linear-Gaussian stacks, by the joint covariance


def linear_posterior(kind: str, widths: tuple[int, ...], log_variance: float) -> NetworkPosterior:
    source = torch.Generator().manual_seed(7)
    names = [f"z{layer}" for layer in range(1, len(widths))]
    visits = names if kind == "bottom-up" else names[::-1]
    conditionals = []
    for position, name in enumerate(visits):
        before = visits[position - 1 : position] if position else []
        parents = before or ["x"] if kind == "bottom-up" else [*before, "x"]
        family = DiagonalGaussian(widths[int(name[1:])], variance="learned", log_variance=log_variance).double()
        n_in = sum(widths[int(parent[1:]) if parent != "x" else 0] for parent in parents)
        conditionals.append(Conditional(name, parents, linear(n_in, family, source, 0.5), family))
    return NetworkPosterior(BeliefNetwork(conditionals))


def expected_log_prob(conditional: Conditional, where: dict[str, list[int]], mean: Array, covariance: Array) -> float:
    """E log N(v; W u + b, S) when (u, v) are jointly Gaussian."""
    weight, bias, noise = parameters(conditional)
    own, seen = where[conditional.name], [i for parent in conditional.parents for i in where[parent]]
    mix = np.hstack([np.eye(len(own)), -weight])
    index = [*own, *seen]
    rest = mix @ mean[index] - bias
    second = mix @ covariance[np.ix_(index, index)] @ mix.T + np.outer(rest, rest)
    log_det = np.linalg.slogdet(2 * np.pi * noise)[1]
    return -(log_det + np.trace(np.linalg.solve(noise, second))) / 2


def gaussian_kl(mean: Array, covariance: Array, other_mean: Array, other: Array) -> float:
    distance = mean - other_mean
    inside = np.trace(np.linalg.solve(other, covariance)) + distance @ np.linalg.solve(other, distance) - len(mean)
    return (inside + np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1]) / 2


def in_closed_form(network: BeliefNetwork, found: NetworkPosterior, x: Array) -> dict[str, float]:
    """G_k as differences of divergences between the joint distributions of v_1 … v_k (the chain rule)."""
    where, mean, covariance = joint(network)
    latent, seen = [i for name in found.order for i in where[name]], where["x"]
    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, latent)]).T
    exact_mean = mean[latent] + gain @ (x - mean[seen])
    exact = covariance[np.ix_(latent, latent)] - gain @ covariance[np.ix_(seen, latent)]
    q_where, q_mean, q_covariance = joint(found.network, {"x": (x, np.zeros((len(x), len(x))))})
    log_px = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(x)

    answers, visited, before = {"log_px": log_px}, 0, 0.0
    for name in found.order:
        visited += len(where[name])
        rows = [i for other in found.order for i in q_where[other]][:visited]
        after = gaussian_kl(
            q_mean[rows], q_covariance[np.ix_(rows, rows)], exact_mean[:visited], exact[:visited, :visited]
        )
        answers[f"layer {name}"], before = after - before, after
        answers[f"remaining {name}"] = -after
        terms = [expected_log_prob(side[name], q_where, q_mean, q_covariance) for side in (found.network, network)]
        answers[f"rate {name}"] = terms[0] - terms[1]
    for name in found.order:
        answers[f"remaining {name}"] += before
    answers["elbo"] = log_px - before
    return answers


@pytest.mark.parametrize("log_variance", [-1.0, -5.0])  # the second ten times narrower than some exact conditionals
@pytest.mark.parametrize("kind", ["bottom-up", "top-down"])
@pytest.mark.parametrize("widths", [(3, 1), (3, 2), (3, 1, 1), (3, 2, 1), (3, 1, 2), (2, 1, 1, 1)])
def test_linear_stacks_equal_closed_forms(widths: tuple[int, ...], kind: str, log_variance: float) -> None:
    network, found = linear_decoder(widths, scale=0.7), linear_posterior(kind, widths, log_variance)
    x = torch.randn(1, widths[0], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gaps = Quadrature.of(network, 24 if sum(widths[1:]) == 3 else None).gaps(found, x)
    truth = [in_closed_form(network, found, datum) for datum in x.numpy()]
    assert_answers(gaps, truth, shown=1e-4 if sum(widths[1:]) == 3 else 1e-9)


def test_the_exact_posterior_has_no_gap() -> None:
    """Its conditionals see only what exact ones see, and have a full covariance where z1 has two units."""
    network = linear_decoder((3, 2, 1), scale=0.7)
    exact = LinearGaussian.of(network)
    for order in ("bottom-up", "top-down"):
        gaps = Quadrature.of(network, 24).gaps(exact.exact_posterior(order), torch.zeros(1, 3))  # type: ignore[arg-type]
        for numbers in (gaps.total, *gaps.layers.values(), *gaps.remaining.values()):
            assert float(numbers.abs().max()) <= max(gaps.error, 1e-10)


def test_log_px_of_a_decoder_with_skips() -> None:
    network, x = linear_decoder((3, 1, 1), skips=True, scale=0.7), torch.randn(4, 3, dtype=torch.float64)
    where, mean, covariance = joint(network)
    expected = multivariate_normal(mean[where["x"]], covariance[np.ix_(where["x"], where["x"])]).logpdf(x.numpy())
    np.testing.assert_allclose(Quadrature.of(network).log_px(x).numpy(), expected, rtol=0, atol=1e-10)


# what doubling shows


def test_nodes_integrate_what_is_smooth() -> None:
    grid, log_weight = nodes(40, 2)
    weight = log_weight.exp()
    assert grid.shape == (1600, 2) and float(weight.sum()) == pytest.approx(1, abs=1e-14)
    moments = [(weight * grid[:, 0] ** k).sum() for k in range(7)]
    np.testing.assert_allclose(moments, [1, 0, 1, 0, 3, 0, 15], rtol=0, atol=1e-4)
    fine, log_weight = nodes(160, 1)
    moments = [(log_weight.exp() * fine[:, 0] ** k).sum() for k in range(7)]
    np.testing.assert_allclose(moments, [1, 0, 1, 0, 3, 0, 15], rtol=0, atol=1e-11)
    assert float((weight * (grid[:, 0] * grid[:, 1]).square()).sum()) == pytest.approx(1, abs=1e-5)
    assert not set(nodes(40, 1)[0].flatten().tolist()) & set(nodes(80, 1)[0].flatten().tolist())
    assert fine.max() > grid.max()


def test_doubling_shows_why_relu_is_refused() -> None:
    """The answer moves by 1e-6 where the kink is, and by less than 1e-10 without."""
    x = data()
    for activation in (nn.ReLU, nn.LeakyReLU, nn.Hardtanh):
        with pytest.raises(NoReferenceError, match=f"net of x contains {activation.__name__}, whose kink"):
            Quadrature.of(stack(1, activation))

    def change(activation: Callable[[], nn.Module]) -> float:
        network = stack(1, activation, log_variance=1.0).double()
        coarse, fine = (Quadrature(network, n).log_px(x) for n in (160, 320))  # not by `of`, which refuses
        return float((coarse - fine).abs().max())

    assert change(nn.ReLU) > 1e-6
    assert change(nn.ELU) > 1e-9
    assert change(nn.Tanh) < 1e-10
    assert change(nn.Softplus) < 1e-10


def test_a_kink_in_x_alone_is_none() -> None:
    """x is fixed: a ReLU encoder is smooth in its noise where it sees no latent."""
    network, x = stack(1), data()
    gaps = Quadrature.of(network).gaps(posterior("bottom-up", 1, nn.ReLU), x)
    assert gaps.error < 1e-8
    assert_three_ways(gaps, 1e-10)
    with pytest.raises(NoReferenceError, match="net of z2 contains ReLU"):
        Quadrature.of(stack(2)).gaps(posterior("bottom-up", 2, nn.ReLU), x)
    assert Quadrature.of(stack(2)).gaps(posterior("ladder", 2, nn.ReLU), x).error < 1e-8


@pytest.mark.parametrize(("variance", "n_resolved"), [(1e-2, 16), (1e-4, 5), (1e-6, 0)])
def test_narrow_posteriors_are_resolved_or_refused(variance: float, n_resolved: int) -> None:
    """One datum at a time, as an accident of the nodes may hide one but not all."""
    network = stack(1, log_variance=float(np.log(variance)))
    values = np.linspace(-8, 8, 200_001)[:, None]
    prior = log_density(network["z1"], values, np.zeros(0)) + np.log(16 / 200_000)
    source = np.random.default_rng(3)
    mean, _ = outputs(network["x"], source.normal(size=(8, 1)))
    data = mean + np.sqrt(variance) * source.normal(size=mean.shape)
    truth = [logsumexp(prior + log_density(network["x"], datum, values)) for datum in data]
    resolved = 0
    for n_nodes in (20, 80, 320, 1280):
        reference = Quadrature.of(network, n_nodes)
        for datum, expected in zip(data, truth, strict=True):
            try:
                log_px = float(reference.log_px(torch.from_numpy(datum[None])))
            except NoReferenceError as error:
                assert "more n_nodes" in str(error)
            else:
                resolved += 1
                assert log_px == pytest.approx(expected, abs=1e-3)
    assert resolved >= n_resolved


def test_a_narrow_stack_has_its_gaps_resolved_or_refused() -> None:
    network, found = stack(2, log_variance=float(np.log(0.01))), posterior("bottom-up", 2)
    x = torch.from_numpy(outputs(network["x"], np.array([[0.2], [-0.4]]))[0])
    with pytest.raises(NoReferenceError, match=r"answers change by .* 8 nodes doubled do not resolve this stack; give"):
        Quadrature.of(network, 8).gaps(found, x)
    gaps = Quadrature.of(network, 200).gaps(found, x)
    for name, values in flat(gaps).items():
        expected = [on_a_grid(network, found, datum)[name] for datum in x.numpy()]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-3, err_msg=name)


def test_a_jump_between_all_nodes_is_seen_by_a_posterior_that_knows_it() -> None:
    """tanh(1e5 z) is ±1 at every node of both grids, so that doubling changes nothing; but q has its nodes at 0."""
    network, found = stack(1), posterior("bottom-up", 1)
    net, distribution = network["x"].net, found.network["z1"].net  # type: ignore[union-attr]
    assert isinstance(net, nn.Sequential) and isinstance(distribution, nn.Sequential)
    with torch.no_grad():
        for module in (net, distribution):
            for parameter in module.parameters():
                parameter.zero_()
        net[0].weight.fill_(1e5)
        net[2].weight.fill_(1.0)
        distribution[2].bias.copy_(torch.tensor([0.0, 2 * np.log(1e-5)]))
    with pytest.raises(NoReferenceError, match="two ways to a layer's gap differ by"):
        Quadrature.of(network).gaps(found, torch.zeros(1, WIDTH))


# house-keeping


def test_data_may_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, found, x = stack(2), posterior("top-down", 2), data(5)
    whole = Quadrature.of(network, 40).gaps(found, x)
    monkeypatch.setattr(quadrature, "MEMORY", 2 * 80**2 * 3)
    parts = Quadrature.of(network, 40).gaps(found, x)
    assert parts.error == pytest.approx(whole.error, rel=1e-6)
    for name, values in flat(parts).items():
        np.testing.assert_allclose(values, flat(whole)[name], rtol=0, atol=1e-12)
    np.testing.assert_allclose(Quadrature.of(network, 40).log_px(x), whole.log_px, rtol=0, atol=1e-12)


def test_the_models_are_left_as_they_were() -> None:
    network, found = stack(2).float().train(), posterior("ladder", 2).float().train()
    before = {name: value.clone() for name, value in [*network.state_dict().items(), *found.state_dict().items()]}
    gaps = Quadrature.of(network).gaps(found, data().float())
    for name, value in [*network.state_dict().items(), *found.state_dict().items()]:
        assert value.dtype == torch.float32 and torch.equal(value, before[name])
    assert network.training and found.training and not gaps.log_px.requires_grad


def test_what_quadrature_cannot_solve_is_refused_with_the_reason() -> None:
    with pytest.raises(NoReferenceError, match="latents have 4 dimensions in all; quadrature has 3 at most"):
        Quadrature.of(linear_decoder((3, 2, 2)))
    bernoulli = Bernoulli(1)
    root = Root(bernoulli.standard_outputs(), learned=False)
    x = DiagonalGaussian(WIDTH)
    with pytest.raises(NoReferenceError, match="z1 is drawn from uniform noise; quadrature needs Gaussian latents"):
        Quadrature.of(
            BeliefNetwork([Conditional("z1", [], root, bernoulli), Conditional("x", ["z1"], nn.Linear(1, 4), x)])
        )
    with pytest.raises(NoReferenceError, match=r"x has the parents z2, z1 in the decoder; .* its only parent is z1"):
        Quadrature.of(linear_decoder((2, 1, 1), skips=True)).gaps(linear_posterior("top-down", (2, 1, 1), 0.0), data())
    scrambled = posterior("mean field", 3)
    assert isinstance(scrambled, NetworkPosterior)
    shuffled = NetworkPosterior(BeliefNetwork([scrambled.network[name] for name in ("z2", "z1", "z3")]))
    with pytest.raises(NoReferenceError, match="posterior visits z2, z1, z3; gaps by quadrature need the order z3, z2"):
        Quadrature.of(stack(3)).gaps(shuffled, data())


def test_bad_input_is_named() -> None:
    network, found = stack(1), posterior("bottom-up", 1)
    for n_nodes in (0, 3, 10**8):
        with pytest.raises(ValueError, match=f"n_nodes is {n_nodes}; in 1 dimensions give 4 to"):
            Quadrature.of(network, n_nodes)
    reference = Quadrature.of(network)
    for x in (torch.zeros(3, 1), torch.zeros(2), torch.zeros(1, 2, WIDTH), torch.zeros(0, WIDTH)):
        with pytest.raises(ValueError, match=r"x is \[.*\]; give finite \[B, 2\]"):
            reference.log_px(x)
    with pytest.raises(ValueError, match="not finite"):
        reference.gaps(found, torch.full((1, WIDTH), torch.nan))
    with torch.no_grad():
        next(found.parameters()).fill_(torch.nan)
    with pytest.raises(NoReferenceError, match="log-weights are not finite"):
        reference.gaps(found, data())
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(NoReferenceError, match="change by nan nats"):
        Quadrature.of(network).log_px(data())


def test_the_error_is_the_largest_change() -> None:
    """What 20 nodes doubled answer is what 40 start from."""
    network, found, x = stack(2), posterior("bottom-up", 2), data()
    coarse, fine = (Quadrature.of(network, n).gaps(found, x) for n in (20, 40))
    changes = [np.abs(values - flat(coarse)[name]).max() for name, values in flat(fine).items()]
    assert fine.error == pytest.approx(max(changes), rel=1e-9, abs=0)
    assert coarse.error > fine.error > 0


def test_the_change_of_the_nodes_bounds_the_error_of_log_px() -> None:
    """And it stands in the gap as a bias, instead of a standard error of 0 (`exact_marginal`)."""
    known = linear_stack(1.0, "best", seed=0, widths=(3, 1))
    seen = 0
    for n_nodes in range(6, 40):
        reference = Quadrature.of(known.model.decoder, n_nodes)
        try:
            marginal = exact_marginal(reference, known.x)
        except NoReferenceError:
            continue
        off = np.abs(marginal.estimate.log_px - known.reference.log_px(known.x).numpy())
        assert (off <= marginal.bias_datum_nats + 1e-12).all()
        seen += int((off > 1e-9).any())
    assert seen >= 3
