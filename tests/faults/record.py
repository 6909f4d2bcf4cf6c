"""What a session with a planted fault leaves behind."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Failure:
    """Something that raised: which test, in which phase (setup, call, teardown, collect), what kind of exception."""

    node: str
    when: str
    kind: str


@dataclass(frozen=True)
class Record:
    """The end of a session, written by the plugin and read by who started it."""

    planted: bool | None
    """whether the altered module was imported; None without a fault"""
    n_passed: int
    failures: tuple[Failure, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(found: dict[str, Any]) -> "Record":
        return Record(found["planted"], found["n_passed"], tuple(Failure(**failure) for failure in found["failures"]))
