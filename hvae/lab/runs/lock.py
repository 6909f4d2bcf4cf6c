"""Who writes a directory: one process at a time, named in its file `.lock`.

The lock is `flock`: the system takes it from a holder that dies, on this machine or another. The text in the file is
only a name for the holder, and means nothing while nobody holds the lock. docs/cluster.md says which file systems
honour it between machines.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hvae.errors import HeldError
from hvae.outside import from_json, read_bytes

FILE = ".lock"
LOOK_SECONDS = 1.0
"""between two looks at a lock that another process holds"""
PATIENCE_SECONDS = 0.2
"""for those who only look whether somebody holds a directory, which takes it for an instant"""
MOST_BYTES = 4096


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a directory against every other process. Raises `HeldError`, which names the holder.

    What escapes from here knows where it happened (`folder_of`).
    """
    from filelock import FileLock, Timeout  # here, since only what writes takes the time to import it

    # never a soft lock, which outlives a holder that is killed
    lock = FileLock(folder / FILE, timeout=PATIENCE_SECONDS, poll_interval=0.02, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout:
        raise HeldError(f"{folder} is held by {_named(folder)}; wait for it or stop it.") from None
    with held:
        name = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (folder / FILE).write_text(json.dumps(name), encoding="utf-8")
        try:
            yield
        except Exception as error:
            error.__dict__.setdefault("folder", folder)
            raise


@contextlib.contextmanager
def hold_in_turn(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a directory as soon as its holder lets go, and say once for whom this waits."""
    said = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold(folder))
            except HeldError:
                if not said:
                    say(f"Waiting for {_named(folder)}, which works in {folder}.")
                said = True
            else:
                yield
                return
        time.sleep(LOOK_SECONDS)


def holder(folder: Path) -> str:
    """Who holds a directory, in words; empty where nobody does."""
    if not (folder / FILE).exists():
        return ""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / FILE, blocking=False, fallback_to_soft=False):
            return ""
    except Timeout:
        return _named(folder)


def folder_of(error: BaseException) -> Path | None:
    """The directory that was held where an exception was raised."""
    folder = getattr(error, "folder", None)
    return folder if isinstance(folder, Path) else None


def _named(folder: Path) -> str:
    try:
        name = from_json(read_bytes(folder / FILE, MOST_BYTES))
        return f"process {int(name['pid'])} on {name['host']!s:.99} since {name['since']!s:.19}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or is an older hvae
        return "another process"
