"""One figure of reliability: a question, what was measured, and a broken twin that must fail the same measurement."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement, in words: ``ok`` is whether it is as it should be."""

    what: str
    found: str
    ok: bool
    twin: bool = False
    """Measured of something that is broken on purpose. It should fail, so ``ok`` says that it did."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Figure:
    """``measure(n)`` makes the rows; n is how many cases, and ``full`` what the page has.

    A small n is for the tests, that the measurement itself works.
    """

    name: str
    title: str
    how: str
    """what is measured, and how, in a sentence or two"""
    full: int
    measure: Callable[[int], Sequence[Row]]


def share(kept: int, of: int, what: str) -> str:
    """``30 of 30 resumed``."""
    return f"{kept} of {of} {what}"
