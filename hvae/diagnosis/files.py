"""Files that are replaced whole: a killed writer leaves the old one or the new one, never half of one."""

import contextlib
import io
import os
import socket
import time
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.errors import ConfigError
from hvae.outside import load_arrays as read_arrays

STALE_SECONDS = 3600.0
"""after which a temporary file has no writer any more"""
_END = ".tmp"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` whole: temporary file in the same folder, flush, fsync, rename, fsync of the folder.

    The temporary name has the machine, the process and chance: containers share folders, and process numbers.
    """
    temporary = path.with_name(f".{path.name[:40]}.{_machine()}.{os.getpid()}.{uuid.uuid4().hex}{_END}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def clean(folder: Path) -> None:
    """Delete temporary files whose process on this machine is dead, and all that nobody touched for an hour."""
    for file in folder.glob(f".*{_END}"):
        *_, machine, process, _, _ = ("", "", "", *file.name.split("."))
        dead = machine == _machine() and process.isdecimal() and not _runs(int(process))
        with contextlib.suppress(OSError):  # gone, or not ours to delete
            if dead or time.time() - file.stat().st_mtime > STALE_SECONDS:
                file.unlink()


def _machine() -> str:
    """Host and, where there is one, its room of process numbers: what a process number means something in."""
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:20]
    try:
        return f"{host}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return host


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz. Objects are refused: what is written can be read without pickle."""
    content = packed_arrays(path.name, arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def packed_arrays(name: str, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of an .npz of that name. Raises TypeError for objects."""
    buffer = io.BytesIO()
    for key, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{key} of {name} is an array of objects; give numbers, booleans or strings.")
    np.savez(buffer, allow_pickle=False, **{key: np.asarray(array) for key, array in arrays.items()})
    return buffer.getvalue()


def load_arrays(path: Path, remedy: str, *, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read an .npz, or ``only`` some of its arrays. Raises `ConfigError`, with the remedy, where it is no sound one."""
    try:
        return read_arrays(path, remedy, only=only)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path} does not exist; {remedy}.") from None
