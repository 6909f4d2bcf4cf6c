"""Encoders refitted at frozen decoders: against a plain loop, closed forms, enumeration; what is written."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae import rng
from hvae.diagnostics.unamortised import Ascent
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian
from hvae.experiments import orders
from hvae.experiments.orders.claims import part
from hvae.experiments.orders.frozen_decoder import (
    AMORTISED,
    Known,
    bernoulli,
    gaussians,
    known_rows,
    least_gap,
    refitted_arrays,
    unamortised_arrays,
)
from hvae.experiments.orders.refit import refit, with_encoders
from hvae.lab.assembly import build_hvae, build_objective
from hvae.lab.config import ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation import Budget
from hvae.lab.evaluation.replicas import Replicas
from hvae.likelihood.importance import log_likelihood_curve
from hvae.schedules import Constant, StepDecay
from tests.lab.training.test_loop import MODEL, config, toy, trained
from tests.statistics import assert_mean

BERNOULLI = replace(MODEL, families=("bernoulli",), prior="learned")
KINDS: dict[str, tuple[ModelConfig, ObjectiveConfig]] = {
    **{order: (replace(MODEL, order=order), ObjectiveConfig()) for order in AMORTISED},
    "Bernoulli units, top-down-shared": (replace(BERNOULLI, order="top-down-shared"), ObjectiveConfig(n_samples=2)),
    "sticking the landing, skips": (
        replace(MODEL, generative_skips=True), ObjectiveConfig(gradient="sticking-the-landing"),
    ),
    "iwae, full covariance": (replace(MODEL, families=("full-gaussian",)), ObjectiveConfig("iwae", 2)),
}  # fmt: skip


def decoders(model: ModelConfig, n: int) -> list[Any]:
    return [build_hvae(model, toy(), seed=50 + number).decoder for number in range(n)]


def plain_twin(model: HVAE, settings: RunConfig, seed: int) -> dict[str, Tensor]:
    """One model: no stacking, no vmap, no fused kernels, and an optimiser that never hears of the decoder."""
    steps, data = settings.training, toy()
    objective = build_objective(settings.objective, model.latents)
    weights = list(model.posterior.parameters())
    optimiser = torch.optim.Adam(weights, lr=1.0, foreach=False, fused=False)
    per_epoch = len(data.train) // steps.batch_size
    for step in range(steps.n_steps):
        order = rng.permutation(len(data.train), seed=seed, purpose="order", step=step // per_epoch)
        first = step % per_epoch * steps.batch_size
        x = data.train[order][first : first + steps.batch_size]
        noise = rng.noise(
            objective.noise_specs(model), settings.objective.n_samples, steps.batch_size,
            seed=seed, purpose="train", step=step,
        )  # fmt: skip
        optimiser.zero_grad()
        objective.on(model, x.unsqueeze(0), noise, step)[0].backward()
        norm = math.sqrt(
            sum(weight.grad.double().square().sum().item() for weight in weights if weight.grad is not None)
        )
        for weight in weights:
            assert weight.grad is not None
            weight.grad.mul_(min(1.0, steps.clip_norm / norm))
        falling = math.cos(math.pi / 2 * step / steps.n_steps) ** 2
        optimiser.param_groups[0]["lr"] = falling * steps.learning_rate(step)
        optimiser.step()
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", KINDS)
def test_only_encoders_move_as_in_a_plain_loop_and_replicas_as_if_alone(name: str) -> None:
    """Up to float32 rounding, 1e-6 after 20 steps of 1e-2 each; decoders, and what was handed over, bit for bit."""
    model, objective = KINDS[name]
    knobs = {"n_steps": 20, "clip_norm": 3.0, "learning_rate": StepDecay(8, factor=0.8, start=1e-2)}
    settings, one = (config(model, objective, seeds=seeds, **knobs) for seeds in ((4, 0, 7), (7,)))
    start = with_encoders(decoders(model, 3), toy(), settings)
    before = [{key: value.clone() for key, value in found.state_dict().items()} for found in start]
    together = refit(start, toy(), settings)
    (alone,) = refit(start[2:], toy(), one)
    twin = plain_twin(with_encoders(decoders(model, 3)[2:], toy(), one)[0], one, seed=7)
    moved = 0.0
    for found, old, untouched in zip(together, before, start, strict=True):
        assert not found.training
        for key, value in found.state_dict().items():
            assert torch.equal(untouched.state_dict()[key], old[key])
            if not key.startswith("posterior."):
                assert torch.equal(value, old[key]), key
    for key, value in together[2].named_parameters():
        torch.testing.assert_close(value, alone.get_parameter(key), atol=1e-6, rtol=0)
        torch.testing.assert_close(value, twin[key], atol=1e-6, rtol=0)
        moved = max(moved, float((value.detach() - before[2][key]).abs().max()))
    assert moved > 0.02


def test_each_encoder_is_fresh_and_beside_its_own_copy_of_the_decoder() -> None:
    given = decoders(MODEL, 2)
    found = with_encoders(given, toy(), config(replace(MODEL, order="mean-field"), seeds=(3, 4)))
    for model, decoder, seed in zip(found, given, (3, 4), strict=True):
        fresh = build_hvae(replace(MODEL, order="mean-field"), toy(), seed=seed)
        for mine, theirs in ((model.decoder, decoder), (model.posterior, fresh.posterior)):
            assert all(torch.equal(mine.state_dict()[key], value) for key, value in theirs.state_dict().items())
        assert model.decoder is not decoder
    with pytest.raises(ConfigError, match="batch_norm"):
        with_encoders(given, toy(), config(replace(MODEL, batch_norm=(True,))))
    with pytest.raises(ConfigError, match="vamp"):
        with_encoders(decoders(replace(MODEL, prior="vamp", n_pseudo_inputs=4), 2), toy(), config())


# -- where the answer is known -------------------------------------------------------------------------


def fitted(known: Known, order: str, n_steps: int, learning_rate: float) -> HVAE:
    settings = RunConfig(
        model=replace(known.model, order=order),  # type: ignore[arg-type]
        objective=ObjectiveConfig(n_samples=8),
        training=TrainingConfig(seeds=(0,), n_steps=n_steps, batch_size=200, learning_rate=Constant(learning_rate)),
    )
    return refit(with_encoders([known.decoder], known.data, settings), known.data, settings)[0]


@pytest.mark.parametrize(
    "order", [*(pytest.param(order, marks=pytest.mark.slow) for order in ("bottom-up", "bottom-up-x")), "mean-field"]
)
def test_a_refitted_linear_encoder_reaches_the_least_gap_of_its_order(order: str) -> None:
    """Never below it, and within 0.002 nats of it on data that no fit saw; another order's is 0.4 away."""
    known = gaussians(2000)
    model = fitted(known, order, 500, 0.05).double()
    reference = LinearGaussian.of(model.decoder)
    least, others = least_gap(reference, order), {least_gap(reference, other) for other in AMORTISED}
    gap = reference.gaps(model.posterior, known.data.test.double()).total
    assert least < gap.mean() < least + 0.002 and all(gap >= least - 1e-6)
    assert all(abs(other - least) > 0.3 for other in others if abs(other - least) > 1e-9 and not math.isnan(other))


def test_the_least_gaps_are_those_of_the_dense_covariance() -> None:
    """Bottom-up that of the best posterior, built and measured; mean field by numpy; a ladder's has no closed form."""
    decoder = gaussians(2).decoder.double()
    reference, x = LinearGaussian.of(decoder), gaussians(5).data.test.double()
    best = reference.gaps(reference.best_posterior("bottom-up", "diagonal"), x).total
    for order in ("bottom-up", "bottom-up-x"):
        assert least_gap(reference, order) == pytest.approx(float(best.mean()), abs=1e-10)
    precision = np.linalg.inv(reference.marginal(["z1", "z2", "x"])[1].numpy())[:7, :7]
    expected = (np.log(precision.diagonal()).sum() - np.linalg.slogdet(precision)[1]) / 2
    assert (
        least_gap(reference, "mean-field") == least_gap(reference, "unamortised") == pytest.approx(expected, abs=1e-10)
    )
    assert math.isnan(least_gap(reference, "top-down")) and math.isnan(least_gap(reference, "top-down-shared"))


def enumerated(model: HVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and the gap `[B]` of Bernoulli units, by all states of all layers at once."""
    widths = [model.decoder[name].family.width for name in model.latents]
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=sum(widths))), dtype=torch.float64)
    values = dict(zip(model.latents, states.unsqueeze(1).split(widths, -1), strict=True))
    values = {name: value.expand(-1, len(x), -1) for name, value in values.items()}
    evidence = model(x.unsqueeze(0), {}, values)
    log_q = sum(site.log_prob for site in evidence.q.values())
    log_p = sum(site.log_prob for site in evidence.p.values())
    log_px = log_p.logsumexp(0)
    return log_px, (log_q.exp() * (log_q - log_p + log_px)).sum(0)


def test_rows_of_known_decoders_are_exact_and_draws_agree_with_them() -> None:
    """Bernoulli units by enumeration at 1e-10; the ELBO by draws is, over 200 data, that of the enumeration."""
    steps = TrainingConfig(seeds=(0, 1), n_steps=40, batch_size=100, learning_rate=Constant(0.03))
    stacks = [bernoulli(200), gaussians(200)]
    rows = known_rows(stacks, steps, 20, 2000, Ascent(40, 2), lambda line: None)
    names = [*AMORTISED, "unamortised"]
    assert rows["order"].tolist() == [order for _ in stacks for order in names for _ in range(2)]
    exact = np.isfinite(rows["gap_nats"])
    assert rows["order"][~exact].tolist() == ["unamortised"] * 2 and set(rows["stack"][~exact]) == {"linear-Gaussian"}
    np.testing.assert_allclose(rows["gap_z1_nats"] + rows["gap_z2_nats"], rows["gap_nats"], atol=1e-9)
    known = bernoulli(200)
    config_ = RunConfig(
        model=replace(known.model, order="top-down"), objective=ObjectiveConfig(n_samples=4), training=steps
    )
    again = refit(with_encoders([known.decoder] * 2, known.data, config_), known.data, config_)
    here = (rows["stack"] == "coins") & (rows["order"] == "top-down")
    x = known.data.test
    bounds = [log_likelihood_curve(model, x[:20], (1, 2000), seed=0).bound_datum_nats[0].mean() for model in again]
    drawn = log_likelihood_curve(again[0], x, (1, 2000), seed=3).bound_datum_nats[0]
    with torch.no_grad():
        each = [enumerated(model.double(), x.double()) for model in again]
    np.testing.assert_allclose(rows["gap_nats"][here], [float(gap[:20].mean()) for _, gap in each], atol=1e-10)
    sampled = [float(log_px[:20].mean()) - bound for (log_px, _), bound in zip(each, bounds, strict=True)]
    np.testing.assert_allclose(rows["sampled_nats"][here], sampled, atol=1e-10)
    log_px, gap = each[0]
    assert_mean(drawn - (log_px - gap).numpy(), 0.0, detect=0.02)
    assert np.isnan(rows["best_nats"][rows["stack"] == "coins"]).all()


# -- at the decoders of a run --------------------------------------------------------------------------


def test_arrays_of_a_run_are_those_of_its_refitted_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(replace(MODEL, latents=(3, 2)), n_steps=30)
    settings = replace(
        settings,
        evaluation=replace(settings.evaluation, n_images=10, max_paths=16, n_likelihood=8, n_samples=20),
    )
    run = trained(tmp_path, settings)
    ladder = replace(
        settings, model=replace(MODEL, order="top-down"), training=replace(settings.training, seeds=(8, 9))
    )
    budget = Budget(images=3, draws=2, samples=50)
    found = refitted_arrays(run, toy(), ladder, budget)
    replicas = Replicas.of(run, toy(), "cpu")
    models = refit(with_encoders([model.decoder for model in replicas.models], toy(), ladder), toy(), ladder)
    expected = [log_likelihood_curve(m, replicas.test[:8], (1, 20), seed=0).bound_datum_nats for m in models]
    np.testing.assert_array_equal(found["elbo_datum_nats"], [bounds[0] for bounds in expected])
    np.testing.assert_array_equal(found["bound_datum_nats"], [bounds[1] for bounds in expected])
    assert (str(found["decoder"]), str(found["order"]), found["seeds"].tolist()) == ("run", "top-down", [0, 1])
    for name in ("z1", "z2"):
        for key in ("rate_nats", "information_nats", "layer_gap_nats", "verdict"):
            assert found[f"{key}/{name}"].shape == (2, 3)
        assert found[f"trusted/{name}"].dtype == bool
    alone = unamortised_arrays(run, toy(), 4, Ascent(5, 2))
    assert alone["elbo_datum_nats"].shape == (2, 4) and str(alone["order"]) == "unamortised"
    monkeypatch.setattr(Replicas, "alive", [False, True])
    lame = refitted_arrays(run, toy(), ladder, budget)
    assert np.isnan(lame["elbo_datum_nats"][0]).all() and lame["verdict/z1"][0].tolist() == ["failed"] * 3
    np.testing.assert_array_equal(lame["elbo_datum_nats"][1], found["elbo_datum_nats"][1])


def test_a_replica_that_cannot_be_measured_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path, config(n_steps=4))
    replicas = Replicas.of(run, toy(), "cpu")
    with torch.no_grad():
        next(replicas.models[1].decoder.parameters()).fill_(math.nan)
    monkeypatch.setattr(Replicas, "of", staticmethod(lambda *_: replicas))
    found = unamortised_arrays(run, toy(), 3, Ascent(2, 2))
    assert np.isfinite(found["elbo_datum_nats"][0]).all() and np.isnan(found["elbo_datum_nats"][1]).all()


@pytest.mark.parametrize("preset", orders.PRESETS)
def test_every_order_is_refitted_alike_from_seeds_of_its_own(preset: str) -> None:
    runs = orders.configs(preset)
    made = {order: orders.refitted(preset, order) for order in orders.ORDERS}
    for order, settings in made.items():
        assert settings.model == runs[order].model and settings.data == runs[order].data
        assert settings.training == made["bottom-up"].training
        assert not set(settings.training.seeds) & set(runs[order].training.seeds)
    parts: dict[str, Callable[[], Any]] = orders.measure(preset, {}, None, lambda line: None)
    owners = ("bottom-up", "top-down")
    assert set(parts) == {part(owner, order) for owner in owners for order in (*orders.ORDERS, "unamortised")} | {
        "known"
    }
    assert orders.ORDERS == AMORTISED
