"""Text from a file: regular, not too large, UTF-8 without byte order mark, and without NUL."""

import errno
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvae.errors import ConfigError, NotLoadableError

MOST_BYTES = 16 * 2**20
"""of a file of text, unless its reader says otherwise"""
MOST_LINE = 4096
"""bytes of a file of one line, such as a label or a digest"""
MARK = b"\xef\xbb\xbf"
"""byte order mark in UTF-8"""
BROKEN = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),
)
"""what parsers raise of damaged content; RuntimeError has RecursionError and NotImplementedError"""


@contextmanager
def sound(file: Path, remedy: str, says: str = "is damaged") -> Iterator[None]:
    """Whatever is wrong in a file, while it is read and while its content is used, is one `ConfigError`.

    `NotLoadableError` where the file may be sound: without permission, or memory. A file that is not there passes as
    FileNotFoundError or NotADirectoryError: what that means is for the caller.

    >>> with sound(Path("a.json"), "write it again"):
    ...     {}["step"]
    Traceback (most recent call last):
    ...
    hvae.errors.ConfigError: a.json is damaged (KeyError: 'step'); write it again.
    """
    try:
        yield
    except (ConfigError, FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        why = error.strerror or reason(error)
        if error.errno in (None, errno.EINVAL):  # a place that the content names, beyond any file
            raise ConfigError(f"{file} {says} ({why}); {remedy}.") from None
        raise NotLoadableError(f"{file} cannot be read ({why}); {remedy}.") from None
    except MemoryError:
        raise NotLoadableError(f"{file} cannot be read (out of memory); give more memory, or {remedy}.") from None
    except BROKEN as error:
        raise ConfigError(f"{file} {says} ({reason(error)}); {remedy}.") from None


def reason(error: BaseException) -> str:
    """What an exception says, short and on one line; where that is no sentence of its own, behind its name."""
    text = " ".join(str(error).split()).rstrip(".")
    text = text if len(text) <= 200 else f"{text[:199]}…"
    return text if type(error) is ValueError and text else f"{type(error).__name__}: {text}".rstrip(": ")


def read_bytes(file: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises ValueError for one of more than ``most`` bytes, and OSError."""
    if not stat.S_ISREG(file.stat().st_mode):  # a pipe or a device may have no end
        raise ValueError("it is a folder" if file.is_dir() else "it is no regular file")
    with file.open("rb") as content:
        found = content.read(most + 1)
    if len(found) > most:
        raise ValueError(f"it has more than {most} bytes")
    return found


def decoded(content: bytes) -> str:
    """Text in UTF-8. Raises ValueError for any other encoding, a byte order mark or NUL."""
    if content.startswith(MARK):
        raise ValueError("it begins with a byte order mark, where UTF-8 without one is read")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise ValueError("it holds a NUL byte, so it is no text in UTF-8")
    return text


def check_text(text: str) -> str:
    """The text, if a file in UTF-8 can hold it. Raises ValueError for NUL and for half of a surrogate pair."""
    if "\0" in text:
        raise ValueError(f"the text {text[:40]!r} holds NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the text {text[:40]!r} is not UTF-8") from None
    return text


def read_text(file: Path, remedy: str, *, most: int = MOST_BYTES, says: str = "is damaged") -> str:
    """A file of text. Raises `ConfigError`, with the remedy, where it is none, and FileNotFoundError."""
    with sound(file, remedy, says):
        return decoded(read_bytes(file, most))


def read_line(file: Path, remedy: str) -> str:
    """A file of one line, such as a label or a digest, without the spaces around it."""
    with sound(file, remedy):
        line = decoded(read_bytes(file, MOST_LINE)).strip()
        if not line.isprintable():
            raise ValueError("it holds more than one line of printable text")
        return line
