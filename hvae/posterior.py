"""Posteriors: ways to visit the latents given x.

    bottom-up         q(z1|x) q(z2|z1) … q(zL|z_{L-1})            the layered encoder of the lecture
    bottom-up-x       q(z1|x) q(z2|z1, x) … q(zL|z_{L-1}, x)      the same, where every layer also sees x
    mean-field        q(z1|x) q(z2|x) … q(zL|x)                   no layer sees another
    top-down          q(zL|x) q(z_{L-1}|zL, x) … q(z1|z2, x)      the ladder of Sønderby et al. 2016
    top-down-shared   the same, with the top merged too           Flach, Schlesinger and Shekhovtsov 2024
    unamortised       free parameters for every image, no net: `hvae.diagnostics.unamortised`

Any belief network over the latents is a posterior (`NetworkPosterior`). The ladder merges an upward
pass with the decoder's own conditionals, so every visit takes the decoder too. The posterior of a residual
stack (`hvae.topdown`) reads the decoder's state, top-down, and visits both in one walk.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from torch import nn
from torch.distributions import Distribution

from hvae.families import Family
from hvae.network import BeliefNetwork, Decoder, Site, Trace
from hvae.rng import NoiseSpecs
from hvae.shapes import Noise, Value


class Posterior(nn.Module, ABC):
    """q(z | x).

    >>> from hvae import Posterior
    >>> class Ignorant(Posterior):
    ...     '''q(z1 | x) = p(z1): a posterior that has collapsed to its prior.'''
    ...     order = ("z1",)
    ...     def noise_specs(self):
    ...         return {"z1": ("normal", 2)}
    ...     def walk(self, decoder, given, noise):
    ...         return decoder.factors(["z1"]).walk(given, noise)
    >>> Ignorant().parents("z1")
    ('x',)
    """

    @property
    @abstractmethod
    def order(self) -> tuple[str, ...]:
        """Latents in the order in which they are visited."""

    def bottom_up(self, decoder: Decoder) -> bool:
        """Whether z1 is visited first, then z2 and so on up: the reverse of the order in which ``decoder`` draws.

        The decoder says which latent stands next to x, as names are free. A single latent is visited bottom-up.
        """
        return self.order == tuple(name for name in reversed(decoder.variables) if name != "x")

    def parents(self, name: str) -> tuple[str, ...]:
        """The variables that q(z_l | ·) sees at most: x and the latents visited before."""
        return ("x", *self.order[: self.order.index(name)])

    def family(self, name: str, decoder: Decoder) -> Family:
        """The family of q(z_l | ·): by default the decoder's, which draws values of the same kind."""
        return decoder.family(name)

    @abstractmethod
    def noise_specs(self) -> NoiseSpecs:
        """The noise that a visit takes."""

    @abstractmethod
    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        """Visit the latents: ``given`` holds x, and any latents that are to be scored instead of drawn."""

    def visit(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> tuple[Trace, Trace]:
        """The p-trace, x included, and the q-trace of the same draws.

        By default two walks; a posterior that shares work with the decoder may do with one.
        """
        q = self.walk(decoder, given, noise)
        return scored(decoder, q, given["x"]), q


def scored(decoder: Decoder, q: Trace, x: Value) -> Trace:
    """The p-trace of the draws of ``q`` and of x."""
    return decoder.walk({**{name: site.value for name, site in q.items()}, "x": x}, {})


class NetworkPosterior(Posterior):
    """A belief network over the latents with x among its parents, such as the bottom-up encoder.

    >>> from torch import nn
    >>> from hvae import BeliefNetwork, NetworkPosterior
    >>> from hvae import Conditional, DiagonalGaussian
    >>> encoder = BeliefNetwork([Conditional("z1", ["x"], nn.Linear(3, 4), DiagonalGaussian(2))])
    >>> NetworkPosterior(encoder).order, NetworkPosterior(encoder).noise_specs()
    (('z1',), {'z1': ('normal', 2)})
    """

    def __init__(self, network: BeliefNetwork) -> None:
        super().__init__()
        self.network = network

    @property
    def order(self) -> tuple[str, ...]:
        return self.network.variables

    def parents(self, name: str) -> tuple[str, ...]:
        return self.network.parents(name)

    def family(self, name: str, decoder: Decoder) -> Family:
        return self.network.family(name)

    def noise_specs(self) -> NoiseSpecs:
        return self.network.noise_specs()

    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        return self.network.walk(given, noise)


Merge = Callable[[Family, Distribution, Distribution], Distribution]
"""(family, u_L, p(zL)) -> q(zL | x): the top of a ladder"""


def alone(family: Family, upward: Distribution, prior: Distribution) -> Distribution:
    """``q(zL | x) = u_L``, as in Sønderby et al. 2016."""
    return upward


def shared(family: Family, upward: Distribution, prior: Distribution) -> Distribution:
    """``q(zL | x) ∝ u_L(zL; x) · p(zL)``: the top is merged as all others are (Flach et al. 2024, section 3)."""
    return family.product(upward, prior)


class Ladder(Posterior):
    """``q(z_l | z_{l+1}, x) ∝ u_l(z_l; x) · p(z_l | z_{l+1})`` (Sønderby et al. 2016, equations 12 to 18).

    ``upward`` is a bottom-up encoder; it passes up its *means* in place of draws. Its distributions u_l meet the
    decoder's conditionals in a normalised product, which adds natural parameters: precision-weighted for Gaussians,
    added logits for discrete layers. u_l is a distribution, so the precision it adds is positive. The variable without
    parent, zL, is merged by ``top``: `alone` or `shared`.

    >>> import torch
    >>> from torch import nn
    >>> from hvae import BeliefNetwork, Ladder
    >>> from hvae import Conditional, DiagonalGaussian
    >>> z1 = Conditional("z1", ["x"], nn.Linear(3, 4), DiagonalGaussian(2))
    >>> z2 = Conditional("z2", ["z1"], nn.Linear(2, 2), DiagonalGaussian(1))
    >>> ladder = Ladder(BeliefNetwork([z1, z2]))
    >>> ladder.order, ladder.parents("z1")
    (('z2', 'z1'), ('x', 'z2'))
    """

    def __init__(self, upward: BeliefNetwork, top: Merge = alone) -> None:
        super().__init__()
        self.upward = upward
        self.top = top

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(reversed(self.upward.variables))

    def family(self, name: str, decoder: Decoder) -> Family:
        return self.upward.family(name)

    def noise_specs(self) -> NoiseSpecs:
        return {name: self.upward.noise_specs()[name] for name in self.order}

    def walk(self, decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        """One pass up and one down (`Decoder.descend`), which ends above x.

        Raises ValueError for a decoder with another order of its latents.
        """
        means: dict[str, Value] = {"x": given["x"]}
        upward_distributions = {}
        for name in self.upward.variables:
            upward_distributions[name] = self.upward[name](means)
            means[name] = self.upward[name].family.mean(upward_distributions[name])
        values = dict(given)
        trace: dict[str, Site] = {}
        for position, (name, prior) in zip(self.order, decoder.descend(values), strict=False):
            if name != position:
                raise ValueError(
                    f"a ladder visits {', '.join(self.order)}, but the decoder draws {', '.join(decoder.variables)}; "
                    "give the upward pass its latents in reverse."
                )
            family = self.upward[name].family
            merge = shared if decoder.parents(name) else self.top
            distribution = merge(family, upward_distributions[name], prior)
            if name not in given:
                values[name] = family.draw(distribution, noise[name])
            trace[name] = Site(values[name], distribution, family)
        return trace
