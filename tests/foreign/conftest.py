"""torch checks parameters and values in every test here, whatever was imported or compiled before."""

from collections.abc import Iterator

import pytest
from torch.distributions import Distribution


@pytest.fixture(autouse=True)
def _validation() -> Iterator[None]:
    """zuko when it is imported, and torch.compile when it first runs, switch validation off for the whole process."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(True)
    yield
    Distribution.set_default_validate_args(before)
