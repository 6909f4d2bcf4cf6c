"""Belief networks: chains of conditionals, visited by one walk.

A `BeliefNetwork` is a product of conditionals in ancestral order,

    p(v_1) p(v_2 | parents(v_2)) … p(v_n | parents(v_n)),

and knows neither p nor q: the decoder p(zL) … p(z1|z2) p(x|z1) and the bottom-up encoder
q(z1|x) q(z2|z1) … are both one. `walk` visits the variables in that order; a variable found in
``given`` is scored, any other is drawn. So ``given={}`` is ancestral sampling, everything given is
the log joint, and anything between is clamping, knock-out or latent traversal.

Variables are joined by name. Values ``[K, B, D]`` and log-probabilities ``[K, B]`` broadcast over
K and B: x as ``[1, n, D]`` with draws as ``[m, 1, D]`` scores all m·n pairs.
"""

from collections.abc import Mapping, Sequence
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
    """Where a variable landed, and the law it fell from."""

    value: Value
    law: Distribution
    family: Family

    @cached_property
    def log_prob(self) -> LogProb:
        """log-probability of the value under the law, nats."""
        if self.family.factorised:  # shares the terms with `unit_log_prob`
            return self.unit_log_prob.sum(-1)
        return self.family.log_prob(self.law, self.value)

    @cached_property
    def unit_log_prob(self) -> UnitLogProb:
        """The terms of `log_prob`, one per unit; only factorised families have them."""
        return self.family.unit_log_prob(self.law, self.value)

    @property
    def mean(self) -> Value:
        """Mean of the law."""
        return self.family.mean(self.law)


Trace = Mapping[str, Site]
"""variable -> where it landed and the law it fell from"""


class Conditional(nn.Module):
    """``p(child | parents)``: a net and a family. The latent-layer abstraction, in decoder and encoder alike.

    A conditional without parents is a prior; its net takes no input.
    """

    def __init__(self, name: str, parents: Sequence[str], net: nn.Module, family: Family) -> None:
        super().__init__()
        self.name = name
        self.parents = tuple(parents)
        self.net = net
        self.family = family

    def forward(self, values: Mapping[str, Tensor]) -> Distribution:
        """The law of the child given the parents' ``values``; several parents are concatenated."""
        if not self.parents:
            return self.family.law(self.net())
        parents = [values[parent] for parent in self.parents]
        if len(parents) > 1:
            batch = torch.broadcast_shapes(*(parent.shape[:-1] for parent in parents))
            parents = [parent.expand(*batch, parent.shape[-1]) for parent in parents]
        return self.family.law(self.net(torch.cat(parents, dim=-1) if len(parents) > 1 else parents[0]))


class BeliefNetwork(nn.Module):
    """Conditionals in ancestral order, by name."""

    def __init__(self, conditionals: Sequence[Conditional]) -> None:
        super().__init__()
        self.conditionals = nn.ModuleDict({conditional.name: conditional for conditional in conditionals})
        if len(self.conditionals) != len(conditionals):
            raise ValueError(f"the variables {[c.name for c in conditionals]} repeat a name; each has one law.")

    @property
    def variables(self) -> tuple[str, ...]:
        """Names in ancestral order."""
        return tuple(self.conditionals)

    def __getitem__(self, name: str) -> Conditional:
        conditional = self.conditionals[name]
        assert isinstance(conditional, Conditional)
        return conditional

    def noise_specs(self) -> NoiseSpecs:
        """The noise that drawing every variable takes."""
        return {name: (self[name].family.noise, self[name].family.noise_width) for name in self.variables}

    def walk(self, given: Mapping[str, Value], noise: Mapping[str, Noise]) -> Trace:
        """Visit every variable: score what is in ``given``, draw the others from ``noise``.

        ``given`` may also hold variables of other networks that serve as parents (x for an encoder).
        Raises KeyError for a variable that is neither given nor has noise.
        """
        values = dict(given)
        trace: dict[str, Site] = {}
        for name in self.variables:
            conditional = self[name]
            law = conditional(values)
            if name not in given:
                values[name] = conditional.family.draw(law, noise[name])
            trace[name] = Site(values[name], law, conditional.family)
        return trace
