"""Draws as functions of a key, so that there is no random state to store.

A key is (seed, purpose, step). The same key gives the same numbers on the same device and torch
version, in any order of keys. So a run that is killed and resumed at step t sees the noise of an
uninterrupted run. Different purposes never share numbers.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from hvae.shapes import Noise

NoiseKind = Literal["normal", "uniform"]
NoiseSpecs = Mapping[str, tuple[NoiseKind, int]]
"""variable -> (kind of noise, numbers per draw)"""


def generator(seed: int, purpose: str, step: int = 0, *, device: str = "cpu") -> torch.Generator:
    """A fresh generator for one key: its seed is the first 63 bits of SHA-256 of the key's text.

    >>> first, again = (torch.rand(3, generator=generator(0, "example", step=7)) for _ in range(2))
    >>> torch.equal(first, again)
    True
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def keyed(seed: int, purpose: str, step: int = 0, *, device: torch.device) -> Iterator[None]:
    """Torch's global generators, of the CPU and of ``device``, set to one key, and afterwards as they were.

    For nets with draws of their own. `torch.manual_seed` would keep a trace of every call for devices that are not
    there, which costs more than a small net's forward pass.

    >>> with keyed(0, "example", device=torch.device("cpu")):
    ...     first = torch.rand(3)
    >>> torch.equal(first, torch.rand(3, generator=generator(0, "example")))
    True
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    states = [each.get_state() for each in generators]
    number = generator(seed, purpose, step).initial_seed()
    try:
        for each in generators:
            each.manual_seed(number)
        yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)


def noise(
    specs: NoiseSpecs,
    n_samples: int,
    n_data: int,
    *,
    seed: int,
    purpose: str,
    step: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Noise]:
    """Noise ``[K, B, width]`` for every variable of ``specs``, from one key.

    One stream serves all variables, in the order of ``specs``, so the noise of a variable depends
    on K, B and the variables before it.

    >>> from hvae import noise
    >>> noise({"z1": ("normal", 2), "x": ("uniform", 3)}, 7, 5, seed=0, purpose="example")["x"].shape
    torch.Size([7, 5, 3])
    """
    source = generator(seed, purpose, step, device=device)

    def draw(kind: NoiseKind, width: int) -> Tensor:
        sampler = torch.randn if kind == "normal" else torch.rand
        return sampler(n_samples, n_data, width, generator=source, device=device, dtype=dtype)

    return {name: draw(kind, width) for name, (kind, width) in specs.items()}


DRAWS = 500
"""draws of a datum that share a key"""


def draws(
    specs: NoiseSpecs,
    numbers: range,
    *,
    seed: int,
    purpose: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Noise]:
    """Noise ``[len(numbers), 1, width]`` of some of a datum's draws: a draw depends on its number, not on the others.

    They come in blocks of `DRAWS`, the number of the block being the step of its key; a block is drawn whole.

    >>> specs: NoiseSpecs = {"z1": ("normal", 2)}
    >>> one, many = (draws(specs, range(7, stop), seed=0, purpose="example")["z1"] for stop in (8, 1000))
    >>> torch.equal(one, many[:1])
    True
    """
    blocks = range(numbers.start // DRAWS, -(-numbers.stop // DRAWS))
    parts = [
        noise(specs, DRAWS, 1, seed=seed, purpose=purpose, step=step, device=device, dtype=dtype) for step in blocks
    ]
    start = numbers.start - blocks.start * DRAWS
    return {name: torch.cat([part[name] for part in parts])[start : start + len(numbers)] for name in specs}


def permutation(n: int, *, seed: int, purpose: str, step: int = 0, device: str = "cpu") -> Tensor:
    """A random order of ``n`` things, from one key."""
    return torch.randperm(n, generator=generator(seed, purpose, step, device=device), device=device)
