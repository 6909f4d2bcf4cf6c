"""Make one run complete: check before anything is written, train, measure, mark it done.

The task is idempotent: finished, nothing happens; half done, it goes on; absent, it starts.
"""

import contextlib
import dataclasses
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hvae.data import Dataset, card_of, load
from hvae.data.user import is_there, is_user_file, places
from hvae.diagnosis.card import Card
from hvae.errors import ConfigError
from hvae.lab import evaluation
from hvae.lab.assembly import build_hvae, check_batch_size, check_savings
from hvae.lab.config import RunConfig
from hvae.lab.evaluation import Budget, evaluate, missing
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.remarks import remarks
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import train
from hvae.numerics import all_equal


def load_data(config: RunConfig, data_dir: Path | None = None) -> Dataset:
    """The data set of a configuration."""
    wanted = config.data
    return load(wanted.name, n_train=wanted.n_train, n_test=wanted.n_test, seed=wanted.seed, data_dir=data_dir)


def check_device(device: str) -> None:
    """Raise `ConfigError` for one that this machine does not have, or whose checkpoints could not be read again."""
    try:
        held, stored = torch.empty(0, device=device), io.BytesIO()
        if held.is_meta:
            raise AssertionError("it holds no numbers")
        torch.save(held, stored)
        stored.seek(0)
        torch.load(stored, map_location=device, weights_only=True)
    except Exception as error:  # each of torch's devices has its own ways not to be there
        reason = re.split(r"\n|\. |\.$", str(error))[0][:200]
        why = "" if "device type" in reason else f" ({reason})"  # torch lists all that it was ever built for
        raise ConfigError(f"The device {device!r} cannot be used{why}; give another, as cpu or cuda:0.") from None


def check(configs: Iterable[RunConfig], data_dir: Path | None = None, device: str = "cpu") -> list[Dataset]:
    """The data of these runs. Raises `ConfigError`, before anything is written, where they or a model are no good."""
    check_device(device)
    sets: dict[object, Dataset] = {}
    for config in configs:
        if config.data not in sets:
            sets[config.data] = load_data(config, data_dir)
        data = sets[config.data]
        if all_equal(data.test) or all_equal(data.train):
            raise ConfigError(f"All images of {data.name} are equal, so no layer can tell them apart; give other data.")
        check_savings(config.training, build_hvae(config.model, data, seed=config.training.seeds[0]))
        if len(data.test) < 2:
            raise ConfigError(f"{data.name} has {len(data.test)} test images; give at least 2 to measure on.")
        check_batch_size(config.training.batch_size, data)
    return list(sets.values())


def said_before(configs: Sequence[RunConfig], sets: Sequence[Dataset]) -> list[str]:
    """The data cards of the sets that `check` gave for these runs, and what is to be said of the runs, each once."""
    cards = dict(zip(dict.fromkeys(config.data for config in configs), map(card_of, sets), strict=True))
    doubts = (doubt.sentence for config in configs for doubt in remarks(config, [cards[config.data]]))
    return [*map(str, cards.values()), *dict.fromkeys(doubts)]


def complete(
    run: Run,
    *,
    measurements: Mapping[str, Budget] = {},
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: bool = True,
) -> None:
    """Train and evaluate what is missing of the run, mark it done, then make the missing measurements."""
    where: Any = {"device": device, "data_dir": data_dir, "progress": progress}
    _complete(run, **where)
    for word, budget in measurements.items():
        if unmeasured(run, [word], budget):
            with _held(run):
                if unmeasured(run, [word], budget):  # else another process made it while this one looked
                    _measure_further(run, [word], budget, **where)


def settled(run: Run, measurements: Mapping[str, Budget]) -> bool:
    """Whether `complete` has nothing left to do."""
    return run.done and not any(unmeasured(run, [word], budget) for word, budget in measurements.items())


def _complete(run: Run, *, device: str, data_dir: Path | None, progress: bool) -> None:
    if run.done and not is_user_file(run.config.data.name):
        return
    with run.lock():
        data = data_of(run, data_dir)
        if run.done:
            return
        with run.session(device, torch.get_num_threads()), run.mourned():
            train(run, data, device=device, progress=progress)
            evaluate(run, data, device=device, progress=progress)
        run.mark_done()


def measure(
    run: Run,
    *,
    until_se: float | None = None,
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: bool = True,
) -> None:
    """Evaluate the newest checkpoint, again if need be; done only if it is trained to the end."""
    with _held(run) as step:
        data = data_of(run, data_dir)
        run.unmark_done()
        with run.session(device, torch.get_num_threads()):
            evaluate(run, data, until_se=until_se, device=device, progress=progress)
        if step >= run.config.training.n_steps:
            run.mark_done()


def measured_to(run: Run) -> float | None:
    """The standard error that log p(x) was brought to; None where a run of before has the curve alone."""
    arrays = run.load_arrays("likelihood") if run.has_arrays("likelihood") else {}
    return float(arrays["until_se"]) if "until_se" in arrays else None


def unmeasured(run: Run, words: Sequence[str], budget: Budget) -> list[str]:
    """The measurements (`hvae.lab.evaluation.MEASUREMENTS`) that `measure_further` has to make."""
    return missing(run, words, budget, _newest_step(run)) if words else []


def measure_further(
    run: Run,
    words: Sequence[str],
    budget: Budget,
    *,
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: bool = True,
) -> list[str]:
    """Measure more of the newest checkpoint. Returns a sentence for each word that the run refuses."""
    with _held(run):
        return _measure_further(run, words, budget, device=device, data_dir=data_dir, progress=progress)


def _measure_further(
    run: Run, words: Sequence[str], budget: Budget, *, device: str, data_dir: Path | None, progress: bool
) -> list[str]:
    data = data_of(run, data_dir)
    with run.session(device, torch.get_num_threads()):
        return evaluation.measure_further(run, data, words, budget, device=device, progress=progress)


@contextlib.contextmanager
def _held(run: Run) -> Iterator[int]:
    """The step of the newest checkpoint, with the run locked. Raises `ConfigError` where there is none.

    A run that another process is training keeps its lock: arrays are written whole, so measuring does not disturb it.
    """
    step = _newest_step(run)
    if step < 0:
        raise ConfigError(f"{run.path} has no checkpoint; train it first with `hvae train`.")
    with run.lock() if step >= run.config.training.n_steps else contextlib.nullcontext():
        yield step


def _newest_step(run: Run) -> int:
    """The step of the newest checkpoint; -1 where there is none."""
    found = latest_checkpoint(run)
    return -1 if found is None else found[0]


def data_of(run: Run, data_dir: Path | None = None) -> Dataset:
    """The data that the run was started with, wherever their file lies now: the SHA-256 of its numbers decides.

    Raises `ConfigError`, with both ways to say where it is, where no file holds them.
    """
    name, refused = run.config.data.name, None
    known = places(name, data_dir)
    if is_user_file(name) and not any(map(is_there, known)):
        tried = "".join(f", nor {place}" for place in known[1:])
        raise ConfigError(
            f"{known[0]}, the data of {run.path}, is not there{tried}; put it back, or give the folder or the file "
            "that holds it now by --data-dir."
        )
    for place in known:
        try:
            there = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, name=place))
            data = dataclasses.replace(load_data(there, data_dir), name=name)
            keep_data(run, data)
            return data
        except ConfigError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def keep_data(run: Run, data: Dataset, card: Card | None = None) -> None:
    """Pin the data of a run, and keep their card, which may be made already.

    Data that changed under the same name, as a file may, are refused.
    """
    digest = hashlib.sha256()
    for part in (data.train, data.test):
        digest.update(part.contiguous().numpy().data)
    run.keep_data(digest.hexdigest(), lambda: [card_of(data) if card is None else card])
