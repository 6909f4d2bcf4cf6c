"""Many processes on one directory: writers, sweeps, and workers that die."""

import importlib.util
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hvae.lab import completion
from hvae.lab.config import RunConfig
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.manifest import Entry, enter, read_manifest
from hvae.lab.runs.run import Run
from hvae.lab.sweep import sweep
from tests.lab.sweep.test_sweeping import SWEEPER
from tests.reliability.figure import Figure, Row, share
from tests.reliability.page import REPO
from tests.reliability.twins import no_locks

N_WRITES = 400
"""of each of two machines"""
CONFIG = RunConfig.from_dict(
    {
        "data": {"name": "synthetic-binary-2", "n_train": 64},
        "model": {"latents": [2], "hidden": [[4]]},
        "training": {
            "seeds": [0], "n_steps": 400, "batch_size": 16, "log_every_steps": 20, "checkpoint_every_steps": 20
        },
        "evaluation": {"n_images": 8, "max_paths": 4, "n_likelihood": 4, "n_samples": 8},
    }
)  # fmt: skip
SPREAD_SECONDS = 1.5
"""a worker is killed within that from its beginning"""

MACHINE = """
import os, sys, time
from pathlib import Path
from hvae.diagnosis.files import write_atomically
from tests.reliability.twins import names_without_chance
file, letter, how, n = Path(sys.argv[1]), sys.argv[2].encode(), sys.argv[3], int(sys.argv[4])
if how == "twin":
    write_atomically = names_without_chance()
(file.parent / f"begun-{sys.argv[2]}").touch()
while len(list(file.parent.glob("begun-*"))) < 2:
    time.sleep(0.001)
whole = 0
for _ in range(n):
    try:
        write_atomically(file, letter * 20_000)
        content = file.read_bytes()
        whole += len(content) == 20_000 and len(set(content)) == 1
    except OSError:
        pass
print(os.getpid(), whole)
"""
"""One of two machines that write the same file; it says its process number, and how many writes went well."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])}


def two_machines(folder: Path, how: str, n: int) -> tuple[int, bool]:
    """Writes that went well, of 2 n, and whether both processes had one number."""
    folder.mkdir()
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    both = [
        subprocess.Popen(
            [*apart, sys.executable, "-c", MACHINE, str(folder / "x"), letter, how, str(n)],
            env=environment(), stdout=subprocess.PIPE, text=True,
        )
        for letter in "ab"
    ]  # fmt: skip
    said = [process.communicate()[0].split() for process in both]
    return sum(int(whole) for _, whole in said), len({number for number, _ in said}) == 1


def namespaces() -> bool:
    """Whether this system lets us make rooms of process numbers."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def on_two_machines(n: int) -> list[Row]:
    what = "writes of two machines to one file, whose processes have equal numbers"
    if not namespaces():
        return [Row(what, "not measured: it takes Linux and root", ok=True)]
    with tempfile.TemporaryDirectory() as scratch:
        (whole, equal), (control, _) = (two_machines(Path(scratch) / how, how, n) for how in ("ours", "twin"))
    return [
        Row(what, share(whole, 2 * n, "whole"), whole == 2 * n and equal),
        Row("temporary names of the process number alone", share(control, 2 * n, "whole"), control < 2 * n, twin=True),
    ]


def put_entries(path: str, name: str, n: int, how: str, together: Any) -> None:
    if how == "twin":
        no_locks()
    together.wait(60)  # one that starts late would never meet the other
    for number in range(n):
        with suppress(Exception):  # of the twin
            enter(Path(path), "0" * 64, f"{name}-{number}", Entry.of(b""))


def in_one_manifest(n: int) -> list[Row]:
    rows, context = [], multiprocessing.get_context("forkserver")
    for how, what in (("ours", "entries of two processes in one manifest"), ("twin", "a manifest without a lock")):
        with tempfile.TemporaryDirectory() as scratch:
            together = context.Barrier(2)
            both = [context.Process(target=put_entries, args=(scratch, name, n, how, together)) for name in "ab"]
            for process in both:
                process.start()
            for process in both:
                process.join()
            manifest = read_manifest(Path(scratch))
        kept = len(manifest.files) if manifest else 0
        rows.append(Row(what, share(kept, 2 * n, "kept"), (kept == 2 * n) == (how == "ours"), twin=how == "twin"))
    return rows


def two_sweeps(n: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        runs = made(Path(scratch) / "runs", n, "counted")
        file = Path(scratch) / "sweeper.py"
        file.write_text(SWEEPER)
        both = [
            subprocess.Popen([sys.executable, str(file), str(Path(scratch) / "runs")], env=environment())
            for _ in range(2)
        ]
        codes = [sweeper.wait() for sweeper in both]
        once = sum((run.path / "times").read_text().count("\n") == 1 for run in runs)
    found = f"{share(once, n, 'runs worked on once')}; both ended with {codes[0]} and {codes[1]}"
    return [Row("two sweeps on one directory", found, once == n and codes == [0, 0])]


def made(root: Path, n: int, what: str = "run") -> list[Run]:
    return [Run.create_or_open(root, "trial", f"{what} {number}", CONFIG) for number in range(n)]


def doomed(run: Run, *, device: str = "cpu", data_dir: Path | None = None, progress: bool = False) -> None:
    """Train and measure; the first process of a run is killed at a random instant, or with its server."""
    begun = run.path / "begun"
    found = latest_checkpoint(run)
    with open(run.path / "starts", "a") as starts:
        starts.write(f"{0 if found is None else found[0]}\n")
    if not begun.exists():
        begun.touch()
        rng = random.Random(run.label)
        victim = os.getppid() if rng.random() < 0.25 and served() else os.getpid()
        killer = threading.Timer(rng.random() * SPREAD_SECONDS, kill, (run.path / "killed", victim))
        killer.daemon = True
        killer.start()
    completion.complete(run, device=device, data_dir=data_dir, progress=progress)


def served() -> bool:
    """Whether the parent of this process is the server that forks workers."""
    with suppress(OSError):
        return b"forkserver" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return False


def kill(said: Path, process: int) -> None:
    said.write_text("server" if process == os.getppid() else "worker")
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def killed_workers(n: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        runs = made(Path(scratch), n)
        failures = sweep(runs, n_workers=2, task=doomed)
        done, victims = sum(run.done for run in runs), victims_of(runs)
    what = f"a sweep of {n} runs whose workers and server are killed"
    found = (
        f"{share(done, n, 'runs done')}; {victims.count('worker')} workers and {victims.count('server')} servers killed"
    )
    return [Row(what, found, done == n and not failures and bool(victims)), *a_plain_pool(n)]


def victims_of(runs: Sequence[Run]) -> list[str]:
    return [(run.path / "killed").read_text() for run in runs if (run.path / "killed").exists()]


def a_plain_pool(n: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        runs = made(Path(scratch), n)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
            for each in as_completed([pool.submit(doomed, run) for run in runs]):
                each.exception()
        done = sum(run.done for run in runs)
    return [Row("the same runs in concurrent.futures", share(done, n, "runs done"), done < n, twin=True)]


def on_a_cluster(n: int, n_kills: int = 3) -> list[Row]:
    what = f"Dask, {n} runs on 2 workers of which {n_kills} are killed"
    if importlib.util.find_spec("distributed") is None:
        return [Row(what, "not measured: it takes the extra `cluster`", ok=True)]
    from tests.lab.sweep.test_cluster import Cluster, sweep_and_kill

    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as home:
        runs = made(Path(scratch), n, "trained")
        machines = Cluster(Path(home))
        try:
            failures, n_killed, starts = sweep_and_kill(machines, runs, n_kills)
        finally:
            machines.stop()
        done = sum(run.done for run in runs)
    again = sum("0" in more for _, *more in starts)
    found = f"{share(done, n, 'runs done')}, {again} begun from the start twice; {n_killed} workers killed"
    return [Row(what, found, done == n and not failures and not again and n_killed == n_kills)]


def measure(n: int) -> Sequence[Row]:
    torch.set_num_threads(1)
    writes = round(N_WRITES * n / WRITERS.full)
    parts = (
        partial(on_two_machines, writes), partial(in_one_manifest, writes // 4), partial(two_sweeps, n),
        partial(killed_workers, n), partial(on_a_cluster, n),
    )  # fmt: skip
    return [row for part in parts for row in part()]


WRITERS = Figure(
    "writers",
    "Many processes on one directory",
    "Two machines are two processes in PID namespaces of their own, so their process numbers are equal. In the sweep "
    "that is killed, each run loses its first worker at a random instant, or the server that forks the workers.",
    12,
    measure,
)
