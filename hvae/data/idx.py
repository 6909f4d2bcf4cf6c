"""Reads the IDX files of MNIST: a gzipped header (magic, one count per axis), then unsigned bytes.

Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvae.errors import ConfigError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes of a gzipped IDX file that must have this `shape`.

    At most one byte more than the shape needs is ever unpacked, so a file that unpacks without end costs nothing.
    Raises `ConfigError` for a wrong magic, wrong counts, too few or too many bytes and a broken gzip stream.
    """
    n_bytes = math.prod(shape)
    header_bytes = 4 + 4 * len(shape)
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(header_bytes)
            _check_header(header, path, shape)
            body = file.read(n_bytes + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be unpacked ({error}); fetch it again with `hvae data get`.") from None
    if len(body) != n_bytes:
        found = f"{len(body)} bytes" if len(body) < n_bytes else "more bytes"
        raise ConfigError(
            f"{path} holds {found}, not the {n_bytes} of its header; fetch it again with `hvae data get`."
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _check_header(header: bytes, path: Path, shape: tuple[int, ...]) -> None:
    magic = bytes((0, 0, UNSIGNED_BYTE, len(shape)))
    if header[:4] != magic:
        raise ConfigError(
            f"{path} begins with {header[:4].hex()}, not with {magic.hex()} (IDX, unsigned bytes, {len(shape)} axes); "
            "fetch it again with `hvae data get`."
        )
    if len(header) < 4 + 4 * len(shape):
        raise ConfigError(f"{path} ends inside its header; fetch it again with `hvae data get`.")
    counts = struct.unpack(f">{len(shape)}I", header[4:])
    if counts != shape:
        raise ConfigError(f"{path} announces shape {counts} instead of {shape}; fetch it again with `hvae data get`.")
