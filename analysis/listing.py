"""What lies in the directory of runs: a line for each run with verdict, date and size, and for each experiment.

Only what such a line says is read of a run, so that a long list is quick. A damaged file costs its own line only.
"""

import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hvae.analysis.tables.table import span
from hvae.analysis.tables.words import KIND
from hvae.diagnosis import Saved, find_saved
from hvae.errors import ConfigError
from hvae.lab.runs.run import Run
from hvae.lab.runs.states import State
from hvae.lab.runs.survey import survey

Listed = Run | Saved

DATE, SIZE, LABEL = 10, 9, 25
"""columns of a line; the rest is for the verdict"""
FEW = 6
"""of an experiment with more runs the single ones are not listed unless asked for"""
HINT = "`hvae report LABEL{0}` shows one again, `hvae compare LABEL LABEL{0}` two."


@dataclass(frozen=True)
class Entry:
    """What a line says of a run, or of all runs of an experiment."""

    name: str
    says: str
    moment: datetime
    n_bytes: int


def runs_text(
    root: Path,
    width: int,
    *,
    experiment: str = "",
    grouped: Callable[[str], bool] = lambda name: False,
    most: int | None = None,
) -> str:
    """The runs below `root`: those of an `experiment`, or all, in one line where they are many and `grouped`.

    One's own come first, then those of experiments; the newest first, and of single ones at `most` so many.
    """
    found = [entry for entry in _all(root) if experiment in ("", _group(entry))] if root.is_dir() else []
    groups: dict[str, list[Listed]] = {}
    for run in found:
        if not isinstance(run, State):
            groups.setdefault(run.experiment, []).append(run)
    ours = [run for name, runs in groups.items() if experiment or not grouped(name) for run in runs]
    theirs = {name: runs for name, runs in groups.items() if not experiment and grouped(name)}
    lines = []
    where = "" if root == Path("runs") else f" --runs-dir {root}"
    if ours:
        shown = _newest(ours)[:most]
        lines += [f"Your runs in {root / experiment}, newest first", *_lines(_entries(shown), width)]
        lines += [f"  and {len(ours) - len(shown)} more; `hvae list` shows them"] if len(shown) < len(ours) else []
        lines += ["", f"  {HINT.format(where)}", ""]
    if theirs:
        lines.append(f"Runs of experiments in {root} (`hvae list NAME` shows each)")
        for name, runs in sorted(theirs.items()):
            lines += _lines([_together(name, runs)], width)
            if len(runs) <= FEW and most is None:
                lines += _lines(_entries(_newest(runs)), width, indent=4)
        lines.append("")
    bad = [entry for entry in found if isinstance(entry, State)]
    lines += ["Not readable as runs"] if bad else []
    lines += [textwrap.fill(entry.reason, width, initial_indent="  ", subsequent_indent="    ") for entry in bad]
    return "\n".join(lines).rstrip() or f"Your runs in {root / experiment}: none yet"


def _all(root: Path) -> list[Listed | State]:
    """Runs, and diagnoses of models that were handed in."""
    return [*survey(root), *find_saved(root)]


def _newest(runs: Iterable[Listed]) -> list[Listed]:
    return sorted(runs, key=_moment, reverse=True)


def _group(entry: Listed | State) -> str:
    return entry.experiment if not isinstance(entry, State) else Path(os.path.abspath(entry.path)).parent.name


def _entries(runs: Sequence[Listed]) -> list[Entry]:
    """Runs of one label, as copies are, are told apart by their directories."""
    labels = Counter(run.label for run in runs)
    names = [run.label if labels[run.label] == 1 else f"{run.label} ({run.path.name})" for run in runs]
    return [
        Entry(_printable(name), _printable(_says(run)), _moment(run), _n_bytes(run.path))
        for name, run in zip(names, runs, strict=True)
    ]


def _together(name: str, runs: Sequence[Listed]) -> Entry:
    n_done = sum(run.done for run in runs)
    says = f"{len(runs)} run{'' if len(runs) == 1 else 's'}, {n_done} done"
    size = sum(_n_bytes(run.path) for run in runs)
    return Entry(name, says, max(_moment(run) for run in runs), size)


def _lines(entries: Iterable[Entry], width: int, indent: int = 2) -> list[str]:
    """A label or verdict that is too long for its column goes on below."""
    n_label = LABEL + 2 - indent
    middle = width - indent - n_label - 2 - 2 - DATE - SIZE
    lines = []
    for entry in entries:
        names = textwrap.wrap(entry.name, n_label, break_on_hyphens=False) or [""]
        says = textwrap.wrap(entry.says, middle)
        end = f"  {entry.moment.astimezone():%Y-%m-%d}{_size(entry.n_bytes):>{SIZE}}"
        for row in range(max(len(names), len(says))):
            name, text = (column[row] if row < len(column) else "" for column in (names, says))
            lines.append(f"{' ' * indent}{name:<{n_label}}  {text:<{middle}}{'' if row else end}".rstrip())
    return lines


# -- what is read of a run -----------------------------------------------------------------------------


def _says(run: Listed) -> str:
    """The verdict in short, and how far an unfinished run is; what is wrong where it cannot be read."""
    try:
        if isinstance(run, Saved):
            return f"{verdict_words(run)} ({run.source})"
        verdict = verdict_words(run)
        if run.done:
            return verdict or "done, not evaluated"
        return f"{verdict} ({run.progress})" if verdict else run.progress
    except (ConfigError, OSError) as error:
        return str(error)
    except Exception as error:  # a parser raises whatever it meets in a damaged file
        return f"damaged ({type(error).__name__}: {error}); `hvae evaluate {run.path} --force` measures it again"


def verdict_words(run: Listed) -> str:
    """ "z1, z2 active; z3 collapsed 3 of 4": layers whose replicas agree are named together; empty if not evaluated."""
    if not run.has_arrays("diagnostics"):
        return ""
    layers = (
        list(run.record["layers"])
        if isinstance(run, Saved)
        else [f"z{n + 1}" for n in range(run.config.model.n_layers)]
    )
    n_failed, n_seeds = 0, 0
    # of an archive only what is asked for is unpacked
    keys = [f"verdict/{layer}" for layer in layers]
    found = run.load_arrays("diagnostics", only=keys)
    verdicts = [found[key] for key in keys]
    groups: list[tuple[str, list[int]]] = []
    for layer, words in enumerate(verdicts, start=1):
        n_seeds = len(words)
        found = Counter(KIND.get(str(word), str(word)) for word in words[:, words.shape[1] // 2])
        n_failed = found.pop("failed", 0)
        ((word, count),) = found.most_common(1) or [("", 0)]
        says = word if len(found) < 2 else f"{word} {count} of {sum(found.values())}"
        if groups and groups[-1][0] == says and len(found) == 1:
            groups[-1][1].append(layer)
        elif found:
            groups.append((says, [layer]))
    usual = layers == [f"z{n + 1}" for n in range(len(layers))]
    parts = [
        f"{span(numbers) if usual else ', '.join(layers[number - 1] for number in numbers)} {says}"
        for says, numbers in groups
    ]
    parts += [f"{n_failed} of {n_seeds} seeds failed"] if n_failed else []
    return "; ".join(parts)


def _moment(run: Listed) -> datetime:
    """When it was last worked on: the newest session, or where none is readable the date of its files."""
    try:
        return max(datetime.fromisoformat(str(session["time"])).astimezone(UTC) for session in run.read_provenance())
    except (ConfigError, ValueError, KeyError, TypeError, OSError, AttributeError):
        file = run.path / ("diagnosis.json" if isinstance(run, Saved) else "config.json")
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)


def _n_bytes(path: Path) -> int:
    """On disk, links inside not followed."""
    total = 0
    for folder, _, names in os.walk(path.resolve()):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # gone since it was listed
                continue
    return total


def _size(n_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def _printable(label: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in label)
