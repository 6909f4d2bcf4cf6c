"""A run on disk: open, append, save arrays, read back.

`<root>/<experiment>/<slug of the label>-<digest of the configuration>/` holds

    manifest.json     what each of the other files was when it was written (`hvae.lab.runs.manifest`)
    config.json       the complete configuration
    digest.txt        the digest of what is trained, as the run was begun
    label.txt         the label as it was given
    data.sha256       the SHA-256 of the data
    data.json         the data card (`hvae.diagnosis.card`); runs of before have none
    provenance.json   one entry per session: commit, versions, command, device
    metrics.jsonl     one row per logged step; unit in every name, lists lead with the replicas
    log.txt           what the run's worker process said
    checkpoints/      see `hvae.lab.runs.checkpoints`
    evaluation/*.npz  arrays of the finished run
    failure.txt       why its training ended, where no replica is left
    DONE              trained and evaluated; the SHA-256 of the configuration this is true of

The same command is the same run: it is known by experiment, label and digest, also where its directory was renamed
(`hvae.lab.runs.identity`). Files that are replaced are replaced whole (`write_atomically`): a killed writer leaves the
old file or the new one, never half of one.
"""

import contextlib
import json
import os.path
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hvae.diagnosis.card import FILE as CARDS
from hvae.diagnosis.card import Card, cards_text, read_cards
from hvae.errors import ConfigError, TrainingError
from hvae.lab.config import RunConfig
from hvae.lab.runs.arrays import have_arrays, load_arrays, save_arrays
from hvae.lab.runs.files import clean, write_atomically
from hvae.lab.runs.identity import PIN, directory_name, fingerprint, identify, named_digest, pin_data
from hvae.lab.runs.identity import slug as slug
from hvae.lab.runs.lock import hold
from hvae.lab.runs.manifest import METRICS, check, replace, seal
from hvae.lab.runs.metrics import Row as Row
from hvae.lab.runs.metrics import append_rows, keep_metrics, last_step, read_metrics, truncate_metrics
from hvae.lab.runs.provenance import FILE as PROVENANCE
from hvae.lab.runs.provenance import read_sessions, session
from hvae.outside import read_line

DEAD = "failure.txt"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Run:
    """One directory on disk. Make one with `Run.create_or_open`, or read one with `Run.open`."""

    path: Path
    label: str
    config: RunConfig

    @staticmethod
    def directory(root: Path, experiment: str, label: str, config: RunConfig) -> Path:
        """Where `create_or_open` puts a run; nothing is made."""
        _check_name("experiment", experiment)
        if not label.strip() or not label.isprintable() or ".." in label or "/" in label or "\\" in label:
            raise ConfigError(f"The label {label!r} cannot name a run; use printable text without '/', '\\' and '..'.")
        return Path(root) / experiment / directory_name(label, config)

    @staticmethod
    def locate(root: Path, experiment: str, label: str, config: RunConfig) -> Path:
        """Where the run lies, also under another name; where there is none, `directory`.

        Raises `ConfigError` where several directories are this run and none has its own name, or where another run
        has its name.
        """
        path = Run.directory(root, experiment, label, config)
        taken = (path / "config.json").exists()
        if taken and Run.open(path).config.digest == config.digest:
            return path
        found = [run.path for run in _copies(path.parent, config) if run.label == label.strip()]
        if len(found) > 1:
            raise ConfigError(
                f"{' and '.join(map(str, found))} are both the run {label!r}; "
                f"rename the one to go on with to {path.name}."
            )
        if taken and not found:
            raise ConfigError(f"{path} holds another run than its name says; give that directory another name.")
        return found[0] if found else path

    @staticmethod
    def create_or_open(root: Path, experiment: str, label: str, config: RunConfig) -> "Run":
        """The directory of this run (`locate`), made if absent. Raises `ConfigError` where it cannot be.

        A run that exists with another evaluation takes the new one and is no longer done.
        """
        path = Run.locate(root, experiment, label, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "config.json").exists():
                replace(path, config.digest, "label.txt", f"{label}\n".encode())
                write_atomically(path / PIN, f"{config.digest}\n".encode())
                replace(path, config.digest, "config.json", f"{config.to_json()}\n".encode())
        except OSError as error:
            raise ConfigError(
                f"The run directory {path} cannot be written ({error.strerror}); give another directory or free it."
            ) from None
        run = Run.open(path)
        if run.config.evaluation != config.evaluation:
            with run.lock():
                run.unmark_done()
                run.write("config.json", f"{config.to_json()}\n".encode())
            run = Run.open(path)
        return run

    @staticmethod
    def open(path: Path) -> "Run":
        """Read a run back. Raises `ConfigError` where config.json is missing, unreadable or altered."""
        path = Path(path)
        config, label = identify(path)
        return Run(path, label, config)

    @property
    def experiment(self) -> str:
        """The experiment the run belongs to: the directory that it is seen in, which a link may lead out of."""
        return Path(os.path.abspath(self.path)).parent.name

    @property
    def done(self) -> bool:
        """Trained and evaluated. A DONE that is empty, altered or of another run does not say so."""
        with contextlib.suppress(ConfigError, OSError):
            return read_line(self.path / "DONE", "delete it") == self._fingerprint.decode()
        return False

    def mark_done(self) -> None:
        """Say that nothing is left to do."""
        self.keep_metrics()
        seal(self.path, self.config.digest)
        write_atomically(self.path / "DONE", self._fingerprint)

    @property
    def _fingerprint(self) -> bytes:
        return fingerprint((self.path / "config.json").read_text(encoding="utf-8"))

    def unmark_done(self) -> None:
        """Say that something is left to do again."""
        (self.path / "DONE").unlink(missing_ok=True)

    @property
    def progress(self) -> str:
        """How far a run is that is not done: its step, or why its training ended."""
        if (self.path / DEAD).exists():
            return f"failed: {(self.path / DEAD).read_text(encoding='utf-8', errors='replace').strip()}"
        step = self.last_step()
        begun = bool(step) or (self.path / PROVENANCE).exists()
        return f"step {step} of {self.config.training.n_steps}" if begun else "not begun"

    @contextlib.contextmanager
    def mourned(self) -> Iterator[None]:
        """Keep the sentence of a training whose replicas are all dead; that of an earlier one goes."""
        (self.path / DEAD).unlink(missing_ok=True)
        try:
            yield
        except TrainingError as error:
            write_atomically(self.path / DEAD, f"{error}\n".encode())
            raise

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against every other process (`hvae.lab.runs.lock`). Raises `HeldError`."""
        with hold(self.path):
            for folder in (self.path, self.path / "checkpoints", self.path / "evaluation"):
                clean(folder)
            yield

    @contextlib.contextmanager
    def session(self, device: str, n_threads: int) -> Iterator[None]:
        """Append where this session's numbers come from to provenance.json; at a good end the seconds that it took."""
        before, record = self.read_provenance(), session(device, n_threads)
        begun = time.monotonic()
        self._write_provenance([*before, record])
        yield
        self._write_provenance([*before, record | {"seconds": round(time.monotonic() - begun, 1)}])

    def _write_provenance(self, sessions: Sequence[Mapping[str, Any]]) -> None:
        self.write(PROVENANCE, f"{json.dumps(sessions, indent=2)}\n".encode())

    def read_provenance(self) -> list[dict[str, Any]]:
        """One entry per session that worked on the run, oldest first."""
        return read_sessions(self.path)

    def read_cards(self) -> tuple[Card, ...]:
        """What is known of its data; nothing in a run of before."""
        check(self.path, CARDS, "restore or delete it")
        return read_cards(self.path)

    def keep_data(self, digest: str, cards: Callable[[], Sequence[Card]]) -> None:
        """Keep the SHA-256 of the data and, once, what is known of them. Raises `ConfigError` where they changed."""
        pin_data(self.path, self.config, digest)
        if not self.read_cards():
            self.write(CARDS, cards_text(cards()).encode())

    def write(self, name: str, content: bytes) -> None:
        """Replace a file whole, and enter it in the manifest."""
        replace(self.path, self.config.digest, name, content)

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to metrics.jsonl; what is not finite is written as null."""
        append_rows(self.path / METRICS, rows)

    def read_metrics(self) -> list[Row]:
        """All rows, null read as NaN. A last line that a kill cut short is left out. `ConfigError` for altered ones."""
        return read_metrics(self.path, self.config.training.n_steps)

    def last_step(self) -> int:
        """The step of the newest row of metrics; 0 where there is none."""
        return last_step(self.path / METRICS)

    def truncate_metrics(self, step: int) -> None:
        """Keep the rows up to `step`, as a run that resumes from a checkpoint at `step` must."""
        truncate_metrics(self.path, self.config.digest, step)

    def keep_metrics(self) -> None:
        """Enter the rows that are there in the manifest, as at a checkpoint."""
        keep_metrics(self.path, self.config.digest)

    def save_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]], step: int | None = None) -> None:
        """Write evaluation/<name>.npz, made at a step of training; objects are refused."""
        _check_name("arrays", name)
        save_arrays(self.path, self.config.digest, name, arrays, step)

    def load_arrays(self, name: str, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
        """Read evaluation/<name>.npz. Raises `ConfigError` where it is missing, damaged or another run's."""
        _check_name("arrays", name)
        return load_arrays(self.path, self.config.digest, name, only)

    def has_arrays(self, name: str) -> bool:
        """Whether evaluation/<name>.npz was written to its end."""
        _check_name("arrays", name)
        return have_arrays(self.path, name)


@dataclass(frozen=True)
class Failure:
    """A run that was not completed, why, and how its process ended (negative: the signal that killed it)."""

    run: Run
    reason: str
    exit_code: int


def _copies(folder: Path, config: RunConfig) -> list[Run]:
    """The runs of a directory that have this digest. Names that end with another digest are not opened."""
    if not folder.is_dir():
        return []
    found = []
    for place in sorted(folder.iterdir()):
        if named_digest(place) in ("", config.digest) and (place / "config.json").exists():
            with contextlib.suppress(ConfigError, OSError):
                found.append(Run.open(place))
    return [run for run in found if run.config.digest == config.digest]


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"The {kind} name {name!r} cannot name a file; use letters and digits first, then also '_', '.' and '-'."
        )
