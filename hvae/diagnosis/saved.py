"""A diagnosis on disk that no run made: a small JSON that says what it is, and its arrays as a run keeps them.

diagnosis.json    schema, number of the verdict's rule, layers, where it comes from
evaluation/*.npz  the arrays (`hvae.diagnosis.arrays`)
"""

import importlib.metadata
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hvae.diagnosis.arrays import to_arrays
from hvae.diagnosis.card import Card
from hvae.diagnosis.files import load_arrays, save_arrays, write_atomically
from hvae.diagnosis.measured import OUTSIDE, SCHEMA, Doubt, Measured
from hvae.diagnosis.record import Array
from hvae.errors import ConfigError
from hvae.outside import read_json, sound

RECORD, FOLDER = "diagnosis.json", "evaluation"
REMEDY = "save the diagnosis again"


@dataclass(frozen=True)
class Saved:
    """A saved diagnosis; what a run directory answers to those who read.

    >>> Saved.open(Path("nowhere"))
    Traceback (most recent call last):
    ...
    hvae.errors.ConfigError: nowhere holds no diagnosis.json; give the directory that a diagnosis was saved in.
    """

    path: Path
    label: str
    record: Mapping[str, Any]

    config: None = None
    """there is no run"""
    done: bool = True

    @staticmethod
    def open(path: Path) -> "Saved":
        """Raises `ConfigError` where nothing was saved, it is damaged, or a later version wrote it."""
        file = path / RECORD
        try:
            with sound(file, REMEDY):
                record = read_json(file, REMEDY)
                schema, label = int(record["schema"]), str(record["label"])
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{path} holds no {RECORD}; give the directory that a diagnosis was saved in.") from None
        if schema > SCHEMA:
            raise ConfigError(f"{file} has schema {schema}, and this hvae reads up to {SCHEMA}; update hvae.")
        return Saved(path, label or path.resolve().name, record)

    @property
    def experiment(self) -> str:
        """The directory above it."""
        return self.path.resolve().parent.name

    def has_arrays(self, name: str) -> bool:
        """Whether evaluation/<name>.npz exists."""
        return self._file(name).exists()

    def load_arrays(self, name: str, only: Collection[str] | None = None) -> dict[str, Array]:
        """Read evaluation/<name>.npz, or ``only`` some of its arrays."""
        return load_arrays(self._file(name), REMEDY, only=only)

    def load_if_there(self, name: str) -> dict[str, Array]:
        """The arrays of a file; none where there is no such file."""
        return self.load_arrays(name) if self.has_arrays(name) else {}

    def read_provenance(self) -> list[dict[str, Any]]:
        """Where it comes from."""
        return [dict(self.record.get("provenance", {}))]

    def read_metrics(self) -> list[dict[str, Any]]:
        """Nothing is known of its training."""
        return []

    @property
    def notes(self) -> tuple[Doubt, ...]:
        """Doubts from before the measurement."""
        return tuple(Doubt(**note) for note in self.record.get("notes", ()))

    @property
    def checks(self) -> tuple[str, ...]:
        """What was found to be right."""
        return tuple(map(str, self.record.get("checks", ())))

    def read_cards(self) -> tuple[Card, ...]:
        """What is known of the data."""
        return Card.of_records(self.record.get("cards", ()))

    @property
    def source(self) -> str:
        """Where it comes from."""
        return str(self.record.get("source", OUTSIDE))

    def _file(self, name: str) -> Path:
        return self.path / FOLDER / f"{name}.npz"


def holds_run(directory: Path) -> bool:
    """Whether a run of hvae lies there."""
    return (directory / "config.json").exists()


def save(diagnosis: Measured, directory: Path) -> Path:
    """Write it. Raises `ConfigError` for a directory that holds a run."""
    if holds_run(directory):
        raise ConfigError(f"{directory} holds a run; save the diagnosis in a directory of its own.")
    files = to_arrays(diagnosis)
    for old in (directory / FOLDER).glob("*.npz"):
        if old.stem not in files:
            old.unlink()
    for name, arrays in files.items():
        save_arrays(directory / FOLDER / f"{name}.npz", arrays)
    write_atomically(directory / RECORD, f"{json.dumps(_record(diagnosis), indent=2)}\n".encode())
    return directory


def _record(diagnosis: Measured) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "rule": diagnosis.rule,
        "source": diagnosis.source,
        "label": diagnosis.label,
        "layers": {layer.name: layer.n_units for layer in diagnosis.layers},
        "seeds": list(diagnosis.seeds),
        "order": diagnosis.order,
        "notes": [asdict(note) for note in diagnosis.notes],
        "checks": list(diagnosis.checks),
        "cards": [card.record() for card in diagnosis.cards],
        "sizes": None if diagnosis.sizes is None else asdict(diagnosis.sizes),
        "provenance": {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": diagnosis.source,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in ("hvae", "torch", "numpy")},
        },
    }


def find_saved(path: Path) -> Sequence[Saved]:
    """The saved diagnoses at a directory, one level below it, or two."""
    found = (file.parent for pattern in ("", "*/", "*/*/") for file in sorted(path.glob(f"{pattern}{RECORD}")))
    return [Saved.open(each) for each in found]
