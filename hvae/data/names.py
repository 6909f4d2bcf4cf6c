"""The meaning of every name: its files, how they are read, the split, the binarisation.

A name never changes its meaning. The splits are those of the files; digits has none of its own and
is split at random with seed 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hvae.data.files import DataFile
from hvae.data.idx import read_idx
from hvae.data.images import BINARISATIONS, Present, Purpose, Split, binary, real, split_at_random, stream
from hvae.data.synthetic import N_TEST, N_TRAIN, binary_2, draw_split, linear_2
from hvae.extras import need


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
    image_shape: tuple[int, int] = (28, 28),
    n_train: int = 60000,
    n_test: int = 10000,
) -> dict[str, Entry]:
    """Names made of four IDX files below `folder`; `digests` are their SHA-256 in the order of `IDX_NAMES`."""
    files = tuple(
        DataFile(f"{folder}/{name}", digest, f"{base_url}/{name}")
        for name, digest in zip(IDX_NAMES, digests, strict=True)
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


def _read_digits(paths: Sequence[Path]) -> Split:
    need("sklearn", "The digits data need")
    from sklearn.datasets import load_digits  # here, since it takes a second to import

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    return split_at_random(images, digits.target, n_test=500, generator=stream(0, Purpose.SPLIT))


def _read_static(paths: Sequence[Path]) -> Split:
    with np.load(paths[0], allow_pickle=False) as arrays:
        return Split(
            np.unpackbits(arrays["train"], axis=1),
            np.unpackbits(arrays["test"], axis=1),
            arrays["train_label_matched"],
            arrays["test_label_matched"],
        )


def _read_omniglot(paths: Sequence[Path]) -> Split:
    with np.load(paths[0], allow_pickle=False) as arrays:
        return Split(
            arrays["train"] / np.float32(255),
            arrays["test"] / np.float32(255),
            arrays["train_char"],
            arrays["test_char"],
        )


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
                origin="it was resized for this project from the 105x105 images and cannot be downloaded",
            ),
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
