"""Replicas of a residual stack train together under vmap, and give what each gives alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

import hvae
from hvae import HVAE, Elbo, StickingTheLanding, rng
from hvae.fitting.step import Step, one_by_one, together
from hvae.objectives import Objective
from tests.topdown.stacks import stack
from tests.topdown.test_walk import SWITCHES, digits

EXACT = {"rtol": 1e-10, "atol": 1e-10}
BLOCKS = "1x1,2m1,8m2,8x1"


def stacks(**switch: Any) -> list[HVAE]:
    return [stack(BLOCKS, seed=seed, **switch).double() for seed in (0, 1)]


def stacked(models: list[HVAE]) -> dict[str, Tensor]:
    named = [dict(model.named_parameters()) for model in models]
    return {name: torch.stack([each[name].detach() for each in named]).requires_grad_() for name in named[0]}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("objective", [Elbo(), StickingTheLanding(Elbo())], ids=["elbo", "sticking the landing"])
def test_a_step_of_two_replicas_is_that_of_each(switch: dict[str, Any], objective: Objective) -> None:
    models = stacks(**switch)
    x = digits(12).double().reshape(2, 1, 6, 64)
    noise = {
        name: torch.stack([rng.noise(models[0].noise_specs(), 2, 6, seed=seed, purpose="t", dtype=x.dtype)[name]
                           for seed in (0, 1)])
        for name in models[0].noise_specs()
    }  # fmt: skip
    steps = [Step(model, objective) for model in models]
    loss, terms, gradients = together(steps[0], stacked(models), {}, x, noise, 0, lambda *_: {}, 0)
    alone = one_by_one(steps, stacked(models), {}, x, noise, 0, lambda *_: {}, 0, (0, 1))
    torch.testing.assert_close(loss, alone[0], **EXACT)
    for name, values in terms.items():
        torch.testing.assert_close(values, alone[1][name], **EXACT)
    for (name, weight), found, expected in zip(stacked(models).items(), gradients, alone[2], strict=True):
        assert found is not None and expected is not None, f"nothing reads {name}"
        torch.testing.assert_close(found, expected.reshape(weight.shape), **EXACT)
        assert found.abs().max() > 0, f"the loss knows nothing of {name}"


def test_a_training_of_two_replicas_is_two_trainings() -> None:
    """Twelve steps of Adam by `hvae.fit`; float64, whose rounding Adam has no time to carry far."""
    for found, expected in zip(trained((0, 1)), (*trained((0,)), *trained((1,))), strict=True):
        for (name, weight), alone in zip(found.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(weight, alone, rtol=1e-8, atol=1e-8, msg=name)


def trained(seeds: tuple[int, ...]) -> list[HVAE]:
    models = [stack(BLOCKS, seed=seed).double() for seed in seeds]
    batches = list(digits(48).double().split(12))
    training = hvae.fit(models, Elbo(), batches, n_steps=12, learning_rate=0.003, seeds=seeds)
    assert not training.one_by_one
    bounds = [record.bound_nats for record in training]
    assert (bounds[-1] > bounds[0]).all()
    return models


def test_names_of_weights_tell_their_owners() -> None:
    owners = stack(BLOCKS).owners
    assert owners["posterior.nets.z2.1.weight"] == "z2"
    assert owners["posterior.upward.into.weight"] == "encoder"
    assert {owner for name, owner in owners.items() if name.startswith("decoder.")} == {"decoder"}
