"""The statements of `docs/theorem.md`, each by its number: sums over all states of small models, in numpy alone.

Axes: x, then one for every unit of z1, then z2.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]
PAGE = Path(__file__).parents[3] / "docs" / "theorem.md"
SIZES = (2, 3, 2)
N_X, N_Z2 = 6, 5
SEEDS = range(4)
BETAS = (0.3, 1.0, 1.7)
TOLERANCE = 1e-10


def exactly(value: float) -> object:
    return pytest.approx(value, abs=TOLERANCE, rel=0)


def drawn(source: np.random.Generator, shape: tuple[int, ...], concentration: float = 0.4) -> Array:
    """A distribution over the last axis for every place of the others; no state has none of it."""
    found = source.dirichlet(np.full(shape[-1], concentration), size=shape[:-1]) + 1e-6
    return np.asarray(found / found.sum(-1, keepdims=True))


class Model:
    """Held: the data, q(z1|x) and p(x|z1), the units of z1 dependent in any way. Free: q(z2|·)."""

    def __init__(self, seed: int, *, sees_x: bool = False) -> None:
        source = np.random.default_rng(seed)
        states = int(np.prod(SIZES))
        self.data = source.dirichlet(np.ones(N_X))
        self.q1 = drawn(source, (N_X, states)).reshape(N_X, *SIZES)
        self.px = drawn(source, (states, N_X), 1.0).T.reshape(N_X, *SIZES)
        q2 = drawn(source, (N_X, states, N_Z2) if sees_x else (1, states, N_Z2))
        self.q2 = np.broadcast_to(q2, (N_X, states, N_Z2)).reshape(N_X, *SIZES, N_Z2)
        self.p2 = source.dirichlet(np.ones(N_Z2))
        self.joint = self.data[:, None, None, None, None] * self.q1[..., None] * self.q2
        self.of_z1 = self.joint.sum((0, 4))
        self.of_both = self.joint.sum(0)
        self.source = source

    def without(self, units: list[Array]) -> float:
        """The bound without z2, p(z1) a product."""
        weight = self.data[:, None, None, None] * self.q1
        return float((weight * (np.log(self.px) + np.log(product(units)) - np.log(self.q1))).sum())

    def with_z2(self, p1: Array, beta: float, beta_1: float = 1.0) -> float:
        """The bound with z2; ``p1 [z1 …, z2]`` is p(z1|z2)."""
        rate_1 = np.log(self.q1)[..., None] - np.log(p1)
        rate_2 = np.log(self.q2) - np.log(self.p2)
        return float((self.joint * (np.log(self.px)[..., None] - beta_1 * rate_1 - beta * rate_2)).sum())

    @property
    def rate(self) -> float:
        return float((self.joint * np.log(self.q2 / self.p2)).sum())

    @property
    def best_p1(self) -> Array:
        """prod_g q(z1_g|z2)."""
        slices = np.moveaxis(self.of_both, -1, 0)
        return np.stack([product(units_of(one / one.sum())) for one in slices], -1)

    @property
    def told(self) -> list[float]:
        """I(z1_g; z2) of every unit."""
        return [information(self.of_both.sum(others(unit, 3))) for unit in range(3)]


def others(unit: int, n_units: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(n_units) if axis != unit)


def units_of(p: Array) -> list[Array]:
    return [p.sum(others(unit, p.ndim)) for unit in range(p.ndim)]


def product(units: list[Array]) -> Array:
    found = units[0]
    for unit in units[1:]:
        found = np.multiply.outer(found, unit)
    return found


def entropy(p: Array) -> float:
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())


def divergence(p: Array, q: Array) -> float:
    at = p > 0
    return float((p[at] * np.log(p[at] / q[at])).sum())


def information(joint: Array) -> float:
    """Of the last axis about all others."""
    flat = joint.reshape(-1, joint.shape[-1])
    return divergence(flat, np.outer(flat.sum(1), flat.sum(0)))


def total_correlation(p: Array) -> float:
    return divergence(p, product(units_of(p)))


def gain_and_rate(of_z1: Array, q2: Array) -> tuple[float, float]:
    """sum_g I(z1_g; z2) and R with p(z2) = q(z2), for ``q2 [z1 …, z2]``."""
    joint = of_z1[..., None] * q2
    return sum(information(joint.sum(others(unit, of_z1.ndim))) for unit in range(of_z1.ndim)), information(joint)


def copied(of_z1: Array, units: tuple[int, ...], *, free: bool) -> float:
    """A / R where z2 copies these units, p(z2) free or a product over them."""
    rest = tuple(axis for axis in range(of_z1.ndim) if axis not in units)
    own = np.asarray(of_z1.sum(rest))
    q2 = np.zeros((*of_z1.shape, own.size))
    for state in np.ndindex(of_z1.shape):
        place = int(np.ravel_multi_index([state[unit] for unit in units], own.shape))
        q2[(*state, place)] = 1.0
    gain, rate = gain_and_rate(of_z1, q2)
    p2 = own if free else product(units_of(own))
    return gain / (rate + divergence(own, p2))


def parity(n_units: int) -> Array:
    """Fair units of even sum: all of them together depend, no fewer do."""
    found = np.zeros((2,) * n_units)
    for state in np.ndindex(found.shape):
        found[state] = float(sum(state) % 2 == 0) / 2 ** (n_units - 1)
    return found


def bernoulli(seed: int, n_units: int = 3) -> Array:
    return np.random.default_rng(seed).dirichlet(np.ones(2**n_units)).reshape((2,) * n_units)


def deviations(of_z1: Array) -> tuple[Array, Array]:
    """Every unit of every state, of mean 0 and variance 1 `[2 …, units]`, and their correlations."""
    states = np.stack(np.meshgrid(*([np.arange(2.0)] * of_z1.ndim), indexing="ij"), -1)
    axes = tuple(range(of_z1.ndim))
    mean = (of_z1[..., None] * states).sum(axes)
    standard = (states - mean) / np.sqrt(mean * (1 - mean))
    return standard, np.einsum("abc,abcg,abch->gh", of_z1, standard, standard)


@pytest.mark.parametrize("seed", SEEDS)
def test_1_the_best_products_are_those_of_q_and_others_lose_their_divergence(seed: int) -> None:
    model = Model(seed)
    best = units_of(model.of_z1)
    other = [drawn(model.source, (size,), 1.0) for size in SIZES]
    lost = sum(divergence(p, q) for p, q in zip(best, other, strict=True))
    assert model.without(best) - model.without(other) == exactly(lost)
    assert lost > 0.01
    tables = [drawn(model.source, (N_Z2, size), 1.0) for size in SIZES]
    p1 = np.stack([product([table[k] for table in tables]) for k in range(N_Z2)], -1)
    of_z2 = model.of_both.sum((0, 1, 2))
    slices = [model.of_both[..., k] / of_z2[k] for k in range(N_Z2)]
    lost = sum(
        of_z2[k] * sum(divergence(unit, table[k]) for unit, table in zip(units_of(slices[k]), tables, strict=True))
        for k in range(N_Z2)
    )
    assert model.with_z2(model.best_p1, 0.7) - model.with_z2(p1, 0.7) == exactly(lost)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sees_x", [False, True])
def test_2_the_rate_is_information_and_a_mismatch(seed: int, sees_x: bool) -> None:
    model = Model(seed, sees_x=sees_x)
    mismatch = divergence(model.of_both.sum((0, 1, 2)), model.p2)
    about = information(model.joint if sees_x else model.of_both)
    assert model.rate == exactly(about + mismatch)
    assert mismatch > 0.01
    assert (information(model.joint) - information(model.of_both) > 0.01) == sees_x


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("sees_x", [False, True])
def test_3_what_z2_adds_to_the_bound(seed: int, beta: float, sees_x: bool) -> None:
    model = Model(seed, sees_x=sees_x)
    added = model.with_z2(model.best_p1, beta) - model.without(units_of(model.of_z1))
    assert added == exactly(sum(model.told) - beta * model.rate)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
def test_4_an_old_prior_that_is_not_at_its_best_makes_z2_look_better(seed: int, beta: float) -> None:
    model = Model(seed)
    old = [drawn(model.source, (size,), 1.0) for size in SIZES]
    extra = sum(divergence(p, q) for p, q in zip(units_of(model.of_z1), old, strict=True))
    added = model.with_z2(model.best_p1, beta) - model.without(old)
    assert added == exactly(sum(model.told) - beta * model.rate + extra)
    assert extra > 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_5_the_best_value_is_convex_falls_and_ends_at_the_largest_ratio(seed: int) -> None:
    source, of_z1 = np.random.default_rng(seed), Model(seed).of_z1
    found = [gain_and_rate(of_z1, drawn(source, (*SIZES, 4), 10 ** source.uniform(-1, 1))) for _ in range(40)]
    pairs = [*found, (0.0, 0.0)]
    threshold = max(gain / rate for gain, rate in found)

    def value(beta: float) -> float:
        return max(gain - beta * rate for gain, rate in pairs)

    grid = np.linspace(0, 2 * threshold, 41)
    values = np.array([value(beta) for beta in grid])
    assert (np.diff(values) <= TOLERANCE).all()
    assert (np.diff(values, 2) >= -TOLERANCE).all()
    assert value(threshold - 1e-6) > 0
    assert value(threshold) == exactly(0) and value(threshold + 1) == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sees_x", [False, True])
def test_6_no_stack_gains_more_than_its_rate_in_every_unit(seed: int, sees_x: bool) -> None:
    model = Model(seed, sees_x=sees_x)
    assert max(model.told) <= information(model.of_both) + TOLERANCE
    assert information(model.of_both) <= model.rate + TOLERANCE
    equal = np.zeros((2, 2, 2))
    equal[0, 0, 0] = equal[1, 1, 1] = 0.5
    assert copied(equal, (0,), free=True) == exactly(3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [1.0, 1.7])
def test_7_from_a_weight_of_1_on_z2_pays_at_most_the_divergence_of_q_z1_from_its_prior(seed: int, beta: float) -> None:
    model = Model(seed)
    old = [drawn(model.source, (size,), 1.0) for size in SIZES]
    most = divergence(model.of_z1, product(old))
    extra = sum(divergence(p, q) for p, q in zip(units_of(model.of_z1), old, strict=True))
    assert most == exactly(total_correlation(model.of_z1) + extra)
    for _ in range(60):
        q2 = drawn(model.source, (*SIZES, 12), 10 ** model.source.uniform(-2.5, 0.5))
        gain, rate = gain_and_rate(model.of_z1, q2)
        assert gain - beta * rate + extra <= most + TOLERANCE
    gain, rate = gain_and_rate(model.of_z1, np.eye(12).reshape(*SIZES, 12))
    assert (gain - beta * rate + extra == exactly(most)) == (beta == 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_8_below_a_weight_of_1_that_is_false_and_copying_pays_the_most(seed: int, beta: float) -> None:
    model = Model(seed)
    most = total_correlation(model.of_z1) + (1 - beta) * entropy(model.of_z1)
    gain, rate = gain_and_rate(model.of_z1, np.eye(12).reshape(*SIZES, 12))
    assert gain - beta * rate == exactly(most)
    assert gain - beta * rate > total_correlation(model.of_z1) + 0.1
    for _ in range(60):
        q2 = drawn(model.source, (*SIZES, 12), 10 ** model.source.uniform(-2.5, 0.5))
        gain, rate = gain_and_rate(model.of_z1, q2)
        assert gain - beta * rate <= most + TOLERANCE


def test_9_with_retraining_that_is_false_too() -> None:
    """x_1 = x_2, fair. Without z2 the best stack leaves z1 empty; with z2 the retrained z1 copies x, and pays log 2."""
    data = np.eye(2) / 2
    empty, own = np.full((2, 2), 0.25), np.full(2, 0.5)
    before = float((data * np.log(np.outer(own, own))).sum())  # p(x | z1) = p(x), q(z1|x) = p(z1)
    assert divergence(empty, np.outer(own, own)) == exactly(0)
    assert before == exactly(-2 * np.log(2))
    source = np.random.default_rng(0)
    for _ in range(200):  # any product of groups, the marginal of any stack without z2
        first, second = drawn(source, (2,), 1.0), drawn(source, (2,), 1.0)
        assert (data * np.log(np.outer(first, second))).sum() <= before + TOLERANCE
    after = 0.0
    for x in (0, 1):  # z1_g = x_g and z2 = z1_1, each surely: log p(x|z1) = log p(z1|z2) = 0, log p(z2) = -log 2
        log_px, log_p1, log_p2, log_q = 0.0, 0.0, np.log(0.5), 0.0
        after += data[x, x] * (log_px + log_p1 + log_p2 - log_q)
    assert after - before == exactly(np.log(2))
    assert after - before == exactly(total_correlation(data))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [1.0, 1.7])
def test_10_where_every_unit_writes_its_own_group_retraining_changes_neither_limit(seed: int, beta: float) -> None:
    """Two groups x_1, x_2 of three values, any q(z1|x) and q(z2|z1), every p at its best."""
    source = np.random.default_rng(seed)
    data = source.dirichlet(np.ones(9)).reshape(3, 3)
    q1 = drawn(source, (9, 4)).reshape(3, 3, 2, 2)
    q2 = drawn(source, (2, 2, 3))
    joint = data[..., None, None, None] * q1[..., None] * q2  # x_1, x_2, z1_1, z1_2, z2
    of_z1, of_z2 = joint.sum((0, 1, 4)), joint.sum((0, 1, 2, 3))
    pairs = [joint.sum((1, 3, 4)), joint.sum((0, 2, 4))]  # x_g, z1_g
    up = [joint.sum((0, 1, 3)), joint.sum((0, 1, 2))]  # z1_g, z2
    bound = 0.0
    for a, b, m, n, k in np.ndindex(joint.shape):
        log_px = np.log(pairs[0][a, m] / pairs[0][:, m].sum()) + np.log(pairs[1][b, n] / pairs[1][:, n].sum())
        log_p1 = np.log(up[0][m, k] / of_z2[k]) + np.log(up[1][n, k] / of_z2[k])
        rate_2 = np.log(q2[m, n, k] / of_z2[k])
        bound += joint[a, b, m, n, k] * (log_px + log_p1 - np.log(q1[a, b, m, n]) - beta * rate_2)
    without = -sum(entropy(unit) for unit in units_of(data))
    read, told = sum(map(information, pairs)), sum(map(information, up))
    about = information(joint.sum(4).reshape(9, 4))
    rate = information(joint.sum((0, 1)))
    gain = read - about - total_correlation(of_z1) + told
    assert bound - without == exactly(gain - beta * rate)
    assert gain <= told + TOLERANCE and told <= 2 * rate + TOLERANCE
    assert bound - without <= total_correlation(data) + TOLERANCE


@pytest.mark.parametrize("of_z1", [*(Model(seed).of_z1 for seed in SEEDS), parity(3), parity(5)])
def test_11_copying_all_of_z1_is_worth_more_than_its_rate_where_units_depend(of_z1: Array) -> None:
    ratio = copied(of_z1, tuple(range(of_z1.ndim)), free=True)
    assert ratio == exactly(1 + total_correlation(of_z1) / entropy(of_z1))
    assert ratio > 1.01
    alone = product(units_of(of_z1))
    assert copied(alone, tuple(range(of_z1.ndim)), free=True) == exactly(1)


def test_11_so_the_threshold_exceeds_1_where_no_correlation_shows() -> None:
    of_z1 = parity(3)
    _, correlations = deviations(of_z1)
    assert np.linalg.eigvalsh(correlations)[-1] == exactly(1)
    assert copied(of_z1, (0, 1, 2), free=True) == exactly(1.5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("units", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_12_copying_some_units(seed: int, units: tuple[int, ...]) -> None:
    of_z1 = Model(seed).of_z1
    rest = [unit for unit in range(3) if unit not in units]
    own = of_z1.sum(tuple(rest))
    told = 0.0
    for unit in rest:
        left = tuple(place for place, axis in enumerate(others(unit, 3)) if axis not in units)
        told += information(np.moveaxis(of_z1, unit, -1).sum(left))
    assert copied(of_z1, units, free=True) == exactly(1 + (total_correlation(own) + told) / entropy(own))
    alone = sum(map(entropy, units_of(own)))
    assert copied(of_z1, units, free=False) == exactly(1 + told / alone)


@pytest.mark.parametrize(
    ("n_units", "n_copied", "ratio"),
    [(3, 1, 1), (3, 2, 3 / 2), (4, 2, 1), (4, 3, 4 / 3), (5, 2, 1), (5, 3, 1), (5, 4, 5 / 4)],
)
@pytest.mark.parametrize("free", [False, True])
def test_12_parity_needs_all_units_but_one(n_units: int, n_copied: int, ratio: float, free: bool) -> None:
    assert copied(parity(n_units), tuple(range(n_copied)), free=free) == exactly(ratio)


def test_12_two_dependent_units_pay_under_a_free_prior_and_not_under_a_product() -> None:
    of_z1 = np.array([[0.4, 0.1], [0.1, 0.4]])
    assert copied(of_z1, (0, 1), free=True) == pytest.approx(1.1615, abs=1e-4)
    assert copied(of_z1, (0, 1), free=False) == exactly(1)


@pytest.mark.parametrize("seed", SEEDS)
def test_13_a_z2_that_moves_little_proves_the_largest_eigenvalue_and_no_more(seed: int) -> None:
    of_z1 = bernoulli(seed)
    standard, correlations = deviations(of_z1)
    values, vectors = np.linalg.eigh(correlations)
    local = values[-1]
    assert local >= 1 - TOLERANCE

    def ratio(moved: Array, size: float) -> float:
        high = 0.5 + size * moved
        gain, rate = gain_and_rate(of_z1, np.stack([1 - high, high], -1))
        return gain / rate

    best = standard @ vectors[:, -1]
    errors = [abs(ratio(best, size) - local) for size in (1e-2, 1e-3)]
    assert errors[1] < 1e-5 and errors[1] < errors[0] / 50 + 1e-8
    source = np.random.default_rng(seed)
    for _ in range(50):
        moved = source.standard_normal((2, 2, 2))
        moved -= (of_z1 * moved).sum()
        seen = 0.0
        for unit in range(3):
            own = of_z1.sum(others(unit, 3))
            seen += float(((of_z1 * moved).sum(others(unit, 3)) ** 2 / own).sum())
        second_order = seen / float((of_z1 * moved**2).sum())
        assert second_order <= local + TOLERANCE
        assert ratio(moved, 1e-3) == pytest.approx(second_order, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_14_the_threshold_of_a_held_first_layer_is_a_supremum_over_distributions_of_z1(seed: int) -> None:
    of_z1 = Model(seed).of_z1
    source = np.random.default_rng(seed)

    def ratio(r: Array) -> float:
        pairs = zip(units_of(r), units_of(of_z1), strict=True)
        return sum(divergence(mine, theirs) for mine, theirs in pairs) / divergence(r, of_z1)

    for _ in range(30):  # no z2 proves more than the best of its own q(z1|z2)
        q2 = drawn(source, (*SIZES, 4), 10 ** source.uniform(-1.5, 0.5))
        joint = of_z1[..., None] * q2
        gain, rate = gain_and_rate(of_z1, q2)
        own = [joint[..., k] / joint[..., k].sum() for k in range(4)]
        assert gain / rate <= max(map(ratio, own)) + TOLERANCE
    for concentration in (0.1, 1.0):  # a rare state of z2 comes as near as one likes
        r = drawn(source, (12,), concentration).reshape(SIZES)
        far = [abs(_rare(of_z1, r, chance * float((of_z1 / r).min())) - ratio(r)) for chance in (1e-2, 1e-4)]
        assert far[1] < 1e-3 * ratio(r) and far[1] < far[0] / 50 + 1e-9


def _rare(of_z1: Array, r: Array, chance: float) -> float:
    """A / R of a z2 that is 1 with this chance, and then z1 follows ``r``."""
    high = chance * r / of_z1
    gain, rate = gain_and_rate(of_z1, np.stack([1 - high, high], -1))
    return gain / rate


def test_every_statement_of_the_page_has_its_test() -> None:
    stated = {int(n) for n in re.findall(r"^### (\d+)\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)}
    tested = {int(n) for n in re.findall(r"^def test_(\d+)_", Path(__file__).read_text(encoding="utf-8"), flags=re.M)}
    assert stated == tested == set(range(1, 15))
