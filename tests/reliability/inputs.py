"""Bad inputs by the hundred: settings, flags, files and environments, and what the command line says to each."""

import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hvae.lab.cli import main
from tests.reliability import bad
from tests.reliability.bad import Bad
from tests.reliability.figure import Figure, Row, share

Command = Callable[[Sequence[str]], int]
SECONDS = 60
"""after which a command hangs"""
KINDS: Mapping[str, Callable[[random.Random], Sequence[Bad]]] = {
    "configurations": bad.configurations,
    "flags": bad.flags,
    "files": bad.files,
    "environments": bad.environments,
}


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str
    changed: tuple[str, ...] = field(default=())
    """files and folders that are new, gone or of other content"""

    def wrong(self, asked: Bad) -> str:
        """What is wrong with it; empty if it is a refusal in one sentence, before anything is written."""
        if self.code == -signal.SIGALRM:
            return "hangs"
        if self.code < 0:
            return f"dies of {signal.Signals(-self.code).name}"
        if "Traceback" in self.out + self.err:
            return "a traceback"
        if asked.may_work and self.code == 0:
            return ""
        if self.code != 2:
            return f"exit code {self.code}"
        lines = self.err.splitlines()
        if not lines or not lines[-1].endswith((".", "?")):
            return f"no sentence: {lines[-1:]}"
        if stray := [line for line in lines if not line.startswith("hvae: ")]:
            return f"another line: {stray[0][:60]}"
        if len(lines) > 1 + asked.n_warnings:
            return f"{len(lines)} lines"
        return f"changes {self.changed[0]}" if self.changed else ""


def ask(asked: Bad, command: Command = main, seconds: int = SECONDS) -> Said:
    """Run a command on a bad input, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "here"
        folder.mkdir()
        for name, content in asked.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        asked.prepare(folder)
        before = _contents(folder)
        streams = [Path(scratch) / name for name in ("out", "err")]
        process = os.fork()
        if process == 0:
            _child(asked, command, folder, streams, seconds)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # what a command that hung has begun
        out, err = (text_of(file) if file.exists() else "" for file in streams)
        changed = sorted({name for name, _ in before.items() ^ _contents(folder).items()})
        return Said(code, out, err, tuple(name for name in changed if not name.startswith(asked.own)))


def _contents(folder: Path) -> dict[str, str]:
    """What lies in a folder, with a digest of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        for path in folder.rglob("*")
    }


def text_of(file: Path) -> str:
    content = file.read_bytes()
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")


def _child(asked: Bad, command: Command, folder: Path, streams: list[Path], seconds: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, file in zip((1, 2), streams, strict=True):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        if asked.environment or asked.from_nowhere:
            asked.begin_anew(folder)
        code = command(asked.arguments)
    except SystemExit as end:  # of --help and the like
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def ungated(arguments: Sequence[str]) -> int:
    """The twin: the same commands without the outermost net."""
    from hvae.lab.cli.entry import _command

    return _command(arguments, [])


def sleepy(arguments: Sequence[str]) -> int:
    """The twin that hangs."""
    import time

    time.sleep(SECONDS)
    return 2


def row(kind: str, asked: Sequence[tuple[Bad, Said]]) -> Row:
    """How many were refused, how many worked where that is as good, and every one that was neither."""
    wrong = [(" ".join(case.arguments)[:80], how) for case, said in asked if (how := said.wrong(case))]
    worked = sum(said.code == 0 and not said.wrong(case) for case, said in asked)
    refused = len(asked) - len(wrong) - worked
    parts = [share(refused, len(asked), "refused in one sentence, nothing written")]
    parts += [share(worked, len(asked), "worked, as they may")] * bool(worked)
    return Row(kind, "; ".join([*parts, *(f"{what}: {how}" for what, how in wrong)]), not wrong)


def measure(n: int) -> Sequence[Row]:
    """n inputs, of each kind its share; the first ones of every kind are always the same."""
    import hvae.lab.completion  # noqa: F401  # once, before the processes fork

    rows, total = [], []
    for kind, make in KINDS.items():
        cases = list(make(random.Random(kind)))[: max(1, round(n * bad.SHARES[kind]))]
        total += cases
        rows.append(row(kind, [(case, ask(case)) for case in cases]))
    few = total[:: max(1, len(total) // 20)][:20]
    seen = sum("traceback" in ask(case, ungated).wrong(case) for case in few)
    hangs = ask(few[0], sleepy, 1).wrong(few[0])
    return [
        *rows,
        Row("commands without the outermost net", share(seen, len(few), "end in a traceback"), seen > 0, twin=True),
        Row("a command that sleeps", hangs, hangs == "hangs", twin=True),
    ]


INPUTS = Figure(
    "inputs",
    "Bad inputs are refused",
    "Settings of a wrong type, beyond their limits or misspelt; flags without a value or a meaning; files that are cut "
    "or hold what cannot be meant; environments that are broken. Each should end with exit code 2 and one sentence "
    "within 60 s, with nothing written, changed or deleted. In a broken environment a command may also work.",
    500,
    measure,
)
