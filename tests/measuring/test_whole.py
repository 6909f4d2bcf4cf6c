"""One function from models to a diagnosis: any model, replicas that died, and no configuration."""

import dataclasses

import numpy as np
import pytest

from hvae import measuring
from hvae.diagnosis import Sizes
from hvae.errors import ConfigError, NotMeasuredError
from hvae.evidence import HVAE, ClosedFormError
from hvae.exact import NoReferenceError
from hvae.exact.known_stacks import linear_stack
from hvae.lab.config import EvaluationConfig
from hvae.likelihood.target import NotWhitenedError
from hvae.measuring import measure
from tests.test_own_decoder import Plain

SIZES = Sizes(n_images=6, max_paths=16, n_likelihood=6, n_samples=20)


def test_a_decoder_of_four_methods_is_measured_like_its_network() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    own = HVAE(Plain(stack.model.decoder), stack.model.posterior)  # type: ignore[arg-type]
    found = measure([own, stack.model], stack.x, SIZES)
    for layer in found.layers:
        for key, values in (*layer.intervals.items(), *layer.unit_intervals.items()):
            np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-6, err_msg=key)
    assert found.likelihood is not None
    np.testing.assert_allclose(*found.likelihood.bound_nats, rtol=1e-6)


def test_the_sizes_of_a_run_are_those_of_its_evaluation() -> None:
    """Or numbers of released runs would move."""
    mine = dataclasses.asdict(Sizes())
    assert dataclasses.asdict(EvaluationConfig()).items() <= mine.items()
    assert [mine[key] for key in ("n_paths", "n_paths_use", "n_paths_knockout", "n_mixture")] == [32, 32, 32, 8]


def test_sizes_that_are_too_small_are_refused() -> None:
    for knob, value in (("n_images", 1), ("n_paths", 1), ("seed", -1), ("n_mixture", 0)):
        with pytest.raises(ConfigError, match=f"{knob} is {value}; give at least"):
            Sizes(**{knob: value})
    for epsilon in (0.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="epsilon_nats is"):
            Sizes(epsilon_nats=epsilon)


def test_where_all_died_another_model_shows_the_layers() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    found = measure([None, None], stack.x, SIZES, like=stack.model)
    assert found.verdicts["z1"] == ("failed", "failed") and found.pictures is None
    assert all(np.isnan(values).all() for layer in found.layers for values in layer.intervals.values())
    assert found.likelihood is not None and np.isnan(found.likelihood.bound_nats).all()
    with pytest.raises(ValueError, match="Of 2 models none is there"):
        measure([None, None], stack.x, SIZES)
    with pytest.raises(ValueError, match="There are 1 data; give at least 2"):
        measure([stack.model], stack.x[:1], SIZES)


def test_data_without_a_name_have_one_that_only_equal_data_share() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    names = [measure([stack.model], x, SIZES).yardstick for x in (stack.x, stack.x + 0, stack.x + 1)]
    assert names[0] == names[1] != names[2] and "6x6" in names[0]


def test_a_likelihood_that_is_refused_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise NotMeasuredError("x has no log_prob.")

    monkeypatch.setattr("hvae.measuring.likelihood.cheapest_bound", refuse)
    stack = linear_stack(1.0, "best", seed=0)
    found = measure([stack.model], stack.x, SIZES)
    assert found.not_measured["likelihood", ""] == "x has no log_prob."
    assert np.isfinite(found.layers[0].interval("information_nats")).all()


def test_every_refusal_of_the_instrument_is_one() -> None:
    for kind in (NotWhitenedError, NoReferenceError, ClosedFormError):
        assert issubclass(kind, NotMeasuredError) and issubclass(kind, ValueError)


def test_every_replica_ticks_twice() -> None:
    ticks: list[None] = []
    stack = linear_stack(1.0, "best", seed=0)
    measuring.measure([stack.model, None], stack.x, SIZES, tick=lambda: ticks.append(None))
    assert len(ticks) == 4
