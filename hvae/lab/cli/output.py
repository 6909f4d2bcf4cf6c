"""What is written to the terminal: results to stdout, everything else to stderr."""

import codecs
import contextlib
import os
import shutil
import sys
from pathlib import Path

from hvae.errors import MissingExtraError

NARROWEST, WIDEST = 80, 120
"""columns of what is printed"""
PLAIN = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "±": "+-", "×": "x", "…": "...", "·": "*", "≥": ">=", "≤": "<=", "→": "->"}
    | {"β": "beta", "σ": "sigma", "λ": "lambda", "ε": "epsilon", "²": "^2", "█": "#", "░": ".", "“": '"', "”": '"'}
)
"""what stands for a letter that the terminal's encoding lacks; any other is written as Python writes it"""


def use_any_encoding() -> None:
    """Make stdout and stderr write whatever they are given."""
    codecs.register_error("hvae", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="hvae")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


CLEAR = "\r\x1b[K"
"""to the first column of the terminal, and the line away"""


def say(line: str) -> None:
    """A line on stderr. Nothing fails where the terminal is gone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"{CLEAR if sys.stderr.isatty() else ''}{line}", file=sys.stderr, flush=True)


def renew(line: str) -> None:
    """A line in place of the last one that was renewed; it goes when something is said."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"{CLEAR}{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)


def give_up_stdout() -> None:
    """What is left unwritten goes nowhere: Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def width() -> int:
    """Columns of the terminal, 80 at the least; 80 too where the output goes elsewhere."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def path_of(text: str | None) -> Path | None:
    """The path of an option that need not be given."""
    return Path(text) if text else None


def show(directory: Path, preset: str = "", more: Path | None = None) -> None:
    """The verdicts on stdout, and the report in the runs' directory; on a core install a sentence instead."""
    from hvae.analysis.report import write_report
    from hvae.analysis.study import open_study
    from hvae.analysis.terminal import verdicts

    study = open_study(directory, preset, more)
    try:
        report = write_report(study, directory)
    except MissingExtraError as missing:
        print(verdicts(study, width()), flush=True)
        say(f"hvae: {missing}")
        return
    print(verdicts(study, width()))
    print(f"\nReport: {report}", flush=True)
