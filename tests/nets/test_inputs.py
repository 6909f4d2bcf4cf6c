"""First layers of nets that see x: x is the last of their numbers, and other parents pass."""

import math

import pytest
import torch

from hvae.nets import LogCounts, Standardised


@pytest.mark.parametrize("n_before", [0, 2])
def test_x_stands_last_and_others_pass(n_before: int) -> None:
    x = torch.tensor([[0.0, 3.0], [1e6, 7.0]], dtype=torch.float64)
    before = torch.full((2, n_before), 5.0, dtype=torch.float64)
    scaled = Standardised(torch.tensor([1.0, 2.0]).double(), torch.tensor([10.0, 0.5]).double())
    for layer, wanted in (
        (scaled, [[-0.1, 2.0], [99999.9, 10.0]]),
        (LogCounts(2), [[0.0, math.log(4)], [math.log(1e6 + 1), math.log(8)]]),
    ):
        seen = layer(torch.cat([before, x], -1))
        torch.testing.assert_close(seen[:, :n_before], before, rtol=0, atol=0)
        torch.testing.assert_close(
            seen[:, n_before:], torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-10
        )


def test_mean_and_deviation_of_data_and_a_constant_column_keeps_its_scale() -> None:
    x = torch.tensor([[1.0, 7.0, -1e6], [3.0, 7.0, 1e6]])
    layer = Standardised.of(x)
    assert layer.shift.tolist() == [2.0, 7.0, 0.0] and layer.scale.tolist() == [1.0, 1.0, 1e6]
    assert layer(x).tolist() == [[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]]
