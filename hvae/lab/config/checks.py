"""Checks that the parts of a configuration share: the least and the most of a number stand in its annotation."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from hvae.errors import ConfigError

T = TypeVar("T")

MOST_ENTRIES = 1000
"""of a list"""


@dataclasses.dataclass(frozen=True)
class Between:
    """The least and the most of a number, of each number in a list, and of each value that a schedule is given."""

    least: float
    most: float

    def refuses(self, value: Any) -> bool:
        """Whether a number of ``value`` lies outside, as NaN does too."""
        return not all(self.least <= number <= self.most for number in _numbers(value))

    def __str__(self) -> str:
        return f"{_short(self.least)} to {_short(self.most)}"


Seed = Annotated[int, Between(0, 2**63 - 1)]
"""all that a generator takes"""
Steps = Annotated[int, Between(1, 10**9)]
Share = Annotated[float, Between(0, 1)]
Weight = Annotated[float, Between(0, 1e6)]
"""a factor or a number of nats"""
Width = Annotated[int, Between(1, 10**6)]
"""units, channels and the like"""


def check_numbers(section: str, record: Any) -> None:
    """Refuse numbers of a record outside their `Between`, and lists that are too long."""
    for knob, between in limits(type(record)).items():
        value = getattr(record, knob)
        if isinstance(value, tuple) and len(value) > MOST_ENTRIES:
            raise ConfigError(f"{section}.{knob} has {len(value)} entries; give at most {MOST_ENTRIES}.")
        if between is not None and between.refuses(value):
            raise ConfigError(f"{section}.{knob} is {_told(value)}; give {between}.")


def limits(kind: type[Any]) -> dict[str, Between | None]:
    """Field -> what its annotation, or that of its entries, says of the numbers in it."""
    return {name: _between(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}


def _between(hint: Any) -> Between | None:
    if get_origin(hint) is Annotated:
        return next((each for each in hint.__metadata__ if isinstance(each, Between)), None)
    return _between(get_args(hint)[0]) if get_origin(hint) is tuple else None


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, tuple):
        for entry in value:
            yield from _numbers(entry)
    elif dataclasses.is_dataclass(value):  # a schedule
        for name in ("value", "start", "stop", "values"):
            yield from _numbers(getattr(value, name, ()))
    else:
        yield value


def _told(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        low, high = _short(min(_numbers(value))), _short(max(_numbers(value)))
        return low if low == high else f"from {low} to {high}"
    try:
        text = str(_lists(value))
    except ValueError:  # Python writes no more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, tuple) else value


def _short(number: float) -> str:
    if isinstance(number, int) and not -(10**7) < number < 10**7:
        return f"{number:.15g}" if abs(number) < 10**300 else "a number of hundreds of digits"
    return str(number) if isinstance(number, int) else f"{number:.15g}"


def require(condition: bool, sentence: str) -> None:
    """Raise `ConfigError` with the sentence unless the condition holds."""
    if not condition:
        raise ConfigError(sentence)


def per_layer(name: str, entries: tuple[T, ...], n_layers: int) -> tuple[T, ...]:
    """One entry per latent layer: a single entry is repeated, any other count must match."""
    if len(entries) == 1:
        return entries * n_layers
    require(
        len(entries) == n_layers,
        f"{name} has {len(entries)} entries for {n_layers} latent layers; give one, or one per layer.",
    )
    return entries
