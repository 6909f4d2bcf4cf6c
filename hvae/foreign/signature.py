"""What is found out about a model when it is first walked: names, orders, shapes and kinds of distribution.

The event of a variable is what does not change between two numbers of rows. Parents are found later
(`hvae.foreign.parents`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hvae.foreign.data import Shelf
from hvae.foreign.kinds import Kind
from hvae.foreign.visit import Walker

FEW, ELSE, MANY = 3, 11, 16
"""rows of the first two walks, the few also another number"""


@dataclass(frozen=True)
class Signature:
    """The variables of a model, and how their distributions look.

    >>> from torch.distributions import Normal
    >>> from hvae.foreign.data import Shelf
    >>> from hvae.foreign.looking import look
    >>> from hvae.foreign.model import Model
    >>> def infer(visit):
    ...     visit("z", Normal(visit.code, 1.0))
    >>> def generate(visit):
    ...     visit("x", Normal(visit("z", Normal(torch.zeros(2), 1.0)), 1.0))
    >>> found = look(Model(infer, generate), Shelf({"x": torch.zeros(5, 2)}, None, None))
    >>> found.q_order, found.observed, found.p_kinds["z"].has_rows
    (('z',), ('x',), False)
    """

    p_order: tuple[str, ...]
    """latents as `generate` visits them"""
    q_order: tuple[str, ...]
    """latents as `infer` visits them"""
    observed: tuple[str, ...]
    p_kinds: Mapping[str, Kind]
    q_kinds: Mapping[str, Kind]
    p_parents: Mapping[str, tuple[str, ...]]
    """of every latent and of "x": latents, in the order of p"""
    q_parents: Mapping[str, tuple[str, ...]]
    """of every latent: "x" and latents, in the order of q"""

    @property
    def dtype(self) -> torch.dtype:
        """Of the house's arrays: float64 where a latent is, else float32."""
        kinds = [*self.q_kinds.values(), *self.p_kinds.values()]
        return torch.float64 if any(kind.dtype == torch.float64 for kind in kinds) else torch.float32


def walker(
    signature: Signature, shelf: Shelf, mode: Any, numbers: Tensor, of: type[Walker] = Walker, **given: Any
) -> Walker:
    """A walk over the data of some numbers."""
    known = {"given": {}, "noise": {}, "observed": {n: shelf.values(n, numbers) for n in signature.observed}} | given
    return of(
        mode, len(numbers), signature.p_kinds, signature.q_kinds,
        read_code=lambda: shelf.code(numbers), read_context=lambda: shelf.context(numbers), **known,
    )  # fmt: skip


def some_noise(kind: Kind, rows: int, seed: int, device: torch.device | str) -> Tensor:
    """Noise ``[rows, width]`` of one draw a row."""
    source = torch.Generator(device).manual_seed(seed)
    sampler = torch.randn if kind.family.noise == "normal" else torch.rand
    dtype = kind.dtype if kind.dtype in (torch.float32, torch.float64) else torch.float32
    return sampler(rows, kind.family.noise_width, generator=source, device=device, dtype=dtype)
