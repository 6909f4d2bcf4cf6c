"""Who holds a directory: named while it is held, free when the holder is gone, in whatever way."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hvae.errors import ConfigError, HeldError
from hvae.lab.runs.lock import folder_of, hold, hold_in_turn, holder

REPO = Path(__file__).parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from hvae.lab.runs.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_holder_is_named_until_it_is_killed(tmp_path: Path) -> None:
    assert holder(tmp_path) == "" and list(tmp_path.iterdir()) == []
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        name = holder(tmp_path)
        assert name.startswith(f"process {process.pid} on {socket.gethostname()} since 20")
        with pytest.raises(HeldError, match=f"is held by process {process.pid} on .*; wait for it or stop it"):
            with hold(tmp_path):
                pass
        process.send_signal(signal.SIGKILL)
    assert holder(tmp_path) == "", "the text outlives its holder, the lock does not"
    with hold(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\0", "x" * 5000, '{"pid": 1e400, "host": 1}'])
def test_a_name_that_cannot_be_read_is_no_matter(text: str, tmp_path: Path) -> None:
    with hold(tmp_path):
        (tmp_path / ".lock").write_text(text)
        assert holder(tmp_path) == "another process"
    assert holder(tmp_path) == ""


def test_looking_does_not_keep_anybody_out(tmp_path: Path) -> None:
    """Whoever looks takes the lock for an instant; a holder that comes in that instant is not refused."""
    with open(tmp_path / ".lock", "w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_EX)
        timer = threading.Timer(0.05, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        timer.start()
        with hold(tmp_path):
            pass
        timer.join()


def test_one_waits_for_the_other(tmp_path: Path) -> None:
    lines: list[str] = []
    order: list[str] = []
    held = hold(tmp_path)
    held.__enter__()

    def let_go() -> None:
        order.append("first")
        held.__exit__(None, None, None)

    timer = threading.Timer(2.5, let_go)
    timer.start()
    with hold_in_turn(tmp_path, lines.append):
        order.append("second")
        time.sleep(0.1)
    timer.join()
    assert order == ["first", "second"]
    (line,) = lines
    assert line.startswith(f"Waiting for process {os.getpid()} on ") and line.endswith(f"which works in {tmp_path}.")


def test_what_escapes_knows_where_it_happened(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(ConfigError) as caught, hold(tmp_path), hold(inner):
        raise ConfigError("a; b.")
    assert folder_of(caught.value) == inner and folder_of(ValueError()) is None
