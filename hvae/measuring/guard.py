"""What one model cannot give costs the quantities that need it, each with the sentence why."""

from collections.abc import Callable
from typing import TypeVar

from hvae.errors import NotMeasuredError

T = TypeVar("T")


class Guard:
    """Catches `NotMeasuredError` around a measurement and keeps its sentence, by quantity and layer.

    >>> guard = Guard()
    >>> def refuse():
    ...     raise NotMeasuredError("z1: q cannot score a value that it did not draw.")
    >>> guard.measured(["information_nats"], ["z1"], refuse), guard.measured(["rate_nats"], ["z1"], lambda: 3.0)
    (None, 3.0)
    >>> guard.reasons
    {'z1': {'information_nats': 'z1: q cannot score a value that it did not draw.'}}
    """

    def __init__(self) -> None:
        self.reasons: dict[str, dict[str, str]] = {}
        """layer -> quantity -> why it was not measured"""

    def measured(self, quantities: list[str], layers: list[str], measure: Callable[[], T]) -> T | None:
        """What ``measure`` answers; None where it refuses, for its quantities of its layers."""
        try:
            return measure()
        except NotMeasuredError as refusal:
            self.refuse(quantities, layers, " ".join(str(refusal).split()))
            return None

    def refuse(self, quantities: list[str], layers: list[str], sentence: str) -> None:
        """Keep a sentence."""
        for layer in layers:
            self.reasons.setdefault(layer, {}).update(dict.fromkeys(quantities, sentence))
