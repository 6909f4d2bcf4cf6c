"""The archive of CIFAR-10: what is read of a small one, its download, its halves, every way to be wrong."""

import gzip
import hashlib
import io
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvae.data import access, card_of, load, names
from hvae.data.cifar import TEST, TRAIN, halved, read_cifar, read_subset
from hvae.data.files import DataFile
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError

N = 4
FOLDER = "cifar-10-batches-bin"
Files = dict[str, bytes]


def batches() -> Files:
    """By the format's description: a class, then red, green and blue planes, row by row."""
    source, found = np.random.default_rng(0), {f"{FOLDER}/readme.html": b"<html>"}
    for name in (*TRAIN, TEST):
        records = source.integers(0, 256, (N, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        found[f"{FOLDER}/{name}"] = records.tobytes()
    return found


def packed(files: Files, kinds: dict[str, bytes] | None = None) -> bytes:
    """A .tar.gz of these files; ``kinds`` are types of members other than a file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.partition("#")[0])
            member.type = (kinds or {}).get(name, tarfile.REGTYPE)
            member.size, member.linkname = len(content), "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def by_hand(content: bytes, item: int, colour: int, row: int, column: int) -> int:
    return content[item * 3073 + 1 + colour * 1024 + row * 32 + column]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(packed(batches()))
    return path


def test_records_are_images_with_colours_first(archive: Path) -> None:
    files, split = batches(), read_cifar(archive, n_per_batch=N)
    assert split.train.shape == (5 * N, 3, 32, 32) and split.test.shape == (N, 3, 32, 32)
    assert split.train_labels is not None and split.test_labels is not None
    for batch, name in enumerate(TRAIN):
        content = files[f"{FOLDER}/{name}"]
        for item, colour, row, column in ((0, 0, 0, 0), (1, 1, 5, 31), (3, 2, 31, 7)):
            assert split.train[batch * N + item, colour, row, column] == by_hand(content, item, colour, row, column)
        assert split.train_labels[batch * N : (batch + 1) * N].tolist() == [content[at * 3073] for at in range(N)]
    assert split.test[2, 1, 3, 4] == by_hand(files[f"{FOLDER}/{TEST}"], 2, 1, 3, 4)


def test_halves_are_means_rounded_to_bytes_halves_up() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 6), dtype=np.uint8)
    images[0, 0, :2, :2] = [[0, 1], [0, 1]]  # one half
    images[0, 0, 2:, :2] = 255
    found = halved(images)
    assert found.dtype == np.uint8 and found.shape == (2, 3, 2, 3) and found[0, 0, :, 0].tolist() == [1, 255]
    for place in np.ndindex(found.shape):
        n, colour, row, column = place
        block = [int(images[n, colour, 2 * row + i, 2 * column + j]) for i in (0, 1) for j in (0, 1)]
        assert abs(found[place] - sum(block) / 4) <= 0.5


def test_get_then_load_from_a_server(
    mirror: str, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, folder = packed(batches()), tmp_path / "target"
    (tiny_store / "Tiny/colour.tar.gz").write_bytes(content)
    entries = names.colour_entries(
        "tinycolour", "made by the tests", n_train=5 * N, n_test=N, read=partial(read_cifar, n_per_batch=N),
        file=DataFile("Tiny/colour.tar.gz", hashlib.sha256(content).hexdigest(), len(content), "http://127.0.0.1:9/nowhere"),
    )  # fmt: skip
    for name, entry in entries.items():
        monkeypatch.setitem(names.CATALOGUE, name, entry)
    with pytest.raises(ConfigError, match=r"colour.tar.gz is missing; run `hvae data get tinycolour`"):
        load("tinycolour", data_dir=folder)
    access.get("tinycolour", folder)
    whole, half = (load(name, data_dir=folder) for name in entries)
    raw = batches()[f"{FOLDER}/{TRAIN[0]}"]
    assert whole.image_shape == (3, 32, 32) and whole.kind == "grey" and whole.train.shape == (5 * N, 3072)
    assert whole.train[1, 1024 + 5 * 32 + 31].item() == pytest.approx(by_hand(raw, 1, 1, 5, 31) / 255, abs=1e-7)
    pixels = Pixels.of(whole.image_shape)
    assert pixels is not None
    drawn = pixels.picture(whole.train.numpy())[1, 5, 31]  # as boards and reports draw it: red, green, blue
    np.testing.assert_allclose(drawn, [by_hand(raw, 1, colour, 5, 31) / 255 for colour in range(3)], atol=1e-7)
    assert half.image_shape == (3, 16, 16)
    corner = [by_hand(raw, 0, 2, i, j) for i in (0, 1) for j in (0, 1)]
    assert half.train[0, 512].item() * 255 == pytest.approx((sum(corner) + 2) // 4, abs=1e-4)
    said = str(card_of(half))
    assert said.startswith(f"tinycolour-16: {5 * N} training and {N} test colour images of 16 x 16, colour values, ")
    assert "2 x 2 pixels are averaged to one and rounded to a byte, halves up. Bytes are divided by 255." in said
    assert whole.train_labels is not None and whole.train_labels[:N].tolist() == [raw[at * 3073] for at in range(N)]


def test_a_subset_as_rows_columns_and_colours(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "s.npz", x_train=images, y_train=np.arange(3), x_test=images[:1], y_test=np.arange(1))
    split = read_subset(tmp_path / "s.npz")
    assert all(split.train[1, colour, 4, 9] == images[1, 4, 9, colour] for colour in range(3))
    assert split.test.shape == (1, 3, 32, 32)


class Malicious:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (exec, ("raise SystemExit('a pickle was run')",))


def _without(files: Files, name: str) -> Files:
    return {key: content for key, content in files.items() if not key.endswith(name)}


def _with(name: str, content: bytes) -> bytes:
    return packed(batches() | {f"{FOLDER}/{name}": content})


def _class_10() -> bytes:
    records = bytearray(batches()[f"{FOLDER}/{TRAIN[2]}"])
    records[3073] = 10
    return bytes(records)


BATCH = f"{FOLDER}/{TRAIN[1]}"
WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "cannot be unpacked"),
    "no archive": (lambda: b"GIF89a" * 99, "cannot be unpacked"),
    "gzip of something else": (lambda: gzip.compress(b"\x00\x01" * 999), "cannot be unpacked"),
    "cut": (lambda: packed(batches())[:9000], "cannot be unpacked"),
    "a pickle": (lambda: pickle.dumps(Malicious()), "cannot be unpacked"),
    "pickles in an archive": (
        lambda: packed({f"cifar-10-batches-py/{name[:-4]}": pickle.dumps(Malicious()) for name in (*TRAIN, TEST)}),
        "has no data_batch_1.bin, data_batch_2.bin, .*, test_batch.bin",
    ),
    "a pickle for a batch": (lambda: _with(TRAIN[1], pickle.dumps(Malicious())), "holds data_batch_2.bin as something"),
    "a batch is missing": (lambda: packed(_without(batches(), TRAIN[3])), "has no data_batch_4.bin;"),
    "a batch is short": (lambda: _with(TRAIN[1], b"\x01" * 3073), "holds data_batch_2.bin as something else than 4"),
    "a batch is long": (lambda: _with(TRAIN[1], b"\x01" * 3073 * 5), "more than the batches of CIFAR-10"),
    "a class that there is not": (lambda: _with(TRAIN[2], _class_10()), "holds the class 10 in data_batch_3"),
    "a link for a batch": (
        lambda: packed(batches() | {BATCH: b""}, {BATCH: tarfile.SYMTYPE}), "holds data_batch_2.bin as something else"
    ),
    "a batch twice": (
        lambda: packed(batches() | {f"{BATCH}#again": batches()[BATCH]}), "holds data_batch_2.bin as something else"
    ),
    "a large member": (lambda: packed({"big": bytes(10**7)} | batches()), "holds more than the batches of CIFAR-10"),
    "many members": (lambda: packed({f"m{i}": b"" for i in range(99)} | batches()), "holds more than the batches"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "why"), WRONG.values(), ids=WRONG)
def test_an_archive_that_is_something_else_is_refused(content: Callable[[], bytes], why: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(content())
    with pytest.raises(ConfigError, match=why) as refusal:
        read_cifar(path, n_per_batch=N)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith("; fetch it again with `hvae data get`.")
    assert [found.name for found in tmp_path.iterdir()] == ["cifar.tar.gz"], "nothing is unpacked"


def test_an_archive_that_unpacks_without_end_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(packed({"big": bytes(10**8)}))
    tracemalloc.start()
    with pytest.raises(ConfigError, match="holds more than the batches"):
        read_cifar(path, n_per_batch=N)
    assert tracemalloc.get_traced_memory()[1] < 10**8 / 2, "a block of the stream, not the member"
    tracemalloc.stop()
