"""Files that are replaced whole: a killed writer leaves the old one or the new one, never half of one."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.errors import ConfigError
from hvae.outside import load_arrays as read_arrays


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` whole: temporary file in the same folder, flush, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz. Objects are refused: what is written can be read without pickle."""
    buffer = io.BytesIO()
    for key, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{key} of {path.name} is an array of objects; give numbers, booleans or strings.")
    np.savez(buffer, allow_pickle=False, **{key: np.asarray(array) for key, array in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def load_arrays(path: Path, remedy: str) -> dict[str, NDArray[Any]]:
    """Read an .npz. Raises `ConfigError`, with the remedy, where it is missing or damaged."""
    try:
        return read_arrays(path, remedy)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path} does not exist; {remedy}.") from None
