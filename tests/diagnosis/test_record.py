"""Records of arrays: one replica and many, to flat arrays and back, and what is missing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hvae.diagnosis.layer import read_layer
from hvae.diagnosis.record import Array, Arrays, Texts, flags, flat, joined, numbers, of_one, parts, read, shared, texts
from hvae.vocabulary import FAILED, TO_ANOTHER


@dataclass(frozen=True, eq=False)
class Part:
    value: Array = numbers(3, key="part_value")
    sure: Array = flags("part_sure")


@dataclass(frozen=True, eq=False)
class Whole:
    value: Array = numbers(3)
    counts: Array = numbers()
    word: Array = numbers()
    note: Texts = texts()
    of_layers: Arrays = numbers(3, layers=True)
    pieces: Any = parts(Part)
    grid: Array = shared()
    extra: Array | None = numbers()


def whole(value: float, *, extra: float | None = None, more: bool = False) -> Whole:
    interval = np.full(3, value)
    layers = {"z1": interval} | ({"z2": 2 * interval} if more else {})
    return of_one(
        Whole, value=interval, counts=int(value), word="word", note="said", of_layers=layers,
        pieces={"z1": of_one(Part, value=interval, sure=True)}, grid=np.arange(4), extra=extra,
    )  # fmt: skip


def test_replicas_stand_side_by_side_with_nothing_for_those_that_are_missing() -> None:
    found = joined([None, whole(1.0, more=True), whole(2.0, extra=5.0)])
    np.testing.assert_array_equal(found.value[:, 0], [np.nan, 1, 2])
    assert found.counts.tolist() == [-1, 1, 2] and found.word.tolist() == [FAILED, "word", "word"]
    assert found.note == ("", "said", "said") and found.grid.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.of_layers["z2"][:, 1], [np.nan, 2, np.nan])
    assert found.pieces["z1"].sure.tolist() == [False, True, True]
    np.testing.assert_array_equal(found.extra, [np.nan, np.nan, 5])


def test_where_none_is_there_another_shows_the_shapes() -> None:
    found = joined([None, None], whole(1.0))
    assert found.value.shape == (2, 3) and np.isnan(found.value).all() and found.extra is None
    assert found.pieces["z1"].value.shape == (2, 3) and found.note == ("", "")
    with pytest.raises(ValueError, match="None of the replicas was measured"):
        joined([None, None])


def test_flat_arrays_and_back() -> None:
    one = joined([whole(1.0, extra=2.0), None])
    arrays = flat(one, [True, False])
    assert set(arrays) == {
        "value", "counts", "word", "note", "of_layers/z1", "part_value/z1", "part_sure/z1", "grid", "extra"
    }  # fmt: skip
    assert arrays["note"].tolist() == ["said", FAILED]
    again = flat(read(Whole, arrays, 2, ["z1"]), [True, False])
    assert arrays.keys() == again.keys()
    for key, values in arrays.items():
        np.testing.assert_array_equal(again[key], values, err_msg=key)


def test_what_a_file_lacks_has_its_shape() -> None:
    found = read(Whole, {}, 2, ["z1"])
    assert found.value.shape == (2, 3) and np.isnan(found.value).all() and found.note == ("", "")
    assert found.pieces["z1"].sure.tolist() == [False, False] and found.grid is None


def test_words_of_older_files_are_read_as_they_are_said_now() -> None:
    stored = np.array([["collapsed to another law", "active", "undecided"]])
    layer = read_layer({"verdict/z1": stored}, "z1", 2, np.array([True]), 3)
    assert layer.verdict.tolist() == [[TO_ANOTHER, "active", "undecided"]]
