"""Temporary files: of any number of machines that share a folder, and gone when nobody writes them any more."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvae.diagnosis import files
from hvae.diagnosis.files import STALE_SECONDS, clean, write_atomically

REPO = Path(__file__).parents[2]
TWINS = """
import os, socket, sys, time
from pathlib import Path
os.getpid, socket.gethostname = (lambda: 7), (lambda: "box")
if sys.argv[3] == "without chance":
    import uuid
    class Same:
        hex = "0"
    uuid.uuid4 = lambda: Same
from hvae.diagnosis import files
files._machine = lambda: "box"
from hvae.diagnosis.files import write_atomically
place, failed = Path(sys.argv[1]), 0
(place.parent / sys.argv[2]).touch()
while not all((place.parent / name).exists() for name in "ab"):
    time.sleep(0.001)
for number in range(int(sys.argv[4])):
    try:
        write_atomically(place, sys.argv[2].encode() * 20_000)
        failed += len(set(place.read_bytes())) != 1
    except OSError:
        failed += 1
print(failed)
"""


def failures(folder: Path, how: str, n: int) -> int:
    folder.mkdir()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWINS, str(folder / "x"), name, how, str(n)],
            cwd=REPO, stdout=subprocess.PIPE, text=True,
        )
        for name in "ab"
    ]  # fmt: skip
    return sum(int(process.communicate()[0]) for process in both)


def test_two_machines_with_equal_process_numbers_never_meet(tmp_path: Path) -> None:
    """800 writes to one file, 400 from each of two processes that take themselves for one and the same."""
    assert failures(tmp_path / "whole", "with chance", 400) == 0
    assert failures(tmp_path / "control", "without chance", 400) > 0


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a writer that was killed leaves."""

    def killed(source: object, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "x", b"half")
    (left,) = tmp_path.iterdir()
    return left


def renamed(file: Path, machine: str | None = None, process: int | None = None) -> Path:
    *start, old_machine, old_process, chance, end = file.name.split(".")
    parts = (machine or old_machine, str(process or old_process), chance, end)
    return file.rename(file.with_name(".".join((*start, *parts))))


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_the_name_says_machine_and_process(temporary: Path) -> None:
    assert temporary.name.startswith(f".x.{files._machine()}.{os.getpid()}.") and temporary.name.endswith(".tmp")
    assert len(temporary.name.split(".")[-2]) == 32


@pytest.mark.parametrize(
    ("machine", "ended", "age", "goes"),
    [
        (None, False, 0.0, False),  # it is being written
        (None, True, 0.0, True),
        ("elsewhere", True, 0.0, False),  # nobody here knows
        ("elsewhere", False, STALE_SECONDS - 60, False),
        ("elsewhere", False, STALE_SECONDS + 60, True),
        (None, False, STALE_SECONDS + 60, True),
    ],
)
def test_what_has_no_writer_is_cleaned(
    temporary: Path, machine: str | None, ended: bool, age: float, goes: bool
) -> None:
    file = renamed(temporary, machine, dead() if ended else None)
    (file.parent / ".lock").touch()
    (file.parent / ".odd.tmp").touch()
    moment = time.time() - age
    os.utime(file, (moment, moment))
    clean(file.parent)
    assert file.exists() != goes
    assert (file.parent / ".lock").exists() and (file.parent / ".odd.tmp").exists()


def test_a_long_name_is_written(tmp_path: Path) -> None:
    file = tmp_path / f"{'x' * 240}.json"
    write_atomically(file, b"whole")
    assert file.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [file]
