"""Stacks of coins whose answer is known, and encoders of many laws trained on them without noise; rows of a table.

A teacher p is a belief network of coins (`examples.binary_decoder`); its own law of x is the data, all of it, so nothing
here is drawn. Four questions: what does the best encoder of a law leave (`fixed_rows`); where does the decoder go
once it is free (`release_rows`); is it inference or the price of a layer that empties the top (`threshold_rows`); and
the same of linear-Gaussian stacks, in closed form (`gaussian_rows`). Nats.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hvae import nets
from hvae.evaluation.accuracy import columns
from hvae.evaluation.replicas import Arrays
from hvae.evidence import HVAE
from hvae.families import Autoregressive, Bernoulli
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior
from hvae.reference import DiscreteChain, examples
from hvae.reference.enumeration import Enumeration, Fit, Tables, coin_states, fit

Say = Callable[[str], None]
Widths = tuple[int, ...]
"""coins of x, z1, …"""


class ParentTable(nn.Module):
    """Outputs of their own for every state of the parent's coins: the widest net there can be."""

    places: Tensor

    def __init__(self, n_in: int, n_outputs: int) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.zeros(2**n_in, n_outputs, dtype=torch.float64))
        self.register_buffer("places", 2 ** torch.arange(n_in).double(), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        return self.outputs[(value @ self.places).long()]


@dataclass(frozen=True)
class Law:
    """What an encoder's layers may be."""

    name: str
    """factorised or autoregressive"""
    net: str
    """linear, mlp or table"""
    hidden: int = 0
    """hidden units of the net and, autoregressive, of the masked net"""

    def __str__(self) -> str:
        return f"{self.name} {self.net}" + (f" {self.hidden}" if self.hidden else "")

    def encoder(self, widths: Widths, source: torch.Generator) -> BeliefNetwork:
        """Bottom-up, float64."""
        conditionals = []
        for layer, (n_in, units) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            family: Bernoulli | Autoregressive = Bernoulli(units)
            if self.name == "autoregressive":
                family = Autoregressive(family, self.hidden, source=source)
            net: nn.Module = ParentTable(n_in, family.n_outputs)
            if self.net != "table":
                hidden = (self.hidden,) if self.net == "mlp" else ()
                net = nets.mlp(
                    n_in, hidden, family.n_outputs, activation=nn.Tanh, initialise=nets.xavier, source=source
                )
            else:
                nn.init.normal_(net.outputs, std=0.5, generator=source)
            conditionals.append(Conditional(f"z{layer}", [f"z{layer - 1}" if layer > 1 else "x"], net, family))
        return BeliefNetwork(conditionals).double()


def n_parameters(encoder: BeliefNetwork) -> int:
    """Numbers that are free: what a mask leaves out is not counted."""
    found = sum(parameter.numel() for parameter in encoder.parameters())
    for name in encoder.variables:
        family = encoder[name].family
        if isinstance(family, Autoregressive):
            masks = (family.connect, family.into, family.out_of)
            found -= sum(int((mask == 0).sum()) for mask in masks)
    return found


def n_free(widths: Widths) -> int:
    """Free numbers of the exact posterior: a law over all states of a layer for every state of its parent."""
    return sum(2**n_in * (2**n_out - 1) for n_in, n_out in zip(widths, widths[1:], strict=False))


@dataclass(frozen=True)
class Teachers:
    """Decoders of one shape, each of a strength and a number of its own, and their laws of x."""

    widths: Widths
    strengths: Sequence[float]
    numbers: Sequence[int]
    decoders: Sequence[BeliefNetwork]

    @staticmethod
    def of(widths: Widths, strengths: Sequence[float], n_teachers: int) -> "Teachers":
        """Teacher t has the same directions at every strength."""
        pairs = [(strength, number) for strength in strengths for number in range(n_teachers)]
        decoders = [
            examples.binary_decoder(strength, widths, torch.Generator().manual_seed(number))
            for strength, number in pairs
        ]
        return Teachers(widths, [s for s, _ in pairs], [n for _, n in pairs], decoders)

    @torch.no_grad()
    def tables(self) -> list[Tables]:
        return [Enumeration(decoder, None)() for decoder in self.decoders]

    def log_px(self) -> Tensor:
        """`[R, X]`."""
        return torch.stack([tables.marginals()[0] for tables in self.tables()])

    def row(self, index: int) -> dict[str, Any]:
        depth = len(self.widths) - 1
        units = "-".join(map(str, self.widths))
        return {"units": units, "depth": depth, "strength": self.strengths[index], "teacher": self.numbers[index]}


@dataclass(frozen=True)
class Effort:
    """How long is trained, and from how many starts; the best of a teacher's is kept."""

    n_steps: int
    learning_rate: float
    n_starts: int


def trained(teachers: Teachers, law: Law, effort: Effort) -> Fit:
    """The best encoder of ``law`` for every teacher, which stays as it is."""
    starts = []
    for decoder in teachers.decoders:
        for start in range(effort.n_starts):
            starts.append(Enumeration(decoder, law.encoder(teachers.widths, torch.Generator().manual_seed(start))))
    weight = teachers.log_px().exp().repeat_interleave(effort.n_starts, 0)
    betas = (1.0,) * (len(teachers.widths) - 1)
    found = fit(starts, weight, betas, effort.n_steps, effort.learning_rate, decoder=False)
    best = found.bound.reshape(-1, effort.n_starts).argmax(-1) + torch.arange(len(teachers.decoders)) * effort.n_starts
    stacks = [found.stacks[index] for index in best.tolist()]
    return Fit(stacks, found.bound[best], found.change[best], found.gradient[best])


def _by_layer(name: str, values: Tensor) -> dict[str, float]:
    return {f"{name}{layer}_nats": float(value) for layer, value in enumerate(values, start=1)}


def _filled(rows: list[dict[str, Any]]) -> Arrays:
    """Rows of stacks of several depths: nan where a layer is not there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return columns([{name: row.get(name, float("nan")) for name in names} for row in rows])


def fixed_rows(
    shapes: Mapping[Widths, Sequence[Law]], strengths: Sequence[float], n_teachers: int, effort: Effort, say: Say
) -> Arrays:
    """One row per shape, strength, teacher and law: the exact layer gaps that the best encoder of the law leaves."""
    rows = []
    for widths, laws in shapes.items():
        teachers = Teachers.of(widths, strengths, n_teachers)
        log_px = teachers.log_px()
        for law in laws:
            say(f"{'-'.join(map(str, widths))}: {law}")
            found = trained(teachers, law, effort)
            for index, stack in enumerate(found.stacks):
                assert stack.encoder is not None
                weight = log_px[index].exp()
                gaps = chain_gaps(stack, weight)
                rows.append(
                    {
                        **teachers.row(index),
                        "law": law.name,
                        "net": law.net,
                        "hidden": law.hidden,
                        "n_parameters": n_parameters(stack.encoder),
                        "n_free": n_free(widths),
                        "gap_nats": float(gaps.sum()),
                        "layer_gap_nats": float(gaps.mean()),
                        **_by_layer("gap", gaps),
                        "disagreement_nats": abs(float(gaps.sum() + found.bound[index] - (weight * log_px[index]).sum())),
                        "late_gain_nats": float(found.change[index]),
                        "gradient": float(found.gradient[index]),
                    }
                )
    return _filled(rows)


def chain_gaps(stack: Enumeration, weight: Tensor) -> Tensor:
    """Exact layer gaps `[L]` on data of law ``weight [X]``, by `DiscreteChain`."""
    assert stack.encoder is not None
    x = coin_states(stack.decoder["x"].family.units)
    gaps = DiscreteChain.of(stack.decoder).gaps(NetworkPosterior(stack.encoder), x)
    return torch.stack([(weight * layer).sum() for layer in gaps.layers.values()])


def known_stacks(
    widths: Widths, strengths: Sequence[float], n_teachers: int, n_data: int, law: Law, effort: Effort
) -> Iterator[examples.KnownStack]:
    """The same stacks with data drawn from their teachers, for the estimate of the gap."""
    teachers = Teachers.of(widths, strengths, n_teachers)
    found, log_px = trained(teachers, law, effort), teachers.log_px()
    for index, stack in enumerate(found.stacks):
        assert stack.encoder is not None
        source = torch.Generator().manual_seed(index)
        x = coin_states(widths[0])[torch.multinomial(log_px[index].exp(), n_data, replacement=True, generator=source)]
        model = HVAE(stack.decoder, NetworkPosterior(stack.encoder)).requires_grad_(False)
        strength, number = teachers.strengths[index], teachers.numbers[index]
        name = f"teacher {number} at {strength:g}, {law}"
        yield examples.KnownStack(name, "binary", strength, "best", model, x, DiscreteChain.of(stack.decoder))


def release_rows(
    shapes: Mapping[str, Widths], strengths: Sequence[float], n_teachers: int, laws: Sequence[Law], effort: Effort,
    released: Effort, say: Say,
) -> Arrays:  # fmt: skip
    """One row per shape, strength, teacher and law: gaps and informations before and after the decoder is let go.

    ``given_up_nats`` is KL(p_teacher(x) ‖ p(x)); ``moved`` that of p(z_{l-1} | z_l), over the teacher's p(z_l).
    """
    rows = []
    for shape, widths in shapes.items():
        teachers = Teachers.of(widths, strengths, n_teachers)
        truths, log_px = teachers.tables(), teachers.log_px()
        for law in laws:
            say(f"{shape} {'-'.join(map(str, widths))} released: {law}")
            start = trained(teachers, law, effort)
            end = fit(
                start.stacks, log_px.exp(), (1.0,) * (len(widths) - 1), released.n_steps, released.learning_rate
            )
            for index, (truth, stack) in enumerate(zip(truths, end.stacks, strict=True)):
                weight = log_px[index].exp()
                with torch.no_grad():
                    before, after = start.stacks[index](), stack()
                    rows.append(
                        {
                            **teachers.row(index),
                            "shape": shape,
                            "law": law.name,
                            "net": law.net,
                            "hidden": law.hidden,
                            "gap_before_nats": float(before.gaps(weight).sum()),
                            "gap_after_nats": float(after.gaps(weight).sum()),
                            "given_up_nats": float((weight * (log_px[index] - after.marginals()[0])).sum()),
                            "late_gain_nats": float(end.change[index]),
                            **_by_layer("gap_before", before.gaps(weight)),
                            **_by_layer("gap_after", after.gaps(weight)),
                            **_by_layer("moved", moved(truth, after)),
                            **_by_layer("coupling_before", truth.couplings()),
                            **_by_layer("coupling_after", after.couplings()),
                            **_by_layer("about_x_before", truth.about_x()),
                            **_by_layer("about_x_after", after.about_x()),
                        }
                    )
    return _filled(rows)


def moved(truth: Tables, other: Tables) -> Tensor:
    """KL of each conditional p(z_{l-1} | z_l) `[L]` of the truth from the other's, mean over the truth's z_l."""
    marginals = truth.marginals()[1:]
    return torch.stack(
        [
            ((above.unsqueeze(-1) + down).exp() * (down - new)).sum()
            for above, down, new in zip(marginals, truth.down, other.down, strict=True)
        ]
    )


def threshold_rows(
    shapes: Mapping[str, Widths], strength: float, n_teachers: int, laws: Sequence[Law], betas: Sequence[float],
    effort: Effort, say: Say,
) -> Arrays:  # fmt: skip
    """One row per shape, inference, β, teacher: stacks trained from random weights, the rates above z1 weighed by β.

    ``exact`` inference is the best posterior there is, in closed form (`Tables.best_bound`); the others are encoders.
    Of several starts the one with the highest bound is kept.
    """
    rows = []
    for shape, widths in shapes.items():
        teachers = Teachers.of(widths, [strength], n_teachers)
        truths, log_px = teachers.tables(), teachers.log_px()
        depth, n_starts = len(widths) - 1, effort.n_starts
        for law in (None, *laws):
            for beta in betas:
                name = "exact" if law is None else str(law)
                say(f"{shape} {'-'.join(map(str, widths))} from random weights: {name}, beta {beta:g}")
                stacks = []
                for start in range(n_teachers * n_starts):
                    source = torch.Generator().manual_seed(1000 + start)
                    decoder = examples.binary_decoder(0.25, widths, source)
                    stacks.append(Enumeration(decoder, None if law is None else law.encoder(widths, source)))
                weight = log_px.exp().repeat_interleave(n_starts, 0)
                weights = (1.0, *(beta,) * (depth - 1))
                found = fit(stacks, weight, weights, effort.n_steps, effort.learning_rate)
                best = found.bound.reshape(-1, n_starts).argmax(-1) + torch.arange(n_teachers) * n_starts
                for index, place in enumerate(best.tolist()):
                    with torch.no_grad():
                        made = found.stacks[place]()
                    given_up = (log_px[index].exp() * (log_px[index] - made.marginals()[0])).sum()
                    rows.append(
                        {
                            **teachers.row(index),
                            "shape": shape,
                            "inference": name,
                            "beta": beta,
                            "top_nats": float(made.couplings()[-1]),
                            "about_x_nats": float(made.about_x()[-1]),
                            "teacher_top_nats": float(truths[index].couplings()[-1]),
                            "given_up_nats": float(given_up),
                            "late_gain_nats": float(found.change[place]),
                        }
                    )
    return columns(rows)


def gaussian_rows(depths: Sequence[int], units: int, strengths: Sequence[float], n_teachers: int) -> Arrays:
    """One row per depth, strength and teacher: least layer gaps of diagonal encoders of linear-Gaussian teachers."""
    rows = []
    for depth in depths:
        widths = (units + 2, *(units,) * depth)
        for strength in strengths:
            for number in range(n_teachers):
                stack = examples.linear_stack(strength, "best", number, widths)
                gaps = torch.stack([layer.mean() for layer in stack.exact.layers.values()])
                rows.append(
                    {
                        "units": "-".join(map(str, widths)),
                        "depth": depth,
                        "strength": strength,
                        "teacher": number,
                        "gap_nats": float(gaps.sum()),
                        "layer_gap_nats": float(gaps.mean()),
                        **_by_layer("gap", gaps),
                    }
                )
    return _filled(rows)
