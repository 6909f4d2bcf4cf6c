"""The matrix products of a step or of L_K alone, at their exact shapes: nothing that computes them can be faster."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from hvae.experiments.shared.costs.bench.stacks import Array, Net, Stack

BLOCK = 1000
"""rows at a time without gradients"""


def _products(nets: list[Net], rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Input ``[rows, n_in]`` and weight of each product."""
    for net in nets:
        for weight, _ in net:
            yield torch.randn(rows, weight.shape[1]), torch.from_numpy(np.array(weight))


def training(stack: Stack, n_batch: int, n_samples: int) -> Callable[[], object]:
    first, *rest = stack.encoder  # its input is x: one row for all samples, and no gradient
    products = [*_products([first], n_batch), *_products([*rest, *stack.decoder], n_batch * n_samples)]
    gradients = [torch.randn(len(h), len(weight)) for h, weight in products]

    @torch.no_grad()
    def call() -> None:
        for place, ((h, weight), gradient) in enumerate(zip(products, gradients, strict=True)):
            h @ weight.T
            gradient.T @ h
            if place:
                gradient @ weight

    return call


def bound(stack: Stack, x: Array, n_samples: int) -> Callable[[], object]:
    products = list(_products([*stack.encoder[1:], *stack.decoder], BLOCK))

    @torch.no_grad()
    def call() -> None:
        for _ in range(len(x) * n_samples // BLOCK):
            for h, weight in products:
                h @ weight.T

    return call


def annealing(stack: Stack, n_data: int, n_chains: int, n_gradients: int) -> Callable[[], object]:
    """Forward and backward to z through the decoder of one layer."""
    products = list(_products([stack.decoder[0]], n_data * n_chains))
    gradients = [torch.randn(len(h), len(weight)) for h, weight in products]

    @torch.no_grad()
    def call() -> None:
        for _ in range(n_gradients):
            for (h, weight), gradient in zip(products, gradients, strict=True):
                h @ weight.T
                gradient @ weight

    return call
