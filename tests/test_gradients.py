"""The expected gradient of every objective equals the gradient of the exact bound, to rounding.

Exact on one side: all values are clamped on a grid (states of Bernoulli and categorical units, equally spaced points of
a Gaussian unit), weighed by q, and the weighted bound is differentiated as it stands. Surrogate on the other:
Gaussian units are drawn from a grid of *noise*, discrete ones are clamped to every state, and what is averaged
are the gradients that training would follow. The two share no route from parameters to bound.
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.func import vmap

from hvae import rng
from hvae.evidence import HVAE, Evidence
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, DiagonalNormal, Family, FullGaussian
from hvae.gradients import (
    clamped,
    estimate,
    fill_in,
    leave_one_out,
    log_mean,
    mean,
    score_as_path,
    stick,
    thermodynamic,
)
from hvae.lab.assembly import build_hvae, build_objective
from hvae.lab.config import ModelConfig, ObjectiveConfig
from hvae.lab.training.loop import batch
from hvae.nets import BatchNorm, Root
from hvae.network import BeliefNetwork, Conditional, Site
from hvae.objectives import (
    Bound,
    Covariance,
    DoublyReparametrised,
    Elbo,
    Iwae,
    StickingTheLanding,
    Tvo,
    discrete_log_q,
    tempered,
)
from hvae.posterior import Ladder, NetworkPosterior, Posterior
from hvae.schedules import Constant
from tests.exact.stacks import decoder as linear_decoder
from tests.exact.stacks import encoder as linear_encoder
from tests.exact.stacks import joint
from tests.exact.stacks import parameters as matrices
from tests.lab.training.test_loop import config, state, toy, trained

EXACT = 1e-10
X = torch.tensor([1.0, 0, 1], dtype=torch.float64).view(1, 1, 3)
ORDERS = {"bottom-up": NetworkPosterior, "top-down": Ladder}
Points = list[tuple[Tensor, float]]


def bernoulli(units: int) -> Callable[[], Family]:
    return lambda: Bernoulli(units)


def die(n_classes: int) -> Callable[[], Family]:
    return lambda: Categorical(1, n_classes)


def normal() -> Family:
    return DiagonalGaussian(1)


def stack(order: str, kinds: Sequence[Callable[[], Family]], *, seed: int = 0, scale: float = 0.8) -> HVAE:
    """Tanh nets over latents z1, z2, … of the given kinds, below them three Bernoulli units."""
    source = torch.Generator().manual_seed(seed)

    def net(n_in: int, n_out: int) -> nn.Sequential:
        made = nn.Sequential(nn.Linear(n_in, 3), nn.Tanh(), nn.Linear(3, n_out)).double()
        for value in made.parameters():
            value.data.copy_(scale * torch.randn(value.shape, generator=source, dtype=torch.float64))
        return made

    names = [f"z{layer + 1}" for layer in range(len(kinds))]
    top = kinds[-1]()
    root = Root(scale * torch.randn(top.n_outputs, generator=source, dtype=torch.float64), learned=True)
    down, up = [Conditional(names[-1], [], root, top)], []
    for layer, name in enumerate(names):
        below = kinds[layer - 1]() if layer else Bernoulli(3)
        parent = names[layer - 1] if layer else "x"
        down.insert(1, Conditional(parent, [name], net(kinds[layer]().width, below.n_outputs), below))
        up.append(Conditional(name, [parent], net(below.width, kinds[layer]().n_outputs), kinds[layer]()))
    return HVAE(BeliefNetwork(down), ORDERS[order](BeliefNetwork(up)))


def states(family: Family) -> Tensor:
    if isinstance(family, Categorical):
        return torch.eye(family.n_classes, dtype=torch.float64)
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=family.units)), dtype=torch.float64)


def axis(n: int, reach: float) -> Tensor:
    return torch.linspace(-reach, reach, n, dtype=torch.float64)


def product_over_samples(choices: dict[str, Tensor], n_samples: int) -> dict[str, Tensor]:
    """Every combination of every latent's choices [S, width], for every one of K samples: name -> [n, K, 1, width]."""
    sizes = [len(c) for c in choices.values()] * n_samples
    index = torch.cartesian_prod(*[torch.arange(size) for size in sizes]).view(-1, n_samples, len(choices))
    return {name: c[index[..., i]].unsqueeze(2) for i, (name, c) in enumerate(choices.items())}


def exact_bound(model: HVAE, bound: Callable[[Evidence], Tensor], n_samples: int, n: int, reach: float) -> Tensor:
    """Σ over all clamped values of q(values) · bound(values), with cells of width h for Gaussian units."""
    families = {name: model.decoder[name].family for name in model.latents}
    gaussians = [name for name in model.latents if families[name].noise == "normal"]
    grid = axis(n, reach).unsqueeze(-1)
    choices = {name: grid if name in gaussians else states(families[name]) for name in model.latents}
    values = product_over_samples(choices, n_samples)
    values = {name: value.squeeze(2).transpose(0, 1) for name, value in values.items()}  # [K, n, width], n for B
    evidence = model.weigh(model.infer(X, {}, values), X)
    log_q = sum(evidence.q[name].log_prob for name in model.latents)
    cell = n_samples * len(gaussians) * math.log(2 * reach / (n - 1))
    weight = (log_q.sum(0) + cell).exp()
    torch.testing.assert_close(weight.sum(), torch.tensor(1.0).double(), atol=EXACT, rtol=0)
    return (weight * bound(evidence)).sum()


def expected_surrogate(model: HVAE, objective: Bound, n_samples: int, n: int) -> Tensor:
    """What training would follow, averaged over all noise of Gaussian units and all states of discrete ones."""
    families = {name: model.decoder[name].family for name in model.latents}
    gaussians = [name for name in model.latents if families[name].noise == "normal"]
    grid = axis(n, 8.5).unsqueeze(-1)
    choices = {name: grid if name in gaussians else states(families[name]) for name in model.latents}
    points = product_over_samples(choices, n_samples)

    def one(point: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        noise = {name: point[name] for name in gaussians}
        clamped = {name: point[name] for name in model.latents if name not in gaussians}
        evidence = model(X, noise, clamped)
        log_q = sum((evidence.q[name].log_prob for name in clamped), start=torch.zeros(n_samples, 1).double())
        log_noise = sum((-(value.square() / 2).sum() for value in noise.values()), start=torch.zeros(()).double())
        return objective(evidence, 0), log_q.sum() + log_noise

    loss, log_weight = vmap(one)(points)
    weight = (log_weight - n_samples * len(gaussians) * math.log(math.sqrt(2 * math.pi) / (17 / (n - 1)))).exp()
    torch.testing.assert_close(weight.sum(), torch.tensor(1.0).double(), atol=EXACT, rtol=0)
    return (weight.detach() * loss).sum()


def elbo(evidence: Evidence) -> Tensor:
    return (-evidence.distortion - sum(evidence.rate(name) for name in evidence.latents)).mean(0)


def iwae(evidence: Evidence) -> Tensor:
    terms = -evidence.distortion - sum(evidence.rate(name) for name in evidence.latents)
    return terms.exp().mean(0).log()


PARTITION = (0.0, 0.2, 0.7)


def tvo(evidence: Evidence) -> Tensor:
    terms = -evidence.distortion - sum(evidence.rate(name) for name in evidence.latents)
    at = [((b * terms).exp() * terms).sum(0) / (b * terms).exp().sum(0) for b in PARTITION]
    return 0.2 * at[0] + 0.5 * at[1] + 0.3 * at[2]


BOUNDS: dict[str, tuple[Bound, Callable[[Evidence], Tensor]]] = {
    "elbo": (Elbo(), elbo),
    "iwae": (Iwae(), iwae),
    "tvo": (Tvo(PARTITION), tvo),
}
DISCRETE = {
    "coins": [bernoulli(2)],
    "die": [die(3)],
    "coins-coin": [bernoulli(2), bernoulli(1)],
    "die-die": [die(3), die(2)],
    "coin-die-coin": [bernoulli(1), die(2), bernoulli(1)],
    "coins-coin-coin": [bernoulli(2), bernoulli(1), bernoulli(1)],
}


def assert_equal_gradients(model: HVAE, exact: Tensor, surrogate: Tensor, tolerance: float = EXACT) -> None:
    """``surrogate`` is a loss, ``exact`` a bound: values and gradients of all parameters are negatives."""
    assert abs(exact.item() + surrogate.item()) < tolerance
    parameters = dict(model.named_parameters())
    wanted = torch.autograd.grad(exact, list(parameters.values()), materialize_grads=True)
    found = torch.autograd.grad(surrogate, list(parameters.values()), materialize_grads=True)
    for name, a, b in zip(parameters, wanted, found, strict=True):
        assert a.abs().max() > 1e-4 or "upward" in name or name.endswith("2.bias"), name
        torch.testing.assert_close(-b, a, atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kinds", DISCRETE)
def test_discrete_stacks(kinds: str, order: str, bound: str) -> None:
    model = stack(order, DISCRETE[kinds])
    objective, exact = BOUNDS[bound]
    assert_equal_gradients(model, exact_bound(model, exact, 2, 2, 1.0), expected_surrogate(model, objective, 2, 2))


@pytest.mark.parametrize("bound", [*BOUNDS, "vimco"])
def test_three_samples(bound: str) -> None:
    """Where the two baselines of VIMCO differ."""
    model = stack("bottom-up", [die(3), bernoulli(1)])
    objective, exact = {**BOUNDS, "vimco": (Iwae(baseline=fill_in), iwae)}[bound]
    assert_equal_gradients(model, exact_bound(model, exact, 3, 2, 1.0), expected_surrogate(model, objective, 3, 2))


@pytest.mark.parametrize(
    ("order", "kinds", "bound", "n_samples"),
    [
        ("bottom-up", [normal], "elbo", 1),
        ("bottom-up", [normal], "elbo", 2),
        ("bottom-up", [normal], "iwae", 2),
        ("bottom-up", [normal, normal], "elbo", 1),
        ("top-down", [normal, normal], "elbo", 1),
        ("bottom-up", [normal, bernoulli(1)], "elbo", 2),
        ("bottom-up", [bernoulli(1), normal], "elbo", 2),
        ("bottom-up", [normal, bernoulli(1)], "iwae", 2),
        ("top-down", [normal, bernoulli(1)], "iwae", 2),
        ("bottom-up", [bernoulli(1), normal], "iwae", 2),
        ("top-down", [bernoulli(1), normal], "iwae", 2),
        ("bottom-up", [normal], "tvo", 2),
        ("top-down", [normal, bernoulli(1)], "tvo", 2),
    ],
)
def test_gaussian_and_mixed_stacks(order: str, kinds: list[Callable[[], Family]], bound: str, n_samples: int) -> None:
    model = stack(order, kinds, scale=0.5)
    objective, exact = BOUNDS[bound]
    assert_equal_gradients(
        model, exact_bound(model, exact, n_samples, 240, 16.0), expected_surrogate(model, objective, n_samples, 120)
    )


def normals(n: int) -> list[Callable[[], Family]]:
    return [normal] * n


WITHOUT_SCORE: dict[str, tuple[Bound, Callable[[Evidence], Tensor]]] = {
    "elbo": (StickingTheLanding(Elbo()), elbo),
    "iwae": (DoublyReparametrised(Iwae()), iwae),
}


@pytest.mark.parametrize(
    ("order", "kinds", "bound", "n_samples"),
    [
        ("bottom-up", normals(1), "elbo", 2),
        ("bottom-up", normals(1), "iwae", 2),
        *[(order, normals(2), bound, 1) for order in ORDERS for bound in WITHOUT_SCORE],
        *[(order, [normal, bernoulli(1)], "elbo", 2) for order in ORDERS],
        *[(order, [bernoulli(1), normal], "elbo", 2) for order in ORDERS],
    ],
)
def test_gradients_without_the_score(order: str, kinds: list[Callable[[], Family]], bound: str, n_samples: int) -> None:
    """Also of the decoder's weights in a ladder, where they are weights of q, and beside discrete layers."""
    model = stack(order, kinds, scale=0.5)
    objective, exact = WITHOUT_SCORE[bound]
    assert_equal_gradients(
        model, exact_bound(model, exact, n_samples, 240, 16.0), expected_surrogate(model, objective, n_samples, 120)
    )


@pytest.mark.parametrize("order", ORDERS)
def test_three_layers_stick_the_landing(order: str) -> None:
    """Against the derivative of the same quadrature of the ELBO in the noise; clamped values would need 240³ points."""
    model = stack(order, normals(3), scale=0.5)
    exact = -expected_surrogate(model, Elbo(), 1, 30)
    assert_equal_gradients(model, exact, expected_surrogate(model, StickingTheLanding(Elbo()), 1, 30))


@pytest.mark.parametrize("order", ORDERS)
def test_tempered_bounds_without_the_score(order: str) -> None:
    """Sticking the landing with a factor for each layer; doubly reparametrised with beta off 1 and the same for all."""

    def tempered(evidence: Evidence, *factors: float) -> Tensor:
        return -evidence.distortion - sum(
            w * evidence.rate(name) for w, name in zip(factors, evidence.latents, strict=True)
        )

    model = stack(order, normals(2), scale=0.5)
    stuck = StickingTheLanding(Elbo(Constant(0.3), {"z1": 0.5, "z2": 2.0}))
    exact = exact_bound(model, lambda e: tempered(e, 0.15, 0.6).mean(0), 1, 240, 16.0)
    assert_equal_gradients(model, exact, expected_surrogate(model, stuck, 1, 120))

    model = stack(order, normals(1), scale=0.5)
    for beta in (0.3, 1.8):
        doubly = DoublyReparametrised(Iwae(Constant(beta / 2), {"z1": 2.0}))
        exact = exact_bound(model, lambda e, beta=beta: tempered(e, beta).exp().mean(0).log(), 2, 240, 16.0)
        assert_equal_gradients(model, exact, expected_surrogate(model, doubly, 2, 120))


def parameters_detached(evidence: Evidence) -> Evidence:
    """What published code does instead of `stick`, known to be wrong: q's distributions are cut from their parents."""

    def cut(site: Site) -> Site:
        distribution = site.distribution
        if isinstance(distribution, MultivariateNormal):
            return Site(
                site.value,
                MultivariateNormal(distribution.loc.detach(), scale_tril=distribution.scale_tril.detach()),
                site.family,
            )
        assert isinstance(distribution, DiagonalNormal)
        return Site(
            site.value, DiagonalNormal(distribution.mean.detach(), distribution.log_variance.detach()), site.family
        )

    return replace(evidence, q={name: cut(site) for name, site in evidence.q.items()})


def doubly_by_detached_parameters(evidence: Evidence, step: int) -> Tensor:
    wrong = parameters_detached(evidence)
    path = score_as_path(tempered(parameters_detached(evidence.frozen), 1.0, {}))
    return Iwae()(wrong, step) + path.mean()


def sticking_iwae(evidence: Evidence, step: int) -> Tensor:
    return Iwae()(stick(evidence), step)


def differences_to_iwae(model: HVAE, losses: Sequence[Callable[[Evidence, int], Tensor]], n: int) -> list[float]:
    """How far the expected gradients of ``losses`` are from the pathwise one of IWAE with two samples, at most.

    By n nodes for each unit and sample. Samples are exchangeable, so of two points in noise either order is enough.
    """
    dimensions = len(model.latents)
    points = torch.cartesian_prod(*[axis(n, 7.5)] * dimensions).view(-1, dimensions)
    first, second = torch.triu_indices(len(points), len(points))
    log_weight = -(points[first].square().sum(-1) + points[second].square().sum(-1)) / 2
    log_weight = log_weight + (first != second) * math.log(2)
    near = log_weight > -40  # what is left out weighs less than 1e-17 each
    pairs = torch.stack([points[first], points[second]], 1)[near].unsqueeze(2)  # [pair, K, B, dimension]

    def one(pair: Tensor) -> Tensor:
        evidence = model(X, dict(zip(model.latents, pair.split(1, -1), strict=True)))
        pathwise = Iwae()(evidence, 0)
        return torch.stack([loss(evidence, 0) - pathwise for loss in losses])

    expected = log_weight[near].softmax(0) @ vmap(one)(pairs)
    gradients = [
        torch.autograd.grad(value, list(model.parameters()), retain_graph=True, materialize_grads=True)
        for value in expected
    ]
    return [max(part.abs().max().item() for part in gradient) for gradient in gradients]


@pytest.mark.parametrize("order", ORDERS)
def test_two_layers_and_two_samples_doubly_reparametrised(order: str) -> None:
    """Where detaching the distributions' parameters goes wrong, and sticking the landing alone.

    28 nodes a unit, where the weights of two samples are nearly linear in the noise: 20 nodes leave 1e-8.
    """
    losses = [DoublyReparametrised(Iwae()), doubly_by_detached_parameters, sticking_iwae]
    right, detached, stuck = differences_to_iwae(stack(order, normals(2), seed=3, scale=0.2), losses, 28)
    assert right < EXACT
    assert detached > 1e-3 and stuck > 1e-3


def with_batch_norm(model: HVAE) -> HVAE:
    """Batch norm in every hidden layer that sees draws; the batch is two samples of one datum."""
    for module in model.modules():
        if isinstance(module, Conditional) and module.parents not in ((), ("x",)):
            assert isinstance(module.net, nn.Sequential)
            module.net.insert(1, BatchNorm(3).double())
    return model.train()


def test_with_batch_norm_only_sticking_the_landing_is_unbiased() -> None:
    """A distribution whose parameters depend on a whole batch is a distribution: its score has mean 0. But a weight
    that feels all draws is not what double reparametrisation differentiates, and the configuration refuses the pair."""
    two = with_batch_norm(stack("bottom-up", normals(2), scale=0.2))

    def difference(evidence: Evidence, step: int) -> Tensor:  # to the pathwise gradient, as the others
        return StickingTheLanding(Elbo())(evidence, step) - Elbo()(evidence, step) + Iwae()(evidence, step)

    assert differences_to_iwae(two, [difference], 22)[0] < EXACT
    one = with_batch_norm(stack("bottom-up", normals(1), scale=0.2))
    assert differences_to_iwae(one, [DoublyReparametrised(Iwae())], 80)[0] > 0.1


def test_with_batch_norm_the_score_function_is_biased() -> None:
    """One Bernoulli unit moves the bound of every draw and datum of its batch, its own baseline included.

    All 16 batches of two Bernoulli units for two draws of two data (one unit); without batch norm the same sum is
    exact, and the configuration refuses the pair.
    """

    def difference(norm: bool, objective: Elbo | Iwae) -> float:
        source, bernoulli = torch.Generator().manual_seed(1), Bernoulli(1)

        def net(n_in: int, n_out: int) -> nn.Sequential:
            layers = (nn.Linear(n_in, 3), nn.Tanh(), nn.Linear(3, n_out))
            made = nn.Sequential(*layers).double()
            for weight in made.parameters():
                weight.data.normal_(generator=source)
            return made

        up, down = net(2, 1), net(1, 2)
        if norm:
            down.insert(1, BatchNorm(3).double())
        root = Root(torch.zeros(1).double(), learned=False)
        decoder = BeliefNetwork([Conditional("z1", [], root, bernoulli), Conditional("x", ["z1"], down, Bernoulli(2))])
        model = HVAE(decoder, NetworkPosterior(BeliefNetwork([Conditional("z1", ["x"], up, bernoulli)]))).train()
        x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
        weights = list(up.parameters())
        exact, expected = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
        for bernoulli in itertools.product((0.0, 1.0), repeat=4):
            evidence = model.weigh(model.infer(x, {}, {"z1": torch.tensor(bernoulli).double().view(2, 2, 1)}), x)
            probability, f = evidence.q["z1"].log_prob.sum().exp(), evidence.log_weight
            bound = f.mean() if isinstance(objective, Elbo) else (f.logsumexp(0) - math.log(2)).mean()
            mine = torch.autograd.grad(-probability * bound, weights, retain_graph=True)
            found = torch.autograd.grad(objective(evidence, 0), weights)
            for i in range(len(weights)):
                exact[i] += mine[i]
                expected[i] += probability.detach() * found[i]
        return max((a - b).abs().max().item() for a, b in zip(exact, expected, strict=True))

    for objective in (Elbo(), Iwae()):
        assert difference(False, objective) < EXACT
        assert difference(True, objective) > 1e-3


def exact_posterior(decoder: BeliefNetwork, kind: str) -> Posterior:
    """p(z | x) of a linear-Gaussian chain with every number learned, from its dense covariance.

    A ladder's u_l is p(x | z_l) as a Gaussian in z_l, whose mean is affine in that of u_{l-1}; one unit a layer.
    """
    where, mean_v, covariance = joint(decoder)
    latents = [name for name in reversed(decoder.variables) if name != "x"]

    def conditional(
        name: str, parents: list[str], distribution: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> Conditional:
        weight, bias, noise = (torch.from_numpy(np.atleast_1d(part)) for part in distribution)
        family = FullGaussian(len(bias), variance="learned", scale_tril=torch.linalg.cholesky(noise))
        net = nn.Linear(weight.shape[1], len(bias), dtype=torch.float64)
        net.weight.data, net.bias.data = weight.clone(), bias.clone()
        return Conditional(name, parents, net, family)

    def given(name: str, parents: list[str]) -> Conditional:
        a, b = where[name], [i for parent in parents for i in where[parent]]
        weight = np.linalg.solve(covariance[np.ix_(b, b)], covariance[np.ix_(b, a)]).T
        noise = covariance[np.ix_(a, a)] - weight @ covariance[np.ix_(b, a)]
        return conditional(name, parents, (weight, mean_v[a] - weight @ mean_v[b], noise))

    if kind == "bottom-up":
        return NetworkPosterior(BeliefNetwork([given(n, [p]) for n, p in zip(latents, ["x", *latents], strict=False)]))
    if kind == "top-down":
        above = [[*latents[layer + 1 : layer + 2], "x"] for layer in range(len(latents))]
        visits = list(zip(latents, above, strict=True))[::-1]
        return NetworkPosterior(BeliefNetwork([given(name, parents) for name, parents in visits]))

    conditionals, spread = [], matrices(decoder["x"])[2]  # of the parent's value around what z_l predicts
    for name, child in zip(latents, ["x", *latents], strict=False):
        down, shift, _ = matrices(decoder[child])
        precision = down.T @ np.linalg.solve(spread, down)
        up = np.linalg.solve(precision, down.T @ np.linalg.inv(spread))
        noise, bias = np.linalg.inv(precision), -up @ shift
        spread = noise + matrices(decoder[name])[2]
        if name == latents[-1]:  # the top has no merge: u_L is p(zL | x)
            _, prior, variance = matrices(decoder[name])
            merged = np.linalg.inv(precision + np.linalg.inv(variance))
            bias = merged @ (precision @ bias + np.linalg.solve(variance, prior))
            up, noise = merged @ precision @ up, merged
        conditionals.append(conditional(name, [child], (up, bias, noise)))
    return Ladder(BeliefNetwork(conditionals))


@pytest.mark.parametrize("kind", ["bottom-up", "top-down", "ladder"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_at_the_exact_posterior_every_single_draw_has_the_gradient_0(kind: str, depth: int) -> None:
    """Of q's weights; the decoder's follow ∇ log p(x, z), draw for draw, also where a ladder has them in q."""
    decoder = linear_decoder((4, 1, 1, 1)[: depth + 1] if kind == "ladder" else (4, 3, 2, 1)[: depth + 1])
    model = HVAE(decoder, exact_posterior(decoder, kind))
    x = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoder, rest = list(model.posterior.parameters()), list(model.decoder.parameters())
    losses: dict[str, Callable[[Evidence, int], Tensor]] = {
        "pathwise": Elbo(),
        "stuck": StickingTheLanding(Elbo()),
        "doubly": DoublyReparametrised(Iwae()),
        "detached": lambda evidence, step: Elbo()(parameters_detached(evidence), step),
    }
    largest = dict.fromkeys(losses, 0.0)
    for seed in range(5):
        noise = rng.noise(model.noise_specs(), 2, 1, seed=seed, purpose="test", dtype=torch.float64)
        evidence = model(x, noise)
        assert evidence.log_weight.std() < EXACT
        drawn = {name: site.value.detach() for name, site in evidence.q.items()}
        log_joint = sum(site.log_prob for site in decoder.walk({**drawn, "x": x}, {}).values())
        wanted = torch.autograd.grad(-log_joint.mean(), rest)
        for name, loss in losses.items():
            gradient = torch.autograd.grad(loss(evidence, 0), [*encoder, *rest], retain_graph=True)
            largest[name] = max(largest[name], *(part.abs().max().item() for part in gradient[: len(encoder)]))
            if name in ("stuck", "doubly"):
                for a, b in zip(gradient[len(encoder) :], wanted, strict=True):
                    torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    assert largest["stuck"] < 1e-9 and largest["doubly"] < 1e-9
    assert largest["pathwise"] > 0.1
    assert (largest["detached"] > 0.1) == (depth > 1)


@pytest.mark.parametrize("order", ORDERS)
def test_frozen_evidence_has_the_same_values_and_only_paths(order: str) -> None:
    model = stack(order, [normal, bernoulli(2), normal])
    noise = rng.noise(model.noise_specs(), 3, 1, seed=0, purpose="test", dtype=torch.float64)
    evidence = model(X, noise)
    for live, frozen in ((evidence.p, evidence.frozen.p), (evidence.q, evidence.frozen.q)):
        assert tuple(live) == tuple(frozen)
        for name, site in live.items():
            torch.testing.assert_close(site.log_prob, frozen[name].log_prob, atol=0, rtol=0)
            assert frozen[name].value is site.value
    draws = {name: site.value.detach().requires_grad_() for name, site in evidence.q.items()}
    clamped = model(X, {}, draws)
    both = [
        torch.autograd.grad(e.log_weight.sum(), list(draws.values()), retain_graph=True)
        for e in (clamped, clamped.frozen)
    ]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    constants = model(X, {}, {name: value.detach() for name, value in draws.items()}).frozen
    assert not constants.log_weight.requires_grad
    with pytest.raises(ValueError, match="calling an HVAE"):
        _ = model.weigh(evidence.q, X).frozen


def test_what_cannot_be_unbiased_is_refused() -> None:
    noise = {name: torch.full((2, 1, 1), 0.3).double() for name in ("z1", "z2")}
    for kinds, objective, words in (
        ([bernoulli(1), bernoulli(1)], StickingTheLanding(Elbo()), "the layers z1, z2 are all discrete"),
        ([normal, bernoulli(1)], DoublyReparametrised(Iwae()), "z2 is discrete"),
        (normals(2), DoublyReparametrised(Iwae(layer_beta={"z1": 2.0})), "give one factor for all layers"),
    ):
        with pytest.raises(ValueError, match=words):
            objective(stack("bottom-up", kinds)(X, noise), 0)
    with pytest.raises(ValueError, match=r"free_nats is \{'z1': 0.5\}"):
        StickingTheLanding(Elbo(free_nats={"z1": 0.5}))
    StickingTheLanding(Elbo(free_nats={"z1": 0.0}))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gradient", ["pathwise", "sticking-the-landing", "doubly-reparametrised"])
def test_a_step_of_training_follows_the_gradient_of_each_model_alone(order: Any, gradient: Any, tmp_path: Path) -> None:
    """After one step Adam's first moment is a tenth of the gradient (Kingma and Ba 2015). All in float64."""
    name: Any = "iwae" if gradient == "doubly-reparametrised" else "elbo"
    objective = ObjectiveConfig(name, 3, Constant(0.7), gradient=gradient)
    configuration = config(ModelConfig(latents=(3, 2), hidden=((6,), (4,)), order=order), objective, n_steps=1)
    torch.set_default_dtype(torch.float64)
    try:
        data = replace(toy(), train=toy().train.double(), test=toy().test.double())
        moments = state(
            trained(tmp_path, replace(configuration, training=replace(configuration.training, clip_norm=0.0)), data)
        )
        for replica, seed in enumerate(configuration.training.seeds):
            model = build_hvae(configuration.model, data, seed=seed).train()
            x = batch(data.train, configuration, 0, dynamic=False)[replica]
            noise = rng.noise(
                model.noise_specs(), objective.n_samples, len(x), seed=seed, purpose="train", dtype=torch.float64
            )
            evidence = model(x.unsqueeze(0), noise)
            loss = build_objective(objective, model.latents)(evidence, 0)
            plain = build_objective(replace(objective, gradient="pathwise"), model.latents)(evidence, 0)
            assert abs(loss.item() - plain.item()) < 1e-12
            found = [moments["optimiser"]["state"][i]["exp_avg"][replica] for i, _ in enumerate(model.parameters())]
            alone = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            for a, b in zip(found, alone, strict=True):
                torch.testing.assert_close(10 * a, b, atol=1e-12, rtol=1e-12)
            pathwise = torch.autograd.grad(plain, list(model.parameters()))
            far = max((a - b).abs().max().item() for a, b in zip(alone, pathwise, strict=True))
            assert (far > 1e-2) == (gradient != "pathwise")
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_tempered_bounds_have_the_same_exact_gradients(order: str) -> None:
    """beta and its layers enter the score's signal too."""
    model = stack(order, [bernoulli(2), bernoulli(1)])
    factors = {"z1": 0.3 * 0.5, "z2": 0.3 * 2.0}
    layer_beta = {"z1": 0.5, "z2": 2.0}

    def tempered(evidence: Evidence) -> Tensor:
        return -evidence.distortion - sum(w * evidence.rate(name) for name, w in factors.items())

    for objective, exact in (
        (Elbo(Constant(0.3), layer_beta), lambda e: tempered(e).mean(0)),
        (Iwae(Constant(0.3), layer_beta), lambda e: tempered(e).exp().mean(0).log()),
    ):
        assert_equal_gradients(model, exact_bound(model, exact, 2, 2, 1.0), expected_surrogate(model, objective, 2, 2))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kinds", DISCRETE)
def test_free_nats_have_exact_gradients_where_every_draw_finds_the_gates_alike(kinds: str, order: str) -> None:
    """A price that no pair of draws reaches, for the last layer and for the first one's units: a constant each."""
    model = stack(order, DISCRETE[kinds])
    first, last = model.latents[0], model.latents[-1]
    units = model.decoder[first].family.units
    objective = Elbo(free_nats={last: 50.0} if last != first else {}, unit_free_nats={first: 40.0})
    paid = 40.0 * units + (50.0 if last != first else 0.0)

    def exact(evidence: Evidence) -> Tensor:
        rest = [evidence.rate(name) for name in evidence.latents if name not in (first, last)]
        return (-evidence.distortion - sum(rest, start=torch.zeros(()).double())).mean(0) - paid

    bound = exact_bound(model, exact, 2, 2, 1.0)
    surrogate = expected_surrogate(model, objective, 2, 2)
    assert abs(bound.item() + surrogate.item()) < EXACT
    weights = list(model.parameters())
    wanted = torch.autograd.grad(bound, weights, materialize_grads=True)
    found = torch.autograd.grad(surrogate, weights, materialize_grads=True)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(-b, a, atol=EXACT, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_pathwise_gradients_of_a_linear_gaussian_stack_equal_its_closed_form(depth: int) -> None:
    """The ELBO of affine Gaussians by means and covariances. Quadratic in the noise, its sampled twin is exact on any
    points with mean 0 and covariance I, as are ±sqrt(n) along each of n axes."""
    widths = (4, 3, 2, 1)[: depth + 1]
    model = HVAE(linear_decoder(widths), NetworkPosterior(linear_encoder(widths)))
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total = sum(widths[1:])
    signs = math.sqrt(total) * torch.cat([torch.eye(total), -torch.eye(total)]).double()
    noise = dict(zip(model.latents, signs.unsqueeze(1).expand(-1, 5, -1).split(widths[1:], -1), strict=True))
    surrogate = Elbo()(model(x, noise), 0)

    q, p = model.posterior.network, model.decoder
    entropy = torch.zeros(()).double()
    mean_v, covariance, where = x[0], torch.zeros(4, 4).double(), {"x": slice(0, 4)}
    for name in q.variables:  # grow the joint of (x, z1, …) for fixed x
        weight, bias, log_variance = q[name].net.weight, q[name].net.bias, q[name].family.log_variance
        parent = where[q[name].parents[0]]
        cross = weight @ covariance[parent]
        corner = cross[:, parent] @ weight.T + torch.diag(log_variance.exp())
        covariance = torch.cat([torch.cat([covariance, cross.T], 1), torch.cat([cross, corner], 1)])
        where[name] = slice(mean_v.shape[1], mean_v.shape[1] + len(bias))
        mean_v = torch.cat([mean_v, mean_v[:, parent] @ weight.T + bias], 1)
        entropy = entropy + (log_variance + math.log(2 * math.pi) + 1).sum() / 2
    energy = torch.zeros(()).double()
    everything = torch.eye(mean_v.shape[1]).double()
    for name in p.variables:
        conditional, bias = p[name], p[name].net.outputs if name == model.latents[-1] else p[name].net.bias
        rows = everything[where[name]]  # rows @ v - bias is the residual of this conditional
        if conditional.parents:
            rows = rows - conditional.net.weight @ everything[where[conditional.parents[0]]]
        centre = mean_v @ rows.T - bias
        second = centre.unsqueeze(-1) * centre.unsqueeze(-2) + rows @ covariance @ rows.T
        if isinstance(conditional.family, DiagonalGaussian):
            noise_covariance = torch.diag(conditional.family.log_variance.exp())
        else:
            noise_covariance = torch.from_numpy(matrices(conditional)[2])
        quadratic = (torch.linalg.inv(noise_covariance) * second).sum((-1, -2)).mean()
        energy = energy + (quadratic + torch.logdet(2 * math.pi * noise_covariance)) / 2
    assert_equal_gradients(model, entropy - energy, surrogate, 1e-9)


def test_iwae_of_one_sample_is_the_elbo() -> None:
    model = stack("bottom-up", [normal, normal])
    noise = {name: torch.randn(1, 1, 1, generator=torch.Generator().manual_seed(3)).double() for name in model.latents}
    losses = [objective(model(X, noise), 0) for objective in (Elbo(), Iwae())]
    assert abs(losses[0].item() - losses[1].item()) < 1e-12
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def rational(order: str, depth: int) -> HVAE:
    """One Bernoulli unit a layer, whose conditionals in q are 1/4 or 3/4 at X: 4^depth draws hold each state as often
    as q says.

    Linear nets. In the ladder logit ± log 3 comes from the decoder, and u of the inner layers is a fair Bernoulli unit
    at X.
    """
    model = stack(order, [bernoulli(1)] * depth)
    up = model.posterior.upward if isinstance(model.posterior, Ladder) else model.posterior.network
    log3, source, mean = math.log(3), torch.Generator().manual_seed(5), X[0, 0]

    def through(at: Tensor, logit: float, weight: Tensor) -> nn.Linear:
        made = nn.Linear(len(at), 1).double()
        made.weight.data, made.bias.data = weight, logit - weight @ at
        return made

    def anyhow(at: Tensor, logit: float) -> nn.Linear:
        return through(at, logit, torch.randn(1, len(at), generator=source).double())

    steep = through(torch.tensor([0.5]).double(), 0.0, torch.tensor([[2 * log3]], dtype=torch.float64))
    for layer, name in enumerate(model.latents):
        top = layer == depth - 1
        if order == "bottom-up":
            up[name].net = copy.deepcopy(steep) if layer else anyhow(mean, log3)
            continue
        up[name].net = anyhow(mean, log3 if top else 0.0)
        mean = torch.tensor([0.5]).double()
        if not top:
            model.decoder[name].net = copy.deepcopy(steep)
    return model


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_covariance_gradient_of_a_whole_population_is_exact(order: str, depth: int) -> None:
    """Where a sample holds every state as often as q says, its means are expectations: then the estimate is the
    gradient of the integral's exact Riemann sum Σ_d (b_{d+1} - b_d) E_π f, π ∝ q^{1-b} p^b, over all states."""
    model = rational(order, depth)
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=depth))).double()
    log_q = sum(site.log_prob[:, 0] for site in model.infer(X, {}, split(model, every)).values())
    counts = (4**depth * log_q.exp()).detach()
    torch.testing.assert_close(counts, counts.round(), atol=EXACT, rtol=0)
    population = torch.repeat_interleave(every, counts.round().long(), dim=0)
    assert len(population) == 4**depth
    found = model(X, {}, split(model, every))
    f = -found.distortion[:, 0] - sum(found.rate(name)[:, 0] for name in model.latents)
    at = [((log_q + b * f).softmax(0) * f).sum() for b in PARTITION]
    exact = 0.2 * at[0] + 0.5 * at[1] + 0.3 * at[2]
    surrogate = Covariance(Tvo(PARTITION))(model(X, {}, split(model, population)), 0)
    assert_equal_gradients(model, exact, surrogate)


def split(model: HVAE, values: Tensor) -> dict[str, Tensor]:
    """Draws [K, 1, 1] of layers of one unit, from [K, L]."""
    return {name: values[:, layer].view(-1, 1, 1) for layer, name in enumerate(model.latents)}


@pytest.mark.parametrize("order", ORDERS)
def test_the_covariance_gradient_follows_no_path(order: str) -> None:
    """Draw for draw, from each sample's own gradients at its value, where layers are Gaussian."""
    model = stack(order, [normal, bernoulli(1), normal])
    noise = rng.noise(model.noise_specs(), 3, 1, seed=0, purpose="test", dtype=torch.float64)
    weights = list(model.parameters())
    objective = Covariance(Tvo(PARTITION, Constant(0.6), {"z2": 0.5}))
    loss, evidence = objective.on(model, X, noise, 0)
    plain = Tvo(PARTITION, Constant(0.6), {"z2": 0.5})(model(X, noise), 0)
    assert abs(loss.item() - plain.item()) < 1e-12
    fs, gradients_f, gradients_q = [], [], []
    for k in range(3):
        given = {name: site.value[k : k + 1].detach() for name, site in model(X, noise).q.items()}
        alone = model(X, {}, given)
        f = -alone.distortion - 0.6 * (alone.rate("z1") + 0.5 * alone.rate("z2") + alone.rate("z3"))
        log_q = sum(site.log_prob for site in alone.q.values())
        fs.append(f.item())
        for value, into in ((f, gradients_f), (log_q, gradients_q)):
            parts = torch.autograd.grad(value.sum(), weights, retain_graph=True, materialize_grads=True)
            into.append(torch.cat([part.flatten() for part in parts]).numpy())
    expected = np.zeros_like(gradients_f[0])
    for b, width in zip(PARTITION, (0.2, 0.5, 0.3), strict=True):
        share = np.exp(b * np.array(fs)) / np.exp(b * np.array(fs)).sum()
        centre = share @ fs
        for k in range(3):
            score = gradients_q[k] + b * gradients_f[k]
            expected += width * share[k] * (gradients_f[k] + (fs[k] - centre) * score)
    found = torch.autograd.grad(loss, weights, materialize_grads=True)
    torch.testing.assert_close(torch.cat([part.flatten() for part in found]), -torch.from_numpy(expected))
    for name, site in evidence.q.items():
        assert not site.value.requires_grad
        torch.testing.assert_close(site.value, model(X, noise).q[name].value, atol=0, rtol=0)
    assert clamped(model, X, noise).q["z1"].log_prob.requires_grad


def test_the_thermodynamic_bound_lies_between_mean_and_log_mean() -> None:
    """Of the same samples; each finer partition lies higher, and the finest misses log_mean by a cell at most."""
    f = 4 * torch.randn(5, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(thermodynamic((0.0,))(f), mean(f), atol=1e-12, rtol=0)
    ladder = [thermodynamic(tuple(i / n for i in range(n)))(f) for n in (1, 2, 4, 8, 1000)]
    for lower, upper in itertools.pairwise([*ladder, log_mean(f)]):
        assert (lower < upper).all()
    last = f.softmax(0).mul(f).sum(0)
    assert (log_mean(f) - ladder[-1] < (last - mean(f)) / 1000).all()


def test_fill_in_equals_a_loop() -> None:
    f = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = f.exp().numpy()
    for k in range(5):
        others = np.delete(weights, k, 0)
        geometric = np.prod(others, 0) ** (1 / 4)
        np.testing.assert_allclose(fill_in(f, log_mean)[k], np.log((others.sum(0) + geometric) / 5), atol=1e-12)
        arithmetic = np.log((others.sum(0) + others.mean(0)) / 5)  # VIMCO's other baseline
        np.testing.assert_allclose(leave_one_out(f, log_mean)[k], arithmetic, atol=1e-12)
    torch.testing.assert_close(fill_in(f, mean), leave_one_out(f, mean), atol=1e-12, rtol=0)
    torch.testing.assert_close(fill_in(f[:2], log_mean), f[[1, 0]], atol=1e-12, rtol=0)


def test_leave_one_out_equals_a_loop() -> None:
    f = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for aggregate in (mean, log_mean):
        expected = torch.stack([aggregate(torch.cat([f[:k], f[k + 1 :]])) for k in range(5)])
        torch.testing.assert_close(leave_one_out(f, aggregate), expected, atol=1e-12, rtol=0)


def test_the_estimate_is_the_bound_and_one_discrete_sample_is_refused() -> None:
    f = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_q = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    for aggregate, expected in ((mean, f.mean(0)), (log_mean, f.exp().mean(0).log())):
        for score in (None, log_q):
            torch.testing.assert_close(estimate(f, aggregate, score), expected, atol=1e-12, rtol=0)
        (signal,) = torch.autograd.grad(estimate(f, aggregate, log_q).sum(), log_q)
        for k in range(4):
            without = aggregate(torch.cat([f[:k], f[k + 1 :]]))
            torch.testing.assert_close(signal[k], expected - without, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="at least 2 samples; got 1"):
        estimate(f[:1], mean, log_q[:1])


def test_a_constant_added_to_every_log_weight_leaves_each_gradient_alone() -> None:
    """It moves the bound; the baseline takes it out of the signal of every single draw, not only on average."""
    model = stack("bottom-up", [bernoulli(2), bernoulli(1)])
    noise = {
        name: torch.rand(3, 1, model.decoder[name].family.width, generator=torch.Generator().manual_seed(i)).double()
        for i, name in enumerate(model.latents)
    }
    evidence = model(X, noise)
    f, log_q = evidence.log_weight, discrete_log_q(evidence)
    assert log_q is not None
    for aggregate in (mean, log_mean):
        both = [
            torch.autograd.grad(estimate(f + c, aggregate, log_q).sum(), list(model.parameters()), retain_graph=True)
            for c in (0.0, 100.0)
        ]
        for a, b in zip(*both, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
