"""How work ends: the exit code and the one sentence of everything that may be raised.

0    done
1    a run failed, or the memory was too small
2    bad input or usage, or a file that cannot be written
70   a mistake of hvae; the traceback is in a file
75   another process holds the run; what is asked for is under way
130  interrupted; the same command goes on
"""

import datetime
import errno
import importlib.metadata
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from hvae.errors import ConfigError, HeldError, TrainingError
from hvae.lab.runs.lock import folder_of

DONE, FAILED, REFUSED, MISTAKE, HELD, STOPPED = 0, 1, 2, 70, 75, 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
SIGNS = (
    *("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED"),
    *("can't start new thread", "failed to map segment", "cannot allocate memory"),
)
"""in what torch, threads and the loader of libraries say where memory or processes are short"""
LOG = "log.txt"
"""a run's file, to which tracebacks are appended"""
MOST_SENTENCE = 1000
"""characters; of more the beginning and the end are shown, which has the remedy"""
STOP_SENTENCE = "Stopped; the same command goes on from there."


def ending(error: BaseException, places: Sequence[Path] = ()) -> tuple[int, str]:
    """The exit code and the sentence of an exception.

    The traceback of one that nobody expects goes to log.txt in the run that was at work, else in the first of the
    `places` that can be written, else to a temporary file.
    """
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, on_a_line(str(error)) or STOP_SENTENCE
    if isinstance(error, HeldError):
        return HELD, on_a_line(str(error))
    if isinstance(error, ConfigError):
        return REFUSED, on_a_line(str(error))
    if isinstance(error, TrainingError):
        return FAILED, on_a_line(str(error))
    if _is_out_of_memory(error):
        return FAILED, (
            f"The memory is too small ({_text(error, 200) or 'nothing more can be allocated'}); "
            "make training.batch_size or the model smaller, run fewer --workers, or take a larger machine."
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        short = error.errno in NO_ROOM
        remedy = "make room or give another directory" if short else "see that it can be read and written"
        return REFUSED, on_a_line(f"{where}{error.strerror or error}; {remedy}, then repeat the command.")
    said = f"unexpected: {type(error).__name__}: {_text(error, 300)}"
    return MISTAKE, f"{said}; the traceback is in {_keep(error, places)}"


def on_a_line(text: str) -> str:
    """The text without what would break the line, or what a terminal would act on: names may hold anything.

    >>> on_a_line("a\\nb is not there.")
    'a\\\\nb is not there.'
    """
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
    if len(shown) <= MOST_SENTENCE:
        return shown
    return f"{shown[: MOST_SENTENCE // 2]}…{shown[-MOST_SENTENCE // 2 :]}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Of Python, of a GPU (torch is not loaded to ask), of torch on the CPU, or by a limit of the shell."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in SIGNS)


def _text(error: BaseException, most: int) -> str:
    try:
        return " ".join(str(error).split())[:most]
    except Exception:  # an exception of others that cannot even be printed
        return "it has no text"


def _keep(error: BaseException, places: Sequence[Path]) -> str:
    """Write the traceback down; where, in words."""
    lines = [
        f"\n{datetime.datetime.now().isoformat(timespec='seconds')} hvae {importlib.metadata.version('hvae')}, "
        f"Python {sys.version.split()[0]}: {shlex.join(sys.argv)}\n",
        *traceback.format_exception(error),
    ]
    content = "".join(lines).encode("utf-8", "backslashreplace")
    at_work = folder_of(error)
    for folder in [*([at_work] if at_work else []), *places]:
        try:
            with open(folder / LOG, "ab") as log:
                log.write(content)
        except OSError:
            continue
        return str(folder / LOG)
    try:
        with tempfile.NamedTemporaryFile(prefix="hvae-", suffix=".txt", delete=False) as own:
            own.write(content)
        return own.name
    except OSError:  # nothing can be written anywhere: shown rather than lost
        return f"no file, as none can be written: {' / '.join(traceback.format_exception_only(error)).strip()}"
