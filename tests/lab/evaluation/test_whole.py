"""A trained run becomes arrays: names, shapes, order of axes, and what a dead replica leaves."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import hvae
from hvae import rng
from hvae.data import Dataset, load
from hvae.lab.config import BlocksConfig, DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import evaluate, replicas, sizes_of
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import Trained, load_trained, train
from hvae.measuring import measure_likelihood
from hvae.posterior import alone, shared
from hvae.vocabulary import FAILED, RULE, VERDICTS

WIDTHS = (4, 2)
CONFIG = RunConfig(
    data=DataConfig(name="digits-threshold", n_train=256),
    model=ModelConfig(latents=WIDTHS, hidden=((16,),)),
    training=TrainingConfig(seeds=(3, 5), n_steps=100, batch_size=64),
    evaluation=EvaluationConfig(
        n_images=64, max_paths=32, n_likelihood=20, n_samples=30, n_likelihood_deep=5, n_samples_deep=50
    ),
)
INTERVALS = (
    "rate_nats", "kl_standard_nats", "parent_information_nats", "information_nats", "reading_nats",
    "knockout_encoder_nats", "knockout_whole_nats", "knockout_clamped_nats",
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
    assert found["kl_prior_nats/z1"].shape == found["kl_prior_nats/z2"].shape == (2, 3)
    assert found["moved_share/z1"].shape == (2, 3, 3) and found["used_cap_nats/z1"].shape == (2,)
    assert [str(found[f"collapse_reference/{name}"]) for name in ("z1", "z2")] == ["aggregate", "prior"]
    assert found["marks/z1"].tolist() == ["too few images"] * 2 or found["verdict/z1"][:, 1].tolist() == ["active"] * 2
    assert int(found["rule"]) == RULE and int(found["schema"]) == 1 and found["units"].tolist() == list(WIDTHS)
    assert {key: int(found[f"sizes/{key}"]) for key in ("n_images", "max_paths", "n_paths_use")} == {
        "n_images": 64, "max_paths": 32, "n_paths_use": 32
    }  # fmt: skip


def test_likelihood_of_a_trained_run(run: Run) -> None:
    found = run.load_arrays("likelihood")
    assert found["n_samples"].tolist() == [1, 10, 30] and found["n_samples_deep"].tolist() == [1, 10, 50]
    for suffix, n in (("", 20), ("_deep", 5)):
        assert found[f"bound_nats{suffix}"].shape == (2, 3, 3)
        for key in ("bound_datum_nats", "elbo_datum_nats", "se_nats", "ess", "pareto_k"):
            assert found[f"{key}{suffix}"].shape == (2, n)
        assert found[f"warning{suffix}"].shape == (2,)
    assert np.array_equal(found["elbo_nats"], found["bound_nats"][:, 0])
    middle = found["bound_nats"][..., 1]
    assert (np.diff(middle, axis=1) > 0).all()  # L_1 < L_10 < L_30
    assert middle[:, -1] == pytest.approx(found["bound_datum_nats"].mean(1))
    assert middle[:, 0] == pytest.approx(found["elbo_datum_nats"].mean(1))


def test_images_are_drawn_at_random_and_recorded(run: Run, data: Dataset) -> None:
    index = run.load_arrays("likelihood")["image_index"]
    assert index.shape == (20,) and len(set(index.tolist())) == 20
    order = rng.permutation(len(data.test), seed=CONFIG.evaluation.seed, purpose="evaluation")
    assert index.tolist() == order[:20].tolist() != sorted(index.tolist())
    other = rng.permutation(len(data.test), seed=CONFIG.evaluation.seed + 1, purpose="evaluation")
    assert order.tolist() != other.tolist()
    pictures = run.load_arrays("images")
    assert np.array_equal(pictures["x"], data.test[index[:10]].numpy())
    model = load_trained(run, data).models[1]
    expected = measure_likelihood(model, data.test[index], 30, until_se=0.1, seed=0)
    found = run.load_arrays("likelihood")
    assert found["bound_datum_nats"][1] == pytest.approx(expected.bound_datum_nats[0], abs=1e-6)
    assert found["log_px_datum_nats"][1] == pytest.approx(expected.log_px_datum_nats[0], abs=1e-4)
    assert found["until_se"] == 0.1 and found["log_px_nats"].shape == (2, 3)


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


def test_the_diagnosis_of_blocks_is_that_of_the_same_weights_from_python(data: Dataset, tmp_path: Path) -> None:
    """A run on disk, and the stack that Python makes with its weights, measured by `hvae.diagnose`."""
    blocks = BlocksConfig("1x1,8m1", width=8, channels=2, merge="ladder", reads_state=False)
    sizes = EvaluationConfig(n_images=20, max_paths=4, n_likelihood=8, n_samples=30)
    training = TrainingConfig(seeds=(3,), n_steps=4, batch_size=32)
    config = RunConfig(CONFIG.data, ModelConfig(blocks=blocks), training=training, evaluation=sizes)
    run = Run.create_or_open(tmp_path, "trial", "blocks", config)
    train(run, data, progress=False)
    evaluate(run, data, progress=False)
    (kept,) = load_trained(run, data).models

    style, source = hvae.BlockStyle(width=8, channels=2), torch.Generator()
    decoder = hvae.ResidualDecoder((8, 8), "1x1,8m1", hvae.Bernoulli(64), style, source=source)
    posterior = hvae.ResidualPosterior(decoder, source=source, merge=shared, top=alone, reads_state=False)
    model = hvae.HVAE(decoder, posterior)
    model.load_state_dict(kept.state_dict())
    found = hvae.diagnose(model.eval(), data.test, sizes=sizes_of(sizes), progress=False)
    arrays, n_compared = run.load_arrays("diagnostics"), 0
    for layer in found.layers:
        assert arrays[f"verdict/{layer.name}"].tolist() == [list(words) for words in layer.verdict]
        for key, interval in layer.intervals.items():
            np.testing.assert_allclose(arrays[f"{key}/{layer.name}"], interval, rtol=1e-6, atol=1e-7, err_msg=key)
            n_compared += 1
    assert n_compared > 12
    likelihood = run.load_arrays("likelihood")
    assert found.likelihood is not None
    np.testing.assert_allclose(likelihood["elbo_datum_nats"], found.likelihood.elbo_datum_nats, rtol=1e-6)
