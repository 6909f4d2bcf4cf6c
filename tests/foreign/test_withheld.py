"""A stand-in for x: its shape may be used, its numbers may not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hvae.errors import ConfigError
from hvae.foreign.withheld import Withheld, withheld


def stand_in(dtype: torch.dtype = torch.float32) -> Withheld:
    return withheld(torch.zeros(0, 2, 3, dtype=dtype), rows=5, part="x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.long, torch.bool])
def test_its_shape_and_type_can_be_read(dtype: torch.dtype) -> None:
    x = stand_in(dtype)
    assert (len(x), x.shape, x.ndim, x.size(1), x.numel(), x.dtype) == (5, (5, 2, 3), 3, 2, 30, dtype)
    assert x.device.type == "cpu" and repr(x) == "withheld(x, (5, 2, 3))"
    assert type(x.new_zeros(4)) is Tensor and type(torch.zeros_like(x)) is Tensor


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda x: x.reshape(-1, 6), ""),
        (lambda x: x.view(5, 6).float().unsqueeze(0).squeeze(0), ""),
        (lambda x: x[torch.arange(5)], ""),
        (lambda x: x[:], ""),
        (lambda x: x[torch.tensor([1, 0, 2, 3, 4])], "indexing"),
        (lambda x: x[:, 0], "indexing"),
        (lambda x: x.permute(0, 2, 1).reshape(5, 6), "permute"),
        (lambda x: torch.flip(x, (1,)), "flip"),
        (lambda x: x.chunk(2, 1)[1], "chunk"),
        (lambda x: next(iter(x)), "unbind"),
    ],
)
def test_it_knows_whether_its_numbers_stand_in_their_order(change: Callable[[Any], Any], moved: str) -> None:
    found = change(stand_in())
    assert isinstance(found, Withheld) and (found.part, found.moved) == ("x", moved)


@pytest.mark.parametrize(
    ("use", "by"),
    [
        (lambda x: x + 1, "add"),
        (lambda x: 1 - x, "rsub"),
        (lambda x: torch.ones(3) * x, "mul"),
        (lambda x: torch.isnan(x).any(), "isnan"),
        (lambda x: x.sum().item(), "sum"),
        (lambda x: torch.nn.functional.linear(x, torch.zeros(2, 3)), "linear"),
        (lambda x: torch.cat([torch.zeros(5, 2, 3), x]), "cat"),
        (lambda x: torch.nn.Embedding(3, 2)(x.long()), "embedding"),
        (lambda x: x[0, 0, 0].item(), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.numpy(), "numpy"),
        (lambda x: torch.zeros(5, 2, 3)[x.bool()], "getitem"),
        (lambda x: bool((x > 0).all()), "gt"),
    ],
)
def test_its_numbers_cannot_be_read(use: Callable[[Any], Any], by: str) -> None:
    with pytest.raises(ConfigError, match=f"^p reads x .by _*{by}_*., and p must not see x; .* context"):
        use(stand_in())
