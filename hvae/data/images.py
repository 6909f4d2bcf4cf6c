"""From the numbers in a file to the data of a model: splits, binarisation, random subsets.

A data set's name fixes its binarisation. Of a grey value p in [0, 1]:

    grey        x = p
    threshold   x = 1 if p > 1/2 else 0
    dynamic     x ~ Bernoulli(p): at every presentation of a training image (Salakhutdinov and
                Murray 2008; Burda et al. 2016), but only once for a test image

Whatever is drawn here is a function of (seed, purpose), so equal seeds are equal data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvae import rng
from hvae.errors import ConfigError

Array = NDArray[Any]
Kind = Literal["binary", "grey", "real", "counts"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named data, ready for a model: float32 rows, images in [0, 1].

    >>> grey = torch.tensor([[0.2, 0.8]])
    >>> Dataset("toy", train=grey, test=grey.round(), image_shape=(1, 2), kind="binary", dynamic=True).test.tolist()
    [[0.0, 1.0]]
    """

    name: str
    train: Tensor
    """[N, D]"""
    test: Tensor
    """[N', D]"""
    image_shape: tuple[int, ...]
    """as `hvae.diagnosis.pixels.Pixels.of` reads it, or (D,) when an item is not an image"""
    kind: Kind
    """the values of a presented x"""
    dynamic: bool
    """`train` holds grey values, and every presentation draws 0/1 from them; `test` is drawn already"""
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    notes: tuple[str, ...] = ()
    """what was done to the numbers of a file, and what was left out, in sentences"""
    columns: tuple[str, ...] = ()
    """names of the columns of a table"""

    def test_order(self, seed: int) -> Tensor:
        """Places ``[N']`` of the test items in the random order that all measurements of a run share."""
        return rng.permutation(len(self.test), seed=seed, purpose="evaluation")


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test items [N, ...] as a file holds them, with labels [N] where there are any.

    >>> Split(train=np.zeros((3, 2, 2)), test=np.zeros((1, 2, 2)), train_labels=np.arange(3)).train_labels.tolist()
    [0, 1, 2]
    """

    train: Array
    test: Array
    train_labels: Array | None = None
    test_labels: Array | None = None


@dataclass(frozen=True, eq=False)
class Presented:
    """Training and test items as a model sees them.

    >>> threshold(Split(np.array([[0.2], [0.8]]), np.array([[0.6]])), seed=0).train.tolist()
    [[0.0], [1.0]]
    """

    train: Array
    test: Array
    kind: Kind
    dynamic: bool = False


Present = Callable[[Split, int], Presented]


class Purpose(IntEnum):
    """The purpose of a stream of random numbers: the second half of its key.

    >>> stream(0, Purpose.SPLIT).random() == stream(0, Purpose.SPLIT).random() != stream(0, Purpose.TEST_BITS).random()
    True
    """

    TEST_BITS = 0
    TRAIN_SUBSET = 1
    TEST_SUBSET = 2
    SPLIT = 3
    SYNTHETIC = 4


def stream(seed: int, purpose: Purpose) -> np.random.Generator:
    """The random numbers of one purpose; streams of different purposes are independent."""
    return np.random.default_rng([seed, purpose])


def grey(split: Split, seed: int) -> Presented:
    """Grey values as they are."""
    return Presented(split.train, split.test, "grey")


def threshold(split: Split, seed: int) -> Presented:
    """1 where the grey value exceeds one half."""
    return Presented(above_half(split.train), above_half(split.test), "binary")


def dynamic(split: Split, seed: int) -> Presented:
    """Training images stay grey, to be drawn at every presentation; test images are drawn once, by the seed."""
    return Presented(split.train, draw_bits(split.test, seed, len(split.test), None), "binary", dynamic=True)


def binary(split: Split, seed: int) -> Presented:
    """0/1 values as they are."""
    return Presented(split.train, split.test, "binary")


def real(split: Split, seed: int) -> Presented:
    """Real values as they are."""
    return Presented(split.train, split.test, "real")


BINARISATIONS: dict[str, Present] = {"grey": grey, "dynamic": dynamic, "threshold": threshold}


def draw_bits(grey: Array, seed: int, n_there: int, rows: NDArray[np.int64] | None) -> Array:
    """0/1 of test images [n, ...], which are these rows of ``n_there`` (None: all of them)."""
    uniform = stream(seed, Purpose.TEST_BITS).random((n_there, *grey.shape[1:]), dtype=np.float32)
    return ((uniform if rows is None else uniform[rows]) < grey).astype(np.float32)


def above_half(values: Array) -> Array:
    """1 where the grey value exceeds one half."""
    return (values > 0.5).astype(np.float32)


def split_at_random(items: Array, labels: Array | None, *, n_test: int, generator: np.random.Generator) -> Split:
    """Sets `n_test` items aside for testing, drawn at random."""
    order = generator.permutation(len(items))
    train, test = order[n_test:], order[:n_test]
    if labels is None:
        return Split(items[train], items[test])
    return Split(items[train], items[test], labels[train], labels[test])


def subset_rows(n_wanted: int, n_there: int, *, seed: int, purpose: Purpose, what: str) -> NDArray[np.int64] | None:
    """Which rows are kept: `n_wanted` at random, or None for all (0).

    Never the first n: test files may be sorted by class. For one seed a smaller subset is part of a larger one.
    """
    if n_wanted == 0:
        return None
    if n_wanted > n_there:
        raise ConfigError(f"{what} is {n_wanted}, but there are {n_there} items; give at most {n_there}, or 0 for all.")
    return stream(seed, purpose).permutation(n_there)[:n_wanted]


def as_rows(values: Array, rows: NDArray[np.int64] | None) -> Tensor:
    """The chosen items [N, ...] as a float32 tensor [N, D]."""
    chosen = values if rows is None else values[rows]
    return torch.from_numpy(np.require(chosen.reshape(len(chosen), -1), np.float32, ["C", "W"]))


def as_labels(labels: Array | None, rows: NDArray[np.int64] | None) -> Tensor | None:
    """The chosen labels as an int64 tensor [N]."""
    if labels is None:
        return None
    return torch.from_numpy(np.array(labels if rows is None else labels[rows], dtype=np.int64))
