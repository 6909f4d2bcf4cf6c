"""Decoders and belief networks: products of conditionals, visited by one walk.

A `Decoder` is a product of conditionals in ancestral order,

    p(v_1) p(v_2 | parents(v_2)) … p(v_n | parents(v_n)).

`walk` visits the variables in that order; a variable found in ``given`` is scored, any other is
drawn. So ``given={}`` is ancestral sampling, everything given is the log joint, and anything between
is clamping, knock-out or latent traversal. Whatever can be walked can be measured: estimators and
diagnostics use the members of this class alone.

A `BeliefNetwork` has a net of its own for every conditional, and knows neither p nor q: the decoder
p(zL) … p(z1|z2) p(x|z1) and the bottom-up encoder q(z1|x) q(z2|z1) … are both one. A residual top-down
net, which carries a state from layer to layer, is another `Decoder`.

Variables are joined by name. Values ``[K, B, D]`` and log-probabilities ``[K, B]`` broadcast over
K and B: x as ``[1, n, D]`` with draws as ``[m, 1, D]`` scores all m·n pairs.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from hvae.families import Family
from hvae.rng import NoiseSpecs
from hvae.shapes import LogProb, Noise, UnitLogProb, Value


@dataclass(frozen=True)
class Site:
    """The value of a variable, and the distribution that drew or scores it.

    >>> from hvae.families import DiagonalGaussian
    >>> family = DiagonalGaussian(2, variance="fixed")
    >>> site = Site(torch.zeros(7, 5, 2), family.distribution(torch.zeros(1, 5, 2)), family)
    >>> site.log_prob.shape, site.unit_log_prob.shape
    (torch.Size([7, 5]), torch.Size([7, 5, 2]))
    """

    value: Value
    distribution: Distribution
    family: Family

    @cached_property
    def log_prob(self) -> LogProb:
        """log-probability of the value under the distribution, nats."""
        if self.family.factorised:  # shares the terms with `unit_log_prob`
            return self.unit_log_prob.sum(-1)
        return self.family.log_prob(self.distribution, self.value)

    @cached_property
    def unit_log_prob(self) -> UnitLogProb:
        """The terms of `log_prob`, one per unit; only factorised families have them."""
        return self.family.unit_log_prob(self.distribution, self.value)

    @property
    def mean(self) -> Value:
        """Mean of the distribution."""
        return self.family.mean(self.distribution)


Trace = Mapping[str, Site]
"""variable -> its value and its distribution"""


class Conditional(nn.Module):
    """``p(child | parents)``: a net and a family. The latent-layer abstraction, in decoder and encoder alike.

    A conditional without parents is a prior; its net takes no input.

    >>> import torch
    >>> from torch import nn
    >>> from hvae import Conditional
    >>> from hvae.families import DiagonalGaussian
    >>> layer = Conditional("z1", ["z2"], nn.Linear(2, 6), DiagonalGaussian(3))  # a mean and a log-variance a unit
    >>> layer({"z2": torch.zeros(7, 5, 2)}).mean.shape
    torch.Size([7, 5, 3])
    """

    def __init__(self, name: str, parents: Sequence[str], net: nn.Module, family: Family) -> None:
        super().__init__()
        self.name = name
        self.parents = tuple(parents)
        self.net = net
        self.family = family

    def forward(self, values: Mapping[str, Tensor]) -> Distribution:
        """The distribution of the child given the parents' ``values``; several parents are concatenated."""
        if not self.parents:
            return self.family.distribution(self.net())
        parents = [values[parent] for parent in self.parents]
        if len(parents) > 1:
            batch = torch.broadcast_shapes(*(parent.shape[:-1] for parent in parents))
            parents = [parent.expand(*batch, parent.shape[-1]) for parent in parents]
        return self.family.distribution(self.net(torch.cat(parents, dim=-1) if len(parents) > 1 else parents[0]))


class Decoder(nn.Module, ABC):
    """``p(x, z)``: variables in ancestral order, each with its parents, that `walk` visits.

    Four members are abstract; the others follow from them. A decoder in which all layers share work, such as a state
    that is carried from layer to layer, also writes `descend`, one pass that stops at every variable; `walk` is then
    ``return walked(self, given, noise)``. Without it a ladder walks once for each of its layers.

    >>> import torch
    >>> from torch import nn
    >>> from hvae.network import Decoder, walked
    >>> from hvae.families import Bernoulli, DiagonalGaussian
    >>> from hvae.rng import noise
    >>> class TopDown(Decoder):
    ...     '''p(z2) p(z1 | z2) p(x | z2, z1), with h <- h + net(z) from layer to layer.'''
    ...     variables = ("z2", "z1", "x")
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.nets = nn.ModuleDict({"z2": nn.Linear(2, 4), "z1": nn.Linear(2, 4)})
    ...         self.heads = nn.ModuleDict({"z2": nn.Linear(4, 4), "z1": nn.Linear(4, 4), "x": nn.Linear(4, 3)})
    ...         self.families = nn.ModuleDict({"z2": DiagonalGaussian(2), "z1": DiagonalGaussian(2), "x": Bernoulli(3)})
    ...     def parents(self, name):
    ...         return self.variables[: self.variables.index(name)]
    ...     def family(self, name):
    ...         return self.families[name]
    ...     def descend(self, values):
    ...         h = torch.zeros(1, 1, 4)
    ...         for name in self.variables:
    ...             yield name, self.families[name].distribution(self.heads[name](h))
    ...             if name in self.nets:
    ...                 h = h + self.nets[name](values[name])
    ...     def walk(self, given, noise):
    ...         return walked(self, given, noise)
    >>> decoder = TopDown()
    >>> trace = decoder.walk({}, noise(decoder.noise_specs(), 5, 7, seed=0, purpose="example"))
    >>> {name: tuple(site.value.shape) for name, site in trace.items()}
    {'z2': (5, 7, 2), 'z1': (5, 7, 2), 'x': (5, 7, 3)}
    """

    @property
    @abstractmethod
    def variables(self) -> tuple[str, ...]:
        """Names in ancestral order: the latents from the top down, then x."""

    @abstractmethod
    def parents(self, name: str) -> tuple[str, ...]:
        """The variables that ``name`` is conditioned on: with a carried state, all variables before it."""

    @abstractmethod
    def family(self, name: str) -> Family:
        """The family of the distribution of ``name``."""

    @abstractmethod
    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        """Visit every variable: score what is in ``given``, draw the others from ``noise``.

        Values are ``[K, B, D]``, the trace is in ancestral order. ``given`` may also hold variables that this decoder
        does not have. Raises KeyError for a variable that is neither given nor has noise.
        """

    @property
    def row_size(self) -> int:
        """Numbers that a row takes at the widest place of a walk: a measure of memory."""
        return max(self.family(name).row_size for name in self.variables)

    def has_mean(self, name: str) -> bool:
        """Whether the mean of ``name`` is a value that what depends on it can take; of a choice it may not be."""
        return True

    def event(self, name: str) -> tuple[int, ...]:
        """Shape of a value: ``(D,)``, or ``(C, R, R)`` of a latent with rows and columns."""
        return (self.family(name).width,)

    def can_redraw(self, name: str) -> bool:
        """Whether a draw of ``name`` can be scored under another of its distributions."""
        return True

    def noise_specs(self) -> NoiseSpecs:
        """The noise that drawing every variable takes."""
        return {name: (self.family(name).noise, self.family(name).noise_width) for name in self.variables}

    def distribution(self, name: str, values: Mapping[str, Value]) -> Distribution:
        """``p(name | parents)`` at the ``values`` of its parents; other entries of ``values`` do not matter.

        By default one walk. Raises KeyError for a parent without value.
        """
        return self.factors([name]).walk(values, self._placeholders(values, [name]))[name].distribution

    def descend(self, values: Mapping[str, Value]) -> Iterator[tuple[str, Distribution]]:
        """Every variable and its distribution, in ancestral order, at ``values`` that grow on the way.

        The caller puts the value of a variable into ``values`` before it asks for the next one, and may stop anywhere.
        By default one `distribution` a variable, which takes as many walks.
        """
        for name in self.variables:
            yield name, self.distribution(name, values)

    def factors(self, names: Collection[str]) -> "Decoder":
        """The conditionals of ``names`` alone, to be walked with the values of all their other parents given.

        By default each of their walks is one of the whole decoder; the draws of the others do not matter.
        """
        return _Factors(self, names)

    def _placeholders(self, values: Mapping[str, Value], names: Collection[str]) -> dict[str, Noise]:
        """Noise for those of ``names`` that have no value, for walks in which their own values do not matter."""
        missing = {name: spec for name, spec in self.noise_specs().items() if name in names and name not in values}
        like = next(iter(values.values()), None)
        like = next(self.parameters(), torch.zeros(())) if like is None else like
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values.values())) or (1, 1)
        middle = {"normal": 0.0, "uniform": 0.5}
        return {name: like.new_full((*batch, width), middle[kind]) for name, (kind, width) in missing.items()}


class _Factors(Decoder):
    """Some conditionals of a decoder that has no net for each: all are walked, the others with placeholders."""

    def __init__(self, whole: Decoder, names: Collection[str]) -> None:
        super().__init__()
        self.whole = whole
        self.names = tuple(name for name in whole.variables if name in names)

    @property
    def variables(self) -> tuple[str, ...]:
        return self.names

    def parents(self, name: str) -> tuple[str, ...]:
        return self.whole.parents(name)

    def family(self, name: str) -> Family:
        return self.whole.family(name)

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        needed = [parent for name in self.names for parent in self.parents(name) if parent not in self.names]
        for name in needed:
            if name not in given:
                raise KeyError(name)
        if not self.names:
            return {}
        others = [name for name in self.whole.variables if name not in self.names]
        trace = self.whole.walk(given, {**self.whole._placeholders({**noise, **given}, others), **noise})
        return {name: trace[name] for name in self.names}


def walked(decoder: Decoder, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
    """`Decoder.walk` of a decoder that has written `Decoder.descend`."""
    values = dict(given)
    trace: dict[str, Site] = {}
    for name, distribution in decoder.descend(values):
        family = decoder.family(name)
        if name not in given:
            values[name] = family.draw(distribution, noise[name])
        trace[name] = Site(values[name], distribution, family)
    return trace


class BeliefNetwork(Decoder):
    """Conditionals in ancestral order, by name. Raises ValueError for a name that comes twice.

    >>> import torch
    >>> from torch import nn
    >>> from hvae import BeliefNetwork, Conditional
    >>> from hvae import Bernoulli, DiagonalGaussian, Root, noise
    >>> prior = Conditional("z1", [], Root(torch.zeros(4), learned=False), DiagonalGaussian(2))
    >>> decoder = BeliefNetwork([prior, Conditional("x", ["z1"], nn.Linear(2, 3), Bernoulli(3))])
    >>> drawn = decoder.walk({}, noise(decoder.noise_specs(), 7, 5, seed=0, purpose="example"))
    >>> scored = decoder.walk({name: site.value for name, site in drawn.items()}, {})
    >>> scored["x"].log_prob.shape
    torch.Size([7, 5])
    """

    def __init__(self, conditionals: Sequence[Conditional]) -> None:
        super().__init__()
        for conditional in conditionals:
            if not isinstance(conditional, Conditional):
                raise TypeError(f"a belief network is made of Conditionals in ancestral order; got {conditional!r}.")
        self.conditionals = nn.ModuleDict({conditional.name: conditional for conditional in conditionals})
        if len(self.conditionals) != len(conditionals):
            raise ValueError(
                f"the variables {[c.name for c in conditionals]} repeat a name; each has one distribution."
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """Names in ancestral order."""
        return tuple(self.conditionals)

    def __getitem__(self, name: str) -> Conditional:
        conditional = self.conditionals[name]
        assert isinstance(conditional, Conditional)
        return conditional

    def parents(self, name: str) -> tuple[str, ...]:
        return self[name].parents

    def family(self, name: str) -> Family:
        return self[name].family

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        """Visit every variable: score what is in ``given``, draw the others from ``noise``.

        ``given`` may also hold variables of other networks that serve as parents (x for an encoder).
        Raises KeyError for a variable that is neither given nor has noise.
        """
        return walked(self, given, noise)

    def distribution(self, name: str, values: Mapping[str, Value]) -> Distribution:
        distribution: Distribution = self[name](values)
        return distribution

    def factors(self, names: Collection[str]) -> "BeliefNetwork":
        return BeliefNetwork([self[name] for name in self.variables if name in names])
