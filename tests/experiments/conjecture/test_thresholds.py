"""Teachers that need their top layer: its worth, its β threshold, and the search for the threshold."""

import copy
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from hvae.exact import LinearGaussian
from hvae.exact import known_stacks as examples
from hvae.experiments.conjecture import grouped, linear
from hvae.experiments.conjecture.bernoulli import Budget, EncoderKind
from hvae.experiments.conjecture.enumeration import Enumeration, bernoulli_states
from hvae.experiments.conjecture.thresholds import Job, Needing, Search, Solution, at_least, needing, threshold_rows

WIDTHS, SIZES = (6, 3, 2), (3.0, 8.0)
EXACT = {"atol": 1e-10, "rtol": 0}
KINDS = ("linear", "parity")


def product_of_groups(p: np.ndarray, n_groups: int) -> np.ndarray:
    """prod_g p(x_g) of a distribution over states of Bernoulli units, the first changing fastest, by sums of states."""
    n_units = len(p).bit_length() - 1
    size = n_units // n_groups
    states = [tuple(state >> unit & 1 for unit in range(n_units)) for state in range(len(p))]
    alone: list[dict[tuple[int, ...], float]] = [{} for _ in range(n_groups)]
    for state, chance in zip(states, p, strict=True):
        for group in range(n_groups):
            own = state[group * size : (group + 1) * size]
            alone[group][own] = alone[group].get(own, 0.0) + chance
    return np.array([np.prod([alone[g][s[g * size : (g + 1) * size]] for g in range(n_groups)]) for s in states])


@pytest.mark.parametrize("kind", KINDS)
def test_what_z2_is_worth_is_the_total_correlation_of_the_groups(kind: str) -> None:
    teacher = grouped.teacher(WIDTHS, kind, SIZES, 0)
    p = teacher.truth[1].marginals()[0].exp().numpy()
    product = product_of_groups(p, 3)
    assert teacher.worth == pytest.approx(float((p * np.log(p / product)).sum()), abs=1e-10)
    assert teacher.without == pytest.approx(float((p * np.log(product)).sum()), abs=1e-10)
    assert teacher.worth > 0.01


def without_z2(teacher: Needing, weak: torch.Tensor | float = 0.0) -> Enumeration:
    """The teacher with p(z1_g) in the place of p(z1_g | z2), moved by ``weak [S, units]`` deviations of z1_g."""
    decoder = copy.deepcopy(teacher.truth[0])
    on = teacher.truth[1].marginals()[1].exp() @ bernoulli_states(3)
    with torch.no_grad():
        decoder["z1"].net.outputs.copy_((on + weak * (on * (1 - on)).sqrt()).logit().expand(4, -1))
    return Enumeration(decoder, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
@torch.no_grad()
def test_without_z2_every_product_of_the_groups_is_reached_at_every_price(kind: str, beta: float) -> None:
    teacher = grouped.teacher(WIDTHS, kind, SIZES, 1)
    weight = teacher.truth[1].marginals()[0].exp()
    found = without_z2(teacher)().best_bound(weight, (1.0, beta))
    assert float(found) == pytest.approx(teacher.without, abs=1e-10)


def test_and_a_factorised_linear_encoder_reaches_it_too() -> None:
    teacher = grouped.teacher(WIDTHS, "linear", SIZES, 1)
    encoder = EncoderKind("factorised", "linear").encoder(WIDTHS, torch.Generator().manual_seed(0))
    stack, x = without_z2(teacher), teacher.truth[0]["x"].net
    on = teacher.truth[1].marginals()[1].exp() @ bernoulli_states(3)
    z1, z2 = (encoder[name].net[-1] for name in ("z1", "z2"))
    with torch.no_grad():
        z1.weight.zero_()
        for unit in range(3):  # log p(x_g | 1) - log p(x_g | 0), linear in the pixels of the unit
            z1.weight[unit, 2 * unit : 2 * unit + 2] = x.weight[unit]
        high, low = (torch.nn.functional.softplus(x.weight * half + x.bias).sum(-1) for half in (1, 0))
        z1.bias.copy_(on.logit() - high + low)
        z2.weight.zero_()
        z2.bias.zero_()
        tables = Enumeration(stack.decoder, encoder)()
        weight = teacher.truth[1].marginals()[0].exp()
        assert float(tables.bound(weight, (1.0, 2.0))) == pytest.approx(teacher.without, abs=1e-10)
        torch.testing.assert_close(tables.gaps(weight), stack().best((1.0, 1.0)).gaps(weight), atol=1, rtol=0)


@pytest.mark.parametrize(("kind", "number"), [("linear", 2), ("linear", 3), ("parity", 0)])
@torch.no_grad()
def test_a_z2_that_codes_little_pays_below_the_local_threshold_and_not_above(kind: str, number: int) -> None:
    """By finite differences in exact arithmetic: no eigenvalue, no expansion."""
    teacher = grouped.teacher((9, 3, 2), kind, SIZES, number)
    weight, states = teacher.truth[1].marginals()[0].exp(), bernoulli_states(2)
    sign = 2 * states[:, :1] - 1

    def gained(direction: np.ndarray, beta: float) -> float:
        moved = without_z2(teacher, 1e-3 * sign * torch.tensor(direction / np.linalg.norm(direction)))
        return float(moved().best_bound(weight, (1.0, beta))) - teacher.without

    angles = np.linspace(-1, 1, 9)
    directions = [np.array(d) for d in itertools.product(angles, repeat=3) if np.abs(d).max() == 1]
    best = max(directions, key=lambda d: gained(d, teacher.local))
    shift = 0.02 * (teacher.local - 1) + 0.001
    assert gained(best, teacher.local - 2 * shift) > 0
    assert max(gained(d, teacher.local + shift) for d in directions) < 0
    assert teacher.local == pytest.approx(1.0, abs=1e-9) if kind == "parity" else teacher.local > 1.05


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_stack_gains_more_than_its_rate_in_every_group(kind: str) -> None:
    for seed in range(20):
        source = torch.Generator().manual_seed(seed)
        truth = grouped.teacher(WIDTHS, kind, (6.0, 8.0), seed)
        decoder = grouped.grouped_decoder(WIDTHS, kind, (6.0, 8.0), source) if seed % 2 else truth.truth[0]
        weight = truth.truth[1].marginals()[0].exp()
        tables = Enumeration(decoder, None)().best((1.0, 1.0 + seed / 10))
        rate = float(tables.rates(weight)[1])
        gain = float(tables.bound(weight, (1.0, 0.0))) - truth.without
        assert gain <= 3 * rate + 1e-10
        if not seed % 2:
            assert gain - rate <= truth.worth + 1e-10


def test_teachers_are_taken_by_number_and_passed_over_by_worth_alone() -> None:
    def make(number: int) -> Needing:
        return Needing({"teacher": number}, 0.1 if number % 3 == 2 else 0.09, 1.0, 0.0, None)

    found = needing(make, 2)
    assert [dict(one.described) for one in found] == [{"teacher": n, "looked_at": 6} for n in (2, 5)]
    with pytest.raises(ValueError, match="couplings stronger"):
        needing(lambda number: Needing({}, 0.0, 1.0, 0.0, None), 1)


def test_the_search_finds_the_threshold_of_a_known_value() -> None:
    """One weight s: gain 3 s - s², rate s. V(β) = (3 - β)²/4, empty from 3 on; starts miss what neighbours found."""

    def train(jobs: list[Job]) -> list[Solution]:
        found = []
        for job in jobs:
            lazy = job.state is None and (job.beta > 2 or job.start == 1)
            s = 0.0 if lazy else max(0.0, (3 - job.beta) / 2)
            found.append(Solution(3 * s - s * s, s, 0.0, s, {}))
        return found

    search = Search(train, 2, 2)  # type: ignore[arg-type]
    places = search.at([[1.0, 2.5], [1.0, 4.0]])
    assert places == [(0, 1.0), (0, 2.5), (1, 1.0), (1, 4.0)]
    assert search.best(0, 2.5).value(2.5) == pytest.approx(0.25**2)
    assert search.best(1, 4.0).value(4.0) == 0
    assert search.proved == pytest.approx([2.75, 2.0])
    for _ in range(12):
        search.closer()
    assert search.proved == pytest.approx([3.0, 3.0], abs=1e-3)


def test_a_threshold_is_at_least_lambda_and_all_that_is_proved() -> None:
    assert at_least(1.2, [1.1]) == 1.2
    assert at_least(1.2, [1.3, 1.1]) == 1.3
    assert at_least(1.2, [float("nan"), -float("inf")]) == 1.2
    assert at_least(1.2, [float("nan"), 1.3]) == 1.3


def test_no_reported_threshold_violates_a_bound() -> None:
    """Searches that prove too little, nothing, or more under an encoder than under exact inference."""

    def reaches(*largest: float) -> Callable[[Sequence[Job]], list[Solution]]:
        """A z2 of rate 1, or none, that gains as much as each teacher's number."""
        return lambda jobs: [Solution(largest[job.teacher], 1.0, 0.0, None, {}) for job in jobs]

    teachers = [Needing({"teacher": n}, 1.0, local, 0.0, None) for n, local in enumerate((1.2, 1.0, 1.5))]
    trains = {
        "exact": reaches(1.15, 1.3, -1.0),
        "factorised": reaches(1.1, 1.4, -1.0),
        "autoregressive": reaches(1.19, 0.9, 1.6),
    }
    rows = threshold_rows(teachers, trains, (0.0, 0.5, 1.5), 1, 1, lambda _: None)
    found = {
        name: [rows["threshold_beta"][(rows["inference"] == name) & (rows["teacher"] == n)].tolist() for n in range(3)]
        for name in trains
    }
    assert {name: [set(values) for values in own] for name, own in found.items()} == {
        "exact": [{1.2}, {1.4}, {1.6}],
        "factorised": [{1.2}, {1.4}, {1.5}],
        "autoregressive": [{1.2}, {1.0}, {1.6}],
    }
    within_the_bounds(rows, 3)
    honest = rows["power"] == 0.5
    np.testing.assert_allclose(rows["beta"][honest], rows["exact_beta"][honest] ** 0.5)


def within_the_bounds(rows: dict[str, np.ndarray], n_units: int) -> None:
    """1 <= λ <= β* under an encoder <= β* under exact inference <= G, and no proof above its own β*."""
    reported = rows["threshold_beta"]
    exact = {n: reported[(rows["inference"] == "exact") & (rows["teacher"] == n)].min() for n in set(rows["teacher"])}
    assert rows["local_beta"].min() >= 1 - 1e-9
    assert (rows["local_beta"] <= reported).all()
    assert not (rows["proved_beta"] > reported).any() and not (rows["code_beta"] > reported).any()
    assert (reported <= [exact[n] for n in rows["teacher"]]).all()
    assert (rows["exact_beta"] <= [exact[n] for n in rows["teacher"]]).all()
    assert reported.max() <= n_units


@pytest.mark.parametrize("kind", KINDS)
def test_and_none_of_trained_stacks_does(kind: str) -> None:
    encoders = [EncoderKind("factorised", "linear"), EncoderKind("factorised", "table")]
    rows = grouped.grouped_rows(
        WIDTHS, {kind: [(6.0, 8.0)]}, 1, encoders, (0.0, 0.5), Budget(30, 0.1, 2), 1, lambda _: None
    )
    within_the_bounds(rows, 3)


@pytest.mark.parametrize("inference", ["exact", "factorised"])
def test_rows_of_bernoulli_hold_what_their_stacks_have(inference: str) -> None:
    teachers = needing(lambda number: grouped.teacher(WIDTHS, "linear", (6.0, 8.0), number), 1)
    kind = None if inference == "exact" else EncoderKind("factorised", "linear")
    train = grouped.trained_at_betas(teachers, WIDTHS, kind, Budget(150, 0.1, 2))
    jobs = [Job(0, 1.0, 0), Job(0, 2.9, 1)]
    first, second = train(jobs)
    for job, found in zip(jobs, (first, second), strict=True):
        with torch.no_grad():
            tables, weight = found.state(), teachers[0].truth[1].marginals()[0].exp()
            bound = tables.best_bound if kind is None else tables.bound
            assert found.value(job.beta) == pytest.approx(float(bound(weight, (1.0, job.beta))) - teachers[0].without)
        assert found.value(1.0) <= teachers[0].worth + 1e-10
        assert found.told["given_up_nats"] >= -1e-10
    assert first.value(1.0) > 0.7 * teachers[0].worth and first.told["top_nats"] > 0.3
    assert second.told["top_nats"] < 0.02 and second.value(2.9) > -0.01
    assert train([Job(0, 1.0, -1, first.state)])[0].value(1.0) > first.value(1.0) - 1e-6


def gaussian(number: int = 0) -> Needing:
    return linear.teacher(WIDTHS, (1.0, 1.5), number)


def test_the_worth_of_a_gaussian_z2_is_the_total_correlation_of_the_groups() -> None:
    teacher = gaussian()
    loadings, u2, found = teacher.truth
    stack = examples.linear_stack(1.0, "best", 0, WIDTHS)
    with torch.no_grad():
        stack.model.decoder["z1"].net.weight.copy_(u2)
        weight = torch.zeros(6, 3).double()
        for unit in range(3):
            weight[2 * unit : 2 * unit + 2, unit] = loadings[unit]
        stack.model.decoder["x"].net.weight.copy_(weight)
    distribution = LinearGaussian.of(stack.model.decoder).marginal(["x"])[1]
    torch.testing.assert_close(found, distribution, **EXACT)
    groups = sum(np.linalg.slogdet(distribution.numpy()[2 * g : 2 * g + 2, 2 * g : 2 * g + 2])[1] for g in range(3))
    assert teacher.worth == pytest.approx((groups - np.linalg.slogdet(distribution.numpy())[1]) / 2, abs=1e-10)


def begun(teacher: Needing, moved: torch.Tensor) -> linear.Weights:
    """The Gaussian stack without z2, its means of z1 moved by ``moved [z1, z2]``, with exact reverse conditionals."""
    loadings, u2, _ = teacher.truth
    full = torch.ones(3, 3).tril()
    scaled = loadings * (1 + u2.square().sum(-1, keepdim=True)).sqrt()
    made = linear._encoder(scaled, moved, full)
    return {"u1": linear.own_loadings(scaled), "u2": moved, **made}


def test_without_a_gaussian_z2_the_groups_are_reached_at_every_price() -> None:
    teacher = gaussian()
    for beta in (0.5, 1.0, 3.0):
        bound = linear.two_layer_bound(begun(teacher, torch.zeros(3, 2).double()), teacher.truth[2], beta)
        assert float(bound) == pytest.approx(teacher.without, abs=1e-10)


def test_a_gaussian_z2_that_codes_little_pays_below_the_local_threshold_and_not_above() -> None:
    teacher = gaussian(1)

    def gained(direction: np.ndarray, beta: float) -> float:
        made = begun(teacher, torch.tensor(1e-3 * direction / np.linalg.norm(direction)).unsqueeze(-1).repeat(1, 2))
        still = begun(teacher, torch.zeros(3, 2).double())
        made["w1"], made["r1"] = still["w1"], still["r1"]
        made["w2"] = made["w2"] / beta  # the best distribution of z2 at this β, to first order
        made["r2"] = torch.linalg.cholesky(torch.linalg.inv(torch.eye(2).double() + made["u2"].mT @ made["u2"] / beta))
        return float(linear.two_layer_bound(made, teacher.truth[2], beta)) - teacher.without

    angles = np.linspace(-1, 1, 9)
    directions = [np.array(d) for d in itertools.product(angles, repeat=3) if np.abs(d).max() == 1]
    best = max(directions, key=lambda d: gained(d, teacher.local))
    assert teacher.local > 1.1
    assert gained(best, teacher.local - 0.12 * (teacher.local - 1)) > 0
    assert max(gained(d, teacher.local + 0.03 * (teacher.local - 1)) for d in directions) < 0


def test_below_the_price_of_1_a_gaussian_stack_has_no_optimum() -> None:
    """A unit of z1 scaled by t gains (1 - β) log t in the limit, and never ends."""
    teacher = gaussian()
    loadings, u2, covariance = teacher.truth
    bounds = []
    for t in (1e2, 1e3, 1e4):
        scale = torch.tensor([t, 1.0, 1.0]).double().unsqueeze(-1)
        made = linear._encoder(loadings / scale, u2 * scale, torch.ones(3, 3).tril())
        w = {"u1": linear.own_loadings(loadings / scale), "u2": u2 * scale, **made}
        bounds.append([float(linear.two_layer_bound(w, covariance, beta)) for beta in (0.6, 1.0)])
    cheap, honest = np.diff(np.array(bounds), axis=0).T
    np.testing.assert_allclose(cheap, 0.4 * np.log(10), rtol=1e-3)
    np.testing.assert_allclose(honest, 0.0, atol=1e-4)


@pytest.mark.slow
def test_gaussian_rows_are_bounded_by_the_worth_and_by_each_other() -> None:
    rows = linear.linear_threshold_rows(
        WIDTHS, [(1.0, 1.5)], 1, (-1.0, 0.0, 0.9, 1.5), Budget(150, 0.05, 2), 3, lambda _: None
    )
    assert set(rows["power"][np.isfinite(rows["power"])]) == {0.0, 0.9, 1.5}
    np.testing.assert_allclose(rows["value_nats"], rows["gain_nats"] - rows["beta"] * rows["rate_nats"], atol=1e-12)
    exact, encoder = (rows["inference"] == name for name in ("exact", "factorised linear"))
    honest = rows["power"] == 0
    assert rows["value_nats"][exact & honest] == pytest.approx(rows["worth_nats"][0], abs=2e-3)
    assert rows["value_nats"][encoder & honest] < rows["value_nats"][exact & honest] - 5e-3
    within_the_bounds(rows, 3)
    proved = np.log(rows["proved_beta"] / rows["local_beta"])
    assert -0.06 < proved.min() and proved.max() < 1e-6
    beyond = rows["power"] == 1.5
    assert rows["top_nats"][beyond].max() < 1e-3 and abs(rows["value_nats"][beyond]).max() < 0.02
    np.testing.assert_allclose(rows["given_up_nats"][beyond], rows["worth_nats"][beyond], atol=0.02)
