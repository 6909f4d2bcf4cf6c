"""The floor of independent columns, against counts and scipy's densities."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hvae.data import load
from hvae.errors import ConfigError, NotMeasuredError
from hvae.families import (
    Autoregressive,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    DiscretisedLogistic,
    DiscretisedLogisticMixture,
    Family,
    Flow,
    FullGaussian,
    MixtureGaussian,
    NegativeBinomial,
    Poisson,
)
from hvae.families.logistic_mixture import by_colour
from hvae.likelihood import Columns, floor_datum_nats
from hvae.likelihood.floor import N_AT_ONCE

GENERATOR = torch.Generator().manual_seed(0)
D = 5
REAL = (torch.randn(40, D, generator=GENERATOR, dtype=torch.float64) * torch.tensor([0.1, 1.0, 3.0, 2.0, 0.5])) + 2.0
REAL[:, 3] = 0.7  # a constant column
BITS = (torch.rand(40, D, generator=GENERATOR) < torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])).double()
ONE_HOT = torch.nn.functional.one_hot(torch.randint(3, (40, 2), generator=GENERATOR), 4).flatten(1).double()
COUNTS = torch.poisson(torch.tensor([0.05, 0.5, 3.0, 40.0, 0.0]).expand(40, D), generator=GENERATOR).double()
COUNTS[:, 1] *= 4  # overdispersed
LEVELS = torch.randint(17, (40, 6), generator=GENERATOR).double() * torch.tensor([0, 1, 0.25, 1, 0.5, 1]) / 16
LEVELS = (LEVELS * 16).round() / 16
TEST = slice(30, 40)


def by_counts(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Half a count for a zero, and half a count for a one."""
    found = np.zeros(len(x))
    for d in range(x.shape[1]):
        ones, zeros = 0.5, 0.5
        for value in train[:, d]:
            ones, zeros = ones + value, zeros + 1 - value
        for b, value in enumerate(x[:, d]):
            found[b] += np.log((ones if value else zeros) / (ones + zeros))
    return found


def by_states(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    found = np.zeros(len(x))
    for unit in range(2):
        counts = [0.5] * 4
        for row in train:
            counts[int(np.argmax(row[4 * unit : 4 * unit + 4]))] += 1
        for b, row in enumerate(x):
            found[b] += np.log(counts[int(np.argmax(row[4 * unit : 4 * unit + 4]))] / sum(counts))
    return found


def by_levels(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A logistic number of the column's mean and variance, that lands in the bin of x; end bins have all beyond."""
    pooled, n = np.mean([np.var(column) for column in train.T]), len(train)
    found = np.zeros(len(x))
    for d, column in enumerate(train.T):
        deviation = np.sqrt((n * np.var(column) + 0.5 * pooled) / (n + 0.5))
        number = stats.logistic(column.mean(), deviation / stats.logistic.std())
        for b, value in enumerate(x[:, d]):
            low = -np.inf if value == 0 else value - 1 / 32
            high = np.inf if value == 1 else value + 1 / 32
            right = low > column.mean()  # of two differences the one that does not cancel
            found[b] += np.log(number.sf(low) - number.sf(high) if right else number.cdf(high) - number.cdf(low))
    return found


def by_scipy(kind: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def of(train: np.ndarray, x: np.ndarray) -> np.ndarray:
        n = len(train)
        pooled = np.mean([np.var(column) for column in train.T])
        found = np.zeros(len(x))
        for d, column in enumerate(train.T):
            variance = {
                "fixed": 1.0,
                "shared": pooled,
                "own": (n * np.var(column) + 0.5 * pooled) / (n + 0.5),
            }[kind]
            found += stats.norm.logpdf(x[:, d], column.mean(), np.sqrt(variance))
        return found

    return of


def by_moments(dispersed: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def of(train: np.ndarray, x: np.ndarray) -> np.ndarray:
        n = len(train)
        found = np.zeros(len(x))
        for d, column in enumerate(train.T):
            mean = (column.sum() + 0.5) / n
            variance = (n * np.var(column) + 0.5 * mean) / (n + 0.5)
            if not dispersed:
                found += stats.poisson(mean).logpmf(x[:, d])
            elif variance > mean:
                r = mean**2 / (variance - mean)
                found += stats.nbinom(r, r / (r + mean)).logpmf(x[:, d])
            else:  # the largest r that the family holds, where scipy's terms cancel
                with mpmath.workdps(40):
                    r = mpmath.exp(20)
                    found += [
                        float(
                            mpmath.log(mpmath.rf(r, int(v)) / mpmath.factorial(int(v)))
                            - r * mpmath.log1p(mean / r) + v * mpmath.log(mean / (r + mean))
                        )
                        for v in x[:, d]
                    ]  # fmt: skip
        return found

    return of


CASES: dict[str, tuple[Family, Tensor, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "bernoulli": (Bernoulli(D), BITS, by_counts),
    "categorical": (Categorical(2, n_classes=4), ONE_HOT, by_states),
    "fixed": (DiagonalGaussian(D, variance="fixed"), REAL, by_scipy("fixed")),
    "shared": (DiagonalGaussian(D, variance="shared"), REAL, by_scipy("shared")),
    "learned": (DiagonalGaussian(D, variance="learned"), REAL, by_scipy("own")),
    "network": (DiagonalGaussian(D), REAL, by_scipy("own")),
    "poisson": (Poisson(D), COUNTS, by_moments(False)),
    "negative binomial": (NegativeBinomial(D), COUNTS, by_moments(True)),
    "negative binomial, network": (NegativeBinomial(D, variance="network"), COUNTS, by_moments(True)),
    "full": (FullGaussian(D), REAL, by_scipy("own")),
    "full, learned": (FullGaussian(D, variance="learned"), REAL, by_scipy("own")),
    "levels": (DiscretisedLogistic(6, n_levels=17), LEVELS, by_levels),
    "levels, scales of the net": (DiscretisedLogistic(6, n_levels=17, variance="network"), LEVELS, by_levels),
    "mixture, grey": (DiscretisedLogisticMixture((2, 3), n_levels=17), LEVELS, by_levels),
    "mixture, colour": (DiscretisedLogisticMixture((1, 2, 3), n_components=1, n_levels=17), LEVELS, by_levels),
    "full, fixed": (FullGaussian(D, variance="fixed"), REAL, by_scipy("fixed")),
}


@pytest.mark.parametrize("case", CASES)
def test_independent_columns_fitted_to_training_data(case: str) -> None:
    family, x, of = CASES[case]
    found = floor_datum_nats(family, Columns.of(x[:30]), x[TEST])
    assert found.shape == (10,) and found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), of(x[:30].numpy(), x[TEST].numpy()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_of_measured_data_each_is_left_out_of_its_own(case: str) -> None:
    family, x, of = CASES[case]
    found = floor_datum_nats(family, Columns.of(x).without(x[TEST]), x[TEST])
    others = [of(np.delete(x.numpy(), place, axis=0), x[place : place + 1].numpy())[0] for place in range(30, 40)]
    np.testing.assert_allclose(found.numpy(), others, rtol=0, atol=1e-10)


def test_a_fixed_variance_is_the_model_s_own() -> None:
    family = DiagonalGaussian(D, variance="fixed", log_variance=-2.0)
    found = floor_datum_nats(family, Columns.of(REAL[:30]), REAL[TEST])
    wanted = stats.norm.logpdf(REAL[TEST], REAL[:30].mean(0), np.exp(-1.0)).sum(1)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-10)


def test_a_scale_of_levels_that_is_fixed_is_the_model_s_own() -> None:
    family = DiscretisedLogistic(6, n_levels=17, variance="fixed")
    found = floor_datum_nats(family, Columns.of(LEVELS[:30]), LEVELS[TEST])
    own = family.double().log_prob(family.distribution(LEVELS[:30].mean(0)), LEVELS[TEST])
    torch.testing.assert_close(found, own, rtol=0, atol=1e-10)
    free = floor_datum_nats(DiscretisedLogistic(6, n_levels=17), Columns.of(LEVELS[:30]), LEVELS[TEST])
    assert (free - found).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(2, 3), (3, 1, 2), (1, 2, 3)])
def test_any_number_of_components_reaches_the_floor(shape: tuple[int, ...]) -> None:
    """All components alike, and no coupling of colours: the mixture says what one logistic a column says."""
    columns = Columns.of(LEVELS[:30])
    for n_components in (1, 3):
        family = DiscretisedLogisticMixture(shape, n_components=n_components, n_levels=17).double()
        one = family.outputs_at(columns.mean).unflatten(-1, (-1, family.n_pixels)).clone()
        centre, scale = (by_colour(of, family.pixels) for of in (2 * columns.mean - 1, columns.log_scale + np.log(2)))
        k = n_components
        for colour in range(len(centre)):
            start = k + colour * (3 if len(centre) == 3 else 2) * k
            one[start : start + k], one[start + k : start + 2 * k] = centre[colour], scale[colour]
        reached = family.log_prob(family.distribution(one.flatten()), LEVELS[TEST])
        torch.testing.assert_close(floor_datum_nats(family, columns, LEVELS[TEST]), reached, rtol=0, atol=1e-10)


def test_a_covariance_that_is_fixed_stays() -> None:
    tril = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    family, x = FullGaussian(2, variance="fixed", scale_tril=tril), REAL[:, :2]
    found = floor_datum_nats(family, Columns.of(x), x)
    wanted = stats.multivariate_normal(x.mean(0), tril @ tril.T).logpdf(x)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-6)  # the family keeps log 2 in float32


def test_the_dispersed_floor_is_above_that_of_poisson_for_dispersed_counts() -> None:
    floors = [
        floor_datum_nats(family, Columns.of(COUNTS), COUNTS).mean() for family in (Poisson(D), NegativeBinomial(D))
    ]
    assert floors[0] + 0.1 < floors[1]


@pytest.mark.parametrize("variance", ["learned", "network"])
def test_standardised_columns_have_a_floor_without_units(variance: str) -> None:
    """Where the family standardises, a column in other units moves the floor by its Jacobian and nothing else."""
    factor = torch.tensor([1.0, 1e-3, 1e6, 1.0, 1e3], dtype=torch.float64)
    found = []
    for unit in (torch.ones(D, dtype=torch.float64), factor):
        x = REAL * unit
        units_of = x[:30].mean(0), torch.where(x[:30].std(0) > 1e-9, x[:30].std(0), torch.ones(D))
        family = DiagonalGaussian(D, variance=variance, units_of=units_of)  # type: ignore[arg-type]
        found.append(floor_datum_nats(family, Columns.of(x[:30]), x[TEST]))
    torch.testing.assert_close(found[1], found[0] - factor.log().sum(), rtol=0, atol=1e-8)
    z = (REAL - REAL[:30].mean(0)) / torch.where(REAL[:30].std(0) > 1e-9, REAL[:30].std(0), torch.ones(D))
    plain = floor_datum_nats(DiagonalGaussian(D), Columns.of(z[:30]), z[TEST])
    torch.testing.assert_close(found[0], plain - units_of[1].div(factor).log().sum(), rtol=0, atol=1e-8)


def test_grey_training_values_are_expected_counts() -> None:
    """A presentation is a draw: the mean count over many is the sum of the grey values."""
    grey = torch.tensor([[0.25], [0.5], [0.0]])
    found = floor_datum_nats(Bernoulli(1), Columns.of(grey), torch.tensor([[1.0], [0.0]]))
    np.testing.assert_allclose(found.exp().numpy(), [1.25 / 4, 2.75 / 4], rtol=0, atol=1e-10)


def test_many_data_are_summed_in_parts() -> None:
    x = torch.randn(2 * N_AT_ONCE + 7, 3, generator=torch.Generator().manual_seed(1)) + 100
    found = Columns.of(x)
    np.testing.assert_allclose(found.mean.numpy(), x.double().numpy().mean(0), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.squares.numpy() / len(x), x.double().numpy().var(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("family", "x", "sentence"),
    [
        (DiscretisedLogistic(D), REAL, "Levels have a floor for values between 0 and 1 only"),
        (DiscretisedLogisticMixture((1, D)), REAL, "Levels have a floor for values between 0 and 1 only"),
        (DiscretisedLogistic(D), torch.ones(6, D), "fitted to is constant"),
        (MixtureGaussian(D, 2), REAL, "for MixtureGaussian it is not"),
        (Flow(D, "maf", 4, 1, source=torch.Generator()), REAL, "for Flow it is not"),
        (Autoregressive(Bernoulli(D), 4, source=torch.Generator()), BITS, "for Autoregressive it is not"),
        (Bernoulli(D), REAL, "for values between 0 and 1 only"),
        (Poisson(D), -REAL, "A Poisson x has a floor for counts from 0 on only"),
        (NegativeBinomial(D), -REAL, "A NegativeBinomial x has a floor for counts"),
        (Categorical(1, n_classes=D), -REAL, "for one-hot values only"),
        (DiagonalGaussian(D), torch.ones(6, D), "fitted to is constant"),
    ],
)
def test_what_has_no_floor_says_so(family: Family, x: Tensor, sentence: str) -> None:
    with pytest.raises(NotMeasuredError, match=sentence):
        floor_datum_nats(family, Columns.of(x), x)


def test_too_few_data() -> None:
    with pytest.raises(ValueError, match="give at least one"):
        Columns.of(torch.zeros(0, 2))
    with pytest.raises(NotMeasuredError, match="at least 2 of them"):
        Columns.of(torch.zeros(1, 2)).without(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("name", "family", "nats"),
    [
        ("mnist-dynamic", Bernoulli(784), -205.81991343),
        ("mnist-grey", DiagonalGaussian(784, variance="fixed"), -746.89607680),
        ("cifar10-subset-16", DiscretisedLogisticMixture((3, 16, 16)), -7.969866466 * 768 * np.log(2)),  # bits a number
    ],
)
def test_on_real_images(name: str, family: Family, nats: float) -> None:
    """Fitted to all training images, measured on all others. Raw moments of bits give -inf; free variances are no floor
    of fixed ones."""
    try:
        data = load(name)
    except ConfigError as error:
        pytest.skip(str(error))
    found = floor_datum_nats(family, Columns.of(data.train), data.test)
    assert found.isfinite().all()
    assert found.mean().item() == pytest.approx(nats, abs=1e-6)


@pytest.mark.parametrize("n", range(20, 120))
def test_a_single_one_among_zeros_has_a_floor(n: int) -> None:
    """Without it the mean of the others is 0, to the last digit, and without one of the zeros 1 / (n - 1)."""
    x = torch.zeros(n, 1)
    x[0] = 1
    for family in (Bernoulli(1), Poisson(1)):
        assert floor_datum_nats(family, Columns.of(x).without(x), x).isfinite().all()
        assert floor_datum_nats(family, Columns.of(1 - x).without(1 - x), 1 - x).isfinite().all()
