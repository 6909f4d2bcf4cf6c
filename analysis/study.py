"""The runs of one experiment, with the question they were made for.

An experiment is a module `hvae.experiments.<name>`: its docstring is the question, `claims` what must
hold, `panels` (optional) which runs share a panel of a figure. A directory of runs without such a
module, and a single run, are studies too: without claims.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hvae.analysis.claims import Claim, Decision, decide_all
from hvae.analysis.kept import holds_kept, read_kept
from hvae.analysis.load import Arrays, LoadedRun, by_label, load_run, load_runs
from hvae.analysis.papers import Curves, Grid, Number, Paper
from hvae.errors import ConfigError
from hvae.lab.runs.files import load_arrays
from hvae.lab.runs.identity import directory_name
from hvae.outside import read_json

PACKAGE = "hvae.experiments"
TOO_SMALL = ("smoke",)
"""presets of papers that show that everything runs: seconds of training, on other data than the paper's"""


@dataclass(frozen=True)
class Study:
    """What a report is about."""

    title: str
    question: str
    preset: str
    """which of the experiment's presets the runs are; empty when unknown"""
    runs: tuple[LoadedRun, ...]
    panels: Mapping[str, tuple[LoadedRun, ...]]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...]
    """sentences on what was left out, measured early or stopped"""
    baselines: Mapping[str, str] = field(default_factory=dict)
    """label of a run -> label of the run that it is held against"""
    measured: Mapping[str, Arrays] = field(default_factory=dict)
    """part -> what the experiment measured beside its runs; a part that bears a run's name is in that run's `beside`"""
    measured_by: tuple[Mapping[str, Any], ...] = ()
    """where these numbers come from, one entry per part"""
    paper: Paper | None = None
    """what is reproduced, where it is one"""
    numbers: tuple[Number, ...] = ()
    """what the paper printed, to stand beside ours"""
    curves: tuple[Curves, ...] = ()
    """figures of the paper, redrawn"""
    grids: tuple[Grid, ...] = ()
    """tables of the paper, filled anew"""
    sections: tuple[Any, ...] = ()
    """what the experiment adds to the report, each an `hvae.analysis.sections.Section`"""
    kept: tuple[str, ...] | None = None
    """names of the figures that carry the message, which a page of results keeps; None for all"""

    @property
    def single(self) -> bool:
        """One run, and nothing else."""
        return len(self.runs) == 1 and not self.measured

    @property
    def decisions(self) -> list[Decision]:
        """What the runs say about every claim; of a preset that only shows that everything runs, nothing."""
        found = decide_all(self.claims, by_label(self.runs), self.measured)
        if self.preset not in TOO_SMALL:
            return found
        return [replace(each, outcome="too small to say") if each.n_replicas else each for each in found]

    @property
    def deepest(self) -> Mapping[str, LoadedRun]:
        """The deepest run of every panel: what is shown where one picture per run is too many.

        Where all runs of a panel are equally deep it is the last of them, under its own name.
        """
        found = {}
        for title, runs in self.panels.items():
            run = max(reversed(runs), key=lambda run: run.depth)
            found[run.label if len(runs) > 1 and min(other.depth for other in runs) == run.depth else title] = run
        return found


def open_study(directory: Path, preset: str = "", more: Path | None = None) -> Study:
    """The study at `directory`: a run, an experiment directory, a root or a page of results with its arrays.

    Where a directory holds several presets of its experiment, one is shown: `preset`, or else the
    one that was written last. Runs of the preset that are missing or not evaluated there are taken from `more`, a
    directory or a page of the same experiment. Raises `ConfigError` when there is no run.
    """
    found = _found(directory, preset)
    return _study(found if more is None else found.joined(_found(more, found.preset, found.experiment)))


@dataclass(frozen=True)
class _Found:
    """What lies in one place."""

    experiment: str
    preset: str
    runs: tuple[LoadedRun, ...]
    """those of the preset"""
    left: int
    """how many runs are not"""
    measured: Mapping[str, Arrays]
    measured_by: tuple[Mapping[str, Any], ...]

    def joined(self, more: "_Found") -> "_Found":
        """With what only the other place has."""
        mine, theirs = (by_label([run for run in place.runs if run.evaluated]) for place in (self, more))
        runs = [run for run in self.runs if run.label in mine or run.label not in theirs]
        parts = [part for part in more.measured if part not in self.measured]
        return replace(
            self,
            runs=(*runs, *(run for label, run in theirs.items() if label not in mine)),
            measured={**{part: more.measured[part] for part in parts}, **self.measured},
            measured_by=(*self.measured_by, *(more.measured_by if parts else ())),
        )


def _found(directory: Path, preset: str, experiment: str = "") -> _Found:
    """What a directory or a page has of a preset; of one experiment alone where one is named."""
    page = read_kept(directory) if holds_kept(directory) else None
    runs = load_runs(directory) if page is None else [load_run(run) for run in page.runs]
    if not runs:
        raise ConfigError(_nothing(directory))
    if experiment not in ("", runs[0].experiment):
        raise ConfigError(f"{directory} holds runs of '{runs[0].experiment}', not of '{experiment}'.")
    if page is not None and preset not in ("", page.preset):
        raise ConfigError(f"no run of preset '{preset}' is there; {directory} keeps {page.preset or 'no preset'}.")
    if page is not None and not experiment:
        return _Found(runs[0].experiment, page.preset, tuple(runs), 0, page.measured, page.measured_by)
    chosen, kept = _of_preset(runs, experiment_module(runs[0].experiment), preset)
    if page is not None:
        measured, measured_by = page.measured, page.measured_by
    else:
        measured, measured_by = _measured(directory / "measured" / chosen) if chosen else ({}, ())
    newest = _newest_of_each_label(kept)
    return _Found(runs[0].experiment, chosen, tuple(newest), len(runs) - len(newest), measured, measured_by)


def _study(found: _Found) -> Study:
    module, chosen, measured = experiment_module(found.experiment), found.preset, dict(found.measured)
    if len(found.runs) + found.left == 1 and not measured:
        return single(found.runs[0])
    kept = [replace(run, beside=_beside(measured, run)) for run in found.runs]
    if module is not None and chosen in module.PRESETS:
        order = list(module.configs(chosen))
        kept.sort(key=lambda run: order.index(run.label) if run.label in order else len(order))
    notes = []
    if found.left:
        what = "run is" if found.left == 1 else "runs are"
        why = "another preset, older settings or a copy"
        notes.append(f"{found.left} other {what} in this directory ({why}) and not shown here.")
    unfinished = [run.label for run in kept if not run.evaluated]
    if unfinished:
        notes.append(f"Not evaluated yet: {', '.join(unfinished)}.")
    return Study(
        title=found.experiment,
        question=(module.__doc__ or "").strip() if module else "What does each latent layer of these runs do?",
        preset=chosen,
        runs=tuple(kept),
        panels=_panels(kept, module),
        claims=tuple(getattr(module, "claims", ())),
        notes=(*notes, *_cautions(kept)),
        baselines=getattr(module, "baselines", {}),
        measured=measured,
        measured_by=found.measured_by,
        paper=getattr(module, "PAPER", None),
        numbers=tuple(getattr(module, "numbers", ())),
        curves=tuple(getattr(module, "curves", ())),
        grids=tuple(getattr(module, "grids", ())),
        sections=tuple(getattr(module, "sections", tuple)()),
        kept=getattr(module, "KEPT", None),
    )


def single(run: LoadedRun) -> Study:
    """The study of one run."""
    question = f"What does each of the {run.depth} latent layers of this run do?"
    if run.depth == 1:
        question = "What does the one latent layer of this run do?"
    return Study(run.label, question, "", (run,), {run.label: (run,)}, (), _cautions([run]))


def _nothing(directory: Path) -> str:
    """Why nothing is there, with the remedy."""
    if not (directory / "tables" / "verdict.csv").exists():
        return f"{directory} holds no run; give a run directory or an experiment directory."
    name = directory.resolve().name
    return (
        f"{directory} keeps pictures and tables but no arrays, so nothing can be redrawn from it; make its runs with "
        f"`hvae run {name} --preset PRESET`, then keep them with `hvae report … --to {directory}`."
    )


def _measured(folder: Path) -> tuple[dict[str, Arrays], tuple[Mapping[str, Any], ...]]:
    """Every part in the folder, and its provenance where that was written."""
    remedy = "delete it and run the experiment again"
    parts = {file.stem: load_arrays(file, remedy) for file in sorted(folder.glob("*.npz"))}
    records = [folder / f"{part}.json" for part in parts]
    return parts, tuple(entry for file in records if file.exists() for entry in read_json(file, remedy))


def _beside(measured: dict[str, Arrays], run: LoadedRun) -> Arrays:
    """The part that bears the run's name, taken out; the directory itself may have been renamed since."""
    names = (*(() if run.config is None else (directory_name(run.label, run.config),)), run.path.name)
    return next((measured.pop(name) for name in names if name in measured), {})


def _cautions(runs: Sequence[LoadedRun]) -> tuple[str, ...]:
    """Runs that were measured before their last step, and replicas that failed: when, and in what."""
    early = [f"{run.label} {run.early}" for run in runs if run.early]
    stopped = [
        f"{run.label}, seed {seed} stopped at step {step}{' in ' if culprit else ''}{culprit}"
        for run in runs
        for seed, step, culprit in zip(run.seeds, run.died_at, run.culprit, strict=True)
        if step >= 0
    ]
    found = (("* Measured before the last step", early), ("Failed", stopped))
    return tuple(f"{what}: {'; '.join(sentences)}." for what, sentences in found if sentences)


def experiment_module(name: str) -> ModuleType | None:
    """`hvae.experiments.<name>`, if there is one; a suffix as in depth-demo is dropped."""
    for candidate in (name, name.partition("-")[0]):
        candidate = candidate.replace("-", "_")
        try:
            known = candidate.isidentifier() and importlib.util.find_spec(f"{PACKAGE}.{candidate}") is not None
        except ModuleNotFoundError:
            known = False
        if known:
            return importlib.import_module(f"{PACKAGE}.{candidate}")
    return None


def _of_preset(runs: Sequence[LoadedRun], module: ModuleType | None, preset: str) -> tuple[str, list[LoadedRun]]:
    """The preset to show and its runs; ("", all) where none of the runs belongs to one."""
    found: dict[str, list[LoadedRun]] = {}
    for candidate in getattr(module, "PRESETS", ()) if module else ():
        assert module is not None
        digests = {config.digest for config in module.configs(candidate).values()}
        mine = [run for run in runs if run.config is not None and run.config.digest in digests]
        if mine:
            found[candidate] = mine
    if preset and preset not in found:
        raise ConfigError(f"no run of preset '{preset}' is there; found {', '.join(found) or 'none of any preset'}.")
    if not found:
        return "", list(runs)
    chosen = preset or max(found, key=lambda name: max(_written(run) for run in found[name]))
    return chosen, found[chosen]


def _newest_of_each_label(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    newest = by_label(sorted(runs, key=_written))
    return [run for run in runs if newest[run.label] is run]


def _written(run: LoadedRun) -> float:
    files = run.path.iterdir() if run.path.is_dir() else ()
    return max((path.stat().st_mtime for path in files), default=0.0)


def _panels(runs: Sequence[LoadedRun], module: ModuleType | None) -> dict[str, tuple[LoadedRun, ...]]:
    """Panel title -> runs, as the experiment says; by default one panel per run."""
    known = by_label(runs)
    arranged: Mapping[str, Sequence[str]] = getattr(module, "panels", {}) if module else {}
    panels = {title: tuple(known[label] for label in labels if label in known) for title, labels in arranged.items()}
    shown = {run.label for members in panels.values() for run in members}
    panels |= {run.label: (run,) for run in runs if run.label not in shown}
    return {title: members for title, members in panels.items() if members}
