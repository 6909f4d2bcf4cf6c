"""Every way in which an IDX file can be wrong is refused in one sentence."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvae.data.idx import read_idx
from hvae.errors import ConfigError

VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
Write = Callable[[np.ndarray], Path]


def test_reads_images_and_labels(write_idx: Write) -> None:
    assert np.array_equal(read_idx(write_idx(VALUES), shape=(2, 3, 4)), VALUES)
    assert np.array_equal(read_idx(write_idx(VALUES.reshape(24)), shape=(24,)), VALUES.reshape(24))


def edited(path: Path, edit: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(gzip.compress(edit(gzip.decompress(path.read_bytes()))))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: b"", "begins with"),
        (lambda raw: b"\0\0\x0d\3" + raw[4:], "00000d03, not with 00000803"),
        (lambda raw: raw[:3] + b"\1" + raw[4:], "00000801, not with 00000803"),
        (lambda raw: raw[:10], "ends inside its header"),
        (lambda raw: raw[:7] + b"\3" + raw[8:], r"shape \(3, 3, 4\) instead of \(2, 3, 4\)"),
        (lambda raw: raw[:-1], "holds 23 bytes"),
        (lambda raw: raw + b"\0", "holds more bytes"),
    ],
    ids=["empty", "type", "axes", "header", "count", "short", "long"],
)
def test_wrong_content(write_idx: Write, edit: Callable[[bytes], bytes], message: str) -> None:
    path = edited(write_idx(VALUES), edit)
    with pytest.raises(ConfigError, match=message):
        read_idx(path, shape=(2, 3, 4))


@pytest.mark.parametrize("position", [0, 12, -6], ids=["gzip magic", "body", "checksum"])
def test_flipped_byte(write_idx: Write, position: int) -> None:
    path = write_idx(np.arange(240).reshape(20, 3, 4))
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ConfigError):
        read_idx(path, shape=(20, 3, 4))


def test_truncated_or_no_gzip(write_idx: Write) -> None:
    path = write_idx(VALUES)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="cannot be unpacked"):
        read_idx(path, shape=(2, 3, 4))
    path.write_bytes(b"")
    with pytest.raises(ConfigError):
        read_idx(path, shape=(2, 3, 4))


def test_bomb_is_not_unpacked(write_idx: Write) -> None:
    path = edited(write_idx(VALUES), lambda raw: raw + bytes(100 * 2**20))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(ConfigError, match="more bytes"):
        read_idx(path, shape=(2, 3, 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20
