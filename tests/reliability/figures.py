"""The figures of the page, in its order."""

from tests.reliability.figure import Figure

FIGURES: tuple[Figure, ...] = ()
