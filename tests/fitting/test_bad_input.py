"""What `fit` refuses of its arguments, and the batches that it reads as they are meant: for Models as for HVAEs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

import hvae
from hvae.errors import ConfigError
from tests.fitting.models import make

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def model(embed: bool = False) -> hvae.Model:
    torch.manual_seed(0)
    net = nn.ModuleList([nn.Linear(6, 4), nn.Embedding(5, 1)])

    def infer(visit: hvae.Visit) -> None:
        x = net[1](visit.code).squeeze(-1) if embed else visit.code
        mean, log_scale = net[0](x).chunk(2, dim=-1)
        visit("z", Normal(mean, log_scale.exp()))

    def generate(visit: hvae.Visit) -> None:
        z = visit("z", Normal(torch.zeros(2), 1.0))
        visit("x", Normal(z.mean(-1, keepdim=True).expand(-1, 6), 1.0))

    return hvae.Model(infer, generate, module=net)


def train(models: Any, batches: Any, **knobs: Any) -> list[float]:
    return [float(record.loss_nats[0]) for record in hvae.fit(models, hvae.Elbo(), batches, n_steps=2, **knobs)]


@pytest.mark.parametrize("models", [model, lambda: make(0)])
@pytest.mark.parametrize(
    "batches",
    [
        [torch.tensor(1.0)], [["a"]], ["a"], [None], "abc", 5, None, {"x": X}, [{"x": X}], [X[:0]], [X * float("nan")],
        X, X.numpy(), [], [[1.0, 2.0]], [X[0]], [X + 0j], [X.to("meta")], lambda step: 1 / 0, lambda step: None,
        iter([]),
    ],
)  # fmt: skip
def test_batches_that_are_none(models: Any, batches: Any) -> None:
    with pytest.raises(ConfigError, match=r"batch(es)?\b.*\b(give|cut|leave|division)\b"):
        train(models(), batches)


def test_batches_are_cast_to_the_weights() -> None:
    wanted = train(model(), [X])
    for same in ([X.double()], [X.double().numpy()], [X.to_sparse()], iter([X.double()] * 3), lambda step: X.double()):
        assert train(model(), same) == wanted
    whole = (X > 0).float()
    for same in ([whole.long()], [whole.bool()], [np.asarray(whole.int())]):
        assert train(model(), same) == train(model(), [whole])


def test_tokens_stay_whole_numbers() -> None:
    assert len(train(model(embed=True), [torch.arange(24).reshape(4, 6) % 5])) == 2


@pytest.mark.parametrize("models", [model, lambda: make(0)])
@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *(("seeds", value) for value in (5, "a", [1.5], ["a"], [True])),
        *(("clip_norm", value) for value in ("a", None, [1])),
        *(("trainable", value) for value in (5, [5], lambda step: 5)),
        *(("then", value) for value in (5, [5], None, hvae.Elbo())),
        *(("state", value) for value in (5, {}, {"parameters": 5})),
        ("also", 5), ("also", None), ("settling", 5), ("settling", ["a"]), ("ema_decay", "a"), ("adam_epsilon", "a"),
    ],
)  # fmt: skip
def test_arguments_of_another_type(models: Any, knob: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=knob):
        train(models(), [X], **{knob: value})


def test_a_state_that_lacks_a_part() -> None:
    state = hvae.fit(make(0), hvae.Elbo(), [X], n_steps=2).state()
    del state["step"]
    with pytest.raises(ConfigError, match="state lacks"):
        train(make(0), [X], state=state)


@pytest.mark.parametrize("models", [5, None, "abc", {"model": 1}, [5]])
def test_what_is_no_model(models: Any) -> None:
    with pytest.raises(ConfigError, match="models"):
        train(models, [X])
