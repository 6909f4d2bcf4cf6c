"""From a file to its arrays, as they stand in it: .npy, .npz of numpy and of scipy.sparse, .csv, .tsv, .mat.

A .npy is opened as a map and a sparse matrix stays sparse, so rows can be drawn before anything is converted. Files of
other kinds are refused with the lines that write an .npz of them.
"""

import csv
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hvae.errors import ConfigError
from hvae.outside import check_archive, check_array

MOST_BYTES = 16 * 2**30
"""of an archive, unpacked; of a .npy only the rows that are used are held"""
LEFT_OUT = ("label", "labels", "target", "y", "class")
"""headers of a column that tells classes"""

_SAVE = "np.savez('{stem}.npz', train={x})"
_REFUSED: dict[str, tuple[str, str, str]] = {
    ".pkl": (
        "a pickle, which may run code",
        "import pickle; from pathlib import Path; x = pickle.loads(Path('{path}').read_bytes())",
        "np.asarray(x)",
    ),
    ".h5": ("HDF5", "import h5py; x = h5py.File('{path}')['NAME OF THE ARRAY'][:]", "x"),
    ".mat": ("a .mat of MATLAB 7.3, which is HDF5", "import h5py; x = h5py.File('{path}')['NAME'][:].T", "x"),
    ".parquet": ("a parquet table", "import pandas as pd; x = pd.read_parquet('{path}')", "x.to_numpy(float)"),
    ".pt": ("a file of torch", "import torch; x = torch.load('{path}', weights_only=True)", "x.numpy()"),
    "": (
        "a folder",
        "from PIL import Image; from pathlib import Path; x = [np.asarray(Image.open(f).convert('L')) "
        "for f in sorted(Path('{path}').glob('*{most}'))]",
        "np.stack(x)",
    ),
}
_TRY_MATLAB = "import sys; from scipy import io; io.loadmat(sys.argv[1])"
_ALIKE = {".pickle": ".pkl", ".hdf5": ".h5", ".pth": ".pt"}


@dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix of scipy.sparse ``[N, D]``, whose rows are arrays.

    >>> from scipy import sparse
    >>> Sparse(sparse.eye_array(3, format="csr"))[1:2].tolist()
    [[0.0, 1.0, 0.0]]
    """

    matrix: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.matrix.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = self.matrix.dtype
        return found

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        dense: NDArray[Any] = self.matrix[rows].toarray()
        return dense


Items: TypeAlias = NDArray[Any] | Sparse


@dataclass(frozen=True, eq=False)
class Contents:
    """The arrays of a file, by name.

    >>> Contents({"train": np.eye(2)}).notes
    ()
    """

    arrays: Mapping[str, Items]
    columns: tuple[str, ...] = ()
    """names of the columns of a table"""
    notes: tuple[str, ...] = ()
    """what was left out, in sentences"""


def suffix(path: str) -> str:
    """The ending of a file in small letters, if files that end so are read or are refused with how: else "".

    >>> suffix("my.NPZ"), suffix("mnist-grey")
    ('.npz', '')
    """
    found = Path(path).suffix.lower()
    return found if found in (*_READERS, *_REFUSED, *_ALIKE) else ""


def read(path: Path) -> Contents:
    """The arrays of a file. Raises `ConfigError` where there are none that can be read."""
    ending = suffix(str(path))
    if path.is_dir() and ending not in _READERS:
        raise ConfigError(_how(path, ""))
    if not path.is_file():
        raise ConfigError(f"{path} is not there; give a {', '.join(_READERS)} file, or a name from `hvae data list`.")
    if ending not in _READERS:
        raise ConfigError(_how(path, _ALIKE.get(ending, ending)))
    try:
        return _READERS[ending](path)
    except ConfigError:
        raise
    except Exception as error:  # readers of numpy and scipy raise errors of many kinds where a file is damaged
        raise ConfigError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    return (
        f"{path} cannot be read as numeric arrays, being truncated, damaged or of another kind ({reason}); "
        "write it again with np.savez(path, train=x)."
    )


def _how(path: Path, ending: str) -> str:
    what, lines, x = _REFUSED[ending]
    save = _SAVE.format(stem=path.stem, x=x)
    lines = lines.format(path=path, most=_most_frequent_ending(path))
    return f"{path} is {what}, and not read; convert it: import numpy as np; {lines}; {save}."


def _most_frequent_ending(path: Path) -> str:
    """Of the files of a folder."""
    endings = Counter(file.suffix for file in path.iterdir() if file.is_file()) if path.is_dir() else Counter()
    return next((ending for ending, _ in endings.most_common() if ending), ".png")


def _numpy(path: Path) -> Contents:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if not zipped:
        with path.open("rb") as file:
            check_array(file, path.stat().st_size, path.name)
        return Contents({"train": np.load(path, allow_pickle=False, mmap_mode="r")})
    check_archive(path, most=MOST_BYTES)
    with np.load(path, allow_pickle=False) as archived:
        if {"format", "shape", "data"} <= set(archived.files):
            from scipy import sparse

            return Contents({"train": _sparse(sparse.load_npz(path))})
        members = {key: archived[key] for key in archived.files}
    # a member that is no array comes as bytes
    return Contents({key: array for key, array in members.items() if isinstance(array, np.ndarray)})


def _sparse(matrix: Any) -> Sparse:
    if hasattr(matrix, "check_format"):  # places beyond the matrix would be written to
        matrix.check_format(full_check=True)
    return Sparse(matrix.tocsr())


def _matlab(path: Path) -> Contents:
    from scipy import io, sparse

    # scipy does not check the codes of types that it finds in a damaged file, and the process ends; so try in another
    tried = subprocess.run([sys.executable, "-c", _TRY_MATLAB, str(path)], capture_output=True)
    if tried.returncode < 0:
        raise ValueError("scipy.io.loadmat ends with it")
    try:
        members = io.loadmat(path)
    except NotImplementedError:  # what scipy says of MATLAB 7.3
        raise ConfigError(_how(path, ".mat")) from None
    found: dict[str, Items] = {}
    for key, array in members.items():
        if sparse.issparse(array):
            found[key] = _sparse(array)
        elif isinstance(array, np.ndarray) and array.dtype.kind in "buifc" and array.size > 1:
            found[key] = array
    return Contents(found)


def _table(path: Path) -> Contents:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            delimiter = max(",;\t", key=first.count)
            cells = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
            header = cells if not all(map(_is_number, cells)) else []
            # an index that pandas wrote has no name
            out = [i for i, name in enumerate(header) if name.lower() in LEFT_OUT or (i == 0 and name == "")]
            if not header:
                file.seek(0)
            with warnings.catch_warnings(category=UserWarning, action="ignore"):  # of no data
                values = np.loadtxt(
                    file,
                    delimiter=delimiter,
                    quotechar='"',
                    comments=None,
                    ndmin=2,
                    converters=dict.fromkeys(out, lambda cell: 0.0),
                )
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8; save the table as CSV in UTF-8.") from None
    except ValueError as error:
        raise ConfigError(_first_bad(path, delimiter, header, out) or _damaged(path, error)) from None
    if values.size == 0:
        raise ConfigError(f"{path} has no rows of numbers; give one line for each item.")
    if header and values.shape[1] != len(header):
        raise ConfigError(f"{path} names {len(header)} columns and has {values.shape[1]} in its rows; make them equal.")
    kept = [i for i in range(values.shape[1]) if i not in out]
    names = tuple(header[i] for i in kept) if header else ()
    notes = [] if header else ["The file has no header: its first line is read as data."]
    notes += [f"The column {header[i]} is left out." if header[i] else "The first column is left out." for i in out]
    return Contents({"train": values[:, kept]}, names, tuple(notes))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_bad(path: Path, delimiter: str, header: list[str], out: list[int]) -> str:
    """The sentence on the first row or cell of a table that cannot be read."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader, n_columns, named = csv.reader(file, delimiter=delimiter), len(header), bool(header)
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if named:
                named = False
                continue
            n_columns = n_columns or len(cells)
            if len(cells) != n_columns:
                return (
                    f"{path} has {len(cells)} numbers in line {reader.line_num} where there are {n_columns} columns; "
                    "give each row as many."
                )
            for i, cell in enumerate(cells):
                if i not in out and not _is_number(cell):
                    name = f" ({header[i]})" if header else ""
                    what = f"{cell.strip()!r}, which is no number" if cell.strip() else "no number"
                    return (
                        f"{path} holds {what}, in line {reader.line_num}, cell {i + 1}{name}; give numbers with a "
                        "point, and name a column of classes label."
                    )
    return ""


_READERS: dict[str, Callable[[Path], Contents]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".csv": _table,
    ".tsv": _table,
    ".mat": _matlab,
}
