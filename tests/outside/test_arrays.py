"""Arrays from outside: sizes are checked before memory is taken, nothing is unpickled, nothing unpacks without end."""

import io
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvae.data import load
from hvae.errors import ConfigError
from hvae.outside import arrays, load_arrays

GOOD = {
    "matrix": np.arange(12.0).reshape(3, 4),
    "words": np.array(["a", "bc"]),
    "number": np.array(3),
    "empty": np.zeros((0, 3)),
    "columns": np.asfortranarray(np.ones((2, 3, 4))),
    "flags": np.array([True]),
    "bytes": np.array([b"ab"]),
    "half": np.ones(3, np.float16),
}


def npy(header: str, body: bytes = b"", version: int = 1, magic: bytes = b"\x93NUMPY") -> bytes:
    width = "<H" if version == 1 else "<I"
    return magic + bytes((version, 0)) + struct.pack(width, len(header)) + header.encode("latin-1") + body


def said(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


BODY = bytes(32)
HEADERS = {
    "true in the shape": npy(said("'<f8'", "(True, 4)"), BODY),
    "negative": npy(said("'<f8'", "(-4,)"), BODY),
    "terabytes": npy(said("'<f8'", "(99999999999,)"), BODY),
    "overflow": npy(said("'<f8'", "(99999999999999, 99999999999999)"), BODY),
    "too little": npy(said("'<f8'", "(3,)"), BODY),
    "huge number": npy(said("'<f8'", f"({'9' * 5000},)"), BODY),
    "no shape": npy("{'descr': '<f8', 'fortran_order': False}\n", BODY),
    "float": npy(said("'<f8'", "(4.0,)"), BODY),
    "objects": npy(said("'|O'", "(4,)"), BODY),
    "record": npy(said("[('a', '<f8')]", "(4,)"), BODY),
    "unknown type": npy(said("'<z8'", "(4,)"), BODY),
    "type of 7": npy(said("'<f7'", "(4,)"), BODY),
    "wide text": npy(said("'<U999999999'", "(4,)"), BODY),
    "code": npy("__import__('os').getcwd()\n", BODY),
    "deep": npy("-" * 9000 + "1\n", BODY),
    "brackets": npy("(" * 9000, BODY),
    "long": npy(" " * 60000, BODY, 2),
    "cut": npy(said("'<f8'", "(4,)"), BODY)[:30],
    "version 9": npy(said("'<f8'", "(4,)"), BODY, 9),
    "magic": npy(said("'<f8'", "(4,)"), BODY, magic=b"\x93NUMPX"),
    "nothing": b"",
    "33 axes": npy(said("'<f8'", f"({'1,' * 33})"), bytes(8)),
    "list": npy(said("'<f8'", "[4]"), BODY),
    "long header": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    "time": npy(said("'<M8[s]'", "(4,)"), BODY),
    "not ascii": npy(said("'<f8'", "(4,)") + "\xff", BODY),
    "dict": npy(said("{}", "(4,)"), BODY),
}


@pytest.mark.parametrize("how", HEADERS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_lies_is_refused(tmp_path: Path, how: str, packed: bool) -> None:
    """As a member of a run's arrays and of a user's archive, and as a user's .npy."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("train.npy", HEADERS[how])
    with pytest.raises(ConfigError, match=r"a\.npz is damaged .*; measure again\.$") as refusal:
        load_arrays(path, "measure again")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    (tmp_path / "a.npy").write_bytes(HEADERS[how])
    for name in ("a.npz", "a.npy"):
        with pytest.raises(ConfigError, match="cannot be read as numeric arrays") as refusal:
            load(str(tmp_path / name))
        assert "\n" not in str(refusal.value)


def good() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **GOOD)
    return buffer.getvalue()


def patched(content: bytes, at: int, value: int, width: str) -> bytes:
    """A field of every entry of the archive's directory set to a value."""
    found, place = bytearray(content), content.find(b"PK\x01\x02")
    while place >= 0:
        struct.pack_into(width, found, place + at, value)
        place = content.find(b"PK\x01\x02", place + 4)
    return bytes(found)


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for _ in range(2):
            archive.writestr("a.npy", npy(said("'<f8'", "(4,)"), BODY))
    return buffer.getvalue()


def bomb() -> bytes:
    """2 GiB of zeros in 2 MB."""
    buffer, n_bytes = io.BytesIO(), 2**31
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(said("'|u1'", f"({n_bytes},)")))
        for _ in range(n_bytes // 2**24):
            member.write(bytes(2**24))
    return buffer.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"1, 2, 3\n" * 40,
    "pickle": lambda: b"\x80\x04N.",
    "half": lambda: good()[: len(good()) // 2],
    "head cut": lambda: good()[30:],
    "bytes before it": lambda: b"#!sh\n" + good(),
    "method 99": lambda: patched(good(), 10, 99, "<H"),
    "bzip2": lambda: patched(good(), 10, 12, "<H"),
    "encrypted": lambda: patched(good(), 8, 1, "<H"),
    "version 99": lambda: patched(good(), 6, 99, "<H"),
    "sizes of 4 GB": lambda: patched(good(), 24, 2**32 - 2, "<I"),
    "packed sizes": lambda: patched(good(), 20, 2**31, "<I"),
    "size 0": lambda: patched(good(), 24, 0, "<I"),
    "place": lambda: patched(good(), 42, 2**31, "<I"),
    "twice": twice,
    "bomb": bomb,
    "one byte": lambda: b"P",
    "PK": lambda: b"PK\x03\x04",
    "end alone": lambda: b"PK\x05\x06" + bytes(17),
    "gzip": lambda: b"\x1f\x8b" + bytes(30),
}


@pytest.mark.parametrize("how", ARCHIVES)
def test_an_archive_that_is_none_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(ARCHIVES[how]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"a\.npz (is damaged|cannot be read) .*; measure again\.$") as refusal:
        load_arrays(path, "measure again")
    assert "\n" not in str(refusal.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18, "kilobytes: no array was made"


def test_what_is_sound_is_read_and_only_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, **GOOD)
        found = load_arrays(path, "measure again")
        assert found.keys() == GOOD.keys()
        for key, array in GOOD.items():
            assert found[key].dtype == array.dtype and found[key].shape == array.shape
            np.testing.assert_array_equal(found[key], array)
        assert load_arrays(path, "measure again", only=["number"]) == {"number": 3}
    with pytest.raises(ConfigError, match="KeyError"):
        load_arrays(path, "measure again", only=["other"])


def test_a_flip_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    content, path, rng = good(), tmp_path / "a.npz", np.random.default_rng(0)
    n_refused = 0
    for place in rng.choice(len(content), 200, replace=False):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :])
        try:
            found = load_arrays(path, "measure again")
        except ConfigError as error:
            n_refused += 1
            assert "\n" not in str(error)
        else:
            assert all(np.array_equal(array, GOOD[key]) for key, array in found.items() if key in GOOD)
    assert n_refused > 100


def test_the_limit_of_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", **GOOD)
    monkeypatch.setattr(arrays, "MOST_MEMBERS", len(GOOD) - 1)
    with pytest.raises(ConfigError, match="members, more than"):
        load_arrays(tmp_path / "a.npz", "measure again")
