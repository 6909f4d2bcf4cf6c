"""Decoders of one's own: whatever can be walked is measured as a belief network is.

First a belief network behind the four abstract methods and nothing else. Then a top-down net of 20 layers that carries
a state, h <- h + F_l h + B_l z_l, linear and Gaussian, so that all is known twice more: from the dense covariance of
its joint distribution by numpy, and from the belief network with generative skips that it is.
"""

import copy
import doctest
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution

import hvae.network
import hvae.objectives.objective
from hvae import rng
from hvae.diagnosis.layer import flat_layer
from hvae.diagnostics.gap import split_gap
from hvae.diagnostics.marginals import Marginal, Sampling
from hvae.diagnostics.rest import Rest
from hvae.diagnostics.suboptimality import suboptimality
from hvae.diagnostics.unamortised import Ascent, fitted
from hvae.evidence import HVAE
from hvae.exact import NoReferenceError, solve
from hvae.experiments.shared.consistency.chain import chain
from hvae.families import DiagonalGaussian, Family
from hvae.lab.assembly import build_hvae
from hvae.lab.config import RunConfig
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.importance import log_likelihood_curve
from hvae.likelihood.refinement import Refinement
from hvae.likelihood.target import from_encoder, from_prior
from hvae.measuring import Sizes, measure_layers
from hvae.network import BeliefNetwork, Conditional, Decoder, Site, Trace, walked
from hvae.posterior import Ladder, Posterior, alone, shared
from hvae.rng import NoiseSpecs
from hvae.shapes import Noise, Value
from tests.lab.training.test_loop import toy

SIZES = Sizes(max_paths=16)
Array = np.ndarray
Arrays = Mapping[str, Any]


class Plain(Decoder):
    """A decoder that shows the four abstract members alone."""

    def __init__(self, network: Decoder) -> None:
        super().__init__()
        self.network = network
        self.n_walks = 0

    @property
    def variables(self) -> tuple[str, ...]:
        return self.network.variables

    def parents(self, name: str) -> tuple[str, ...]:
        return self.network.parents(name)

    def family(self, name: str) -> Family:
        return self.network.family(name)

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        self.n_walks += 1
        return self.network.walk(given, noise)


def measured(model: HVAE, x: Tensor, x_fit: Tensor | None = None) -> dict[str, Any]:
    """All that is said of a model, by name; ``x_fit`` are the data that a posterior is fitted to."""
    noise = rng.noise(model.noise_specs(), 3, len(x), seed=0, purpose="test", dtype=x.dtype)
    with torch.no_grad():
        evidence = model(x.unsqueeze(0), noise)
    found = {f"rate/{name}": evidence.rate(name).numpy() for name in model.latents}
    found["log weight"] = evidence.log_weight.numpy()
    for layer in measure_layers(model, x, SIZES):
        of_layer = flat_layer(layer, [True])
        found |= {key: values for key, values in of_layer.items() if not key.startswith("event/")}  # how it is drawn
    gap = split_gap(model, x[:2], 2, Sampling(40, seed=0, proposals=("q", "widened", "prior")))
    found |= {f"gap/{name}": layer.datum_nats for name, layer in gap.layers.items()}
    found |= {f"proposal/{name}": layer.proposal for name, layer in gap.layers.items()}
    found["curve"] = log_likelihood_curve(model, x, (1, 8), seed=0).bound_datum_nats
    found |= {f"chain/{step}": values.numpy() for step, values in chain(model, x, [1, 3], 0).items()}
    if x_fit is not None:
        fit = fitted(model.decoder, x_fit, Ascent(3, 2), seed=0).posterior
        found |= {f"fitted/{name}": weight.detach().numpy() for name, weight in fit.named_parameters()}
    return found


FLOAT32 = 1e-5
"""the same arithmetic, whose sums may be taken in another order from call to call (alignment of memory decides)"""


def assert_same(found: Arrays, expected: Arrays, tolerance: float = FLOAT32) -> None:
    assert found.keys() == expected.keys()
    for name, values in found.items():
        a, b = np.asarray(values), np.asarray(expected[name])
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True, err_msg=name)
        else:
            assert np.array_equal(a, b), name


# A belief network behind four methods


@pytest.mark.parametrize("skips", [False, True], ids=["chain", "skips"])
@pytest.mark.parametrize("families", [["gaussian"], ["bernoulli"], ["categorical", "gaussian"]], ids=str)
@pytest.mark.parametrize("order", ["bottom-up", "bottom-up-x", "mean-field", "top-down", "top-down-shared"])
def test_four_methods_give_every_digit_of_a_belief_network(order: str, families: list[str], skips: bool) -> None:
    config = RunConfig.from_dict(
        {
            "model": {
                "latents": [3, 2], "hidden": [[4]], "order": order, "families": families, "generative_skips": skips
            },
            "objective": {"n_samples": 2},
        }
    )  # fmt: skip
    model = build_hvae(config.model, toy(), seed=3).eval()
    source = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=source)
    assert isinstance(model.decoder, BeliefNetwork)
    plain = HVAE(Plain(model.decoder), copy.deepcopy(model.posterior))
    x = toy().test[:10]
    assert_same(measured(plain, x, x), measured(model, x, x))


def test_annealing_and_refinement_too() -> None:
    model = build_hvae(RunConfig.from_dict({"model": {"latents": [2, 2], "hidden": [[4]]}}).model, toy(), seed=3).eval()
    assert isinstance(model.decoder, BeliefNetwork)
    plain, x = HVAE(Plain(model.decoder), model.posterior), toy().test[:3]
    budget, few = Annealing(4, 3, 2), Refinement(n_steps=5, n_iterations=2)
    found = []
    for one in (model, plain):
        gap = split_gap(
            one, x, 2, Sampling(30, seed=0, proposals=("full", "refined"), refinement=few, annealing=budget)
        )
        why = suboptimality(one, x, gap.log_px, n_draws=2, seed=0, refinement=few)
        chains = [anneal(target, budget, 0).log_weight for target in (from_encoder(one, x), from_prior(one.decoder, x))]
        found.append(
            {f"{name}": layer.datum_nats for name, layer in gap.layers.items()}
            | {"amortisation": why.amortisation.datum_nats, "encoder": chains[0].numpy(), "prior": chains[1].numpy()}
        )
    assert_same(found[1], found[0])


def test_some_factors_and_one_distribution() -> None:
    """What stands beside the parents does not matter, a missing parent is refused, and nothing asked is nothing."""
    model = build_hvae(RunConfig.from_dict({"model": {"latents": [3, 2, 2]}}).model, toy(), seed=0)
    network = model.decoder
    assert isinstance(network, BeliefNetwork)
    plain = Plain(network)
    z2 = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    for values in ({"z2": z2}, {"z2": z2, "z1": torch.zeros(1, 1, 3)}, {"z2": z2, "x": toy().test[:5].unsqueeze(0)}):
        assert torch.equal(plain.distribution("z1", values).mean, network.distribution("z1", values).mean)
    with pytest.raises(KeyError, match="z2"):
        plain.distribution("z1", {"z3": z2})
    n_walks = plain.n_walks
    assert plain.factors([]).walk({}, {}) == {} and plain.n_walks == n_walks
    some = plain.factors(["x", "z2"])
    assert some.variables == ("z2", "x") and some.noise_specs() == network.factors(["x", "z2"]).noise_specs()
    with pytest.raises(KeyError, match="z3"):
        some.walk({"z2": z2, "z1": torch.zeros(1, 1, 3), "x": torch.zeros(1, 1, 6)}, {})
    with pytest.raises(KeyError, match="x"):
        some.walk({"z3": z2, "z2": z2, "z1": torch.zeros(1, 1, 3)}, {})


def test_a_decoder_of_ones_own_has_no_reference_and_says_why() -> None:
    model = build_hvae(RunConfig.from_dict({"model": {"latents": [2]}}).model, toy(), seed=0)
    assert isinstance(model.decoder, BeliefNetwork)
    with pytest.raises(NoReferenceError, match="a Plain, and exact answers read the conditionals of a belief network"):
        solve(Plain(model.decoder))


def test_a_ladder_refuses_a_decoder_of_another_order() -> None:
    family = DiagonalGaussian(2)
    upward = BeliefNetwork(
        [Conditional("z1", ["x"], nn.Linear(3, 4), family), Conditional("z2", ["z1"], nn.Linear(2, 4), family)]
    )
    root = nn.ParameterList([torch.zeros(4)])

    class Prior(nn.Module):
        def forward(self) -> Tensor:
            return root[0]

    decoder = BeliefNetwork(
        [Conditional("z1", [], Prior(), family), Conditional("z2", [], Prior(), family),
         Conditional("x", ["z1", "z2"], nn.Linear(4, 6), DiagonalGaussian(3))]
    )  # fmt: skip
    with pytest.raises(ValueError, match="a ladder visits z2, z1, but the decoder draws z1, z2, x; give"):
        HVAE(decoder, Ladder(upward)).infer(torch.zeros(1, 1, 3), {})


# A state that is carried through 20 layers

DEPTH, STATE, WIDTH = 20, 4, 3
NAMES = tuple(f"z{layer}" for layer in range(DEPTH, 0, -1))
"""from the top down; one unit each"""


class TopDown(Decoder):
    """p(z_l | h), h <- h + F_l h + B_l z_l, p(x | h): one state for all layers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(seed)

        def linear(n_in: int, n_out: int, scale: float) -> nn.Linear:
            net = nn.Linear(n_in, n_out, dtype=torch.float64)
            net.weight.data = scale * torch.randn(n_out, n_in, generator=source, dtype=torch.float64) / n_in**0.5
            net.bias.data = 0.3 * torch.randn(n_out, generator=source, dtype=torch.float64)
            return net

        self.start = nn.Parameter(torch.randn(STATE, generator=source, dtype=torch.float64))
        self.heads = nn.ModuleDict({name: linear(STATE, 1, 1.0) for name in NAMES} | {"x": linear(STATE, WIDTH, 1.0)})
        self.states = nn.ModuleDict({name: linear(STATE + 1, STATE, 0.6) for name in NAMES})
        self.families = nn.ModuleDict(
            {name: DiagonalGaussian(1, variance="learned").double() for name in NAMES}
            | {"x": DiagonalGaussian(WIDTH, variance="learned").double()}
        )
        for family in self.families.values():
            family.log_variance.data = torch.randn(family.units, generator=source, dtype=torch.float64) / 2 - 1
        self.n_states = self.n_observations = 0
        self.requires_grad_(False)

    @property
    def variables(self) -> tuple[str, ...]:
        return (*NAMES, "x")

    def parents(self, name: str) -> tuple[str, ...]:
        return self.variables[: self.variables.index(name)]

    def family(self, name: str) -> Family:
        found = self.families[name]
        assert isinstance(found, Family)
        return found

    def descend(self, values: Mapping[str, Value]) -> Iterator[tuple[str, Distribution]]:
        h = self.start.expand(1, 1, -1)
        for name in NAMES:
            yield name, self.family(name).distribution(self.heads[name](h))
            z = values[name]
            batch = torch.broadcast_shapes(h.shape[:-1], z.shape[:-1])
            h = h + self.states[name](torch.cat([h.expand(*batch, -1), z.expand(*batch, -1)], dim=-1))
            self.n_states += 1
        self.n_observations += 1
        yield "x", self.family("x").distribution(self.heads["x"](h))

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        return walked(self, given, noise)


def unrolled(decoder: TopDown) -> dict[str, tuple[Array, Array, Array]]:
    """Variable -> (weight on all variables before it, bias, variances): its own arithmetic, in numpy."""

    def numbers(net: nn.Module) -> tuple[Array, Array]:
        assert isinstance(net, nn.Linear)
        return net.weight.numpy(), net.bias.numpy()

    weight, bias = np.zeros((STATE, 0)), decoder.start.numpy()
    found = {}
    for name in decoder.variables:
        a, b = numbers(decoder.heads[name])
        found[name] = a @ weight, a @ bias + b, np.exp(decoder.family(name).log_variance.numpy())
        if name != "x":
            f, g = numbers(decoder.states[name])
            bias = bias + f[:, :STATE] @ bias + g
            weight = np.hstack([weight + f[:, :STATE] @ weight, f[:, STATE:]])
    return found


def dense(decoder: TopDown) -> tuple[Array, Array]:
    """Mean and covariance of (z20, …, z1, x)."""
    mean, covariance = np.zeros(0), np.zeros((0, 0))
    for weight, bias, variance in unrolled(decoder).values():
        cross = weight @ covariance
        mean = np.append(mean, weight @ mean + bias)
        covariance = np.block([[covariance, cross.T], [cross, cross @ weight.T + np.diag(variance)]])
    return mean, covariance


def with_skips(decoder: TopDown) -> BeliefNetwork:
    """The same joint distribution as a belief network in which each variable sees all above."""
    made = []
    for name, (weight, bias, _) in unrolled(decoder).items():
        net: nn.Module = nn.Linear(max(1, weight.shape[1]), len(bias), dtype=torch.float64)
        if weight.shape[1]:
            net.weight.data, net.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)  # type: ignore[assignment]
        else:
            net = hvae.nets.Root(torch.from_numpy(bias), learned=False)
        made.append(Conditional(name, decoder.parents(name), net, decoder.family(name)))
    return BeliefNetwork(made).requires_grad_(False)


class Regression(Posterior):
    """q(v_k | v_<k, x) = p(v_k | v_<k, x), some means off by ``shifts`` of its deviations; in any order."""

    def __init__(self, decoder: TopDown, order: Sequence[str], shifts: Mapping[str, float]) -> None:
        super().__init__()
        mean, covariance = dense(decoder)
        where = {name: [position] for position, name in enumerate(NAMES)}
        seen = list(range(DEPTH, DEPTH + WIDTH))
        self._order, self.distributions = tuple(order), {}
        self.unit = DiagonalGaussian(1).double()
        for name in order:
            own = where[name]
            gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, own)]).T
            variance = covariance[np.ix_(own, own)] - gain @ covariance[np.ix_(seen, own)]
            bias = mean[own] - gain @ mean[seen] + shifts.get(name, 0.0) * variance[0] ** 0.5
            self.distributions[name] = tuple(map(torch.from_numpy, (gain, bias, np.log(variance[0]))))
            seen = seen + own

    @property
    def order(self) -> tuple[str, ...]:
        return self._order

    def noise_specs(self) -> NoiseSpecs:
        return {name: ("normal", 1) for name in self._order}

    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        values, trace, seen = dict(given), {}, [given["x"]]
        for name, (gain, bias, log_variance) in self.distributions.items():
            batch = torch.broadcast_shapes(*(value.shape[:-1] for value in seen))
            mean = torch.cat([value.expand(*batch, -1) for value in seen], -1) @ gain.mT + bias
            distribution = self.unit.distribution(torch.cat([mean, log_variance.expand_as(mean)], -1))
            if name not in given:
                values[name] = self.unit.draw(distribution, noise[name])
            trace[name] = Site(values[name], distribution, self.unit)
            seen.append(values[name])
        return trace


def ladder(merge: Any = alone) -> Ladder:
    source = torch.Generator().manual_seed(5)
    upward = []
    for n_in, name, parent in zip((WIDTH, *(1,) * DEPTH), NAMES[::-1], ("x", *NAMES[::-1]), strict=False):
        net = nn.Linear(n_in, 2, dtype=torch.float64)
        net.weight.data = torch.randn(2, n_in, generator=source, dtype=torch.float64) / 3
        net.bias.data.zero_()
        upward.append(Conditional(name, [parent], net, DiagonalGaussian(1).double()))
    return Ladder(BeliefNetwork(upward), merge)


def data(n: int) -> Tensor:
    mean, covariance = dense(TopDown())
    draws = np.random.default_rng(0).multivariate_normal(mean, covariance, n)
    return torch.from_numpy(draws[:, DEPTH:])


def log_px(x: Tensor) -> Array:
    mean, covariance = dense(TopDown())
    found: Array = stats.multivariate_normal(mean[DEPTH:], covariance[DEPTH:, DEPTH:]).logpdf(x.numpy())
    return found


ORDERS = {"top-down": NAMES, "bottom-up": NAMES[::-1]}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_log_px_of_a_carried_state_by_every_estimator(order: tuple[str, ...]) -> None:
    """With the exact posterior every single weight is p(x), known from a dense covariance."""
    decoder, x = TopDown(), data(4)
    model, exact = HVAE(decoder, Regression(decoder, order, {})), log_px(data(4))
    noise = rng.noise(model.noise_specs(), 5, 4, seed=0, purpose="test", dtype=torch.float64)
    weights = [
        model(x.unsqueeze(0), noise).log_weight,
        anneal(from_encoder(model, x), Annealing(3, 2, 1), 0).log_weight,
    ]
    for found in weights:
        np.testing.assert_allclose(found, np.broadcast_to(exact, found.shape), atol=1e-10)
    curve = log_likelihood_curve(model, x, (1, 8), seed=0)
    np.testing.assert_allclose(curve.bound_datum_nats, np.stack([exact] * 2), atol=1e-10)
    gap = split_gap(model, x, 2, Sampling(20, seed=0, proposals=("q",)))
    for layer in (*gap.layers.values(), *gap.remaining.values()):
        np.testing.assert_allclose(layer.datum_nats, 0, atol=1e-10)
    prior = from_prior(decoder, x)
    assert prior.log_weight(prior.noise(3, seed=0, purpose="test")).isfinite().all()


@pytest.mark.parametrize(
    "order",
    [ORDERS["top-down"], pytest.param(ORDERS["bottom-up"], marks=pytest.mark.slow)],
    ids=["top-down", "bottom-up"],
)
def test_layer_gaps_of_a_carried_state_are_those_that_were_made(order: tuple[str, ...]) -> None:
    """A mean that is off by s deviations costs s² / 2: known from the KL of each layer, and not from a difference."""
    decoder, x, shifts = TopDown(), data(4), {"z16": 1.0, "z5": -0.8}
    model = HVAE(decoder, Regression(decoder, order, shifts))
    exact = Marginal("log p(x)", Estimate(log_px(x), "exact", *np.zeros((3, 4)), 0), np.zeros(4), "exact")
    found = split_gap(model, x, 64, Sampling(300, seed=0, proposals=("q",)), exact)
    assert tuple(found.layers) == order
    total = log_px(x) - found.elbo.datum_nats
    np.testing.assert_allclose(sum(layer.datum_nats for layer in found.layers.values()), total, atol=1e-8)
    for name, layer in found.layers.items():
        low, _, high = layer.interval(1 - 1e-3 / DEPTH)  # one false alarm in a thousand for all layers together
        assert low < shifts.get(name, 0.0) ** 2 / 2 < high, name
        assert high - low < 2 * 0.32, name  # what is moved from one of the two layers to another is seen


@pytest.mark.slow
def test_a_carried_state_is_measured_as_the_belief_network_that_it_is() -> None:
    """Every diagnostic, with a ladder and with a posterior of one's own in both orders."""
    decoder, x = TopDown(), data(6)
    for posterior in (
        ladder(),
        ladder(shared),
        *(Regression(decoder, order, {"z9": 0.5}) for order in ORDERS.values()),
    ):
        with torch.no_grad():
            assert_same(measured(HVAE(decoder, posterior), x), measured(HVAE(with_skips(decoder), posterior), x), 1e-8)


def test_a_walk_takes_one_pass() -> None:
    """One state a layer in every walk; a ladder's walk is one too, and never draws x."""
    decoder, x = TopDown(), data(2).unsqueeze(0)

    def counted(run: Any) -> tuple[int, int]:
        decoder.n_states = decoder.n_observations = 0
        run()
        return decoder.n_states, decoder.n_observations

    model = HVAE(decoder, ladder())
    noise = rng.noise(model.noise_specs(), 3, 2, seed=0, purpose="test", dtype=torch.float64)
    whole = rng.noise(decoder.noise_specs(), 3, 2, seed=0, purpose="test", dtype=torch.float64)
    assert counted(lambda: decoder.walk({}, whole)) == (DEPTH, 1)
    assert counted(lambda: model.infer(x, noise)) == (DEPTH - 1, 0)
    assert counted(lambda: model(x, noise)) == (2 * DEPTH - 1, 1)
    values = {name: site.value for name, site in decoder.walk({"x": x}, whole).items()}
    assert counted(lambda: decoder.factors(NAMES[3:]).walk(values, {})) == (DEPTH, 1)
    rest = Rest.of(model, x[0], {name: values[name][:1] for name in NAMES[:5]})
    assert rest.decoder.variables == (*NAMES[5:], "x")
    free = {name: noise[name] for name in rest.specs}
    assert counted(lambda: rest.log_weight(free)) == (2 * DEPTH - 1, 1)


def test_gradients_pass_through_a_carried_state() -> None:
    """A ladder's ELBO has the gradient of the belief network that the decoder is."""
    decoder = TopDown()
    grown = [HVAE(made, ladder()) for made in (decoder, with_skips(decoder))]
    x = data(2).unsqueeze(0)
    noise = rng.noise(grown[0].noise_specs(), 3, 2, seed=0, purpose="test", dtype=torch.float64)
    found = []
    for model in grown:
        model.posterior.load_state_dict(grown[0].posterior.state_dict())
        loss = model(x, noise).log_weight.mean()
        found.append(torch.autograd.grad(loss, list(model.posterior.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0])


def test_examples() -> None:
    for module in (hvae.network, hvae.objectives.objective):
        tried = doctest.testmod(module)
        assert tried.failed == 0 and tried.attempted > 0
