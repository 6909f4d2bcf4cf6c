"""Chains over values against quadrature in the noise of q, scipy, and what is known on paper."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm
from torch import nn

from hvae.exact import NoReferenceError, Quadrature
from hvae.experiments.conjecture.bernoulli import EncoderKind
from hvae.experiments.conjecture.lines import Lines
from hvae.experiments.conjecture.nonlinear import smooth_decoder, started
from hvae.families import DiagonalGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior
from tests.exact import stacks

GAUSSIAN, MIXTURE, FLOW = (
    EncoderKind("gaussian", "mlp", 3),
    EncoderKind("mixture", "mlp", 3, 2),
    EncoderKind("nsf", "mlp", 3),
)
STRENGTH = 0.8
Array = np.ndarray


def decoder(strength: float = STRENGTH, seed: int = 3) -> BeliefNetwork:
    return smooth_decoder(strength, torch.Generator().manual_seed(seed))


def smooth(kind: EncoderKind) -> tuple[BeliefNetwork, BeliefNetwork]:
    """A decoder and an encoder that are not steep, so that few nodes resolve them."""
    network, found = decoder(), started(kind, 1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(0.3)
        for name in ("z1", "x"):
            net = network[name].net
            assert isinstance(net, nn.Sequential)
            net[0].weight.mul_(0.3)
            net[0].bias.mul_(0.3)
    return network, found


def outputs(conditional: Conditional, parent: Array) -> Array:
    """Of a net with one hidden layer, `[P, n]`."""
    assert isinstance(conditional.net, nn.Sequential)
    first, _, last = (module for module in conditional.net)
    hidden = np.tanh(parent[:, None] * first.weight.detach().numpy().T + first.bias.detach().numpy())
    return hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()


def log_density(conditional: Conditional, parent: Array, values: Array) -> Array:
    """`[P, S]`, of Gaussians, and mixtures of them."""
    found = outputs(conditional, parent)
    n = (found.shape[1] + 1) // 3
    log_variance = getattr(conditional.family, "log_variance", None)
    if log_variance is not None:
        return norm.logpdf(values, found, np.exp(log_variance.numpy() / 2))
    if found.shape[1] == 2:
        return norm.logpdf(values, found[:, :1], np.exp(found[:, 1:] / 2))
    share = found[:, :n] - logsumexp(found[:, :n], axis=1, keepdims=True)
    parts = norm.logpdf(values[:, None], found[:, None, n : 2 * n], np.exp(found[:, None, 2 * n :] / 2))
    return logsumexp(share[:, None] + parts, axis=-1)


@pytest.mark.parametrize("distribution", [GAUSSIAN, MIXTURE])
def test_gaps_equal_those_of_numpy_on_other_values_and_sum_to_log_px_less_the_elbo(distribution: EncoderKind) -> None:
    network, found = smooth(distribution)
    values = np.linspace(-9.5, 9.5, 173)
    h = values[1] - values[0]
    top, middle, x = (
        norm.logpdf(values),
        log_density(network["z1"], values, values),
        log_density(network["x"], values, values),
    )
    log_p1 = logsumexp(top[:, None] + middle, axis=0) + np.log(h)
    log_px = logsumexp(log_p1[:, None] + x, axis=0) + np.log(h)
    weight = h * np.exp(log_px)
    log_q1, log_q2 = (log_density(found[name], values, values) for name in ("z1", "z2"))
    q1, q2 = h * np.exp(log_q1), h * np.exp(log_q2)
    second = (q2 * (log_q2 - middle.T - top + log_p1[:, None])).sum(1)
    elbo = weight @ (q1 * (x.T - log_q1 + (q2 * (middle.T + top - log_q2)).sum(1))).sum(1)
    gaps, off = Lines.of(network, 60, 8.5).gaps(found)
    assert float(gaps[1]) == pytest.approx(float(weight @ q1 @ second), abs=1e-10)
    assert float(gaps.sum()) == pytest.approx(float(weight @ log_px - elbo), abs=1e-10)
    assert float(gaps.min()) > 0.01 and off < 1e-10


@pytest.mark.parametrize(("distribution", "error"), [(GAUSSIAN, 1e-6), (FLOW, 1e-3)])
def test_gaps_equal_those_of_quadrature_in_the_noise_of_q(distribution: EncoderKind, error: float) -> None:
    """The spline of a flow has jumps in its second derivative, which nodes resolve slowly."""
    network, found = smooth(distribution)
    lines = Lines.of(network, 48, 7.5)
    exact = Quadrature.of(network, 32).gaps(NetworkPosterior(found), lines.values["x"].unsqueeze(-1))
    weight = lines.weight("x")
    gaps, _ = lines.gaps(found)
    for mine, layer in zip(gaps, exact.layers.values(), strict=True):
        assert float(mine) == pytest.approx(float((weight * layer).sum()), abs=error)
        assert float(mine) > 10 * error
    near = weight > 1e-6
    torch.testing.assert_close(lines.marginals["x"][near], exact.log_px[near], atol=1e-8, rtol=0)


def test_gaps_of_the_flow_converge() -> None:
    """Four times as many values: what is missing falls at least fourfold."""
    network, found = smooth(FLOW)
    coarse, middle, fine = (Lines.of(network, n, 7.0).gaps(found)[0].sum() for n in (60, 240, 960))
    assert abs(float(middle - fine)) < abs(float(coarse - fine)) / 4 < 1e-3


def test_a_linear_chain_has_gaussian_reverse_conditionals_and_the_least_gap_is_none() -> None:
    network = stacks.decoder((1, 1, 1), scale=0.7)
    lines = Lines.of(network, 96, 7.0)
    assert float(lines.least_gaussian().abs().max()) < 1e-6
    assert float(lines.multimodal("z1")) == float(lines.multimodal("z2")) == 0.0
    index, mean, covariance = stacks.joint(network)
    for child, name in itertools.pairwise(("x", "z1", "z2")):
        (i,), (j,) = index[child], index[name]
        slope, rest = covariance[i, j] / covariance[i, i], covariance[j, j] - covariance[i, j] ** 2 / covariance[i, i]
        centre = mean[j] + slope * (lines.values[child].numpy() - mean[i])
        expected = norm.logpdf(lines.values[name].numpy(), centre[:, None], np.sqrt(rest))
        near = np.abs(lines.values[child].numpy() - mean[i]) < 3 * np.sqrt(covariance[i, i])
        found = lines.reverse(name).exp().numpy()
        np.testing.assert_allclose(found[near], np.exp(expected[near]), atol=1e-9, rtol=0)


def reverse_by_numpy(network: BeliefNetwork, child: str, name: str, at: float, values: Array) -> Array:
    """log p(z_l | z_{l-1} = at) on ``values``, from the tensors of the nets."""
    prior = norm.logpdf(values)
    if name == "z1":
        prior = logsumexp(log_density(network["z1"], values, values) + prior[:, None], axis=0)
    joint = prior + log_density(network[child], values, np.array([at]))[:, 0]
    return joint - logsumexp(joint) - np.log(values[1] - values[0])


def least_by_scipy(target: Array, values: Array) -> float:
    """min over m, s of E_N log N - target, from many starts."""

    def excess(place: Array) -> float:
        q = norm.pdf(values, place[0], np.exp(place[1]))
        return float((q * (values[1] - values[0])) @ -target - place[1] - 0.5 * np.log(2 * np.pi * np.e))

    found = [
        minimize(excess, start, method="Nelder-Mead", bounds=[(-4, 4), (-2.5, 1)], options={"fatol": 1e-9})
        for start in itertools.product(np.linspace(-2, 2, 7), (-1.5, -0.5))
    ]
    return min(float(one.fun) for one in found)


def test_the_least_gaussian_equals_a_search_by_scipy() -> None:
    """z2 given three values of z1, and z1 given one of x with what z2 adds."""
    network = decoder(3.0, seed=1)
    lines = Lines.of(network, 160, 6.0)
    values = np.linspace(-7, 7, 401)
    above = lines.least("z2")
    for place in (50, 84):
        at = float(lines.values["z1"][place])
        expected = least_by_scipy(reverse_by_numpy(network, "z1", "z2", at, values), values)
        assert float(above[place]) == pytest.approx(expected, abs=1e-6)
    assert float(above.max()) > 0.1
    at = float(lines.values["x"][70])
    added = np.interp(values, lines.values["z1"].numpy(), above.numpy())
    expected = least_by_scipy(reverse_by_numpy(network, "x", "z1", at, values) - added, values)
    assert float(lines.least("z1")[70]) == pytest.approx(expected, abs=1e-3)
    total = float((lines.weight("x") * lines.least("z1")).sum())
    gaps = lines.least_gaussian()
    assert float(gaps.sum()) == pytest.approx(total, abs=1e-12) and float(gaps.min()) > 0.01
    for start in range(3):
        assert total < float(lines.gaps(started(EncoderKind("gaussian", "mlp", 4), start))[0].sum())


def test_an_even_function_has_two_modes_for_every_parent_that_it_reaches() -> None:
    network = decoder(4.0)
    net = network["z1"].net
    assert isinstance(net, nn.Sequential)
    with torch.no_grad():
        for module in (net[0], net[2]):
            module.weight.zero_()
            module.bias.zero_()
        net[0].weight[:2, 0] = 2.0
        net[0].bias[:2] = torch.tensor([-2.0, 2.0])
        net[2].weight[0, :2] = torch.tensor([1.0, -1.0])
    lines = Lines.of(network, 160, 6.0)
    density = lines.reverse("z2").exp()
    torch.testing.assert_close(density, density.flip(-1), atol=1e-9, rtol=0)
    middle = density[:, 79:81].amax(-1)
    assert float((lines.weight("z1") * (density.amax(-1) > 2 * middle)).sum()) > 0.5
    assert float(lines.multimodal("z2")) > 0.5


def test_what_values_cannot_solve_is_refused_with_the_reason() -> None:
    with pytest.raises(NoReferenceError, match="z1 is not one unit of a chain"):
        Lines.of(stacks.decoder((1, 2, 1)), 40, 6.0)
    with pytest.raises(NoReferenceError, match="x is not one unit of a chain"):
        Lines.of(stacks.decoder((1, 1, 1), skips=True), 40, 6.0)
    with pytest.raises(NoReferenceError, match=r"40 values of z2 hold a mass of 0\.95.*give more values, or a longer"):
        Lines.of(decoder(), 40, 2.0)
    full = Conditional("z1", [], Root(torch.zeros(1).double(), learned=False), DiagonalGaussian(1, variance="fixed"))
    mixture = EncoderKind("mixture", "mlp", 2, 2).family(1, torch.Generator())
    with pytest.raises(NoReferenceError, match="x is a MixtureGaussian; values need Gaussian units"):
        Lines.of(BeliefNetwork([full, Conditional("x", ["z1"], nn.Linear(1, 6).double(), mixture)]), 40, 6.0)
