"""Data as people have them, as tensors by name: arrays, dicts, data sets, loaders, AnnData, sparse counts.

A subset is drawn at random with a recorded seed, since test sets may be sorted.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hvae import rng
from hvae.errors import ConfigError
from hvae.foreign.data import Tree, rows_of, take, tensors_of
from hvae.numerics import all_equal

MOST = 100_000
"""data that are read from a stream at most"""


@dataclass(frozen=True)
class Data:
    """The observed variables and the context of n data, in random order.

    >>> data = Data.of(torch.eye(5)[:, :2], context=torch.arange(5))
    >>> data.n, data.whole, data.observed["x"].shape
    (5, True, torch.Size([5, 2]))
    """

    observed: Mapping[str, Tensor]
    context: Tree
    whole: bool
    """whether x is one tensor, not a dict of them"""
    n_given: int
    """data that were handed over"""
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Data that are kept."""
        return len(next(iter(self.observed.values())))

    @property
    def name(self) -> str:
        """Equal for equal data, as they have no other name."""
        digest = hashlib.sha256()
        for name, values in self.observed.items():
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        shapes = " and ".join("x".join(map(str, values.shape)) for values in self.observed.values())
        return f"{digest.hexdigest()[:8]} of shape {shapes}"

    @staticmethod
    def of(x: Any, context: Any = None, *, most: int = MOST, seed: int = 0, like: torch.dtype | None = None) -> "Data":
        """At most ``most`` data; floats in the dtype ``like``. Raises `ConfigError` for what has no rows."""
        notes: list[str] = []
        observed, whole = _observed(x, notes)
        n = _length(observed)
        other = None if context is None else _tree(context)
        if other is not None:
            if not tensors_of(other):
                raise ConfigError("the context is empty; give one row a datum, or leave it out.")
            wrong = [length for length in rows_of(other) if length != n]
            if wrong:
                raise ConfigError(f"the context has {wrong[0]} rows and x has {n}; give one row a datum.")
        order = rng.permutation(n, seed=seed, purpose="evaluation")[:most]
        kept = {name: _float(values, like)[order.to(values.device)] for name, values in observed.items()}
        if all(map(all_equal, kept.values())):
            raise ConfigError(f"all {n} data are equal, so no layer can tell them apart; give data that differ.")
        if other is not None:
            device = next(iter(tensors_of(other)), order).device
            other = take(other, order.to(device))
        return Data(kept, other, whole, n, tuple(notes))


def _observed(x: Any, notes: list[str]) -> tuple[dict[str, Tensor], bool]:
    if isinstance(x, Mapping):
        if not x:
            raise ConfigError("x is an empty dict; give one array for each observed variable.")
        return {str(name): _tensor(values, f"x[{name!r}]") for name, values in x.items()}, False
    if isinstance(x, Dataset | DataLoader):
        return _stream(x, notes)
    if hasattr(x, "X") and hasattr(x, "obs"):  # AnnData
        return {"x": _tensor(x.X, "x.X")}, True
    return {"x": _tensor(x, "x")}, True


def _stream(x: Any, notes: list[str]) -> tuple[dict[str, Tensor], bool]:
    """A data set or a loader: its first part where its items are pairs, as (x, label)."""
    found: list[Any] = []
    count = 0
    batches: Iterable[Any] = x if isinstance(x, DataLoader) else (_batched(item) for item in _items(x))
    for batch in batches:
        if isinstance(batch, Sequence) and not isinstance(batch, str):
            if len(batch) > 1 and not notes:
                notes.append("The data come as tuples: the first entry is x, the others were left out.")
            batch = batch[0]
        found.append(batch)
        count += len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)
        if count >= MOST:
            notes.append(f"Only the first {count} data of the stream were read.")
            break
    if not found:
        raise ConfigError("the loader gives no data; give at least two.")
    if isinstance(found[0], Mapping):
        return {str(name): _joined([_tensor(part[name], name) for part in found]) for name in found[0]}, False
    return {"x": _joined([_tensor(part, "x") for part in found])}, True


def _items(x: Any) -> Iterable[Any]:
    return (x[i] for i in range(len(x))) if hasattr(x, "__len__") else x


def _batched(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {name: _one(value) for name, value in item.items()}
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [_one(item[0]), *item[1:]]
    return _one(item)


def _one(item: Any) -> Tensor:
    try:
        return torch.as_tensor(item).unsqueeze(0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"an item of the data set is a {type(item).__name__}; let it give a tensor.") from error


def _joined(parts: Sequence[Tensor]) -> Tensor:
    try:
        return torch.cat([*parts])
    except RuntimeError as error:
        raise ConfigError(_RAGGED.format("x is a stream")) from error


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        found = _dense(values.detach(), name)
    else:
        if hasattr(values, "toarray"):  # a sparse matrix
            values = values.toarray()
        if hasattr(values, "to_numpy"):  # a data frame
            values = values.to_numpy()
        try:
            array = np.asarray(values)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(_RAGGED.format(f"{name} is a {type(values).__name__}")) from error
        if array.dtype.kind not in "fiub":
            raise ConfigError(
                f"{name} is a {type(values).__name__} of {array.dtype}; give numbers: a tensor, an array, a dict of "
                "them, a data set or a loader."
            )
        found = torch.from_numpy(np.ascontiguousarray(array))
    if found.ndim == 0:
        raise ConfigError(f"{name} is one number; its first axis is the data.")
    if len(found) and not found.numel():
        raise ConfigError(f"{name} has the shape {tuple(found.shape)}, no number a datum; give at least one.")
    return found


_RAGGED = "{} whose rows cannot be one array; pad them to one length, and hand the mask to hvae.masked."


def _dense(values: Tensor, name: str) -> Tensor:
    if values.is_nested:
        raise ConfigError(_RAGGED.format(f"{name} is a nested tensor"))
    if values.is_meta or values.is_complex():
        raise ConfigError(
            f"{name} is of {values.dtype} on {values.device}; give real numbers, on a device that has them."
        )
    return values if values.layout == torch.strided else values.to_dense()


def _tree(context: Any) -> Tree:
    if isinstance(context, Mapping):
        return {name: _tree(values) for name, values in context.items()}
    if isinstance(context, tuple | list) and any(isinstance(part, Tensor | np.ndarray) for part in context):
        return tuple(_tree(part) for part in context)
    return _tensor(context, "context")


def _length(observed: Mapping[str, Tensor]) -> int:
    lengths = {name: len(values) for name, values in observed.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"x has different numbers of rows: {lengths}; give one row a datum in each.")
    n = next(iter(lengths.values()))
    if n < 2:
        raise ConfigError(f"x has {n} data; give at least 2, for an interval over them.")
    return n


def _float(values: Tensor, like: torch.dtype | None) -> Tensor:
    """Floats as the model's are, of 32 bits at least: numpy's default is float64, that of nets float32."""
    if like is None or not values.is_floating_point():
        return values
    return values.to(torch.promote_types(like, torch.float32))
