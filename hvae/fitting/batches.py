"""Whatever gives data, as a function of the step: x ``[R, 1, B, D]``."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hvae.errors import ConfigError

Source = Iterable[Any] | Callable[[int], Any]
"""batches, or step -> batch; a batch is a tensor or an array ``[B, D]``, or ``[R, B, D]`` with data for each replica,
or a tuple that begins with one"""


class Batches:
    """Step -> the batch of R replicas, on the models' device and of their dtype.

    A list is gone through again and again, so that the batch is a function of the step, as it is where ``source`` is a
    function. Anything else that can be gone through, such as a DataLoader, is gone through anew when it ends. An
    iterator is used up. Raises `ConfigError` for no batches, for one of another width than x has, for numbers that are
    not finite, and where an iterator ends. Data that lie on an accelerator are checked for finite numbers in the first
    batch only, since every check waits for the device.

    >>> batches = Batches([torch.zeros(5, 3), torch.ones(4, 3)], 2, 3, torch.device("cpu"), torch.float32)
    >>> batches(0).shape, batches(3).shape, batches(3)[1, 0, 0].tolist()
    (torch.Size([2, 1, 5, 3]), torch.Size([2, 1, 4, 3]), [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        source: Source,
        n_replicas: int,
        width: int,
        device: torch.device,
        dtype: torch.dtype,
        event: Sequence[int] = (),
    ) -> None:
        self._event = tuple(event)
        self._n_replicas, self._width, self._device, self._dtype = n_replicas, width, device, dtype
        self._at = _function_of_step(source)
        self.n_batches = _length(source)
        """in one pass; 0 where nobody knows"""
        self._ahead: dict[int, Tensor] = {}
        if isinstance(source, list | tuple):
            for place, batch in enumerate(source):
                self._read(batch, f"batches[{place}]", first=True)

    def look(self, step: int) -> None:
        """Check the batch of a step before it is used."""
        self._ahead[step] = self._read(self._at(step), "the first batch", first=True)

    def __call__(self, step: int) -> Tensor:
        if step in self._ahead:
            return self._ahead.pop(step)
        return self._read(self._at(step), f"the batch of step {step}", first=False)

    def _read(self, batch: Any, name: str, *, first: bool) -> Tensor:
        x = _tensor(batch, name, f"[B, {self._width}]")
        if len(self._event) > 1 and tuple(x.shape[1:]) == self._event:
            x = x.flatten(1)
        for_each = x.dim() == 3 and len(x) == self._n_replicas
        if not (x.dim() == 2 or for_each) or x.shape[-1] != self._width or x.shape[-2] == 0:
            raise ConfigError(
                f"{name} is {list(x.shape)}, but x of the models has {self._width} numbers; give [B, {self._width}] "
                f"with one row or more, or [{self._n_replicas}, B, {self._width}] with data for each replica."
            )
        if first or x.device.type == "cpu":
            _check_finite(x, name)
        x = x.to(device=self._device, dtype=self._dtype)
        return x.unsqueeze(1) if for_each else x.expand(self._n_replicas, 1, *x.shape)


def peeked(source: Source, module: nn.Module | None = None) -> tuple[Tensor, Source]:
    """The first batch ``[B, ...]`` as `Batches` reads it, and a source that still has it.

    It lies on the device of ``module``, floats in the dtype of its weights. Whole numbers stay so, which may be tokens.
    """
    name = "the first batch"
    if isinstance(source, Iterator):
        first = _next(source, 0)
        source = itertools.chain([first], source)
    else:
        first = _function_of_step(source)(0)
    x = _tensor(first, name, "[B, ...]")
    if x.dim() < 2 or not x.numel():
        raise ConfigError(f"{name} is {list(x.shape)}; give [B, ...] with one row or more, and its numbers after it.")
    _check_finite(x, name)
    weight = next((w for w in module.parameters() if w.is_floating_point()), None) if module is not None else None
    if weight is None:
        return x, source
    return x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype), source


def _tensor(batch: Any, name: str, shape: str) -> Tensor:
    """A batch as a tensor, or the first of several."""
    if batch is None:
        raise ConfigError(f"{name} is None; give a tensor {shape}.")
    if isinstance(batch, tuple | list) and len(batch) > 0:
        batch = batch[0]  # what comes after x, such as labels, is not trained on
    try:
        x = torch.as_tensor(batch)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"{name} is {type(batch).__name__}; give a tensor {shape}.") from None
    if x.is_nested or x.is_meta or x.is_complex():
        raise ConfigError(f"{name} is nested, complex or without numbers; give a tensor {shape} of real numbers.")
    return x if x.layout == torch.strided else x.to_dense()


def _check_finite(x: Tensor, name: str) -> None:
    if torch.isfinite(x.sum()):  # one pass; a sum that is not finite may also be too large
        return
    finite = torch.isfinite(x)
    if not finite.all():
        place = (~finite).nonzero()[0].tolist()
        where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"place {tuple(place)}"
        raise ConfigError(
            f"{name} holds numbers that are not finite, the first in {where}, counted from 0; leave such rows out, or "
            "fill them in."
        )


def _function_of_step(source: Source) -> Callable[[int], Any]:
    if isinstance(source, Tensor) or hasattr(source, "__array__"):
        raise ConfigError("batches is one array; cut it into batches, as in x.split(128), or give a DataLoader.")
    if isinstance(source, list | tuple):
        if not source:
            raise ConfigError("batches is empty; give at least one batch.")
        return lambda step: source[step % len(source)]
    if isinstance(source, Iterable) and not isinstance(source, str | Mapping):
        stream = iter(source) if isinstance(source, Iterator) else _again_and_again(source)
        return lambda step: _next(stream, step)
    if callable(source):
        return lambda step: _called(source, step)
    raise ConfigError(f"batches is {type(source).__name__}; give batches to go through, or a function of the step.")


def _called(source: Callable[[int], Any], step: int) -> Any:
    try:
        return source(step)
    except ConfigError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(f"batches of step {step}: {type(error).__name__}: {first[:200]}") from error


def _again_and_again(source: Iterable[Any]) -> Iterator[Any]:
    while True:
        n_batches = 0
        for batch in source:
            n_batches += 1
            yield batch
        if n_batches == 0:
            raise ConfigError("batches is empty; give at least one batch.")


def _next(stream: Iterator[Any], step: int) -> Any:
    try:
        return next(stream)
    except StopIteration:
        raise ConfigError(
            f"batches ended before step {step}; give an iterator without end, or what can be gone through again, such "
            "as a list or a DataLoader."
        ) from None


def _length(source: Source) -> int:
    if isinstance(source, Sequence):
        return len(source)
    try:
        return len(source)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return 0
