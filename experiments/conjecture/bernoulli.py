"""Known stacks of Bernoulli units, and encoders of many kinds trained on them without noise: rows of a table.

A teacher p is a belief network of Bernoulli units (`examples.binary_decoder`). The data are all values of x, weighed by
p(x), so only `known_stacks` draws anything. The question is how much of the gap the best encoder of a kind leaves.
Nats.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hvae import nets
from hvae.evidence import HVAE
from hvae.exact import DiscreteChain
from hvae.exact import known_stacks as examples
from hvae.experiments.conjecture.enumeration import Enumeration, Fit, Tables, bernoulli_states, fit
from hvae.experiments.truth.accuracy import columns
from hvae.families import Autoregressive, Bernoulli, DiagonalGaussian, Family, Flow, MixtureGaussian
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior

Widths = tuple[int, ...]
"""Bernoulli units of x, z1, …"""
FIRST_TEACHER = 300
"""Trials that fixed the margins, and an earlier run, had the seeds below this."""


class ParentTable(nn.Module):
    """Separate outputs for every state of the parent's Bernoulli units: the widest net there can be."""

    places: Tensor

    def __init__(self, n_in: int, n_outputs: int, source: torch.Generator) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.randn(2**n_in, n_outputs, generator=source, dtype=torch.float64) / 2)
        self.register_buffer("places", 2 ** torch.arange(n_in).double(), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        return self.outputs[(value @ self.places).long()]


@dataclass(frozen=True)
class EncoderKind:
    """The distribution and the net of every layer of an encoder."""

    name: str
    """Bernoulli units: factorised or autoregressive; real units: gaussian, mixture or nsf"""
    net: str
    """linear, mlp or table"""
    hidden: int = 0
    """hidden units of the net, and of the masked net of autoregressive and nsf"""
    n_components: int = 0
    """of a mixture"""

    def __str__(self) -> str:
        parts = [self.name, f"of {self.n_components}" if self.n_components else "", self.net]
        return " ".join([*filter(None, parts), *([str(self.hidden)] if self.hidden else [])])

    def family(self, units: int, source: torch.Generator) -> Family:
        match self.name:
            case "factorised":
                return Bernoulli(units)
            case "autoregressive":
                return Autoregressive(Bernoulli(units), self.hidden, source=source)
            case "gaussian":
                return DiagonalGaussian(units)
            case "mixture":
                return MixtureGaussian(units, self.n_components)
            case _:
                return Flow(units, self.name, self.hidden, 1, source=source)

    def encoder(self, widths: Widths, source: torch.Generator) -> BeliefNetwork:
        """Bottom-up, float64."""
        conditionals = []
        for layer, (n_in, units) in enumerate(itertools.pairwise(widths), start=1):
            family = self.family(units, source)
            net: nn.Module
            if self.net == "table":
                net = ParentTable(n_in, family.n_outputs, source)
            else:
                hidden = (self.hidden,) if self.net == "mlp" else ()
                net = nets.mlp(
                    n_in, hidden, family.n_outputs, activation=nn.Tanh, initialise=nets.xavier, source=source
                )
            conditionals.append(Conditional(f"z{layer}", [f"z{layer - 1}" if layer > 1 else "x"], net, family))
        return BeliefNetwork(conditionals).double()


def n_parameters(encoder: BeliefNetwork) -> int:
    """Free numbers; those that a mask leaves out are not counted."""
    found = sum(parameter.numel() for parameter in encoder.parameters())
    for name in encoder.variables:
        family = encoder[name].family
        if isinstance(family, Autoregressive):
            masks = (family.connect, family.into, family.out_of)
            found -= sum(int((mask == 0).sum()) for mask in masks)
    return found


def n_free(widths: Widths) -> int:
    """Free numbers of the exact posterior: a distribution over all states of a layer for every state of its parent."""
    return sum(2**n_in * (2**n_out - 1) for n_in, n_out in itertools.pairwise(widths))


@dataclass(frozen=True)
class Teachers:
    """Decoders of one shape, each with its strength and number, and their distributions of x."""

    widths: Widths
    strengths: Sequence[float]
    numbers: Sequence[int]
    decoders: Sequence[BeliefNetwork]

    @staticmethod
    def of(widths: Widths, strengths: Sequence[float], n_teachers: int) -> "Teachers":
        """Teacher t has the same directions at every strength."""
        pairs = [(strength, number) for strength in strengths for number in range(n_teachers)]
        decoders = [
            examples.binary_decoder(strength, widths, torch.Generator().manual_seed(FIRST_TEACHER + number))
            for strength, number in pairs
        ]
        return Teachers(widths, [s for s, _ in pairs], [n for _, n in pairs], decoders)

    @torch.no_grad()
    def tables(self) -> list[Tables]:
        return [Enumeration(decoder, None)() for decoder in self.decoders]

    def log_px(self) -> Tensor:
        """`[R, X]`."""
        return torch.stack([tables.marginals()[0] for tables in self.tables()])

    def described(self, index: int) -> dict[str, Any]:
        depth = len(self.widths) - 1
        units = "-".join(map(str, self.widths))
        return {"units": units, "depth": depth, "strength": self.strengths[index], "teacher": self.numbers[index]}


@dataclass(frozen=True)
class Budget:
    """Steps of training, and starts; the best start of each teacher is kept."""

    n_steps: int
    learning_rate: float
    n_starts: int


def trained(teachers: Teachers, kind: EncoderKind, budget: Budget) -> Fit:
    """The best encoder of a ``kind`` for every teacher; teachers stay as they are."""
    starts = []
    for decoder in teachers.decoders:
        for start in range(budget.n_starts):
            starts.append(Enumeration(decoder, kind.encoder(teachers.widths, torch.Generator().manual_seed(start))))
    weight = teachers.log_px().exp().repeat_interleave(budget.n_starts, 0)
    betas = (1.0,) * (len(teachers.widths) - 1)
    found = fit(starts, weight, betas, budget.n_steps, budget.learning_rate, decoder=False)
    best = found.bound.reshape(-1, budget.n_starts).argmax(-1) + torch.arange(len(teachers.decoders)) * budget.n_starts
    stacks = [found.stacks[index] for index in best.tolist()]
    return Fit(stacks, found.bound[best], found.change[best], found.gradient[best])


def by_layer(name: str, values: Tensor) -> dict[str, float]:
    return {f"{name}{layer}_nats": float(value) for layer, value in enumerate(values, start=1)}


def filled(rows: list[dict[str, Any]]) -> Arrays:
    """Rows of stacks of several depths: nan where a layer is not there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return columns([{name: row.get(name, float("nan")) for name in names} for row in rows])


def fixed_rows(
    shapes: Mapping[Widths, Sequence[EncoderKind]],
    strengths: Sequence[float],
    n_teachers: int,
    budget: Budget,
    say: Say,
) -> Arrays:
    """One row per shape, strength, teacher and kind of encoder: the exact layer gaps that the best one leaves."""
    rows = []
    for widths, kinds in shapes.items():
        teachers = Teachers.of(widths, strengths, n_teachers)
        log_px = teachers.log_px()
        for kind in kinds:
            say(f"{'-'.join(map(str, widths))}: {kind}")
            found = trained(teachers, kind, budget)
            for index, stack in enumerate(found.stacks):
                assert stack.encoder is not None
                weight = log_px[index].exp()
                gaps = chain_gaps(stack, weight)
                least = float(found.bound[index] - (weight * log_px[index]).sum())
                rows.append(
                    {
                        **teachers.described(index),
                        "encoder": str(kind),
                        "law": kind.name,
                        "net": kind.net,
                        "hidden": kind.hidden,
                        "n_parameters": n_parameters(stack.encoder),
                        "n_free": n_free(widths),
                        "gap_nats": float(gaps.sum()),
                        "layer_gap_nats": float(gaps.mean()),
                        **by_layer("gap", gaps),
                        "disagreement_nats": abs(float(gaps.sum()) + least),
                        "late_gain_nats": float(found.change[index]),
                        "gradient": float(found.gradient[index]),
                    }
                )
    return filled(rows)


def chain_gaps(stack: Enumeration, weight: Tensor) -> Tensor:
    """Exact layer gaps `[L]` on data of distribution ``weight [X]``, by `DiscreteChain`."""
    assert stack.encoder is not None
    x = bernoulli_states(stack.decoder["x"].family.units)
    gaps = DiscreteChain.of(stack.decoder).gaps(NetworkPosterior(stack.encoder), x)
    return torch.stack([(weight * layer).sum() for layer in gaps.layers.values()])


def known_stacks(
    widths: Widths, strengths: Sequence[float], n_teachers: int, n_data: int, kind: EncoderKind, budget: Budget
) -> Iterator[examples.KnownStack]:
    """Trained stacks with data drawn from their teachers, for the estimate of the gap."""
    teachers = Teachers.of(widths, strengths, n_teachers)
    found, log_px = trained(teachers, kind, budget), teachers.log_px()
    for index, stack in enumerate(found.stacks):
        assert stack.encoder is not None
        source = torch.Generator().manual_seed(index)
        drawn = torch.multinomial(log_px[index].exp(), n_data, replacement=True, generator=source)
        x = bernoulli_states(widths[0])[drawn]
        model = HVAE(stack.decoder, NetworkPosterior(stack.encoder)).requires_grad_(False)
        strength, number = teachers.strengths[index], teachers.numbers[index]
        name = f"teacher {number} at {strength:g}, {kind}"
        yield examples.KnownStack(name, "binary", strength, "best", model, x, DiscreteChain.of(stack.decoder))
