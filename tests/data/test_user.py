"""A user's own .npy or .npz, and every bad one."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.data import formats, load
from hvae.errors import ConfigError

GREY = np.random.default_rng(0).random((50, 4, 5))
LABELS = np.arange(50)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def write(**arrays: np.ndarray) -> str:
        np.savez(tmp_path / "my.npz", **arrays)
        return str(tmp_path / "my.npz")

    return write


Save = Callable[..., str]


def test_train_and_test(save: Save) -> None:
    name = save(train=GREY, test=GREY[:7], train_labels=LABELS, test_labels=LABELS[:7])
    data = load(name)
    assert torch.equal(data.train, torch.from_numpy(GREY.reshape(50, 20).astype(np.float32)))
    assert torch.equal(data.test, data.train[:7])
    assert (data.image_shape, data.kind, data.dynamic, data.name) == ((4, 5), "grey", False, name)
    assert data.train_labels is not None and torch.equal(data.train_labels, torch.arange(50))
    assert data.test_labels is not None and torch.equal(data.test_labels, torch.arange(7))


@pytest.mark.parametrize(
    "keys", [("x_train", "x_test", "y_train"), ("train", "x_test", "labels"), ("faces", "test", "y")]
)
def test_other_keys(save: Save, keys: tuple[str, str, str]) -> None:
    data = load(save(**{keys[0]: GREY, keys[1]: GREY[:7], keys[2]: LABELS}))
    assert (len(data.train), len(data.test), data.test_labels) == (50, 7, None)
    assert data.train_labels is not None and torch.equal(data.train_labels, torch.arange(50))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_without_test_a_random_tenth(tmp_path: Path, ending: str) -> None:
    path, values = tmp_path / f"my{ending}", np.arange(100.0).reshape(50, 2) + 0.5
    (np.save if ending == ".npy" else np.savez)(path, values)
    data, again, other = load(str(path)), load(str(path)), load(str(path), seed=1)
    assert (len(data.train), len(data.test), data.kind, data.image_shape) == (45, 5, "real", (2,))
    assert sorted(torch.cat([data.train, data.test])[:, 0].tolist()) == [i + 0.5 for i in range(0, 100, 2)]
    assert torch.equal(data.test, again.test) and not torch.equal(data.test, other.test)
    assert data.test[:, 0].tolist() != [i + 0.5 for i in range(0, 10, 2)]


def test_labels_follow_the_split(save: Save) -> None:
    data = load(save(x=np.arange(50.0)[:, None] / 2, y=LABELS), n_train=20)
    assert data.train_labels is not None and torch.equal(data.train_labels / 2, data.train[:, 0])
    assert data.test_labels is not None and torch.equal(data.test_labels / 2, data.test[:, 0])


@pytest.mark.parametrize("way", ["", ":dynamic"])
@pytest.mark.parametrize("apart", [False, True])
def test_rows_and_bits_are_those_of_their_seed(save: Save, apart: bool, way: str) -> None:
    """The draws that a run pins by its SHA-256, written down again; a part of the rows is drawn before conversion."""
    seed = 7
    order = np.random.default_rng([seed, 3]).permutation(50)
    train, test = (GREY, GREY[::2] ** 2) if apart else (GREY[order[5:]], GREY[order[:5]])
    data = load(save(train=GREY, **({"test": test} if apart else {})) + way, n_train=11, n_test=3, seed=seed)
    if way:
        uniform = np.random.default_rng([seed, 0]).random((len(test), 4, 5), dtype=np.float32)
        test = uniform < test.astype(np.float32)
    train = train[np.random.default_rng([seed, 1]).permutation(len(train))[:11]]
    test = test[np.random.default_rng([seed, 2]).permutation(len(test))[:3]]
    np.testing.assert_array_equal(data.train, train.reshape(11, 20).astype(np.float32))
    np.testing.assert_array_equal(data.test, test.reshape(3, 20).astype(np.float32))


BITS = (GREY > 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "kind", "largest"),
    [
        (np.round(GREY * 255).astype(np.uint8), "grey", np.round(GREY * 255).max() / 255),
        (BITS * np.uint8(255), "binary", 1),
        (BITS, "binary", 1),
        (BITS.astype(bool), "binary", 1),
        (BITS.astype(float), "binary", 1),
        (GREY.astype(np.float16), "grey", GREY.astype(np.float16).max()),
        (GREY - 0.5, "real", (GREY - 0.5).max()),
    ],
    ids=["bytes", "0/255", "0/1 bytes", "truth", "0/1 floats", "grey", "real"],
)
def test_kind_is_decided_by_the_values(save: Save, values: np.ndarray, kind: str, largest: float) -> None:
    data = load(save(train=values, test=values))
    assert data.kind == kind
    assert data.train.max() == torch.tensor(largest, dtype=torch.float32)


def test_binarised(save: Save) -> None:
    name = save(train=GREY, test=GREY)
    thresholded, dynamic = load(f"{name}:threshold"), load(f"{name}:dynamic")
    assert torch.equal(thresholded.train, torch.from_numpy((GREY > 0.5).reshape(50, 20).astype(np.float32)))
    assert (thresholded.kind, thresholded.dynamic, dynamic.kind, dynamic.dynamic) == ("binary", False, "binary", True)
    assert torch.equal(dynamic.train, load(name).train)
    assert set(dynamic.test.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("item", "image_shape"),
    [
        ((6,), (6,)),
        ((2, 3), (2, 3)),
        ((2, 3, 1), (2, 3)),
        ((1, 2, 3), (2, 3)),
        ((2, 3, 3), (2, 3, 3)),
        ((3, 2, 4), (3, 2, 4)),
    ],
)
def test_item_shapes(save: Save, item: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
    data = load(save(train=np.random.default_rng(0).random((10, *item))))
    assert data.image_shape == image_shape
    assert data.train.shape == (9, int(np.prod(item)))


@pytest.mark.parametrize(
    ("item", "remedy"),
    [
        ((5, 6, 4), r"colours without transparency, x\[\.\.\., :3\], or rows"),
        ((4, 5, 6), r"colours without transparency, x\[:, :3\], or rows"),
        ((5, 6, 2), r"grey pictures, without transparency, x\[\.\.\., :1\], or rows"),
        ((2, 5, 6), r"grey pictures, without transparency, x\[:, :1\], or rows"),
        ((5, 6, 7), r"rows of numbers, x\.reshape\(len\(x\), -1\)"),
        ((8, 3, 5, 6), "rows of numbers"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_axes_that_no_net_reads_are_refused(save: Save, item: tuple[int, ...], remedy: str, dtype: type) -> None:
    """And the remedies are taken."""
    values = np.random.default_rng(0).integers(0, 256, (10, *item)).astype(np.uint8)
    values = values if dtype is np.uint8 else (values / np.float32(255))
    with pytest.raises(ConfigError, match=f"items of shape .* axes that no net reads .*; give {remedy}") as refusal:
        load(save(train=values))
    assert "\n" not in str(refusal.value)
    assert load(save(train=values.reshape(10, -1))).image_shape == (int(np.prod(item)),)
    for opaque in re.findall(r"x\[[^]]*\]", str(refusal.value)):
        found = load(save(train=eval(opaque, {"x": values}))).image_shape
        assert found == {4: (5, 6, 3), 2: (5, 6)}.get(item[2], (3, 5, 6) if item[0] == 4 else (5, 6))


NAN, LARGE = GREY.copy(), GREY.copy()
NAN[3, 2, 1], LARGE[3, 2, 1] = np.nan, 1e300


@pytest.mark.parametrize(
    ("arrays", "way", "message"),
    [
        ({"train": NAN}, "", "holds 1 values that are not finite"),
        ({"train": LARGE}, "", "holds 1 values that are not finite"),
        ({"train": GREY, "test": np.full((2, 4, 5), np.inf)}, "", "not finite"),
        ({"train": np.zeros((0, 4))}, "", "is empty"),
        ({"train": np.zeros((4, 0))}, "", "is empty"),
        ({"train": GREY, "test": np.zeros((0, 4, 5))}, "", "the test array of .* is empty"),
        ({"train": GREY[:1]}, "", "holds 1 item; give at least 2"),
        ({"train": GREY[:1], "test": GREY}, "", "holds 1 item; give at least 2"),
        ({"train": np.zeros(5)}, "", r"shape \(5,\); give items first"),
        ({"train": np.array(1.0)}, "", "give items first"),
        ({"train": np.array([["a", "b"]] * 3)}, "", "dtype <U1"),
        ({"train": GREY * 1j}, "", "dtype complex128"),
        ({"train": np.array([[{}, 1]] * 3, dtype=object)}, "", "holds Python objects"),
        ({"train": GREY, "test": GREY[:, :3]}, "", r"items of shape \(4, 5\) and tests on \(3, 5\)"),
        ({"train": BITS * np.uint8(9), "test": GREY}, "", "trains on uint8 and tests on float64"),
        ({"a": GREY, "b": GREY}, "", r"holds the arrays \['a', 'b'\]; name one train"),
        ({"test": GREY}, "", "name one train"),
        ({}, "", "name one train|cannot be read"),
        ({"train": GREY, "labels": LABELS[:9]}, "", "give 50 integers"),
        ({"train": GREY * 2}, ":dynamic", "binarise values between .* scale them"),
        ({"train": GREY - 0.5}, ":threshold", "binarise values between .* scale them"),
        ({"train": GREY}, ":grey", "ends in :grey; append :dynamic or :threshold"),
        ({"train": GREY}, ":", "ends in :; append"),
    ],
)
def test_refused(save: Save, arrays: dict[str, np.ndarray], way: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        load(save(**arrays) + way)
    assert "\n" not in str(refusal.value)


def test_more_wanted_than_there_is(save: Save) -> None:
    with pytest.raises(ConfigError, match="is 46, but there are 45 items"):
        load(save(train=GREY), n_train=46)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("absent.npz", "absent.npy:dynamic"):
        with pytest.raises(ConfigError, match="is not there"):
            load(str(tmp_path / name))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ConfigError, match="is not there"):
        load(str(tmp_path / "folder.npz"))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("damage", ["empty", "short", "text", "pickle"])
def test_broken_file(tmp_path: Path, ending: str, damage: str) -> None:
    path = tmp_path / f"my{ending}"
    (np.save if ending == ".npy" else np.savez)(path, GREY)
    raw = path.read_bytes()
    damaged = {"empty": b"", "short": raw[:-700], "text": b"1,2,3\n" * 40, "pickle": b"\x80\x04N."}
    path.write_bytes(damaged[damage])
    with pytest.raises(ConfigError, match="cannot be read as numeric arrays") as refusal:
        load(str(path))
    assert "\n" not in str(refusal.value)


def test_flipped_byte_in_an_archive(save: Save) -> None:
    path = Path(save(train=GREY))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="cannot be read as numeric arrays"):
        load(str(path))


def test_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "my.npy"
    np.save(path, np.zeros((1000, 4)))
    path.write_bytes(path.read_bytes().replace(b"(1000, 4)", b"(10**9,4)").replace(b"10**9", b"99999"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(path))


def test_bomb(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, train=np.zeros((2**18, 8)))
    assert path.stat().st_size < 2**18
    monkeypatch.setattr(formats, "MOST_BYTES", 2**20)
    with pytest.raises(ConfigError, match="unpacks to"):
        load(str(path))


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "my.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", "no array")
        archive.writestr("../notes.txt", "text")
    with pytest.raises(ConfigError, match=r"'train\.npy' is no array of numpy"):
        load(str(path))
