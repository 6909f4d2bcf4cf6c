"""The reference against scipy and against covariances grown by independent arithmetic; and what it refuses."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from hvae import rng
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian, NoReferenceError, gaussian_mutual_information
from hvae.families import Bernoulli, DiagonalGaussian
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior
from tests.exact.stacks import decoder, encoder, gaussian, information, joint, linear

WIDTHS = {1: (5, 3), 2: (5, 4, 2), 3: (6, 4, 3, 2)}
ORDERS = ("bottom-up", "top-down")


def noise_for(model: HVAE, n_samples: int, n_data: int) -> dict[str, torch.Tensor]:
    return rng.noise(model.noise_specs(), n_samples, n_data, seed=3, purpose="test", dtype=torch.float64)


def observations(n: int, width: int) -> torch.Tensor:
    return 2 * torch.randn(1, n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("depth", WIDTHS)
def test_log_px_equals_scipy_on_an_independent_covariance(depth: int, skips: bool) -> None:
    network = decoder(WIDTHS[depth], skips=skips)
    where, mean, covariance = joint(network)
    x = observations(20, WIDTHS[depth][0])
    expected = multivariate_normal(mean[where["x"]], covariance[np.ix_(where["x"], where["x"])]).logpdf(x[0].numpy())
    np.testing.assert_allclose(LinearGaussian.of(network).log_px(x)[0].numpy(), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", WIDTHS)
def test_log_weights_with_the_exact_posterior_are_log_px(depth: int, order: str, skips: bool) -> None:
    network = decoder(WIDTHS[depth], skips=skips)
    where, mean, covariance = joint(network)
    x = observations(20, WIDTHS[depth][0])
    log_px = multivariate_normal(mean[where["x"]], covariance[np.ix_(where["x"], where["x"])]).logpdf(x[0].numpy())
    model = HVAE(network, LinearGaussian.of(network).exact_posterior(order))  # type: ignore[arg-type]
    assert model.posterior.order == model.latents[:: 1 if order == "bottom-up" else -1]
    log_weight = model(x, noise_for(model, 50, 20)).log_weight.detach().numpy()
    assert log_weight.shape == (50, 20)
    np.testing.assert_allclose(log_weight, np.broadcast_to(log_px, (50, 20)), atol=1e-10, rtol=0)


def test_the_check_above_sees_a_posterior_that_is_off_by_a_millionth() -> None:
    network = decoder(WIDTHS[2])
    model = HVAE(network, LinearGaussian.of(network).exact_posterior("bottom-up"))
    with torch.no_grad():
        next(model.posterior.parameters()).add_(1e-6)
    assert model(observations(20, 5), noise_for(model, 50, 20)).log_weight.std(0).max() > 1e-8


def test_a_markov_decoder_has_layered_exact_posteriors() -> None:
    reference = LinearGaussian.of(decoder(WIDTHS[3]))
    up, down = (reference.exact_posterior(order) for order in ORDERS)  # type: ignore[arg-type]
    assert isinstance(up, NetworkPosterior) and isinstance(down, NetworkPosterior)
    assert [up.network[name].parents for name in up.order] == [("x",), ("z1",), ("z2",)]
    assert [down.network[name].parents for name in down.order] == [("x",), ("z3", "x"), ("z2", "x")]
    assert not LinearGaussian.of(decoder(WIDTHS[3], skips=True)).markov


def test_joint_and_conditionals_equal_independent_arithmetic() -> None:
    network = decoder(WIDTHS[3])
    reference, (where, mean, covariance) = LinearGaussian.of(network), joint(network)
    np.testing.assert_allclose(reference.mean.numpy(), mean, atol=1e-12)
    np.testing.assert_allclose(reference.covariance.numpy(), covariance, atol=1e-12)
    for a, b in (
        (["z1"], ["x"]),
        (["z2"], ["z3", "x"]),
        (["x"], ["z1"]),
        (["z1", "z3"], ["x", "z2"]),
        (["z3"], ["z2"]),
    ):
        rows, columns = ([i for name in group for i in where[name]] for group in (a, b))
        both = np.linalg.inv(covariance[np.ix_(rows + columns, rows + columns)])  # by the precision matrix
        distribution, n = reference.conditional(a, b), len(rows)
        expected = -np.linalg.solve(both[:n, :n], both[:n, n:])
        np.testing.assert_allclose(distribution.covariance.numpy(), np.linalg.inv(both[:n, :n]), atol=1e-11)
        np.testing.assert_allclose(distribution.weight.numpy(), expected, atol=1e-11)
        np.testing.assert_allclose(distribution.offset.numpy(), mean[rows] - expected @ mean[columns], atol=1e-11)


def test_conditional_log_densities_obey_the_product_rule() -> None:
    reference = LinearGaussian.of(decoder(WIDTHS[2]))
    x, z2 = observations(7, 5), torch.randn(3, 1, 2, dtype=torch.float64)
    both = reference.log_prob({"x": x, "z2": z2})
    assert both.shape == (3, 7)
    distribution = reference.conditional(["x"], ["z2"])
    torch.testing.assert_close(both, distribution.log_prob(x, z2) + reference.log_prob({"z2": z2}), rtol=0, atol=1e-11)
    single = reference.log_px(x[0, 0])
    assert single.shape == () and abs(float(single - reference.log_px(x)[0, 0])) < 1e-12


def test_informations_of_a_decoder() -> None:
    network = decoder(WIDTHS[3])
    reference, (where, _, covariance) = LinearGaussian.of(network), joint(network)
    for a, b in (("x", "z1"), ("x", "z3"), ("z1", "z2")):
        assert reference.mutual_information([a], [b]) == pytest.approx(
            information(covariance, where[a], where[b]), abs=1e-11
        )
    # chain rule, and the Markov property as a zero
    whole = reference.mutual_information(["x"], ["z2", "z1"])
    parts = reference.mutual_information(["x"], ["z2"]) + reference.mutual_information(["x"], ["z1"], given=["z2"])
    assert whole == pytest.approx(parts, abs=1e-10)
    assert reference.mutual_information(["x"], ["z3"], given=["z2"]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 1e-9, 0.3, 0.999999])
def test_mutual_information_of_two_numbers(rho: float) -> None:
    covariance = torch.tensor([[4.0, 2 * rho], [2 * rho, 1.0]], dtype=torch.float64)
    assert gaussian_mutual_information(covariance, [0], [1]) == pytest.approx(-np.log1p(-(rho**2)) / 2, rel=1e-9)


def test_encoder_on_gaussian_data() -> None:
    """q(x, z) = data(x) q(z1|x) q(z2|z1): informations, and a unit that only passes on the noise below it."""
    up = encoder((4, 3, 2))
    factor = np.random.default_rng(0).normal(size=(4, 4))
    data_mean, data_covariance = np.arange(4.0), factor @ factor.T + np.eye(4)
    where, mean, covariance = joint(up, {"x": (data_mean, data_covariance)})
    root = torch.tensor(data_mean), torch.tensor(data_covariance)
    reference = LinearGaussian.of_posterior(decoder((4, 3, 2)), NetworkPosterior(up), *root)
    np.testing.assert_allclose(reference.mean.numpy(), mean, atol=1e-11)
    np.testing.assert_allclose(reference.covariance.numpy(), covariance, atol=1e-11)
    for a, b in (("x", "z1"), ("x", "z2"), ("z1", "z2")):
        assert reference.mutual_information([a], [b]) == pytest.approx(
            information(covariance, where[a], where[b]), abs=1e-10
        )
    with torch.no_grad():
        net = up["z1"].net
        assert isinstance(net, nn.Linear)
        net.weight.zero_()
    noise_only = LinearGaussian.of_posterior(decoder((4, 3, 2)), NetworkPosterior(up), *root)
    assert noise_only.mutual_information(["x"], ["z2"]) == 0
    assert noise_only.mutual_information(["z1"], ["z2"]) > 0.1


def test_ladder_on_gaussian_data() -> None:
    """The merge of q(z1|z2, x) by hand: precisions add, and the upward pass carries means."""
    source = torch.Generator().manual_seed(2)
    up = encoder((4, 3, 2))
    network = BeliefNetwork(
        [
            decoder((4, 3, 2))["z2"],
            Conditional("z1", ["z2"], linear(2, family := gaussian(3, source), source), family),
            Conditional("x", ["z1"], linear(3, family := gaussian(4, source), source), family),
        ]
    )
    mean, covariance = torch.zeros(4), torch.eye(4)
    reference = LinearGaussian.of_posterior(network, Ladder(up), mean, covariance)

    def numbers(conditional: Conditional) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        net, log_variance = conditional.net, conditional.family.log_variance
        assert isinstance(net, nn.Linear) and isinstance(log_variance, torch.Tensor)
        return net.weight.detach().numpy(), net.bias.detach().numpy(), log_variance.detach().exp().numpy()

    (w1, b1, v1), (w2, b2, v2), (g, h, u) = numbers(up["z1"]), numbers(up["z2"]), numbers(network["z1"])
    distribution = reference.conditional(["z2"], ["x"])
    np.testing.assert_allclose(distribution.weight.numpy(), w2 @ w1, atol=1e-11)
    np.testing.assert_allclose(distribution.offset.numpy(), w2 @ b1 + b2, atol=1e-11)
    np.testing.assert_allclose(distribution.covariance.numpy(), np.diag(v2), atol=1e-11)
    merged = 1 / (1 / v1 + 1 / u)
    distribution = reference.conditional(["z1"], ["z2", "x"])
    np.testing.assert_allclose(distribution.covariance.numpy(), np.diag(merged), atol=1e-11)
    np.testing.assert_allclose(
        distribution.weight.numpy(), merged[:, None] * np.hstack([g / u[:, None], w1 / v1[:, None]]), atol=1e-11
    )
    np.testing.assert_allclose(distribution.offset.numpy(), merged * (b1 / v1 + h / u), atol=1e-11)


def test_the_decoder_itself_is_left_as_it_was() -> None:
    network = decoder((4, 2)).float()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    LinearGaussian.of(network)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


def with_observation(net: nn.Module, family: nn.Module) -> BeliefNetwork:
    return BeliefNetwork([decoder((4, 2))["z1"], Conditional("x", ["z1"], net, family)])  # type: ignore[arg-type]


def test_what_has_no_exact_answer_is_refused_with_the_reason() -> None:
    learned = DiagonalGaussian(4, variance="learned")
    for activation in (nn.Tanh(), nn.ReLU(), nn.LeakyReLU(0.99)):
        bent = nn.Sequential(nn.Linear(2, 3), activation, nn.Linear(3, 4))
        with pytest.raises(NoReferenceError, match=r"distribution of x .* not affine"):
            LinearGaussian.of(with_observation(bent, learned))
    with pytest.raises(NoReferenceError, match=r"distribution of x .* variance depends"):
        LinearGaussian.of(with_observation(nn.Linear(2, 8), DiagonalGaussian(4, variance="network")))
    with pytest.raises(NoReferenceError, match="x has a Bernoulli distribution"):
        LinearGaussian.of(with_observation(nn.Linear(2, 4), Bernoulli(4)))
    broken = nn.Linear(2, 4)
    nn.init.constant_(broken.weight, torch.nan)
    with pytest.raises(NoReferenceError, match="not affine"):
        LinearGaussian.of(with_observation(broken, learned))


def test_unknown_variables_are_named() -> None:
    with pytest.raises(KeyError, match="z9"):
        LinearGaussian.of(decoder((4, 2))).conditional(["z9"], ["x"])
