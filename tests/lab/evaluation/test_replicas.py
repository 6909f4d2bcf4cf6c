"""A trained run becomes arrays: names, shapes, order of axes, and what a dead replica leaves."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae import rng
from hvae.data import Dataset, load
from hvae.lab.assembly import build_hvae
from hvae.lab.config import (
    MERGING,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from hvae.lab.evaluation import evaluate, image_arrays, layer_diagnostics, likelihood_arrays, replicas
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import Trained, load_trained, train
from hvae.vocabulary import FAILED, VERDICTS

WIDTHS = (4, 2)
CONFIG = RunConfig(
    data=DataConfig(name="digits-threshold", n_train=256),
    model=ModelConfig(latents=WIDTHS, hidden=((16,),)),
    training=TrainingConfig(seeds=(3, 5), n_steps=100, batch_size=64),
    evaluation=EvaluationConfig(
        n_images=64, max_paths=32, n_likelihood=20, n_samples=30, n_likelihood_deep=5, n_samples_deep=50, n_bootstrap=50
    ),
)
INTERVALS = (
    "rate_nats", "kl_standard_nats", "parent_information_nats", "information_nats", "reading_nats",
    "knockout_encoder_nats", "knockout_model_nats",
)  # fmt: skip
UNIT_INTERVALS = ("rate_unit_nats", "kl_standard_unit_nats", "burda_variance")

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load(CONFIG.data.name, n_train=CONFIG.data.n_train)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained and evaluated."""
    run = Run.create_or_open(tmp_path_factory.mktemp("runs"), "trial", "two layers", CONFIG)
    train(run, data, progress=False)
    evaluate(run, data, progress=False)
    return run


def test_diagnostics_of_a_trained_run(run: Run) -> None:
    found = run.load_arrays("diagnostics")
    assert found["seeds"].tolist() == [3, 5] and found["alive"].tolist() == [True, True]
    assert int(found["n_images"]) == 64
    assert found["epsilons"].tolist() == [0.03, 0.1, 0.3]
    assert str(found["order"]) == "bottom-up" and found["layers"].tolist() == ["z1", "z2"]
    for name, width in zip(("z1", "z2"), WIDTHS, strict=True):
        intervals = [found[f"{key}/{name}"] for key in INTERVALS]
        assert all(interval.shape == (2, 3) for interval in intervals)
        per_unit = [found[f"{key}/{name}"] for key in (*UNIT_INTERVALS, "twin_covariance")]
        assert all(interval.shape == (2, width, 3) for interval in per_unit)
        for interval in (*intervals, *per_unit):
            assert np.isfinite(interval).all()
            assert (interval[..., 0] <= interval[..., 1]).all() and (interval[..., 1] <= interval[..., 2]).all()
        assert found[f"collapsed_fraction/{name}"].shape == (2, len(found["collapse_epsilons"]))
        assert found[f"verdict/{name}"].shape == (2, 3) and set(found[f"verdict/{name}"].ravel()) <= set(VERDICTS)
        assert found[f"n_paths/{name}"].shape == (2,)
        assert f"residual_variance/{name}" not in found
        summed = found[f"rate_unit_nats/{name}"][..., 1].sum(-1)
        assert summed == pytest.approx(found[f"rate_nats/{name}"][:, 1], abs=1e-4)
    assert "kl_prior_nats/z1" not in found and found["kl_prior_nats/z2"].shape == (2, 3)
    assert [str(found[f"collapse_reference/{name}"]) for name in ("z1", "z2")] == ["aggregate", "prior"]
    assert found["verdict/z1"][:, 1].tolist() == ["active", "active"]


def test_likelihood_of_a_trained_run(run: Run) -> None:
    found = run.load_arrays("likelihood")
    assert found["n_samples"].tolist() == [1, 10, 30] and found["n_samples_deep"].tolist() == [1, 10, 50]
    for suffix, n in (("", 20), ("_deep", 5)):
        assert found[f"bound_nats{suffix}"].shape == (2, 3, 3)
        for key in ("bound_datum_nats", "se_nats", "ess", "pareto_k"):
            assert found[f"{key}{suffix}"].shape == (2, n)
        assert found[f"warning{suffix}"].shape == (2,)
    assert np.array_equal(found["elbo_nats"], found["bound_nats"][:, 0])
    middle = found["bound_nats"][..., 1]
    assert (np.diff(middle, axis=1) > 0).all()  # L_1 < L_10 < L_30
    assert middle[:, -1] == pytest.approx(found["bound_datum_nats"].mean(1))


def test_images_are_drawn_at_random_and_recorded(run: Run, data: Dataset) -> None:
    index = run.load_arrays("likelihood")["image_index"]
    assert index.shape == (20,) and len(set(index.tolist())) == 20
    order = rng.permutation(len(data.test), seed=CONFIG.evaluation.seed, purpose="evaluation")
    assert index.tolist() == order[:20].tolist() != sorted(index.tolist())
    other = rng.permutation(len(data.test), seed=CONFIG.evaluation.seed + 1, purpose="evaluation")
    assert order.tolist() != other.tolist()
    pictures = run.load_arrays("images")
    assert np.array_equal(pictures["x"], data.test[index[:10]].numpy())
    expected = likelihood_arrays(load_trained(run, data).models[1], data.test[index], CONFIG.evaluation)
    found = run.load_arrays("likelihood")["bound_datum_nats"][1]
    assert found == pytest.approx(expected["bound_datum_nats"], abs=1e-6)


def test_pictures_of_a_trained_run(run: Run) -> None:
    found = run.load_arrays("images")
    assert found["image_shape"].tolist() == [8, 8]
    assert found["reconstruction"].shape == found["x"].shape == (10, 64)
    assert found["samples"].shape[1:] == (64,)
    for name in ("z1", "z2"):
        assert found[f"resample/{name}"].shape[::2] == (10, 64)
        assert 0 <= found[f"resample/{name}"].min() and found[f"resample/{name}"].max() <= 1
    spread = {name: found[f"resample/{name}"].std(1).mean() for name in ("z1", "z2")}
    assert spread["z1"] < 1e-6 < spread["z2"]  # z1 and all above kept: x's mean is settled


@pytest.mark.parametrize("alive", [[True, False], [False, False]], ids=["one dead", "all dead"])
def test_a_dead_replica_takes_nan_and_fails(
    run: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: list[bool]
) -> None:
    dead = Run.create_or_open(tmp_path, "trial", "dead", CONFIG)
    train(dead, data, progress=False)

    def load_dead(run: Run, data: Dataset, device: str) -> Trained:
        found = load_trained(run, data, device)
        found.health.alive = torch.tensor(alive)
        return found

    monkeypatch.setattr(replicas, "load_trained", load_dead)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(dead, data, progress=False)
    found, whole = dead.load_arrays("diagnostics"), run.load_arrays("diagnostics")
    assert found.keys() == whole.keys()
    assert found["alive"].tolist() == alive
    for name in ("z1", "z2"):
        assert (found[f"verdict/{name}"][1] == FAILED).all()
        assert (found[f"verdict/{name}"][0] == (whole[f"verdict/{name}"][0] if alive[0] else FAILED)).all()
        for key in (*INTERVALS, *UNIT_INTERVALS, "collapsed_fraction"):
            kept, lost = found[f"{key}/{name}"]
            assert np.isnan(lost).all() and not np.isnan(kept).any() == alive[0]
    likelihood = dead.load_arrays("likelihood")
    assert likelihood.keys() == run.load_arrays("likelihood").keys()
    assert np.isnan(likelihood["bound_nats"][1]).all() and likelihood["warning"][1] == FAILED
    assert dead.has_arrays("images") == any(alive)


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
        evaluation=CONFIG.evaluation,
    )
    model = build_hvae(config.model, data, seed=0).eval()
    found = layer_diagnostics(model, data.test[:64], config.evaluation, data.test[64:128])
    for name, kind, units in zip(model.latents, kinds, (4, 3, 2), strict=False):
        for key in INTERVALS:
            assert np.isfinite(found[f"{key}/{name}"]).all(), key
        extra = "twin_covariance" if order not in MERGING or len(kinds) == 1 else "residual_variance"
        for key in (*UNIT_INTERVALS, extra):
            if kind == "full-gaussian":
                assert f"{key}/{name}" not in found
            else:
                assert found[f"{key}/{name}"].shape == (units, 3) and np.isfinite(found[f"{key}/{name}"]).all(), key
        assert (f"kl_prior_nats/{name}" in found) == (order in MERGING or name == model.latents[-1])
    assert np.isfinite(likelihood_arrays(model, data.test[:5], config.evaluation)["bound_nats"]).all()
    assert image_arrays(model, data.test[:3], data.image_shape, 0)["reconstruction"].shape == (3, 64)


def test_a_unit_that_never_changes_is_measured_too(data: Dataset) -> None:
    """A saturated Bernoulli unit: every q(z1 | x) is the same to the last digit, at a logit where float32 rounds to
    1."""
    for kind in ("bernoulli", "categorical"):
        model = build_hvae(ModelConfig(latents=(4, 3), hidden=((8,),), families=(kind,)), data, seed=0).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            for name in model.latents:
                output = model.posterior.network[name].net[-1]  # type: ignore[attr-defined]
                output.weight[0], output.bias[0] = 0, 200.0
        found = layer_diagnostics(model, data.test[:64], CONFIG.evaluation)
        assert all(np.isfinite(found[f"{key}/{name}"]).all() for key in INTERVALS for name in model.latents), kind
