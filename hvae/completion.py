"""Make one run complete: check before anything is written, train, measure, mark it done.

The task is idempotent: finished, nothing happens; half done, it goes on; absent, it starts.
"""

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch

from hvae.build import build_hvae, check_batch_size
from hvae.checkpoints import latest_checkpoint
from hvae.config import ConfigError, RunConfig
from hvae.data import Dataset, load
from hvae.data.user import is_user_file
from hvae.evaluation import evaluate
from hvae.runs import Run, write_atomically
from hvae.training import train


def load_data(config: RunConfig, data_dir: Path | None = None) -> Dataset:
    """The data set of a configuration."""
    wanted = config.data
    return load(wanted.name, n_train=wanted.n_train, n_test=wanted.n_test, seed=wanted.seed, data_dir=data_dir)


def check(configs: Iterable[RunConfig], data_dir: Path | None = None, device: str = "cpu") -> None:
    """Raise `ConfigError` for data that are missing or models that do not fit them, before anything is written."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigError(f"The device {device!r} cannot be used ({reason}); give another, such as cpu.") from None
    sets: dict[object, Dataset] = {}
    for config in configs:
        if config.data not in sets:
            sets[config.data] = load_data(config, data_dir)
        data = sets[config.data]
        build_hvae(config.model, data, seed=config.training.seeds[0])
        if len(data.test) < 2:
            raise ConfigError(f"{data.name} has {len(data.test)} test images; give at least 2 to measure on.")
        check_batch_size(config.training.batch_size, data)


def complete(run: Run, *, device: str = "cpu", data_dir: Path | None = None, progress: bool = True) -> None:
    """Train and evaluate what is missing of the run, then mark it done."""
    if run.done and not is_user_file(run.config.data.name):
        return
    with run.lock():
        data = load_data(run.config, data_dir)
        _pin_data(run, data)
        if run.done:
            return
        run.write_provenance(device, torch.get_num_threads())
        train(run, data, device=device, progress=progress)
        evaluate(run, data, device=device, progress=progress)
        run.mark_done()


def measure(run: Run, *, device: str = "cpu", data_dir: Path | None = None, progress: bool = True) -> None:
    """Evaluate the newest checkpoint, again if need be; done only if it is trained to the end.

    A run that another process is training keeps its lock: arrays are written whole, so measuring does not disturb it.
    """
    found = latest_checkpoint(run)
    finished = found is not None and found[0] >= run.config.training.n_steps
    with run.lock() if finished else contextlib.nullcontext():
        data = load_data(run.config, data_dir)
        _pin_data(run, data)
        run.unmark_done()
        run.write_provenance(device, torch.get_num_threads())
        evaluate(run, data, device=device, progress=progress)
        if finished:
            run.mark_done()


def _pin_data(run: Run, data: Dataset) -> None:
    """Refuse a run whose data changed under their name, as a user's file may."""
    digest = hashlib.sha256()
    for part in (data.train, data.test):
        digest.update(part.contiguous().numpy().data)
    pin, found = run.path / "data.sha256", digest.hexdigest()
    if not pin.exists():
        write_atomically(pin, f"{found}\n".encode())
    elif pin.read_text(encoding="ascii").strip() != found:
        raise ConfigError(
            f"The data of {data.name} changed since the run {run.path} was started; restore them or delete the run."
        )
