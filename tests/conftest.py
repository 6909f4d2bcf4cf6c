"""Strict weather: one thread, and no test may leave a global switch flipped. Warnings are errors (pyproject.toml)."""

import gc
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not walk over it again and again (6 % of the time)."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_global_switches() -> Iterator[None]:
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    yield
    assert before == (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
