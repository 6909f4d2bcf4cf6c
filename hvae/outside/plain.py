"""From text to plain values: None, booleans, numbers, text, lists and dictionaries with text as keys.

JSON as RFC 8259 has it: keys of an object differ, and NaN and Infinity are no numbers. YAML as the core schema of
YAML 1.2.2 (section 10.3) has it: `no`, `on`, `1_000` and `1:30` are text, `0o17` is 15 and `017` is 17. Anchors,
aliases, tags and several documents are refused, since a few lines with them stand for gigabytes, or for code.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hvae.outside.text import MOST_BYTES, check_text, decoded, read_bytes, reason, sound

MOST_YAML = 64 * 2**10
"""bytes of a file of settings; all of them with their comments are a tenth of it"""
MOST_DEPTH = 32
"""lists and tables within each other"""
MOST_DIGITS = 20
"""of a whole number, as 64 bits need"""

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


def read_json(file: Path, remedy: str, *, most: int = MOST_BYTES) -> Any:
    """The values in a file of JSON. Raises `ConfigError`, with the remedy, where it is none, and FileNotFoundError."""
    with sound(file, remedy):
        return from_json(decoded(read_bytes(file, most)))


def read_yaml(file: Path, remedy: str, *, most: int = MOST_YAML) -> Any:
    """The values in a file of YAML or JSON. Raises `ConfigError`, with the remedy, and FileNotFoundError."""
    with sound(file, remedy, "cannot be read"):
        return from_yaml(decoded(read_bytes(file, most)))


def from_json(text: str | bytes) -> Any:
    """The values. Raises ValueError, saying why, for what is no JSON, too deep, or has a key twice.

    >>> from_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> from_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the key 'a' stands twice
    """
    text = decoded(text) if isinstance(text, bytes) else text
    try:
        found = json.loads(text, object_pairs_hook=_table, parse_int=_whole, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {reason(ValueError(str(error)))}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    return _checked(found, finite=True)


def from_yaml(text: str) -> Any:
    """The values. Raises ValueError, saying why, for what is no YAML, too deep, has a key twice, an alias or a tag.

    >>> from_yaml("{a: [no, 1_000, 0o17, 1e-3], b: ~}")
    {'a': ['no', '1_000', 15, 0.001], 'b': None}
    """
    import yaml  # here, since a report reads none

    if len(text) > MOST_YAML:
        raise ValueError(f"it has more than {MOST_YAML} characters")
    open_: list[tuple[str, list[Any]]] = [("documents", [])]
    try:
        for event in yaml.parse(check_text(text), Loader=yaml.SafeLoader):
            if isinstance(event, yaml.NodeEvent):
                _refuse_shared(event)
            if isinstance(event, yaml.ScalarEvent):
                open_[-1][1].append(_paired(event.value) if event.style else _scalar(event.value))
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                open_.append(("list" if isinstance(event, yaml.SequenceStartEvent) else "table", []))
                if len(open_) > MOST_DEPTH + 1:
                    raise ValueError(_TOO_DEEP)
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                kind, entries = open_.pop()
                made = entries if kind == "list" else _table(list(zip(entries[::2], entries[1::2], strict=True)))
                open_[-1][1].append(made)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise ValueError(f"it is not YAML: {reason(ValueError(error.problem or error.context or ''))}{where}") from None
    except (yaml.YAMLError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {reason(ValueError(str(error)))}") from None
    ((_, documents),) = open_
    if len(documents) > 1:
        raise ValueError("it holds several documents, where one is read")
    return _checked(documents[0]) if documents else None


def _refuse_shared(event: Any) -> None:
    where = f"line {event.start_mark.line + 1}"
    if event.anchor is not None:
        raise ValueError(f"{where} has an anchor or alias (& or *), which is not read; write the value out, in quotes")
    if getattr(event, "tag", None) is not None:
        raise ValueError(f"{where} has the tag {event.tag[:60]}, which is not read; leave it out")


def _paired(text: str) -> str:
    """Text in quotes, where JSON writes a character beyond 16 bits as two escapes."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _scalar(text: str) -> Any:
    """What stands without quotes, by the core schema."""
    if _NULL.fullmatch(text):
        return None
    if found := _BOOL.fullmatch(text):
        return found[1] is not None
    if _WHOLE.fullmatch(text):
        return _whole(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INFINITE.fullmatch(text):
        return math.inf if found[1] != "-" else -math.inf
    return math.nan if _NAN.fullmatch(text) else text


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 2:
        raise ValueError(f"the number {text[:12]}… has {len(text)} digits, more than {MOST_DIGITS}")
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _table(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"the key {str(key)[:40]} is no text; write it in quotes")
        if key in found:
            raise ValueError(f"the key {key[:40]!r} stands twice")
        found[key] = value
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is no number of JSON")


_INFINITE_JSON = "it holds a number beyond 1e308"
_TOO_DEEP = f"it has more than {MOST_DEPTH} lists and tables within each other"


def _checked(value: Any, *, finite: bool = False) -> Any:
    """The value, if it is not too deep and all its text is text. Without recursion, as that is what it prevents.

    YAML has infinite numbers; that a setting is none of them is said with the setting's name.
    """
    level = [value]
    for depth in range(MOST_DEPTH + 1):
        below: list[Any] = []
        for each in level:
            if depth == MOST_DEPTH and isinstance(each, dict | list):
                raise ValueError(_TOO_DEEP)
            if isinstance(each, str):
                check_text(each)
            elif isinstance(each, float):
                if finite and not math.isfinite(each):
                    raise ValueError(_INFINITE_JSON)
            elif isinstance(each, dict):
                below += each.keys()
                below += each.values()
            elif isinstance(each, list):
                if {*map(type, each)} != {float}:
                    below += each
                elif finite and not all(map(math.isfinite, each)):  # nearly all of a file is lists of numbers
                    raise ValueError(_INFINITE_JSON)
        level = below
    return value
