"""Rows of metrics as lines of JSON. What is not finite is written as null; null is read as NaN."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvae.lab.runs.files import write_atomically
from hvae.lab.runs.manifest import METRICS, Entry, check, enter, read_manifest
from hvae.outside import from_json, read_bytes, sound

MOST_BYTES, MOST_ROW = 4 * 2**30, 2**24
"""of a file, and of a row"""
REMEDY = "restore it, or delete it to go on without the curves of training"

Row = dict[str, Any]
"""One row of metrics: "step" is an int, "beta" a float, the rest lists over replicas; NaN where unknown."""


def append_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open(file, "ab") as lines:
        lines.write(_text(rows))


def read_rows(file: Path) -> list[Row]:
    """All rows. A last line that a kill cut short is left out."""
    rows: list[Row] = []
    for number, line in enumerate(_lines(file), start=1):
        with sound(file, REMEDY, f"is damaged in line {number}"):
            rows.append({name: _with_nan(value) for name, value in _row(line).items()})
    return rows


def last_step(file: Path) -> int:
    """The step of the newest row; 0 where there is none. Older rows are not read."""
    lines = _lines(file)
    with sound(file, REMEDY, "is damaged in its last line"):
        return int(_row(lines[-1])["step"]) if lines else 0


def read_metrics(path: Path, n_steps: int) -> list[Row]:
    """All rows of the run at ``path``.

    Rows that are not those that were written are refused, but for later ones of a training that goes on.
    """
    manifest = read_manifest(path)
    entry = manifest.files.get(METRICS) if manifest else None
    if entry is not None and entry.n_bytes and not (path / METRICS).exists():
        warnings.warn(f"{path / METRICS} is lost; the run is shown without its curves of training.", stacklevel=3)
    last = entry.step if entry else None
    check(path, METRICS, REMEDY, grown=last is None or last < n_steps)
    return read_rows(path / METRICS)


def truncate_metrics(path: Path, digest: str, step: int) -> None:
    """Keep the rows up to `step`, byte for byte. Those after the last checkpoint may be damaged: they are dropped."""
    file, manifest = path / METRICS, read_manifest(path)
    entry = manifest.files.get(METRICS) if manifest else None
    check(path, METRICS, REMEDY, grown=True)
    lines = _lines(file)
    if entry is not None and (entry.step or 0) >= step:
        lines = b"".join(line + b"\n" for line in lines)[: entry.n_bytes].split(b"\n")[:-1]
    with sound(file, REMEDY):
        kept = b"".join(line + b"\n" for line in lines if _row(line)["step"] <= step)
    enter(path, digest, METRICS, Entry.of(kept, step))  # first, as it is a beginning of both files
    write_atomically(file, kept)


def keep_metrics(path: Path, digest: str) -> None:
    """Enter the rows that are there now in the manifest, unless those that were entered before are damaged."""
    manifest, file = read_manifest(path), path / METRICS
    entry = manifest.files.get(METRICS) if manifest else None
    if file.exists() and (entry is None or entry.holds(file, grown=True)):
        found = Entry.of(read_bytes(file, MOST_BYTES), last_step(file))
        if found != entry:
            enter(path, digest, METRICS, found)


def _lines(file: Path) -> list[bytes]:
    if not file.exists():
        return []
    with sound(file, REMEDY):
        return read_bytes(file, MOST_BYTES).split(b"\n")[:-1]


def _row(line: bytes) -> Row:
    if len(line) > MOST_ROW:
        raise ValueError(f"it has more than {MOST_ROW} bytes")
    row = from_json(line)
    if not isinstance(row, dict) or type(row.get("step")) is not int or row["step"] < 0:
        raise ValueError("it is no row with a whole step")
    return row


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
        return value if {*map(type, value)} == {float} else [_with_nan(entry) for entry in value]
    return math.nan if value is None else value
