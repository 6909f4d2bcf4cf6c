"""The meaning of every name: its files, how they are read, the split, the binarisation.

A name never changes its meaning. The splits are those of the files; digits has none of its own and
is split at random with seed 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvae.data.cifar import halved, read_cifar, read_subset
from hvae.data.files import DataFile
from hvae.data.idx import read_idx
from hvae.data.images import BINARISATIONS, Present, Purpose, Split, binary, grey, real, split_at_random, stream
from hvae.data.synthetic import N_TEST, N_TRAIN, binary_2, draw_split, linear_2
from hvae.extras import need
from hvae.outside import load_arrays

AGAIN = "fetch it again with `hvae data get`"


@dataclass(frozen=True)
class Entry:
    """The definition of one name.

    >>> CATALOGUE["mnist-dynamic"].image_shape, len(CATALOGUE["mnist-dynamic"].files)
    ((28, 28), 4)
    """

    description: str
    image_shape: tuple[int, ...]
    n_train: int
    n_test: int
    read: Callable[[Sequence[Path]], Split]
    """the paths of `files`, in their order -> values"""
    present: Present
    files: tuple[DataFile, ...] = ()
    notes: tuple[str, ...] = ()
    """what was done to the numbers of the files, in sentences"""


BINARISED = {
    "grey": "grey values in [0, 1]",
    "dynamic": "0/1 drawn at every presentation, test drawn once",
    "threshold": "0/1, grey > 1/2",
}


def each_binarisation(
    stem: str,
    description: str,
    *,
    image_shape: tuple[int, ...],
    n_train: int,
    n_test: int,
    read: Callable[[Sequence[Path]], Split],
    files: tuple[DataFile, ...] = (),
) -> dict[str, Entry]:
    """The names stem-grey, stem-dynamic and stem-threshold of one set of grey images."""
    return {
        f"{stem}-{way}": Entry(f"{description}: {BINARISED[way]}", image_shape, n_train, n_test, read, present, files)
        for way, present in BINARISATIONS.items()
    }


IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def idx_entries(
    stem: str,
    description: str,
    *,
    folder: str,
    base_url: str,
    digests: Sequence[str],
    sizes: Sequence[int],
    image_shape: tuple[int, int] = (28, 28),
    n_train: int = 60000,
    n_test: int = 10000,
) -> dict[str, Entry]:
    """Names made of four IDX files below `folder`; `digests` and `sizes` are in the order of `IDX_NAMES`."""
    files = tuple(
        DataFile(f"{folder}/{name}", digest, n_bytes, f"{base_url}/{name}")
        for name, digest, n_bytes in zip(IDX_NAMES, digests, sizes, strict=True)
    )
    read = partial(_read_idx_split, (n_train, n_test), image_shape)
    return each_binarisation(
        stem, description, image_shape=image_shape, n_train=n_train, n_test=n_test, read=read, files=files
    )


def _read_idx_split(counts: tuple[int, int], image_shape: tuple[int, int], paths: Sequence[Path]) -> Split:
    (n_train, n_test), (train, train_labels, test, test_labels) = counts, paths
    return Split(
        read_idx(train, shape=(n_train, *image_shape)) / np.float32(255),
        read_idx(test, shape=(n_test, *image_shape)) / np.float32(255),
        read_idx(train_labels, shape=(n_train,)),
        read_idx(test_labels, shape=(n_test,)),
    )


def colour_entries(
    stem: str, description: str, *, n_train: int, n_test: int, read: Callable[[Path], Split], file: DataFile
) -> dict[str, Entry]:
    """The names stem, of colour images of 32 x 32 bytes, and stem-16, of their halves, from one file."""
    by_255 = "Bytes are divided by 255."
    averaged = "2 x 2 pixels are averaged to one and rounded to a byte, halves up."
    return {
        stem: Entry(
            f"{description}: colour", (3, 32, 32), n_train, n_test, lambda paths: scaled(read(paths[0])), grey, (file,),
            (by_255,),
        ),
        f"{stem}-16": Entry(
            f"{description}: colour, averaged to 16x16 in 8 bits", (3, 16, 16), n_train, n_test,
            lambda paths: scaled(of_images(halved, read(paths[0]))), grey, (file,), (averaged, by_255),
        ),
    }  # fmt: skip


def of_images(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], split: Split) -> Split:
    """The same split with other images."""
    return replace(split, train=change(split.train), test=change(split.test))


def scaled(split: Split) -> Split:
    """Bytes as values in [0, 1]."""
    return replace(split, train=split.train / np.float32(255), test=split.test / np.float32(255))


def _read_digits(paths: Sequence[Path]) -> Split:
    need("sklearn", "The digits data need")
    from sklearn.datasets import load_digits  # here, since it takes a second to import

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    return split_at_random(images, digits.target, n_test=500, generator=stream(0, Purpose.SPLIT))


def _read_static(paths: Sequence[Path]) -> Split:
    arrays = load_arrays(paths[0], AGAIN)
    train, test = (np.unpackbits(arrays[key], axis=1) for key in ("train", "test"))
    return Split(train, test, arrays["train_label_matched"], arrays["test_label_matched"])


def _read_omniglot(paths: Sequence[Path]) -> Split:
    arrays = load_arrays(paths[0], AGAIN)
    train, test = (arrays[key] / np.float32(255) for key in ("train", "test"))
    return Split(train, test, arrays["train_char"], arrays["test_char"])


CATALOGUE: dict[str, Entry] = {
    **each_binarisation(
        "digits",
        "8x8 handwritten digits of scikit-learn, no download",
        image_shape=(8, 8),
        n_train=1297,
        n_test=500,
        read=_read_digits,
    ),
    **idx_entries(
        "mnist",
        "handwritten digits (LeCun et al. 1998)",
        folder="MNIST/raw",
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist",
        digests=(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        sizes=(9_912_422, 28_881, 1_648_877, 4_542),
    ),
    "mnist-static": Entry(
        "MNIST binarised once (Larochelle and Murray 2011): 0/1, its 50000 training images",
        (28, 28),
        50000,
        10000,
        _read_static,
        binary,
        (
            DataFile(
                "BinaryMNIST/binarized_mnist.npz",
                "062e2edc4700bf26a7080e336c044627b69fc77b9325f717d5bc7d220567f486",
                2_503_524,
                origin="it packs the binarized_mnist_*.amat files of Larochelle and Murray and cannot be downloaded",
            ),
        ),
    ),
    **idx_entries(
        "fashion",
        "Fashion-MNIST, pieces of clothing (Xiao et al. 2017)",
        folder="FashionMNIST/raw",
        base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        digests=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        sizes=(26_421_880, 29_515, 4_422_102, 5_148),
    ),
    **each_binarisation(
        "omniglot",
        "OMNIGLOT characters (Lake et al. 2015), resized for this project, NOT the split and resizing of "
        "Burda et al. 2016: likelihoods do not compare with published ones",
        image_shape=(28, 28),
        n_train=24345,
        n_test=8115,
        read=_read_omniglot,
        files=(
            DataFile(
                "OMNIGLOT/omniglot28_derived.npz",
                "cca9d09595cca75bdda7812f69618180e1bc6ff6c6bfe31a565ab63c78981846",
                5_276_086,
                origin="it was resized for this project from the 105x105 images and cannot be downloaded",
            ),
        ),
    ),
    **colour_entries(
        "cifar10",
        "CIFAR-10, photographs of ten classes (Krizhevsky 2009)",
        n_train=50000,
        n_test=10000,
        read=read_cifar,
        file=DataFile(
            "CIFAR10/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        ),
    ),
    **colour_entries(
        "cifar10-subset",
        "its first training batch and first 1000 test images, NOT CIFAR-10: likelihoods do not compare with published "
        "ones",
        n_train=10000,
        n_test=1000,
        read=read_subset,
        file=DataFile(
            "CIFAR10/cifar10_subset.npz",
            "36a9cc4af923f1a74496b4a6f238f2e62e116ca2ab8d2ae5fc2435b798e43be5",
            31_084_345,
            origin="it packs data_batch_1 and the first 1000 images of test_batch and cannot be downloaded",
        ),
    ),
    "synthetic-linear-2": Entry(
        "real values from a known linear-Gaussian stack of two layers",
        (20,),
        N_TRAIN,
        N_TEST,
        lambda paths: draw_split(linear_2()),
        real,
    ),
    "synthetic-binary-2": Entry(
        "0/1 from a known sigmoid belief net of two layers",
        (16,),
        N_TRAIN,
        N_TEST,
        lambda paths: draw_split(binary_2()),
        binary,
    ),
}


def files_of(entries: Mapping[str, Entry]) -> list[DataFile]:
    """Every file of these entries, once."""
    return list(dict.fromkeys(file for entry in entries.values() for file in entry.files))
