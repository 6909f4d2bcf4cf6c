"""Gradients through the draws of discrete layers: which distribution the values have, what is climbed, and how far off
it is.

Of one Bernoulli unit (or a die of two states) the noise is one logistic number s, and v = sigmoid(y) with y = (logit -
s) / T. On one side the library's loss is followed along the noise, at nodes in s; on the other y is the variable, and
the parameters stand in its density T sigmoid'(logit - T y), which no path goes through.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from hvae.evidence import HVAE
from hvae.families import Bernoulli, Categorical, Discrete, Family, Relaxation
from hvae.lab.assembly import relax
from hvae.lab.config import ObjectiveConfig
from hvae.objectives import Elbo, Iwae, discrete_log_q
from tests.statistics import assert_mean
from tests.test_gradients import EXACT, ORDERS, X, bernoulli, die, exact_bound, normal, stack
from tests.test_gradients import elbo as plain_elbo

Gradients = list[Tensor]


def relaxed(model: HVAE, temperature: float, gradient: Any = "relaxed") -> HVAE:
    return relax(model, ObjectiveConfig(gradient=gradient, temperature=temperature)).train()


def grid(n: int, reach: float) -> tuple[Tensor, float]:
    return torch.linspace(-reach, reach, n, dtype=torch.float64), 2 * reach / (n - 1)


def halves(middle: float, n: int = 400, reach: float = 60.0) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on both sides of ``middle``, where a hard draw jumps."""
    x, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(n))
    nodes = torch.cat([middle - reach * (1 - x) / 2, middle + reach * (1 + x) / 2])
    return nodes, torch.cat([w, w]) * reach / 2


def logistic(s: Tensor) -> Tensor:
    return s.sigmoid() * (-s).sigmoid()


def gradients(model: HVAE, value: Tensor) -> Gradients:
    return list(torch.autograd.grad(value, list(model.parameters()), materialize_grads=True, retain_graph=True))


def along_noise(model: HVAE, noise: Tensor, weight: Tensor) -> Gradients:
    """Of the library's loss with noise ``[n, width]`` for one draw of z1, and its sign turned."""
    loss = vmap(lambda u: Elbo()(model(X, {"z1": u.view(1, 1, -1)}), 0))(noise)
    return gradients(model, -(weight * loss).sum())


def terms(model: HVAE, v: Tensor) -> tuple[Tensor, Tensor]:
    """f(v) by hand, with the logit of q: one Bernoulli unit, or the first of two states, at values ``[n]`` between 0
    and 1."""
    q, p = model.posterior.network["z1"].net(X)[0, 0], model.decoder["z1"].net()
    if len(q) == 2:  # a die: one-hot values, logits by their difference
        q, p, value = q[:1] - q[1:], p[:1] - p[1:], torch.stack([v, 1 - v], -1)
    else:
        value = v.unsqueeze(-1)
    pixel = model.decoder["x"].net(value)
    log_px = (X[0] * F.logsigmoid(pixel) + (1 - X[0]) * F.logsigmoid(-pixel)).sum(-1)
    f = log_px + v * F.logsigmoid(p) + (1 - v) * F.logsigmoid(-p) - v * F.logsigmoid(q) - (1 - v) * F.logsigmoid(-q)
    return f, q


def in_density(model: HVAE, temperature: float) -> Gradients:
    y, h = grid(6001, 45 / temperature)
    f, logit = terms(model, y.sigmoid())
    return gradients(model, (h * temperature * logistic(logit - temperature * y) * f).sum())


def furthest(a: Gradients, b: Gradients) -> float:
    return max((one - other).abs().max().item() for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_the_relaxed_gradient_of_a_bernoulli_climbs_the_surrogate(temperature: float) -> None:
    model = relaxed(stack("bottom-up", [bernoulli(1)]), temperature)
    s, h = grid(4001, 40.0)
    assert (
        furthest(along_noise(model, s.sigmoid().unsqueeze(-1), h * logistic(s)), in_density(model, temperature)) < EXACT
    )


def test_the_relaxed_gradient_of_a_die_climbs_the_surrogate() -> None:
    """Of two states: the difference of two Gumbel numbers is logistic."""
    model = relaxed(stack("bottom-up", [die(2)]), 0.6)
    g = torch.linspace(-4.0, 34.0, 500, dtype=torch.float64)
    weight = (38 / 499) * (-g - (-g).exp()).exp()
    noise = torch.cartesian_prod(*[(-(-g).exp()).exp()] * 2)
    found = along_noise(model, noise, torch.cartesian_prod(weight, weight).prod(-1))
    assert furthest(found, in_density(model, 0.6)) < EXACT


def exact(model: HVAE) -> Gradients:
    return gradients(model, exact_bound(model, plain_elbo, 1, 2, 1.0))


def rise(model: HVAE) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logit of q; f(0) and f(1) ``[2]``, their slopes in v ``[2]``, and the exact slope of the ELBO in the logit."""
    states = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    f, logit = terms(model, states)
    (slopes,) = torch.autograd.grad(f.sum(), states, retain_graph=True)
    return logit[0], f, slopes, (logistic(logit) * (f[1] - f[0])).detach()[0]


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_straight_through_gradient_of_a_bernoulli(temperature: float) -> None:
    """The slope of f at the hard value times the relaxed one's slope; all else is the discrete model's."""
    model = relaxed(stack("bottom-up", [bernoulli(1)]), temperature, "straight-through")
    logit, f, slopes, _ = rise(model)
    s, weight = halves(logit.item())
    y, h = halves(0.0)
    path = (h * logistic(y) * logistic(logit - temperature * y) * slopes[(y > 0).long()]).sum().detach()
    states = torch.stack([(-logit).sigmoid(), logit.sigmoid()]).detach()
    wanted = gradients(model, path * logit + (states * f).sum())
    assert furthest(along_noise(model, s.sigmoid().unsqueeze(-1), weight * logistic(s)), wanted) < EXACT


def test_the_bias_of_relaxed_draws_falls_with_the_temperature() -> None:
    """To zero, in the end at least as fast; at temperature 1 it is far above what quadrature leaves."""
    model = stack("bottom-up", [bernoulli(1)], scale=1.5)
    exact = gradients(model, exact_bound(model, plain_elbo, 1, 2, 1.0))
    s, h = grid(20_001, 40.0)
    noise, weight = s.sigmoid().unsqueeze(-1), h * logistic(s)
    bias = [furthest(along_noise(relaxed(model, 0.5**i), noise, weight), exact) for i in range(7)]
    assert bias[0] > 0.05
    assert all(cold < hot for hot, cold in itertools.pairwise(bias))
    assert bias[-1] < bias[-2] / 2


def test_straight_through_tends_to_the_mean_of_the_slopes_at_the_states_and_not_to_the_rise() -> None:
    """What is left to the limit falls with the temperature at least as fast, and is far below that difference."""
    model = stack("bottom-up", [bernoulli(1)], scale=1.5)
    logit, _, slopes, exact = rise(model)
    limit = (logistic(logit) * slopes.mean()).item()
    s, weight = halves(logit.item())
    names = [name for name, _ in model.named_parameters()]
    errors = []
    for temperature in (0.04, 0.02, 0.01):
        relaxed(model, temperature, "straight-through")
        found = along_noise(model, s.sigmoid().unsqueeze(-1), weight * logistic(s))
        errors.append(found[names.index("posterior.network.conditionals.z1.net.2.bias")].item() - limit)
    assert abs(exact.item() - limit) > 10 * abs(errors[-1])
    for hot, cold in itertools.pairwise(errors):
        assert 0 < cold < hot / 2


FAMILIES: dict[str, Callable[[], Family]] = {"coins": bernoulli(3), "dice": lambda: Categorical(2, 3)}


@pytest.mark.parametrize("kind", FAMILIES)
def test_straight_through_values_have_the_discrete_distribution_and_relaxed_ones_lie_between(kind: str) -> None:
    family = FAMILIES[kind]()
    assert isinstance(family, Discrete) and isinstance(family, Bernoulli | Categorical)
    source = torch.Generator().manual_seed(0)
    outputs = torch.randn(family.n_outputs, generator=source, dtype=torch.float64)
    noise = torch.rand(40_000, family.width, generator=source, dtype=torch.float64)
    distribution = family.distribution(outputs)
    hard = family.draw(distribution, noise)
    family.relaxation = Relaxation(0.4, straight_through=True)
    assert torch.equal(family.draw(distribution, noise), hard)
    if isinstance(family, Bernoulli):
        expected = 1 / (1 + (-outputs).exp())
    else:
        expected = (outputs.view(2, 3).exp() / outputs.view(2, 3).exp().sum(1, keepdim=True)).flatten()
    assert_mean(hard.numpy(), expected.numpy(), detect=0.05)
    family.relaxation = Relaxation(0.4)
    soft = family.draw(distribution, noise)
    assert (soft > 0).all() and (soft < 1).all() and torch.equal((soft > 0.5) & (hard == 0), soft > 2)
    family.relaxation = Relaxation(1e-3)
    assert (family.draw(distribution, noise) - hard).abs().mean() < 1e-2
    assert not family.eval().reparametrised and torch.equal(family.draw(distribution, noise), hard)


@pytest.mark.parametrize("order", ORDERS)
def test_at_any_depth_the_relaxed_gradient_is_the_slope_of_the_loss_of_its_noise(order: str) -> None:
    """By central differences of 1e-5, whose error is some 1e-10 of third derivatives around 1; no score is added."""
    model = relaxed(stack(order, [bernoulli(2), die(3), normal]), 0.7)
    source = torch.Generator().manual_seed(1)
    noise = {
        name: (torch.rand if kind == "uniform" else torch.randn)(2, 1, width, generator=source, dtype=torch.float64)
        for name, (kind, width) in model.noise_specs().items()
    }
    weights = list(model.parameters())
    along = [torch.randn(w.shape, generator=source, dtype=torch.float64) for w in weights]
    for objective in (Elbo(), Iwae()):
        evidence = model(X, noise)
        assert discrete_log_q(evidence) is None
        slope = sum((g * a).sum() for g, a in zip(gradients(model, objective(evidence, 0)), along, strict=True))
        ends = []
        with torch.no_grad():
            for step in (1e-5, -2e-5, 1e-5):
                for w, a in zip(weights, along, strict=True):
                    w += step * a
                ends.append(objective(model(X, noise), 0).item())
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(slope), rel=1e-7)


def test_evaluation_and_the_decoder_draw_hard() -> None:
    model = relaxed(stack("bottom-up", [bernoulli(2), die(3)]), 0.5)
    noise = {name: torch.full((1, 1, width), 0.3).double() for name, (_, width) in model.noise_specs().items()}
    specs = model.decoder.noise_specs()
    dream = model.decoder.walk(
        {}, {name: torch.full((1, 1, width), 0.3).double() for name, (_, width) in specs.items()}
    )
    for trace in (model.eval()(X, noise).q, dream):
        for site in trace.values():
            assert ((site.value == 0) | (site.value == 1)).all()
    assert all(((site.value > 0) & (site.value < 1)).all() for site in model.train()(X, noise).q.values())
    with pytest.raises(ValueError, match="temperature is 0"):
        Relaxation(0.0)
