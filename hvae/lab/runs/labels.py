"""From what is typed to the directory it means: a path, or the label of a run under the directory of runs."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from hvae.diagnosis import Saved, find_saved
from hvae.errors import ConfigError
from hvae.lab.runs.run import Run
from hvae.lab.runs.survey import survey

SHOWN = 3
"""candidates that a sentence names"""


def find_place(text: str, root: Path) -> Path:
    """The directory that `text` names: a path, a path below `root`, a label or a folder's name among its runs.

    Raises `ConfigError`, with the candidates, where several runs have the label or none has.
    """
    if text and Path(text).exists():
        return Path(text)
    below = root / text
    if text.strip() and ".." not in Path(text).parts and below.is_dir():
        return below
    runs: list[Run | Saved] = []
    if root.is_dir():
        runs = [*(entry for entry in survey(root) if isinstance(entry, Run)), *find_saved(root)]
    found = [run for run in runs if run.label == text] or [run for run in runs if run.path.name == text]
    if len(found) == 1:
        return found[0].path
    if found:
        places = _some([str(run.path) for run in found])
        raise ConfigError(f"{len(found)} runs are called {text!r}; give the directory of one: {places}.")
    said = f"{text or repr(text)} is no directory, and no run in {root} has this label"
    if not runs:
        raise ConfigError(f"{said}, as there is no run; see `hvae list`.")
    labels = list(dict.fromkeys(run.label for run in runs))
    close = [label for label in labels if text.lower() in label.lower()]
    close = close or difflib.get_close_matches(text, labels, n=SHOWN, cutoff=0.5)
    if close:
        raise ConfigError(f"{said}; did you mean {_some([repr(label) for label in close])}?")
    raise ConfigError(f"{said}; known are {_some([repr(label) for label in labels])}; see `hvae list`.")


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    *others, last = [*names[:SHOWN], *more]
    return f"{', '.join(others)} and {last}" if more else f"{', '.join(others)} or {last}" if others else last
