"""Many small arrays in one small file.

An .npz spends some 250 bytes on each array, and the runs of a page have thousands. Here arrays of one dtype stand one
after the other, their bytes in planes (all first bytes, then all second ones), which compress better; `index` says
where each begins.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvae.lab.runs.files import load_arrays, write_atomically
from hvae.outside import from_json, sound

Array = NDArray[Any]
TEXT = "text"


def save_packed(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays; equal arrays make equal bytes. Numbers, booleans and strings only."""
    blocks: dict[str, list[Array]] = {}
    index = []
    for key, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.hasobject:
            raise TypeError(f"{key} of {path.name} is an array of objects; give numbers, booleans or strings.")
        kind = TEXT if array.dtype.kind == "U" else array.dtype.name
        index.append([key, kind, array.shape])
        blocks.setdefault(kind, []).append(array.ravel())
    stored = {"index": _encoded(index)}
    for kind, parts in blocks.items():
        values = np.concatenate(parts)
        stored[kind] = _encoded(values.tolist()) if kind == TEXT else _planes(values)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def load_packed(path: Path, remedy: str) -> dict[str, Array]:
    """Read what `save_packed` wrote. Raises `ConfigError`, with the remedy, where it is missing or damaged."""
    with sound(path, remedy):
        stored = load_arrays(path, remedy)
        blocks = {kind: _values(kind, block) for kind, block in stored.items() if kind != "index"}
        places, found = dict.fromkeys(blocks, 0), {}
        for key, kind, shape in from_json(stored["index"].tobytes()):
            begin = places[kind]
            places[kind] = begin + int(np.prod(shape, dtype=int))
            found[key] = blocks[kind][begin : places[kind]].reshape(shape)
    return found


def _encoded(value: Any) -> Array:
    return np.frombuffer(json.dumps(value, separators=(",", ":")).encode(), dtype=np.uint8)


def _planes(values: Array) -> Array:
    """`[itemsize, N]` bytes."""
    return np.ascontiguousarray(values.view(np.uint8).reshape(len(values), values.itemsize).T)


def _values(kind: str, block: Array) -> Array:
    if kind == TEXT:
        return np.array(from_json(block.tobytes()), dtype=str)
    return np.ascontiguousarray(block.T).view(np.dtype(kind)).ravel()
