"""Data and thresholds of which no verdict can be made: one sentence, and nothing is measured."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

import hvae
from hvae.errors import ConfigError
from hvae.exact.known_stacks import linear_stack
from hvae.lab.config import EvaluationConfig
from hvae.measuring import Sizes, measure, measure_layers
from hvae.vocabulary import TOO_FEW, UNDECIDED
from tests.diagnostics.chains import Stack, images, link, root

FEW = Sizes(max_paths=16, n_samples=10, n_likelihood=10, n_pictures=0)
STACK = Stack([link(1, 0.05), link(0, 1)], [root(1.0), link(1, 0.3), link(1, 0.1)])


def model(spoil: float = 0.0) -> hvae.Model:
    """One layer; ``spoil`` is added to the logits of x where its first number is above 2."""
    encoder, decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def infer(visit: Any) -> None:
        mean, log_scale = visit.code.chunk(2, dim=-1)
        visit("z", Normal(mean, log_scale.exp()))

    def generate(visit: Any) -> None:
        z = visit("z", Normal(torch.zeros(2), 1.0))
        visit("x", Bernoulli(logits=decoder(z) + spoil))

    return hvae.Model(infer, generate, encode=encoder)


def test_equal_data_are_refused() -> None:
    stack = linear_stack(1.0, "best", seed=0)
    with pytest.raises(ConfigError, match="All 30 data are equal, so no layer can tell them apart"):
        measure([stack.model], stack.x[:1].repeat(30, 1), FEW)
    with pytest.raises(ConfigError, match="all 30 data are equal"):
        hvae.diagnose(model(), torch.ones(30, 6), progress=False)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("inf"), float("nan")])
def test_a_threshold_is_a_number_above_0(epsilon: float) -> None:
    for settings in (Sizes, EvaluationConfig):
        with pytest.raises(ConfigError, match="epsilon_nats"):
            settings(epsilon_nats=epsilon)


def test_of_fewer_than_twenty_images_there_is_no_verdict_but_a_mark() -> None:
    for n, word in ((19, UNDECIDED), (20, "active")):
        found = measure([STACK.bottom_up()], images(n), FEW)
        assert found.verdicts["z1"] == (word,)
        assert (TOO_FEW in [doubt.sentence for doubt in found.doubts if doubt.what == "z1"]) == (n == 19)
        assert found.verdicts["z2"] == (UNDECIDED,)  # a collapse takes 72


def test_a_likelihood_that_is_not_finite_leaves_no_verdict() -> None:
    class Spoiled(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.cat([z, torch.full_like(z, torch.nan)], -1)

    stack = STACK.bottom_up()
    stack.decoder.conditionals["x"].net = Spoiled()  # type: ignore[union-attr, index]
    z1, z2 = measure_layers(stack, images(100), FEW)
    for layer in (z1, z2):
        assert layer.verdict[0].tolist() == [UNDECIDED] * 3
        assert (
            "likelihood is not finite for 100 of 100 data, so there is no verdict" in layer.not_measured["used_nats"][0]
        )
