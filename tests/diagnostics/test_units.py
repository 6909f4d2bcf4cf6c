"""Active units and what they inherit; collapse of units by expected divergences."""

import math

import numpy as np
import pytest
import torch

from hvae.diagnostics import units
from hvae.evidence import HVAE, Evidence
from hvae.families import Bernoulli, Categorical
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.numerics import FloatArray
from hvae.posterior import Ladder, NetworkPosterior
from hvae.rng import noise
from tests.diagnostics.chains import Stack, holds, images, link, root, sampler
from tests.statistics import assert_mean

DOWN = [root(1.0), link(1, 0.3), link(1, 0.1)]


def evidence(model: HVAE, x: torch.Tensor, n_paths: int = 32) -> Evidence:
    with torch.no_grad():
        return sampler(model, x).evidence(n_paths, "units")


def covariance(a: FloatArray, b: FloatArray, n_units: int = 1) -> FloatArray:
    return units.covariance_interval(a, b, n_units)


def test_top_down_burda_inherits_and_the_residual_does_not() -> None:
    """z1 is its prior given z2, exactly: KL 0, yet its mean varies with z2 by far more than 0.01."""
    found = evidence(Stack([link(3, math.exp(19.9)), link(1, 0.1)], DOWN).ladder(), images(500))
    assert found.kl("z1").max() < 1e-6
    means, _ = units.mean_variance(found.q["z1"], 500)
    assert covariance(means, means)[0, 0] > 0.5
    residual = units.residual(found, "z1")
    assert covariance(residual, residual)[0, 2] < 1e-6


def test_the_residual_of_a_layer_that_adds_something() -> None:
    """q(z1 | z2, x) leaves p's mean by x/2, in units of sd_p: variance 1/4 / 0.3 of N(0, 1) data."""
    z1 = link([[1, 0.5]], 0.2).conditional("z1", ["z2", "x"])
    q = BeliefNetwork([link(1, 0.1).conditional("z2", ["x"]), z1])
    x = images(4000)
    residual = units.residual(evidence(HVAE(Stack([link(1, 1)] * 2, DOWN).decoder(), NetworkPosterior(q)), x), "z1")
    expected = x.numpy().T / 2 / math.sqrt(0.3)
    assert residual == pytest.approx(expected, abs=1e-12)
    assert holds(covariance(residual, residual)[0], 0.25 / 0.3)


def test_bottom_up_burda_inherits_noise_and_twins_do_not() -> None:
    """z1 never looks at x and z2 copies z1: the mean of z2 varies with the path, not with x."""
    found = evidence(Stack([link(0, 1), link(1, 0.1)], DOWN).bottom_up(), images(2000))
    one, other = units.mean_variance(found.q["z2"], 2000)
    assert holds(covariance(one, one)[0], 1.0)
    twin = covariance(one, other)[0]
    assert holds(twin, 0.0) and twin[2] < 0.1
    assert_mean((one * other).T, 0.0, detect=0.25)


def test_twins_are_unbiased_for_the_variance_of_the_expected_mean() -> None:
    """E[mean of z2 | x] = 0.8 · 0.5 x, so Var_x = 0.16, where Burda's statistic adds 0.64 of z1's noise."""
    x = images(4000, seed=1)
    found = evidence(Stack([link(0.5, 1), link(0.8, 0.5)], DOWN).bottom_up(), x)
    one, other = units.mean_variance(found.q["z2"], 4000)
    assert holds(covariance(one, other)[0], 0.16)
    assert holds(covariance(one, one)[0], 0.16 + 0.64)
    assert_mean((one * other).T, 0.16 * x.square().mean().item(), detect=0.2)
    direct, twin = units.mean_variance(found.q["z1"], 4000)  # z1's mean is a function of x
    assert direct == pytest.approx(twin) and holds(covariance(direct, twin)[0], 0.25)


def test_the_middle_is_the_unbiased_covariance() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 50))
    assert covariance(a, b, 3)[:, 1] == pytest.approx(
        [np.cov(u, v)[0, 1] for u, v in zip(a, b, strict=True)], abs=1e-12
    )
    summed = covariance(np.concatenate([a, a]), np.concatenate([b, 2 * b]), 2)  # units of three numbers each
    assert summed == pytest.approx(np.array([1, 2])[:, None] * summed[0], abs=1e-12)
    low, high = covariance(a, b, 1)[0, [0, 2]], covariance(a, b, 3)[:, [0, 2]].sum(0)
    assert high[0] < low[0] and low[1] < high[1]  # the interval of a sum is narrower than the sum of intervals


def categorical(order: str, n_classes: int = 3) -> HVAE:
    """Two layers, two categorical units each, x three Bernoulli units; the weights at random."""
    source = torch.Generator().manual_seed(0)

    def net(n_in: int, n_out: int) -> torch.nn.Linear:
        layer = torch.nn.Linear(n_in, n_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(n_out, n_in, generator=source))
        return layer

    distribution, width = Categorical(2, n_classes), 2 * n_classes
    up = [
        Conditional("z1", ["x"], net(3, width), distribution),
        Conditional("z2", ["z1"], net(width, width), distribution),
    ]
    top = Conditional("z2", [], Root(distribution.standard_outputs(), learned=False), distribution)
    down = [
        top,
        Conditional("z1", ["z2"], net(width, width), distribution),
        Conditional("x", ["z1"], net(width, 3), Bernoulli(3)),
    ]
    upward = BeliefNetwork(up)
    return HVAE(BeliefNetwork(down), Ladder(upward) if order == "top-down" else NetworkPosterior(upward))


def test_units_of_categorical() -> None:
    """The one-hot entries of a die are one unit."""
    x = (images(200, width=3) > 0).float()
    for order in ("bottom-up", "top-down"):
        found = evidence(categorical(order), x)
        for name in ("z1", "z2"):
            means, _ = units.mean_variance(found.q[name], 200)
            assert means.shape == (6, 200)
            assert covariance(means, means, 2).shape == (2, 3)
            by_hand = means.reshape(2, 3, 200).var(-1, ddof=1).sum(1)
            assert covariance(means, means, 2)[:, 1] == pytest.approx(by_hand)
            assert units.collapsed_fraction(found, name).shape == units.EPSILONS.shape
        if order == "top-down":
            q, p = found.q["z1"].mean[0], found.p["z1"].mean[0]
            by_hand = ((q - p) / (p * (1 - p)).sqrt()).T.numpy()
            assert units.residual(found, "z1") == pytest.approx(by_hand, abs=1e-4)


# -- the count of a batch while training -------------------------------------------------------------


def called(model: HVAE, x: torch.Tensor, n_paths: int, purpose: str) -> Evidence:
    """As in training: `HVAE.redraw` needs a model that was called."""
    return model(x.unsqueeze(0), noise(model.noise_specs(), n_paths, len(x), seed=0, purpose=purpose, dtype=x.dtype))


def counted(model: HVAE, n: int = 64, n_paths: int = 1, width: int = 1, seed: int = 0) -> dict[str, int]:
    """Every count on a batch of n images, with Burda's."""
    found = called(model, images(n, width=width, seed=seed), n_paths, f"batch {seed}")
    counts = {name: int(count) for name, count in units.active_on_batch(found).items()}
    for name in found.latents:
        site = found.q[name]
        burda = site.family.per_unit(site.mean.expand(*site.value.shape)[0].var(0)) > 0.01
        counts[f"burda/{name}"] = int(burda.sum())
    return counts


def test_in_a_ladder_only_units_that_add_something_count() -> None:
    """z1 has eight units; all follow z2, and q moves the first two of them with x as well."""
    follow, moves = torch.ones(8, 1), torch.zeros(8, 1)
    moves[:2] = 0.5
    z1 = link(torch.cat([follow, moves], 1).tolist(), [0.2] * 8).conditional("z1", ["z2", "x"])
    q = BeliefNetwork([link(1, 0.1).conditional("z2", ["x"]), z1])
    down = [root(1.0), link(follow.tolist(), [0.2] * 8), link([[1.0] * 8], 0.1)]
    found = counted(HVAE(Stack([link(1, 1)] * 2, down).decoder(), NetworkPosterior(q)))
    assert found["burda/z1"] == 8
    assert {name: count for name, count in found.items() if "burda" not in name} == {
        "residual_active_units/z1": 2, "residual_active_units/z2": 1,
    }  # fmt: skip


@pytest.mark.parametrize("n_paths", [1, 2])
def test_bottom_up_units_that_code_noise_do_not_count(n_paths: int) -> None:
    """z2 copies sixteen units of z1; four of them look at x, and twelve are noise of variance 0.9."""
    weights = [[0.9]] * 4 + [[0.0]] * 12
    copy = torch.eye(16).tolist()
    down = [root([1.0] * 16), link(copy, [1.0] * 16), link([[1.0] * 16], 1.0)]
    model = Stack([link(weights, [0.3] * 4 + [0.9] * 12), link(copy, [0.1] * 16)], down).bottom_up()
    found = [counted(model, n=64, n_paths=n_paths, seed=seed) for seed in range(10)]
    for each in found:
        assert each["burda/z2"] == 16 and each["burda/z1"] == each["twin_active_units/z1"] == 4
        assert 4 <= each["twin_active_units/z2"] <= 6
    assert np.mean([each["twin_active_units/z2"] for each in found]) < 5  # half of the 12 by an unguarded sign


def test_the_second_draw_is_another_path_of_the_same_data() -> None:
    model = Stack([link(1, 1), link(1, 0.1)], DOWN).bottom_up()
    found = called(model, images(12000), 1, "second")
    assert found.redraw is not None
    second = found.redraw()
    assert torch.equal(found.q["z1"].mean, second["z1"].mean)
    one, other = ((trace["z1"].value - found.q["z1"].mean).detach() for trace in (found.q, second))
    assert torch.allclose(one.roll(1, dims=1), other, atol=1e-12)
    assert_mean((one * other).flatten().numpy(), 0.0, detect=0.1)


def test_one_path_without_a_model_has_no_count() -> None:
    one, two = (evidence(Stack([link(1, 1), link(1, 0.1)], DOWN).bottom_up(), images(40), k) for k in (1, 2))
    assert units.active_on_batch(one) == {} and len(units.active_on_batch(two)) == 2


def test_units_of_every_kind_are_counted_within_their_number() -> None:
    x = (images(40, width=3) > 0).float()
    for order, kind in (("bottom-up", "twin"), ("top-down", "residual")):
        counts = units.active_on_batch(called(categorical(order), x, 1, "kinds"))
        assert counts.keys() == {f"{kind}_active_units/z1", f"{kind}_active_units/z2"}
        assert all(0 <= int(count) <= 2 for count in counts.values())


# -- (epsilon, delta)-collapse ----------------------------------------------------------------------


def at(epsilon: float) -> int:
    return int(np.abs(units.EPSILONS - epsilon).argmin())


def test_a_unit_with_a_small_expected_divergence_has_collapsed() -> None:
    """KL = 0.05² / 2 = 0.00125. The planted fault: one-sample log-ratios, of deviation 0.05, would not say so."""
    n = 1000
    model = Stack(
        [link(1, 0.05), link([[0], [1]], [1, 0.2], [0.05, 0])], [root([1, 1]), link([[1, 1]], 1), link(1, 1)]
    ).bottom_up()
    found = evidence(model, images(n))
    assert found.unit_kl("z2")[..., 0].detach().numpy() == pytest.approx(0.00125)
    curve = units.collapsed_fraction(found, "z2")
    assert units.collapse_reference(found, "z2") == "prior"
    assert curve[at(0.001)] == 0 and curve[at(0.01)] == 0.5  # unit 0 of two
    one_sample = found.unit_rate("z2")[0, :, 0]
    assert (one_sample < 0.01).double().mean() < 1 - units.DELTA
    assert np.all(np.diff(curve) >= 0)


def test_below_the_top_a_layer_is_held_against_its_own_aggregate() -> None:
    """q(z1 | ·) = N(3, 0.1) whatever comes: far from p(z1 | z2), but it is a constant."""
    found = evidence(
        Stack(
            [link([[0], [1]], [0.1, 0.1], [3, 0]), link([[1, 1]], 1)], [root(1), link([[1], [1]], 1), link([[1, 1]], 1)]
        ).bottom_up(),
        images(500),
    )
    assert units.collapse_reference(found, "z1") == "aggregate"
    assert units.collapsed_fraction(found, "z1")[at(1e-4)] == 0.5
    assert found.unit_rate("z1")[..., 0].mean() > 1


def test_delta_is_a_share_of_the_data() -> None:
    """A unit that speaks of 2 % of the data has not collapsed, one that speaks of 0.5 % has."""
    for n_loud, collapsed in ((20, 0.0), (5, 1.0)):
        x = torch.zeros(1000, 1, dtype=torch.float64)
        x[:n_loud] = 5.0
        found = evidence(Stack([link(1, 1)], [root(1), link(1, 1)]).bottom_up(), x)
        assert units.collapsed_fraction(found, "z1")[at(0.01)] == collapsed
