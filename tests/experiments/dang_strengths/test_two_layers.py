"""Two linear layers trained exactly: their bound against the model's own ELBO, their optimum against the closed form,
the verdict on it, and what the experiment `dang-strengths` makes of arrays."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad

from hvae.analysis.claims import decide
from hvae.analysis.load import Arrays
from hvae.analysis.papers import hold
from hvae.evidence import HVAE
from hvae.experiments import dang_strengths
from hvae.experiments.dang_strengths import two_layers
from hvae.experiments.dang_strengths.claims import farthest, relu
from hvae.experiments.dang_strengths.two_layers import (
    Setting,
    as_hvae,
    completed,
    projected_bound,
    train_two_layers,
    verdict_rows,
)
from hvae.experiments.shared.linear.training import stack_bound
from hvae.objectives import Elbo
from hvae.vocabulary import NOISE_ONLY

SETTING = Setting(sigma1=0.8, eta_enc=1.3, eta_dec=0.6, beta1=1.4, beta2=0.7)
THETA = (2.1, 1.2, 0.9, 0.3)
UNITS = 3


def at_random(setting: Setting, seed: int = 0) -> dict[str, Tensor]:
    """Values of one stack: V1 and U2 at random, the rest completed."""
    source = torch.Generator().manual_seed(seed)
    start = {
        "whitened": torch.randn(UNITS, len(THETA), generator=source, dtype=torch.float64),
        "u2": torch.randn(UNITS, UNITS, generator=source, dtype=torch.float64),
    }
    return setting.values(torch.tensor(THETA), UNITS) | start


def sigma_points(n: int) -> Tensor:
    """`[2n, n]` points of mean 0 and covariance I: exact for whatever is quadratic."""
    return math.sqrt(n) * torch.cat([torch.eye(n), -torch.eye(n)]).double()


def bound_of_the_model(w: dict[str, Tensor]) -> float:
    """The house's own loss of the stack as a model, its data and noise the points of one distribution of all three."""
    points = sigma_points(len(THETA) + 2 * UNITS)
    x, first, second = points.split([len(THETA), UNITS, UNITS], dim=1)
    evidence = as_hvae(w)((x * torch.tensor(THETA).double()).unsqueeze(0), {"z1": first[None], "z2": second[None]})
    beta1, beta2 = w["beta"].tolist()
    return -float(Elbo(layer_beta={"z1": beta1, "z2": beta2})(evidence, 0).detach())


@pytest.mark.parametrize("sigma2", [None, 0.4])
def test_the_closed_bound_is_the_elbo_of_the_model(sigma2: float | None) -> None:
    """At the completed weights, and away from them, where every term of the bound moves by itself."""
    setting = Setting(0.8, 1.3, 0.6, 1.4, 0.7, sigma2)
    start = at_random(setting)
    w = completed(start)
    assert abs(bound_of_the_model(w) - float(projected_bound(start))) < 1e-10
    source = torch.Generator().manual_seed(1)
    for name in ("u1", "v1", "q1", "u2", "v2", "q2"):
        w[name] = w[name] + torch.randn(w[name].shape, generator=source, dtype=torch.float64)
        assert abs(bound_of_the_model(w) - float(stack_bound(w))) < 1e-10 * (1 + abs(float(stack_bound(w))))


def test_what_is_completed_is_best() -> None:
    """No gradient in U1, W2 and Σ2, and less at any step away; so the gradient in V1 and U2 is that of the best."""
    start = at_random(SETTING)
    w = completed(start)
    best = float(stack_bound(w))
    source = torch.Generator().manual_seed(2)
    for name in ("u1", "v2", "q2"):
        slope = grad(lambda value, name=name: stack_bound(w | {name: value}))(w[name])
        assert float(slope.abs().max()) < 1e-10
        away = torch.randn(w[name].shape, generator=source, dtype=torch.float64)
        assert all(float(stack_bound(w | {name: w[name] + step * away})) < best for step in (-0.1, 0.1))
    for name in ("whitened", "u2"):
        slope = grad(lambda value, name=name: projected_bound(start | {name: value}))(start[name])
        direction = torch.randn(slope.shape, generator=source, dtype=torch.float64)
        ahead, behind = (
            float(projected_bound(start | {name: start[name] + step * direction})) for step in (1e-5, -1e-5)
        )
        assert (ahead - behind) / 2e-5 == pytest.approx(float((slope * direction).sum()), rel=1e-7)


@pytest.mark.parametrize(
    ("setting", "theta"),
    [
        (SETTING, THETA),
        (Setting(0.5, 0.5, 0.5, 1.0, 2.0), (2.0, 1.2, 0.9, 0.3)),
        (Setting(0.5, 0.7, 0.5, 1.0, 4.0), (1.6, 1.2, 0.9)),
        (Setting(0.5, 0.7, 0.5, 1.0, 4.0, sigma2=0.3), (1.6, 1.2, 0.9)),
        (Setting(1.2, 1.0, 0.6, 1.0, 0.9), (0.5, 0.4)),  # fewer data dimensions than units
    ],
)
def test_training_from_random_weights_arrives_at_the_closed_form(setting: Setting, theta: tuple[float, ...]) -> None:
    found = train_two_layers(setting, theta, UNITS, (3, 4))
    modes = [setting.optimum(value) for value in (*theta, 0.0)[:UNITS]]
    np.testing.assert_allclose(found.encoder, [[mode.encoder for mode in modes]] * 2, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.decoder, [[mode.decoder for mode in modes]] * 2, rtol=0, atol=1e-5)
    assert (np.abs(found.short) < 1e-10).all() and (found.gradient <= two_layers.TOLERANCE).all()
    for replica in range(2):  # of all five matrices, and of the model itself
        w = {name: value[replica] for name, value in found.values.items()}
        learned = ("u1", "v1", "u2", "v2", *(("q2",) if setting.sigma2 is None else ()))
        slopes = grad(lambda values, w=w: stack_bound(w | values))({name: w[name] for name in learned})
        assert max(float(slope.abs().max()) for slope in slopes.values()) < 10 * two_layers.TOLERANCE


def test_a_start_trained_beside_others_is_the_start_trained_alone() -> None:
    both = train_two_layers(SETTING, THETA, UNITS, (5, 6))
    alone = train_two_layers(SETTING, THETA, UNITS, (6,))
    for name in ("u1", "v1", "u2", "v2", "q2"):
        torch.testing.assert_close(both.values[name][1], alone.values[name][0], rtol=0, atol=1e-6)


def test_strengths_of_data_and_of_a_model_are_read_off() -> None:
    source = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=source, dtype=torch.float64))[0]
    x = sigma_points(4) * torch.tensor(THETA) @ turn.mT + 0.3
    assert two_layers.deviations(x) == pytest.approx(THETA)
    assert two_layers.deviations(torch.cat([x, torch.ones(8, 1)], 1)) == pytest.approx(THETA)  # a pixel always on
    w = completed(at_random(SETTING))
    model: HVAE = as_hvae(w | {"v1": w["v1"] @ turn.mT, "u1": turn @ w["u1"]})
    encoder, decoder = two_layers.model_strengths(model, x)
    assert encoder == pytest.approx(torch.linalg.svdvals(w["v1"] * torch.tensor(THETA)).numpy())
    assert decoder == pytest.approx(torch.linalg.svdvals(w["u2"]).numpy())


# -- the diagnostic trap -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy() -> Arrays:
    """Two starts at the optimum where z2 codes noise only."""
    knobs, theta = dang_strengths.REGIMES["A, noise only"]
    return verdict_rows({"A, noise only": (Setting(*knobs), theta)}, 4, (0, 1), 160, 64, lambda line: None)


def test_a_rate_above_nought_is_no_information_on_the_datum(noisy: Arrays) -> None:
    """By hand: z1 is noise of variance σ1², and z2 holds log(σ1² / r) / 2 a unit of it, r = β2 η_dec² / β1, which is
    its rate, as its aggregate is the prior."""
    sigma1, _, eta_dec, beta1, beta2 = dang_strengths.REGIMES["A, noise only"][0]
    held = 4 * math.log(sigma1**2 / (beta2 * eta_dec**2 / beta1)) / 2
    assert held > 1
    for quantity in ("exact_rate_nats/z2", "exact_parent_information_nats/z2"):
        np.testing.assert_allclose(noisy[quantity], held, rtol=0, atol=1e-6)  # what a gradient of 1e-7 leaves
    assert (noisy["exact_information_nats/z2"] < 1e-10).all() and (noisy["exact_information_nats/z1"] < 1e-10).all()


def test_the_verdict_finds_it_out(noisy: Arrays) -> None:
    assert (noisy["verdict/z2"] == NOISE_ONLY).all()
    low, _, high = np.moveaxis(noisy["parent_information_nats/z2"], -1, 0)
    exact = noisy["exact_parent_information_nats/z2"]
    assert (low < exact).all() and (exact < high).all()
    assert (noisy["information_nats/z2"][..., 2] < 0.1).all()


def test_exact_rates_are_those_of_the_bound() -> None:
    """Distortion and both rates, weighed, are the bound; each rate of the model by sigma points."""
    w = completed(at_random(SETTING))
    points = sigma_points(len(THETA) + 2 * UNITS)
    x, first, second = points.split([len(THETA), UNITS, UNITS], dim=1)
    evidence = as_hvae(w)((x * torch.tensor(THETA).double()).unsqueeze(0), {"z1": first[None], "z2": second[None]})
    exact = two_layers._exact(w)
    for name in ("z1", "z2"):
        assert exact[f"exact_rate_nats/{name}"] == pytest.approx(float(evidence.rate(name).mean().detach()), abs=1e-10)


# -- the experiment ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(noisy: Arrays) -> dict[str, Arrays]:
    """Every exact part of `smoke`, as the experiment makes them, with one regime and no runs."""
    parts = dang_strengths.measure("smoke", {}, None, lambda line: None)
    return {name: parts[name]() for name in ("unit", "beta2", "beta1", "eta", "given")} | {"verdicts": noisy}


def test_exact_claims_and_printed_numbers_hold_at_smoke(measured: dict[str, Arrays]) -> None:
    others = [name for name in dang_strengths.REGIMES if name != "A, noise only"]
    for claim in dang_strengths.claims:
        if claim.reads == "runs" or "linear runs" in claim.statement or any(name in claim.statement for name in others):
            continue
        decision = decide(claim, {}, measured)
        counted = "verdicts on both layers" in claim.statement  # two starts decide no count
        assert decision.outcome == ("undecided" if counted else "supported"), claim.statement
        assert not counted or claim.measure(measured)[0].values.tolist() == [1.0, 1.0]
        assert decision.n_replicas == 2
    for number in dang_strengths.numbers:
        assert hold(number, "smoke", {}, measured).agreement == "agrees"


def test_a_strength_off_the_curve_is_seen(measured: dict[str, Arrays]) -> None:
    moved = dict(measured["beta2"])
    moved["decoder"] = moved["decoder"].copy()
    moved["decoder"][1, 0, 2] += 0.01
    assert farthest(measured | {"beta2": moved}, "decoder").values[0] == pytest.approx(0.01, abs=1e-3)
    assert farthest(measured | {"beta2": moved}, "encoder").values[0] < 1e-3


def test_claims_and_curves_of_what_is_not_there(measured: dict[str, Arrays]) -> None:
    assert all(decide(claim, {}, {}).outcome == "not measured" for claim in dang_strengths.claims)
    drawn = [curve.panels({}, measured) for curve in dang_strengths.curves[:4]]
    assert all(len(panels) == 2 and all(panels.values()) for panels in drawn)


def test_regimes_and_runs_are_what_they_are_called() -> None:
    """By the closed form: the regime of every mode, and that of the linear runs on the largest eigenvalue of digits."""
    for name, (knobs, theta) in dang_strengths.REGIMES.items():
        found = {Setting(*knobs).optimum(value).regime for value in theta}
        wanted = {"both layers": "both", "both collapsed": "collapsed"}.get(name[3:], name[3:])
        assert found == {wanted}, name
    for label, (beta1, beta2) in dang_strengths.LINEAR.items():
        wanted = "both" if label.endswith("both layers") else label.removeprefix("linear, ")
        assert {Setting(1, 1, 1, beta1, beta2, 1.0).optimum(theta).regime for theta in (0.84, 0.6)} == {wanted}


def test_weights_of_a_relu_run_are_the_papers_times_the_variance_of_x() -> None:
    runs = dang_strengths.configs("cpu")
    assert runs[relu(beta1=2.0)].objective.layer_beta == (0.5, 0.25)
    assert runs[relu(eta=2.0)].objective.layer_beta == (4.0, 4.0)
