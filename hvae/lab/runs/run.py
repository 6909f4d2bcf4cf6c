"""A run on disk: open, append, save arrays, find, read back.

`<root>/<experiment>/<slug of the label>-<digest of the configuration>/` holds

    config.json       the complete configuration; the digest of what is trained is the one in the directory's name
    label.txt         the label as it was given
    provenance.json   one entry per session: commit, versions, command, device
    metrics.jsonl     one row per logged step; unit in every name, lists lead with the replicas
    log.txt           what the run's worker process said
    checkpoints/      see `hvae.lab.runs.checkpoints`
    evaluation/*.npz  arrays of the finished run
    DONE              trained and evaluated; the SHA-256 of the configuration this is true of

The digest names the run, so the same command is the same run. Files that are replaced are replaced
whole (`write_atomically`): a killed writer leaves the old file or the new one, never half of one.
"""

import contextlib
import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.lab.runs.files import load_arrays, save_arrays, write_atomically
from hvae.lab.runs.provenance import session

Row = dict[str, Any]
"""One row of metrics: "step" is an int, "beta" a float, the rest lists over replicas; NaN where unknown."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def slug(label: str) -> str:
    """The label as part of a file name: lower case, everything but letters, digits and dots a dash."""
    return re.sub(r"-?[^a-z0-9.]+", "-", label.lower())[:80].strip("-.") or "run"


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
        return Path(root) / experiment / f"{slug(label)}-{config.digest}"

    @staticmethod
    def create_or_open(root: Path, experiment: str, label: str, config: RunConfig) -> "Run":
        """The directory of this configuration, made if absent. Raises `ConfigError` where it cannot be.

        A run that exists with another evaluation takes the new one and is no longer done.
        """
        path = Run.directory(root, experiment, label, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "config.json").exists():
                write_atomically(path / "label.txt", f"{label}\n".encode())
                write_atomically(path / "config.json", f"{config.to_json()}\n".encode())
        except OSError as error:
            raise ConfigError(
                f"The run directory {path} cannot be written ({error.strerror}); give another directory or free it."
            ) from None
        run = Run.open(path)
        if run.config.evaluation != config.evaluation:
            with run.lock():
                run.unmark_done()
                write_atomically(path / "config.json", f"{config.to_json()}\n".encode())
            run = Run.open(path)
        return run

    @staticmethod
    def open(path: Path) -> "Run":
        """Read a run back. Raises `ConfigError` where config.json is missing, unreadable or altered."""
        path = Path(path)
        file = path / "config.json"
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{path} is not a run: it holds no config.json; see `hvae list`.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read ({error}); restore it or delete the run.") from None
        config = RunConfig.from_json(text, str(file))
        digest = path.resolve().name.rpartition("-")[2]
        if config.digest != digest:
            raise ConfigError(
                f"{file} was altered: its digest is {config.digest}, the directory says {digest}; "
                "restore it, or start a new run with the new settings."
            )
        done = path / "DONE"
        if done.exists() and done.read_bytes() not in (b"", _fingerprint(text)):
            raise ConfigError(
                f"{file} was altered after the run was done; restore it, or delete DONE to measure again."
            )
        label = path / "label.txt"
        name = path.resolve().name.rpartition("-")[0]
        if label.exists():
            name = label.read_text(encoding="utf-8", errors="replace").strip()
        return Run(path, name, config)

    @property
    def experiment(self) -> str:
        """The experiment the run belongs to: the directory above it."""
        return self.path.resolve().parent.name

    @property
    def done(self) -> bool:
        """Trained and evaluated."""
        return (self.path / "DONE").exists()

    def mark_done(self) -> None:
        """Say that nothing is left to do."""
        write_atomically(self.path / "DONE", _fingerprint((self.path / "config.json").read_text(encoding="utf-8")))

    def unmark_done(self) -> None:
        """Say that something is left to do again."""
        (self.path / "DONE").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against every other process; the system lets go when the holder dies."""
        from filelock import FileLock, Timeout  # here, since only what writes takes the time to import it

        # never a soft lock, which outlives a holder that is killed
        lock = FileLock(self.path / ".lock", blocking=False, fallback_to_soft=False)
        try:
            held = lock.acquire()
        except Timeout:
            raise ConfigError(
                f"The run {self.path} is being written by another process; wait for it or stop it."
            ) from None
        with held:
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
        write_atomically(self.path / "provenance.json", f"{json.dumps(sessions, indent=2)}\n".encode())

    def read_provenance(self) -> list[dict[str, Any]]:
        """One entry per session that worked on the run, oldest first."""
        file = self.path / "provenance.json"
        if not file.exists():
            return []
        try:
            sessions = json.loads(file.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{file} is damaged ({error}); restore or delete it.") from None
        if not isinstance(sessions, list):
            raise ConfigError(f"{file} is no list of sessions; restore or delete it.")
        return sessions

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to metrics.jsonl; what is not finite is written as null."""
        text = "".join(json.dumps(_without_nan(row), allow_nan=False) + "\n" for row in rows)
        with open(self.path / "metrics.jsonl", "ab") as file:
            file.write(text.encode())

    def read_metrics(self) -> list[Row]:
        """All rows, null read as NaN. A last line that a kill cut short is left out."""
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return []
        rows: list[Row] = []
        for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                if not isinstance(row["step"], int):
                    raise TypeError("step is no whole number")
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{file} is damaged in line {number} ({error}); delete the run and start it again."
                ) from None
            rows.append({name: _with_nan(value) for name, value in row.items()})
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Keep the rows up to `step`, as a run that resumes from a checkpoint at `step` must."""
        kept = [_without_nan(row) for row in self.read_metrics() if row["step"] <= step]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept)
        write_atomically(self.path / "metrics.jsonl", text.encode())

    def save_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write evaluation/<name>.npz; objects are refused."""
        save_arrays(self._arrays_file(name), arrays)

    def load_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Read evaluation/<name>.npz. Raises `ConfigError` where it is missing or damaged."""
        word = f" --likelihood {name}" if name in ("annealed", "exact", "gap") else " --force"
        return load_arrays(self._arrays_file(name), f"run `hvae evaluate {self.path}{word}`")

    def has_arrays(self, name: str) -> bool:
        """Whether evaluation/<name>.npz exists."""
        return self._arrays_file(name).exists()

    def _arrays_file(self, name: str) -> Path:
        _check_name("arrays", name)
        return self.path / "evaluation" / f"{name}.npz"


@dataclass(frozen=True)
class Failure:
    """A run that was not completed, why, and how its process ended (negative: the signal that killed it)."""

    run: Run
    reason: str
    exit_code: int


def find_runs(path: Path) -> list[Run]:
    """The runs of a run, an experiment's directory or a root of experiments, in natural order of their names."""
    path = Path(path)
    if not path.is_dir():
        raise ConfigError(f"{path} is no directory of runs; see `hvae list`.")
    found = (file.parent for pattern in ("", "*/", "*/*/") for file in path.glob(f"{pattern}config.json"))
    return [Run.open(run) for run in sorted(found, key=_natural)]


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", f"{path.resolve().parent.name}/{path.resolve().name}")
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"The {kind} name {name!r} cannot name a file; use letters and digits first, then also '_', '.' and '-'."
        )


def _fingerprint(text: str) -> bytes:
    """SHA-256 of the text of config.json. The digest will not do, since it leaves the evaluation out."""
    return hashlib.sha256(text.rstrip("\n").encode()).hexdigest().encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return math.nan if value is None else value
