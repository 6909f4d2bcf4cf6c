"""Rows of metrics as lines of JSON. What is not finite is written as null; null is read as NaN."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvae.errors import ConfigError
from hvae.lab.runs.files import write_atomically

Row = dict[str, Any]
"""One row of metrics: "step" is an int, "beta" a float, the rest lists over replicas; NaN where unknown."""


def append_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open(file, "ab") as lines:
        lines.write(_text(rows))


def read_rows(file: Path) -> list[Row]:
    """All rows. A last line that a kill cut short is left out."""
    rows: list[Row] = []
    for number, line in enumerate(_lines(file), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int):
                raise TypeError("step is no whole number")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file} is damaged in line {number} ({error}); delete the run and start it again."
            ) from None
        rows.append({name: _with_nan(value) for name, value in row.items()})
    return rows


def last_step(file: Path) -> int:
    """The step of the newest row; 0 where there is none. Older rows are not read."""
    lines = _lines(file)
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged in its last line ({error}); delete that line.") from None


def truncate_rows(file: Path, step: int) -> None:
    """Keep the rows up to `step`."""
    write_atomically(file, _text([row for row in read_rows(file) if row["step"] <= step]))


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def _text(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(_without_nan(row), allow_nan=False) + "\n" for row in rows).encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return math.nan if value is None else value
