"""Exact answers at extreme scales: right to 1e-8 of (1 + nats), or refused. The twin computes with 120 digits."""

import itertools
import math
from collections.abc import Sequence

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.exact import DiscreteChain, LinearGaussian, NoReferenceError
from hvae.families import Bernoulli, DiagonalGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior

SHARE = 1e-8
DIGITS = 120
Layers = Sequence[tuple[Tensor, Tensor, Tensor]]
"""weight, bias and log-variance of every layer from the top down; the top has no weight"""


def layers(widths: Sequence[int], weight: float, bias: float, deviation: float, seed: int) -> Layers:
    """Random layers of widths (x, z1, …), from the top down, every number one that float32 holds."""
    source = torch.Generator().manual_seed(seed)
    found, n_in = [], 0
    for n_out in reversed(widths):
        w = weight * torch.randn(n_out, n_in, generator=source) / max(n_in, 1) ** 0.5
        b = bias * torch.randn(n_out, generator=source)
        found.append((w, b, 2 * math.log(deviation) + torch.randn(n_out, generator=source) / 4))
        n_in = n_out
    return found


def decoder(made: Layers, dtype: torch.dtype) -> BeliefNetwork:
    names = ["x", *(f"z{layer}" for layer in range(1, len(made)))][::-1]
    conditionals = []
    for place, (name, (weight, bias, log_variance)) in enumerate(zip(names, made, strict=True)):
        family = DiagonalGaussian(len(bias), variance="fixed").to(dtype)
        assert family.log_variance is not None
        family.log_variance.copy_(log_variance)
        net: nn.Module = Root(bias.to(dtype), learned=False)
        if place:
            net = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
            net.load_state_dict({"weight": weight.to(dtype), "bias": bias.to(dtype)})
        conditionals.append(Conditional(name, names[max(place - 1, 0) : place], net, family))
    return BeliefNetwork(conditionals)


def truth(made: Layers, x: Tensor) -> list[float]:
    """log p(x) `[B]`: mean and covariance pushed down layer by layer, with `DIGITS` digits."""
    with mpmath.workdps(DIGITS):
        mean, covariance = mpmath.matrix(1, 1), mpmath.zeros(1)
        for weight, bias, log_variance in made:
            own = mpmath.diag([mpmath.exp(mpmath.mpf(value)) for value in log_variance.tolist()])
            w = mpmath.matrix(weight.tolist() if weight.shape[1] else [[0]] * len(bias))  # the top sees a 0
            mean, covariance = w * mean + mpmath.matrix(bias.tolist()), w * covariance * w.T + own
        tril = mpmath.cholesky(covariance)
        log_det = 2 * sum(mpmath.log(tril[i, i]) for i in range(len(mean)))
        found = []
        for row in x.double().tolist():
            rest = mpmath.lu_solve(tril, mpmath.matrix(row) - mean)
            squares = sum(value**2 for value in rest)
            found.append(-(squares + log_det + len(mean) * mpmath.log(2 * mpmath.pi)) / 2)
        return [float(value) for value in found]


def blocks(made: Layers) -> tuple[list[range], mpmath.matrix, mpmath.matrix]:
    """Places of z_L … z1, x in the joint distribution of all variables, its mean and its covariance."""
    ends = np.cumsum([0, *(len(bias) for _, bias, _ in made)]).tolist()
    places, n = [range(*pair) for pair in itertools.pairwise(ends)], ends[-1]
    mean, covariance = mpmath.matrix(n, 1), mpmath.matrix(n, n)
    for above, here, (weight, bias, log_variance) in zip([range(0), *places], places, made, strict=False):
        w = weight.double().tolist()
        for i, row in enumerate(here):
            mean[row] = mpmath.mpf(float(bias[i])) + sum(w[i][k] * mean[c] for k, c in enumerate(above))
            for other in range(here.start):
                covariance[row, other] = sum(w[i][k] * covariance[c, other] for k, c in enumerate(above))
                covariance[other, row] = covariance[row, other]
        for i, row in enumerate(here):
            for j, column in enumerate(here):
                covariance[row, column] = sum(w[j][k] * covariance[row, c] for k, c in enumerate(above))
                covariance[row, column] += mpmath.exp(mpmath.mpf(float(log_variance[i]))) if i == j else 0
    return places, mean, covariance


def discrete_truth(made: Layers, x: Tensor) -> list[float]:
    """log p(x) `[B]` of a stack of Bernoulli units whose logits are linear in the units above: the sum of all paths."""
    with mpmath.workdps(DIGITS):
        above: dict[tuple[int, ...], mpmath.mpf] = {(): mpmath.mpf(1)}
        for weight, bias, _ in made:
            found = {state: mpmath.mpf(0) for state in itertools.product((0, 1), repeat=len(bias))}
            for parent, chance in above.items():
                logits = [
                    mpmath.mpf(b) + mpmath.fdot(row, parent)
                    for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
                ]
                on = [[1 / (1 + mpmath.exp(logit)), 1 / (1 + mpmath.exp(-logit))] for logit in logits]
                for state in found:
                    found[state] += chance * mpmath.fprod(each[v] for each, v in zip(on, state, strict=True))
            above = found
        return [float(mpmath.log(above[tuple(map(int, row))])) for row in x.tolist()]


def part(covariance: mpmath.matrix, rows: Sequence[int], columns: Sequence[int]) -> mpmath.matrix:
    return mpmath.matrix([[covariance[r, c] for c in columns] for r in rows])


def information(made: Layers, a: int, b: int) -> float:
    """I of the variables numbered a and b from the top down."""
    with mpmath.workdps(DIGITS):
        places, _, covariance = blocks(made)
        rows, columns = list(places[a]), list(places[b])
        sides = mpmath.det(part(covariance, rows, rows)) * mpmath.det(part(covariance, columns, columns))
        return float(mpmath.log(sides / mpmath.det(part(covariance, rows + columns, rows + columns))) / 2)


def layer_gaps(made: Layers, upward: Layers, x: Tensor) -> dict[str, list[float]]:
    """`E_q KL(q(z_l | z_{l-1}) ‖ p(z_l | z_{l-1}))` `[B]`, with q's layers from z1 up."""
    found: dict[str, list[float]] = {}
    with mpmath.workdps(DIGITS):
        places, mean, covariance = blocks(made)
        below = [mpmath.matrix(row) for row in x.double().tolist()]
        spread = mpmath.zeros(x.shape[1])
        for layer, (weight, bias, log_variance) in enumerate(upward, start=1):
            rows, columns = list(places[-layer - 1]), list(places[-layer])
            inverse = part(covariance, columns, columns) ** -1
            slope = part(covariance, rows, columns) * inverse
            exact = part(covariance, rows, rows) - slope * part(covariance, columns, rows)
            precision, w, n = exact**-1, mpmath.matrix(weight.tolist()), len(rows)
            own = mpmath.diag([mpmath.exp(mpmath.mpf(value)) for value in log_variance.tolist()])
            apart = w - slope
            shared = precision * (own + apart * spread * apart.T)
            constant = sum(shared[i, i] for i in range(n)) - n + mpmath.log(mpmath.det(exact) / mpmath.det(own))
            at = mpmath.matrix([mean[i] for i in rows]), mpmath.matrix([mean[i] for i in columns])
            terms = []
            for value in below:
                off = w * value + mpmath.matrix(bias.tolist()) - at[0] - slope * (value - at[1])
                terms.append(float((constant + (off.T * precision * off)[0]) / 2))
            found[f"z{layer}"] = terms
            below = [w * value + mpmath.matrix(bias.tolist()) for value in below]
            spread = w * spread * w.T + own
    return found


def observed(made: Layers, seed: int) -> Tensor:
    """Five rows that the decoder made, and one at 0."""
    source, value = torch.Generator().manual_seed(seed), torch.zeros(5, 0, dtype=torch.float64)
    for weight, bias, log_variance in made:
        mean = value @ weight.double().mT + bias.double()
        noise = torch.randn(mean.shape, generator=source, dtype=torch.float64)
        value = mean + (log_variance.double() / 2).exp() * noise
    return torch.cat([value, 0 * value[:1]])


SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
DEVIATIONS = (1e-4, 1.0, 1e4)
"""a family holds log-variances up to 20 in size"""
SHAPES = ((3, 2), (4, 3, 2), (2, 4, 1, 3), (3, *(2,) * 50))


@pytest.mark.parametrize("widths", SHAPES, ids=lambda widths: f"depth {len(widths) - 1}")
def test_log_px_is_right_or_refused(widths: tuple[int, ...]) -> None:
    """Weights and offsets from 1e-6 to 1e6, deviations from 1e-4 to 1e4; modules in float32 and in float64."""
    answered, wrong = 0, []
    places = list(itertools.product(SCALES, SCALES, DEVIATIONS))
    for seed, (weight, bias, deviation) in enumerate(places if len(widths) < 9 else places[::4]):
        made = layers(widths, weight, bias, deviation, seed)
        x = observed(made, seed)
        dtype = (torch.float32, torch.float64)[seed % 2]
        try:
            found = LinearGaussian.of(decoder(made, dtype)).log_px(x)
        except NoReferenceError:
            continue
        expected = torch.tensor(truth(made, x), dtype=torch.float64)
        answered += 1
        error = float(((found - expected).abs() / (1 + expected.abs())).max())
        if not error <= SHARE:
            wrong.append((weight, bias, deviation, error))
    assert not wrong, wrong
    assert answered >= len(places) / 20, answered


@pytest.mark.parametrize("widths", SHAPES[:3], ids=lambda widths: f"depth {len(widths) - 1}")
def test_informations_and_layer_gaps_are_right_or_refused(widths: tuple[int, ...]) -> None:
    """Of an encoder whose slopes are off by a hundredth and whose deviations are off by a twentieth."""
    answered = {"information": 0, "gap": 0}
    places = list(itertools.product(SCALES, SCALES, DEVIATIONS))
    for seed, (weight, bias, deviation) in enumerate(places):
        made = layers(widths, weight, bias, deviation, seed)
        x = observed(made, seed)
        try:
            reference = LinearGaussian.of(decoder(made, torch.float64))
            found = [reference.mutual_information(["x"], [name]) for name in ("z1", f"z{len(widths) - 1}")]
            expected = [information(made, len(widths) - 1, place) for place in (len(widths) - 2, 0)]
            for one, other in zip(found, expected, strict=True):
                assert abs(one - other) <= SHARE * (1 + other), (weight, bias, deviation, one, other)
            answered["information"] += 1
            posterior = reference.best_posterior("bottom-up", "diagonal")
            assert isinstance(posterior, NetworkPosterior)
            upward = []
            for name in posterior.order:
                net, family = posterior.network[name].net, posterior.network[name].family
                assert isinstance(net, nn.Linear) and net.bias is not None and isinstance(family.log_variance, Tensor)
                with torch.no_grad():
                    net.weight *= 1.01
                    family.log_variance += 0.1
                upward.append((net.weight.detach(), net.bias.detach(), family.log_variance.detach()))
            gaps = reference.gaps(posterior, x)
        except NoReferenceError:
            continue
        answered["gap"] += 1
        for name, terms in layer_gaps(made, upward, x).items():
            error = (gaps.layers[name] - torch.tensor(terms, dtype=torch.float64)).abs()
            assert (error <= 2 * SHARE * (1 + gaps.total)).all(), (weight, bias, deviation, name, error)
    assert min(answered.values()) >= 10, answered


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", [*SCALES, 20.0, 1e12])
def test_log_px_of_bernoulli_units_is_right(weight: float, dtype: torch.dtype) -> None:
    """Every x, with logits up to 1e12, of which the twin holds e^-1e12."""
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    for seed, bias in enumerate((*SCALES, 22.0)):
        made = layers((3, 2, 2), weight, bias, 1.0, seed)
        if bias == 22:  # p = 1 - 3e-10, beside a unit that is sure and one that is open
            made[-1][1].copy_(torch.tensor([bias, 1e9, 1.3]))
        conditionals = []
        for place, (w, b, _) in enumerate(made):
            net: nn.Module = Root(b.to(dtype), learned=False)
            if place:
                net = nn.Linear(w.shape[1], w.shape[0], dtype=dtype)
                net.load_state_dict({"weight": w.to(dtype), "bias": b.to(dtype)})
            names = ("z2", "z1", "x")
            conditionals.append(Conditional(names[place], names[:place][-1:], net, Bernoulli(len(b))))
        found = DiscreteChain.of(BeliefNetwork(conditionals)).log_px(x).detach()
        expected = torch.tensor(discrete_truth(made, x), dtype=torch.float64)
        assert ((found - expected).abs() <= 1e-12 * (1 + expected.abs())).all(), (bias, found - expected)
