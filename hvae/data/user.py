"""A user's own file (see `hvae.data.formats`), and optionally :dynamic or :threshold after its name.

The arrays, items first ([N, D], [N, rows, columns], in colour [N, 3, rows, columns] or [N, rows, columns, 3]), are
named in a file of several; capitals do not matter:

    train, x_train, else x, data, images, …, else any name   the items to train on
    test, x_test, …                                          the items to test on; without it, a random tenth
    train_labels, y_train, labels, y, … (test_labels, …)     optional integers [N]

Bytes (uint8) that reach 128 are divided by 255. The values then say the kind: only 0 and 1 is binary, within [0, 1] is
grey, whole numbers from 0 on are counts, anything else is real. Values whose meaning is not known are refused
(`hvae.data.card`), by all of the file; then rows are drawn, and only those are converted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvae.data.card import BYTES_OF_IMAGES, Facts, check_finite, check_scales, check_values, single
from hvae.data.files import home_of
from hvae.data.formats import Items, read, suffix
from hvae.data.images import (
    Array,
    Dataset,
    Kind,
    Purpose,
    above_half,
    as_labels,
    as_rows,
    draw_bits,
    stream,
    subset_rows,
)
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError

WAYS = ("dynamic", "threshold")
N_ROWS = 4096
"""rows that are converted at once"""
TRAIN, TEST = ("train", "x_train"), ("test", "x_test", "test_images", "images_test", "test_data", "data_test", "test_x")
OTHER_TRAIN = ("train_images", "images_train", "train_data", "data_train", "train_x", "x", "data", "images")
"""names that more than one array of a file may bear; then none is taken"""
TRAIN_LABELS = ("train_labels", "y_train", "labels", "y", "label", "target", "targets", "class", "train_y")
TEST_LABELS = ("test_labels", "y_test", "test_y")


def is_user_file(name: str) -> bool:
    """Whether the name is the path of a file, with or without a binarisation, that is read or refused with how."""
    return suffix(name) != "" or suffix(name.rpartition(":")[0]) != ""


def _split(name: str) -> tuple[str, str]:
    """The path, and how it is binarised."""
    if suffix(name) or ":" not in name:
        return name, ""
    path, _, way = name.rpartition(":")
    return path, way


def places(name: str, data_dir: Path | None) -> tuple[str, ...]:
    """The names by which a user's file may be found: as it was given, then in `data_dir`, or there under another name.

    >>> places("old/my.npz:threshold", Path("new"))
    ('old/my.npz:threshold', 'new/my.npz:threshold')
    """
    if data_dir is None or not is_user_file(name):
        return (name,)
    path, way = _split(name)
    elsewhere = data_dir if data_dir.is_file() else data_dir / Path(path).name
    return (name, f"{elsewhere}:{way}" if way else str(elsewhere))


def is_there(name: str) -> bool:
    """Whether there is such a file."""
    return home_of(Path(_split(name)[0])).exists()


def load_user_file(name: str, *, n_train: int, n_test: int, seed: int) -> Dataset:
    """The values of a user's file.

    Raises `ConfigError` for whatever is not a finite numeric array of at least two items with a known meaning.
    """
    path, way = _split(name)
    if path != name and way not in WAYS:
        raise ConfigError(f"{name} ends in :{way}; append :dynamic or :threshold, or nothing.")
    contents = read(home_of(Path(path)))
    parts = _parts(contents.arrays, path)
    facts = Facts.of(parts.train)
    check_finite(path, "training", facts, contents.columns)
    if parts.test is None:
        its_facts = facts
    else:
        its_facts = Facts.of(parts.test)
        check_finite(path, "test", its_facts, contents.columns)
    low, high = min(facts.low, its_facts.low), max(facts.high, its_facts.high)
    check_values(path, facts, its_facts, binarised=way != "")
    if parts.test is not None:
        check_scales(path, (parts.train, facts), (parts.test, its_facts))
    scale = np.float32(255 if facts.bytes_ and high >= BYTES_OF_IMAGES else 1)
    low, high = low / float(scale), high / float(scale)
    within = low >= 0 and high <= 1
    if way and not within:
        raise ConfigError(
            f"{name} asks to binarise values between {low:g} and {high:g}; scale them to [0, 1] first "
            "(or store bytes as uint8)."
        )
    rows = _draw_rows(parts, name, n_train=n_train, n_test=n_test, seed=seed)
    test_items = parts.train if parts.test is None else parts.test
    train, test = _converted(parts.train, rows.train, scale), _converted(test_items, rows.test, scale)
    zero_one = {*facts.distinct, *its_facts.distinct} <= {0.0, float(scale)}
    whole = scale == 1 and facts.whole and its_facts.whole
    kind: Kind = "binary" if way or zero_one else "grey" if within else "counts" if whole else "real"
    if way == "threshold":
        train, test = above_half(train), above_half(test)
    elif way == "dynamic":
        test = draw_bits(test, seed, rows.n_test, rows.test_drawn)
    return Dataset(
        name=name,
        train=as_rows(train, None),
        test=as_rows(test, None),
        image_shape=_image_shape(parts.train.shape[1:]),
        kind=kind,
        dynamic=way == "dynamic",
        train_labels=as_labels(parts.train_labels, rows.train),
        test_labels=as_labels(parts.train_labels if parts.test is None else parts.test_labels, rows.test),
        notes=(*_done(parts, rows, way, bytes_=bool(scale > 1)), *contents.notes, *parts.notes),
        columns=contents.columns,
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    train: Items
    test: Items | None
    train_labels: Array | None
    test_labels: Array | None
    notes: tuple[str, ...]


def _parts(arrays: Mapping[str, Items], path: str) -> _Parts:
    """The arrays of a file by what they are for."""
    train_key, test_key = _train_key(arrays, path), _key(arrays, TEST)
    train, test = arrays[train_key], None if test_key is None else arrays[test_key]
    notes: list[str] = []
    _check_items(train, f"the training array of {path}")
    label_key = _key(arrays, TRAIN_LABELS, but=train_key)
    labels = _labels(arrays, label_key, train, f"the training array of {path}", notes)
    _check_axes(train.shape[1:], f"the training array of {path}")
    if len(train) < 2:
        raise ConfigError(f"the training array of {path} holds {len(train)} item; give at least 2.")
    test_labels, test_label_key = None, None
    if test is not None:
        _check_items(test, f"the test array of {path}")
        test_label_key = _key(arrays, TEST_LABELS)
        test_labels = _labels(arrays, test_label_key, test, f"the test array of {path}", notes)
        if test.shape[1:] != train.shape[1:]:
            raise ConfigError(
                f"{path} trains on items of shape {train.shape[1:]} and tests on {test.shape[1:]}; make them equal."
            )
    unused = sorted({*arrays} - {train_key, test_key, label_key, test_label_key})
    if unused:
        verb = "is" if len(unused) == 1 else "are"
        notes.append(f"Of its arrays {', '.join(unused)} {verb} not used.")
    return _Parts(train, test, labels, test_labels, tuple(notes))


def _train_key(arrays: Mapping[str, Items], path: str) -> str:
    found = _key(arrays, TRAIN)
    if found is not None:
        return found
    known = (*TEST, *TRAIN_LABELS, *TEST_LABELS)
    others = [key for key in arrays if key.lower() not in known]
    if not others and len(arrays) == 1 and _key(arrays, TEST) is None:
        return next(iter(arrays))
    if len(others) > 1:
        tables = [key for key in others if arrays[key].ndim > 1 and 1 not in arrays[key].shape[:2]]
        named = [key for key in others if key.lower() in OTHER_TRAIN]
        others = named or tables
    if len(others) != 1:
        raise ConfigError(f"{path} holds the arrays {sorted(arrays)}; name one train, and optionally one test.")
    return others[0]


def _key(arrays: Mapping[str, Items], names: tuple[str, ...], but: str = "") -> str | None:
    """The name of the array that bears the first of these names; as it is written, or else in other letters."""
    for name in names:
        if name in arrays and name != but:
            return name
    alike = {key.lower(): key for key in arrays if key != but}
    return next((alike[name] for name in names if name in alike), None)


def _check_items(items: Items, what: str) -> None:
    if items.ndim < 2:
        raise ConfigError(f"{what} has shape {items.shape}; give items first, [N, D] or [N, rows, columns].")
    if items.size == 0:
        raise ConfigError(f"{what} has shape {items.shape} and is empty; give at least 2 items of at least 1 number.")
    if items.dtype.kind not in "buif":
        raise ConfigError(f"{what} has dtype {items.dtype}; give real numbers, bytes or truth values.")


def _labels(arrays: Mapping[str, Items], key: str | None, items: Items, what: str, notes: list[str]) -> Array | None:
    """Labels [N]; a note and None where they are of another kind, as floats or one of C."""
    labels = None if key is None else arrays[key]
    if not isinstance(labels, np.ndarray):
        return None
    if labels.ndim == 2 and 1 in labels.shape:  # so MATLAB holds vectors
        labels = labels.reshape(-1)
    if labels.shape[:1] != items.shape[:1]:
        last = "; items seem to stand last, so move them with np.moveaxis(x, -1, 0)"
        hint = last if labels.shape[:1] == items.shape[-1:] else f"; give {len(items)} integers, one per item"
        raise ConfigError(f"the labels of {what} have shape {labels.shape} and the items {items.shape}{hint}.")
    if labels.ndim != 1 or labels.dtype.kind not in "bui":
        notes.append(f"The labels {key} are left out, as they are no integers [N].")
        return None
    return labels


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of the arrays of a file, in the order of the data set; None for all."""

    train: NDArray[np.int64] | None
    test: NDArray[np.int64] | None
    n_train: int
    """training items before some are drawn"""
    train_drawn: NDArray[np.int64] | None
    """which of these"""
    n_test: int
    test_drawn: NDArray[np.int64] | None


def _draw_rows(parts: _Parts, name: str, *, n_train: int, n_test: int, seed: int) -> _Rows:
    """The rows that are used: `subset_rows` of the two arrays, or of the two parts that one is split into."""
    order: tuple[NDArray[np.int64] | None, NDArray[np.int64] | None] = (None, None)
    n = len(parts.train)
    if parts.test is None:
        held_out = max(1, n // 10)
        shuffled = stream(seed, Purpose.SPLIT).permutation(n)
        order, n_there = (shuffled[held_out:], shuffled[:held_out]), (n - held_out, held_out)
    else:
        n_there = (n, len(parts.test))
    drawn = [
        subset_rows(wanted, there, seed=seed, purpose=purpose, what=f"data.{knob} of {name}")
        for wanted, there, purpose, knob in (
            (n_train, n_there[0], Purpose.TRAIN_SUBSET, "n_train"),
            (n_test, n_there[1], Purpose.TEST_SUBSET, "n_test"),
        )
    ]
    train, test = (
        within if of is None else of if within is None else of[within] for of, within in zip(order, drawn, strict=True)
    )
    return _Rows(train, test, n_there[0], drawn[0], n_there[1], drawn[1])


def _done(parts: _Parts, rows: _Rows, way: str, *, bytes_: bool) -> list[str]:
    """What was done to the numbers, in sentences."""
    done = ["Bytes are divided by 255."] if bytes_ else []
    if way == "threshold":
        done.append("Values above one half are 1, the others 0.")
    elif way == "dynamic":
        done.append("Test items are drawn once from their values.")
    item = _image_shape(parts.train.shape[1:])
    if len(item) == 3:
        done.append(f"Colours and pixels of an item stand in one row of {int(np.prod(item))} numbers.")
    if parts.test is None:
        done.append(f"A random tenth, {rows.n_test} of {len(parts.train)} items, is held out for testing.")
    parts_drawn = (("training", rows.n_train, rows.train_drawn), ("test", rows.n_test, rows.test_drawn))
    for part, there, drawn in parts_drawn:
        if drawn is not None and len(drawn) < there:
            done.append(f"{len(drawn)} of {there} {part} items are drawn at random.")
    return done


def _converted(items: Items, rows: NDArray[np.int64] | None, scale: np.float32) -> Array:
    """The chosen items [n, ...] in float32, divided by the scale, some rows at once."""
    n = len(items) if rows is None else len(rows)
    found = np.empty((n, *items.shape[1:]), dtype=np.float32)
    for start in range(0, n, N_ROWS):
        part = slice(start, start + N_ROWS)
        found[part] = single(np.asarray(items[part if rows is None else rows[part]])) / scale
    return found


def _without_one_channel(item: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an item without an axis for one channel."""
    if len(item) == 3 and 1 in (item[0], item[2]):
        return item[1:] if item[0] == 1 else item[:2]
    return item


def _check_axes(item: tuple[int, ...], what: str) -> None:
    """Refuse axes that no net reads: pictures with transparency, films, volumes."""
    item = _without_one_channel(item)
    if len(item) < 2 or Pixels.of(item) is not None:
        return
    rows = "rows of numbers, x.reshape(len(x), -1)"
    opaque = {2: "grey pictures, without transparency", 4: "colours without transparency"}
    if len(item) == 3 and item[2] in opaque:
        rows = f"{opaque[item[2]]}, x[..., :{item[2] - 1}], or {rows}"
    elif len(item) == 3 and item[0] in opaque:
        rows = f"{opaque[item[0]]}, x[:, :{item[0] - 1}], or {rows}"
    raise ConfigError(f"{what} has items of shape {item}, axes that no net reads (items stand first); give {rows}.")


def _image_shape(item: tuple[int, ...]) -> tuple[int, ...]:
    """That of an image (see `Pixels`), without an axis for one channel; else (D,)."""
    item = _without_one_channel(item)
    return item if len(item) > 1 else (int(np.prod(item)),)
