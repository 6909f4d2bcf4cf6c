"""How many rows are walked at once: a measure of memory, which moves numbers by rounding only."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hvae import Bernoulli, DiagonalGaussian, DiscretisedLogisticMixture
from hvae.diagnosis.layer import flat_layer
from hvae.diagnosis.sizes import Sizes
from hvae.families import Family
from hvae.likelihood.target import Target, from_encoder
from hvae.measuring.layers import measure_layers
from tests.test_own_decoder import assert_same
from tests.topdown.stacks import stack

SMALL = ("alternatives.NUMBERS", "critic.NUMBERS", "redrawn.NUMBERS", "conditional.NUMBERS")


@pytest.mark.parametrize("bottleneck", SMALL)
def test_rows_walked_one_at_a_time_say_the_same(monkeypatch: pytest.MonkeyPatch, bottleneck: str) -> None:
    model = stack("1x1,4m1,8m4").double()
    x = (torch.rand(12, 64, generator=torch.Generator().manual_seed(0)) < 0.3).double()
    sizes = Sizes(n_images=12, max_paths=8, n_alternatives=8)

    def said() -> dict[str, object]:
        with torch.no_grad():
            return {
                key: values
                for layer in measure_layers(model, x, sizes)
                for key, values in flat_layer(layer, [True]).items()
            }

    expected = said()
    monkeypatch.setattr(f"hvae.diagnostics.{bottleneck}", 1)
    assert_same(said(), expected, 1e-9)


@pytest.mark.parametrize(
    ("observation", "widest"),
    [(Bernoulli(64), 8 * 64), (DiagonalGaussian(64, variance="network"), 8 * 64),
     (DiscretisedLogisticMixture((8, 8), n_components=10), 30 * 64)],
    ids=["state", "state above two numbers", "what the net gives for x"],
)  # fmt: skip
def test_a_row_is_as_large_as_its_widest_place(observation: Family, widest: int) -> None:
    """A state of 8 channels at 8x8; a mixture of ten reads 30 numbers a pixel."""
    assert stack("1x1,4m1,8m4", observation=observation).decoder.row_size == widest


@pytest.mark.parametrize(
    ("log_weight", "expected"),
    [
        (lambda e: e.square().sum(-1), 7),  # e
        (lambda e: e.exp().square().sum(-1), 14),  # exp e twice
        (lambda e: e.sum(-1), 0),
        (lambda e: (e @ torch.ones(7, 3)).square().sum(-1), 3),  # weights are not counted
    ],
    ids=["square", "exponential", "sum", "linear"],
)
@pytest.mark.parametrize("n_data", [1, 5])
def test_what_a_gradient_saves_of_a_draw(log_weight: Callable[[Tensor], Tensor], expected: int, n_data: int) -> None:
    target = Target(log_weight, {"z": ("normal", 7)}, torch.zeros(n_data, 2))
    assert target.saved() == expected


def test_a_deeper_stack_saves_more() -> None:
    few, many = (from_encoder(stack(blocks), torch.zeros(1, 64)).saved() for blocks in ("1x1,8m1,8x1", "1x1,8m1,8x6"))
    assert 2 * few < many
