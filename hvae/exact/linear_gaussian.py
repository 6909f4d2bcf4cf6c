"""Exact answers for stacks with linear Gaussian conditionals throughout.

All variables of such a decoder are jointly Gaussian. So log p(x), any conditional and any information are read off
their joint distribution, at any depth and with any skips. Two routes must agree on each (`joint`). A posterior of
affine Gaussian distributions, in any order of visit, has its ELBO, rates and layer gaps in closed form (`linear_gaps`).
float64, nats.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from hvae.exact.affine import AffineChain, read_chain
from hvae.exact.answers import Gaps, NoReferenceError, Reference, refuse_batch_statistics
from hvae.exact.joint import AffineGaussian, JointGaussian
from hvae.exact.linear_gaps import linear_gaps
from hvae.families import DiagonalGaussian, Family, FullGaussian
from hvae.families.gaussian import LOG_VARIANCE_LIMIT
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional, Trace
from hvae.posterior import NetworkPosterior, Posterior

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class LinearGaussian(JointGaussian, Reference):
    """The joint distribution of all variables of a linear-Gaussian network, and what a posterior misses of it.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> exact = LinearGaussian.of(stack.model.decoder)
    >>> exact.gaps(exact.exact_posterior("bottom-up"), stack.x).total.abs().max() < 1e-9
    tensor(True)
    """

    decoder: BeliefNetwork
    """the decoder itself, a copy in float64"""
    chain: AffineChain
    """its conditionals"""

    @staticmethod
    def of(decoder: BeliefNetwork) -> "LinearGaussian":
        """The joint p(z, x) of a decoder. Raises `NoReferenceError` with the reason."""
        network = _plain_copy(decoder)
        widths = {name: network[name].family.width for name in network.variables}
        chain = read_chain(lambda values: network.walk(values, {}), widths)
        joint = chain.joint()
        return LinearGaussian(joint.widths, joint.mean, joint.root, joint.white, joint.start, network, chain)

    @staticmethod
    def of_posterior(decoder: BeliefNetwork, posterior: Posterior, mean: Tensor, covariance: Tensor) -> JointGaussian:
        """The joint q(x, z) of a posterior when data are N(mean, covariance): exact I_q, aggregates and reverses."""
        chain = _posterior_chain(_plain_copy(decoder), posterior)
        return chain.rooted("x", mean.double(), covariance.double()).joint()

    @property
    def markov(self) -> bool:
        """Whether every variable has the one before it as its only parent."""
        chain = [(), *((name,) for name in self.decoder.variables[:-1])]
        return [self.decoder[name].parents for name in self.decoder.variables] == chain

    def log_px(self, x: Tensor) -> Tensor:
        """log p(x) `[...]` of `x [..., D]`."""
        return self.log_prob({"x": self._observed(x)})

    def log_px_error(self, x: Tensor) -> Tensor:
        """0 `[...]`: what float64 cannot resolve is refused."""
        return torch.zeros(self._observed(x).shape[:-1], dtype=torch.float64)

    def gaps(self, posterior: Posterior, x: Tensor) -> Gaps:
        """ELBO, rates and layer gaps of any posterior of Gaussians with affine means and constant variances.

        Bottom-up, top-down, ladder, mean field, Markov or seeing all; `x [B, D]`. Raises `NoReferenceError` for other
        distributions and for couplings beyond float64, ValueError where posterior or x do not fit the decoder.
        """
        latents = set(self.widths) - {"x"}
        if set(posterior.order) != latents:
            raise ValueError(f"the posterior visits {list(posterior.order)} and the decoder has {sorted(latents)}.")
        if x.ndim != 2:
            raise ValueError(f"x has the shape {list(x.shape)}; give one row per datum, [B, {self.widths['x']}].")
        return linear_gaps(self.chain, _posterior_chain(self.decoder, posterior), self._observed(x))

    def exact_posterior(self, order: Literal["bottom-up", "top-down"]) -> Posterior:
        """p(z | x) as a posterior of the core's own modules, in float64.

        Bottom-up p(z1|x) p(z2|z1) …, top-down p(zL|x) p(z_{L-1}|zL, x) …; where the decoder has skips, every
        variable also sees all that were visited before it.
        """
        return self.best_posterior(order, "full")

    def best_posterior(
        self, order: Literal["bottom-up", "top-down"], covariance: Literal["full", "diagonal"]
    ) -> Posterior:
        """The posterior of least gap among those of affine means and full or diagonal covariances, in float64.

        Each layer is the KL(q ‖ p)-optimal Gaussian for p(z_l | v) = N(m(v), Λ^-1), v what was visited before it and x:
        the mean m(v), and Λ^-1 itself (gap 0) or its nearest diagonal, `variance_i = 1 / Λ_ii`, with the gap
        `G_l = (sum_i log Λ_ii - log |Λ|) / 2` (Bishop 2006, section 10.1.2).

        Best layer by layer is jointly best in the linear-Gaussian case only: Λ is the same wherever v lies, so
        this least G_l is out of reach of the layers before, which decide where v lies and nothing else. In general
        it depends on v, and the early layers of the jointly best q move to where the later ones fit better.
        """
        downward = [name for name in self.widths if name != "x"]
        visits = downward if order == "top-down" else downward[::-1]
        conditionals = []
        for position, name in enumerate(visits):
            seen = visits[:position]
            if self.markov:
                seen = seen[-1:]
            parents = [*seen, "x"] if order == "top-down" or not seen or not self.markov else seen
            distribution = self.conditional([name], parents)
            family = (_full if covariance == "full" else _diagonal)(name, distribution.root)
            conditionals.append(Conditional(name, parents, _linear(distribution), family))
        return NetworkPosterior(BeliefNetwork(conditionals))

    def _observed(self, x: Tensor) -> Tensor:
        x = x.to(self.mean)
        if x.shape[-1:] != (self.widths["x"],):
            raise ValueError(f"x has the shape {list(x.shape)} and the decoder {self.widths['x']} observed units.")
        if not x.isfinite().all():
            raise ValueError(f"x holds {int((~x.isfinite()).sum())} numbers that are nan or infinite; leave them out.")
        return x


def _plain_copy(module: Module) -> Module:
    """A copy in float64 on the CPU. Batch norm in training mode is refused: probes would move its statistics."""
    refuse_batch_statistics(module)
    return copy.deepcopy(module).double().cpu()


def _posterior_chain(decoder: BeliefNetwork, posterior: Posterior) -> AffineChain:
    """The distributions of a posterior in its own order, x first and without a distribution."""
    visit = _plain_copy(posterior)
    widths = {name: decoder[name].family.width for name in ("x", *visit.order)}

    def score(values: Mapping[str, Tensor]) -> Trace:
        return visit.walk(decoder, values, {})

    return read_chain(score, widths)


def _full(name: str, root: Tensor) -> Family:
    _refuse_unless_held(name, 2 * root.diagonal().log())
    return FullGaussian(len(root), variance="fixed", scale_tril=root)


def _diagonal(name: str, root: Tensor) -> Family:
    """`variance_i = 1 / (covariance^-1)_ii`."""
    eye = torch.eye(len(root), dtype=torch.float64)
    log_variance = -torch.linalg.solve_triangular(root, eye, upper=False).square().sum(0).log()
    _refuse_unless_held(name, log_variance)
    family = DiagonalGaussian(len(root), variance="fixed").double()
    assert family.log_variance is not None
    family.log_variance.copy_(log_variance)
    return family


def _refuse_unless_held(name: str, log_variance: Tensor) -> None:
    if not log_variance.abs().max() < LOG_VARIANCE_LIMIT:
        raise NoReferenceError(
            f"The exact distribution of {name} has a log-variance of {float(log_variance.abs().max()):.3g} in size, "
            f"beyond the {LOG_VARIANCE_LIMIT:g} that a family holds; rescale the decoder."
        )


def _linear(distribution: AffineGaussian) -> nn.Module:
    if distribution.weight.shape[1] == 0:
        return Root(distribution.offset, learned=False)
    net = nn.Linear(distribution.weight.shape[1], distribution.weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(distribution.weight)
        assert net.bias is not None
        net.bias.copy_(distribution.offset)
    return net
