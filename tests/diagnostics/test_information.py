"""Information against linear-Gaussian chains with known answers, and the estimators that go wrong on them."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.distributions import Normal

import hvae
from hvae.diagnostics import mixture as module
from hvae.diagnostics import nested as module_of_paths
from hvae.diagnostics.bounds import Intervals
from hvae.diagnostics.draws import Sampler, controlled
from hvae.diagnostics.information import Information, information
from hvae.evidence import HVAE
from hvae.exact import DiscreteChain
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.families import Bernoulli, Categorical, Family
from hvae.foreign.stack import Stack as OfFunctions
from hvae.network import BeliefNetwork, Conditional
from hvae.numerics import mean_interval
from hvae.posterior import NetworkPosterior
from tests.diagnostics.chains import Link, Stack, finite_informations, holds, images, link, root, sampler
from tests.exact import enumerated
from tests.statistics import assert_mean

EPSILON = 0.1
NOISE_INFORMATION = 2.98
"""nats of z1's own noise that the last case below passes on"""


def two(up1: Link, up2: Link, n_x: int = 1) -> Stack:
    """Two encoder links above any decoder: information is a matter of q alone."""
    n_1, n_2 = len(up1.bias), len(up2.bias)
    return Stack([up1, up2], [root(np.ones(n_2)), link(np.ones((n_1, n_2)), 1), link(np.ones((n_x, n_1)), 1)])


CASES = {
    "healthy": two(link(1, 0.01), link(1, 0.2)),
    "collapsed": two(link(1, 0.01), link(0, 1, 0.5)),
    # (1 + 0.01) / 7.8: I_2 = 0.060 nats
    "weak": two(link(1, 0.01), link(1, 7.8)),
    # z1 = (x, noise); z2 reads the noise only
    "noise": two(link([[1], [0]], [0.01, 1]), link([[0, 1]], 1 / (math.exp(2 * NOISE_INFORMATION) - 1))),
}


def measure(
    model: HVAE, x: torch.Tensor, *, max_paths: int = 256, seed: int = 0, extra: torch.Tensor | None = None
) -> dict[str, Information]:
    return information(sampler(model, x, seed), epsilon=EPSILON, max_paths=max_paths, extra=extra)


def nested(stack: Stack, x: torch.Tensor, n_paths: int, *, seed: int) -> dict[str, NDArray[np.float64]]:
    """Means over images of the raw bounds of z2."""
    with torch.no_grad():
        site = sampler(stack.bottom_up(), x, seed).paths(n_paths, "raw")["z2"]
        return {name: terms.mean() for name, terms in vars(module.bounds_of(site)).items()}


def test_the_cases_are_what_they_are_called() -> None:
    x = images(256)
    truths = {name: finite_informations(stack, "z2", x) for name, stack in CASES.items()}
    assert truths["healthy"][0] == pytest.approx(0.86, abs=0.1)
    assert truths["collapsed"] == pytest.approx((0, 0), abs=1e-10)
    assert truths["weak"][0] == pytest.approx(0.06, abs=0.005)
    assert truths["noise"][0] == pytest.approx(0, abs=1e-10)
    assert truths["noise"][1] == pytest.approx(NOISE_INFORMATION, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_interval_holds_the_truth(name: str) -> None:
    stack, x = CASES[name], images(256)
    found = measure(stack.bottom_up(), x)
    about_datum, from_parent = finite_informations(stack, "z2", x)
    assert holds(found["z2"].about_datum, about_datum)
    assert holds(found["z2"].from_parent, from_parent)
    if name != "noise":  # there z1 has two units
        first = finite_informations(stack, "z1", x)[0]
        assert holds(found["z1"].about_datum, first) and holds(found["z1"].from_parent, first)
    decided = {"healthy": (EPSILON, 1.1), "collapsed": (-1, 1e-6), "weak": (-1, EPSILON), "noise": (-1, 1)}
    low, high = decided[name]
    assert low < found["z2"].about_datum[0] and found["z2"].about_datum[2] < high


@pytest.mark.parametrize("name", ["healthy", "weak"])
def test_intervals_are_as_wide_as_they_say(name: str) -> None:
    """95 % of the chance of the draws: 40 repetitions with other draws, at most 7 misses (binomial, p < 0.004)."""
    stack, x = CASES[name], images(128)
    about_datum, from_parent = finite_informations(stack, "z2", x)
    misses = np.zeros(2)
    for seed in range(40):
        layer = measure(stack.bottom_up(), x, max_paths=16, seed=seed)["z2"]
        misses += [not holds(layer.about_datum, about_datum), not holds(layer.from_parent, from_parent)]
    assert misses.max() <= 7, misses


def errors_of_bounds(stack: Stack, x: torch.Tensor, n_paths: int, *, seed: int) -> dict[str, float]:
    """Each raw bound of z2 minus the same quantity from the exact densities at the same draws, mean over images."""
    with torch.no_grad():
        site = sampler(stack.bottom_up(), x, seed).paths(n_paths, "raw")["z2"]
        found = vars(module.bounds_of(site))
        match = site.family.natural(site.family.match(site.distribution))
        matched = module.scores_under(site, site.value[0], match).numpy() - math.log(2 * math.pi) / 2
    distributions = [stack.q(row, np.zeros((len(row), len(row)))).block("z2") for row in x.numpy()]
    means, variance = np.array([mean.item() for mean, _ in distributions]), float(distributions[0][1].item())
    values = site.value[0].numpy()
    log_q = -((values - means) ** 2 / variance + np.log(2 * np.pi * variance)) / 2
    log_mixture = np.log(np.exp(log_q).mean(1))
    exact = {"datum": log_q.diagonal() - log_mixture, "parent": found["divergence"] - (log_mixture - matched)}
    return {key: float((found[key] - exact[key[:-6]]).mean()) for key in found if key[:-6] in exact}


@pytest.mark.parametrize(
    "stack",
    [CASES["noise"], pytest.param(two(link(1, 1), link(1, 0.1)), marks=pytest.mark.slow)],
    ids=["codes noise", "codes x and noise"],
)
def test_raw_bounds_lie_on_their_sides_and_close_in(stack: Stack) -> None:
    """In the mean over draws, by more than four standard errors; each doubling of M takes off at least a fifth."""
    x = images(16)
    gaps = {}
    for n_paths in (4, 8, 16):
        found = [errors_of_bounds(stack, x, n_paths, seed=seed) for seed in range(300)]
        errors = {key: np.array([terms[key] for terms in found]) for key in found[0]}
        t = {key: error.mean() / error.std() * 300**0.5 for key, error in errors.items()}
        if n_paths == 4:
            assert max(t["datum_lower"], t["parent_lower"]) < -4 and min(t["datum_upper"], t["parent_upper"]) > 4, t
        gaps[n_paths] = {
            what: errors[f"{what}_upper"].mean() - errors[f"{what}_lower"].mean() for what in ("datum", "parent")
        }
    for what in ("datum", "parent"):
        assert gaps[4][what] > 1.25 * gaps[8][what] > 1.25**2 * gaps[16][what] > 0, gaps


def test_the_moment_match_is_an_upper_bound_that_a_silent_layer_meets() -> None:
    x = images(256)
    assert nested(CASES["collapsed"], x, 16, seed=0)["divergence"] == pytest.approx(0, abs=1e-12)
    for stack in CASES.values():
        assert nested(stack, x, 16, seed=0)["divergence"] > finite_informations(stack, "z2", x)[1] - 0.02


def test_one_path_estimator_reads_noise_as_information() -> None:
    """The planted fault: scored under its own path, against one path of every image, z2 seems to know x."""
    stack, x = CASES["noise"], images(512)
    with torch.no_grad():
        site = sampler(stack.bottom_up(), x).paths(1, "one path")["z2"]
        scores = site.family.log_prob(site.distribution, site.value.transpose(0, 1))  # [draw, path]
    one_path = (scores.diagonal() - scores.logsumexp(1)).mean().item() + math.log(512)
    assert one_path > 2.8
    layer = measure(stack.bottom_up(), x[:100], max_paths=2048)["z2"]
    assert layer.about_datum[2] < EPSILON  # the truth is 0
    assert layer.from_parent[0] > 2.5


def test_every_throw_takes_its_share_of_the_five_percent() -> None:
    """Three looks at two bounds: each end is that of an interval of 1 - 0.05 / 6."""
    terms = np.random.default_rng(0).normal(size=(2, 100))
    shared = Intervals(EPSILON).shared(3, 2)
    ends = mean_interval(terms, level=1 - 0.05 / 6)
    assert shared.low(*terms) == pytest.approx(ends[:, 0].max(), rel=1e-12)
    assert shared.high(*terms) == pytest.approx(ends[:, 2].min(), rel=1e-12)
    assert shared.low(terms[0]) < Intervals(EPSILON).low(terms[0])


def test_more_paths_are_taken_until_the_question_is_decided() -> None:
    x = images(100)
    noise, healthy = CASES["noise"].bottom_up(), CASES["healthy"].bottom_up()
    few, many = (measure(noise, x, max_paths=m)["z2"] for m in (16, 2048))
    assert few.about_datum[0] < EPSILON < few.about_datum[2]
    assert many.n_paths > few.n_paths == 16
    assert many.about_datum[2] < EPSILON
    assert measure(healthy, x, max_paths=2048)["z2"].n_paths == 16


def test_bounds_are_clipped_by_data_processing() -> None:
    """z1 knows nothing of x, so z2 cannot, although its own raw bound at 16 paths could not tell."""
    silent = two(link(0, 1), link(1, 1 / (math.exp(2 * NOISE_INFORMATION) - 1)))
    x = images(64)
    raw = nested(silent, x, 16, seed=0)["datum_upper"]
    found = measure(silent.bottom_up(), x, max_paths=16)
    assert raw > 0.5
    assert found["z2"].about_datum[2] <= found["z1"].about_datum[2] < 1e-6
    assert found["z2"].from_parent[0] > 2.5
    for stack in CASES.values():
        layers = measure(stack.bottom_up(), x, max_paths=16)
        assert layers["z2"].about_datum[2] <= min(layers["z1"].about_datum[2], layers["z2"].from_parent[2])


def test_no_more_than_log_n_and_the_own_image_left_out_explodes() -> None:
    """Twenty units of which each tells the images apart. The planted fault: the own image left out."""
    n, width = 128, 20
    stack = two(link(np.eye(width), 0.1), link(np.eye(width), 0.1), width)
    x = images(n, width=width)
    found = measure(stack.bottom_up(), x, max_paths=16)
    assert found["z2"].about_datum[2] <= math.log(n)
    assert found["z2"].from_parent[2] > math.log(n)  # its parent is no image
    assert found["z1"].about_datum[0] > 3.5
    with torch.no_grad():
        site = sampler(stack.bottom_up(), x).paths(1, "left out")["z1"]
        scores = module.scores_under(site, site.value[0], site.family.natural(site.distribution))[:, 0]
    own = scores.diagonal().clone()
    scores.fill_diagonal_(-math.inf)
    left_out = (own - scores.logsumexp(1)).mean().item() + math.log(n - 1)
    population = stack.q(np.zeros(width), np.eye(width)).information(["x"], ["z1"])
    assert left_out > 1.5 * population > 15 * math.log(n) / 4.9
    assert population < found["z1"].about_datum[2] < 1.15 * population  # for images at large


@pytest.mark.parametrize("n", [2, 3, 10])
def test_few_images(n: int) -> None:
    """The upper end of z1 holds for images at large, J is never below I, and no end is out of order."""
    stack = two(link(1, 1e-4), link(1, 1e-4))
    found = measure(stack.bottom_up(), images(n))
    for layer in found.values():
        assert (layer.about_datum <= layer.from_parent).all() and np.isfinite(layer.from_parent).all()
        assert (np.diff(layer.about_datum) >= 0).all() and (np.diff(layer.from_parent) >= 0).all()
    assert found["z1"].about_datum[0] <= math.log(n)
    population = stack.q(np.zeros(1), np.eye(1)).information(["x"], ["z1"])
    assert found["z1"].about_datum[2] > population


@torch.no_grad()
def test_an_images_paths_do_not_depend_on_how_many_images_follow() -> None:
    model, x = CASES["healthy"].bottom_up(), images(150)
    few, many = (module_of_paths._first_paths(sampler(model, x[:n]), 4)["z2"].value for n in (70, 150))
    torch.testing.assert_close(few, many[:, :70], rtol=0, atol=1e-12)


@torch.no_grad()
def test_bounds_of_blocks_are_those_of_all_paths_at_once() -> None:
    """But for r, which is matched to the first block."""
    model, x = CASES["healthy"].bottom_up(), images(100)
    here = sampler(model, x)
    blocks = {}
    for number in range(3):
        noise = [here.block_noise(block, 16, f"information/{number}") for block in range(2)]
        blocks[number] = {name: torch.cat([part[name] for part in noise], 1) for name in noise[0]}
    first = model.infer(x.unsqueeze(0), blocks[0])["z2"]
    mixture = module.Mixture(first)
    for number in range(3):
        module_of_paths._add(here, {"z2": mixture}, 16, number)
    everything = {name: torch.cat([blocks[number][name] for number in range(3)]) for name in blocks[0]}
    whole = module.Mixture(first)
    whole.add(model.infer(x.unsqueeze(0), everything)["z2"], torch.arange(100))
    assert mixture.n_paths == 48
    for name, terms in vars(whole.bounds()).items():
        np.testing.assert_allclose(getattr(mixture.bounds(), name), terms, rtol=0, atol=1e-10, err_msg=name)


def test_several_units_against_the_population() -> None:
    """512 images of N(0, I) stand for all: the finite answer falls short of theirs by less than the interval."""
    source = np.random.default_rng(3)
    stack = two(link(source.normal(size=(3, 4)) / 2, [0.5, 1, 2]), link(source.normal(size=(2, 3)) / 2, [1, 0.5]), 4)
    population = stack.q(np.zeros(4), np.eye(4))
    found = measure(stack.bottom_up(), images(512, width=4))
    assert holds(found["z1"].about_datum, population.information(["x"], ["z1"]))
    assert holds(found["z2"].about_datum, population.information(["x"], ["z2"]))
    assert holds(found["z2"].from_parent, population.information(["z1"], ["z2"]))


# -- orders whose upper layers see x themselves --------------------------------------------------------


def bottom_up(*conditionals: Conditional) -> HVAE:
    """Encoder links above any decoder."""
    stack = two(link(1, 1), link(1, 1))
    return HVAE(stack.decoder(), NetworkPosterior(BeliefNetwork(conditionals)))


SEEING_X = {
    "bottom-up-x": [link(1, 0.5).conditional("z1", ["x"]), link([[0.7, 1.2]], 0.8).conditional("z2", ["z1", "x"])],
    "z2 sees the noise of z1 only": [
        link(1, 0.5).conditional("z1", ["x"]), link([[1.5, -1.5]], 0.3).conditional("z2", ["z1", "x"])
    ],
    "mean field": [link(1, 0.5).conditional("z1", ["x"]), link(1.1, 0.8).conditional("z2", ["x"])],
    "z1 says nothing": [link(0, 1).conditional("z1", ["x"]), link([[0.5, 2.0]], 0.8).conditional("z2", ["z1", "x"])],
}  # fmt: skip


@pytest.mark.parametrize("name", SEEING_X)
def test_layers_that_see_x_against_the_population(name: str) -> None:
    """512 images of N(0, 1) stand for all. J_2 is the information from all that z2 sees; z2 may know more than z1."""
    model, one = bottom_up(*SEEING_X[name]), torch.ones(1, dtype=torch.float64)
    joint = LinearGaussian.of_posterior(model.decoder, model.posterior, 0 * one, one.unsqueeze(0))
    found = measure(model, images(512))
    about_datum, from_parent = (joint.mutual_information(seen, ["z2"]) for seen in (["x"], ["x", "z1"]))
    assert holds(found["z1"].about_datum, joint.mutual_information(["x"], ["z1"]))
    assert holds(found["z2"].about_datum, about_datum), (found["z2"].about_datum, about_datum)
    assert holds(found["z2"].from_parent, from_parent), (found["z2"].from_parent, from_parent)
    if name == "mean field":
        assert np.array_equal(found["z2"].about_datum, found["z2"].from_parent) and found["z2"].n_paths == 1
    if name == "z1 says nothing":
        assert found["z1"].about_datum[2] < 1e-6 and found["z2"].about_datum[0] > 0.5
    if name == "z2 sees the noise of z1 only":
        assert from_parent > 0.5 and found["z2"].about_datum[2] < EPSILON


@pytest.mark.parametrize("kind", ["bottom-up", "bottom-up sees x", "mean field"])
@pytest.mark.parametrize("kinds", [(Bernoulli(3), Bernoulli(2), Bernoulli(2)), (Categorical(2, 3), Categorical(1, 4))])
def test_discrete_layers_against_all_states(kind: str, kinds: tuple[Family, ...]) -> None:
    """Exact on these very images, by transfer matrices."""
    families = [Bernoulli(6), *kinds]
    model = HVAE(enumerated.decoder(families), enumerated.posterior(kind, families, scale=1.5))
    x = enumerated.observations(families[0], 256)
    truth = DiscreteChain.of(model.decoder).information(model.posterior, x)
    for name, layer in measure(model, x).items():
        assert truth.from_parent[name] > 0.05
        assert holds(layer.about_datum, float(truth.about_datum[name])), (name, layer)
        assert holds(layer.from_parent, float(truth.from_parent[name])), (name, layer)


# -- top-down: I(x; z_l | z_{>l}) ---------------------------------------------------------------------


def known(model: HVAE, width: int) -> dict[str, float]:
    """I_q(x; z_l | z_{>l}) by the reference when x is N(0, I)."""
    eye = torch.eye(width, dtype=torch.float64)
    joint = LinearGaussian.of_posterior(model.decoder, model.posterior, torch.zeros(width), eye)
    order = model.posterior.order
    return {name: joint.mutual_information(["x"], [name], given=list(order[:i])) for i, name in enumerate(order)}


def small_stack() -> Stack:
    return Stack(
        [link([[1, 0.3], [0, 0.8]], 1), link([[0.7, 0.2]], 1.5)],
        [root(1.0), link([[0.8], [0.4]], 0.7), link([[0.9, 0.2], [0.1, 0.7]], [1.0, 1.5])],
    )


@pytest.mark.parametrize("kind", ["ladder", "exact posterior"])
def test_top_down_against_the_reference(kind: str) -> None:
    stack = small_stack()
    model = stack.ladder()
    if kind == "exact posterior":
        model = HVAE(stack.decoder(), LinearGaussian.of(stack.decoder()).exact_posterior("top-down"))
    found, truth = measure(model, images(512, width=2)), known(model, 2)
    for name, layer in found.items():
        assert truth[name] > 0.05
        assert holds(layer.about_datum, truth[name]), (name, layer, truth[name])
        assert np.array_equal(layer.about_datum, layer.from_parent)


def test_a_control_takes_away_chance_and_leaves_the_mean() -> None:
    """1000 batches of 100 terms whose chance is mostly that of a known divergence; and terms that have none."""
    source = np.random.default_rng(0)
    control = source.normal(size=(1000, 100))
    terms = 0.3 + control + 0.1 * source.normal(size=(1000, 100))
    calmed = np.array([controlled(*pair) for pair in zip(terms, control, strict=True)])
    assert_mean(calmed.mean(1), 0.3, detect=0.005)
    assert calmed.std() < 0.11 < 0.9 < terms.std()
    assert np.array_equal(calmed, terms - control)  # taken whole: no coefficient is fitted to the terms
    cap = np.full(100, math.log(100))
    assert np.array_equal(controlled(cap, control[0]), cap)
    assert np.array_equal(controlled(terms[0], np.zeros(100)), terms[0])


def test_a_ladders_lower_layer_does_not_inherit() -> None:
    """u_1 says nothing: z1 follows z2, with I(x; z1) of nearly a nat and I(x; z1 | z2) = 0."""
    stack = Stack(
        [link([[0.0], [0.0]], math.exp(19)), link([[0.0, 0.0]], 1.0)], [*small_stack().down[:2], link([[1.0, 1.0]], 1)]
    )
    model = stack.ladder()
    with torch.no_grad():  # z2 reads x, which the mean of u_1 hands on; its influence on z1 is drowned by its variance
        model.posterior.upward["z1"].net.weight[0, 0] = 3.0
        model.posterior.upward["z2"].net.weight[0, 0] = 1.0
    joint = LinearGaussian.of_posterior(model.decoder, model.posterior, torch.zeros(1), torch.eye(1))
    assert joint.mutual_information(["x"], ["z1"]) > 0.3
    found = measure(model, images(256))
    assert found["z1"].about_datum[2] < 1e-3 and abs(found["z1"].on_images) < 1e-3  # not by the clip alone
    assert found["z2"].about_datum[0] > 0.5


def top_down(decoder: BeliefNetwork, *conditionals: object) -> HVAE:
    return HVAE(decoder, NetworkPosterior(BeliefNetwork(conditionals)))  # type: ignore[arg-type]


def test_prior_mismatch_alone_is_no_information() -> None:
    """q(z1 | z2) follows z2 by another distribution than p does, at 2.9 nats, and never looks at x."""
    decoder = small_stack().decoder()
    model = top_down(
        decoder,
        link([[0.5, 0.5]], 1.0).conditional("z2", ["x"]),
        link([[0.8], [0.4]], 0.1, 1.0).conditional("z1", ["z2"]),
    )
    evidence = sampler(model, images(64, width=2)).evidence(1, "mismatch")
    assert float(evidence.kl("z1").mean().detach()) > 1
    found = measure(model, images(256, width=2))
    assert found["z1"].about_datum[2] == pytest.approx(0, abs=1e-9)
    assert found["z2"].about_datum[0] > 0.05


def test_upper_layers_that_tell_all_images_apart_leave_the_question_open() -> None:
    """z1 is busy, but 32 images leave it nothing to say: the interval is wide, and more images raise its low end."""
    decoder = small_stack().decoder()
    wide = top_down(
        decoder,
        link([[300.0, 100.0]], 1.0).conditional("z2", ["x"]),
        link([[1.0, 0], [0, 1]], 1e-4).conditional("z1", ["x"]),
    )
    x = images(2048, width=2)
    few, truth = measure(wide, x[:32])["z1"].about_datum, known(wide, 2)["z1"]
    assert few[0] < EPSILON < math.log(32) < truth  # more than 32 images could show
    assert holds(few, truth)
    more = information(sampler(wide, x[:32]), epsilon=EPSILON, max_paths=16, extra=x[32:])["z1"]
    assert more.n_paths > 32 and more.about_datum[0] > few[0]


def test_paths_are_drawn_once_for_all_layers() -> None:
    """Six layers, none of them sure: as many visits as one layer takes, 16 + 32 + 64 an image, and 16 for z1."""

    def infer(visit: hvae.Visit) -> None:
        h = visit.code
        for place in range(1, 7):
            h = visit(f"z{place}", Normal(0.5 * h, 1.0))

    def generate(visit: hvae.Visit) -> None:
        h = torch.zeros(visit.rows, 1)
        for place in range(6, 0, -1):
            h = visit(f"z{place}", Normal(0.5 * h, 1.0))
        visit("x", Normal(h, 1.0))

    stack = OfFunctions.of(hvae.Model(infer, generate), {"x": torch.randn(40, 1)})
    with torch.no_grad():
        information(Sampler(stack, stack.numbers, seed=0), epsilon=0.05, max_paths=64)
    assert stack.functions.calls.infer <= 40 * (16 + 16 + 32 + 64)
