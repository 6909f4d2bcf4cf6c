"""The expected gradient of every objective equals the gradient of the exact bound, to rounding.

Exact on one side: all values are clamped on a grid (states of coins and dice, equally spaced points of a
Gaussian unit), weighed by q, and the weighted bound is differentiated as it stands. Surrogate on the other:
Gaussian units are drawn from a grid of *noise*, discrete ones are clamped to every state, and what is averaged
are the gradients that training would follow. The two share no route from parameters to bound.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from hvae.evidence import HVAE, Evidence
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family
from hvae.gradients import estimate, leave_one_out, log_mean, mean
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives import Elbo, Iwae, Objective, discrete_log_q
from hvae.posterior import Ladder, NetworkPosterior
from hvae.schedules import Constant
from tests.reference.stacks import decoder as linear_decoder
from tests.reference.stacks import encoder as linear_encoder
from tests.reference.stacks import parameters as matrices

EXACT = 1e-10
X = torch.tensor([1.0, 0, 1], dtype=torch.float64).view(1, 1, 3)
ORDERS = {"bottom-up": NetworkPosterior, "top-down": Ladder}
Points = list[tuple[Tensor, float]]


def coins(units: int) -> Callable[[], Family]:
    return lambda: Bernoulli(units)


def die(n_classes: int) -> Callable[[], Family]:
    return lambda: Categorical(1, n_classes)


def normal() -> Family:
    return DiagonalGaussian(1)


def stack(order: str, kinds: Sequence[Callable[[], Family]], *, seed: int = 0, scale: float = 0.8) -> HVAE:
    """Tanh nets over latents z1, z2, … of the given kinds, below them three coins."""
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


def expected_surrogate(model: HVAE, objective: Objective, n_samples: int, n: int) -> Tensor:
    """What training would follow, averaged over all noise of Gaussian units and all states of discrete ones."""
    families = {name: model.decoder[name].family for name in model.latents}
    gaussians = [name for name in model.latents if families[name].noise == "normal"]
    grid = axis(n, 8.5).unsqueeze(-1)
    choices = {name: grid if name in gaussians else states(families[name]) for name in model.latents}
    points = product_over_samples(choices, n_samples)

    def one(point: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        noise = {name: point[name] for name in gaussians}
        clamped = {name: point[name] for name in model.latents if name not in gaussians}
        evidence = model.weigh(model.infer(X, noise, clamped), X)
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


BOUNDS: dict[str, tuple[Objective, Callable[[Evidence], Tensor]]] = {"elbo": (Elbo(), elbo), "iwae": (Iwae(), iwae)}
DISCRETE = {
    "coins": [coins(2)],
    "die": [die(3)],
    "coins-coin": [coins(2), coins(1)],
    "die-die": [die(3), die(2)],
    "coin-die-coin": [coins(1), die(2), coins(1)],
    "coins-coin-coin": [coins(2), coins(1), coins(1)],
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


@pytest.mark.parametrize("bound", BOUNDS)
def test_three_samples(bound: str) -> None:
    model = stack("bottom-up", [die(3), coins(1)])
    objective, exact = BOUNDS[bound]
    assert_equal_gradients(model, exact_bound(model, exact, 3, 2, 1.0), expected_surrogate(model, objective, 3, 2))


@pytest.mark.parametrize(
    ("order", "kinds", "bound", "n_samples"),
    [
        ("bottom-up", [normal], "elbo", 1),
        ("bottom-up", [normal], "elbo", 2),
        ("bottom-up", [normal], "iwae", 2),
        ("bottom-up", [normal, normal], "elbo", 1),
        ("top-down", [normal, normal], "elbo", 1),
        ("bottom-up", [normal, coins(1)], "elbo", 2),
        ("bottom-up", [coins(1), normal], "elbo", 2),
        ("bottom-up", [normal, coins(1)], "iwae", 2),
        ("top-down", [normal, coins(1)], "iwae", 2),
        ("bottom-up", [coins(1), normal], "iwae", 2),
        ("top-down", [coins(1), normal], "iwae", 2),
    ],
)
def test_gaussian_and_mixed_stacks(order: str, kinds: list[Callable[[], Family]], bound: str, n_samples: int) -> None:
    model = stack(order, kinds, scale=0.5)
    objective, exact = BOUNDS[bound]
    assert_equal_gradients(
        model, exact_bound(model, exact, n_samples, 240, 16.0), expected_surrogate(model, objective, n_samples, 120)
    )


@pytest.mark.parametrize("order", ORDERS)
def test_tempered_bounds_have_the_same_exact_gradients(order: str) -> None:
    """beta and its layers enter the score's signal too."""
    model = stack(order, [coins(2), coins(1)])
    factors = {"z1": 0.3 * 0.5, "z2": 0.3 * 2.0}
    layer_beta = {"z1": 0.5, "z2": 2.0}

    def tempered(evidence: Evidence) -> Tensor:
        return -evidence.distortion - sum(w * evidence.rate(name) for name, w in factors.items())

    for objective, exact in (
        (Elbo(Constant(0.3), layer_beta), lambda e: tempered(e).mean(0)),
        (Iwae(Constant(0.3), layer_beta), lambda e: tempered(e).exp().mean(0).log()),
    ):
        assert_equal_gradients(model, exact_bound(model, exact, 2, 2, 1.0), expected_surrogate(model, objective, 2, 2))


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
    model = stack("bottom-up", [coins(2), coins(1)])
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
