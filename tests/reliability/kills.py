"""kill -9 at random instants of training, measuring and reporting; then the same command, and what it made."""

import multiprocessing
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import hvae.diagnosis.files as files
from hvae.analysis.report import write_experiment_report
from hvae.lab.completion import keep_data, load_data
from hvae.lab.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.lab.evaluation.whole import evaluate
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import train
from tests.reliability.figure import Figure, Row, share
from tests.reliability.twins import torn_writes

MOST_KILLS = 3
"""of one trial, before it is left to end"""
WHEN = re.compile(rb"written [0-9: -]+ UTC")
"""the one thing in a report that is another each time"""
N_STEPS = 20
CONFIG = RunConfig(
    DataConfig("digits-threshold", n_test=60),
    ModelConfig(latents=(6, 3), hidden=((150,), (50,))),
    training=TrainingConfig(
        seeds=(0, 1), n_steps=N_STEPS, batch_size=50, log_every_steps=1, checkpoint_every_steps=1, ema_decay=0.9
    ),
)


def do_train(path: Path) -> None:
    run = Run.open(path)
    train(run, load_data(run.config), progress=False)


def do_measure(path: Path) -> None:
    run = Run.open(path)
    evaluate(run, load_data(run.config), progress=False)
    run.mark_done()


def do_report(path: Path) -> None:
    write_experiment_report(path.parent)


def trained(path: Path) -> dict[str, bytes]:
    """Weights, moments and metrics. A checkpoint's own sum is that of its content."""
    newest = max(path.glob("checkpoints/step-*.pt"))
    assert newest.name == f"step-{N_STEPS:09d}.pt", newest
    saved = torch.load(newest, weights_only=True)
    return {"checkpoint": repr(flat(saved)).encode(), "metrics": (path / "metrics.jsonl").read_bytes()}


def flat(value: object) -> object:
    """All numbers of a checkpoint, bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, Mapping):
        return [(key, flat(each)) for key, each in value.items()]
    return [flat(each) for each in value] if isinstance(value, list | tuple) else value


def measured(path: Path) -> dict[str, bytes]:
    assert Run.open(path).done
    return {file.name: file.read_bytes() for file in (path / "evaluation").glob("*.npz")}


def reported(path: Path) -> dict[str, bytes]:
    folder = path.parent
    found = [folder / "report.html", *folder.glob("tables/*"), *folder.glob("figures/*")]
    return {file.name: WHEN.sub(b"", file.read_bytes()) for file in found if not file.name.startswith(".")}


@dataclass(frozen=True)
class Phase:
    """Something that a process does in the directory of a run, and what it leaves there."""

    name: str
    do: Callable[[Path], None]
    left: Callable[[Path], dict[str, bytes]]


TRAINING, MEASURING, REPORTING = (
    Phase("training", do_train, trained),
    Phase("measuring", do_measure, measured),
    Phase("reporting", do_report, reported),
)
PHASES = (TRAINING, MEASURING, REPORTING)


@dataclass(frozen=True)
class Ended:
    """How one trial ended."""

    same: bool
    n_kills: int
    n_mid_write: int
    """kills that left a temporary file, or a row that is not whole"""


def work(do: Callable[[Path], None], path: Path, begun: object, torn: bool) -> None:
    """What the process does that is to be killed."""
    torch.set_num_threads(1)
    begun.set()  # type: ignore[attr-defined]
    if torn:
        torn_writes()
    do(path)


def begin(phase: Phase, path: Path, torn: bool) -> "multiprocessing.process.BaseProcess":
    """The process, as soon as it is at work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    begun = context.Event()
    process = context.Process(target=work, args=(phase.do, path, begun, torn))
    process.start()
    assert begun.wait(60)
    return process


def half_written(path: Path) -> set[str]:
    """What killed processes left behind: temporary files, and metrics whose last row is cut."""
    metrics, left = path / "metrics.jsonl", {str(file) for file in path.parent.rglob(f".*{files._END}")}
    whole = not metrics.exists() or metrics.read_bytes()[-1:] in (b"", b"\n")
    return left if whole else left | {f"{metrics} {metrics.stat().st_size}"}


def wait_for_a_write(process: "multiprocessing.process.BaseProcess", path: Path, before: set[str]) -> None:
    """Until something is half-written, as that takes a thousandth of the time."""
    while process.is_alive() and not half_written(path) - before:
        time.sleep(1e-4)


def trial(
    phase: Phase, start: Path, expected: dict[str, bytes], seconds: float, rng: random.Random, torn: bool
) -> Ended:
    """A copy of ``start``: killed up to `MOST_KILLS` times, each within ``seconds``, then left to end."""
    n_kills = n_mid_write = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(shutil.copytree(start.parent, Path(scratch) / start.parent.name)) / start.name
        for number in range(MOST_KILLS):
            before, process = half_written(path), begin(phase, path, torn)
            process.join(rng.random() * seconds)
            if number % 2 and not torn:
                wait_for_a_write(process, path, before)
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:  # it was done before
                break
            n_kills += 1
            n_mid_write += bool(half_written(path) - before)
        if n_kills == 0:
            return trial(phase, start, expected, seconds, rng, torn)
        last = begin(phase, path, torn)
        last.join(300)
        try:
            same = last.exitcode == 0 and phase.left(path) == expected
        except Exception:  # whatever a reader meets in what the twin left
            if not torn:
                raise
            same = False
        return Ended(same, n_kills, n_mid_write)


def trials(phase: Phase, start: Path, expected: dict[str, bytes], seconds: float, n: int, torn: bool) -> list[Ended]:
    rng = random.Random(f"{phase.name} {torn}")
    return [trial(phase, start, expected, seconds, rng, torn) for _ in range(n)]


def measure(n: int) -> Sequence[Row]:
    """n trials, a third of each phase, and as many of training by the twin."""
    rows, all_ended = [], list[Ended]()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run.create_or_open(Path(scratch) / "before", "trial", "mine", CONFIG)
        keep_data(run, load_data(CONFIG))
        for number, phase in enumerate(PHASES):
            whole = Path(scratch) / phase.name / run.path.name
            shutil.copytree(run.path.parent, whole.parent)
            process = begin(phase, whole, torn=False)
            begun = time.monotonic()
            process.join()
            assert process.exitcode == 0, f"{phase.name} itself fails"
            seconds, expected = time.monotonic() - begun, phase.left(whole)
            assert all(expected.values())
            each = partial(trials, phase, run.path, expected, seconds)
            ended = each(len(range(number, n, len(PHASES))), torn=False)
            all_ended += ended
            rows.append(_row(f"kill -9 while {phase.name}", ended))
            if phase is TRAINING:
                twin = each(max(1, n // len(PHASES)), torn=True)
                found = _row("training with files that are not replaced whole", twin)
                rows.append(replace(found, ok=not found.ok, twin=True))
            shutil.copytree(whole.parent, run.path.parent, dirs_exist_ok=True)
    n_mid = sum(each.n_mid_write for each in all_ended)
    total = _row("all together", all_ended)
    return [*rows, replace(total, ok=total.ok and (n_mid >= 5 or n < KILLS.full))]


def _row(what: str, ended: Sequence[Ended]) -> Row:
    n_kills, n_mid = sum(each.n_kills for each in ended), sum(each.n_mid_write for each in ended)
    same = sum(each.same for each in ended)
    found = f"{share(same, len(ended), 'as if never killed, bit for bit')}; {n_kills} kills, {n_mid} in mid-write"
    return Row(what, found, same == len(ended) and n_kills > 0)


KILLS = Figure(
    "kills",
    "Runs survive kill -9",
    "A process is killed up to three times at random instants, every second time once a write has begun. Then the "
    "same command is given again. Weights, "
    "moments, metrics, arrays, tables, figures and the report are compared bit for bit with those of a process that "
    "nobody killed. At least five kills should hit a write.",
    30,
    measure,
)
