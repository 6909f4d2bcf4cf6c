"""Discrete chains against the enumeration of all joint states, and what they refuse."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.evidence import HVAE
from hvae.exact import DiscreteChain, NoReferenceError, discrete, discrete_information, discrete_visits
from hvae.families import Autoregressive, Bernoulli, Categorical, DiagonalGaussian, Family
from hvae.nets import BatchNorm, Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior, Posterior
from tests.exact.enumerated import KINDS, LADDERS, Enumerated, decoder, observations, posterior

N_DATA = 3


def gaussian(units: int) -> DiagonalGaussian:
    return DiagonalGaussian(units, variance="learned", log_variance=-0.7).double()


def stack(layers: str, depth: int) -> list[Family]:
    """Families of (x, z1, …); x is of another family each time."""
    match layers:
        case "coins":
            return [Bernoulli(5), *(Bernoulli(units) for units in (3, 2, 2, 3)[:depth])]
        case "dice":
            return [Categorical(2, 3), *(Categorical(*shape) for shape in ((2, 3), (1, 3), (2, 2), (1, 4))[:depth])]
        case _:
            return [gaussian(3), *(Bernoulli(3), Categorical(1, 4), Bernoulli(1), Categorical(2, 2))[:depth]]


def autoregressive(unit: Family, seed: int) -> Autoregressive:
    """One whose units do depend on those before them."""
    source = torch.Generator().manual_seed(seed)
    family = Autoregressive(unit, 3, source=source).double()
    with torch.no_grad():
        for weight in family.parameters():
            weight.copy_(1.5 * torch.randn(weight.shape, generator=source, dtype=torch.float64))
    return family


def near(found: Tensor, expected: object) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-10, rtol=0)


def positions(chain: DiscreteChain, truth: Enumerated, name: str) -> list[int]:
    """Where the states of the enumeration stand among the chain's."""
    found = [tuple(state) for state in chain.states(name).tolist()]
    assert sorted(found) == sorted(truth.states[name])
    return [found.index(state) for state in truth.states[name]]


def assert_same(network: BeliefNetwork, visits: Posterior, x: Tensor) -> None:
    """Every answer of the chain equals the enumerated one."""
    chain, truth = DiscreteChain.of(network), Enumerated(network, visits, x)
    expected, gaps = truth.answers(), chain.gaps(visits, x)
    assert list(gaps.rates) == list(gaps.layers) == list(gaps.remaining) == list(visits.order)
    for found, key in ((chain.log_px(x), "log_px"), (gaps.log_px, "log_px"), (gaps.elbo, "elbo")):
        near(found, expected[key])
    near(chain.elbo(visits, x), expected["elbo"])
    index = {name: positions(chain, truth, name) for name in chain.latents}
    for name in chain.latents:
        near(gaps.rates[name], expected["rate", name])
        near(gaps.layers[name], expected["layer", name])
        near(gaps.remaining[name], expected["remaining", name])
        near(chain.log_marginal(name)[index[name]], expected["marginal", name])
        near(chain.posterior_marginal(name, x)[:, index[name]], expected["posterior", name])
    for below, name in itertools.pairwise(chain.latents):
        near(chain.reverse(name)[index[below]][:, index[name]], expected["reverse", name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", ["coins", "dice", "mixed"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_answer_equals_enumeration(depth: int, layers: str, kind: str) -> None:
    families = stack(layers, depth)
    assert_same(decoder(families), posterior(kind, families), observations(families[0], N_DATA))


AUTOREGRESSIVE = [kind for kind in KINDS if kind not in LADDERS]  # which merge unit by unit


@pytest.mark.parametrize("kind", AUTOREGRESSIVE)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_autoregressive_layers_equal_enumeration(depth: int, kind: str) -> None:
    """In the encoder alone, and in both directions; with the gradient of the ELBO in all weights."""
    units = [Bernoulli(4), Bernoulli(3), Categorical(2, 3), Bernoulli(2)][: depth + 1]
    rich = [units[0], *(autoregressive(family, seed) for seed, family in enumerate(units[1:]))]
    x = observations(units[0], N_DATA)
    for below in (units, [*rich[:-1], units[-1]]):
        network, visits = decoder(below), posterior(kind, rich)
        assert_same(network, visits, x)
        weights = [*HVAE(network, visits).parameters()]
        exact = torch.autograd.grad(DiscreteChain.of(network).elbo(visits, x).sum(), weights, allow_unused=True)
        expected = torch.autograd.grad(Enumerated(network, visits, x).elbo().sum(), weights, allow_unused=True)
        for found, truth in zip(exact, expected, strict=True):
            assert (found is None) == (truth is None)
            if found is not None and truth is not None:
                torch.testing.assert_close(found, truth, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", AUTOREGRESSIVE)
def test_autoregressive_informations_equal_enumeration(kind: str) -> None:
    units = [Bernoulli(4), Bernoulli(3), Bernoulli(2)]
    network, x = decoder(units), observations(units[0], 5)
    visits = posterior(kind, [units[0], *(autoregressive(family, seed) for seed, family in enumerate(units[1:]))])
    found = DiscreteChain.of(network).information(visits, x)
    for quantity, expected in Enumerated(network, visits, x).informations().items():
        for name, value in expected.items():
            assert abs(float(getattr(found, quantity)[name]) - value) < 1e-10, (quantity, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", ["coins", "mixed"])
def test_three_ways_to_the_layer_gaps(layers: str, kind: str) -> None:
    """Σ G_l from divergences, R_{k-1} - R_k from marginals, and log p(x) - ELBO."""
    families = stack(layers, 4)
    gaps = DiscreteChain.of(decoder(families)).gaps(posterior(kind, families), observations(families[0], N_DATA))
    near(sum(gaps.layers.values()), gaps.total)
    before = gaps.total
    for name, remaining in gaps.remaining.items():
        near(before - remaining, gaps.layers[name])
        before = remaining
    near(before, np.zeros(N_DATA))
    assert min(float(layer.min()) for layer in gaps.layers.values()) > 1e-3  # nothing is trivially 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_informations_equal_enumeration(depth: int, kind: str) -> None:
    families = stack("mixed", depth)
    network, visits, x = decoder(families), posterior(kind, families), observations(families[0], 5)
    found = DiscreteChain.of(network).information(visits, x)
    for quantity, expected in Enumerated(network, visits, x).informations().items():
        assert list(getattr(found, quantity)) == list(visits.order)
        for name, value in expected.items():
            assert abs(float(getattr(found, quantity)[name]) - value) < 1e-10, (quantity, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", ["coins", "dice", "mixed"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_gradient_of_the_elbo_equals_that_of_the_enumeration(depth: int, layers: str, kind: str) -> None:
    families = stack(layers, depth)
    network, visits, x = decoder(families), posterior(kind, families), observations(families[0], N_DATA)
    weights = [*HVAE(network, visits).parameters()]
    exact = torch.autograd.grad(DiscreteChain.of(network).elbo(visits, x).sum(), weights)
    expected = torch.autograd.grad(Enumerated(network, visits, x).elbo().sum(), weights)
    for found, truth in zip(exact, expected, strict=True):
        torch.testing.assert_close(found, truth, atol=1e-10, rtol=0)
    assert all(bool(gradient.abs().max() > 1e-6) for gradient in exact)


@pytest.mark.parametrize("kind", ["bottom-up", "ladder"])
def test_the_gradient_equals_central_differences(kind: str) -> None:
    """h = 1e-4: the error is h² f'''/6, about 1e-8, above rounding (1e-16 · 10 / h)."""
    families = stack("mixed", 2)
    network, visits, x = decoder(families), posterior(kind, families), observations(families[0], N_DATA)
    chain, step = DiscreteChain.of(network), 1e-4
    for f in (lambda: chain.elbo(visits, x).sum(), lambda: chain.log_px(x).sum()):
        for weight in HVAE(network, visits).parameters():
            (gradient,) = torch.autograd.grad(f(), weight, allow_unused=True)
            flat, sides = weight.data.view(-1), []
            for signed in (step, -2 * step):
                flat[0] += signed
                sides.append(f().item())
            flat[0] += step
            slope = 0.0 if gradient is None else gradient.view(-1)[0].item()
            assert abs((sides[0] - sides[1]) / (2 * step) - slope) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_of_all_joint_states_says_the_same(kind: str) -> None:
    """The distributions that `hvae.evidence` weighs are the distributions that the chain reads."""
    families = stack("mixed", 3)
    network, visits, x = decoder(families), posterior(kind, families), observations(families[0], N_DATA)
    chain, model = DiscreteChain.of(network), HVAE(network, visits)
    joint = torch.cartesian_prod(*(torch.arange(len(chain.states(name))) for name in chain.latents))
    given = {name: chain.states(name)[joint[:, i]].unsqueeze(1) for i, name in enumerate(chain.latents)}
    evidence = model.weigh(model.infer(x.unsqueeze(0), {}, given), x.unsqueeze(0))
    q = sum(site.log_prob for site in evidence.q.values()).exp()
    near(chain.elbo(visits, x), (q * evidence.log_weight).sum(0).detach().numpy())
    log_joint = sum(site.log_prob for site in evidence.p.values())
    near(chain.log_px(x), log_joint.logsumexp(0).detach().numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_extreme_couplings(kind: str, scale: float) -> None:
    """Probabilities underflow by thousands of nats and every answer stays finite and exact.

    Answers reach 1e4 nats, so rounding (1e-16 of that, a few dozen terms) stands well below 1e-10.
    """
    families = stack("coins", 3)
    network, visits = decoder(families, scale=scale), posterior(kind, families, scale=scale)
    x = observations(families[0], N_DATA)
    assert_same(network, visits, x)
    elbo = DiscreteChain.of(network).elbo(visits, x)
    assert elbo.min() < -80
    for gradient in torch.autograd.grad(elbo.sum(), [*HVAE(network, visits).parameters()]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_data", [1, 7])
def test_chunks_of_data_change_nothing_and_stay_small(n_data: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array exceeds the limit (40 numbers here, where one matrix of pairs has 32), whatever the number of data."""
    families = stack("mixed", 3)
    network, visits, x = decoder(families), posterior(kind, families), observations(families[0], n_data)
    sizes, mean = [], discrete_visits._mean

    def recorded(weight: Tensor, q: Tensor, f: Tensor) -> Tensor:
        sizes.extend([q.numel(), f.numel()])
        return mean(weight, q, f)

    monkeypatch.setattr(discrete_visits, "_mean", recorded)
    monkeypatch.setattr(discrete_visits, "CELLS", 40)
    monkeypatch.setattr(discrete, "CELLS", 40)
    assert_same(network, visits, x)
    assert 32 <= max(sizes) <= 40
    found = DiscreteChain.of(network).information(visits, x)
    for name, value in Enumerated(network, visits, x).informations()["from_parent"].items():
        assert abs(float(found.from_parent[name]) - value) < 1e-10


def side_by_side(parents: dict[str, list[str]], units: int, source: torch.Generator) -> BeliefNetwork:
    """Layers of Bernoulli units where unit i sees unit i only: `units` independent chains, whose answers add up."""
    conditionals = []
    for name, seen in parents.items():
        bias = torch.randn(units, generator=source, dtype=torch.float64)
        net: nn.Module = Root(bias, learned=True)
        if seen:
            linear = nn.Linear(units, units, dtype=torch.float64)
            with torch.no_grad():
                linear.weight.copy_(3 * torch.randn(units, generator=source, dtype=torch.float64).diag())
                linear.bias.copy_(bias)
            net = nn.Sequential(linear)
        conditionals.append(Conditional(name, seen, net, Bernoulli(units)))
    return BeliefNetwork(conditionals)


def one_unit(network: BeliefNetwork, i: int) -> BeliefNetwork:
    """Chain i of those side by side."""
    alone = side_by_side({name: list(network[name].parents) for name in network.variables}, 1, torch.Generator())
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, weight in alone.named_parameters():
            whole = weights[name]
            weight.copy_(whole[i, i] if whole.dim() == 2 else whole[i])
    return alone


@pytest.mark.slow
@pytest.mark.parametrize("parents", [{"z1": ["x"], "z2": ["z1"]}, {"z2": ["x"], "z1": ["z2"]}], ids=["up", "down"])
def test_twelve_bernoulli_a_layer(parents: dict[str, list[str]]) -> None:
    """2^12 states a layer, against twelve enumerations of one Bernoulli unit a layer; gradients are not kept at this
    size."""
    source = torch.Generator().manual_seed(0)
    network = side_by_side({"z2": [], "z1": ["z2"], "x": ["z1"]}, 12, source)
    encoder = side_by_side(parents, 12, source)
    x, chain = observations(Bernoulli(12), 2), DiscreteChain.of(network)
    gaps = chain.gaps(NetworkPosterior(encoder), x)
    assert not chain.log_px(x).requires_grad and not chain.elbo(NetworkPosterior(encoder), x).requires_grad
    alone = [
        Enumerated(one_unit(network, i), NetworkPosterior(one_unit(encoder, i)), x[:, i : i + 1]).answers()
        for i in range(12)
    ]
    expected = {key: sum(answers[key] for answers in alone) for key in alone[0]}
    near(gaps.log_px, expected["log_px"])
    near(gaps.elbo, expected["elbo"])
    for name in parents:
        near(gaps.rates[name], expected["rate", name])
        near(gaps.layers[name], expected["layer", name])
        near(gaps.remaining[name], expected["remaining", name])


def test_float32_nets_give_identities_in_float64() -> None:
    """The nets are computed in float64 too; the gradient is that of the float32 weights."""
    families = stack("coins", 3)
    network, visits = decoder(families).float(), posterior("bottom-up", families).float()
    gaps = DiscreteChain.of(network).gaps(visits, observations(families[0], N_DATA).float())
    assert gaps.elbo.dtype == gaps.log_px.dtype == torch.float64
    near(sum(gaps.layers.values()), gaps.total)
    wide = DiscreteChain.of(copy.deepcopy(network).double())
    near(gaps.log_px, wide.log_px(observations(families[0], N_DATA)).detach())
    near(gaps.elbo, wide.elbo(copy.deepcopy(visits).double(), observations(families[0], N_DATA)).detach())
    elbo = DiscreteChain.of(network).elbo(visits, observations(families[0], N_DATA).float())
    assert torch.autograd.grad(elbo.sum(), next(network.parameters()))[0].dtype == torch.float32


def test_training_on_the_exact_elbo_raises_it_and_the_encoder_alone_closes_the_gap() -> None:
    families = [Bernoulli(6), Bernoulli(3), Bernoulli(2)]
    network, visits, x = decoder(families), posterior("bottom-up", families), observations(families[0], 8)
    chain = DiscreteChain.of(network)

    def train(weights: list[nn.Parameter]) -> None:
        optimiser = torch.optim.Adam(weights, lr=0.03)
        for _ in range(150):
            optimiser.zero_grad()
            (-chain.elbo(visits, x).mean()).backward()
            optimiser.step()

    before = chain.gaps(visits, x)
    train([*visits.parameters()])
    encoded = chain.gaps(visits, x)
    near(encoded.log_px, before.log_px)
    assert encoded.total.mean() < 0.5 * before.total.mean()
    train([*visits.parameters(), *network.parameters()])
    assert chain.elbo(visits, x).mean() > encoded.elbo.mean() + 1


def conditional(name: str, parents: list[str], n_in: int, family: Family) -> Conditional:
    return Conditional(name, parents, nn.Linear(n_in, family.n_outputs).double(), family)


def two_layers(**other: Conditional) -> BeliefNetwork:
    """z2 -> z1 -> x of two Bernoulli units each, some distributions replaced."""
    distributions = {
        "z2": Conditional("z2", [], Root(torch.zeros(2).double(), learned=True), Bernoulli(2)),
        "z1": conditional("z1", ["z2"], 2, Bernoulli(2)),
        "x": conditional("x", ["z1"], 2, Bernoulli(2)),
    }
    return BeliefNetwork([*{**distributions, **other}.values()])


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (two_layers(z1=conditional("z1", ["z2"], 2, gaussian(2))), "DiagonalGaussian layer has no states"),
        (two_layers(x=conditional("x", ["z1", "z2"], 4, Bernoulli(2))), r"x has the parents \['z1', 'z2'\]"),
        (two_layers(x=conditional("x", ["z2"], 2, Bernoulli(2))), r"x has the parents \['z2'\]"),
        (two_layers(z1=conditional("z1", ["z2"], 2, Bernoulli(13))), r"z1 has 2\^13 states.* at most 4096"),
        (two_layers(z1=conditional("z1", ["z2"], 2, Categorical(6, 5))), r"z1 has 5\^6 states"),
        (BeliefNetwork([Conditional("x", [], Root(torch.zeros(2), learned=True), Bernoulli(2))]), "needs latents"),
    ],
)
def test_decoders_without_a_reference(network: BeliefNetwork, reason: str) -> None:
    with pytest.raises(NoReferenceError, match=reason):
        DiscreteChain.of(network)


@pytest.mark.parametrize(
    ("distributions", "reason"),
    [
        ([("z1", ["x"], Bernoulli(2)), ("z2", ["z1"], Bernoulli(2)), ("z3", ["z1", "z2"], Bernoulli(2))],
         "distribution of z3 sees more than it may.* no other latent than z2"),
        ([("z3", ["x"], Bernoulli(2)), ("z2", ["x"], Bernoulli(2)), ("z1", ["z3"], Bernoulli(2))],
         "distribution of z1 sees more"),
        ([("z2", ["x"], Bernoulli(2)), ("z1", ["z2"], Bernoulli(2)), ("z3", ["z1"], Bernoulli(2))],
         r"visits \['z2', 'z1', 'z3'\]"),
        ([("z1", ["x"], Bernoulli(2)), ("z2", ["z1"], Categorical(1, 2)), ("z3", ["z2"], Bernoulli(2))],
         "draws z2 from a Categorical of 1 units where the decoder has a Bernoulli of 2"),
        ([("z1", ["x"], Bernoulli(2)), ("z2", ["z1"], gaussian(2)), ("z3", ["z2"], Bernoulli(2))],
         "draws z2 from a DiagonalGaussian"),
    ],
)  # fmt: skip
def test_posteriors_without_a_reference(distributions: list[tuple[str, list[str], Family]], reason: str) -> None:
    families = [Bernoulli(2)] * 4
    visits = NetworkPosterior(
        BeliefNetwork([conditional(name, seen, 2 * len(seen), family) for name, seen, family in distributions])
    )
    chain, x = DiscreteChain.of(decoder(families)), observations(families[0], N_DATA)
    for ask in (chain.gaps, chain.elbo, chain.information):
        with pytest.raises(NoReferenceError, match=reason):
            ask(visits, x)


def test_bad_input_is_named() -> None:
    families = stack("coins", 2)
    network, visits, x = decoder(families), posterior("bottom-up", families), observations(families[0], N_DATA)
    chain = DiscreteChain.of(network)
    for bad in (x[0], x[:, :2], x[:0], x.unsqueeze(0)):
        with pytest.raises(ValueError, match=r"x has the shape"):
            chain.log_px(bad)
        with pytest.raises(ValueError, match=r"x has the shape"):
            chain.gaps(visits, bad)
    with pytest.raises(ValueError, match=r"x has 3 numbers that are not finite"):
        chain.elbo(visits, torch.cat([x[:1, :3] * math.nan, x[:1, 3:]], -1))
    for name in ("z1", "z9"):
        with pytest.raises(ValueError, match=f"'{name}' has no latent below"):
            chain.reverse(name)
    for ask in (chain.log_marginal, lambda name: chain.posterior_marginal(name, x)):
        with pytest.raises(ValueError, match=r"'z9' is not among the latents \['z1', 'z2'\]"):
            ask("z9")
    normed = Conditional("z1", ["z2"], nn.Sequential(BatchNorm(2), nn.Linear(2, 3)).double(), Bernoulli(3))
    moving = DiscreteChain.of(BeliefNetwork([network["z2"], normed, network["x"]]))
    with pytest.raises(NoReferenceError, match="batch norm in training mode"):
        moving.log_px(x)
    moving.decoder.eval()
    assert moving.log_px(x).isfinite().all()
    with torch.no_grad():
        next(visits.parameters()).fill_(math.inf)
    with pytest.raises(NoReferenceError, match="posterior's distribution of z1 has logits that are not finite"):
        chain.elbo(visits, x)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    with pytest.raises(NoReferenceError, match="decoder's distribution of z2 has logits that are not finite"):
        chain.log_px(x)


def test_conditional_informations_of_too_many_joint_states_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    families = stack("coins", 2)
    chain, x = DiscreteChain.of(decoder(families)), observations(families[0], N_DATA)
    monkeypatch.setattr(discrete_information, "CELLS", 95)
    with pytest.raises(NoReferenceError, match="all 32 joint states for each of 3 images, 96 numbers where 95"):
        chain.information(posterior("ladder", families), x)
    chain.information(posterior("bottom-up", families), x)
