"""Which run a directory is: what its files say, never what the directory is called.

`digest.txt` holds the digest that the run was begun with. A directory may be renamed, copied or linked; a
configuration that was altered by hand no longer has that digest, nor the sum in the manifest. Runs from before these
files are checked by the fingerprint in DONE, and where there is none by the eight digits at the end of the name.
"""

import contextlib
import hashlib
import re
from pathlib import Path

from hvae.errors import ConfigError, ForeignError, NotLoadableError
from hvae.lab.config import RunConfig
from hvae.lab.runs.files import write_atomically
from hvae.lab.runs.manifest import FILE as MANIFEST
from hvae.lab.runs.manifest import Manifest, pin, read_manifest
from hvae.outside import read_line, read_text

PIN = "digest.txt"
_DIGEST = re.compile(r"[0-9a-f]{8}")
_SUFFIX = re.compile(r"-([0-9a-f]{8})")


def slug(label: str) -> str:
    """The label as part of a file name: lower case, everything but letters, digits and dots a dash."""
    return re.sub(r"-?[^a-z0-9.]+", "-", label.lower())[:80].strip("-.") or "run"


def directory_name(label: str, config: RunConfig) -> str:
    """How the directory of a run is called when it is made."""
    return f"{slug(label)}-{config.digest}"


def named_digest(path: Path) -> str:
    """The digest at the end of a directory's name; empty where there is none."""
    suffix = _SUFFIX.fullmatch(path.name[-9:])
    return suffix[1] if suffix else ""


def fingerprint(text: str) -> bytes:
    """SHA-256 of the text of config.json. The digest will not do, since it leaves the evaluation out."""
    return hashlib.sha256(text.rstrip("\n").encode()).hexdigest().encode()


def identify(path: Path) -> tuple[RunConfig, str]:
    """Configuration and label of the run at ``path``.

    Raises `ConfigError` where there is none, or its configuration is not the one that it was begun, or finished, with.
    `NotLoadableError` where that cannot be read here, `ForeignError` where the manifest is that of another run.
    """
    file = path / "config.json"
    try:
        text = read_text(file, "restore it")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path} is not a run: it holds no config.json; see `hvae list`.") from None
    manifest = read_manifest(path)
    written = manifest.files.get(file.name) if manifest else None
    try:
        config = RunConfig.from_json(text, str(file))
    except ConfigError as error:
        says = str(error).removeprefix(f"{file}: ").rstrip(".")
        if written and written.holds(file):
            raise NotLoadableError(f"{file} is as it was written, but not read here ({says}); update hvae.") from None
        if written:
            raise ConfigError(f"{file} was altered since it was written ({says}); restore it.") from None
        raise
    _check(path, config, text, manifest)
    label, name = path / "label.txt", path.resolve().name
    name = name[:-9] if named_digest(path.resolve()) else name
    written = manifest.files.get(label.name) if manifest else None
    if label.exists() and (written is None or written.holds(label)):
        with contextlib.suppress(ConfigError):  # a damaged label costs the label, not the run
            name = read_line(label, "write the run's label into it")
    return config, name


def _check(path: Path, config: RunConfig, text: str, manifest: Manifest | None) -> None:
    file, pin, done = path / "config.json", path / PIN, path / "DONE"
    begun, says = named_digest(path.resolve()), "the directory"
    if pin.exists():
        remedy = "delete it, the run is read without it"
        begun, says = read_line(pin, remedy), PIN
        if not _DIGEST.fullmatch(begun):
            raise ConfigError(f"{pin} is damaged (it holds no digest); {remedy}.")
    listed = None if manifest is None else manifest.files.get(file.name)
    if manifest is not None and listed is not None:
        if listed.holds(file) and manifest.digest == config.digest:
            if pin.exists() and begun != config.digest:
                raise ConfigError(f"{pin} was altered: it says {begun}; write {config.digest} into it.")
            return
        if config.digest == begun != manifest.digest:
            raise ForeignError(
                f"{path / MANIFEST} is of the run {manifest.digest}, and this is {begun}; "
                "restore it, or delete it to read the run without its sums."
            )
        raise ConfigError(
            f"{file} was altered since it was written, as {MANIFEST} says; "
            "restore it, or start a new run with the new settings."
        )
    finished = read_line(done, "delete it to measure the run again") if done.exists() else ""
    if finished and not pin.exists():
        begun = ""  # the fingerprint below says more than a name, which may have been changed
    if begun and begun != config.digest:
        raise ConfigError(
            f"{file} was altered: its digest is {config.digest}, {says} says {begun}; "
            "restore it, or start a new run with the new settings."
        )
    if finished not in ("", fingerprint(text).decode()):
        raise ConfigError(
            f"{file} or DONE was altered after the run was done; restore it, or delete DONE to measure again."
        )


def pin_data(path: Path, config: RunConfig, data: str) -> None:
    """Keep the SHA-256 of the data of a run, once. Raises `ConfigError` for other data than it was begun with."""
    file, manifest = path / "data.sha256", read_manifest(path)
    known = manifest.data if manifest else ""
    if file.exists():
        said = read_line(
            file, f"write {known} into it" if known else "restore it, or delete it to pin them as they are"
        )
        if known and said != known:
            raise ConfigError(f"{file} was altered; write {known} into it.")
        known = said
    if known and known != data:
        raise ConfigError(
            f"The data of {config.data.name} changed since the run {path} was started; "
            "restore them, or say by --data-dir where they are."
        )
    if not file.exists():
        write_atomically(file, f"{data}\n".encode())
    if manifest is None or manifest.data != data:
        pin(path, config.digest, data)
