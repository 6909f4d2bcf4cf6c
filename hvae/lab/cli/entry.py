"""The outermost net: a command runs, and whatever it raises ends in one sentence and an exit code.

Only this package writes to the terminal. Only commands that train or measure import torch. `hvae.analysis` stands
below, and is imported when a command asks for it. Exit codes: `hvae.lab.endings`.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from hvae.errors import ConfigError
from hvae.lab.cli.output import give_up_stdout, say, use_any_encoding
from hvae.lab.endings import FAILED, STOPPED, ending, on_a_line
from hvae.lab.interrupts import interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    before, warnings.formatwarning = warnings.formatwarning, _one_line
    os.environ["MPLBACKEND"] = "agg"  # no window is opened, so what is set there is no matter
    arguments = sys.argv[1:] if arguments is None else arguments
    use_any_encoding()
    places: list[Path] = []
    try:
        with interrupts(again=_end_at_once):
            try:
                code = _command(arguments, places)
                if sys.stdout is not None:
                    sys.stdout.flush()
                return code
            except BrokenPipeError:  # whoever read the output has seen enough
                give_up_stdout()
                return FAILED
            except (Exception, KeyboardInterrupt) as error:
                return _said(error, places)
    except KeyboardInterrupt as error:  # it came between two lines above
        return _said(error, places)
    finally:
        warnings.formatwarning = before


def _command(arguments: Sequence[str], places: list[Path]) -> int:
    try:
        os.getcwd()
    except FileNotFoundError:  # MKL would end the process without a word of ours
        raise ConfigError("The working folder has been deleted; go to one that exists.") from None
    from hvae.lab.cli.commands import COMMANDS  # within the net, for what an import may raise
    from hvae.lab.cli.reading import overview
    from hvae.lab.options import parse

    if not arguments:
        return overview()
    command, options = parse(arguments)
    places.append(Path(options.get("runs_dir") or "runs"))
    return COMMANDS[command](options)


def _said(error: BaseException, places: Sequence[Path]) -> int:
    code, sentence = ending(error, places)
    say(sentence if code == STOPPED else f"hvae: {sentence}")
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        give_up_stdout()
    return code


def _end_at_once() -> None:
    """At a second signal. Workers end with this process; what is on disk is whole."""
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped at once; the same command goes on from what was saved.\n")
    os._exit(STOPPED)


def _one_line(message: Warning | str, *details: object, **more: object) -> str:
    return f"hvae: {on_a_line(str(message))}\n"
