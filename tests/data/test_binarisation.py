"""Grey, dynamic and threshold; splits and subsets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hvae.data import load
from hvae.data.images import Split, dynamic
from hvae.errors import ConfigError


def test_grey_values_and_labels(tiny_store: Path, tiny_arrays: list[np.ndarray]) -> None:
    data = load("tiny-grey", data_dir=tiny_store)
    for rows, labels, values, classes in (
        (data.train, data.train_labels, tiny_arrays[0], tiny_arrays[1]),
        (data.test, data.test_labels, tiny_arrays[2], tiny_arrays[3]),
    ):
        assert rows.dtype == torch.float32
        assert torch.equal(rows, torch.from_numpy((values.reshape(-1, 12) / 255).astype(np.float32)))
        assert labels is not None and np.array_equal(labels.numpy(), classes)
    assert (data.image_shape, data.kind, data.dynamic) == ((3, 4), "grey", False)


def test_threshold(tiny_store: Path, tiny_arrays: list[np.ndarray]) -> None:
    data = load("tiny-threshold", data_dir=tiny_store)
    assert np.array_equal(data.train.numpy(), tiny_arrays[0].reshape(-1, 12) >= 128)
    assert np.array_equal(data.test.numpy(), tiny_arrays[2].reshape(-1, 12) >= 128)
    assert (data.kind, data.dynamic) == ("binary", False)


def test_dynamic_keeps_train_grey_and_draws_test_once(tiny_store: Path) -> None:
    grey, data = load("tiny-grey", data_dir=tiny_store), load("tiny-dynamic", data_dir=tiny_store)
    assert torch.equal(data.train, grey.train)
    assert (data.kind, data.dynamic) == ("binary", True)
    assert set(data.test.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(data.test, load("tiny-threshold", data_dir=tiny_store).test)
    assert torch.equal(data.test, load("tiny-dynamic", data_dir=tiny_store).test)
    assert not torch.equal(data.test, load("tiny-dynamic", seed=1, data_dir=tiny_store).test)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dynamic_draws_with_the_grey_value(p: float) -> None:
    """The frequency of 1 is p. False alarms 1e-6; an error of 0.01 is missed with probability 1e-6 at most."""
    n, alarm, miss, smallest = 500_000, 1e-6, 1e-6, 0.01
    values = np.full((1, n), p, np.float32)
    frequency = dynamic(Split(values, values), 3).test.mean(dtype=np.float64)
    scale = np.sqrt(p * (1 - p) / n)
    assert (norm.isf(alarm / 2) + norm.isf(miss)) * 0.5 / np.sqrt(n) < smallest
    assert abs(frequency - p) <= norm.isf(alarm / 2) * scale


def test_a_subset_has_the_bits_of_the_whole(tiny_store: Path) -> None:
    whole = {tuple(row) for row in load("tiny-dynamic", data_dir=tiny_store).test.tolist()}
    part = load("tiny-dynamic", n_test=10, data_dir=tiny_store).test.tolist()
    assert all(tuple(row) in whole for row in part)


def test_subsets_are_random_and_reproducible(tiny_store: Path) -> None:
    grey = load("tiny-grey", data_dir=tiny_store)
    one = load("tiny-grey", n_train=20, n_test=20, data_dir=tiny_store)
    again = load("tiny-grey", n_train=20, n_test=20, data_dir=tiny_store)
    other = load("tiny-grey", n_train=20, n_test=20, seed=1, data_dir=tiny_store)
    for part in ("train", "test"):
        whole, rows = getattr(grey, part), getattr(one, part)
        assert torch.equal(rows, getattr(again, part))
        assert not torch.equal(rows, getattr(other, part))
        assert not torch.equal(rows, whole[:20])
        places = [int((whole == row).all(dim=1).nonzero()) for row in rows]
        assert len(set(places)) == 20
        labels = getattr(one, f"{part}_labels")
        assert torch.equal(labels, getattr(grey, f"{part}_labels")[places])
    assert one.test_labels is not None and set(one.test_labels.tolist()) == {0, 1, 2, 3}, "first n of a sorted file"
    assert torch.equal(load("tiny-grey", n_train=10, data_dir=tiny_store).train, one.train[:10])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"n_train": 61}, "data.n_train of tiny-grey is 61, but there are 60"),
        ({"n_test": 41}, "data.n_test of tiny-grey is 41, but there are 40"),
        ({"n_test": -1}, "data.n_test is -1"),
        ({"seed": -1}, "data.seed is -1"),
    ],
)
def test_subsets_that_cannot_be(tiny_store: Path, knobs: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("tiny-grey", data_dir=tiny_store, **knobs)


def test_digits_is_the_same_split_for_ever() -> None:
    """The split is part of the name, whatever the seed; these labels would change with it."""
    data, other = load("digits-grey"), load("digits-grey", seed=7)
    assert (data.train.shape, data.test.shape, data.image_shape) == ((1297, 64), (500, 64), (8, 8))
    assert torch.equal(data.train, other.train) and torch.equal(data.test, other.test)
    assert data.train.min() == 0 and data.train.max() == 1 and (data.train * 16 % 1 == 0).all()
    assert data.test_labels is not None and data.test_labels[:12].tolist() == DIGITS_FIRST_TEST_LABELS
    binary = load("digits-threshold")
    assert torch.equal(binary.train, (data.train * 16 > 8).float())


DIGITS_FIRST_TEST_LABELS = [7, 9, 7, 3, 9, 8, 2, 7, 7, 8, 7, 1]
