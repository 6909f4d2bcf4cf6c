"""The examples of the adapters run with the libraries that they read from."""

import doctest
import importlib

import pytest

from tests.test_examples import NEEDS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", NEEDS)
def test_the_examples_run(name: str) -> None:
    pytest.importorskip(NEEDS[name])
    tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried.failed == 0 and tried.attempted > 3
