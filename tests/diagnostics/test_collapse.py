"""Whose collapse it is, on stacks where the exact posterior is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hvae.diagnosis.activity import cause
from hvae.diagnostics.collapse import UnitActivity, activity, share_interval
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.families import DiagonalGaussian
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.target import from_encoder
from hvae.measuring import Budget, Replica
from hvae.measuring.gap import measure_activity
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.numerics import FloatArray
from hvae.posterior import NetworkPosterior
from hvae.vocabulary import ACTIVE_SHARE, ENCODER_ALONE, ENCODER_COLLAPSE, IN_USE, MODEL_COLLAPSE, UNDECIDED
from tests.diagnostics.chains import Stack, holds, images, link, root
from tests.statistics import assert_mean

N = 200
RISK = 0.01
DOWN_USED = [root(1.0), link(1, 0.3), link([[1], [0.5]], 0.3)]
DOWN_UNUSED = [root(1.0), link(0, 1), link([[1], [0.5]], 0.3)]
STUCK = link(0, 1)
"""q(z2|z1) = N(0, 1) whatever z1"""


def data(model: HVAE, n: int = N) -> Tensor:
    mean, covariance = LinearGaussian.of(model.decoder).marginal(["x"])
    return mean + images(n, width=len(mean)) @ torch.linalg.cholesky(covariance).mT


def gaussian_shares(mean: FloatArray, variance: float) -> tuple[float, float]:
    """Both shares of z ~ N(mean_i, variance) over data i, by the fourth moment of a Gaussian."""
    shift = mean - mean.mean()
    first, second = np.var(shift, ddof=1), np.var(shift**2, ddof=1)
    within = np.mean(4 * variance * shift**2 + 2 * variance**2)
    return first / (first + variance), second / (second + within)


def exact_share(model: HVAE, x: Tensor, name: str) -> float:
    """The larger share under p(z|x) of a layer of one unit."""
    distribution = LinearGaussian.of(model.decoder).conditional([name], ["x"])
    return max(gaussian_shares(x.numpy() @ distribution.weight.numpy()[0], float(distribution.covariance.squeeze())))


def annealed(model: HVAE, x: Tensor, n_chains: int = 64) -> dict[str, UnitActivity]:
    target = from_encoder(model, x)
    found = anneal(target, Annealing(15, n_chains, 2), 0)
    return activity(model, x, target.split(found.noise), found.log_weight, n_paths=128, seed=0, risk=RISK)


def stack(up: list[object], down: list[object]) -> HVAE:
    return Stack(up, down).bottom_up()  # type: ignore[arg-type]


def test_an_encoder_that_is_stuck_is_told_from_a_model_that_does_not_care() -> None:
    """The same encoder, q(z2|z1) = N(0, 1); one decoder uses z2, the other does not."""
    up = [link([[0.7, 0.3]], 0.2), STUCK]
    for down, expected in ((DOWN_USED, ENCODER_COLLAPSE), (DOWN_UNUSED, MODEL_COLLAPSE)):
        model = stack(up, down)
        x = data(model)
        found = annealed(model, x)
        words = {name: cause(units.posterior, units.encoder) for name, units in found.items()}
        assert words == {"z1": IN_USE, "z2": expected}
        for name in ("z1", "z2"):
            assert holds(found[name].posterior[0], exact_share(model, x, name))
        assert holds(found["z1"].encoder[0], max(gaussian_shares(x.numpy() @ [0.7, 0.3], 0.2)))
        low, middle, high = found["z2"].encoder[0]
        assert low < middle < high < ACTIVE_SHARE and low < 0 < high


def test_units_are_told_apart_within_a_layer() -> None:
    """z1 has a unit that both use, one that q misses, one that neither uses and one that only q uses."""
    down = [root([1, 1, 1, 1]), link([[1, 0, 0, 0], [0, 1, 0, 0]], 0.2)]
    up = [link([[0.8, 0], [0, 0], [0, 0], [0.5, 0]], [0.2, 1, 1, 0.8])]
    found = annealed(stack(up, down), data(stack(up, down)), n_chains=128)["z1"]
    words = [cause(found.posterior[u : u + 1], found.encoder[u : u + 1]) for u in range(4)]
    assert words == [IN_USE, ENCODER_COLLAPSE, MODEL_COLLAPSE, ENCODER_ALONE]


def test_the_scale_and_origin_of_a_unit_say_nothing() -> None:
    """z1 = scale · z1 + shift, in q and p alike: the same shares. A variance would leave its threshold behind."""

    def reparametrised(scale: FloatArray, shift: FloatArray) -> HVAE:
        of_z2, to_x = np.array([[1.0], [0.4]]), np.array([[1, 0.3], [0.5, -1]])
        up_x, up_z1 = np.array([[0.7, 0.3], [0.1, -0.6]]), np.array([[0.5, 0.2]])
        down = [
            root(1.0), link(of_z2 * scale[:, None], 0.3 * scale**2, shift),
            link(to_x / scale, 0.3, -to_x / scale @ shift),
        ]  # fmt: skip
        up = [
            link(up_x * scale[:, None], 0.2 * scale**2, shift),
            link(up_z1 / scale, 0.8, -up_z1 / scale @ shift),
        ]
        return stack(up, down)  # type: ignore[arg-type]

    def measured(model: HVAE) -> dict[str, UnitActivity]:
        target = from_encoder(model, x)
        draws = images(20 * 50 * 3, seed=5).reshape(20, 50, 3)
        with torch.no_grad():
            return activity(model, x, target.split(draws), target.log_weight(draws), n_paths=8, seed=0, risk=RISK)

    plain = reparametrised(np.ones(2), np.zeros(2))
    x = data(plain, 50)
    found, moved = measured(plain), measured(reparametrised(np.array([0.05, 300.0]), np.array([3.0, -40.0])))
    for name in ("z1", "z2"):
        np.testing.assert_allclose(moved[name].posterior, found[name].posterior, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(moved[name].encoder, found[name].encoder, rtol=1e-8, atol=1e-10)
    assert np.ptp(found["z1"].posterior[:, 1]) > 0.01  # no constant either


class Square(nn.Module):
    """Mean 2z² and log-variance log 0.5."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([2 * z.square(), torch.full_like(z, 0.5).log()], -1)


def test_what_moves_the_variance_alone_is_used() -> None:
    """x = 2z² + noise: E[z|x] = 0 for every x, though x knows |z|; a stuck encoder is to blame, not the model."""
    root_ = Root(torch.zeros(2, dtype=torch.float64), learned=True)
    decoder = BeliefNetwork(
        [Conditional("z1", [], root_, DiagonalGaussian(1)), Conditional("x", ["z1"], Square(), DiagonalGaussian(1))]
    )
    model = HVAE(decoder, NetworkPosterior(BeliefNetwork([STUCK.conditional("z1", ["x"])])))
    n, n_chains = 200, 2000
    x = 2 * images(n, seed=1).square() + 0.5**0.5 * images(n, seed=2)
    noise = images(n * n_chains, seed=3).reshape(n_chains, n, 1)
    log_weight = -((x[:, 0] - 2 * noise[..., 0].square()) ** 2)  # of N(2z², 0.5), up to a constant
    found = activity(model, x, {"z1": noise}, log_weight, n_paths=128, seed=0, risk=RISK)["z1"]

    grid = np.linspace(-8, 8, 20001)
    density = np.exp(-(grid**2) / 2 - (x.numpy() - 2 * grid**2) ** 2)
    density /= density.sum(1, keepdims=True)
    moments = {k: (density * grid**k).sum(1) for k in (1, 2, 4)}
    assert np.abs(moments[1]).max() < 1e-12
    between, within = np.var(moments[2], ddof=1), np.mean(moments[4] - moments[2] ** 2)
    assert holds(found.posterior[0], between / (between + within)) and found.posterior[0, 0] > 0.5
    assert cause(found.posterior, found.encoder) == ENCODER_COLLAPSE


def exact_draws(n: int, n_chains: int) -> tuple[HVAE, HVAE, Tensor, dict[str, Tensor]]:
    """A stack of one unit, the same with its exact posterior as q, data, and noise."""
    model = stack([link([[0.5, 0.2]], 0.5)], [root(1.0), link([[1], [0.5]], 1.0)])
    exact = HVAE(model.decoder, LinearGaussian.of(model.decoder).exact_posterior("bottom-up"))
    return model, exact, data(model, n), {"z1": images(n_chains * n, seed=3).reshape(n_chains, n, 1)}


def by_hand(z: FloatArray, weight: FloatArray) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Twins a, b and s of both moments of one unit, datum by datum, from draws ``[C, n]``."""
    half, n = len(z) // 2, z.shape[1]

    def mean(y: FloatArray, rows: slice, i: int) -> float:
        return float(np.average(y[rows, i], weights=weight[rows, i]))

    first, last = slice(None, half), slice(half, None)
    centre = np.mean([[mean(z, rows, i) for i in range(n)] for rows in (first, last)])
    found = []
    for y in (z - centre, (z - centre) ** 2):
        a, b = (np.array([mean(y, rows, i) for i in range(n)]) for rows in (first, last))
        s = np.array([(mean(y**2, first, i) + mean(y**2, last, i)) / 2 for i in range(n)])
        found.append((a, b, s))
    return found


def by_hand_share(a: FloatArray, b: FloatArray, s: FloatArray) -> float:
    between = np.cov(a, b)[0, 1]
    return float(between / (between + np.mean(s) - np.mean(a * b)))


def test_twins_of_few_weighted_draws_are_unbiased() -> None:
    """Four exact draws of the posterior a datum: products of twins have mean Var_x E[z|x], squares would have more."""
    model, exact, x, noise = exact_draws(4000, 4)
    found = activity(exact, x, noise, torch.zeros(4, 4000).double(), n_paths=2, seed=0, risk=0.001)["z1"]
    truth = exact_share(model, x, "z1")
    assert holds(found.posterior[0], truth) and holds(found.encoder[0], truth)
    with torch.no_grad():
        z = exact.infer(x.unsqueeze(0), noise)["z1"].value[..., 0].numpy()
    distribution = LinearGaussian.of(model.decoder).conditional(["z1"], ["x"])
    mean, variance = x.numpy() @ distribution.weight.numpy()[0], float(distribution.covariance.squeeze())
    (a, b, s), _ = parts = by_hand(z, np.ones_like(z))
    assert_mean((a - a.mean()) * (b - b.mean()), np.var(mean), detect=0.16)
    assert_mean(s - a * b, variance, detect=0.16)
    assert found.posterior[0, 1] == pytest.approx(max(by_hand_share(*part) for part in parts), rel=1e-10)


def test_weights_count_within_each_half() -> None:
    """Weights are self-normalised half by half: the second half's lot, e^300 heavier, is nothing to the first."""
    model, _, x, noise = exact_draws(50, 6)
    log_weight = images(6 * 50, seed=9).reshape(6, 50)
    lifted = log_weight + torch.tensor([0.0, 0, 0, 300, 300, 300])[:, None]
    found = activity(model, x, noise, lifted, n_paths=1, seed=0, risk=RISK)["z1"]
    z = model.infer(x.unsqueeze(0), noise)["z1"].value[..., 0].detach().numpy()
    parts = by_hand(z, log_weight.exp().numpy())
    assert found.posterior[0, 1] == pytest.approx(max(by_hand_share(*part) for part in parts), rel=1e-10)
    tail = RISK / 4  # p and q, two moments, one unit
    ends = np.array([share_interval(*(part[:, None] for part in three), tail)[0] for three in parts])
    assert found.posterior[0] == pytest.approx(ends.max(0), rel=1e-10)


def test_the_risk_is_shared_by_the_units_of_all_layers() -> None:
    """The width of an interval, by the t quantile of its own level."""
    model = stack([link([[0.7, 0.3]], 0.2), STUCK], DOWN_USED)
    x, noise = data(model, 40), {name: images(8 * 40, seed=3).reshape(8, 40, 1) for name in ("z1", "z2")}
    weights = torch.zeros(8, 40).double()
    narrow, wide = (activity(model, x, noise, weights, n_paths=4, seed=0, risk=risk) for risk in (0.4, 0.04))
    expected = stats.t.ppf(1 - 0.04 / 8, 39) / stats.t.ppf(1 - 0.4 / 8, 39)
    for name in ("z1", "z2"):
        for owner in ("posterior", "encoder"):
            (low, middle, _), (lower, same, _) = (getattr(f[name], owner)[0] for f in (narrow, wide))
            assert middle == same
            if name == "z1":  # one moment is the larger at both ends
                assert (same - lower) / (middle - low) == pytest.approx(expected, rel=1e-9)


def test_the_interval_is_that_of_reweighted_data() -> None:
    """The error against the infinitesimal jackknife: derivatives of the share in the weight of every datum."""
    n, tail = 30, 0.01
    a, b, own = images(n, seed=1), images(n, seed=2), images(n, seed=3).square()
    a, b = (a + images(n, seed=4) ** 2).numpy()[:, 0], (b + images(n, seed=4) ** 2).numpy()[:, 0]
    s = (a**2 + b**2) / 2 + own.numpy()[:, 0]

    def share(p: FloatArray) -> float:
        between = (p * (a - p @ a) * (b - p @ b)).sum() * n / (n - 1)
        return float(between / (between + p @ (s - a * b)))

    step = 1e-6
    equal = np.full(n, 1 / n)
    slopes = np.array(
        [(share(equal + step * (e - equal)) - share(equal - step * (e - equal))) / (2 * step) for e in np.eye(n)]
    )
    error = np.sqrt((slopes**2).sum() / n / (n - 1))
    skewness = stats.skew(slopes)
    quantile = stats.t.ppf(1 - tail, n - 1)
    low, middle, high = share_interval(a[:, None], b[:, None], s[:, None], tail)[0]
    assert middle == pytest.approx(share(equal), rel=1e-12) and skewness > 0.1
    # between is scaled by n / (n - 1), of which the products know nothing: 1 / n of a term of the slopes
    assert middle - low == pytest.approx(quantile * error, rel=1.5 / n)
    stretch = 1 + skewness * (1 + 2 * quantile**2) / (3 * np.sqrt(n)) / quantile
    assert high - middle == pytest.approx(stretch * (middle - low), rel=1.5 / n)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_intervals_miss_about_as_often_as_they_say(share: float) -> None:
    """Over 4000 units: neither end misses twice as often as it says, but by a chance of 1e-6."""
    n, tail, n_units = 100, 0.01, 4000
    source = np.random.default_rng(0)
    mean = share**0.5 * source.standard_normal((n, n_units))
    variance = (1 - share) / 32
    a, b = mean + variance**0.5 * source.standard_normal((2, n, n_units))
    interval = share_interval(a, b, mean**2 + 1 - share, tail)
    most = stats.binom.isf(1e-6, n_units, 2 * tail)
    assert (interval[:, 0] > share).sum() <= most and (interval[:, 2] < share).sum() <= most
    assert ((interval[:, 0] > share) | (interval[:, 2] < share)).any()


def test_a_unit_that_never_moves_has_share_zero() -> None:
    zeros = np.zeros((5, 1))
    np.testing.assert_array_equal(share_interval(zeros, zeros, zeros, 0.01), np.zeros((1, 3)))
    same = np.arange(5.0)[:, None]
    np.testing.assert_allclose(share_interval(same, same, same**2, 0.01), np.ones((1, 3)), atol=1e-12)


def replica(n_chains: int) -> Replica:
    model = stack([link([[0.7, 0.3]], 0.2), STUCK], DOWN_USED)
    budget = dataclasses.replace(Budget(), temperatures=15, chains=n_chains, leapfrog=2)
    return Replica(model, data(model, 60), budget)


def test_doubted_chains_leave_the_reading_open() -> None:
    """16 chains have no effective 10 for each half: nothing of p(z|x) is said; 64 have, and say it."""
    (silent, sure), (warned, doubted) = measure_activity(replica(64)), measure_activity(replica(16))
    assert silent["posterior_warning"] == ""
    said = warned["posterior_warning"]
    assert "the chains of 60 of 60 images have an effective sample size of 20 or less" in said
    for name, word in (("z1", IN_USE), ("z2", ENCODER_COLLAPSE)):
        before, after = (
            cause(found[name]["posterior_share"], found[name]["encoder_share"]) for found in (sure, doubted)
        )
        assert (before, after) == (word, UNDECIDED)
        low, middle, high = doubted[name]["posterior_share"][0]
        assert (low, high) == (0, 1) and 0.2 < middle < 1
        assert sure[name]["posterior_active"] == 1 and np.isnan(doubted[name]["posterior_active"])
        assert doubted[name]["encoder_active"] == sure[name]["encoder_active"]


def test_what_cannot_be_twinned_is_refused() -> None:
    model = stack([link([[0.5, 0.2]], 0.5)], [root(1.0), link([[1], [0.5]], 1.0)])
    x, noise = data(model, 3), {"z1": torch.zeros(4, 3, 1).double()}
    weights = torch.zeros(4, 3).double()
    with pytest.raises(ValueError, match="There are 1 chains"):
        activity(model, x, {"z1": noise["z1"][:1]}, weights[:1], n_paths=1, seed=0, risk=RISK)
    with pytest.raises(ValueError, match="0 paths"):
        activity(model, x, noise, weights, n_paths=0, seed=0, risk=RISK)
    with pytest.raises(ValueError, match="1 data"):
        activity(model, x[:1], {"z1": noise["z1"][:, :1]}, weights[:, :1], n_paths=1, seed=0, risk=RISK)
    with pytest.raises(ValueError, match=r"risk of a wrong statement is 1\.5"):
        activity(model, x, noise, weights, n_paths=1, seed=0, risk=1.5)
    with pytest.raises(ValueError, match="nan, infinite or all zero"):
        activity(model, x, noise, weights - torch.inf, n_paths=1, seed=0, risk=RISK)


def test_ladders_too() -> None:
    """Top-down, where z2 is inferred first: the exact posterior of z2 uses x, the ladder's q as well."""
    model = Stack([link([[0.7, 0.3]], 0.2), link(0.8, 0.4)], DOWN_USED).ladder()
    x = data(model)
    found = annealed(model, x)
    assert not isinstance(model.posterior, NetworkPosterior)
    assert cause(found["z2"].posterior, found["z2"].encoder) == IN_USE
    assert holds(found["z2"].posterior[0], exact_share(model, x, "z2"))


def test_a_ladder_layer_that_follows_its_prior_uses_no_unit() -> None:
    """z1 follows p(z1 | z2) in q: what it inherits from z2, nine tenths of its variance, is not its own."""
    model = Stack([link(1, math.exp(19)), link(1, 0.1)], [root(1.0), link(1, 0.1), link(1, 0.1)]).ladder()
    x = images(400)
    idle = torch.zeros(64, len(x), dtype=torch.float64)
    source = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(64, len(x), 1, generator=source, dtype=torch.float64) for name in model.latents}
    found = activity(model, x, noise, idle, n_paths=64, seed=0, risk=RISK)
    assert found["z1"].encoder[0, 2] < ACTIVE_SHARE < found["z2"].encoder[0, 0]
