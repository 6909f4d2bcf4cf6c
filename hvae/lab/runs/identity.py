"""Which run a directory is: what its files say, never what the directory is called.

`digest.txt` holds the digest that the run was begun with. A directory may be renamed, copied or linked; a
configuration that was altered by hand no longer has that digest. Runs from before that file are checked by the
fingerprint in DONE, and where there is none by the eight digits at the end of the directory's name.
"""

import hashlib
import re
from pathlib import Path

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from hvae.outside import read_line

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


def check_identity(path: Path, config: RunConfig, text: str) -> None:
    """Raise `ConfigError` where config.json is not the one that the run was begun, or finished, with."""
    file, pin, done = path / "config.json", path / PIN, path / "DONE"
    finished = read_line(done, "delete it to measure the run again") if done.exists() else ""
    begun, says = named_digest(path.resolve()), "the directory"
    if pin.exists():
        remedy = "delete it, the run is read without it"
        begun, says = read_line(pin, remedy), PIN
        if not _DIGEST.fullmatch(begun):
            raise ConfigError(f"{pin} is damaged (it holds no digest); {remedy}.")
    elif finished:
        begun = ""  # the fingerprint below says more than a name, which may have been changed
    if begun and begun != config.digest:
        raise ConfigError(
            f"{file} was altered: its digest is {config.digest}, {says} says {begun}; "
            "restore it, or start a new run with the new settings."
        )
    if finished not in ("", fingerprint(text).decode()):
        raise ConfigError(f"{file} was altered after the run was done; restore it, or delete DONE to measure again.")
