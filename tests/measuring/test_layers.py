"""Every family in every order has its numbers; what a model cannot give costs its quantities alone, and says why."""

import itertools

import numpy as np
import pytest
import torch

from hvae.data import Dataset, load
from hvae.diagnostics import usage
from hvae.diagnostics.knockouts import Knockouts
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.exact.known_stacks import linear_stack
from hvae.lab.assembly import build_hvae
from hvae.lab.config import MERGING, ModelConfig, ObjectiveConfig, RunConfig
from hvae.measuring import Sizes, draw_pictures, judging, layers, measure_layers, measure_likelihood
from hvae.vocabulary import ACTIVE, TO_STANDARD, UNDECIDED
from tests.diagnostics.chains import Stack, images, link, root

SIZES = Sizes(n_images=64, max_paths=32)
INTERVALS = (
    "rate_nats", "kl_standard_nats", "parent_information_nats", "information_nats", "reading_nats",
    "knockout_encoder_nats", "knockout_whole_nats", "knockout_clamped_nats",
)  # fmt: skip
UNIT_INTERVALS = ("rate_unit_nats", "kl_standard_unit_nats", "burda_variance")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits-threshold", n_train=256)


@pytest.mark.parametrize(
    ("order", "kinds"),
    [
        ("bottom-up", ("bernoulli", "bernoulli")),
        ("bottom-up", ("categorical", "categorical")),
        ("bottom-up", ("full-gaussian", "full-gaussian")),
        ("bottom-up", ("gaussian", "bernoulli", "categorical")),
        ("top-down", ("gaussian", "gaussian")),
        ("top-down", ("bernoulli", "bernoulli")),
        ("top-down", ("categorical", "categorical")),
        ("top-down", ("gaussian", "bernoulli", "categorical")),
        ("top-down", ("gaussian",)),
        *itertools.product(
            ("bottom-up-x", "mean-field", "top-down-shared"),
            (("gaussian", "gaussian"), ("bernoulli", "bernoulli"), ("gaussian", "bernoulli", "categorical")),
        ),
        ("top-down-shared", ("gaussian",)),
    ],
)
def test_every_family_is_measured_in_the_orders_it_allows(order: str, kinds: tuple[str, ...], data: Dataset) -> None:
    discrete = {"bernoulli", "categorical"} & set(kinds)
    config = RunConfig(
        model=ModelConfig(latents=(4, 3, 2)[: len(kinds)], hidden=((8,),), order=order, families=kinds),  # type: ignore[arg-type]
        objective=ObjectiveConfig(n_samples=2 if discrete else 1),
    )
    model = build_hvae(config.model, data, seed=0).eval()
    found = measure_layers(model, data.test[:64], SIZES, data.test[64:128])
    for layer, kind, units in zip(found, kinds, (4, 3, 2), strict=False):
        for key in INTERVALS:
            assert np.isfinite(layer.interval(key)).all(), key
        assert ("knockout_model_nats" in layer.intervals) != ("knockout_model_nats" in layer.not_measured)
        extra = "twin_covariance" if order not in MERGING or len(kinds) == 1 else "residual_variance"
        for key in (*UNIT_INTERVALS, extra):
            if kind == "full-gaussian":
                assert key not in layer.unit_intervals
            else:
                of_units = layer.unit_intervals[key]
                assert of_units.shape == (1, units, 3) and np.isfinite(of_units).all(), key
        prior, carried = layer.interval("kl_prior_nats")[0], layer.interval("parent_information_nats")[0]
        between = order == "bottom-up" and layer.name != model.latents[-1]
        assert not between or prior[0] == carried[0]  # M_l is known between J_l and T_l only
        assert ("burda_variance" in layer.not_measured) == (kind == "full-gaussian")
    assert np.isfinite(measure_likelihood(model, data.test[:5], 30, until_se=0.1, seed=0).bound_nats).all()
    assert draw_pictures(model, data.test[:3], data.image_shape, 0).reconstruction.shape == (3, 64)  # type: ignore[union-attr]


def test_a_unit_that_never_changes_is_measured_too(data: Dataset) -> None:
    """A saturated Bernoulli unit: every q(z1 | x) is the same to the last digit, at a logit where float32 rounds to
    1."""
    for kind in ("bernoulli", "categorical"):
        model = build_hvae(ModelConfig(latents=(4, 3), hidden=((8,),), families=(kind,)), data, seed=0).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            for name in model.latents:
                output = model.posterior.network[name].net[-1]  # type: ignore[attr-defined]
                output.weight[0], output.bias[0] = 0, 200.0
        found = measure_layers(model, data.test[:64], SIZES)
        assert all(np.isfinite(layer.interval(key)).all() for key in INTERVALS for layer in found), kind


# what cannot be measured


def healthy() -> HVAE:
    """z1 is active, z2 has collapsed."""
    return Stack([link(1, 0.05), link(0, 1)], [root(1.0), link(1, 0.3), link(1, 0.1)]).bottom_up()


def refuse(*_: object, **__: object) -> object:
    raise NotMeasuredError("q cannot\nscore a value that it did not draw.")


WHY = ("q cannot score a value that it did not draw.",)


def test_what_is_refused_is_nan_with_its_reason_and_all_else_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = healthy(), images(128)
    whole = measure_layers(model, x, Sizes(max_paths=64))
    monkeypatch.setattr(layers, "information", refuse)
    monkeypatch.setattr(Knockouts, "encoder", refuse)
    found = measure_layers(model, x, Sizes(max_paths=64))
    lost = ("information_nats", "parent_information_nats", "knockout_encoder_nats")
    for before, layer in zip(whole, found, strict=True):
        assert all(np.isnan(layer.interval(key)).all() and layer.not_measured[key] == WHY for key in lost)
        for key in set(before.intervals) - {*lost, "kl_prior_nats"}:  # below the top J is its low end
            np.testing.assert_array_equal(layer.interval(key), before.interval(key))
        assert np.isnan(layer.information_on_n).all()
    assert [layer.verdict[0, 1] for layer in whole] == [ACTIVE, TO_STANDARD]
    assert [layer.verdict[0, 1] for layer in found] == [ACTIVE, TO_STANDARD]  # they rest on V and on the share


@pytest.mark.parametrize(
    ("where", "lacks", "expected"),
    [
        (judging, "decoder_use", [UNDECIDED, TO_STANDARD]),
        (usage, "use", [ACTIVE, TO_STANDARD]),
    ],
)
def test_a_verdict_stands_where_what_is_left_decides(
    where: object, lacks: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without V it is not known whether a layer is active."""
    monkeypatch.setattr(where, lacks, refuse)
    found = measure_layers(healthy(), images(128), Sizes(max_paths=64))
    assert [layer.verdict[0, 1] for layer in found] == expected


def test_only_refusals_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ValueError("a fault")

    monkeypatch.setattr(usage, "use", broken)
    with pytest.raises(ValueError, match="a fault"):
        measure_layers(healthy(), images(16), Sizes(max_paths=16))


def test_the_paths_of_use_and_knockouts_are_sizes_of_their_own() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    base, fewer = (
        measure_layers(stack.model, stack.x, Sizes(max_paths=16, n_paths_use=n, n_paths_knockout=n)) for n in (32, 8)
    )
    for one, other in zip(base, fewer, strict=True):
        same = {key for key in one.intervals if np.array_equal(one.interval(key), other.interval(key))}
        of_paths = {"reading_nats", "knockout_encoder_nats", "knockout_model_nats", layers.ABOVE, *layers.LIKELIHOODS}
        assert {"reading_nats", "knockout_encoder_nats"} <= set(one.intervals) - same <= of_paths
