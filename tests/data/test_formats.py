"""Files as other people write them, each written here as its own program writes it."""

import pickle
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io, sparse

from hvae.data import Dataset, load
from hvae.errors import ConfigError

Z = np.random.default_rng(0).standard_normal((40, 3)).round(6)


def values_of(data: Dataset) -> torch.Tensor:
    """All items in an order of their own."""
    rows = torch.cat([data.train, data.test])
    return rows[rows[:, 0].argsort()]


HELD_OUT = "A random tenth, 4 of 40 items, is held out for testing."
SORTED = torch.from_numpy(Z[Z[:, 0].argsort()].astype(np.float32))


def table(header: str, delimiter: str, *, first: str = "", last: str = "") -> str:
    rows = [delimiter.join([*([first.format(i)] if first else []), *map(str, row)]) for i, row in enumerate(Z)]
    rows = [row + (delimiter + last if last else "") for row in rows]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (table("", ","), "The file has no header: its first line is read as data."),
        (table("a,b,c", ","), ""),
        (table("a;b;c", ";"), ""),
        (table("a\tb\tc", "\t"), ""),
        ("\ufeff" + table('"a","b, too","c"', ","), ""),
        (table("a,b,c", ",").replace("\n", "\r\n"), ""),
        (table("a,b,c,Target", ",", last="3"), "The column Target is left out."),
        (table("a,b,c,class", ",", last="setosa"), "The column class is left out."),
        (table(",a,b,c", ",", first="{}"), "The first column is left out."),
    ],
    ids=["bare", "comma", "semicolon", "tab", "BOM and quotes", "CRLF", "labels", "words as labels", "index of pandas"],
)
@pytest.mark.parametrize("ending", [".csv", ".TSV"])
def test_tables(tmp_path: Path, text: str, note: str, ending: str) -> None:
    path = tmp_path / f"my{ending}"
    path.write_text(text, encoding="utf-8", newline="")
    data = load(str(path))
    assert (data.kind, data.image_shape) == ("real", (3,))
    assert data.notes == (HELD_OUT, note) if note else (HELD_OUT,)
    header = not text.startswith(str(Z[0, 0]))
    assert data.columns == (("a", "b, too" if "too" in text else "b", "c") if header else ())
    torch.testing.assert_close(values_of(data), SORTED, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1.5,2\n3,x\n", "holds 'x', which is no number, in line 3, cell 2 \\(b\\)"),
        ("1.5,2\n3,\n", "holds no number, in line 2, cell 2; give numbers"),
        ("a;b\n1,5;2\n", "holds '1,5', which is no number, in line 2, cell 1 \\(a\\)"),
        ("a,b\n1.5,2\n3,4,5\n", "has 3 numbers in line 3 where there are 2 columns"),
        ("a,b\n1.5,2,3\n3,4,5\n", "names 2 columns and has 3 in its rows"),
        ("a,b\n", "has no rows of numbers"),
        ("", "has no rows of numbers"),
        ("a,b\n0.5,2\n1,nan\n", r"holds 1 values that are not finite in float32, the first in row 1, column 1 \(b\)"),
        ("label\n1\n2\n", "is empty"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "my.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        load(str(path))
    assert "\n" not in str(refusal.value)


def test_a_table_in_another_alphabet(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        load(str(path))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("version", ["4", "5"])
def test_matlab(tmp_path: Path, version: str, compressed: bool) -> None:
    path = tmp_path / "my.mat"
    io.savemat(path, {"X": Z, "y": np.arange(40.0)[:, None]}, format=version, do_compression=compressed)
    data = load(str(path))
    torch.testing.assert_close(values_of(data), SORTED, rtol=0, atol=0)
    assert data.notes == (HELD_OUT, "The labels y are left out, as they are no integers [N].")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ConfigError, match="cannot be read as numeric arrays"):
        load(str(path))


def test_matlab_sparse_and_unnamed(tmp_path: Path) -> None:
    path = tmp_path / "my.mat"
    io.savemat(path, {"fea": sparse.csc_array(Z), "gnd": np.ones((40, 1)), "text": "of whom", "s": {"a": 1.0}})
    data = load(str(path))
    torch.testing.assert_close(values_of(data), SORTED, rtol=0, atol=0)
    assert data.notes == (HELD_OUT, "Of its arrays gnd is not used.")


def test_matlab_with_items_last(tmp_path: Path) -> None:
    path = tmp_path / "my.mat"
    io.savemat(path, {"X": np.random.default_rng(0).random((5, 6, 3, 40)), "y": np.arange(40)[:, None]})
    with pytest.raises(ConfigError, match=r"items seem to stand last, so move them with np\.moveaxis"):
        load(str(path))


def test_a_damaged_code_of_a_type_does_not_end_the_process(tmp_path: Path) -> None:
    """The code 9 (double) of the numbers becomes 136, which scipy's reader looks up beyond its table."""
    path = tmp_path / "my.mat"
    io.savemat(path, {"X": Z})
    raw = bytearray(path.read_bytes())
    assert raw[176:184] == bytes((9, 0, 0, 0, 192, 3, 0, 0))
    raw[176] = 136
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="cannot be read as numeric arrays"):
        load(str(path))


def test_sparse_places_beyond_the_matrix(tmp_path: Path) -> None:
    matrix = sparse.csr_array(np.eye(5))
    matrix.indices[2] = 10**6
    sparse.save_npz(tmp_path / "my.npz", matrix)
    with pytest.raises(ConfigError, match="cannot be read as numeric arrays"):
        load(str(tmp_path / "my.npz"))


def test_matlab_7_3(tmp_path: Path) -> None:
    path = tmp_path / "my.mat"
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(ConfigError, match=r"is a \.mat of MATLAB 7\.3, which is HDF5, .*import h5py") as refusal:
        load(str(path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.bsr_array])
def test_sparse(tmp_path: Path, kind: type) -> None:
    path, dense = tmp_path / "my.npz", np.where(Z > 0.3, Z, 0)
    sparse.save_npz(path, kind(dense))
    np.save(tmp_path / "dense.npy", dense)
    for more in ({}, {"n_train": 7, "seed": 2}):
        found, expected = load(str(path), **more), load(str(tmp_path / "dense.npy"), **more)
        assert torch.equal(found.train, expected.train) and torch.equal(found.test, expected.test)


@pytest.mark.parametrize(
    ("train", "test", "labels"),
    [
        ("X_train", "X_test", "y_train"),
        ("X", "x_test", "Y"),
        ("data", "test", "target"),
        ("images", "test_images", "labels"),
        ("train_images", "test_images", "train_labels"),
        ("TRAIN", "Test", "LABELS"),
    ],
)
def test_names_of_arrays(tmp_path: Path, train: str, test: str, labels: str) -> None:
    path = tmp_path / "MY.NPZ"
    with path.open("wb") as file:
        np.savez(file, **{train: Z, test: Z[:5] / 2, labels: np.arange(40), "ids": np.arange(40), "noise": Z[:, :1]})
    data = load(str(path))
    assert torch.equal(data.train, torch.from_numpy(Z.astype(np.float32))) and torch.equal(
        data.test, data.train[:5] / 2
    )
    assert data.train_labels is not None and data.train_labels.tolist() == list(range(40))
    assert data.notes == ("Of its arrays ids, noise are not used.",)


@pytest.mark.parametrize(
    "labels", [np.arange(40.0), np.eye(40), np.array(["a"] * 40)], ids=["float", "one-hot", "words"]
)
def test_labels_of_another_kind_are_left_out(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "my.npz", x=Z, y=labels)
    data = load(str(tmp_path / "my.npz"))
    left_out = "The labels y are left out, as they are no integers [N]."
    assert data.train_labels is None and data.notes == (HELD_OUT, left_out)


def test_two_arrays_that_may_be_meant(tmp_path: Path) -> None:
    np.savez(tmp_path / "my.npz", X=Z, images=Z)
    with pytest.raises(ConfigError, match=r"holds the arrays \['X', 'images'\]; name one train"):
        load(str(tmp_path / "my.npz"))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("my.pkl", "pickle.loads"),
        ("my.pickle:threshold", "pickle.loads"),
        ("my.h5", "h5py.File"),
        ("my.HDF5", "h5py.File"),
        ("my.parquet", "pd.read_parquet"),
        ("my.pt", "torch.load"),
        ("my.pth", "torch.load"),
    ],
)
def test_other_files_are_refused_with_the_lines_that_convert_them(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(b"anything")
    with pytest.raises(ConfigError, match=rf"and not read; convert it: .*{word}.*np\.savez\('my\.npz'") as refusal:
        load(str(tmp_path / name))
    assert "\n" not in str(refusal.value)


def _lines(message: str) -> str:
    return message.partition("convert it: ")[2].rstrip(".").replace("; ", "\n")


class _H5py:
    """Answers what a file of h5py answers to the lines: an array by its name, read whole by [:]."""

    def __init__(self, path: str) -> None:
        assert Path(path).exists()

    def __getitem__(self, name: str) -> np.ndarray:
        return Z.T if name == "NAME" else Z


class _Frame:
    def to_numpy(self, dtype: type) -> np.ndarray:
        return Z.astype(dtype)


@pytest.mark.parametrize("name", ["my.h5", "my.mat", "my.parquet"])
def test_the_lines_of_libraries_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They run against stand-ins that answer the calls of h5py and pandas; their files are not read."""
    monkeypatch.chdir(tmp_path)
    h5py, pandas = types.ModuleType("h5py"), types.ModuleType("pandas")
    h5py.File, pandas.read_parquet = _H5py, lambda path: _Frame()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    Path(name).write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(ConfigError) as refusal:
        load(name)
    exec(_lines(str(refusal.value)), {})
    torch.testing.assert_close(values_of(load("my.npz")), SORTED, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["pkl", "pt", "folder", "folder of colour"])
def test_the_lines_do_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """h5py and a reader of parquet are not among what hvae needs, so their lines are not run here."""
    monkeypatch.chdir(tmp_path)
    bytes_ = np.random.default_rng(0).integers(0, 256, (20, 4, 5), dtype=np.uint8)
    if kind.startswith("folder"):
        from PIL import Image

        name, values, ending = "my", bytes_, ".bmp" if "colour" in kind else ".png"
        (tmp_path / name).mkdir()
        (tmp_path / name / "read me.txt").touch()
        for i, image in enumerate(values):
            picture = np.stack([image] * 3, -1) if "colour" in kind else image
            Image.fromarray(picture).save(tmp_path / name / f"{i:03}{ending}")
    else:
        name, values = f"my.{kind}", Z
        if kind == "pt":
            torch.save(torch.from_numpy(Z), name)
        else:
            Path(name).write_bytes(pickle.dumps(Z.tolist()))
    with pytest.raises(ConfigError) as refusal:
        load(name)
    exec(_lines(str(refusal.value)), {})
    with np.load("my.npz") as arrays:
        np.testing.assert_array_equal(arrays["train"], values)


def test_rows_are_drawn_before_they_are_converted(tmp_path: Path) -> None:
    """A map of 64 MB of bytes, which are 256 MB as floats; 40 rows and the blocks that look for its range are held."""
    path = tmp_path / "my.npy"
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(2**16, 2**10))
    values[:, ::7] = 200
    values[:, 0] = np.arange(2**16) % 256
    del values
    tracemalloc.start()
    data = load(str(path), n_train=20, n_test=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.train.shape == data.test.shape == (20, 2**10) and data.kind == "grey"
    assert peak < 64e6
