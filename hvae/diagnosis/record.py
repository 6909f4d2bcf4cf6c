"""Records of arrays: what each field is, and its key in a file of arrays.

A record is a frozen dataclass with fields made by these functions. R replicas stand along the first axis of all but
`shared` ones. So one replica is a record with R = 1, several are `joined`, and a file of flat arrays is `read` and made
by `flat`. What was not measured is NaN of the right shape, False, or no text.

    numbers(3)               [R, 3], in the file under the field's name
    numbers(3, key="a")      [R, 3], in the file under the key a
    numbers(3, layers=True)  layer -> [R, 3], in the file under <key>/<layer>
    flags, texts             [R] true or false, R sentences
    shared                   what all replicas have in common, without R
    parts(Part)              layer -> record of the type Part, its keys followed by /<layer>
    settings                 the whole numbers that the record depends on
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hvae.vocabulary import FAILED

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Texts = tuple[str, ...]
"""[R] a sentence, or empty"""
Setting = int | tuple[int, ...]

T = TypeVar("T")

SETTINGS = (
    "n_images", "n_largest", "n_draws", "n_temperatures", "n_chains", "n_leapfrog", "seed", "step",
    "n_test",
)  # fmt: skip
"""names of settings in a file of arrays"""


@dataclass(frozen=True)
class _Stored:
    kind: str
    key: str
    shape: tuple[int, ...] = ()
    layers: bool = False
    part: type[Any] | None = None
    missing: Any = None


def numbers(*shape: int, key: str = "", layers: bool = False) -> Any:
    """Numbers of every replica; they may be whole, or words."""
    return _field(_Stored("numbers", key, shape, layers))


def flags(key: str = "") -> Any:
    """True or false for every replica; False where unknown."""
    return _field(_Stored("flags", key))


def texts(key: str = "", *, layers: bool = False) -> Any:
    """A sentence for every replica, or no words."""
    return _field(_Stored("texts", key, (), layers))


def shared(key: str = "", *, layers: bool = False, missing: Any = None) -> Any:
    """What all replicas have in common: an array, a number or a text; ``missing`` where it is not there."""
    return _field(_Stored("shared", key, (), layers, missing=missing))


def parts(kind: type[Any]) -> Any:
    """A record for every layer."""
    return _field(_Stored("parts", "", part=kind))


def settings(*more: str) -> Any:
    """The settings that are there, those of `SETTINGS` and ``more``."""
    return _field(_Stored("settings", " ".join((*SETTINGS, *more))))


def _field(stored: _Stored) -> Any:
    return field(metadata={"stored": stored})


def _stored(kind: type[Any]) -> list[tuple[str, _Stored]]:
    return [(f.name, f.metadata["stored"]) for f in fields(kind) if "stored" in f.metadata]


def read(kind: type[T], arrays: Arrays, n_replicas: int, layers: Sequence[str] = (), suffix: str = "") -> T:
    """The record that stands in flat arrays."""
    return kind(**read_fields(kind, arrays, n_replicas, layers, suffix))


def read_fields(
    kind: type[Any], arrays: Arrays, n_replicas: int, layers: Sequence[str] = (), suffix: str = ""
) -> dict[str, Any]:
    """The fields of a record that stand in flat arrays."""
    return {name: _read(name, stored, arrays, n_replicas, layers, suffix) for name, stored in _stored(kind)}


def _read(name: str, stored: _Stored, arrays: Arrays, n: int, layers: Sequence[str], suffix: str) -> Any:
    key = stored.key or name
    if stored.part is not None:
        return {layer: read(stored.part, arrays, n, layers, f"/{layer}") for layer in layers}
    if stored.kind == "settings":
        return {each: _setting(arrays[each]) for each in key.split() if each in arrays}
    if stored.layers:
        found = {layer: _one(stored, arrays, f"{key}/{layer}", n) for layer in layers}
        return {layer: values for layer, values in found.items() if values is not None}
    return _one(stored, arrays, f"{key}{suffix}", n)


def _one(stored: _Stored, arrays: Arrays, key: str, n: int) -> Any:
    match stored.kind:
        case "texts":
            return tuple("" if text == FAILED else str(text) for text in np.broadcast_to(arrays.get(key, ""), n))
        case "flags":
            return np.asarray(arrays.get(key, np.full(n, 0.0))) == 1
        case "shared":
            return _plain(arrays[key]) if key in arrays else stored.missing
    return arrays.get(key, np.full((n, *stored.shape), np.nan))


def _plain(array: Array) -> Any:
    """A text or a single number as such."""
    return array.item() if np.ndim(array) == 0 else array


def _setting(array: Array) -> Setting:
    return tuple(map(int, array)) if np.ndim(array) else int(array)


def flat(record: Any, alive: Sequence[bool], suffix: str = "") -> dict[str, Array]:
    """The arrays of a file. A replica that is not alive has `FAILED` for a text."""
    found: dict[str, Array] = {}
    for name, stored in _stored(type(record)):
        value, key = getattr(record, name), stored.key or name
        if stored.part is not None:
            for layer, part in value.items():
                found |= flat(part, alive, f"/{layer}")
        elif stored.kind == "settings":
            found |= {each: np.array(number) for each, number in value.items()}
        elif stored.layers:
            found |= {f"{key}/{layer}": _as_array(stored, values, alive) for layer, values in value.items()}
        elif value is not None:
            found[key + suffix] = _as_array(stored, value, alive)
    return found


def _as_array(stored: _Stored, value: Any, alive: Sequence[bool]) -> Array:
    return words(value, alive) if stored.kind == "texts" else np.asarray(value)


def words(values: Sequence[str], alive: Sequence[bool]) -> Array:
    """Texts as they stand in a file."""
    return np.array([text or ("" if good else FAILED) for text, good in zip(values, alive, strict=True)])


def of_one(kind: type[T], **values: Any) -> T:
    """The record of a single replica, from values without its axis."""
    for name, stored in _stored(kind):
        if stored.kind in _OF_REPLICAS and values.get(name) is not None:
            first = _OF_REPLICAS[stored.kind]
            value = values[name]
            values[name] = {key: first(each) for key, each in value.items()} if stored.layers else first(value)
    return kind(**values)


def _first(value: Any) -> Array:
    found: Array = np.asarray(value)[None]
    return found


def _text(value: Any) -> Texts:
    return (str(value),)


_OF_REPLICAS: Mapping[str, Callable[[Any], Any]] = {"numbers": _first, "flags": _first, "texts": _text}
"""kind of a field -> how the value of one replica gets the axis of replicas"""


def joined(found: Sequence[T | None], like: T | None = None) -> T:
    """Replicas side by side. None is one that was not measured: NaN, -1, False, "failed" for a word, no text.

    Where none was measured, ``like`` shows the shapes. Raises ValueError without it.
    """
    template = next((record for record in found if record is not None), like)
    if template is None:
        raise ValueError("None of the replicas was measured, so there is no record to join.")
    values: dict[str, Any] = {}
    for f in fields(template):  # type: ignore[arg-type]
        stored, pattern = f.metadata.get("stored"), getattr(template, f.name)
        each = [None if record is None else getattr(record, f.name) for record in found]
        values[f.name] = pattern if stored is None else _joined(stored, each, pattern)
    return type(template)(**values)


def _joined(stored: _Stored, each: Sequence[Any], like: Any) -> Any:
    if stored.kind in ("shared", "settings"):
        return like
    if not stored.layers and stored.part is None:
        return _JOIN[stored.kind](each, like)
    join = _JOIN[stored.kind]
    there = [value for value in (*each, like) if value is not None]
    keys = dict.fromkeys(key for value in there for key in value)
    return {
        key: join(
            [None if value is None else value.get(key) for value in each],
            next(value[key] for value in there if key in value),
        )
        for key in keys
    }


def _sentences(each: Sequence[Texts | None], like: Texts) -> Texts:
    return tuple("" if text is None else text[0] for text in each)


def _columns(each: Sequence[Array | None], like: Array | None) -> Array | None:
    like = next((values for values in each if values is not None), like)
    if like is None:
        return None
    missing: Any = {"U": FAILED, "i": -1, "b": False}.get(like.dtype.kind, np.nan)
    dtype = "U64" if like.dtype.kind == "U" else like.dtype
    return np.concatenate([np.full(like.shape, missing, dtype) if values is None else values for values in each])


_JOIN: Mapping[str, Callable[[Sequence[Any], Any], Any]] = {
    "numbers": _columns, "flags": _columns, "texts": _sentences, "parts": joined,
}  # fmt: skip
