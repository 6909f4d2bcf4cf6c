"""The state of a run: sound, or what is not, and the remedy that loses least. Nothing raises, and nothing is mended.

unfinished      training or measuring goes on by the same command
stale           arrays of another step, or of an older rule of the verdict
not loadable    sound, but a later version wrote it, or it cannot be read from here
foreign         files of another run
damaged         files that are not what was written, or lost
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvae.errors import ConfigError, ForeignError, NotLoadableError
from hvae.lab.runs.arrays import arrays_place, arrays_remedy, check_owner, owner_of
from hvae.lab.runs.identity import PIN
from hvae.lab.runs.manifest import ARRAYS, FILE, METRICS, Entry, Manifest, read_manifest
from hvae.lab.runs.metrics import REMEDY as ROWS_REMEDY
from hvae.lab.runs.remarks import HALFWAY, START
from hvae.lab.runs.run import Run
from hvae.lab.runs.stored import stored, unsound
from hvae.outside import read_line
from hvae.vocabulary import FIRST_RULE, RULE

Word = Literal["sound", "unfinished", "stale", "not loadable", "foreign", "damaged"]
WORDS: tuple[Word, ...] = ("sound", "unfinished", "stale", "not loadable", "foreign", "damaged")
"""from the best to the worst"""
WITHOUT = f"no {FILE}, so sums are unknown; one is made when the run is written again"
DIAGNOSTICS = "diagnostics"
REMEDIES = {"label.txt": "write the run's label into it, with a line end", METRICS: ROWS_REMEDY}


@dataclass(frozen=True)
class State:
    """What is to be said of a directory among runs."""

    path: Path
    word: Word
    reason: str = ""
    """what is wrong and the remedy, in one sentence; of a sound run what is not known, if anything"""

    def __str__(self) -> str:
        if self.word == "sound":
            return f"{self.path} ({self.reason})" if self.reason else str(self.path)
        return self.reason


def opened(path: Path) -> Run | State:
    """The run at a directory, or why there is none."""
    if not (path / "config.json").exists():
        return State(
            path, "damaged", f"{path} has lost its config.json; put back a copy, or move the directory elsewhere."
        )
    try:
        return Run.open(path)
    except (ConfigError, OSError) as error:
        if isinstance(error, OSError):
            return State(path, "not loadable", f"{path} cannot be read ({error.strerror}); make it readable.")
        if any((path / mark).exists() for mark in (PIN, "label.txt", "DONE", FILE)):
            return State(path, _word(error), str(error))
        reason = str(error).removeprefix(f"{path / 'config.json'}").strip(" :.").partition("; restore")[0]
        return State(path, "damaged", f"{path} is no run of hvae ({reason}); move it out of the directory of runs.")


def state_of(path: Path) -> State:
    """The state of the run at a directory, from all of its files; of several faults the worst."""
    run = opened(path)
    if isinstance(run, State):
        return run
    try:
        manifest = read_manifest(path)
        found = [*_files(run, manifest), *_checkpoints(run), *_arrays(run, manifest), *_progress(run)]
    except ConfigError as error:
        found = [State(path, _word(error), str(error))]
    except OSError as error:
        found = [State(path, "not loadable", f"{path} cannot be read ({error.strerror}); make it readable.")]
    if found:
        return max(found, key=lambda state: WORDS.index(state.word))
    return State(path, "sound", WITHOUT if manifest is None else "")


def stale(run: Run) -> dict[str, str]:
    """Name of arrays -> what is stale about them: they are of another step than the run's, or of an older rule."""
    manifest = read_manifest(run.path)
    entries = {} if manifest is None else _entries(manifest)
    measured = entries.get(DIAGNOSTICS, Entry("", 0)).step
    last = run.config.training.n_steps if run.done else measured
    found = {}
    for name, entry in entries.items():
        file, remedy = run.path / arrays_place(name), arrays_remedy(run.path, name)
        if name not in (START, HALFWAY) and None not in (entry.step, last) and entry.step != last:
            found[name] = f"{file} is of step {entry.step}, and the run of step {last}; {remedy}."
        elif name == DIAGNOSTICS and (entry.rule or FIRST_RULE) < RULE:
            found[name] = (
                f"{file} is of rule {entry.rule or FIRST_RULE}, and verdicts are of rule {RULE} now; {remedy}."
            )
    return found


def _word(error: ConfigError) -> Word:
    if isinstance(error, ForeignError):
        return "foreign"
    return "not loadable" if isinstance(error, NotLoadableError) else "damaged"


def _entries(manifest: Manifest) -> dict[str, Entry]:
    """Name of arrays -> entry."""
    return {Path(name).stem: entry for name, entry in manifest.files.items() if name.startswith(f"{ARRAYS}/")}


def _files(run: Run, manifest: Manifest | None) -> Iterator[State]:
    """What is not as it was written, or is lost."""
    if manifest is None:
        run.read_provenance()
        run.read_cards()
        if any(map(owner_of, sorted((run.path / ARRAYS).glob("*.npz")))):  # written since there are manifests
            again = f"run `hvae evaluate {run.path} --force`, which writes one"
            yield _damaged(run, f"{run.path} has lost its {FILE}, so its sums are unknown; restore it, or {again}.")
        return
    for name, entry in manifest.files.items():
        file, remedy = run.path / name, "restore it"
        if name.startswith(f"{ARRAYS}/"):
            remedy = arrays_remedy(run.path, file.stem)
            if file.exists() and not entry.holds(file):
                check_owner(file, run.config.digest)
        elif name in REMEDIES:
            remedy = REMEDIES[name]
        grows = name == METRICS and entry.step is not None and entry.step < run.config.training.n_steps
        if not file.exists() and entry.n_bytes:
            yield _damaged(run, f"{file} is lost; {remedy.partition(', or delete')[0]}.")
        elif file.exists() and not entry.holds(file, grown=grows):
            yield _damaged(run, f"{file} is damaged (it is not what was written, as {FILE} says); {remedy}.")
    for name, value in (("data.sha256", manifest.data), (PIN, manifest.digest)):
        if value and (not (run.path / name).exists() or read_line(run.path / name, f"write {value} into it") != value):
            yield _damaged(run, f"{run.path / name} is lost or damaged; write {value} into it.")


def _checkpoints(run: Run) -> Iterator[State]:
    """What of the checkpoints is not sound, or is of another run."""
    found = stored(run.path)
    wrong = [(file, error) for _, file in found if (error := unsound(file, run.config.digest))]
    for file, error in wrong:
        remedy = "move it out" if isinstance(error, ForeignError) else "restore it"
        if len(wrong) < len(found):
            remedy += ", or leave it, as another one is sound"
        elif not isinstance(error, ForeignError):
            remedy += f", or move {file.parent} away to train the run again from the start"
        yield State(run.path, _word(error), f"{error}; {remedy}.")


def _arrays(run: Run, manifest: Manifest | None) -> Iterator[State]:
    """Arrays that are another run's, that a stopped writer left, or that are stale."""
    for file in sorted((run.path / ARRAYS).glob("*.npz")):
        says = f"{file} is not listed in {FILE}"
        if manifest is None:
            run.load_arrays(file.stem)
        elif f"{ARRAYS}/{file.name}" not in manifest.files:
            check_owner(file, run.config.digest)
            if owner_of(file):
                remedy = arrays_remedy(run.path, file.stem)
                yield State(run.path, "unfinished", f"{says}, as what wrote it was stopped; {remedy}.")
            else:
                yield State(run.path, "foreign", f"{says}, as this run did not write it; move it out.")
    for sentence in stale(run).values():
        yield State(run.path, "stale", sentence)


def _progress(run: Run) -> Iterator[State]:
    """Whether it is done, and whether DONE is right."""
    done, again = run.path / "DONE", f"run `hvae evaluate {run.path}`"
    n_steps = run.config.training.n_steps
    if done.exists() and not run.done:
        yield _damaged(run, f"{done} is damaged or of another run, and does not count; {again}, which writes it.")
    elif not run.done:
        yield State(run.path, "unfinished", f"{run.path} is unfinished ({run.progress}); the same command goes on.")
    elif not run.has_arrays(DIAGNOSTICS):
        file = run.path / arrays_place(DIAGNOSTICS)
        yield _damaged(run, f"{file} is lost, though DONE stands there; run `hvae evaluate {run.path} --force`.")
    elif (run.path / METRICS).exists() and run.last_step() != n_steps:
        yield _damaged(run, f"{run.path / METRICS} ends at step {run.last_step()} of {n_steps}; {ROWS_REMEDY}.")


def _damaged(run: Run, sentence: str) -> State:
    return State(run.path, "damaged", sentence)
