"""What a command says to a bad input is judged by all of it: the code, every line, and what lies there afterwards."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hvae.errors import ConfigError
from hvae.lab.config import RunConfig
from tests.reliability import bad
from tests.reliability.bad import Bad
from tests.reliability.inputs import KINDS, Said, ask, row

N_OF_EACH = 6
ASKED = Bad(["train"], {"mine.csv": b"1,2\n"})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "environments"])
def test_a_few_of_every_kind_are_refused(kind: str) -> None:
    cases = KINDS[kind](random.Random(0))
    assert len(cases) >= 100
    found = row(kind, [(case, ask(case)) for case in cases[:N_OF_EACH]])
    assert found.ok, found.found


def says(line: str, code: int = 2) -> Callable[[Sequence[str]], int]:
    def command(arguments: Sequence[str]) -> int:
        sys.stderr.write(line)
        return code

    return command


def does(act: Callable[[], object]) -> Callable[[Sequence[str]], int]:
    def command(arguments: Sequence[str]) -> int:
        act()
        return says("hvae: No; do this.\n")(arguments)

    return command


def raises(arguments: Sequence[str]) -> int:
    raise ValueError("a mistake")


WRONG: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "a traceback": (raises, "a traceback"),
    "another code": (says("hvae: No; do this.\n", 1), "exit code 1"),
    "it works": (says("", 0), "exit code 0"),
    "silence": (says(""), "no sentence"),
    "no end": (says("hvae: and then\n"), "no sentence"),
    "another line": (says("a stray line\nhvae: No; do this.\n"), "another line: a stray line"),
    "two sentences": (says("hvae: No.\nhvae: Do this.\n"), "2 lines"),
    "a new file": (does(lambda: Path("new").write_text("x")), "changes new"),
    "a new folder": (does(lambda: os.mkdir("runs")), "changes runs"),
    "another content": (does(lambda: Path("mine.csv").write_text("x")), "changes mine.csv"),
    "a lost file": (does(lambda: os.remove("mine.csv")), "changes mine.csv"),
    "a kill": (does(lambda: os.kill(os.getpid(), signal.SIGKILL)), "dies of SIGKILL"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_way_to_be_wrong_is_seen(name: str) -> None:
    command, words = WRONG[name]
    assert ask(ASKED, command).wrong(ASKED).startswith(words)


def test_a_refusal_is_not_wrong_and_a_hang_is_seen() -> None:
    assert ask(ASKED, says("hvae: No; do this.\n")).wrong(ASKED) == ""
    assert ask(ASKED, does(lambda: time.sleep(30)), seconds=1).wrong(ASKED) == "hangs"


def test_what_worked_is_no_refusal_and_each_failure_counts() -> None:
    free = Bad(["list"], may_work=True)
    refused, worked, failed = Said(2, "", "hvae: No; do this.\n"), Said(0, "", ""), Said(1, "", "")
    found = row("some", [(ASKED, refused), (free, worked), (ASKED, failed), (ASKED, failed)])
    assert not found.ok and found.found == (
        "1 of 4 refused in one sentence, nothing written; 1 of 4 worked, as they may; "
        "train: exit code 1; train: exit code 1"
    )


def test_python_refuses_the_settings_that_the_command_line_refuses() -> None:
    for section, name, value in bad.values():
        with pytest.raises(ConfigError) as refusal:
            RunConfig.from_dict({section: {name: value}})
        assert str(refusal.value).isprintable() and len(str(refusal.value)) < 1000, (section, name, value)
