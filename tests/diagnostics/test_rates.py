"""What layers cost, against closed forms of linear-Gaussian stacks."""

import numpy as np
import pytest
import torch

from hvae.diagnostics import laws
from hvae.diagnostics.draws import divergence
from hvae.diagnostics.rates import rates
from hvae.evidence import HVAE
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.families import Autoregressive, Bernoulli, DiagonalGaussian, FullGaussian
from hvae.network import BeliefNetwork, Conditional, Site
from hvae.posterior import NetworkPosterior
from tests.diagnostics.chains import Link, Stack, gaussian_kl, images, link, root, sampler
from tests.statistics import assert_mean

STACK = Stack(
    [link([[1, 0.3], [0, 0.8]], [0.5, 0.2], 0.3), link([[0.7, 0.2]], 0.6, -0.5)],
    [root(1.0), link([[0.8], [0.4]], [0.7, 0.4], [0.1, -0.2]), link([[0.9, 0.2], [0.1, 0.7]], [1.0, 1.5])],
)


def expected_log(child: str, parent: str, part: Link, q: tuple[np.ndarray, np.ndarray]) -> float:
    """E log N(child; part(parent)) where (child, parent) is Gaussian under q."""
    mean, covariance = q
    difference = np.hstack([np.eye(len(part.bias)), -part.weight])
    shift = difference @ mean - part.bias
    spread = difference @ covariance @ difference.T
    return float(-((np.diag(spread) + shift**2) / part.variance + np.log(2 * np.pi * part.variance)).sum() / 2)


def test_bottom_up_rates() -> None:
    """E log q(z_l | z_{l-1}) is an entropy, E log p(z_l | z_{l+1}) a quadratic form of the joint q(z | x)."""
    x = images(500, width=2)
    with torch.no_grad():
        evidence = sampler(STACK.bottom_up(), x).evidence(32, "rates")
    for layer, name in enumerate(("z1", "z2")):
        entropy = np.log(2 * np.pi * np.e * STACK.up[layer].variance).sum() / 2
        expected = []
        for row in x.numpy():
            joint = STACK.q(row, np.zeros((2, 2)))
            parents = ["z2"] if name == "z1" else []
            expected.append(-entropy - expected_log(name, "z2", STACK.down[1 - layer], joint.block(name, *parents)))
        found = rates(evidence, name)
        assert_mean(found["rate_nats"] - expected, 0.0, detect=0.15)
        assert found["rate_unit_nats"].shape == (len(STACK.up[layer].bias), 500)
        assert found["rate_unit_nats"].sum(0) == pytest.approx(found["rate_nats"])


def test_a_healthy_layers_rate_is_negative_with_an_exact_encoder() -> None:
    """E rate_1 = I(x; z1) - I(z1; z2): a difference, here 0.35 - 2.31. No closed form may be read in its place."""
    stack = Stack([link(1, 1)] * 2, [root(1.0), link(1, 0.01), link(1, 1)])
    p = stack.p()
    expected = p.information(["x"], ["z1"]) - p.information(["z1"], ["z2"])
    assert expected == pytest.approx(-1.96, abs=0.01)
    decoder = stack.decoder()
    exact = HVAE(decoder, LinearGaussian.of(decoder).exact_posterior("bottom-up"))
    x = images(2000, scale=float(p.block("x")[1].item()) ** 0.5)
    with torch.no_grad():
        found = rates(sampler(exact, x).evidence(4, "rates"), "z1")
    assert_mean(found["rate_nats"], expected, detect=0.2)
    assert "rate_unit_nats" not in found  # a full covariance has no units


def test_divergences_from_fixed_distributions() -> None:
    """KL(q(z1 | x) ‖ N(0, I)) needs no draw; that to the prior has a closed form at the top only, and top-down."""
    x = images(100, width=2)
    with torch.no_grad():
        found = rates(sampler(STACK.bottom_up(), x).evidence(2, "rates"), "z1")
    distributions = [STACK.q(row, np.zeros((2, 2))).block("z1") for row in x.numpy()]
    expected = [gaussian_kl(*distribution, np.zeros(2), np.eye(2)) for distribution in distributions]
    assert found["kl_standard_nats"] == pytest.approx(np.array(expected), abs=1e-10)
    assert found["kl_standard_unit_nats"].sum(0) == pytest.approx(np.array(expected), abs=1e-10)


def test_the_prior_is_met_in_closed_form_where_that_is_right() -> None:
    x = images(100, width=2)
    with torch.no_grad():
        upward, downward = (sampler(model, x).evidence(64, "rates") for model in (STACK.bottom_up(), STACK.ladder()))
    assert laws.from_prior(STACK.bottom_up(), upward, "z1") is None
    for model, evidence, name in (
        (STACK.bottom_up(), upward, "z2"),
        (STACK.ladder(), downward, "z1"),
        (STACK.ladder(), downward, "z2"),
    ):
        found = laws.from_prior(model, evidence, name)
        assert found is not None and found.min() >= 0
        assert_mean(found - rates(evidence, name)["rate_nats"], 0.0, detect=0.25)


@pytest.mark.parametrize(
    "family",
    [
        DiagonalGaussian(2, variance="learned", log_variance=-3.0),
        FullGaussian(2, variance="fixed", scale_tril=0.1 * torch.eye(2)),
    ],
)
def test_the_standard_distribution_is_standard_whatever_variance_the_layer_has(
    family: DiagonalGaussian | FullGaussian,
) -> None:
    """The divergence is from N(0, I), not from N(0, the layer's own variance)."""
    net = torch.nn.Linear(2, 2)
    q = BeliefNetwork([Conditional("z1", ["x"], net, family)])
    p = BeliefNetwork(
        [root([1.0, 1.0]).conditional("z1", []).float(), link(np.eye(2), 1).conditional("x", ["z1"]).float()]
    )
    x = images(10, width=2).float()
    with torch.no_grad():
        evidence = sampler(HVAE(p, NetworkPosterior(q)), x).evidence(2, "rates")
        variance = 0.01 if isinstance(family, FullGaussian) else float(np.exp(-3))
        expected = (net(x).square().sum(-1) + 2 * (variance - 1 - np.log(variance))) / 2
    assert rates(evidence, "z1")["kl_standard_nats"] == pytest.approx(expected.numpy(), rel=1e-5)


def test_divergences_of_dependent_units_are_summed_over_their_states() -> None:
    """Autoregressive units have no closed form; one draw had stood for the mean. Against a loop over states."""
    source = torch.Generator().manual_seed(2)
    families = [Autoregressive(Bernoulli(3), 2, source=source).double() for _ in range(2)]
    for family in families:
        for weight in family.parameters():
            torch.nn.init.normal_(weight, generator=source)
    value = torch.randint(2, (4, 5, 3), generator=source).double()
    outputs = torch.randn(2, 4, 5, families[0].n_outputs, generator=source, dtype=torch.float64)
    q, p = (Site(value, family.distribution(o), family) for family, o in zip(families, outputs, strict=True))
    plain = Site(value, Bernoulli(3).distribution(outputs[0, ..., :3]), Bernoulli(3))
    for one, other in ((q, p), (q, plain), (plain, q)):
        expected = torch.zeros(4, 5, dtype=torch.float64)
        for state in np.ndindex(2, 2, 2):
            at = torch.tensor(state).double().expand(4, 5, 3)
            scores = [each.family.log_prob(each.distribution, at) for each in (one, other)]
            expected += scores[0].exp() * (scores[0] - scores[1])
        torch.testing.assert_close(divergence(one, other), expected, rtol=0, atol=1e-10)
    wide = Autoregressive(Bernoulli(9), 2, source=source).double()
    many = Site(torch.zeros(1, 1, 9).double(), wide.distribution(torch.zeros(1, 1, wide.n_outputs).double()), wide)
    assert divergence(many, many).item() == 0  # the log-ratio at the value
