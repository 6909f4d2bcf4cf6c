"""Decay of the weights, Adam's betas and skipped steps, against loops of one model with an optimiser of torch."""

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from hvae import HVAE, ConfigError, Elbo, fit
from hvae.fitting import Fit, Step
from hvae.rng import noise
from tests.fitting.models import X, apart, make, several, weights
from tests.fitting.test_update import tensors

BATCHES = list(X.split(20))
N_STEPS = 12
BETWEEN = 15.5
"""above all gradients of a model as it is made, and among those of one that is ten times as steep"""


def large(model: HVAE, factor: float = 1e3) -> HVAE:
    """The model with a net from z1 to x that is steep: its first gradients are large."""
    with torch.no_grad():
        model.decoder["x"].net.weight.mul_(factor)  # type: ignore[index]
    return model


def gradients(model: HVAE, step: int, seed: int) -> tuple[list[Tensor], float]:
    """Of one step, by autograd alone, and their norm."""
    x = BATCHES[step % len(BATCHES)]
    drawn = noise(model.noise_specs(), 1, len(x), seed=seed, purpose="train", step=step, dtype=torch.float64)
    loss, _ = Step(model, Elbo())(x.double().unsqueeze(0), drawn, step)
    found = torch.autograd.grad(loss, list(model.parameters()))
    return list(found), sum(float(each.square().sum()) for each in found) ** 0.5


def plain(
    model: HVAE, seed: int, *, skip_norm: float = 0.0, clip_norm: float = 0.0,
    averaged: dict[str, Tensor] | None = None, **adam: Any,
) -> tuple[Any, int]:  # fmt: skip
    """The model after the steps of a plain loop with `torch.optim.AdamW`, and how many were skipped. ``averaged``
    follow the weights with a decay of 0.9."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.05, foreach=False, fused=False, **adam)
    skipped = 0
    for step in range(N_STEPS):
        found, norm = gradients(model, step, seed)
        if skip_norm and norm > skip_norm:
            skipped += 1
            continue
        for weight, gradient in zip(model.parameters(), found, strict=True):
            weight.grad = gradient * min(1.0, clip_norm / norm) if clip_norm else gradient
        optimiser.step()
        for name, value in (averaged or {}).items():
            value.mul_(0.9).add_(weights(model)[name], alpha=0.1)
    return weights(model), skipped


def trained(models: list[HVAE], **knobs: Any) -> tuple[Fit, list[str]]:
    training = fit(models, Elbo(), BATCHES, **({"n_steps": N_STEPS, "learning_rate": 0.05} | knobs))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in training:
            pass
    return training, [str(one.message) for one in said]


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.9), (0.0, 0.5)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 2.0])
def test_decay_and_betas_are_those_of_torch(weight_decay: float, betas: tuple[float, float]) -> None:
    models = several(3)
    trained(models, weight_decay=weight_decay, adam_betas=betas, clip_norm=2.0)
    for seed, model in enumerate(models):
        theirs, _ = plain(make(seed), seed, weight_decay=weight_decay, betas=betas, clip_norm=2.0)
        assert apart(weights(model), theirs) < 1e-10
    moved, _ = plain(make(0), 0, weight_decay=weight_decay, betas=(0.9, 0.99), clip_norm=2.0)
    assert apart(weights(models[0]), moved) > 1e-3  # other betas are seen


def test_steps_that_are_skipped_are_as_if_they_had_not_been() -> None:
    """A steep replica skips its steps, by the loop of torch too; one between skips some, and the third none."""
    models = [make(0), large(make(1), 10.0), large(make(2), 1e3)]
    before = weights(models[2])
    training, said = trained(models, skip_norm=BETWEEN, weight_decay=0.01)
    for seed, model in enumerate([make(0), large(make(1), 10.0), large(make(2), 1e3)]):
        theirs, skipped = plain(model, seed, skip_norm=BETWEEN, weight_decay=0.01)
        assert apart(weights(models[seed]), theirs) < 1e-10
        assert int(training.health.skipped[seed]) == skipped
    counts = training.health.skipped.tolist()
    assert counts[0] == 0 < counts[1] < N_STEPS == counts[2]
    assert apart(weights(models[2]), before) == 0
    for state in training.state()["optimiser"][2]["state"].values():
        assert state["step"] == 0 and not state["exp_avg"].any() and not state["exp_avg_sq"].any()
    some, all_ = said
    assert some.startswith(f"seed 1 skipped {counts[1]} of 12 steps, as its gradient was larger than skip_norm; the ")
    assert "the last 12 among them, so it stands still since step 0: give a larger skip_norm" in all_
    steep = large(make(2), 1e3)
    found, _ = gradients(steep, N_STEPS - 1, 2)
    of_layer = dict.fromkeys(("z1", "z2", "x"), 0.0)
    for (name, _), gradient in zip(steep.named_parameters(), found, strict=True):
        of_layer[next(part for part in name.split(".") if part in of_layer)] += float(gradient.square().sum())
    assert all_.endswith(f"the last of these gradients was largest in {max(of_layer, key=of_layer.__getitem__)}.")


@pytest.mark.parametrize("skip_norm", [0.0, 1e9, BETWEEN])
def test_other_replicas_move_on_bit_for_bit(skip_norm: float) -> None:
    knobs = {"skip_norm": skip_norm, "weight_decay": 0.01, "ema_decay": 0.9, "clip_norm": 1.0}
    both, steep = several(3), several(3)
    large(steep[1])
    a, _ = trained(both, **knobs)
    b, _ = trained(steep, **knobs)
    assert bool(b.health.skipped[1]) == (skip_norm == BETWEEN)
    one, other = a.state(), b.state()
    for kind in ("parameters", "averaged"):
        for name, value in one[kind].items():
            assert torch.equal(value[[0, 2]], other[kind][name][[0, 2]])


def test_moments_and_averages_are_of_the_steps_that_are_taken() -> None:
    """Also where a step is skipped between two that are taken."""
    knobs: dict[str, Any] = {"n_steps": N_STEPS, "learning_rate": 0.05, "skip_norm": 5.0, "ema_decay": 0.9}
    training, took = fit(several(2), Elbo(), BATCHES, **knobs), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for record in training:
            took.append(record.terms["skipped_in_a_row"][0] == 0)
    first, last = took.index(True), N_STEPS - 1 - took[::-1].index(True)
    assert not all(took[first : last + 1])
    found = training.state()
    for seed, model in enumerate(several(2)):
        averaged = weights(model)
        latest, _ = plain(model, seed, skip_norm=5.0, weight_decay=0.0, averaged=averaged)
        for kind, theirs in (("parameters", latest), ("averaged", averaged)):
            assert apart({name: value[seed] for name, value in found[kind].items()}, theirs) < 1e-10


def test_a_stopped_replica_does_not_decay() -> None:
    models = several(2)
    with torch.no_grad():
        next(models[1].posterior.parameters())[:] = torch.nan
    before = weights(models[1])
    training, said = trained(models, weight_decay=0.5)
    assert training.health.alive.tolist() == [True, False] and "non-finite" in said[0]
    for name, value in weights(models[1]).items():
        assert torch.equal(value.nan_to_num(9.0), before[name].nan_to_num(9.0))


@pytest.mark.parametrize("knobs", [{"skip_norm": BETWEEN}, {"weight_decay": 0.1, "adam_betas": (0.9, 0.9)}])
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_it_goes_on_bit_for_bit(knobs: dict[str, Any], stop: int) -> None:
    def models() -> list[HVAE]:
        return [make(0), large(make(1), 10.0)]

    whole, _ = trained(models(), **knobs)
    part, _ = trained(models(), n_steps=stop, **knobs)
    rest, _ = trained(models(), state=part.state(), **knobs)
    assert "skip_norm" not in knobs or 0 < int(whole.health.skipped[1]) < N_STEPS
    for a, b in zip(tensors(whole.state()), tensors(rest.state()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["skip", "all"])
def test_no_step_asks_the_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an accelerator nobody asks; all passes are made, and the bits are the same."""
    knobs = {"skip_norm": BETWEEN, "ema_decay": 0.9} | ({"clip_norm": 1.0} if kind == "all" else {})
    lean, _ = trained([make(0), large(make(1), 10.0)], **knobs)
    for module in ("update", "health", "adam"):
        monkeypatch.setattr(f"hvae.fitting.{module}.surely", lambda flag: False)
    whole, _ = trained([make(0), large(make(1), 10.0)], **knobs)
    assert int(lean.health.skipped[1]) > 0
    for a, b in zip(tensors(lean.state()), tensors(whole.state()), strict=True):
        assert torch.equal(a, b)


def test_an_infinite_gradient_is_skipped_where_steps_are() -> None:
    """Its square has no float32, and the loss is finite: without ``skip_norm`` the replica stops."""

    def models() -> list[HVAE]:
        return [make(0).float(), large(make(1), 1e30).float()]

    stopped, _ = trained(models())
    assert stopped.health.alive.tolist() == [True, False]
    skipped, said = trained(models(), skip_norm=100.0)
    assert skipped.health.alive.tolist() == [True, True] and skipped.health.skipped.tolist() == [0, N_STEPS]
    assert len(said) == 1 and "largest in" in said[0]


def test_it_is_told_when_it_doubles_and_recorded() -> None:
    training = fit([large(make(0))], Elbo(), BATCHES, n_steps=N_STEPS, learning_rate=0.05, skip_norm=1.0)
    told, rows = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for record in training:
            told += [record.step] * len(training.news())
            rows.append([record.terms[name].tolist() for name in ("skipped_steps", "skipped_in_a_row")])
    assert told == [1, 2, 4, 8] and rows == [[[n], [n]] for n in range(1, N_STEPS + 1)]
    assert "skipped_steps" not in next(iter(fit([make(0)], Elbo(), BATCHES, n_steps=2))).terms


BAD: dict[str, tuple[Any, str]] = {
    "skip_norm": (-1.0, "skip_norm is -1.0; give 0 (no step is skipped) or more."),
    "weight_decay": (-0.1, "weight_decay is -0.1; give 0 (no decay) or more."),
    "adam_betas": ((0.9, 1.0), "adam_betas is (0.9, 1.0); give two numbers in [0, 1), as (0.9, 0.999)."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_in_a_sentence(name: str) -> None:
    value, sentence = BAD[name]
    others: list[Any] = [float("nan"), "much", None, True]
    for bad in (value, *others, *([(0.9,), 0.9] if name == "adam_betas" else [])):
        with pytest.raises(ConfigError) as refused:
            fit([make(0)], Elbo(), BATCHES, n_steps=2, **{name: bad})
        assert str(refused.value) == sentence or str(refused.value).startswith(f"{name} is ")
        assert "\n" not in str(refused.value)


def test_a_skip_below_the_clip_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"skip_norm is 5.0 and clip_norm 10.0, so .*; give a skip_norm above 10.0"):
        fit([make(0)], Elbo(), BATCHES, n_steps=2, skip_norm=5.0, clip_norm=10.0)
    for skip_norm, clip_norm in itertools.product((0.0, 10.0, 20.0), (0.0, 10.0)):
        fit([make(0)], Elbo(), BATCHES, n_steps=2, skip_norm=skip_norm, clip_norm=clip_norm)


def test_the_state_of_another_optimiser_is_refused() -> None:
    one, _ = trained([make(0)], n_steps=2)
    with pytest.raises(ConfigError, match="that of a fit with another skip_norm or weight_decay"):
        fit([make(0)], Elbo(), BATCHES, n_steps=4, skip_norm=1.0, state=one.state())
    other, _ = trained([make(0)], n_steps=2, skip_norm=1.0)
    with pytest.raises(ConfigError, match="that of a fit with another skip_norm or weight_decay"):
        fit([make(0)], Elbo(), BATCHES, n_steps=4, state=other.state())
