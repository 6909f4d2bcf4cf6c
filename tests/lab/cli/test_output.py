"""Lines on a terminal: one is renewed in its place, and goes when something is said."""

import io

import pytest

from hvae.lab.cli.output import CLEAR, renew, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """What is seen at the end: a line that was cleared is gone."""
        return [line.rpartition(CLEAR)[2] for line in self.getvalue().split("\n")]


def test_a_renewed_line_is_replaced_by_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    renew("[0/2] 10 of 200 steps")
    assert terminal.shown == ["[0/2] 10 of 200 ste"], "it does not reach the last column, which would begin a line"
    renew("[0/2] 20")
    say("[1/2] a: done")
    renew("[1/2] 100")
    renew("")
    assert terminal.shown == ["[1/2] a: done", ""]


def test_nothing_is_cleared_where_no_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    say("a")
    assert file.getvalue() == "a\n"
    file.close()
    say("nobody reads this")
    monkeypatch.setattr("sys.stderr", None)
    say("nor this")
