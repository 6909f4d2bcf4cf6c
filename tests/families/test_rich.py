"""Families read as a whole: autoregressive, mixtures, flows; one contract, against arithmetic unit by unit."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor
from torch.func import functional_call, jacrev, stack_module_state, vmap

from hvae.families import (
    Autoregressive,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Family,
    Flow,
    FullGaussian,
    MixtureGaussian,
    kl,
    unit_kl,
)
from hvae.families.general import N_MEAN_DRAWS
from tests.statistics import assert_mean

EXACT = {"atol": 1e-10, "rtol": 1e-10}
N_HIDDEN = 5


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


FRESH: dict[str, Callable[[int], Family]] = {
    "coins": lambda units: Autoregressive(Bernoulli(units), N_HIDDEN, source=source()),
    "dice": lambda units: Autoregressive(Categorical(units, 3), N_HIDDEN, source=source()),
    "gaussian": lambda units: Autoregressive(DiagonalGaussian(units), N_HIDDEN, source=source()),
    "gaussian-learned": lambda units: Autoregressive(
        DiagonalGaussian(units, variance="learned", log_variance=-0.7), N_HIDDEN, source=source()
    ),
    "mixture": lambda units: MixtureGaussian(units, 4),
    "maf": lambda units: Flow(units, "maf", N_HIDDEN, 2, source=source()),
    "nsf": lambda units: Flow(units, "nsf", N_HIDDEN, 2, source=source()),
    "maf-fixed": lambda units: Flow(units, "maf", N_HIDDEN, 1, source=source(), variance="fixed"),
}
DISCRETE = ("coins", "dice")
CONTINUOUS = tuple(name for name in FRESH if name not in DISCRETE)


def made(name: str, units: int = 3) -> Family:
    """With weights as after training: none at its start."""
    family = FRESH[name](units).double()
    for i, parameter in enumerate(family.parameters()):
        parameter.data.copy_(0.7 * normal(*parameter.shape, seed=50 + i))
    return family


def states(family: Family) -> Tensor:
    faces = torch.eye(3).double() if family.width > family.units else torch.tensor([[0.0], [1.0]]).double()
    return torch.stack([torch.cat(unit) for unit in itertools.product(faces, repeat=family.units)])


def noise_for(family: Family, *shape: int, seed: int = 2) -> Tensor:
    if family.noise == "normal":
        return normal(*shape, family.noise_width, seed=seed)
    return torch.rand(*shape, family.noise_width, generator=source(seed), dtype=torch.float64)


# Autoregressive layers, unit by unit


def by_hand(family: Autoregressive, outputs: np.ndarray, value: np.ndarray) -> float:
    """log q(v | parent) in loops: hidden unit h sees units 0 … h mod (D - 1), unit i those that see less than i."""
    d, per = family.units, family.width // family.units
    inward, outward, direct = (w.detach().numpy() for w in (family.inward, family.outward, family.direct))
    n = family.unit.n_outputs
    degree = [h % max(d - 1, 1) for h in range(N_HIDDEN)]
    hidden = [
        math.tanh(outputs[n + h] + sum(inward[h, j] * value[j] for j in range(len(value)) if j // per <= degree[h]))
        for h in range(N_HIDDEN)
    ]

    def parameter(row: int, unit: int) -> float:
        linear = sum(direct[row, j] * value[j] for j in range(len(value)) if j // per < unit)
        return outputs[row] + linear + sum(outward[row, h] * hidden[h] for h in range(N_HIDDEN) if degree[h] < unit)

    total = 0.0
    for i in range(d):
        if isinstance(family.unit, Bernoulli):
            total += stats.bernoulli(special.expit(parameter(i, i))).logpmf(value[i])
        elif isinstance(family.unit, Categorical):
            logits = np.array([parameter(per * i + c, i) for c in range(per)])
            total += special.log_softmax(logits)[int(value[per * i : per * (i + 1)].argmax())]
        else:
            assert isinstance(family.unit, DiagonalGaussian)
            learned = family.unit.log_variance
            log_variance = parameter(d + i, i) if learned is None else learned[i].item()
            total += stats.norm(parameter(i, i), math.exp(log_variance / 2)).logpdf(value[i])
    return float(total)


@pytest.mark.parametrize("units", [1, 2, 4])
@pytest.mark.parametrize("name", ["coins", "dice", "gaussian", "gaussian-learned"])
def test_autoregressive_scores_equal_loops_over_units(name: str, units: int) -> None:
    family = made(name, units)
    assert isinstance(family, Autoregressive)
    outputs = normal(1, 4, family.n_outputs)
    value = family.draw(family.distribution(outputs), noise_for(family, 3, 1)).detach()
    found = family.log_prob(family.distribution(outputs), value).detach()
    assert found.shape == (3, 4) and value.shape == (3, 4, family.width)
    expected = [[by_hand(family, outputs[0, b].numpy(), value[k, b].numpy()) for b in range(4)] for k in range(3)]
    np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("units", [1, 3])
def test_all_states_sum_to_one(name: str, units: int) -> None:
    family = made(name, units)
    distribution = family.distribution(3 * normal(1, 6, family.n_outputs))
    total = family.log_prob(distribution, states(family)[:, None]).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(6).double(), **EXACT)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_draws_fall_with_the_distribution_of_every_joint_state(name: str) -> None:
    family = made(name, 3 if name == "coins" else 2)
    distribution = family.distribution(normal(family.n_outputs))
    drawn = family.draw(distribution, noise_for(family, 20_000)).detach()
    hits = (drawn[:, None] == states(family)).all(-1)
    assert hits.any(1).all()
    assert_mean(hits, family.log_prob(distribution, states(family)).exp().detach(), detect=0.04)


def test_the_mean_of_bernoulli_is_no_worse_than_that_of_independent_draws() -> None:
    family = made("coins", 4)
    distribution = family.distribution(2 * normal(300, family.n_outputs))
    p = family.log_prob(distribution, states(family)[:, None]).exp()
    mean = torch.einsum("sb,sd->bd", p, states(family))
    error, variance = family.mean(distribution) - mean, mean * (1 - mean) / N_MEAN_DRAWS
    assert error[:, 0].abs().max() < 1e-12  # known
    assert 0 < error[:, 1:].square().mean() < variance[:, 1:].mean()
    assert error.abs().max() < 6 * 0.5 / math.sqrt(N_MEAN_DRAWS)


def test_the_mean_of_a_linear_gaussian_is_exact() -> None:
    """E v = o + A E v, so (I - A) E v = o; the tanh units are switched off."""
    family = made("gaussian", 4)
    assert isinstance(family, Autoregressive)
    family.outward.data.zero_()
    outputs = normal(3, family.n_outputs)
    triangle = torch.tril(family.direct[:4], diagonal=-1).detach()
    expected = torch.linalg.solve(torch.eye(4).double() - triangle, outputs[:, :4].T).T
    family.direct.data[4:].zero_()
    torch.testing.assert_close(family.mean(family.distribution(outputs)), expected, **EXACT)


# Mixtures


def components(outputs: np.ndarray, units: int, n: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares, means and deviations, cut out by hand."""
    share = special.softmax(outputs[:n])
    means = outputs[n : n + n * units].reshape(n, units)
    return share, means, np.exp(outputs[n + n * units :].reshape(n, units) / 2)


def test_mixture_scores_and_means_equal_scipy() -> None:
    family = made("mixture")
    outputs, value = normal(1, 4, family.n_outputs), normal(5, 1, 3, seed=3)
    distribution = family.distribution(outputs)
    found, mean = family.log_prob(distribution, value), family.mean(distribution)
    assert found.shape == (5, 4)
    for k, b in itertools.product(range(5), range(4)):
        share, means, deviations = components(outputs[0, b].numpy(), 3)
        density = sum(
            w * stats.norm(m, s).pdf(value[k, 0]).prod() for w, m, s in zip(share, means, deviations, strict=True)
        )
        assert found[k, b].item() == pytest.approx(math.log(density), abs=1e-10)
        np.testing.assert_allclose(mean[0, b], share @ means, **EXACT)


def test_mixture_draws_have_the_moments_and_the_mass_of_the_mixture() -> None:
    family = made("mixture", 2)
    outputs = 1.5 * normal(family.n_outputs, seed=4)
    share, means, deviations = components(outputs.numpy(), 2)
    drawn = family.draw(family.distribution(outputs), normal(20_000, 2, seed=5)).numpy()
    inside = (drawn < 0.4).all(1).astype(float)
    box = sum(w * stats.norm(m, s).cdf(0.4).prod() for w, m, s in zip(share, means, deviations, strict=True))
    product = sum(w * m[0] * m[1] for w, m in zip(share, means, strict=True))
    found = np.column_stack([inside, drawn, drawn.prod(1)])
    assert_mean(found, [box, *(share @ means), product], detect=0.3)
    assert_mean(inside, box, detect=0.04)


def test_mixture_far_apart_and_far_out_stays_exact() -> None:
    """Components 50 deviations apart, a share of 1e-9, noise 8 deviations out: drawn, inverted, finite gradients."""
    family = MixtureGaussian(2, 3)
    means = [-50.0, 0.0, 0.0, 0.0, 50.0, 1.0]
    outputs = torch.tensor([0.0, -20.0, 0.1, *means, *([0.0] * 6)], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([[8.0, -8.0], [-8.0, 8.0], [0.05, 0.3], [-3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    value = family.draw(family.distribution(outputs), noise)
    torch.testing.assert_close(family.noise_of(family.distribution(outputs), value), noise, atol=1e-9, rtol=0)
    score = family.log_prob(family.distribution(outputs), value)
    (slope,) = torch.autograd.grad(value.sum() + score.sum(), outputs)
    assert value.isfinite().all() and score.isfinite().all() and slope.isfinite().all()


def test_a_mixture_of_one_is_the_diagonal_gaussian() -> None:
    single, plain = MixtureGaussian(3, 1), DiagonalGaussian(3)
    outputs, noise = normal(4, 6), 3 * normal(7, 4, 3, seed=1)
    distribution, other = single.distribution(torch.cat([normal(4, 1), outputs], -1)), plain.distribution(outputs)
    torch.testing.assert_close(single.draw(distribution, noise), plain.draw(other, noise), **EXACT)
    torch.testing.assert_close(single.log_prob(distribution, noise), plain.log_prob(other, noise), **EXACT)


# What draws from normal noise have in common


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_noise_of_inverts_the_draw_both_ways(name: str, units: int) -> None:
    family = made(name, units)
    assert family.noise == "normal" and family.noise_width == units and family.reparametrised
    distribution, noise = family.distribution(normal(1, 5, family.n_outputs)), 2 * normal(4, 1, units, seed=2)
    value = family.draw(distribution, noise)
    assert value.shape == (4, 5, units)
    torch.testing.assert_close(family.noise_of(distribution, value), noise.expand(4, 5, units), **EXACT)
    other = normal(4, 5, units, seed=3)
    torch.testing.assert_close(family.draw(distribution, family.noise_of(distribution, other)), other, **EXACT)


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_density_is_that_of_the_noise_over_the_determinant(name: str, units: int) -> None:
    """log q(v) = log N(noise) - log |det dv/dnoise|, the determinant of the whole Jacobian by autograd."""
    family = made(name, units)
    for seed in range(4):
        outputs, noise = normal(family.n_outputs, seed=seed), 1.5 * normal(units, seed=10 + seed)
        jacobian = jacrev(lambda n, o=outputs: family.draw(family.distribution(o), n))(noise)
        expected = stats.norm().logpdf(noise).sum() - torch.linalg.slogdet(jacobian)[1].item()
        distribution = family.distribution(outputs)
        assert family.log_prob(distribution, family.draw(distribution, noise)).item() == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize("name", ["gaussian", "mixture", "maf"])
def test_densities_integrate_to_one(name: str) -> None:
    """The plane by equally spaced nodes, far better than any power of their distance for what is smooth; mild weights,
    since a variance that grows with the unit before it has tails beyond any square."""
    family = made(name, 2)
    for parameter in family.parameters():
        parameter.data.mul_(0.2)
    distribution = family.distribution(0.3 * normal(family.n_outputs))
    nodes = torch.linspace(-12, 12, 401, dtype=torch.float64)
    total = torch.stack(
        [family.log_prob(distribution, torch.cartesian_prod(rows, nodes)).exp().sum() for rows in nodes.split(40)]
    ).sum()
    assert total.item() * (24 / 400) ** 2 == pytest.approx(1, abs=1e-10)


def test_a_spline_flow_integrates_to_one() -> None:
    """On the line, where the density has kinks at the knots: Gauss-Legendre between them, the tails by erfc."""
    family = Flow(1, "nsf", N_HIDDEN, 1, source=source()).double()
    for i, parameter in enumerate(family.parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=50 + i))
    outputs = normal(family.n_outputs, seed=1)
    distribution = family.distribution(outputs)
    mean, deviation = outputs[0].item(), math.exp(outputs[1].item() / 2)
    knots = family.transforms[0](outputs[2:]).base.horizontal[0].detach().numpy()
    assert len(knots) == 9 and np.ptp(np.diff(knots)) > 0.5  # no identity
    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = math.erfc(5 / math.sqrt(2))  # the spline is the identity beyond 5
    for left, right in itertools.pairwise(mean + deviation * knots):
        points = torch.from_numpy((left + right) / 2 + nodes * (right - left) / 2).unsqueeze(-1)
        total += (right - left) / 2 * weights @ family.log_prob(distribution, points).exp().detach().numpy()
    assert total == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradients_of_draws_and_scores_equal_finite_differences(name: str) -> None:
    """In outputs, noise, and one direction of all own weights."""
    model = Drawn(made(name, 2))
    weights = {key: (weight.detach(), normal(*weight.shape, seed=9)) for key, weight in model.named_parameters()}

    def drawn(outputs: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        return functional_call(model, {key: w + step * way for key, (w, way) in weights.items()}, (outputs, noise))

    arguments = normal(2, model.family.n_outputs), normal(2, 2, seed=2), torch.zeros((), dtype=torch.float64)
    arguments = tuple(argument.requires_grad_() for argument in arguments[: 3 if weights else 2])
    check = drawn if weights else lambda *pair: drawn(*pair, torch.zeros(()))
    assert torch.autograd.gradcheck(check, arguments, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DISCRETE)
def test_gradients_of_discrete_scores_equal_finite_differences(name: str) -> None:
    family = made(name, 2)
    value = states(family)[[1, -2]]

    def score(outputs: Tensor) -> Tensor:
        return family.log_prob(family.distribution(outputs), value)

    assert torch.autograd.gradcheck(score, (normal(2, family.n_outputs).requires_grad_(),), eps=1e-6, atol=1e-6)
    value = family.draw(family.distribution(normal(family.n_outputs).requires_grad_()), noise_for(family))
    assert not value.requires_grad and not family.reparametrised


class Drawn(torch.nn.Module):
    """A draw, its score and the mean, side by side."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = family

    def forward(self, outputs: Tensor, noise: Tensor) -> Tensor:
        distribution = self.family.distribution(outputs)
        value = self.family.draw(distribution, noise)
        return torch.cat([value, self.family.log_prob(distribution, value).unsqueeze(-1)], -1)


@pytest.mark.parametrize("name", FRESH)
def test_two_replicas_at_once_equal_each_alone(name: str) -> None:
    """Values, means and gradients in all weights, with weights stacked and vmapped as in training."""
    models = [Drawn(made(name)), Drawn(made(name))]
    for parameter in models[1].parameters():
        parameter.data.mul_(-0.6)
    outputs, noise = normal(2, 3, 4, models[0].family.n_outputs), noise_for(models[0].family, 2, 3, 4)
    parameters, buffers = stack_module_state(models)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *data: Tensor) -> Tensor:
        return functional_call(models[0], (parameters, buffers), data).square().mean((0, 1))

    found = vmap(loss, randomness="error")(parameters, buffers, outputs, noise)
    slopes = torch.autograd.grad(found.sum(), list(parameters.values())) if parameters else ()
    for r, model in enumerate(models):
        alone = model(outputs[r], noise[r]).square().mean((0, 1))
        torch.testing.assert_close(found[r], alone, **EXACT)
        own = torch.autograd.grad(alone.sum(), list(model.parameters())) if parameters else ()
        for slope, expected in zip(slopes, own, strict=True):
            torch.testing.assert_close(slope[r], expected, **EXACT)

    def mean(parameters: dict[str, Tensor], buffers: dict[str, Tensor], outputs: Tensor) -> Tensor:
        names = {key.removeprefix("family."): value for key, value in (parameters | buffers).items()}
        return functional_call(Mean(models[0].family), {f"family.{k}": v for k, v in names.items()}, (outputs,))

    means = vmap(mean, randomness="error")(parameters, buffers, outputs)
    for r, model in enumerate(models):
        torch.testing.assert_close(means[r], model.family.mean(model.family.distribution(outputs[r])), **EXACT)


class Mean(Drawn):
    """The mean alone."""

    def forward(self, outputs: Tensor) -> Tensor:  # type: ignore[override]
        return self.family.mean(self.family.distribution(outputs))


# Starts


@pytest.mark.parametrize("name", [name for name in FRESH if name != "mixture"])
def test_a_fresh_layer_is_its_factorised_kin(name: str) -> None:
    """Same draws and scores as Bernoulli units, categorical units or a diagonal Gaussian of the same outputs,
    whatever it adds to them."""
    family = FRESH[name](3).double()
    kin = family.unit if isinstance(family, Autoregressive) else family.gaussian
    assert isinstance(kin, Family)
    outputs, noise = normal(5, family.n_outputs), noise_for(family, 4, 5)
    distribution, plain = family.distribution(outputs), kin.distribution(outputs[..., : kin.n_outputs])
    value = kin.draw(plain, noise)
    torch.testing.assert_close(family.draw(distribution, noise), value, **EXACT)
    torch.testing.assert_close(family.log_prob(distribution, value), kin.log_prob(plain, value), **EXACT)
    torch.testing.assert_close(family.mean(distribution), kin.mean(plain).expand(5, -1), **EXACT)
    start = family.distribution(family.standard_outputs().double())
    if kin.n_outputs > 3 or name == "coins":
        expected = (
            kin.log_prob(family.standard(value), value)
            if name in DISCRETE
            else stats.norm().logpdf(value.detach()).sum(-1)
        )
        np.testing.assert_allclose(family.log_prob(start, value).detach(), expected, **EXACT)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_mixture_starts_apart_with_mean_0_and_variance_1(n: int) -> None:
    family = MixtureGaussian(3, n)
    share, means, deviations = components(family.standard_outputs().double().numpy(), 3, n)
    np.testing.assert_allclose(share @ means, 0, atol=1e-7)
    np.testing.assert_allclose(share @ (means**2 + deviations**2), 1, atol=1e-6)
    assert len({tuple(mean) for mean in means}) == n
    assert family.standard(torch.zeros(2)).log_prob(torch.zeros(3)).item() == pytest.approx(
        -1.5 * math.log(2 * math.pi)
    )


def test_own_weights_come_from_the_generator() -> None:
    for make in (
        lambda seed: Autoregressive(Bernoulli(3), 4, source=source(seed)),
        lambda seed: Flow(3, "nsf", 4, 2, source=source(seed)),
    ):
        first, again, other = (make(seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)


# What they cannot do


@pytest.mark.parametrize("name", FRESH)
def test_what_needs_natural_parameters_is_refused(name: str) -> None:
    family = made(name)
    distribution = family.distribution(normal(2, family.n_outputs))
    value = family.draw(distribution, noise_for(family, 2))
    assert not family.factorised
    with pytest.raises(TypeError, match=f"{type(family).__name__} has no terms per unit"):
        family.unit_log_prob(distribution, value)
    for what, ask in (
        ("sufficient statistic", lambda: family.statistic(value)),
        ("natural parameters", lambda: family.natural(distribution)),
        ("product", lambda: family.product(distribution, distribution)),
        ("nearest to a mixture", lambda: family.match(distribution)),
    ):
        with pytest.raises(TypeError, match=f"{type(family).__name__} is of no exponential family.*{what}.*log_prob"):
            ask()
    if name in DISCRETE:
        with pytest.raises(TypeError, match="does not tell the noise"):
            family.noise_of(distribution, value)


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("other", [DiagonalGaussian(3), FullGaussian(3), Bernoulli(3), Categorical(1, 3), None])
def test_no_divergence_is_made_up(name: str, other: Family | None) -> None:
    family = made(name)
    distribution = family.distribution(normal(2, family.n_outputs))
    against = distribution if other is None else other.distribution(normal(2, other.n_outputs))
    for divergence, pair in itertools.product((kl, unit_kl), ((distribution, against), (against, distribution))):
        with pytest.raises(TypeError, match=r"no (closed-form KL|covariance)"):
            divergence(*pair)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Autoregressive(FullGaussian(2), 3, source=source()), "FullGaussian does not factorise"),
        (lambda: Autoregressive(Bernoulli(2), -1, source=source()), "n_hidden is -1"),
        (lambda: MixtureGaussian(2, 0), "n_components is 0"),
        (
            lambda: Flow(2, "nice", 3, 1, source=source()),
            "the flow is 'nice'; give maf or nsf: .* do not run under vmap",
        ),
        (lambda: Flow(2, "maf", 0, 1, source=source()), "n_hidden is 0 and n_transforms 1"),
    ],
)
def test_bad_sizes_and_kinds_are_refused(make: Callable[[], Family], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("name", FRESH)
def test_float32_agrees_with_float64(name: str) -> None:
    family = made(name)
    distribution, noise = family.distribution(normal(50, family.n_outputs)), noise_for(family, 4, 50)
    value = family.draw(distribution, noise).float()
    exact = family.log_prob(distribution, value.double())
    single = made(name).float()
    law32 = single.distribution(normal(50, family.n_outputs).float())
    found = single.log_prob(law32, value)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=3e-5, atol=3e-4)
    if name in CONTINUOUS:
        torch.testing.assert_close(single.draw(law32, noise.float()), value, rtol=1e-4, atol=1e-4)
