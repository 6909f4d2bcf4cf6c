"""The floor beside a likelihood: its mark, from the user's door, and on disk."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Gamma, Normal

import hvae
from hvae.analysis.tables.floor import beside_text
from hvae.diagnosis.likelihood import Likelihood
from hvae.diagnosis.record import flat, read
from hvae.diagnosis.sizes import Sizes
from hvae.exact.known_stacks import linear_stack
from hvae.families import DiscretisedLogistic
from hvae.families.logistic import LevelsDistribution
from hvae.likelihood import Columns, floor_datum_nats
from hvae.measuring import measure
from hvae.vocabulary import BELOW_FLOOR

SMALL = Sizes(
    n_images=40, max_paths=16, n_mixture=1, n_alternatives=4, n_paths=2, n_paths_use=2, n_paths_knockout=2,
    n_likelihood=60, n_samples=10,
)  # fmt: skip
N, D = 60, 8
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0)) * 0.1 + 3.0


def likelihood_with(bound: np.ndarray, floor: float, n_columns: int = 50) -> Likelihood:
    """Values of B images, over a floor that is the same for all."""
    n = len(bound)
    arrays: dict[str, Any] = {
        "n_samples": np.array([1]), "bound_nats": np.zeros((1, 1, 3)), "pareto_k": np.zeros((1, n)),
        "log_px_datum_nats": bound[None], "log_px_nats": np.full((1, 3), bound.mean()), "until_se": np.array(0.1),
        "floor_datum_nats": np.full((1, n), floor), "floor_nats": np.full((1, 3), floor),
        "n_columns": np.array(n_columns),
    }  # fmt: skip
    return read(Likelihood, arrays, 1)


@pytest.mark.parametrize(
    ("n_below", "by", "marked"),
    [(51, 0.6, True), (50, 100.0, False), (100, 0.49, False), (51, np.inf, True), (0, 1.0, False)],
)
def test_the_mark_needs_most_images_and_a_hundredth_of_a_nat_a_column(n_below: int, by: float, marked: bool) -> None:
    """50 columns: the bound must lie more than 0.5 nats below."""
    bound = np.where(np.arange(100) < n_below, -20.0 - by, -10.0)
    found = likelihood_with(bound, -20.0)
    assert found.below_floor.tolist() == [marked] and found.marks == (BELOW_FLOOR if marked else "",)


def test_images_without_a_number_do_not_count_as_below() -> None:
    assert not likelihood_with(np.full(10, np.nan), -20.0).below_floor.any()


def test_runs_of_before_have_no_floor_and_no_mark() -> None:
    old = read(Likelihood, {"bound_nats": np.zeros((2, 1, 3)), "pareto_k": np.zeros((2, 5))}, 2)
    assert np.isnan(old.floor_nats).all() and old.floor_nats.shape == (2, 3)
    assert old.marks == ("", "") and old.bits_per_dim is None and beside_text(old) == ""


def test_bits_are_of_levels_only() -> None:
    found = likelihood_with(np.full(10, -100.0), -20.0, n_columns=50)
    assert found.bits_per_dim is None
    arrays = flat(found, [True]) | {"n_levels": np.array(256), "log_px_nats": np.array([[-110.0, -100.0, -90.0]])}
    bits = read(Likelihood, arrays, 1).bits_per_dim
    assert bits is not None
    np.testing.assert_allclose(bits[0], [1.8 / np.log(2), 2 / np.log(2), 2.2 / np.log(2)], rtol=0, atol=1e-12)


def test_it_is_fitted_to_training_data_where_they_are_given() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    family, train = stack.model.decoder.family("x"), stack.x * 2 + 1
    diagnosis = measure([stack.model, None], stack.x, SMALL, train=train)
    found = diagnosis.likelihood
    assert found is not None and found.floor_fitted_to == "the training data"
    wanted = floor_datum_nats(family, Columns.of(train), stack.x).numpy()
    np.testing.assert_allclose(found.floor_datum_nats[0], wanted, rtol=0, atol=1e-10)
    assert found.floor_nats[0, 1] == pytest.approx(wanted.mean()) and np.isnan(found.floor_nats[1]).all()
    assert found.marks[1] == ""
    again = read(Likelihood, flat(found, [True, False]), 2)
    assert np.array_equal(again.floor_datum_nats, found.floor_datum_nats, equal_nan=True)


def user_model(law: Any) -> hvae.Model:
    """A collapsed model of a user: x given z is ``law(z)`` whatever z is."""

    def infer(visit: hvae.Visit) -> None:
        visit("z", Normal(torch.zeros(len(visit.code), 2), 1.0))

    def generate(visit: hvae.Visit) -> None:
        visit("x", law(visit("z", Normal(torch.zeros(2), 1.0))))

    return hvae.Model(infer, generate)


def found_of(law: Any, x: Tensor = X) -> hvae.Diagnosis:
    return hvae.diagnose(user_model(law), x, sizes=SMALL, progress=False)


def left_out(variance: float | None) -> np.ndarray:
    """The floor of each of `X`, by a normal density whose columns are fitted to the others; in shuffled order."""
    found = []
    for place in range(N):
        others, own = np.delete(X.double().numpy(), place, axis=0), X[place].double().numpy()
        spread = others.var(0)
        spread = (spread * (N - 1) + spread.mean() / 2) / (N - 0.5) if variance is None else np.full(D, variance)
        found.append((-((own - others.mean(0)) ** 2) / spread / 2 - np.log(2 * np.pi * spread) / 2).sum())
    return np.sort(found)


def test_a_variance_that_never_moves_is_taken_as_fixed() -> None:
    """The best that N(·, 1) can say of columns of deviation 0.1: free variances would mark every such model."""
    found = found_of(lambda z: Normal(3.0 + 0.0 * z.mean(-1, keepdim=True).expand(-1, D), 1.0)).likelihood
    assert found is not None and found.floor_fitted_to == "the measured data"
    np.testing.assert_allclose(np.sort(found.floor_datum_nats[0]), left_out(1.0), rtol=0, atol=1e-10)
    assert found.marks == ("",)


@pytest.mark.parametrize("moves", [0.0, 0.1])
def test_a_scale_of_levels_that_never_moves_is_taken_as_fixed(moves: float) -> None:
    x = (torch.rand(N, D, generator=torch.Generator().manual_seed(0)) * 16).round() / 16

    def law(z: Tensor) -> LevelsDistribution:
        return LevelsDistribution(torch.full((len(z), D), 0.5), -2.0 + moves * z[:, :1].expand(-1, D), n_levels=17)

    found = found_of(law, x).likelihood
    assert found is not None
    family = DiscretisedLogistic(D, n_levels=17, variance="learned" if moves else "fixed")
    wanted = floor_datum_nats(family, Columns.of(x).without(x), x)  # a fixed scale starts at exp(-2)
    np.testing.assert_allclose(np.sort(found.floor_datum_nats[0]), wanted.sort().values.numpy(), rtol=0, atol=1e-6)


def test_a_variance_that_moves_is_free() -> None:
    def moves(z: Tensor) -> Normal:
        mean = torch.zeros(len(z), D)
        return Normal(mean, (0.1 * z[:, :1]).exp().expand(-1, D))

    diagnosis = found_of(moves)
    found = diagnosis.likelihood
    assert found is not None
    np.testing.assert_allclose(np.sort(found.floor_datum_nats[0]), left_out(None), rtol=0, atol=1e-10)
    assert found.marks == (BELOW_FLOOR,)  # its mean is 0, where x is about 3
    assert [str(doubt) for doubt in diagnosis.doubts if doubt.what == "likelihood"] == [
        f"likelihood, seed 0: {BELOW_FLOOR}"
    ]
    assert "Below the floor in 1 of 1 replicas" in diagnosis.to_text().replace("\n", " ")


@pytest.mark.parametrize(("sd", "marked"), [(0.0, False), (0.1, False), (0.3, False), (3.0, True)])
def test_a_collapsed_model_lies_at_the_floor(sd: float, marked: bool) -> None:
    """Its logits are off by a deviation sd, as optimisation leaves them; 3 is no longer trained."""
    source = torch.Generator().manual_seed(1)
    p = torch.rand(200, generator=source) * 0.2
    x = (torch.rand(N, 200, generator=source) < p).float()
    logits = torch.logit(p.clamp(min=1e-3)) + sd * torch.randn(200, generator=source)
    diagnosis = found_of(lambda z: Bernoulli(logits=logits.expand(len(z), -1)), x)
    found = diagnosis.likelihood
    assert found is not None and found.marks == (BELOW_FLOOR if marked else "",)


def test_a_distribution_without_a_closed_form_has_a_sentence() -> None:
    diagnosis = found_of(lambda z: Gamma(torch.full((len(z), D), 2.0), 1.0))
    found = diagnosis.likelihood
    assert found is not None and np.isnan(found.floor_nats).all() and found.marks == ("",)
    assert "closed form for Bernoulli, categorical and Gaussian x" in found.floor_refused[0]
    assert "No floor." in diagnosis.to_text()


def test_several_observed_parts_have_a_sentence() -> None:
    def infer(visit: hvae.Visit) -> None:
        visit("z", Normal(visit.code["a"], 1.0))

    def generate(visit: hvae.Visit) -> None:
        z = visit("z", Normal(torch.zeros(2), 1.0))
        visit("a", Normal(z, 1.0))
        visit("b", Normal(z, 1.0))

    x = {"a": X[:, :2], "b": X[:, 2:4]}
    found = hvae.diagnose(hvae.Model(infer, generate), x, sizes=SMALL, progress=False).likelihood
    assert found is not None and np.isnan(found.floor_nats).all() and found.floor_refused[0] != ""


def test_it_stands_in_the_data_frame() -> None:
    pytest.importorskip("pandas")
    diagnosis = found_of(lambda z: Normal(3.0 + 0.0 * z.mean(-1, keepdim=True).expand(-1, D), 1.0))
    assert diagnosis.likelihood is not None
    frame = diagnosis.to_dataframe()
    (row,) = frame[frame.quantity == "floor_nats"].itertuples()
    assert row.layer == "" and row.unit == "nats" and row.middle == diagnosis.likelihood.floor_nats[0, 1]
