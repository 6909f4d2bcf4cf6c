"""Passes over gradients that would change nothing are left out where that is known without a wait: the same bits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hvae import HVAE, BeliefNetwork, Bernoulli, Conditional, DiagonalGaussian, Elbo, NetworkPosterior, Root, noise
from hvae.fitting import Step, fit
from hvae.fitting.batches import Batches
from hvae.network import Decoder
from tests.fitting.models import N_PIXELS, X, several

BATCHES = list(X.split(20))


def states(**knobs: Any) -> list[dict[str, Any]]:
    """What every step of three replicas leaves."""
    training = fit(several(3), Elbo(), BATCHES, n_steps=8, **({"learning_rate": 0.05} | knobs))
    return [training.state() for _ in training]


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [tensor for value in values for tensor in tensors(value)]


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 10.0, 1e9])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_passes_that_would_change_nothing_change_nothing(
    clip_norm: float, ema_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an accelerator nobody asks whether a pass is needed, and all are made."""
    found = states(clip_norm=clip_norm, ema_decay=ema_decay)
    for module in ("update", "health"):
        monkeypatch.setattr(f"hvae.fitting.{module}.surely", lambda flag: False)
    for lean, whole in zip(found, states(clip_norm=clip_norm, ema_decay=ema_decay), strict=True):
        for a, b in zip(tensors(lean), tensors(whole), strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:seed")
def test_a_replica_that_stops_leaves_the_others_as_they_were() -> None:
    def run(broken: bool) -> Any:
        models = several(3)
        if broken:
            with torch.no_grad():
                next(iter(models[1].parameters()))[:] = torch.nan
        training = fit(models, Elbo(), BATCHES, n_steps=8, learning_rate=0.05, clip_norm=10.0)
        for _ in training:
            pass
        return training

    whole, one_less = run(False), run(True)
    assert one_less.health.alive.tolist() == [True, False, True]
    for name, weight in whole.state()["parameters"].items():
        assert torch.equal(weight[[0, 2]], one_less.state()["parameters"][name][[0, 2]])
    for name, weight in one_less.state()["parameters"].items():  # the 4 that were broken
        assert weight[1].isnan().sum() == (4 if name.endswith("z2.net.outputs") else 0)


def test_a_weight_under_two_names_is_exchanged_under_both() -> None:
    """A net of p and one of q have one weight; a step with other weights is a step of a model that has them."""
    shared = nn.Linear(2, 4)
    prior = Conditional("z2", [], Root(torch.zeros(4), learned=False), DiagonalGaussian(2))
    middle = Conditional("z1", ["z2"], shared, DiagonalGaussian(2))
    decoder: Decoder = BeliefNetwork(
        [prior, middle, Conditional("x", ["z1"], nn.Linear(2, N_PIXELS), Bernoulli(N_PIXELS))]
    )
    top = Conditional("z2", ["z1"], nn.Linear(2, 4), DiagonalGaussian(2))
    top.net.weight = shared.weight  # one weight, in two modules
    encoder = Conditional("z1", ["x"], nn.Linear(N_PIXELS, 4), DiagonalGaussian(2))
    model = HVAE(decoder, NetworkPosterior(BeliefNetwork([encoder, top])))
    step_of = Step(model, Elbo())
    inputs = (X[:5].unsqueeze(0), noise(model.noise_specs(), 1, 5, seed=0, purpose="test"), 0)
    others = {name: value.detach() + 1.0 for name, value in model.named_parameters()}
    still = dict(model.named_buffers())
    exchanged, _ = step_of.on(others, still, *inputs, lambda evidence: {})
    with torch.no_grad():
        for value in model.parameters():
            value += 1.0
    loss, evidence = step_of(*inputs)
    assert torch.equal(exchanged, loss) and torch.equal(evidence.frozen.log_weight, evidence.log_weight)


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_one_number_that_is_not_finite_is_seen_and_large_ones_are_none(bad: float) -> None:
    x = torch.full((4, N_PIXELS), 3e38)  # their sum is infinite
    Batches([x], 1, N_PIXELS, torch.device("cpu"), torch.float32)
    x[2, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        Batches([x], 1, N_PIXELS, torch.device("cpu"), torch.float32)
    both = torch.zeros(2, N_PIXELS)
    both[0, 0], both[1, 1] = torch.inf, -torch.inf
    with pytest.raises(ValueError, match="not finite"):
        Batches([both], 1, N_PIXELS, torch.device("cpu"), torch.float32)
