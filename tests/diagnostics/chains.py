"""Linear-Gaussian stacks with weights set by hand, and their answers by arithmetic that shares no code with `hvae`.

A `Link` is `N(weight @ parent + bias, diag(variance))`. A stack has links upward (q: z1 from x, z2 from z1, …) and
downward (p: zL from nothing, …, x from z1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from hvae.diagnostics.draws import Sampler
from hvae.evidence import HVAE
from hvae.families import DiagonalGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """One conditional; a scalar weight stands for a 1 x 1 matrix."""

    weight: Array
    variance: Array
    bias: Array

    def conditional(self, name: str, parents: Sequence[str]) -> Conditional:
        """The same in the core's modules; the log-variance is a head of the net, as in a trained stack."""
        units = len(self.bias)
        outputs = torch.tensor(np.concatenate([self.bias, np.log(self.variance)]))
        if not parents:
            return Conditional(name, [], Root(outputs, learned=True), DiagonalGaussian(units))
        net = nn.Linear(self.weight.shape[1], 2 * units, dtype=torch.float64)
        with torch.no_grad():
            net.weight.copy_(torch.tensor(np.concatenate([self.weight, np.zeros_like(self.weight)])))
            net.bias.copy_(outputs)
        return Conditional(name, parents, net, DiagonalGaussian(units))


def link(weight: ArrayLike, variance: ArrayLike, bias: ArrayLike = 0.0) -> Link:
    matrix = np.atleast_2d(np.asarray(weight, dtype=np.float64))
    ones = np.ones(len(matrix))
    return Link(matrix, variance * ones, bias * ones)


def root(variance: ArrayLike, bias: ArrayLike = 0.0) -> Link:
    ones = np.ones(np.broadcast_shapes(np.shape(np.atleast_1d(variance)), np.shape(np.atleast_1d(bias))))
    return Link(np.zeros((len(ones), 0)), variance * ones, bias * ones)


@dataclass(frozen=True)
class Stack:
    """Links of q, upward from x, and of p, downward to x."""

    up: Sequence[Link]
    down: Sequence[Link]

    @property
    def names(self) -> list[str]:
        return [f"z{layer}" for layer in range(1, len(self.up) + 1)]

    def decoder(self) -> BeliefNetwork:
        names = [*reversed(self.names), "x"]
        parents: list[list[str]] = [[], *([name] for name in names)]
        links = zip(self.down, names, parents[:-1], strict=True)
        return BeliefNetwork([part.conditional(name, above) for part, name, above in links])

    def upward(self) -> BeliefNetwork:
        parents = ["x", *self.names]
        links = zip(self.up, self.names, parents[:-1], strict=True)
        return BeliefNetwork([part.conditional(name, [parent]) for part, name, parent in links])

    def bottom_up(self) -> HVAE:
        return HVAE(self.decoder(), NetworkPosterior(self.upward()))

    def ladder(self) -> HVAE:
        return HVAE(self.decoder(), Ladder(self.upward()))

    def q(self, mean: ArrayLike, covariance: ArrayLike) -> "Joint":
        """The joint of (x, z1, …) bottom-up when x is N(mean, covariance); covariance 0 gives q(z | x)."""
        x = Joint(["x"], [np.size(mean)], np.atleast_1d(mean), np.atleast_2d(covariance))
        return _grow(x, self.up, self.names)

    def p(self) -> "Joint":
        """The joint of (zL, …, z1, x) of the decoder."""
        top = self.down[0]
        names = [*reversed(self.names), "x"]
        return _grow(Joint(names[:1], [len(top.bias)], top.bias, np.diag(top.variance)), self.down[1:], names[1:])


@dataclass(frozen=True)
class Joint:
    """A Gaussian over named blocks."""

    names: list[str]
    widths: list[int]
    mean: Array
    covariance: Array

    def index(self, *names: str) -> list[int]:
        ends = np.cumsum(self.widths)
        blocks = {name: range(end - width, end) for name, end, width in zip(self.names, ends, self.widths, strict=True)}
        return [int(i) for name in names for i in blocks[name]]

    def block(self, *names: str) -> tuple[Array, Array]:
        index = self.index(*names)
        return self.mean[index], self.covariance[np.ix_(index, index)]

    def information(self, a: Sequence[str], b: Sequence[str], given: Sequence[str] = ()) -> float:
        """I(a; b | given) from log-determinants."""

        def log_det(names: Sequence[str]) -> float:
            return float(np.linalg.slogdet(self.block(*names)[1])[1]) if names else 0.0

        return (log_det([*a, *given]) + log_det([*b, *given]) - log_det([*a, *b, *given]) - log_det(given)) / 2


def _grow(joint: Joint, links: Sequence[Link], names: Sequence[str]) -> Joint:
    """Add one variable at a time, each a child of the one before (Bishop 2006, 8.15 and 8.16)."""
    for part, name in zip(links, names, strict=True):
        last = joint.index(joint.names[-1])
        cross = part.weight @ joint.covariance[last]
        new = part.weight @ joint.covariance[np.ix_(last, last)] @ part.weight.T + np.diag(part.variance)
        mean = np.append(joint.mean, part.weight @ joint.mean[last] + part.bias)
        covariance = np.block([[joint.covariance, cross.T], [cross, new]])
        joint = Joint([*joint.names, name], [*joint.widths, len(part.bias)], mean, covariance)
    return joint


def gaussian_kl(mean: Array, covariance: Array, other_mean: Array, other: Array) -> float:
    difference = other_mean - mean
    trace = np.trace(np.linalg.solve(other, covariance)) + difference @ np.linalg.solve(other, difference)
    return float(trace - len(mean) + np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1]) / 2


def log_normal(value: Array, mean: Array, covariance: Array) -> float:
    difference = value - mean
    distance = difference @ np.linalg.solve(covariance, difference)
    return -float(distance + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2


def images(n: int, *, width: int = 1, seed: int = 0, scale: float = 1.0) -> Tensor:
    """n data drawn from N(0, scale² I), float64."""
    source = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, width, generator=source, dtype=torch.float64)


def sampler(model: HVAE, x: Tensor, seed: int = 0) -> Sampler:
    return Sampler(model, x, seed)


def finite_informations(stack: Stack, name: str, x: Tensor) -> tuple[float, float]:
    """(I_l, J_l) for "which of these n images", exact for a layer of one unit.

    q(z_l | x_i) is one Gaussian on a linear chain, so the aggregate is a mixture of n: its entropy by the trapezoid
    rule, all others in closed form.
    """
    distributions = [stack.q(row, np.zeros((len(row), len(row)))).block(name) for row in x.numpy()]
    means, variance = np.array([mean.item() for mean, _ in distributions]), float(distributions[0][1].item())
    noise = float(stack.up[stack.names.index(name)].variance.item())
    deviation = variance**0.5
    grid = np.arange(means.min() - 12 * deviation, means.max() + 12 * deviation, deviation / 20)
    density = np.exp(-((grid[:, None] - means) ** 2) / (2 * variance)).mean(1) / np.sqrt(2 * np.pi * variance)
    integrand = -density * np.log(np.maximum(density, 1e-300))
    entropy = float(np.trapezoid(integrand, grid))
    return entropy - np.log(2 * np.pi * np.e * variance) / 2, entropy - np.log(2 * np.pi * np.e * noise) / 2


def holds(interval: Any, truth: float) -> bool:
    low, middle, high = interval
    return bool(low <= middle <= high and low <= truth <= high)
