"""Where the first number that is not finite comes from: the weight that holds it, or the net that made it."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hvae.evidence import HVAE


def origin(model: HVAE, x: Tensor, noise: Mapping[str, Tensor]) -> str:
    """The weight or net, in words; empty where it is neither, as in a gradient or a distribution.

    A net is one with finite inputs and another output, the first in the order of use and the innermost. The model is
    walked once, as it is, with x ``[1, B, D]`` and noise ``[K, B, ·]``.

    >>> from hvae import noise
    >>> from hvae.exact.known_stacks import linear_stack
    >>> model = linear_stack(1.0, "best", seed=0, widths=(6, 2, 1)).model
    >>> x = torch.zeros(1, 5, 6, dtype=torch.float64)
    >>> drawn = noise(model.noise_specs(), 1, 5, seed=0, purpose="example", dtype=x.dtype)
    >>> origin(model, x, drawn)
    ''
    >>> with torch.no_grad():
    ...     _ = next(model.posterior.parameters())[0].fill_(torch.nan)
    >>> origin(model, x, drawn)
    'the weight posterior.network.conditionals.z1.net.weight'
    """
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        if not _finite(value):
            return f"the weight {name}"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, outputs: object) -> None:
            if not found and not _finite(outputs) and _finite(inputs):
                found.append(f"the net {name}")

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model.visit(x, noise)
    except Exception:  # a user's distribution may refuse such numbers, after the net that made them
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return next(iter(found), "")


def _finite(values: object) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in _tensors(values))


def _tensors(values: object) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from chain.from_iterable(_tensors(value) for value in values.values())
    elif isinstance(values, tuple | list):
        yield from chain.from_iterable(_tensors(value) for value in values)
