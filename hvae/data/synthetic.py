"""Data drawn from two small known stacks.

Both are two-layer belief networks z2 -> z1 -> x:

    synthetic-linear-2   z2 ~ N(0, I),  z1 ~ N(W1 z2 + b1, diag(v1)),  x ~ N(W0 z1 + b0, diag(v0));
                         x is Gaussian with mean and covariance in closed form
    synthetic-binary-2   z2 ~ Bernoulli(1/2),  z1 ~ Bernoulli(sigmoid(W1 z2 + b1)),  x ~ Bernoulli(sigmoid(W0 z1 + b0));
                         a sigmoid belief net (Neal 1992) of 2^8 latent states, to be enumerated

Parameters and items are drawn in float64 from fixed seeds: they are part of the name's definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvae.data.images import Purpose, Split, stream

Reals = NDArray[np.float64]
N_TRAIN, N_TEST = 4000, 1000


@dataclass(frozen=True, eq=False)
class Affine:
    """Mean or logits of a child, weight @ parent + bias; `variance` of a Gaussian child, else None.

    >>> linear_2().conditionals["x"].weight.shape, binary_2().conditionals["x"].variance
    ((20, 6), None)
    """

    weight: Reals
    """[D_child, D_parent]"""
    bias: Reals
    """[D_child]"""
    variance: Reals | None = None
    """[D_child]"""


@dataclass(frozen=True, eq=False)
class SyntheticStack:
    """A known stack: `n_top` independent units at the top, then its conditionals in ancestral order.

    >>> {name: value.shape for name, value in linear_2().draw(5, np.random.default_rng(0)).items()}
    {'z2': (5, 3), 'z1': (5, 6), 'x': (5, 20)}
    """

    family: str
    """gaussian or bernoulli"""
    n_top: int
    conditionals: Mapping[str, Affine]
    """"z1" (given z2) and "x" (given z1)"""

    def draw(self, n: int, generator: np.random.Generator) -> dict[str, Reals]:
        """`n` joint draws by name, each [n, D]."""
        if self.family == "gaussian":
            value: Reals = generator.standard_normal((n, self.n_top))
        else:
            value = _bernoulli(generator, np.full((n, self.n_top), 0.5))
        values = {f"z{len(self.conditionals)}": value}
        for name, affine in self.conditionals.items():
            outputs = value @ affine.weight.T + affine.bias
            if affine.variance is None:
                value = _bernoulli(generator, 1 / (1 + np.exp(-outputs)))
            else:
                value = outputs + np.sqrt(affine.variance) * generator.standard_normal(outputs.shape)
            values[name] = value
        return values


def _bernoulli(generator: np.random.Generator, p: Reals) -> Reals:
    return (generator.random(p.shape) < p).astype(np.float64)


def linear_2() -> SyntheticStack:
    """The stack behind `synthetic-linear-2`: units 3 (z2), 6 (z1), 20 (x)."""
    generator = np.random.default_rng(20)
    weights = [generator.standard_normal((6, 3)), generator.standard_normal((20, 6)) / np.sqrt(6)]
    biases = [generator.standard_normal(6) / 2, generator.standard_normal(20) / 2]
    z1 = Affine(weights[0], biases[0], variance=np.full(6, 0.25))
    return SyntheticStack("gaussian", 3, {"z1": z1, "x": Affine(weights[1], biases[1], variance=np.full(20, 0.1))})


def binary_2() -> SyntheticStack:
    """The stack behind `synthetic-binary-2`: units 3 (z2), 5 (z1), 16 (x); biases centre the logits."""
    generator = np.random.default_rng(21)
    weights = [4 * generator.standard_normal((5, 3)), 4 * generator.standard_normal((16, 5))]
    z1, x = (Affine(weight, -weight.sum(axis=1) / 2) for weight in weights)
    return SyntheticStack("bernoulli", 3, {"z1": z1, "x": x})


def draw_split(stack: SyntheticStack) -> Split:
    """The items of a synthetic name: x of N_TRAIN + N_TEST independent draws."""
    x = stack.draw(N_TRAIN + N_TEST, stream(0, Purpose.SYNTHETIC))["x"].astype(np.float32)
    return Split(x[:N_TRAIN], x[N_TRAIN:])
