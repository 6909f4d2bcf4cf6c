"""Strict weather: one thread, and no test may leave a global switch flipped. Warnings are errors (pyproject.toml)."""

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_global_switches() -> Iterator[None]:
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    yield
    assert before == (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
