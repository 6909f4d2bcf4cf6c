"""Protections that are taken away on purpose, in the process that calls this and nowhere else."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hvae.diagnosis.files as files

PIECE = 4096


def torn_writes() -> None:
    """Files are written in place, piece by piece, instead of being replaced whole."""
    whole = files.write_atomically

    def in_place(path: Path, content: bytes) -> None:
        with open(path, "wb", buffering=0) as file:
            for start in range(0, len(content), PIECE):
                file.write(content[start : start + PIECE])
                os.fsync(file.fileno())

    replace_everywhere(whole, in_place)


def replace_everywhere(old: object, new: object) -> None:
    """In every module of hvae that has taken ``old`` by its name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("hvae") and module is not None:
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def names_without_chance() -> Callable[[Path, bytes], None]:
    """A writer whose temporary files have the number of the process alone, as containers share it."""

    def write(path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    return write


def no_locks() -> None:
    """Nobody waits for anybody."""
    import filelock

    class Unlocked:
        def __init__(self, *arguments: object, **others: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *arguments: object) -> None:
            pass

    filelock.FileLock = Unlocked  # type: ignore[assignment, misc]
