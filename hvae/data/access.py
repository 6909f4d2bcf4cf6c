"""The verbs of the data room: load a data set, list, get and verify files. They return records and print nothing."""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

from hvae.data.files import State, data_folder, fetch, require, state
from hvae.data.images import Dataset, Purpose, as_labels, as_rows, subset_rows
from hvae.data.names import CATALOGUE, Entry, files_of
from hvae.data.user import is_there, is_user_file, load_user_file, places
from hvae.errors import ConfigError


@dataclass(frozen=True)
class Record:
    """One line of `hvae data list`.

    >>> next((record.shape, record.n_train) for record in catalogue(Path("none")) if record.name == "digits-grey")
    ((8, 8), 1297)
    """

    name: str
    description: str
    shape: tuple[int, ...]
    n_train: int
    n_test: int
    status: State


def load(name: str, *, n_train: int = 0, n_test: int = 0, seed: int = 0, data_dir: Path | None = None) -> Dataset:
    """A named data set, or a user's own file (see `hvae.data.user`), as tensors.

    `n_train` and `n_test` items are drawn at random with `seed`; 0 takes all. The seed also draws the
    test images of dynamic sets and the test part of a file without one. A user's file that is not where
    its name says is looked for in `data_dir`, which may be the file itself. Files are checked against
    their SHA-256. Raises `ConfigError` for an unknown name, a missing, truncated or altered file.

    >>> data = load("synthetic-binary-2", n_train=100)
    >>> data.train.shape, data.test.shape, data.kind
    (torch.Size([100, 16]), torch.Size([1000, 16]), 'binary')
    """
    for knob, value in (("n_train", n_train), ("n_test", n_test), ("seed", seed)):
        if value < 0:
            raise ConfigError(f"data.{knob} is {value}; give 0 or more.")
    if name not in CATALOGUE and (is_user_file(name) or (name and Path(name).is_dir())):
        lies = next(filter(is_there, places(name, data_dir)), name)
        return dataclasses.replace(load_user_file(lies, n_train=n_train, n_test=n_test, seed=seed), name=name)
    entry = _entry(name)
    split = entry.read([require(file, data_folder(data_dir), name=name) for file in entry.files])
    shown = entry.present(split, seed)
    train_rows, test_rows = (
        subset_rows(n, len(items), seed=seed, purpose=purpose, what=f"data.{knob} of {name}")
        for n, items, purpose, knob in (
            (n_train, shown.train, Purpose.TRAIN_SUBSET, "n_train"),
            (n_test, shown.test, Purpose.TEST_SUBSET, "n_test"),
        )
    )
    return Dataset(
        name=name,
        train=as_rows(shown.train, train_rows),
        test=as_rows(shown.test, test_rows),
        image_shape=entry.image_shape,
        kind=shown.kind,
        dynamic=shown.dynamic,
        train_labels=as_labels(split.train_labels, train_rows),
        test_labels=as_labels(split.test_labels, test_rows),
        notes=entry.notes,
    )


def catalogue(data_dir: Path | None = None) -> list[Record]:
    """Every name, with the state of its files: the worst of them, damaged before missing."""
    states = dict(zip(files_of(CATALOGUE), (found for _, found in verify(data_dir)), strict=True))
    records = []
    for name, entry in CATALOGUE.items():
        found = {states[file] for file in entry.files}
        status: State = "damaged" if "damaged" in found else "missing" if "missing" in found else "present"
        records.append(Record(name, entry.description, entry.image_shape, entry.n_train, entry.n_test, status))
    return records


def get(name: str, data_dir: Path | None = None, *, progress: bool = False) -> list[Path]:
    """Downloads the files of a name that are missing or damaged; returns the paths of them all.

    Raises `ConfigError` when one cannot be had; then nothing of it is left behind.
    """
    folder = data_folder(data_dir)
    return [fetch(file, folder, progress=progress) for file in _entry(name).files]


def verify(data_dir: Path | None = None) -> list[tuple[Path, State]]:
    """Compares every file of the catalogue with its SHA-256."""
    folder = data_folder(data_dir)
    return [(folder / file.path, state(file, folder)) for file in files_of(CATALOGUE)]


def _entry(name: str) -> Entry:
    if name in CATALOGUE:
        return CATALOGUE[name]
    alike = [known for known in CATALOGUE if name and known.startswith(name)]
    alike = alike or difflib.get_close_matches(name, CATALOGUE, n=3)
    hint = (
        f"perhaps {' or '.join(alike)} is meant"
        if alike
        else "see `hvae data list`, or give a file (.npz, .npy, .csv, .mat)"
    )
    raise ConfigError(f"{name!r} is not the name of a data set; {hint}.")
