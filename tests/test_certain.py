"""Intervals hold the truth as often as they say: counted over repetitions, with the count's own error."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hvae.certain import crossed_interval, share_above

REPETITIONS = 1000
FALSE_ALARM = 1e-6


def least(level: float, repetitions: int) -> float:
    """A coverage that an interval of this level falls below by chance with `FALSE_ALARM`."""
    return float(stats.binom.ppf(FALSE_ALARM, repetitions, level)) / repetitions


@pytest.mark.parametrize(("n", "count", "limit"), [(72, 0, 0.05), (110, 1, 0.05), (142, 2, 0.05), (368, 0, 0.01)])
def test_the_fewest_images_that_exclude_a_share(n: int, count: int, limit: float) -> None:
    assert share_above(count, n)[2] <= limit < share_above(count, n - 1)[2]


@pytest.mark.parametrize(("share", "n"), [(0.05, 100), (0.06, 512), (0.5, 20), (0.01, 72)])
def test_a_share_is_missed_on_either_side_in_at_most_one_of_forty(share: float, n: int) -> None:
    """Exact, by the binomial distribution itself: no repetitions, no chance."""
    counts = np.arange(n + 1)
    chance = stats.binom.pmf(counts, n, share)
    ends = [share_above(int(count), n) for count in counts]
    assert chance[[end[2] < share for end in ends]].sum() <= 0.025
    assert chance[[end[0] > share for end in ends]].sum() <= 0.025


def draws(kind: str, size: tuple[int, ...], source: Any) -> Any:
    if kind == "log-normal":
        return (np.exp(source.normal(size=size)) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    return source.standard_t(3, size=size) / math.sqrt(3) if kind == "t3" else source.normal(size=size)


@pytest.mark.parametrize("kind", ["normal", "log-normal", "t3"])
@pytest.mark.parametrize(
    ("of_seeds", "of_images"), [(0.2, 30.0), (0.3, 3.7), (1.0, 2.0)], ids=["images", "both", "seeds"]
)
def test_seeds_and_images_both_count(of_seeds: float, of_images: float, kind: str) -> None:
    """Four seeds, 100 images: 93 % at least, of 1000 repetitions; a true coverage of 88 % is seen for certain."""
    source = np.random.default_rng(0)
    held = 0
    for _ in range(REPETITIONS):
        seeds, images = of_seeds * source.normal(size=(4, 1)), of_images * draws(kind, (1, 100), source)
        low, _, high = crossed_interval(seeds + images + source.normal(size=(4, 100)))
        held += low <= 0 <= high
    assert held / REPETITIONS >= least(0.93, REPETITIONS)
    assert held / REPETITIONS < 0.999  # and it is not infinitely wide


def test_an_interval_over_seeds_alone_does_not_hold() -> None:
    """What the crossed interval is for: where images rule, Student's interval over four seeds holds one time in ten."""
    source, held = np.random.default_rng(1), 0
    for _ in range(300):
        table = 0.2 * source.normal(size=(4, 1)) + 30 * source.normal(size=(1, 100)) + source.normal(size=(4, 100))
        seeds = table.mean(1)
        held += abs(seeds.mean()) <= stats.t.isf(0.025, 3) * seeds.std(ddof=1) / 2
    assert held / 300 < 0.3


@pytest.mark.parametrize(
    ("of_seeds", "of_images"), [(0.2, 10.0), (0.5, 5.0), (2.0, 1.0)], ids=["images", "both", "seeds"]
)
def test_seeds_of_two_tables_both_count(of_seeds: float, of_images: float) -> None:
    """Four seeds against three others on the same 100 images, whose effects differ: 93 % at least, of 1000."""
    source, held = np.random.default_rng(0), 0
    for _ in range(REPETITIONS):
        tables = [
            of_seeds * source.normal(size=(n, 1))
            + of_images * source.normal(size=(1, 100))
            + source.normal(size=(n, 100))
            for n in (4, 3)
        ]
        low, _, high = crossed_interval(*tables)
        held += low <= 0 <= high
    assert held / REPETITIONS >= least(0.93, REPETITIONS)


def test_the_interval_against_the_analysis_of_variance_by_hand() -> None:
    """Sums over the cells of the two-way table, one by one; images without skewness have no term of Hall's."""
    y = np.array([[1.0, 4.0, 2.0, 5.0], [2.0, 5.0, 3.0, 8.0], [0.0, 3.0, 1.0, 2.0]])
    n_seeds, n = y.shape
    total = sum(float(v) for v in y.ravel()) / 12
    rows, columns = [sum(map(float, row)) / n for row in y], [sum(map(float, c)) / n_seeds for c in y.T]
    ms_seeds = n * sum((r - total) ** 2 for r in rows) / (n_seeds - 1)
    ms_images = n_seeds * sum((c - total) ** 2 for c in columns) / (n - 1)
    rest = sum((float(y[i, j]) - rows[i] - columns[j] + total) ** 2 for i in range(n_seeds) for j in range(n))
    ms_rest = rest / ((n_seeds - 1) * (n - 1))
    t_seeds, t_images = 4.302652729696142, 3.182446305283710  # 97.5 % of Student's t with 2 and 3 degrees of freedom
    assert sum((c - total) ** 3 for c in columns) == pytest.approx(0.0, abs=1e-12)
    half = math.sqrt((t_seeds**2 * max(ms_seeds - ms_rest, 0.0) + t_images**2 * ms_images) / (n_seeds * n))
    assert crossed_interval(y) == pytest.approx((total - half, total, total + half), abs=1e-10)
    zeros = np.zeros((5, n))  # seeds that do not differ, on images that do not: nothing is added
    assert crossed_interval(y, zeros) == pytest.approx(crossed_interval(y), abs=1e-12)


def test_one_seed_tells_of_its_images_alone() -> None:
    """Student's interval over images without skewness."""
    values = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]])
    half = stats.t.isf(0.025, 4) * values.std(ddof=1) / math.sqrt(5)
    assert crossed_interval(values) == pytest.approx((-half, 0.0, half), abs=1e-12)


def test_too_little_is_refused() -> None:
    for tables in ([np.zeros((4, 1))], [np.zeros((0, 9))], [np.zeros((2, 9)), np.zeros((2, 8))]):
        with pytest.raises(ValueError, match="at least 1 seed and 2 images, the same images in each table"):
            crossed_interval(*tables)
    with pytest.raises(ValueError, match="no share"):
        share_above(3, 2)
