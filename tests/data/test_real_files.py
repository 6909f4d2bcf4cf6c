"""The real files, where HVAE_DATA holds them."""

import os
from pathlib import Path

import pytest

from hvae.data import load, verify
from hvae.data.files import state
from hvae.data.names import CATALOGUE

FOLDER = Path(os.environ.get("HVAE_DATA") or "/nonexistent")


def needs(name: str) -> None:
    if not all(state(file, FOLDER) == "present" for file in CATALOGUE[name].files):
        pytest.skip(f"HVAE_DATA does not hold {name}")


@pytest.mark.parametrize(
    ("name", "train_mean", "test_mean"),
    [
        ("mnist-grey", 33.3184 / 255, 33.7912 / 255),
        ("fashion-grey", 72.9404 / 255, 73.1466 / 255),
        ("mnist-static", 0.130562, 0.132512),
        ("omniglot-grey", 0.0827, 0.0826),
    ],
)
def test_mean_pixel(name: str, train_mean: float, test_mean: float) -> None:
    """The published means, to the digits they are given with."""
    needs(name)
    data, entry = load(name, data_dir=FOLDER), CATALOGUE[name]
    assert (len(data.train), len(data.test), data.image_shape) == (entry.n_train, entry.n_test, (28, 28))
    half_digit = 5.1e-5 if "omniglot" in name else 5.1e-7 if "static" in name else 5.1e-5 / 255
    assert abs(data.train.double().mean().item() - train_mean) < half_digit
    assert abs(data.test.double().mean().item() - test_mean) < half_digit
    assert data.train.min() == 0 and data.train.max() == 1
    if name == "mnist-grey":
        assert data.train_labels is not None and data.train_labels[0] == 5
        histogram = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert data.train_labels.bincount().tolist() == histogram


def test_static_test_is_sorted_but_its_subset_is_not() -> None:
    needs("mnist-static")
    whole, part = load("mnist-static", data_dir=FOLDER), load("mnist-static", n_test=200, data_dir=FOLDER)
    assert whole.test_labels is not None and whole.test_labels[:200].unique().tolist() == [0]
    assert part.test_labels is not None and len(part.test_labels.unique()) == 10


def test_cifar_in_colour_and_averaged() -> None:
    """The classes of the first batch as counted in the public archive; halves are means of 2 x 2 to half a level."""
    needs("cifar10-subset")
    whole, half = (load(name, n_test=50, data_dir=FOLDER) for name in ("cifar10-subset", "cifar10-subset-16"))
    assert whole.train_labels is not None
    assert whole.train_labels.bincount().tolist() == [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    blocks = whole.train.reshape(-1, 3, 16, 2, 16, 2).mean((3, 5)).reshape(len(half.train), -1)
    assert ((half.train - blocks).abs() * 255).max() < 0.5 + 1e-3
    red, green, blue = whole.train.reshape(-1, 3, 1024).double().mean((0, 2)).tolist()
    assert red > green > blue, "125.3, 123.0, 113.9 in all of CIFAR-10"
    if state(CATALOGUE["cifar10"].files[0], FOLDER) == "present":
        all_of_it = load("cifar10", data_dir=FOLDER)
        assert (all_of_it.train[:10000] == whole.train).all()


def test_nothing_is_damaged() -> None:
    if not FOLDER.is_dir():
        pytest.skip("HVAE_DATA is not set")
    assert "damaged" not in {found for _, found in verify(FOLDER)}
