"""A user's own data: a .npy or .npz file, and optionally :dynamic or :threshold after its name.

The arrays, items first ([N, D] or [N, rows, columns]), are named in a .npz

    train or x_train, or any name if there is only one      the items to train on
    test or x_test                                           the items to test on; without it, a random tenth
    train_labels, y_train, labels or y (test_labels, y_test)  optional integers [N]

Bytes (uint8) are divided by 255, unless there are only 0 and 1 among them. The values then say the
kind: only 0 and 1 is binary, within [0, 1] is grey, anything else is real.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvae.data.images import BINARISATIONS, Array, Present, Purpose, Split, binary, grey, real, split_at_random, stream
from hvae.errors import ConfigError

SUFFIXES = (".npy", ".npz")
WAYS = ("dynamic", "threshold")
MAX_BYTES = 16 * 2**30
TRAIN, TEST = ("train", "x_train"), ("test", "x_test")
TRAIN_LABELS, TEST_LABELS = ("train_labels", "y_train", "labels", "y"), ("test_labels", "y_test")


def is_user_file(name: str) -> bool:
    """Whether the name is the path of a .npy or .npz file, with or without a binarisation."""
    return name.endswith(SUFFIXES) or name.rpartition(":")[0].endswith(SUFFIXES)


def read_user_file(name: str, *, seed: int) -> tuple[Split, tuple[int, ...], Present]:
    """The values of a user's file, the shape of an item, and how it is presented.

    Raises `ConfigError` for whatever is not a finite numeric array of at least two items.
    """
    path, way = (name, "") if name.endswith(SUFFIXES) else name.rpartition(":")[::2]
    if path != name and way not in WAYS:
        raise ConfigError(f"{name} ends in :{way}; append :dynamic or :threshold, or nothing.")
    arrays = _read_arrays(Path(path).expanduser())
    split = _numbers(_split(arrays, path, seed), path)
    values = (split.train, split.test)
    within = all(v.min() >= 0 and v.max() <= 1 for v in values)
    if way:
        if not within:
            low, high = min(v.min() for v in values), max(v.max() for v in values)
            raise ConfigError(
                f"{name} asks to binarise values between {low:g} and {high:g}; scale them to [0, 1] first "
                "(or store bytes as uint8)."
            )
        present = BINARISATIONS[way]
    elif all(np.isin(v, (0, 1)).all() for v in values):
        present = binary
    else:
        present = grey if within else real
    return split, _image_shape(split.train.shape[1:]), present


def _read_arrays(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise ConfigError(f"{path} is not there; give a .npy or .npz file, or a name from `hvae data list`.")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        if zipped:
            with zipfile.ZipFile(path) as archive:
                n_bytes = sum(member.file_size for member in archive.infolist())
            if n_bytes > MAX_BYTES:
                raise ConfigError(
                    f"{path} unpacks to {n_bytes / 2**30:.1f} GiB; give at most {MAX_BYTES // 2**30} GiB, "
                    "a random part of it for example."
                )
            with np.load(path, allow_pickle=False) as archived:
                members = {key: archived[key] for key in archived.files}
            # a member that is no array comes as bytes
            return {key: array for key, array in members.items() if isinstance(array, np.ndarray)}
        # memory-mapping compares the size of the file with its header before anything is allocated
        return {"train": np.load(path, allow_pickle=False, mmap_mode="r")}
    except ConfigError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        if "pickle" in reason:  # numpy's sentence recommends to load it all the same
            reason = "it holds Python objects, or is no numpy file"
        raise ConfigError(
            f"{path} cannot be read as numeric arrays, being truncated, damaged or of another kind ({reason}); "
            "write it again with np.savez(path, train=x)."
        ) from None


def _split(arrays: Mapping[str, Array], path: str, seed: int) -> Split:
    train, test = _named(arrays, TRAIN), _named(arrays, TEST)
    labels, test_labels = _named(arrays, TRAIN_LABELS), _named(arrays, TEST_LABELS)
    if train is None:
        others = [key for key in arrays if key not in (*TEST, *TRAIN_LABELS, *TEST_LABELS)]
        if len(others) != 1:
            raise ConfigError(f"{path} holds the arrays {sorted(arrays)}; name one train, and optionally one test.")
        train = arrays[others[0]]
    _check_items(train, labels, f"the training array of {path}")
    if len(train) < 2:
        raise ConfigError(f"the training array of {path} holds {len(train)} item; give at least 2.")
    if test is not None:
        _check_items(test, test_labels, f"the test array of {path}")
        if test.shape[1:] != train.shape[1:]:
            raise ConfigError(
                f"{path} trains on items of shape {train.shape[1:]} and tests on {test.shape[1:]}; make them equal."
            )
        return Split(train, test, labels, test_labels)
    n_test = max(1, len(train) // 10)
    return split_at_random(train, labels, n_test=n_test, generator=stream(seed, Purpose.SPLIT))


def _named(arrays: Mapping[str, Array], keys: tuple[str, ...]) -> Array | None:
    return next((arrays[key] for key in keys if key in arrays), None)


def _check_items(items: Array, labels: Array | None, what: str) -> None:
    if items.ndim < 2:
        raise ConfigError(f"{what} has shape {items.shape}; give items first, [N, D] or [N, rows, columns].")
    if items.size == 0:
        raise ConfigError(f"{what} has shape {items.shape} and is empty; give at least 2 items of at least 1 number.")
    if items.dtype.kind not in "buif":
        raise ConfigError(f"{what} has dtype {items.dtype}; give real numbers, bytes or truth values.")
    if labels is not None and (labels.shape != items.shape[:1] or labels.dtype.kind not in "bui"):
        raise ConfigError(
            f"the labels of {what} have shape {labels.shape} and dtype {labels.dtype}; "
            f"give {len(items)} integers, one per item."
        )


def _numbers(split: Split, path: str) -> Split:
    """Both parts in float32, bytes divided by 255, every number finite."""
    both = (split.train, split.test)
    bytes_ = [v.dtype == np.uint8 for v in both]
    if any(bytes_) and not all(bytes_):
        raise ConfigError(
            f"{path} trains on {split.train.dtype} and tests on {split.test.dtype}; bytes are divided by 255 and "
            "other numbers are not, so make both the same."
        )
    scale = np.float32(255 if all(bytes_) and max(v.max() for v in both) > 1 else 1)
    with np.errstate(over="ignore"):
        train, test = (v.astype(np.float32) / scale for v in both)
    for values in (train, test):
        if not np.isfinite(values).all():
            n_bad = int((~np.isfinite(values)).sum())
            raise ConfigError(f"{path} holds {n_bad} values that are not finite in float32; remove or replace them.")
    return Split(train, test, split.train_labels, split.test_labels)


def _image_shape(item: tuple[int, ...]) -> tuple[int, ...]:
    """(rows, columns) of an image, with or without an axis for its one channel; else (D,)."""
    if len(item) == 3 and 1 in (item[0], item[2]):
        item = item[1:] if item[0] == 1 else item[:2]
    return item if len(item) == 2 else (int(np.prod(item)),)
