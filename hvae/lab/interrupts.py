"""SIGINT, SIGTERM and SIGHUP as requests to stop: a training saves first, all else stops where it is.

Whoever started the process may have had it ignore SIGINT or SIGHUP, as nohup does. These stay ignored.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER_SECONDS = 1.0
"""signals within this time are one request: a terminal that closes, its shell and a launcher may each send theirs"""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, finished its step and saved a checkpoint."""


class StopRequest:
    """The handler of the signals: whether one asked to stop, and what it then does."""

    def __init__(self, *, patient: bool, again: Callable[[], object]) -> None:
        self.requested = False
        self._first = 0.0
        self.patient = patient
        """whether somebody looks at `requested`; else the first signal raises `KeyboardInterrupt`"""
        self._again = again

    def __call__(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._first = True, now
            if not self.patient:
                raise KeyboardInterrupt
        elif now > self._first + TOGETHER_SECONDS:
            self._again()


@contextmanager
def interrupts(again: Callable[[], object]) -> Iterator[StopRequest]:
    """The first signal raises `KeyboardInterrupt`; a second calls `again`."""
    stop = StopRequest(patient=False, again=again)
    with _handled(stop):
        yield stop


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """The first signal is a request that the loop sees after its step; a second stops at once."""
    outer = signal.getsignal(signal.SIGTERM)
    if not isinstance(outer, StopRequest):
        stop = StopRequest(patient=True, again=_raise)
        with _handled(stop):
            yield stop
        return
    outer.patient = True  # one handler counts the signals of the whole process
    try:
        yield outer
    finally:
        outer.patient = False


def _raise() -> None:
    raise KeyboardInterrupt


@contextmanager
def _handled(stop: StopRequest) -> Iterator[None]:
    """`stop` as the handler, where handlers may be set: in the main thread."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, stop)
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
