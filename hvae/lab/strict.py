"""Plain values, as JSON and YAML know them, to frozen dataclasses: strictly typed, every key known.

The usual libraries guess: a string becomes a number, an unknown key at the outermost level passes,
and a union of dataclasses keeps the kind of its default.
"""

import dataclasses
import difflib
import sys
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hvae.errors import ConfigError

T = TypeVar("T")
LARGEST = sys.float_info.max


def read(kind: type[T], values: object, where: str = "") -> T:
    """`values` as a `kind`. `where` is the key that they stand under, for the message of a `ConfigError`."""
    result = _read(kind, values, where)
    assert isinstance(result, kind)
    return result


def _read(kind: Any, value: object, where: str) -> Any:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _read_record((kind,), value, where)
    if origin in (Union, types.UnionType):
        records = tuple(each for each in get_args(kind) if each is not types.NoneType)
        return None if value is None and len(records) < len(get_args(kind)) else _read_record(records, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_read(get_args(kind)[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if origin is Literal and isinstance(value, str) and value in get_args(kind):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    close = difflib.get_close_matches(str(value), get_args(kind), n=1) if origin is Literal else []
    near = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(f"{where or 'The configuration'} is {_show(value)}; {near}give {describe(kind)}.")


def _read_record(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    """The first dataclass that has all the keys of `value` and misses none that it needs."""
    alone, wanted = needed_alone(kinds[0])
    if alone and isinstance(value, wanted) and not isinstance(value, bool):
        value = {alone: value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where or 'The configuration'} is {_show(value)}; give {describe(kinds)}.")
    keys = {str(key) for key in value}
    for kind in kinds:
        if _needed(kind) <= keys <= _hints(kind).keys():
            prefix = f"{where}." if where else ""
            entries = {key: _read(_hints(kind)[key], value[key], f"{prefix}{key}") for key in value}
            try:
                return kind(**entries)
            except ConfigError:
                raise
            except ValueError as error:
                raise ConfigError(f"{prefix}{error}") from None
    raise ConfigError(_refusal(kinds, keys, where))


def _refusal(kinds: tuple[Any, ...], keys: set[str], where: str) -> str:
    if len(kinds) > 1:
        return f"{where} has the keys {', '.join(sorted(keys)) or '(none)'}; give {describe(kinds)}."
    prefix = f"{where}." if where else ""
    known = _hints(kinds[0]).keys()
    for key in sorted(keys - known):
        close = difflib.get_close_matches(key, known, n=1)
        remedy = f"did you mean {prefix}{close[0]}?" if close else f"known are {', '.join(known)}."
        return f"{prefix}{key} is no setting; {remedy}"
    return f"{where} misses {', '.join(sorted(_needed(kinds[0]) - keys))}."


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _needed(kind: Any) -> set[str]:
    missing = dataclasses.MISSING
    return {f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing}


def needed_alone(kind: Any) -> tuple[str, Any]:
    """The one setting that a record needs, and what it is, a number or text; such a value alone stands for the record.

    >>> from hvae.schedules import Constant
    >>> needed_alone(Constant) == ("value", int | float)
    True
    """
    needed = tuple(_needed(kind))
    wanted = {float: int | float, str: str}.get(_hints(kind)[needed[0]]) if len(needed) == 1 else None
    return (needed[0], wanted) if wanted else ("", None)


def differences(record: Any) -> dict[str, Any]:
    """The entries from which `read` makes the record again: those without a default, or with another value."""
    found = {}
    for knob in dataclasses.fields(record):
        value = getattr(record, knob.name)
        made = knob.default_factory is not dataclasses.MISSING
        if value != (knob.default_factory() if made else knob.default):  # type: ignore[operator]
            found[knob.name] = told(value)
    return found


def told(value: Any) -> Any:
    """A setting as plain values, every record as its `differences`."""
    if isinstance(value, tuple):
        return tuple(told(entry) for entry in value)
    return differences(value) if dataclasses.is_dataclass(value) else value


def describe(kind: Any) -> str:
    """What to give for a `kind`, in words: "a whole number"."""
    if isinstance(kind, tuple):
        tables = (f"{{{', '.join(sorted(_needed(k)))}}}" for k in kind)
        plain = {str: "text or ", int | float: "a number or "}.get(needed_alone(kind[0])[1], "")
        return f"{plain}a table of settings" if len(kind) == 1 else f"{plain}one of the tables {', '.join(tables)}"
    if get_origin(kind) is tuple:
        return f"a list, each entry {describe(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    return names.get(kind, "a table of settings")


def _show(value: object) -> str:
    try:
        text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    except (ValueError, RecursionError):  # Python writes no more than 4300 digits
        text = "a value that cannot be written"
    return text if len(text) <= 60 else f"{text[:57]}..."
