"""What the files of a run were when they were written: `manifest.json`, written after every one of them.

    schema   number of this format
    digest   of the configuration
    data     SHA-256 of the data, as data.sha256 has it; empty until they are pinned
    files    name -> sha256 and n_bytes; of arrays the step and the rule of the verdict, of metrics the last step
    sum      SHA-256 of all this, as JSON with sorted keys

A file is taken out, replaced, and entered again from the bytes that were written. So a killed writer leaves a file that
is not listed; arrays that are not listed count as not there. metrics.jsonl grows: what is listed is its beginning, up
to the last checkpoint. Checkpoints carry their own sums (`hvae.lab.runs.checkpoints`). Runs of before have no manifest;
theirs is made of what lies there when a later session first writes.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvae.errors import ConfigError, NotLoadableError
from hvae.lab.runs.files import load_arrays, write_atomically
from hvae.outside import read_json, sound

FILE, SCHEMA = "manifest.json", 1
REMEDY = "restore it, or delete it to read the run without its sums"
METRICS, ARRAYS = "metrics.jsonl", "evaluation"
LISTED = ("config.json", "label.txt", "data.json", "provenance.json", METRICS)
"""files with a sum, besides arrays"""
OWNER = "run"
"""name in a file of arrays: the digest of the run that made it"""
_LOCK = ".manifest.lock"


@dataclass(frozen=True)
class Entry:
    """A file as it was written."""

    sha256: str
    n_bytes: int
    step: int | None = None
    rule: int | None = None

    @staticmethod
    def of(content: bytes, step: int | None = None, rule: int | None = None) -> "Entry":
        """That of its content."""
        return Entry(hashlib.sha256(content).hexdigest(), len(content), step, rule)

    def holds(self, file: Path, *, grown: bool = False) -> bool:
        """Whether the file still is what was written; or, if it may have ``grown``, begins with it."""
        try:
            with file.open("rb") as content:
                found = content.read(self.n_bytes)
                more = bool(content.read(1))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        return hashlib.sha256(found).hexdigest() == self.sha256 and len(found) == self.n_bytes and (grown or not more)


@dataclass(frozen=True)
class Manifest:
    """What stands in manifest.json."""

    digest: str
    data: str
    files: Mapping[str, Entry]

    def to_json(self) -> str:
        """With its own sum."""
        files = {
            name: {key: value for key, value in vars(entry).items() if value is not None}
            for name, entry in sorted(self.files.items())
        }
        values = {"schema": SCHEMA, "digest": self.digest, "data": self.data, "files": files}
        return json.dumps(values | {"sum": _sum(values)}, indent=1)


def read_manifest(path: Path) -> Manifest | None:
    """That of a run; None where it has none.

    Raises `ConfigError` where it is damaged, and `NotLoadableError` where a later version wrote it.
    """
    file = path / FILE
    try:
        with sound(file, REMEDY):
            values: dict[str, Any] = dict(read_json(file, REMEDY))
            if values.pop("sum", None) != _sum(values):
                raise ValueError("its own SHA-256 differs")
            if values["schema"] > SCHEMA:
                raise NotLoadableError(
                    f"{file} has schema {values['schema']}, and this hvae reads up to {SCHEMA}; update hvae."
                )
            files = {name: Entry(**entry) for name, entry in values["files"].items()}
            return Manifest(values["digest"], values["data"], files)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check(path: Path, name: str, remedy: str, *, grown: bool = False) -> None:
    """Raise `ConfigError` for a file of the run that is there, and not as it was written."""
    manifest = read_manifest(path)
    entry = manifest.files.get(name) if manifest else None
    with sound(path / name, remedy):
        if entry is None or not (path / name).exists() or entry.holds(path / name, grown=grown):
            return
    if read_manifest(path) != manifest:  # written meanwhile
        return check(path, name, remedy, grown=grown)
    raise ConfigError(f"{path / name} is damaged (it is not what was written, as {FILE} says); {remedy}.")


def replace(
    path: Path, digest: str, name: str, content: bytes, *, step: int | None = None, rule: int | None = None
) -> None:
    """Replace a file of the run whole, and enter it."""
    manifest = read_manifest(path)
    if manifest is not None and name in manifest.files:
        with changing(path, digest) as files:
            files.pop(name, None)
    (path / name).parent.mkdir(exist_ok=True)
    write_atomically(path / name, content)
    enter(path, digest, name, Entry.of(content, step, rule))


def enter(path: Path, digest: str, name: str, entry: Entry) -> None:
    """Say what a file is, or is about to be."""
    with changing(path, digest) as files:
        files[name] = entry


def pin(path: Path, digest: str, data: str) -> None:
    """Say what the data are."""
    with changing(path, digest, data=data):
        pass


@contextlib.contextmanager
def changing(path: Path, digest: str, **others: str) -> Iterator[dict[str, Entry]]:
    """The entries, to be changed and written back, with every other writer of this manifest waiting."""
    from filelock import FileLock  # here, since only what writes takes the time to import it

    with FileLock(path / _LOCK, fallback_to_soft=False):
        manifest = read_manifest(path) or adopted(path, digest)
        files = dict(manifest.files)
        yield files
        changed = dataclasses.replace(manifest, files=files, **others)
        if changed != manifest or not (path / FILE).exists():
            write_atomically(path / FILE, f"{changed.to_json()}\n".encode())


def seal(path: Path, digest: str) -> None:
    """Enter what is not listed, as a writer that was killed left it."""
    with changing(path, digest) as files:
        files |= {name: entry for name, entry in _found(path).items() if name not in files}


def adopted(path: Path, digest: str) -> Manifest:
    """The manifest of a run that has none, from what lies there.

    Arrays that are damaged, or say that they are another run's, are left out.
    """
    files = _found(path)
    for file in sorted((path / ARRAYS).glob("*.npz")):
        with contextlib.suppress(ConfigError):
            arrays = load_arrays(file, REMEDY)
            if str(arrays.get(OWNER, digest)) == digest:
                files[f"{ARRAYS}/{file.name}"] = Entry.of(file.read_bytes(), **made_at(arrays))
    data = path / "data.sha256"
    return Manifest(digest, data.read_text(errors="replace").strip() if data.is_file() else "", files)


def _found(path: Path) -> dict[str, Entry]:
    return {name: Entry.of((path / name).read_bytes()) for name in LISTED if (path / name).is_file()}


def made_at(arrays: Mapping[str, Any]) -> dict[str, int | None]:
    """Step and rule of a file of arrays, as far as it says them."""
    return {key: int(arrays[key]) if np.size(arrays.get(key, ())) == 1 else None for key in ("step", "rule")}


def _sum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
