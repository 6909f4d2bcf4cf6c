"""Stacks from weak to strong couplings, with the best, an over-confident or a tilted encoder, and their exact gaps.

Uses only `hvae`: exact answers are those of `hvae.exact`, which has tests of its own.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hvae import rng
from hvae.evidence import HVAE, Evidence
from hvae.exact.answers import Gaps, Reference
from hvae.exact.discrete import DiscreteChain
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.exact.quadrature import Quadrature
from hvae.families import Bernoulli, DiagonalGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior

ENCODERS = ("best", "over-confident", "tilted")
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""factor on the decoder's weights; Gaussian units have unit noise, Bernoulli units fair biases"""
N_DATA = 6


@dataclass(frozen=True)
class KnownStack:
    """A stack, data that its decoder made, and the reference that solves it.

    >>> stack = linear_stack(1.0, "best", seed=0, widths=(6, 4, 3))
    >>> stack.model.latents, stack.x.shape, stack.evidence(5).log_weight.shape
    (('z1', 'z2'), torch.Size([6, 6]), torch.Size([5, 6]))
    """

    name: str
    family: str
    """linear, binary or smooth"""
    strength: float
    """factor on the couplings"""
    encoder: str
    """one of `ENCODERS`"""
    model: HVAE
    x: Tensor
    reference: Reference

    @property
    def exact(self) -> Gaps:
        """Gaps of its encoder on its data."""
        return self.reference.gaps(self.model.posterior, self.x)

    def evidence(self, n_samples: int, seed: int = 0) -> Evidence:
        """``n_samples`` draws of its encoder for each of its data, weighed: ``[K, B]``."""
        n, kind = len(self.x), self.x.dtype
        noise = rng.noise(self.model.noise_specs(), n_samples, n, seed=seed, purpose="known stack", dtype=kind)
        evidence: Evidence = self.model(self.x.unsqueeze(0), noise)
        return evidence


def grid(strengths: tuple[float, ...] = STRENGTHS) -> Iterator[KnownStack]:
    """Every strength with every encoder, linear-Gaussian and binary; each stack has weights and data of its own."""
    for seed, (strength, encoder) in enumerate(itertools.product(strengths, ENCODERS)):
        yield linear_stack(strength, encoder, seed)
        yield binary_stack(strength, encoder, seed)


def families() -> Iterator[KnownStack]:
    """One stack of moderate couplings for each family and depth, with an over-confident encoder."""
    for widths in ((6, 4), (6, 4, 3), (6, 4, 3, 2), (6, 4, 3, 2, 2)):
        stack = linear_stack(1.0, "over-confident", seed=0, widths=widths)
        yield dataclasses.replace(stack, name=f"linear, depth {len(widths) - 1}")
    for widths in ((12, 8), (12, 8, 8), (12, 8, 8, 8)):
        stack = binary_stack(1.0, "over-confident", seed=0, widths=widths)
        yield dataclasses.replace(stack, name=f"binary, depth {len(widths) - 1}")
    for depth in (1, 2, 3):
        yield smooth_stack(1.0, "over-confident", seed=0, depth=depth)


def smooth_stack(strength: float, encoder: str, seed: int, depth: int) -> KnownStack:
    """Tanh nets between layers of one Gaussian unit, and four Bernoulli units for x; the encoder has tanh nets too.

    It is trained on the ELBO of its data; with 0.4 of its deviations; or with half a deviation added to its means.
    """
    source = torch.Generator().manual_seed(seed)
    names = ["x", *(f"z{layer}" for layer in range(1, depth + 1))]
    root = Root(torch.zeros(1).double(), learned=False)
    conditionals = [Conditional(names[-1], [], root, DiagonalGaussian(1, variance="fixed").double())]
    for layer in reversed(range(depth)):
        family = DiagonalGaussian(1, variance="fixed").double() if layer else Bernoulli(4)
        net = _tanh(1, 1 if layer else 4, 2 * strength, source)
        conditionals.append(Conditional(names[layer], [names[layer + 1]], net, family))
    decoder = BeliefNetwork(conditionals).requires_grad_(False)
    noise = {name: _draw(kind, (1, N_DATA, width), source) for name, (kind, width) in decoder.noise_specs().items()}
    x = decoder.walk({}, noise)["x"].value[0]
    upward = [
        Conditional(name, [parent], _tanh(n_in, 2, 0.5, source), DiagonalGaussian(1))
        for name, parent, n_in in zip(names[1:], names, (4, *(1,) * depth), strict=False)
    ]
    model = HVAE(decoder, NetworkPosterior(BeliefNetwork(upward)))
    optimiser = torch.optim.Adam(model.posterior.parameters(), lr=0.03)
    for _ in range(300):
        optimiser.zero_grad()
        noise = {name: _draw(kind, (16, N_DATA, width), source) for name, (kind, width) in model.noise_specs().items()}
        (-model(x.unsqueeze(0), noise).log_weight.mean()).backward()
        optimiser.step()
    model.requires_grad_(False)
    for conditional in upward:
        assert isinstance(conditional.net, nn.Sequential)
        bias = conditional.net[-1].bias
        assert isinstance(bias, Tensor)
        if encoder == "over-confident":
            bias[1] += 2 * math.log(0.4)
        elif encoder == "tilted":
            bias[0] += 0.5 * math.exp(float(bias[1]) / 2)
    name = f"smooth, depth {depth}"
    return KnownStack(name, "smooth", strength, encoder, model, x, Quadrature.of(decoder))


def linear_stack(strength: float, encoder: str, seed: int, widths: tuple[int, ...] = (6, 4, 3, 2)) -> KnownStack:
    """A linear-Gaussian stack of widths (x, z1, …) and a diagonal bottom-up encoder.

    The encoder is the best one; with 0.4 of its deviations; or with random changes by about half a deviation.
    """
    source = torch.Generator().manual_seed(seed)
    names = ["x", *(f"z{layer}" for layer in range(1, len(widths)))]
    top = Root(torch.zeros(widths[-1]).double(), learned=False)
    conditionals = [Conditional(names[-1], [], top, _unit(widths[-1]))]
    for layer in reversed(range(len(widths) - 1)):
        net = _net(widths[layer + 1], widths[layer], strength, source)
        conditionals.append(Conditional(names[layer], [names[layer + 1]], net, _unit(widths[layer])))
    decoder = BeliefNetwork(conditionals)
    reference = LinearGaussian.of(decoder)
    posterior = reference.best_posterior("bottom-up", "diagonal")
    assert isinstance(posterior, NetworkPosterior)
    with torch.no_grad():
        for name in posterior.order:
            conditional = posterior.network[name]
            log_variance, weight = conditional.family.log_variance, conditional.net.weight
            assert isinstance(log_variance, Tensor) and isinstance(weight, Tensor)
            if encoder == "over-confident":
                log_variance += 2 * torch.tensor(0.4).log()
            elif encoder == "tilted":
                parent = reference.marginal(list(conditional.parents))[1].diagonal().sqrt()
                tilt = torch.randn(weight.shape, generator=source, dtype=torch.float64) / parent / len(parent) ** 0.5
                weight += 0.5 * (log_variance / 2).exp()[:, None] * tilt
    mean, covariance = reference.marginal(["x"])
    noise = torch.randn(N_DATA, widths[0], generator=source, dtype=torch.float64)
    x = mean + noise @ torch.linalg.cholesky(covariance).mT
    name, model = f"linear {strength:g} {encoder}", HVAE(decoder, posterior)
    return KnownStack(name, "linear", strength, encoder, model, x, reference)


def binary_stack(strength: float, encoder: str, seed: int, widths: tuple[int, ...] = (12, 8, 8)) -> KnownStack:
    """A stack of Bernoulli units of widths (x, z1, …) and a bottom-up encoder with logits linear in the parent.

    The encoder is trained on the exact ELBO of its data; with logits twice as large; or with noise on its parameters.
    """
    source = torch.Generator().manual_seed(seed)
    names = ["x", *(f"z{layer}" for layer in range(1, len(widths)))]
    decoder = binary_decoder(strength, widths, source)
    noise = {name: _draw("uniform", (1, N_DATA, width), source) for name, width in zip(names, widths, strict=True)}
    x = decoder.walk({}, noise)["x"].value[0]
    reference = DiscreteChain.of(decoder.requires_grad_(False))
    posterior = _trained(widths, reference, x, source)
    with torch.no_grad():
        for parameter in posterior.parameters():
            if encoder == "over-confident":
                parameter.mul_(2)
            elif encoder == "tilted":
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    name, model = f"binary {strength:g} {encoder}", HVAE(decoder, posterior)
    return KnownStack(name, "binary", strength, encoder, model, x, reference)


def binary_decoder(strength: float, widths: tuple[int, ...], source: torch.Generator) -> BeliefNetwork:
    """A sigmoid belief network of widths (x, z1, …): logits linear in the parent, 0 where each parent is 1/2."""
    names = ["x", *(f"z{layer}" for layer in range(1, len(widths)))]
    top = Root(torch.zeros(widths[-1]).double(), learned=False)
    conditionals = [Conditional(names[-1], [], top, Bernoulli(widths[-1]))]
    for layer in reversed(range(len(widths) - 1)):
        net = _net(widths[layer + 1], widths[layer], 2 * strength, source)
        with torch.no_grad():
            net.bias.copy_(-net.weight.sum(-1) / 2)
        conditionals.append(Conditional(names[layer], [names[layer + 1]], net, Bernoulli(widths[layer])))
    return BeliefNetwork(conditionals)


def binary_encoder(widths: tuple[int, ...], source: torch.Generator) -> NetworkPosterior:
    """A bottom-up encoder for `binary_decoder`, with small random weights."""
    names = ["x", *(f"z{layer}" for layer in range(1, len(widths)))]
    upward = [
        Conditional(name, [parent], _net(n_in, n_out, 0.1, source), Bernoulli(n_out))
        for name, parent, n_out, n_in in zip(names[1:], names, widths[1:], widths, strict=False)
    ]
    return NetworkPosterior(BeliefNetwork(upward))


def _trained(widths: tuple[int, ...], reference: DiscreteChain, x: Tensor, source: torch.Generator) -> NetworkPosterior:
    posterior = binary_encoder(widths, source)
    optimiser = torch.optim.Adam(posterior.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (-reference.elbo(posterior, x).mean()).backward()
        optimiser.step()
    return copy.deepcopy(posterior).requires_grad_(False)


def _tanh(n_in: int, n_out: int, scale: float, source: torch.Generator) -> nn.Sequential:
    return nn.Sequential(_net(n_in, 8, scale, source), nn.Tanh(), _net(8, n_out, scale, source))


def _draw(kind: str, shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    sampler = torch.randn if kind == "normal" else torch.rand
    return sampler(shape, generator=source, dtype=torch.float64)


def _unit(units: int) -> DiagonalGaussian:
    return DiagonalGaussian(units, variance="fixed").double()


def _net(n_in: int, n_out: int, scale: float, source: torch.Generator) -> nn.Linear:
    net = nn.Linear(n_in, n_out, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(scale * torch.randn(n_out, n_in, generator=source, dtype=torch.float64) / n_in**0.5)
        net.bias.zero_()
    return net
