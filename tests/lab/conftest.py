"""Signals are heard in these tests, also where the whole suite runs in the background or under nohup."""

import signal
from collections.abc import Iterator

import pytest

HEARD = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Processes inherit what is ignored, and hvae heeds it; so here nothing is."""
    before = {number: signal.signal(number, handler) for number, handler in HEARD.items()}  # type: ignore[arg-type]
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
