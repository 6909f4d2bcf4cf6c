"""Claims on planted tables: how often a false one is supported, what is refused, what an interval says it counts."""

import numpy as np
import pytest
from scipy import stats

from hvae.analysis.claims import OF_SEEDS, Claim, Decision, Relation, decide
from hvae.analysis.samples import NotMeasuredError, Sample, combined, of_difference, of_mean
from hvae.certain import crossed_interval

IMAGES = ("digits", 100)
REPETITIONS = 1500
FALSE_FAIL = 1e-6


def most(rate: float) -> float:
    """A share of `REPETITIONS` that an event of this rate exceeds by chance with `FALSE_FAIL`."""
    return float(stats.binom.isf(FALSE_FAIL, REPETITIONS, rate)) / REPETITIONS


def decided(first: Sample, second: Sample | None = None, relation: Relation = "above", margin: float = 0.0) -> Decision:
    return decide(Claim("s", "source", "q", lambda runs: (first, second), relation, margin, "layers"), {}, {})


def table(source: np.random.Generator, of_seeds: float, of_images: float, n_seeds: int = 4, n: int = 100) -> np.ndarray:
    """[S, n] with mean 0."""
    seeds, images = of_seeds * source.normal(size=(n_seeds, 1)), of_images * source.normal(size=(1, n))
    return seeds + images + 0.5 * source.normal(size=(n_seeds, n))


@pytest.mark.parametrize(
    ("of_seeds", "of_images"), [(0.05, 5.0), (0.3, 3.0), (1.0, 1.0)], ids=["images", "both", "seeds"]
)
@pytest.mark.parametrize("how", ["one run", "paired", "other seeds"])
def test_a_false_claim_on_a_likelihood_is_supported_in_one_of_forty(
    how: str, of_seeds: float, of_images: float
) -> None:
    """The mean is 0, which is not above 0: supported for 2.5 % of all tables. Of 1500, a rate of 8 % is seen for
    certain (both errors 1e-6). By t-intervals over seeds it is 44 % where images rule."""
    source, supported = np.random.default_rng(0), 0
    for _ in range(REPETITIONS):
        first = Sample(table(source, of_seeds, of_images), (0, 1, 2, 3), IMAGES)
        second = None
        if how != "one run":  # what two runs share of an image drops out, what is their own stays
            seeds = (0, 1, 2, 3) if how == "paired" else (7, 8, 9)
            second = Sample(table(source, of_seeds, of_images, len(seeds)), seeds, IMAGES)
        supported += decided(first, second).outcome == "supported"
    assert supported / REPETITIONS <= most(0.025)


def test_a_t_interval_over_seeds_would_support_it_far_more_often() -> None:
    """The same tables without images: the test above would see their term left out."""
    source, supported = np.random.default_rng(0), 0
    for _ in range(REPETITIONS):
        supported += decided(Sample(table(source, 0.05, 5.0).mean(1), (0, 1, 2, 3))).outcome == "supported"
    assert supported / REPETITIONS > 2 * most(0.025)


@pytest.mark.parametrize("n_seeds", range(1, 13))
def test_a_false_claim_on_a_count_is_supported_in_one_of_forty(n_seeds: int) -> None:
    """Exact, by enumeration. All five layers are active in half of all seeds, else four: "above 4.5" does not hold in
    more than half. A t-interval over four seeds supported "above 4.95" in up to 67 % where five have a share of .9."""
    for margin, share in ((4.5, 0.5), (4.95, 0.5), (4.95, 0.3)):
        chance = 0.0
        for count in range(n_seeds + 1):
            values = np.array([5.0] * count + [4.0] * (n_seeds - count))
            found = decided(Sample(values, tuple(range(n_seeds)), count=True), margin=margin)
            assert found.unit == OF_SEEDS and found.low < found.high
            chance += (found.outcome == "supported") * float(stats.binom.pmf(count, n_seeds, share))
        assert chance <= 0.025


@pytest.mark.parametrize("n_seeds", [4, 5, 6, 10])
def test_six_seeds_are_the_fewest_that_decide_a_count(n_seeds: int) -> None:
    seeds = tuple(range(n_seeds))
    always = decided(Sample(np.full(n_seeds, 5.0), seeds, count=True), margin=4.5)
    never = decided(Sample(np.full(n_seeds, 4.0), seeds, count=True), margin=4.5)
    assert (always.outcome == "supported") == (never.outcome == "not supported") == (n_seeds >= 6)
    assert always.how.startswith(f"mean 5 layers; above 4.5 layers in {n_seeds} of {n_seeds} seeds")
    assert ("which 6 seeds or more can pass" in always.how) == (n_seeds < 6)
    assert always.criterion == "above 4.5 layers in more than half"


@pytest.mark.parametrize(
    ("relation", "held"), [("above", 2), ("below", 3), ("within", 3)], ids=["above", "below", "within"]
)
def test_counts_are_compared_seed_by_seed(relation: Relation, held: int) -> None:
    """A difference of 1 is on neither side of the margin 1."""
    first = Sample(np.array([3.0, 3.0, 1.0, 0.0, 0.0, 2.0]), tuple(range(6)), count=True)
    second = Sample(np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0]), tuple(range(6)), count=True)
    found = decided(first, second, relation, 1.0)
    assert found.middle == pytest.approx(held / 6)
    other = decided(first, Sample(second.values, tuple(range(6, 12)), count=True), relation, 1.0)
    assert other.outcome == "not measured" and "different seeds" in other.how


def test_numbers_that_are_the_same_in_all_seeds_are_decided_as_counts_are() -> None:
    """An interval of width 0 decides nothing, whatever it is of."""
    alike = Sample(np.full(4, 2.0), (0, 1, 2, 3))
    assert decided(alike, margin=1.0).outcome == "undecided" and decided(alike, margin=1.0).unit == OF_SEEDS
    assert np.isinf(of_mean(alike).low) and np.isnan(of_mean(alike).half)
    assert decided(Sample(np.full(6, 2.0), tuple(range(6))), margin=1.0).outcome == "supported"


def test_what_is_over_says_what_was_counted() -> None:
    values = table(np.random.default_rng(1), 1.0, 1.0)
    assert decided(Sample(values, (0, 1, 2, 3), IMAGES)).how == "over 4 seeds and 100 images"
    assert decided(Sample(values.mean(1), (0, 1, 2, 3))).how == "over 4 seeds only"
    one = decided(Sample(values[:1] + 50, (0,), IMAGES))
    assert one.outcome == "undecided" and one.how == "1 seed cannot tell of others; two are needed"
    assert of_mean(Sample(values[:1], (0,), IMAGES)).over == "100 images of one seed"
    values[2, 5] = np.nan
    found = decided(Sample(values, (0, 1, 2, 3), IMAGES))
    assert found.how == "over 3 seeds and 100 images, 1 seed without a number left out"
    assert (found.low, found.middle, found.high) == crossed_interval(values[[0, 1, 3]])


@pytest.mark.parametrize("seeds", [(0, 1, 2, 3), (4, 5, 6, 7)], ids=["same seeds", "other seeds"])
@pytest.mark.parametrize(("images", "n"), [(("digits", 100, 1), 100), (("MNIST", 100), 100), (("digits", 99), 99)])
def test_runs_on_different_images_are_refused(seeds: tuple[int, ...], images: tuple[object, ...], n: int) -> None:
    source = np.random.default_rng(0)
    first = Sample(table(source, 1.0, 1.0) + 9, (0, 1, 2, 3), IMAGES)
    second = Sample(table(source, 1.0, 1.0, n=n), seeds, images)
    found = decided(first, second)
    assert found.outcome == "not measured" and found.how.startswith("the runs were measured on different images")
    with pytest.raises(NotMeasuredError, match="measure them alike"):
        of_difference(first, Sample(second.values.mean(1), seeds))
    with pytest.raises(NotMeasuredError, match="different"):
        combined(np.subtract, first, second)


def test_paired_runs_are_compared_image_by_image() -> None:
    """What an image adds to both drops out: 0.1 nats are seen among images that are 5 nats apart."""
    source = np.random.default_rng(0)
    first = table(source, 0.0, 5.0)
    second = Sample(first + 0.1 + 0.01 * source.normal(size=first.shape), (0, 1, 2, 3), IMAGES)
    assert decided(second, Sample(first, (0, 1, 2, 3), IMAGES)).outcome == "supported"
    assert decided(second).outcome == "undecided"
