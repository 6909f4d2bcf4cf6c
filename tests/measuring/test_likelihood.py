"""log p(x) as a record: its bound with method, cost and doubt, beside the curve; and runs that have the curve alone."""

import math
from typing import Any

import numpy as np
import pytest

from hvae.diagnosis.arrays import from_arrays, to_arrays
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.likelihood import Likelihood
from hvae.diagnosis.record import flat, joined, read
from hvae.diagnosis.sizes import Sizes
from hvae.errors import ConfigError
from hvae.exact.known_stacks import linear_stack
from hvae.measuring import measure, measure_likelihood
from hvae.measuring.likelihood import measure_curve

SIZES = Sizes(n_images=6, max_paths=16, n_likelihood=6, n_samples=200, n_likelihood_deep=4, n_samples_deep=100)


@pytest.fixture(scope="module")
def found() -> Likelihood:
    stack = linear_stack(10.0, "over-confident", seed=0)
    return measure_likelihood(stack.model, stack.x, 1000, until_se=0.1, seed=0)


def test_the_bound_stands_beside_the_curve(found: Likelihood) -> None:
    exact = linear_stack(10.0, "over-confident", seed=0).reference.log_px(linear_stack(10.0, "best", seed=0).x)
    assert found.has_log_px and found.direction == "lower" and found.shown_as == "log p(x)"
    assert found.log_px_nats[0, 1] == pytest.approx(found.log_px_datum_nats.mean())
    assert (found.shown == found.log_px_nats).all() and found.best[0, 1] < found.shown[0, 1] - 1
    assert found.methods == {"refined": 6} and found.warning == ("",) and found.doubt_nats[0] < 0.1
    assert (found.log_px_se_nats < 0.1).all() and (found.log_px_evaluations > 1000).all()
    assert exact.shape == (6,)


def test_it_is_written_and_read(found: Likelihood) -> None:
    arrays = flat(found, [True])
    again = read(Likelihood, arrays, 1)
    for name in ("log_px_nats", "log_px_method", "log_px_reached", "doubt_nats"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert again.until_se == 0.1


def test_runs_of_before_have_the_curve_alone(found: Likelihood) -> None:
    arrays = {key: value for key, value in flat(found, [True]).items() if "log_px" not in key}
    del arrays["doubt_nats"], arrays["until_se"]
    old = read(Likelihood, arrays, 1)
    assert not old.has_log_px and old.shown_as == "L_1000" and (old.shown == old.best).all()
    assert np.isnan(old.log_px_nats).all() and np.isnan(old.doubt_nats).all() and old.methods == {}


def test_the_deeper_one_is_a_curve() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    diagnosis = measure([stack.model, None], stack.x, SIZES)
    assert diagnosis.likelihood is not None and diagnosis.likelihood_deep is not None
    assert diagnosis.likelihood.has_log_px and not diagnosis.likelihood_deep.has_log_px
    assert diagnosis.likelihood_deep.shown_as == "L_100"
    files = to_arrays(diagnosis)
    again = from_arrays(Diagnosis, lambda name: files.get(name, {}))
    assert again.sizes == SIZES and again.likelihood is not None
    assert again.likelihood.until_se == 0.1 and np.isnan(again.likelihood.log_px_nats[1]).all()


def test_a_replica_that_failed_has_no_method(found: Likelihood) -> None:
    both = joined([found, None], found)
    assert both.methods == found.methods and not both.log_px_reached[1].any()


def test_doubt_of_a_curve_is_said_in_nats() -> None:
    stack = linear_stack(10.0, "over-confident", seed=0)
    curve = measure_curve(stack.model, stack.x, 1000, seed=0)
    assert "its mean may lie" in curve.warning[0] and "nats below" in curve.warning[0]


@pytest.mark.parametrize("wrong", [0, 0.0, -0.1, math.nan, math.inf, "a", None, True])
def test_an_error_that_cannot_be_wanted_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^until_se is .*; give [^.]*(\.$|0 nats, and a finite number\.$|at least 0\.$)"
    ):
        Sizes(until_se=wrong)
