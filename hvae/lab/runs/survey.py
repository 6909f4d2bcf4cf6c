"""What lies in directories of runs: the runs, and what cannot be read as one."""

import contextlib
import dataclasses
import os.path
import re
import warnings
from pathlib import Path

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.manifest import FILE
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import State, opened, state_of


def places(path: Path) -> list[Path]:
    """The directories of runs at a run, an experiment's directory or a root of experiments, in natural order of names.

    Only a path that is no directory raises.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConfigError(f"{path} is no directory of runs; see `hvae list`.")
    marks = ("config.json", PIN, FILE, "label.txt", "checkpoints")
    found = {file.parent for pattern in ("", "*/", "*/*/") for mark in marks for file in path.glob(pattern + mark)}
    return sorted(found, key=_natural)


def survey(path: Path) -> list[Run | State]:
    """The runs at `places`, and the state of each that cannot be opened: one that is bad never hides the others."""
    return [opened(run) for run in places(path)]


def verify(path: Path) -> list[State]:
    """The state of each run at `places`, from all of its files."""
    return [state_of(run) for run in places(path)]


def find_runs(path: Path) -> list[Run]:
    """The sound runs of `survey`, with a warning for every other. Raises `ConfigError` where none is sound."""
    found = survey(path)
    runs = [run for run in found if isinstance(run, Run)]
    unsound = [entry for entry in found if isinstance(entry, State)]
    if unsound and not runs:
        raise ConfigError(unsound[0].reason)
    for entry in unsound:
        warnings.warn(entry.reason, stacklevel=2)
    return runs


def akin(folder: Path, config: RunConfig) -> list[str]:
    """A sentence for each run in a directory that has these settings with fewer steps, or for some of the seeds."""
    said = []
    for run in survey(folder) if folder.is_dir() else []:
        if not isinstance(run, Run):
            continue
        mine, theirs = config.training, run.config.training
        with contextlib.suppress(ConfigError):  # stages may need all steps
            training = dataclasses.replace(theirs, n_steps=mine.n_steps, seeds=mine.seeds)
            same = dataclasses.replace(run.config, training=training, evaluation=config.evaluation) == config
            fewer, some = theirs.n_steps < mine.n_steps, set(theirs.seeds) < set(mine.seeds)
            if same and (fewer or theirs.n_steps == mine.n_steps) and (some or theirs.seeds == mine.seeds):
                has = [f"the first {theirs.n_steps} of these {mine.n_steps} steps"] if fewer else []
                has += [f"{len(theirs.seeds)} of these {len(mine.seeds)} seeds"] if some else []
                if has:
                    said.append(f"{run.path} has the same settings and {' and '.join(has)}; this run trains all anew.")
    return said


def _natural(path: Path) -> list[tuple[int, str]]:
    place = Path(os.path.abspath(path))
    parts = re.split(r"(\d+)", f"{place.parent.name}/{place.name}")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
