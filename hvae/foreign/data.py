"""What a model is measured on: observations, contexts and codes by row, each found by its number.

In the house's arrays the observation ``x [1, B, 1]`` of a user's model is the number of a datum. Whatever the user's
functions see of it (tensors of any shape, a dict of them, what `encode` made of them) is looked up here. So all that
is measured may take rows apart, repeat and mix them, and `encode` runs once per datum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.utils import _pytree as pytree

from hvae.errors import ConfigError, NotMeasuredError
from hvae.foreign.reading import given, rebuilt

Tree = Any
"""a tensor, or tuples, lists and dicts of tensors; distributions count as their parameters"""
Encode = Callable[..., Tree]


def take(tree: Tree, rows: Tensor) -> Tree:
    """The rows of every tensor in a tree, copied."""
    return _mapped(lambda tensor: tensor.index_select(0, rows), tree)


def joined(trees: list[Tree]) -> Tree:
    """Trees of equal structure, one after another along the rows."""
    if len(trees) == 1:
        return trees[0]
    leaves, specs = zip(*(pytree.tree_flatten(tree, is_leaf=_is_distribution) for tree in trees), strict=True)
    return pytree.tree_unflatten([_joined(column) for column in zip(*leaves, strict=True)], specs[0])


def _joined(column: tuple[Any, ...]) -> Any:
    first = column[0]
    if isinstance(first, Tensor):
        return torch.cat(column)
    if isinstance(first, Distribution):
        parts = [_taken_apart(each) for each in column]
        return _put_together(first, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return first


def rows_of(tree: Tree) -> list[int]:
    """The lengths of the first axes of all tensors in a tree."""
    lengths: list[int] = []
    _mapped(lambda tensor: lengths.append(len(tensor) if tensor.ndim else 0), tree)
    return lengths


def tensors_of(tree: Tree) -> list[Tensor]:
    """All tensors in a tree."""
    found: list[Tensor] = []
    _mapped(found.append, tree)
    return found


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; tensors of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class Snapshot:
    """Trees as they were, to see whether a function changed them in place.

    >>> trees = (torch.zeros(2), torch.ones(2))
    >>> before = snapshot(trees)
    >>> _ = trees[1].mul_(3)
    >>> before.changed(trees)
    [False, True]
    """

    versions: tuple[tuple[int, ...], ...]
    copies: tuple[tuple[Tensor, ...], ...]

    def changed(self, trees: Sequence[Tree]) -> list[bool]:
        """Of each tree whether it was changed: by its count of changes, or (through NumPy) by its values."""
        return [
            any(
                version_of(now) != version or not torch.equal(now.nan_to_num(), copy.nan_to_num())
                for now, version, copy in zip(tensors_of(tree), versions, copies, strict=False)
            )
            for tree, versions, copies in zip(trees, self.versions, self.copies, strict=True)
        ]


def snapshot(trees: Sequence[Tree]) -> Snapshot:
    """What `Snapshot.changed` compares with."""
    tensors = [tensors_of(tree) for tree in trees]
    return Snapshot(
        tuple(tuple(version_of(tensor) for tensor in of) for of in tensors),
        tuple(tuple(tensor.clone() for tensor in of) for of in tensors),
    )


def in_place(function: str, what: str, tree: Tree) -> str:
    """The refusal of a function that changed x or the context."""
    names = f" ({', '.join(map(str, tree))})" if isinstance(tree, dict) and len(tree) > 1 else ""
    return (
        f"{function} changed {what}{names} in place, so your own numbers are those of another {what}; write the change "
        f"without an underscore, as in x = x.clamp(0, 1), or make it before {what} is handed over."
    )


def _is_distribution(node: object) -> bool:
    return isinstance(node, Distribution)


def _mapped(of: Callable[[Tensor], Any], tree: Tree) -> Tree:
    def leaf(node: Any) -> Any:
        if isinstance(node, Tensor):
            return of(node)
        if isinstance(node, Distribution):
            return _put_together(node, {name: of(tensor) for name, tensor in _taken_apart(node).items()})
        if node is None or isinstance(node, int | float | str | bool | torch.Size):
            return node
        raise ConfigError(
            f"encode gave a {type(node).__name__}, whose rows cannot be told; return tensors, or tuples, lists or "
            "dicts of tensors."
        )

    return pytree.tree_map(leaf, tree, is_leaf=_is_distribution)


def _taken_apart(distribution: Distribution) -> dict[str, Tensor]:
    base = distribution.base_dist if isinstance(distribution, Independent) else distribution
    if isinstance(base, Independent):
        return _taken_apart(base)
    stored = given(base)
    if not stored or not type(base).__module__.startswith("torch.distributions"):
        raise ConfigError(
            f"encode gave a {type(base).__name__}, whose rows cannot be told; return its parameters as tensors."
        )
    batch = len(base.batch_shape)
    found = {}
    for name, tensor in stored.items():
        own = tensor.ndim - batch if tensor.ndim > batch else 0
        found[name] = (
            tensor.expand(*base.batch_shape, *tensor.shape[tensor.ndim - own :])
            if own
            else tensor.expand(base.batch_shape)
        )
    return found


def _put_together(distribution: Distribution, parameters: Mapping[str, Any]) -> Any:
    if isinstance(distribution, Independent):
        inner = _put_together(distribution.base_dist, parameters)
        return Independent(inner, distribution.reinterpreted_batch_ndims, validate_args=False) if inner else None
    if any(not isinstance(value, Tensor) for value in parameters.values()):
        return None
    return rebuilt(distribution, parameters)


def refuse_not_finite(name: str, values: Tensor) -> None:
    """Refuse data ``[n, *event]`` that hold NaN or an infinity."""
    if not values.is_floating_point() or values.isfinite().all():
        return
    bad = ~values.isfinite()
    _, *place = bad.nonzero()[0].tolist()  # the row is of data in random order
    where = (
        f", the first in column {place[0]}" if len(place) == 1 else f", the first at {tuple(place)}" if place else ""
    )
    n = int(bad.sum())
    raise ConfigError(
        f"{name} has {n} number{'s that are' if n > 1 else ' that is'} not finite{where}; leave such data out, fill "
        "them in, or visit hvae.masked(distribution, mask, fill=float('nan')), with the mask in the context."
    )


class Shelf:
    """Data by number: the observed variables, the context and the codes of ``n`` data.

    >>> shelf = Shelf({"x": torch.arange(6.0).view(3, 2)}, context=None, encode=lambda x: x + 1)
    >>> shelf.code(torch.tensor([2, 0])).tolist()
    [[5.0, 6.0], [1.0, 2.0]]
    """

    def __init__(
        self, observed: Mapping[str, Tensor], context: Tree, encode: Encode | None, *, whole: bool = True,
        rows: int = 4096, seen_as: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        self.seen_as = seen_as
        """what `encode` sees of floats: the half precision of its net, in which nothing is scored"""
        self.observed = dict(observed)
        self.context_tree = context
        self._encode, self._whole, self.rows = encode, whole, rows
        self._codes: list[Tree] = []
        self.n = self.first = len(next(iter(observed.values())))
        self.n_encoded = 0

    def __str__(self) -> str:
        """What the data are, with what most often helps where a user's function fails on them."""
        said = [f"{name} is {str(v.dtype).removeprefix('torch.')} {list(v.shape)}" for name, v in self.observed.items()]
        whole = [name for name, values in self.observed.items() if not values.is_floating_point()]
        remedy = f"nets take floats: give {whole[0]}.float()" if whole else "if the nets want another shape, reshape it"
        return f"{' and '.join(said)}; {remedy}"

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return next(iter(self.observed.values())).device

    def x(self, numbers: Tensor) -> Tree:
        """The observation as `encode` takes it: a tensor, or a dict of them."""
        found = {name: values.index_select(0, numbers) for name, values in self.observed.items()}
        if self.seen_as is not None:
            found = {name: v.to(self.seen_as) if v.is_floating_point() else v for name, v in found.items()}
        return found["x"] if self._whole else found

    def values(self, name: str, numbers: Tensor) -> Tensor:
        """The rows of one observed variable."""
        return self.observed[name].index_select(0, numbers)

    def context(self, numbers: Tensor) -> Tree:
        """The rows of the context; None without."""
        return None if self.context_tree is None else take(self.context_tree, numbers)

    @property
    def encodes(self) -> bool:
        """Whether a function makes codes; without one a code is the observation."""
        return self._encode is not None

    def code(self, numbers: Tensor) -> Tree:
        """The rows of the code, a copy; encoded on first use, once per datum."""
        if self._encode is None:
            return self.x(numbers)
        if self.n_encoded < self.n:
            for block in torch.arange(self.n_encoded, self.n, device=self.device).split(self.rows):
                self._codes.append(self.encoded(block))
            self._codes = [joined(self._codes)]
            self.n_encoded = self.n
        return take(self._codes[0], numbers)

    def encoded(self, numbers: Tensor) -> Tree:
        """What `encode` makes of some data; refused where it is not one row a datum."""
        assert self._encode is not None
        handed = (self.x(numbers), *(() if self.context_tree is None else (self.context(numbers),)))
        before = snapshot(handed)
        try:
            code = self._encode(*handed)
        except (ConfigError, NotMeasuredError):
            raise
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), "")
            raise ConfigError(f"encode: {type(error).__name__}: {first[:200]}") from error
        for what, one, changed in zip(("x", "context"), handed, before.changed(handed), strict=False):
            if changed:
                raise ConfigError(in_place("encode", what, one))
        wrong = [length for length in rows_of(code) if length != len(numbers)]
        if wrong:
            raise ConfigError(
                f"encode gave a tensor of {wrong[0]} rows for {len(numbers)} data; the first axis of all that it "
                "returns is the data."
            )
        return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, code)

    def encoded_now(self, numbers: Tensor) -> Tree:
        """`encoded`, or the observation itself where nothing encodes; not kept."""
        return self.x(numbers) if self._encode is None else self.encoded(numbers)

    def add(self, drawn: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Put away drawn data, with the contexts of the data ``like [rows]``; returns their numbers."""
        numbers = torch.arange(self.n, self.n + len(like), device=like.device)
        if self.context_tree is not None:
            self.context_tree = joined([self.context_tree, take(self.context_tree, like)])
        for name in self.observed:
            own, new = self.observed[name], drawn[name]
            if not torch.equal(new.to(own.dtype).to(new.dtype), new):  # whole numbers that are too few, or fractions
                own = own.to(torch.promote_types(own.dtype, new.dtype if new.is_floating_point() else torch.int64))
            self.observed[name] = torch.cat([own, new.to(own.dtype)])
        self.n += len(like)
        return numbers

    def forget(self) -> None:
        """Drop the data that were drawn."""
        first = torch.arange(self.first, device=self.device)
        self.observed = {name: values[: self.first] for name, values in self.observed.items()}
        self.context_tree = self.context(first)
        self._codes = [take(codes, first) for codes in self._codes[:1]] if self.n_encoded >= self.first else []
        self.n, self.n_encoded = self.first, self.first if self._codes else 0
