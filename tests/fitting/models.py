"""Small models that tests of the fitting train: made from a seed, with nets that vmap takes or refuses."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hvae import HVAE, BeliefNetwork, Bernoulli, Conditional, DiagonalGaussian, NetworkPosterior, Root
from hvae.families import Family

N_PIXELS = 6
X = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]]).repeat(20, 1)
"""60 data of three kinds"""
X[::7, 2] = 0.0


def make(
    seed: int, net: Callable[[int, int], nn.Module] = nn.Linear, *, family: type[Any] = DiagonalGaussian, width: int = 2
) -> HVAE:
    """Two layers in float64: p(z2) p(z1|z2) p(x|z1) and q(z1|x) q(z2|z1)."""
    torch.manual_seed(seed)
    z1, z2 = family(3), family(width)
    observed = Bernoulli(N_PIXELS)
    prior = Root(z2.standard_outputs(), learned=True)

    def layer(name: str, parent: str, n_in: int, family: Family) -> Conditional:
        return Conditional(name, [parent], net(n_in, family.n_outputs), family)

    decoder = BeliefNetwork(
        [Conditional("z2", [], prior, z2), layer("z1", "z2", width, z1), layer("x", "z1", 3, observed)]
    )
    encoder = BeliefNetwork([layer("z1", "x", N_PIXELS, z1), layer("z2", "z1", 3, z2)])
    return HVAE(decoder, NetworkPosterior(encoder)).double()


def several(n: int, net: Callable[[int, int], nn.Module] = nn.Linear, **knobs: Any) -> list[HVAE]:
    return [make(seed, net, **knobs) for seed in range(n)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def apart(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest difference of two models' weights."""
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


class Branching(nn.Linear):
    """Control flow that depends on data."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(-h if h.sum() > 1e9 else h)


class Item(nn.Linear):
    """A number taken out of a tensor."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) * (1.0 + 0.0 * h.mean().item())


class InPlace(nn.Linear):
    """A change in place of what is no weight and no buffer."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.seen = torch.zeros(1)

    def forward(self, h: Tensor) -> Tensor:
        self.seen += h.detach().sum()
        return super().forward(h)


class Dropping(nn.Sequential):
    """Draws of its own."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(nn.Linear(n_in, n_out), nn.Dropout(0.3))


class Running(nn.Module):
    """Averages that run along with the training, as buffers. A bias before them would have a gradient of rounding
    size, of which Adam makes a full step."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.linear(h)
        normed: Tensor = self.norm(out.flatten(0, -2))
        return normed.view_as(out)


class BranchingRunning(Running):
    def forward(self, h: Tensor) -> Tensor:
        normed = super().forward(h)
        return -normed if normed.sum() > 1e9 else normed
