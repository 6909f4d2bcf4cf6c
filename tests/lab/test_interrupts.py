"""Signals as requests: seen by a loop, raised elsewhere, counted once for the whole process."""

import signal

import pytest

from hvae.lab import interrupts as module
from hvae.lab.interrupts import SIGNALS, interrupts, stop_requests


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER_SECONDS", -1.0)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_loop_sees_the_first_and_the_second_stops_it(number: signal.Signals, impatient: None) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_one_handler_counts_within_and_around_a_loop(impatient: None) -> None:
    ends: list[str] = []
    with interrupts(again=lambda: ends.append("end")):
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.requested and ends == []
        signal.raise_signal(signal.SIGTERM)  # the second, though the loop has ended
        assert ends == ["end"]
    with interrupts(again=lambda: ends.append("end")), pytest.raises(KeyboardInterrupt):
        with stop_requests():
            pass
        signal.raise_signal(signal.SIGTERM)  # the first, and nobody looks any more
    assert ends == ["end"]


def test_signals_that_come_together_are_one_request() -> None:
    with stop_requests() as stop:
        for number in SIGNALS:
            signal.raise_signal(number)
        assert stop.requested


def test_what_is_ignored_stays_ignored_but_for_sigterm() -> None:
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
