"""Nets that vmap refuses train one after another, with the same numbers, and it is said."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hvae
from hvae import Elbo
from hvae.fitting import Fit, fit
from tests.fitting.models import (
    Branching,
    BranchingRunning,
    Dropping,
    InPlace,
    Item,
    Running,
    X,
    apart,
    make,
    several,
    weights,
)

BATCHES = list(X.split(20))


def trained(models: list[hvae.HVAE], **knobs: Any) -> tuple[Fit, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        training = fit(models, Elbo(), BATCHES, **({"n_steps": 8, "learning_rate": 0.05} | knobs))
        for _ in training:
            pass
    return training, [str(one.message) for one in said]


@pytest.mark.parametrize(
    ("net", "like", "reason"),
    [
        (Branching, nn.Linear, "data-dependent control flow"),
        (Item, nn.Linear, "calling .item() on a Tensor"),
        (InPlace, nn.Linear, "shape"),
        (BranchingRunning, Running, "control flow"),
    ],
)
def test_one_after_another_equals_together(net: Any, like: Any, reason: str) -> None:
    refusing, fine = several(3, net), several(3, like)
    one_by_one, said = trained(refusing, clip_norm=1.0)
    together, quiet = trained(fine, clip_norm=1.0)
    assert together.one_by_one == "" and quiet == []
    (sentence,) = said
    assert sentence.startswith("The replicas train one after another, as torch.func.vmap refuses the model (")
    assert one_by_one.one_by_one in sentence and "\n" not in sentence
    assert reason in one_by_one.one_by_one
    for a, b in zip(refusing, fine, strict=True):
        assert apart(weights(a), weights(b)) < 1e-10
        buffers = dict(b.named_buffers())
        for name, value in a.named_buffers():  # averages that run along are moved once a step, not by the trial too
            torch.testing.assert_close(value, buffers[name], atol=1e-10, rtol=0)


def test_draws_inside_a_net_are_keyed_and_leave_the_global_generator_alone() -> None:
    together, alone = several(2, Dropping), make(1, Dropping)
    torch.manual_seed(5)
    training, said = trained(together)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    assert "random operation" in training.one_by_one and len(said) == 1
    _, quiet = trained([alone], seeds=(1,))
    assert quiet == []  # one model needs no warning
    assert apart(weights(together[1]), weights(alone)) < 1e-10
    part, _ = trained(several(2, Dropping), n_steps=3)
    resumed, _ = trained(several(2, Dropping), state=part.state())
    assert all(apart(weights(a), weights(b)) == 0 for a, b in zip(resumed.models, together, strict=True))


class Later(nn.Linear):
    """Takes a number out of a tensor from its sixth call on."""

    n_calls = 0

    def forward(self, h: Tensor) -> Tensor:
        self.n_calls += 1
        return super().forward(h) * (1.0 + 0.0 * h.mean().item() if self.n_calls > 5 else 1.0)


def test_a_net_that_vmap_refuses_later_goes_on_one_after_another() -> None:
    later, plain = several(2, Later), several(2)
    training = fit(later, Elbo(), BATCHES, n_steps=8, learning_rate=0.05)
    reasons = []
    with pytest.warns(UserWarning, match="train one after another"):
        for _ in training:
            reasons.append(bool(training.one_by_one))
    assert not reasons[0] and reasons[-1]
    trained(plain)
    assert all(apart(weights(a), weights(b)) < 1e-10 for a, b in zip(later, plain, strict=True))


class Held(hvae.Posterior):
    """A posterior of functions that hold on to a net of their own, as a user's do."""

    def __init__(self, inner: hvae.Posterior, *, branching: bool) -> None:
        super().__init__()
        self.module = inner

        def walk(decoder: Any, given: Any, noise: Any) -> Any:
            if branching and given["x"].sum() < 0:
                raise AssertionError
            return inner.walk(decoder, given, noise)

        self._walk = walk

    @property
    def order(self) -> tuple[str, ...]:
        return self.module.order

    def noise_specs(self) -> Any:
        return self.module.noise_specs()

    def family(self, name: str, decoder: Any) -> Any:
        return self.module.family(name, decoder)

    def parents(self, name: str, decoder: Any) -> Any:
        return self.module.parents(name, decoder)

    def walk(self, decoder: Any, given: Any, noise: Any) -> Any:
        return self._walk(decoder, given, noise)


@pytest.mark.parametrize("branching", [False, True])
def test_functions_that_hold_on_to_their_own_net_train_it(branching: bool) -> None:
    plain = several(2)
    held = [hvae.HVAE(model.decoder, Held(model.posterior, branching=branching)) for model in several(2)]
    training, _ = trained(held)
    assert bool(training.one_by_one) == branching
    trained(plain)
    for a, b in zip(held, plain, strict=True):
        moved = {name.replace("posterior.module.", "posterior."): value for name, value in weights(a).items()}
        assert apart(moved, weights(b)) < 1e-10


class Broken(nn.Linear):
    def forward(self, h: Tensor) -> Tensor:
        raise KeyError("no such layer")


def test_what_a_net_raises_itself_is_raised_as_it_is() -> None:
    models = several(2, Broken)
    before = [weights(model) for model in models]
    with pytest.raises(KeyError, match="no such layer") as raised:
        trained(models)
    assert raised.value.__context__ is None  # nothing of vmap above it
    assert all(apart(old, weights(model)) == 0 for old, model in zip(before, models, strict=True))
