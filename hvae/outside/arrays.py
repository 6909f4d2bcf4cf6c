"""Arrays from an .npy or .npz of numpy, without pickle.

The header of every array is read first: its size must be what the file holds, before any memory is taken for it. In an
archive a small file may stand for terabytes. So the sizes that its directory gives must be what its bytes can unpack
to, and not more than a limit in all.
"""

import math
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hvae.outside.text import sound

MOST_UNPACKED = 2**30
"""bytes of all arrays of an archive of a run"""
MOST_MEMBERS = 100_000
MOST_AXES = 32
MOST_RATIO = 1032
"""of deflated bytes to those they unpack to: deflate's own limit (Zlib's technical notes)"""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADER = re.compile(
    r"\{\s*'descr': '([<>|=]?[biufcSU][0-9]{1,9}|\|b1)', 'fortran_order': (?:True|False), "
    r"'shape': \(((?:[0-9]{1,15}, ?)*(?:[0-9]{1,15})?)\),? *\}\s*"
)
"""as numpy writes it; what numpy would evaluate beyond that is never an array of numbers"""


def load_arrays(file: Path, remedy: str, *, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz by name, or ``only`` some. Raises `ConfigError`, with the remedy, and FileNotFoundError."""
    with sound(file, remedy):
        check_archive(file, most=MOST_UNPACKED)
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in (arrays.files if only is None else only)}


def check_archive(file: Path, *, most: int) -> None:
    """Raise ValueError unless ``file`` is a zip of whole arrays that take at most ``most`` bytes in all.

    Members that are no .npy are passed over, as they are by those who read.
    """
    n_bytes = file.stat().st_size
    if not file.is_file():
        raise ValueError("it is no regular file")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(members) > MOST_MEMBERS:
            raise ValueError(f"it has {len(members)} members, more than {MOST_MEMBERS}")
        if len(set(names)) < len(names):
            raise ValueError("it has two members of the same name")
        if sum(member.compress_size for member in members) > n_bytes:
            raise ValueError("its members are larger than the file")
        n_unpacked = sum(member.file_size for member in members)
        if n_unpacked > most:
            raise ValueError(f"it unpacks to {n_unpacked / 2**30:.1f} GiB, more than {most / 2**30:g} GiB")
        for member in members:
            _check_member(member)
            if member.filename.endswith(".npy"):
                with archive.open(member) as content:
                    check_array(content, member.file_size, member.filename)


def _check_member(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 0x1:
        raise ValueError(f"{member.filename[:60]!r} is encrypted")
    if member.compress_type not in _METHODS:
        raise ValueError(f"{member.filename[:60]!r} is packed by method {member.compress_type}, not by deflate")
    ratio = MOST_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1
    if member.file_size > ratio * member.compress_size:
        raise ValueError(f"{member.filename[:60]!r} is said to unpack to more than its bytes can")


def check_array(content: IO[bytes], n_bytes: int, name: str) -> None:
    """Raise ValueError unless an .npy of ``n_bytes`` bytes is what its header says; nothing is taken for the array."""
    magic = content.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError(f"{name[:60]!r} is no array of numpy")
    width = 2 if magic[6] == 1 else 4
    n_header = int.from_bytes(content.read(width), "little")
    if n_header > 10_000:
        raise ValueError(f"the header of {name[:60]!r} has {n_header} bytes")
    text = content.read(n_header).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if found is None:
        objects = "'|O'" in text
        raise ValueError(f"{name[:60]!r} {'holds Python objects' if objects else 'has a header that is not read'}")
    shape = [int(axis) for axis in found[2].split(",") if axis.strip()]
    if len(shape) > MOST_AXES:
        raise ValueError(f"{name[:60]!r} has {len(shape)} axes, more than {MOST_AXES}")
    wanted = math.prod(shape) * np.dtype(found[1]).itemsize
    held = n_bytes - len(magic) - width - n_header
    if wanted != held:
        raise ValueError(f"{name[:60]!r} is said to take {wanted} bytes, and has {held}")
