"""Where p and q meet, against independent arithmetic; and where a closed form is right, wrong and refused.

Expectations over Gaussian draws are exact here: noise is an input, and equally spaced nodes with Gaussian
weights integrate smooth functions to rounding.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn

from hvae.evidence import HVAE, ClosedFormError, Evidence
from hvae.families import Bernoulli, DiagonalGaussian, Family, kl
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior

EXACT = {"atol": 1e-10, "rtol": 1e-10}
UNITS = {"z1": 2, "z2": 1}
ORDERS = {"bottom-up": NetworkPosterior, "top-down": Ladder}


def net(n_in: int, n_out: int, source: torch.Generator) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(n_in, 3), nn.Tanh(), nn.Linear(3, n_out)).double()
    for value in made.parameters():
        value.data.copy_(0.7 * torch.randn(value.shape, generator=source, dtype=torch.float64))
    return made


def model(order: str, family: type[Family] = DiagonalGaussian, n_z1: int = UNITS["z1"]) -> HVAE:
    """z2 (1 unit) -> z1 (2 units) -> x: four Bernoulli units."""
    source = torch.Generator().manual_seed(4)
    z1, z2 = (lambda: family(n_z1)), (lambda: family(1))
    root = torch.randn(z2().n_outputs, generator=source, dtype=torch.float64) / 2
    decoder = BeliefNetwork(
        [
            Conditional("z2", [], Root(root, learned=True), z2()),
            Conditional("z1", ["z2"], net(1, z1().n_outputs, source), z1()),
            Conditional("x", ["z1"], net(n_z1, 4, source), Bernoulli(4)),
        ]
    )
    upward = BeliefNetwork(
        [
            Conditional("z1", ["x"], net(4, z1().n_outputs, source), z1()),
            Conditional("z2", ["z1"], net(n_z1, z2().n_outputs, source), z2()),
        ]
    )
    posterior: Posterior = ORDERS[order](upward)
    return HVAE(decoder, posterior)


X = torch.tensor([[[1.0, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]], dtype=torch.float64)


def noise(n_samples: int, kind: str = "normal") -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(5)
    draw = torch.randn if kind == "normal" else torch.rand
    return {name: draw(n_samples, 3, units, generator=source, dtype=torch.float64) for name, units in UNITS.items()}


def grid(n_axes: int, n_nodes: int = 40, reach: float = 8.0) -> tuple[Tensor, Tensor]:
    """Nodes [K, n_axes] and weights [K] of a standard normal."""
    axis = torch.linspace(-reach, reach, n_nodes, dtype=torch.float64)
    weight = torch.exp(-axis.square() / 2)
    nodes = torch.cartesian_prod(*[axis] * n_axes).view(-1, n_axes)
    weights = torch.cartesian_prod(*[weight / weight.sum()] * n_axes).view(-1, n_axes).prod(1)
    return nodes, weights


def everywhere(hvae: HVAE, n_nodes: int = 40) -> tuple[Evidence, Tensor]:
    """Evidence on a grid of noise [K, B] and the weights [K, 1] of its samples."""
    nodes, weights = grid(3, n_nodes)
    spread = nodes.unsqueeze(1).expand(-1, X.shape[1], -1)
    with torch.no_grad():
        return hvae(X, {"z1": spread[..., :2], "z2": spread[..., 2:]}), weights.unsqueeze(-1)


def normal_logpdf(value: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    mean, log_variance = np.split(outputs, 2, axis=-1)
    return stats.norm(mean, np.exp(log_variance / 2)).logpdf(value).sum(-1)


def numpy_net(module: nn.Module, value: np.ndarray) -> np.ndarray:
    first, _, last = module
    for layer, bend in ((first, np.tanh), (last, lambda h: h)):
        value = bend(value @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    return value


def test_log_weights_are_log_p_minus_log_q_by_other_arithmetic() -> None:
    hvae = model("bottom-up")
    evidence = hvae(X, noise(6))
    z1, z2 = (evidence.q[name].value.detach().numpy() for name in ("z1", "z2"))
    p, q = hvae.decoder, hvae.posterior.network
    log_p = {
        "z2": normal_logpdf(z2, p["z2"].net().detach().numpy()),
        "z1": normal_logpdf(z1, numpy_net(p["z1"].net, z2)),
        "x": stats.bernoulli(special.expit(numpy_net(p["x"].net, z1))).logpmf(X.numpy()).sum(-1),
    }
    log_q = {
        "z1": normal_logpdf(z1, numpy_net(q["z1"].net, X.numpy())),
        "z2": normal_logpdf(z2, numpy_net(q["z2"].net, z1)),
    }
    assert evidence.latents == hvae.latents == ("z1", "z2")
    np.testing.assert_allclose(evidence.distortion.detach(), -log_p["x"], **EXACT)
    for name in evidence.latents:
        np.testing.assert_allclose(evidence.rate(name).detach(), log_q[name] - log_p[name], **EXACT)
        torch.testing.assert_close(evidence.unit_rate(name).sum(-1), evidence.rate(name), **EXACT)
    np.testing.assert_allclose(evidence.log_weight.detach(), sum(log_p.values()) - sum(log_q.values()), **EXACT)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", [DiagonalGaussian, Bernoulli])
def test_identities_and_dtypes(order: str, family: type[Family]) -> None:
    hvae = model(order, family)
    evidence = hvae(X, noise(6, family.noise))
    total = -evidence.distortion - evidence.rate("z1") - evidence.rate("z2")
    torch.testing.assert_close(evidence.log_weight, total, **EXACT)
    single = hvae.float()(X.float(), {name: value.float() for name, value in noise(6, family.noise).items()})
    assert single.distortion.dtype == torch.float32 and single.log_weight.dtype == torch.float64
    torch.testing.assert_close(single.log_weight, total, atol=1e-4, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_weights_average_to_the_enumerated_evidence(order: str) -> None:
    """A sigmoid belief net has eight latent states: Σ_z q(z|x) exp(log_weight) = Σ_z p(x, z) = p(x)."""
    hvae = model(order, Bernoulli)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64).unsqueeze(1)
    z = {"z1": states[..., :2], "z2": states[..., 2:]}
    with torch.no_grad():
        evidence = hvae.weigh(hvae.infer(X, {}, z), X)
        log_q = evidence.q["z1"].log_prob + evidence.q["z2"].log_prob
        p_x = (log_q + evidence.log_weight).exp().sum(0)
    assert evidence.log_weight.shape == (8, 3)
    torch.testing.assert_close(log_q.exp().sum(0), torch.ones(3).double(), **EXACT)
    p = hvae.decoder
    bernoulli = lambda logits, value: stats.bernoulli(special.expit(logits)).pmf(value).prod(-1)  # noqa: E731
    expected = np.zeros(3)
    for state in states.numpy()[:, 0]:
        z1, z2 = state[:2], state[2:]
        prior = bernoulli(p["z2"].net().detach().numpy(), z2) * bernoulli(numpy_net(p["z1"].net, z2), z1)
        expected += prior * bernoulli(numpy_net(p["x"].net, z1), X.numpy()[0])
    np.testing.assert_allclose(p_x, expected, **EXACT)


@pytest.mark.parametrize("order", ORDERS)
def test_weights_average_to_the_evidence_of_gaussian_stacks(order: str) -> None:
    """E_q exp(log_weight) = p(x) = E_p p(x|z1), each by its own quadrature (q made wide: its weights are bounded)."""
    hvae = model(order, n_z1=1)
    upward = getattr(hvae.posterior, "network", None) or hvae.posterior.upward
    for name in UNITS:
        upward[name].net[-1].bias.data[1:] += 1
    nodes, weights = grid(2, 320, reach=10)
    z1, z2 = nodes.unsqueeze(1).chunk(2, -1)
    with torch.no_grad():
        evidence = hvae(X, {"z1": z1, "z2": z2})
        prior = hvae.decoder.walk({"x": X}, {"z1": z1, "z2": z2})
    torch.testing.assert_close(weights @ evidence.log_weight.exp(), weights @ prior["x"].log_prob.exp(), **EXACT)


@pytest.mark.parametrize(
    ("order", "name", "right"),
    [("bottom-up", "z1", False), ("bottom-up", "z2", True), ("top-down", "z1", True), ("top-down", "z2", True)],
)
def test_closed_forms_equal_the_mean_of_sampled_rates_exactly_where_they_are_allowed(
    order: str, name: str, right: bool
) -> None:
    evidence, weight = everywhere(model(order))
    assert evidence.closed_form(name) is right
    truth = (weight * evidence.rate(name)).sum(0)
    formula = (weight * kl(evidence.q[name].distribution, evidence.p[name].distribution)).sum(0)
    if right:
        assert evidence.kl(name).shape == weight.expand(-1, 3).shape
        torch.testing.assert_close((weight * evidence.kl(name)).sum(0), truth, **EXACT)
        torch.testing.assert_close((weight.unsqueeze(-1) * evidence.unit_kl(name)).sum((0, 2)), truth, **EXACT)
    else:
        with pytest.raises(ClosedFormError, match="no closed-form KL for z1: its prior is conditioned on z2"):
            evidence.kl(name)
        with pytest.raises(ClosedFormError, match="use the sampled rate"):
            evidence.unit_kl(name)
        assert (formula - truth).min() > 0.05  # the refused formula is wrong, and too large


def fixed(units: int, variance: float) -> DiagonalGaussian:
    family = DiagonalGaussian(units, variance="fixed").double()
    assert family.log_variance is not None
    family.log_variance.fill_(math.log(variance))
    return family


def scalar(name: str, parents: list[str], weight: float, variance: float) -> Conditional:
    """``name ~ N(weight · parent, variance)``, one unit."""
    family = fixed(1, variance)
    if not parents:
        return Conditional(name, [], Root(torch.zeros(1).double(), learned=False), family)
    linear = nn.Linear(1, 1, bias=False).double()
    linear.weight.data.fill_(weight)
    return Conditional(name, parents, linear, family)


def test_the_wrong_closed_form_is_off_by_nats() -> None:
    """A stack where both numbers are a line of algebra: q(z1|x) = N(0, 1), q(z2|z1) = N(z1, v), p(z1|z2) = N(z2, v).

    Truth E[log q(z1|x) - log p(z1|z2)] = (log v)/2; the formula averages KL(N(0,1) ‖ N(z2, v)) over z2 ~ N(0, 1 + v).
    """
    v = 0.25
    decoder = BeliefNetwork([scalar("z2", [], 0, 1.0), scalar("z1", ["z2"], 1, v), scalar("x", ["z1"], 1, 1.0)])
    upward = BeliefNetwork([scalar("z1", ["x"], 0, 1.0), scalar("z2", ["z1"], 1, v)])
    hvae = HVAE(decoder, NetworkPosterior(upward))
    nodes, weights = grid(2)
    with torch.no_grad():
        evidence = hvae(torch.zeros(1, 1, 1).double(), {"z1": nodes[:, None, :1], "z2": nodes[:, None, 1:]})
        truth = (weights @ evidence.rate("z1")).item()
        formula = (weights @ kl(evidence.q["z1"].distribution, evidence.p["z1"].distribution)).item()
    assert truth == pytest.approx(math.log(v) / 2, abs=1e-10)
    assert formula == pytest.approx((1 / v - 1 + math.log(v) + (1 + v) / v) / 2, abs=1e-10)
    assert formula - truth == pytest.approx(1 / v, abs=1e-10)  # 4 nats


@pytest.mark.parametrize("n_units", [5, 50])
def test_closed_forms_in_a_weight_would_exceed_log_px(n_units: int) -> None:
    """p(z) = N(0, I), p(x|z) = N(z, I), q exact, x = 1: every weight is p(x). With closed forms in their place
    the mean "weight" beats log p(x), which no bound can: by Jensen, E exp(log p(x|z) - KL) > exp(ELBO) = p(x).
    """

    def affine(factor: float) -> nn.Linear:
        linear = nn.Linear(n_units, n_units).double()
        linear.weight.data.copy_(factor * torch.eye(n_units))
        linear.bias.data.zero_()
        return linear

    root = Root(torch.zeros(n_units, dtype=torch.float64), learned=False)
    decoder = [Conditional("z1", [], root, fixed(n_units, 1)), Conditional("x", ["z1"], affine(1), fixed(n_units, 1))]
    encoder = [Conditional("z1", ["x"], affine(0.5), fixed(n_units, 0.5))]
    hvae = HVAE(BeliefNetwork(decoder), NetworkPosterior(BeliefNetwork(encoder)))
    x = torch.ones(1, 1, n_units, dtype=torch.float64)
    log_px = stats.norm(0, math.sqrt(2)).logpdf(1) * n_units
    nodes, weights = grid(1, 100)
    with torch.no_grad():
        evidence = hvae(x, {"z1": nodes.unsqueeze(1).expand(-1, 1, n_units)})
        wrong = evidence.p["x"].unit_log_prob - evidence.unit_kl("z1")
    assert (evidence.log_weight - log_px).abs().max() < 1e-10
    # both means are products over units, so one axis of nodes integrates each unit
    log_mean = (weights.view(-1, 1, 1) * wrong.exp()).sum(0).log().sum().item()
    kl_unit = (0.5 + 0.25 - 1 - math.log(0.5)) / 2
    expected = n_units * (stats.norm(0.5, math.sqrt(1.5)).logpdf(1) - kl_unit)
    assert log_mean == pytest.approx(expected, abs=1e-10)
    assert log_mean - log_px > 0.02 * n_units


@pytest.mark.parametrize("order", ORDERS)
def test_all_pairs_of_given_latents_and_data(order: str) -> None:
    """z [m, 1, ·] against x [1, n, ·]: every quantity is [m, n], closed forms too."""
    hvae = model(order)
    z = {name: site.value[:, :1] for name, site in hvae.infer(X, noise(6)).items()}
    evidence = hvae.weigh(hvae.infer(X, {}, z), X)
    full = {name: value.expand(6, 3, -1) for name, value in z.items()}
    expected = hvae.weigh(hvae.infer(X, {}, full), X)
    assert evidence.log_weight.shape == (6, 3)
    torch.testing.assert_close(evidence.log_weight, expected.log_weight, **EXACT)
    for name in evidence.latents:
        if evidence.closed_form(name):
            torch.testing.assert_close(evidence.kl(name).expand(6, 3), expected.kl(name), **EXACT)
            torch.testing.assert_close(evidence.unit_kl(name).expand(6, 3, -1), expected.unit_kl(name), **EXACT)
