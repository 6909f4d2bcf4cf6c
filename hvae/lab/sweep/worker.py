"""The work of one process on one run, whoever started it, and its report at the end.

The process and its parent have a connection. The process sends how it ended, and nothing else. The parent sends
nothing, so an end of the connection is the end of the other side: one is seen by `ended`, the other saves and goes.
"""

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from tqdm import tqdm

from hvae.lab.endings import DONE, LOG, STOPPED, ending
from hvae.lab.interrupts import StopRequest, interrupts
from hvae.lab.runs.run import Run
from hvae.lab.sweep.executor import GRACE_SECONDS, LOST, Job

LOOK_SECONDS = 1.0


def work(run: Run, job: Job, n_threads: int, connection: Connection) -> None:
    """All that the process does: its own log, its own group (the parent passes signals on), one run."""
    with contextlib.suppress(PermissionError):  # it leads a session, and so its group, already
        os.setpgid(0, 0)
    with open(run.path / LOG, "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    torch.set_num_threads(n_threads)
    tqdm.set_lock(threading.RLock())  # its default lock is a semaphore of the system, which a killed worker leaks
    code, reason = DONE, ""
    try:
        with interrupts(again=lambda: None) as stop:  # who has no patience kills it
            threading.Thread(target=_go_with_the_parent, args=(connection, stop), daemon=True).start()
            job(run)
    except (Exception, KeyboardInterrupt) as error:
        code, reason = ending(error, [run.path])
        sys.stderr.write(f"{reason}\n")
    with contextlib.suppress(OSError):
        connection.send((code, reason))
    sys.exit(code)


def _go_with_the_parent(connection: Connection, stop: StopRequest) -> None:
    """When the parent is gone, save and go."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    if not stop.requested:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(STOPPED)


def received(connection: Connection) -> tuple[int, str] | None:
    """The report of a process that has ended; None where it was killed before it could send one."""
    try:
        code, reason = connection.recv()
    except (EOFError, OSError):
        return None
    return int(code), str(reason)


def killed(code: int | None) -> tuple[int, str]:
    """What is said of a process that sent no report, from its exit code as far as it is known."""
    if code is not None and code < 0:
        return code, f"the process was killed by {signal.Signals(-code).name}"
    return LOST, "the process was killed"


def work_in_a_process(run: Run, job: Job, n_threads: int, asked_to_stop: Callable[[], bool]) -> tuple[int, str]:
    """`work` in a process of its own, from a thread that cannot be interrupted. Returns code and reason."""
    import socket

    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from hvae.lab.sweep.worker import begin; begin({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    stopping = False
    with Connection(ours.detach()) as connection:
        with contextlib.suppress(OSError):  # it is dead already
            connection.send((run, job, n_threads))
        while not connection.poll(LOOK_SECONDS):
            if not stopping and asked_to_stop():
                process.terminate()
                stopping = True
        report = received(connection)
        code = process.wait()
    return report or killed(code)


def begin(descriptor: int) -> None:
    """The other end of `work_in_a_process`."""
    connection = Connection(descriptor)
    run, job, n_threads = connection.recv()
    work(run, job, n_threads, connection)
