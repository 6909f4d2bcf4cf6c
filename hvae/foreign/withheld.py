"""A stand-in for x while p is walked: it has shape, type and device, and its numbers cannot be read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hvae.errors import ConfigError

SAME = frozenset(
    "reshape view flatten unflatten squeeze unsqueeze ravel view_as reshape_as contiguous detach clone alias to float "
    "double half bfloat16 long int bool type type_as cpu cuda requires_grad_".split()
)
"""what changes shape or type, and keeps the order of the numbers"""
MOVED = frozenset(
    "permute transpose t swapaxes movedim flip roll narrow select split chunk unbind expand repeat".split()
)
"""what keeps some numbers, or brings them in another order"""
FRESH = frozenset(
    "new_zeros new_ones new_empty new_full new_tensor zeros_like ones_like empty_like full_like rand_like "
    "randn_like".split()
)
"""new tensors of like type"""
SHAPE = frozenset(
    "size dim ndimension numel nelement stride __len__ is_floating_point is_complex get_device element_size "
    "is_contiguous".split()
)
FIELDS = frozenset("shape dtype device ndim is_cuda layout requires_grad is_sparse is_mps itemsize nbytes".split())


class Withheld(Tensor):
    """x while p is walked. Made by `withheld`.

    >>> x = withheld(torch.zeros(0, 2, 3), rows=5, part="x")
    >>> x.shape, x.reshape(5, 6).moved, x[:, 0].moved
    (torch.Size([5, 2, 3]), '', 'indexing')
    >>> x.mean()
    Traceback (most recent call last):
    ...
    hvae.errors.ConfigError: p reads x (by mean), and p must not see x; hand over what it needs of a datum as context.
    """

    part: str
    """which part of x it stands for"""
    moved: str
    """what changed the order of its numbers; empty where nothing did"""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__  # type: ignore[attr-defined]
            known = name in FIELDS
        else:
            known = name in SAME | MOVED | FRESH | SHAPE or name in ("__getitem__", "__repr__")
        first = args[0] if args else None
        if not known or not isinstance(first, Withheld):
            part = next((arg.part for arg in args if isinstance(arg, Withheld)), "x")
            raise ConfigError(
                f"p reads {part} (by {name}), and p must not see x; hand over what it needs of a datum as context."
            )
        with torch._C.DisableTorchFunctionSubclass():
            if name == "__repr__":
                return f"withheld({first.part}, {tuple(first.shape)})"
            found = func(*args, **(kwargs or {}))
            moved = name if name in MOVED else ""
            if name == "__getitem__":
                moved = "" if _is_every_row(args[1], len(first)) else "indexing"
        if name in SAME | MOVED or name == "__getitem__":
            return _marked(found, first, moved)
        return found.as_subclass(Tensor) if isinstance(found, Tensor) else found


def withheld(like: Tensor, rows: int, part: str) -> Withheld:
    """A stand-in ``[rows, ...]`` of the shape and type of ``like [0, ...]``."""
    found = like.new_zeros((rows, *like.shape[1:])).as_subclass(Withheld)
    found.part, found.moved = part, ""
    return found


def _marked(found: Any, first: Withheld, moved: str) -> Any:
    if isinstance(found, tuple | list):
        return type(found)(_marked(each, first, moved) for each in found)
    stand_in = found.as_subclass(Withheld)
    stand_in.part, stand_in.moved = first.part, first.moved or moved
    return stand_in


def _is_every_row(index: Any, rows: int) -> bool:
    """Whether an index takes all rows in their order, as the indices of a full plate do."""
    if isinstance(index, Tensor):
        return torch.equal(index, torch.arange(rows, device=index.device))
    return index is Ellipsis or (isinstance(index, slice) and index == slice(None))
