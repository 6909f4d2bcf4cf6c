"""Linear-Gaussian stacks for tests, and their joint law by arithmetic that shares no code with `hvae.reference`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hvae.families import DiagonalGaussian, Family, FullGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional

Array = np.ndarray


def linear(n_in: int, family: Family, source: torch.Generator, scale: float = 1.0) -> nn.Linear:
    net = nn.Linear(n_in, family.n_outputs, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(scale * torch.randn(net.weight.shape, generator=source, dtype=torch.float64) / n_in**0.5)
        net.bias.copy_(torch.randn(net.bias.shape, generator=source, dtype=torch.float64))
    return net


def gaussian(units: int, source: torch.Generator) -> DiagonalGaussian:
    family = DiagonalGaussian(units, variance="learned").double()
    with torch.no_grad():
        assert family.log_variance is not None
        family.log_variance.copy_(torch.randn(units, generator=source, dtype=torch.float64) / 2 - 1)
    return family


def correlated(units: int, source: torch.Generator) -> FullGaussian:
    factor = torch.randn(units, units, generator=source, dtype=torch.float64) / units**0.5
    covariance = factor @ factor.mT + 0.3 * torch.eye(units, dtype=torch.float64)
    return FullGaussian(units, variance="fixed", scale_tril=torch.linalg.cholesky(covariance))


def decoder(widths: Sequence[int], *, seed: int = 0, skips: bool = False, scale: float = 1.5) -> BeliefNetwork:
    """p(zL) … p(z1|z2) p(x|z1) with widths (x, z1, …, zL); z1 has a full covariance; skips see all above."""
    source = torch.Generator().manual_seed(seed)
    names = ["x", *(f"z{layer}" for layer in range(1, len(widths)))]
    top = gaussian(widths[-1], source)
    conditionals = [Conditional(names[-1], [], Root(torch.randn(widths[-1]).double() * 0 + 0.3, learned=True), top)]
    for layer in range(len(widths) - 2, -1, -1):
        family = correlated(widths[layer], source) if layer == 1 else gaussian(widths[layer], source)
        parents = list(reversed(names[layer + 1 :])) if skips else [names[layer + 1]]
        n_in = sum(widths[layer + 1 :]) if skips else widths[layer + 1]
        conditionals.append(Conditional(names[layer], parents, linear(n_in, family, source, scale), family))
    return BeliefNetwork(conditionals)


def encoder(widths: Sequence[int], *, seed: int = 100, scale: float = 1.0) -> BeliefNetwork:
    """q(z1|x) q(z2|z1) … with widths (x, z1, …, zL)."""
    source = torch.Generator().manual_seed(seed)
    conditionals = []
    for layer in range(1, len(widths)):
        family = gaussian(widths[layer], source)
        parent = f"z{layer - 1}" if layer > 1 else "x"
        conditionals.append(
            Conditional(f"z{layer}", [parent], linear(widths[layer - 1], family, source, scale), family)
        )
    return BeliefNetwork(conditionals)


def parameters(conditional: Conditional) -> tuple[Array, Array, Array]:
    """Weight, bias and noise covariance of a linear-Gaussian conditional, read from its tensors."""
    family, net = conditional.family, conditional.net
    if isinstance(family, DiagonalGaussian):
        assert family.log_variance is not None
        noise = np.diag(np.exp(family.log_variance.detach().numpy()))
    else:
        assert isinstance(family, FullGaussian) and isinstance(family.scale, Tensor)
        tril, scale = np.zeros((family.units, family.units)), family.scale.detach().numpy()
        rows, columns = np.tril_indices(family.units, -1)
        tril[rows, columns] = scale[: len(rows)]
        tril[np.diag_indices(family.units)] = np.exp(scale[len(rows) :])
        noise = tril @ tril.T
    if isinstance(net, Root):
        return np.zeros((family.units, 0)), net.outputs.detach().numpy(), noise
    assert isinstance(net, nn.Linear)
    return net.weight.detach().numpy(), net.bias.detach().numpy(), noise


def joint(
    network: BeliefNetwork, roots: dict[str, tuple[Array, Array]] | None = None
) -> tuple[dict[str, list[int]], Array, Array]:
    """Indices, mean and covariance of all variables, grown one variable at a time (Bishop 2006, 8.15 and 8.16)."""
    where: dict[str, list[int]] = {}
    mean, covariance = np.zeros(0), np.zeros((0, 0))

    def grow(name: str, new_mean: Array, cross: Array, new: Array) -> None:
        nonlocal mean, covariance
        where[name] = list(range(len(mean), len(mean) + len(new_mean)))
        mean, covariance = np.append(mean, new_mean), np.block([[covariance, cross.T], [cross, new]])

    for name, (root_mean, root_covariance) in (roots or {}).items():
        grow(name, root_mean, np.zeros((len(root_mean), 0)), root_covariance)
    for name in network.variables:
        weight, bias, noise = parameters(network[name])
        seen = [i for parent in network[name].parents for i in where[parent]]
        cross = weight @ covariance[seen]
        grow(name, weight @ mean[seen] + bias, cross, weight @ covariance[np.ix_(seen, seen)] @ weight.T + noise)
    return where, mean, covariance


def information(covariance: Array, a: Sequence[int], b: Sequence[int]) -> float:
    """I(a; b) as a difference of log-determinants."""

    def log_det(index: Sequence[int]) -> float:
        return float(np.linalg.slogdet(covariance[np.ix_(index, index)])[1])

    return (log_det(a) + log_det(b) - log_det([*a, *b])) / 2
