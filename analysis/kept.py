"""The arrays behind a page of results: its runs without what nothing draws, in two files that a repository can hold.

    <page>/arrays/runs.json   experiment, preset; of every run directory, label, configuration, provenance, cards
    <page>/arrays/runs.npz    arrays (see `packed`), <directory>/<file>/<key>; metrics are a file among them, and
                              what was measured beside the runs stands under measured/<part>/<key>

`read_kept` gives runs that `load` reads as it reads run directories. `keep` says what is reduced.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.packed import Array, load_packed, save_packed
from hvae.diagnosis.card import Card
from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.lab.runs.files import write_atomically
from hvae.outside import read_json, sound

FOLDER, RECORDS, ARRAYS = "arrays", "runs.json", "runs.npz"
MEASURED, METRICS = "measured", "metrics"
REMEDY = "restore it with git, or make the page again with `hvae report … --to`"

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class KeptRun:
    """A run as a page keeps it; what `hvae.lab.runs.run.Run` answers to those who read."""

    path: Path
    """where it would lie: nothing is there, but its name is the run directory's"""
    experiment: str
    label: str
    config: RunConfig | None
    """None for what was measured from outside"""
    done: bool
    provenance: Sequence[Mapping[str, Any]]
    files: Mapping[str, Arrays]
    """name of a file of the evaluation, or `METRICS`, -> its arrays"""
    cards: tuple[Card, ...] = ()

    def has_arrays(self, name: str) -> bool:
        return name in self.files

    def load_arrays(self, name: str) -> dict[str, Array]:
        return dict(self.files[name])

    def read_provenance(self) -> list[dict[str, Any]]:
        return [dict(session) for session in self.provenance]

    def read_cards(self) -> tuple[Card, ...]:
        return self.cards

    def read_metrics(self) -> list[dict[str, Any]]:
        """A row for every step; what is NaN in all of a row was not written there."""
        metrics = dict(self.files.get(METRICS, {"step": np.zeros(0, dtype=int)}))
        rows: list[dict[str, Any]] = [{"step": int(step)} for step in metrics.pop("step")]
        for key, values in metrics.items():
            for row, value in zip(rows, values, strict=True):
                if not np.isnan(value).all():
                    row[key] = value.tolist()
        return rows


@dataclass(frozen=True)
class Kept:
    """What stands in `arrays/` of a page."""

    preset: str
    runs: tuple[KeptRun, ...]
    measured: Mapping[str, Arrays]
    measured_by: tuple[Mapping[str, Any], ...]


def holds_kept(page: Path) -> bool:
    """Whether arrays are kept with a page."""
    return (page / FOLDER).is_dir()


def write_kept(page: Path, kept: Kept) -> None:
    """Write `arrays/` of a page."""
    records = {
        "experiment": kept.runs[0].experiment,
        "preset": kept.preset,
        "runs": [
            {
                "directory": run.path.name,
                "label": run.label,
                "done": run.done,
                "config": None if run.config is None else json.loads(run.config.to_json()),
                "provenance": run.read_provenance(),
                "cards": [card.record() for card in run.cards],
            }
            for run in kept.runs
        ],
        "measured_by": [dict(record) for record in kept.measured_by],
    }
    files = {(run.path.name, name): arrays for run in kept.runs for name, arrays in run.files.items()}
    files |= {(MEASURED, part): arrays for part, arrays in kept.measured.items()}
    flat = {f"{owner}/{name}/{key}": array for (owner, name), arrays in files.items() for key, array in arrays.items()}
    folder = page / FOLDER
    save_packed(folder / ARRAYS, flat)
    write_atomically(folder / RECORDS, f"{_lines(records)}\n".encode())


def read_kept(page: Path) -> Kept:
    """Read it back. Raises `ConfigError` where a file is missing or damaged."""
    file = page / FOLDER / RECORDS
    files: dict[str, dict[str, dict[str, Array]]] = {}
    try:
        with sound(page / FOLDER / ARRAYS, REMEDY):
            for place, array in load_packed(page / FOLDER / ARRAYS, REMEDY).items():
                owner, name, key = place.split("/", 2)
                files.setdefault(owner, {}).setdefault(name, {})[key] = array
        with sound(file, REMEDY):
            return _kept(page, read_json(file, REMEDY), files)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{file} does not exist; {REMEDY}.") from None


def _kept(page: Path, records: Any, files: Mapping[str, Mapping[str, Arrays]]) -> Kept:
    """What `write_kept` was given, from its records and its arrays."""
    source = str(page / FOLDER / RECORDS)
    runs = tuple(
        KeptRun(
            path=page / FOLDER / record["directory"],
            experiment=records["experiment"],
            label=record["label"],
            config=_config(record["config"], source),
            done=record["done"],
            provenance=tuple(record["provenance"]),
            files=files.get(record["directory"], {}),
            cards=Card.of_records(record.get("cards", ())),
        )
        for record in records["runs"]
    )
    return Kept(records["preset"], runs, files.get(MEASURED, {}), tuple(records["measured_by"]))


def _lines(records: Mapping[str, Any]) -> str:
    """JSON with a line for every run, so that a change of one is one line."""
    entries = []
    for key, value in records.items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        entries.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}"


def _config(values: Any, source: str) -> RunConfig | None:
    """A configuration as a run's file has it; None for a diagnosis that no run made."""
    return None if values is None else RunConfig.from_json(json.dumps(values), source)
