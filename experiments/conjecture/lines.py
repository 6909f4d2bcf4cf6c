"""Chains of one Gaussian unit a layer, on equally spaced values: reverse conditionals, and gaps of any encoder.

Let h be the spacing of a variable's values. An integral over it is h times a sum, with an error that falls
geometrically (`hvae.exact.nodes`). So, to rounding,

    p(z_{l-1}) = h_l sum over z_l of p(z_{l-1} | z_l) p(z_l),
    p(z_l | z_{l-1}) = p(z_{l-1} | z_l) p(z_l) / p(z_{l-1}),
    G_l = E_q(z_{l-1}) h_l sum over z_l of q(z_l | z_{l-1}) (log q(z_l | z_{l-1}) - log p(z_l | z_{l-1})),    z_0 = x,

on all values of x, weighed by p(x). The least gap of a Gaussian with free mean and deviation for every parent is known
by recursion from the top: with V_{L+1} = 0,

    V_l(z_{l-1}) = min over m, s of E_N(z_l; m, s²) [log N(z_l; m, s²) - log p(z_l | z_{l-1}) + V_{l+1}(z_l)]

is the infimum of sum over k >= l of G_k from z_{l-1} on, and E_p(x) V_1(x) that of the gap. `Quadrature` walks the
noise of a posterior; the values here depend on the decoder alone. float64, nats.

Axes: P values of the parent, S values of the child, C candidates.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hvae.exact.answers import NoReferenceError
from hvae.families import DiagonalGaussian, FullGaussian
from hvae.network import BeliefNetwork, Conditional

MASS = 1e-4
"""share of x and of the latents that may be lost between the values or beyond them"""
WIDEST, N_DEVIATIONS, N_MEANS = 3.0, 24, 96
"""of the candidates of a Gaussian: the largest deviation, how many deviations, how many means"""
N_ZOOMS, N_ACROSS = 12, 5
"""halvings of the candidates' distance about the best, and candidates across"""
LOWEST_MODE = 0.01
"""of the highest"""


@dataclass(frozen=True)
class Lines:
    """The values of every variable of a chain, and its log-densities there."""

    values: Mapping[str, Tensor]
    """`[S]` of x, z1, …"""
    down: Mapping[str, Tensor]
    """log p(z_{l-1} | z_l) `[P, S]` by its child x, z1, …; of z_L log p(z_L) `[1, S]`"""
    marginals: Mapping[str, Tensor]
    """log p(x), log p(z_1), …, `[S]`"""

    @staticmethod
    @torch.no_grad()
    def of(decoder: BeliefNetwork, n_values: int, reach: float) -> "Lines":
        """``n_values`` of every variable, which reach ``reach`` deviations beyond the means of its distribution.

        Raises `NoReferenceError` for a variable that is no Gaussian unit or no link of a chain, and for values that
        lose a ten-thousandth of the mass.
        """
        values: dict[str, Tensor] = {}
        down: dict[str, Tensor] = {}
        marginals: dict[str, Tensor] = {}
        for above, name in zip((None, *decoder.variables), decoder.variables, strict=False):
            conditional = decoder[name]
            if conditional.parents != (() if above is None else (above,)) or conditional.family.width != 1:
                raise NoReferenceError(f"{name} is not one unit of a chain; give each one unit and one parent at most.")
            if not isinstance(conditional.family, DiagonalGaussian | FullGaussian):
                raise NoReferenceError(f"{name} is a {type(conditional.family).__name__}; values need Gaussian units.")
            distribution = conditional({} if above is None else {above: values[above].reshape(-1, 1, 1)})
            ends = [(distribution.mean + side * reach * distribution.stddev) for side in (-1, 1)]
            values[name] = torch.linspace(float(ends[0].min()), float(ends[1].max()), n_values, dtype=torch.float64)
            down[name] = conditional.family.log_prob(distribution, values[name].unsqueeze(-1)).reshape(-1, n_values)
            weight = 0.0 if above is None else marginals[above].unsqueeze(-1) + _log_spacing(values[above])
            marginals[name] = (weight + down[name]).logsumexp(0)
            mass = float((marginals[name].logsumexp(0) + _log_spacing(values[name])).exp())
            if not abs(mass - 1) < MASS:
                raise NoReferenceError(
                    f"{n_values} values of {name} hold a mass of {mass:.7f}; give more values, or a longer reach."
                )
        return Lines(*({name: found[name] for name in decoder.variables[::-1]} for found in (values, down, marginals)))

    @property
    def latents(self) -> tuple[str, ...]:
        return tuple(self.values)[1:]

    def weight(self, name: str) -> Tensor:
        """What each value of a variable counts under p: `h p(v)` `[S]`."""
        return (self.marginals[name] + _log_spacing(self.values[name])).exp()

    def reverse(self, latent: str) -> Tensor:
        """log p(z_l | z_{l-1}) `[P, S]`."""
        child = self._child(latent)
        return self.down[child].mT + self.marginals[latent] - self.marginals[child].unsqueeze(-1)

    @torch.no_grad()
    def gaps(self, encoder: BeliefNetwork) -> tuple[Tensor, float]:
        """G_l `[L]` of a bottom-up ``encoder`` on p(x), and the largest error of the mass of q on the values."""
        weight, found, off = self.weight("x"), [], 0.0
        for name in self.latents:
            log_q = scored(encoder[name], self.values[self._child(name)], self.values[name])
            q = log_q.exp() * _log_spacing(self.values[name]).exp()
            found.append((weight.unsqueeze(-1) * q * (log_q - self.reverse(name))).sum())
            weight = weight @ q
            off = max(off, abs(float(weight.sum()) - 1))
        return torch.stack(found), off

    def least(self, latent: str) -> Tensor:
        """V_l `[P]` of this layer and all above."""
        return self._least[latent][0]

    def least_gaussian(self) -> Tensor:
        """G_l `[L]` of Gaussians with free mean and deviation for every parent; their sum is the infimum."""
        weight, sums = self.weight("x"), []
        for name in self.latents:
            value, log_q = self._least[name]
            sums.append((weight * value).sum())
            weight = weight @ log_q.exp()
        sums.append(torch.zeros_like(sums[0]))
        return torch.stack([first - rest for first, rest in itertools.pairwise(sums)])

    def multimodal(self, latent: str) -> Tensor:
        """The share of parents, by p, with two modes of p(z_l | z_{l-1}) of at least 1 % of the highest."""
        log_density = self.reverse(latent)
        density = (log_density - log_density.amax(-1, keepdim=True)).exp()
        left, middle, right = density[:, :-2], density[:, 1:-1], density[:, 2:]
        modes = ((middle > left) & (middle >= right) & (middle > LOWEST_MODE)).sum(-1)
        return (self.weight(self._child(latent)) * (modes > 1)).sum()

    @cached_property
    def _least(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """V_l, and the log-probabilities of the distribution that reaches it `[P, S]`, from the top down."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        above = torch.zeros_like(self.values[self.latents[-1]])
        for name in reversed(self.latents):
            found[name] = _least(self.reverse(name) - above, self.values[name])
            above = found[name][0]
        return found

    def _child(self, latent: str) -> str:
        names = tuple(self.values)
        return names[names.index(latent) - 1]


def scored(conditional: Conditional, parents: Tensor, values: Tensor) -> Tensor:
    """log-density `[P, S]` of one unit's ``values [S]`` given each of its parent's ``parents [P]``."""
    distribution = conditional({conditional.parents[0]: parents.reshape(-1, 1, 1)})
    return conditional.family.log_prob(distribution, values.unsqueeze(-1))


def _log_spacing(values: Tensor) -> Tensor:
    return (values[1] - values[0]).log()


def _least(log_target: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """min over m, s of E_N(v; m, s²) [log N(v; m, s²) - log_target(v)] for each of ``log_target [P, S]``.

    Also the log-probabilities of the values under the distribution that reaches it `[P, S]`. A grid of candidates is
    searched, then narrowed around its best, so no local minimum can hold the search. No deviation is below the
    spacing, where a sum over values is no integral.
    """
    log_spacing = float(_log_spacing(values))
    means = values[:: max(1, len(values) // N_MEANS)]
    log_deviations = torch.linspace(log_spacing, math.log(WIDEST), N_DEVIATIONS, dtype=torch.float64)
    mean, log_deviation = (axis.flatten() for axis in torch.meshgrid(means, log_deviations, indexing="ij"))
    steps = (float(means[1] - means[0]), float(log_deviations[1] - log_deviations[0]))
    log_q = _normal(mean, log_deviation, values)
    place = (-_entropy(log_deviation) - log_target @ log_q.exp().mT).argmin(-1)
    mean, log_deviation = mean[place], log_deviation[place]
    line = torch.linspace(-1, 1, N_ACROSS, dtype=torch.float64)
    around = [axis.flatten() for axis in torch.meshgrid(line, line, indexing="ij")]
    for zoom in range(N_ZOOMS):
        near = mean.unsqueeze(-1) + steps[0] / 2**zoom * around[0]
        wide = (log_deviation.unsqueeze(-1) + steps[1] / 2**zoom * around[1]).clamp(min=log_spacing)
        q = _normal(near, wide, values).exp()
        found = -_entropy(wide) - (q @ log_target.unsqueeze(-1)).squeeze(-1)
        place = found.argmin(-1, keepdim=True)
        mean, log_deviation = near.gather(-1, place).squeeze(-1), wide.gather(-1, place).squeeze(-1)
    return found.gather(-1, place).squeeze(-1), _normal(mean, log_deviation, values)


def _normal(mean: Tensor, log_deviation: Tensor, values: Tensor) -> Tensor:
    """log-probabilities `[..., C, S]` of the values under normal distributions, which sum to 1."""
    white = (values - mean.unsqueeze(-1)) * (-log_deviation).exp().unsqueeze(-1)
    return (-white.square() / 2).log_softmax(-1)


def _entropy(log_deviation: Tensor) -> Tensor:
    return log_deviation + (1 + math.log(2 * math.pi)) / 2
