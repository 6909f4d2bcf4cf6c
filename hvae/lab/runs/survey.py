"""What lies in directories of runs: the runs, and what cannot be read as one."""

import os.path
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from hvae.errors import ConfigError
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.run import Run


@dataclass(frozen=True)
class Unsound:
    """A directory among runs that cannot be read as one."""

    path: Path
    reason: str
    """what is wrong and the remedy, in one sentence"""


def survey(path: Path) -> list[Run | Unsound]:
    """What lies at a run, an experiment's directory or a root of experiments, in natural order of the names.

    Only a path that is no directory raises: one that is damaged or foreign never hides the others.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConfigError(f"{path} is no directory of runs; see `hvae list`.")
    marks = ("config.json", PIN, "label.txt", "checkpoints")
    found = {file.parent for pattern in ("", "*/", "*/*/") for mark in marks for file in path.glob(pattern + mark)}
    return [_read(run) for run in sorted(found, key=_natural)]


def _read(path: Path) -> Run | Unsound:
    if not (path / "config.json").exists():
        return Unsound(path, f"{path} has lost its config.json; put back a copy, or move the directory elsewhere.")
    try:
        return Run.open(path)
    except (ConfigError, OSError) as error:
        if isinstance(error, ConfigError) and any((path / mark).exists() for mark in (PIN, "label.txt", "DONE")):
            return Unsound(path, str(error))
        reason = str(error).removeprefix(f"{path / 'config.json'}").strip(" :.").partition("; restore")[0]
        return Unsound(path, f"{path} is no run of hvae ({reason}); move it out of the directory of runs.")


def find_runs(path: Path) -> list[Run]:
    """The sound runs of `survey`, with a warning for every other. Raises `ConfigError` where none is sound."""
    found = survey(path)
    runs = [run for run in found if isinstance(run, Run)]
    unsound = [entry for entry in found if isinstance(entry, Unsound)]
    if unsound and not runs:
        raise ConfigError(unsound[0].reason)
    for entry in unsound:
        warnings.warn(entry.reason, stacklevel=2)
    return runs


def _natural(path: Path) -> list[tuple[int, str]]:
    place = Path(os.path.abspath(path))
    parts = re.split(r"(\d+)", f"{place.parent.name}/{place.name}")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
