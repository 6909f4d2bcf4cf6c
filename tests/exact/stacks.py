"""Linear-Gaussian stacks for tests, and their joint distribution by arithmetic that shares no code with
`hvae.exact`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hvae.families import DiagonalGaussian, Family, FullGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, Merge, NetworkPosterior, alone

Array = np.ndarray
EncoderKind = tuple[Sequence[str], Array, Array, Array]
"""parents, weight, bias and noise covariance of an affine Gaussian distribution"""


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


NETWORKS: dict[str, Callable[[list[str]], list[str]]] = {
    "bottom-up": lambda seen: seen[-1:] or ["x"],
    "bottom-up seeing x": lambda seen: [*seen[-1:], "x"],
    "bottom-up seeing all": lambda seen: ["x", *seen],
    "top-down": lambda seen: [*seen[-1:], "x"],
    "top-down seeing all": lambda seen: [*seen, "x"],
    "mean field": lambda seen: ["x"],
    "mean field, top first": lambda seen: ["x"],
}
"""kind of posterior -> the parents of a latent, by the latents seen before it"""


def posterior(kind: str, widths: Sequence[int], *, seed: int = 100, scale: float = 1.0) -> NetworkPosterior:
    """A posterior of linear nets with widths (x, z1, …, zL); z2 has a full covariance."""
    source = torch.Generator().manual_seed(seed)
    units = {"x": widths[0], **{f"z{layer}": width for layer, width in enumerate(widths) if layer}}
    order = [name for name in units if name != "x"]
    if "top" in kind:
        order.reverse()
    conditionals = []
    for position, name in enumerate(order):
        parents = NETWORKS[kind](order[:position])
        family = correlated(units[name], source) if name == "z2" else gaussian(units[name], source)
        net = linear(sum(units[parent] for parent in parents), family, source, scale)
        conditionals.append(Conditional(name, parents, net, family))
    return NetworkPosterior(BeliefNetwork(conditionals))


def ladder(widths: Sequence[int], *, seed: int = 100, top: Merge = alone) -> Ladder:
    """A ladder whose upward z1 has a full covariance, as the decoder's."""
    source = torch.Generator().manual_seed(seed)
    upward = encoder(widths, seed=seed)
    first = Conditional("z1", ["x"], upward["z1"].net, correlated(widths[1], source))
    return Ladder(BeliefNetwork([first, *(upward[name] for name in upward.variables[1:])]), top)


def distributions(network: BeliefNetwork) -> dict[str, EncoderKind]:
    """The distributions of a network, read from its tensors."""
    return {name: (network[name].parents, *parameters(network[name])) for name in network.variables}


def ladder_distributions(upward: BeliefNetwork, above: BeliefNetwork, *, merged_top: bool) -> dict[str, EncoderKind]:
    """The distributions of a ladder: precisions of u_l(z_l; x) and p(z_l | ·) add (Sønderby et al. 2016, equations 15
    to 17)."""
    weight, bias = np.eye(parameters(upward["z1"])[0].shape[1]), np.zeros(1)
    found: dict[str, EncoderKind] = {}
    for name in upward.variables:
        step, shift, noise = parameters(upward[name])
        bias, weight = step @ np.broadcast_to(bias, step.shape[1:]) + shift, step @ weight
        parents, down, down_bias, down_noise = above[name].parents, *parameters(above[name])
        if not parents and not merged_top:
            found[name] = (["x"], weight, bias, noise)
            continue
        up_precision, down_precision = np.linalg.inv(noise), np.linalg.inv(down_noise)
        merged = np.linalg.inv(up_precision + down_precision)
        both = np.hstack([down_precision @ down, up_precision @ weight])
        found[name] = (
            [*parents, "x"],
            merged @ both,
            merged @ (up_precision @ bias + down_precision @ down_bias),
            merged,
        )
    return dict(reversed(found.items()))


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
        tril[rows, columns] = scale[: len(rows)] / family.units
        tril[np.diag_indices(family.units)] = 1
        tril *= np.exp(scale[len(rows) :] / 2)[:, None]
        noise = tril @ tril.T
    if isinstance(net, Root):
        return np.zeros((family.units, 0)), net.outputs.detach().numpy(), noise
    assert isinstance(net, nn.Linear)
    return net.weight.detach().numpy(), net.bias.detach().numpy(), noise


def joint(
    network: BeliefNetwork, roots: dict[str, tuple[Array, Array]] | None = None
) -> tuple[dict[str, list[int]], Array, Array]:
    """Indices, mean and covariance of all variables of a network."""
    return grown(distributions(network), roots)


def grown(
    conditionals: Mapping[str, EncoderKind], roots: Mapping[str, tuple[Array, Array]] | None = None
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
    for name, (parents, weight, bias, noise) in conditionals.items():
        seen = [i for parent in parents for i in where[parent]]
        cross = weight @ covariance[seen]
        grow(name, weight @ mean[seen] + bias, cross, weight @ covariance[np.ix_(seen, seen)] @ weight.T + noise)
    return where, mean, covariance


def information(covariance: Array, a: Sequence[int], b: Sequence[int]) -> float:
    """I(a; b) as a difference of log-determinants."""

    def log_det(index: Sequence[int]) -> float:
        return float(np.linalg.slogdet(covariance[np.ix_(index, index)])[1])

    return (log_det(a) + log_det(b) - log_det([*a, *b])) / 2
