"""Non-linear Gaussian teachers of one unit a layer, and encoders of many kinds trained on them without noise.

    p(z2) = N(0, 1),    p(z1 | z2) = N(f(z2), s²),    p(x | z1) = N(g(z1), s²),

f and g are random sums of tanh with mean 0, scaled so that z1 and x have variance 1. The strength is the deviation of f
in units of the noise's, so s² = 1 / (1 + strength²). With one unit a layer there is nothing to factorise. Where f
turns, p(z2 | z1) has several modes. Training sums over equally spaced values of x, z1 and z2 (`OnValues`), so nothing
is drawn. The gaps of the rows are integrals of divergences over finer values (`lines`). nsf is the only flow: a masked
autoregressive flow of one unit is affine, so a Gaussian. Nats.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hvae.experiments.conjecture.bernoulli import FIRST_TEACHER, Budget, EncoderKind, by_layer, filled, n_parameters
from hvae.experiments.conjecture.enumeration import Tables
from hvae.experiments.conjecture.lines import Lines, scored
from hvae.experiments.shared.ascent import ascend
from hvae.families import DiagonalGaussian
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional

N_TANH = 8
STEEPEST = 3.0
"""largest slope of a tanh in units of its input's deviation; the smallest is a third of it"""
DEPTH = 2
TRAINED, MEASURED = (96, 4.5), (288, 6.5)
"""values of every variable, and how many deviations they reach, in training and for the gaps"""


def smooth_decoder(strength: float, source: torch.Generator) -> BeliefNetwork:
    """The decoder of one teacher; ``source`` fixes the directions, which are the same at every strength."""
    root = Root(torch.zeros(1).double(), learned=False)
    conditionals = [Conditional("z2", [], root, DiagonalGaussian(1, variance="fixed").double())]
    signal, log_noise = strength / math.sqrt(1 + strength**2), -math.log1p(strength**2)
    line = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    values, weight = line, (-line.square() / 2).softmax(0)
    for name, above in (("z1", "z2"), ("x", "z1")):
        net = _sum_of_tanh(source)
        with torch.no_grad():
            out = net(values.unsqueeze(-1)).squeeze(-1)
            mean = weight @ out
            deviation = (weight @ (out - mean).square()).sqrt()
            last = net[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(signal / deviation)
            last.bias.sub_(mean).mul_(signal / deviation)
            mean = net(values.unsqueeze(-1)).squeeze(-1)
        family = DiagonalGaussian(1, variance="fixed", log_variance=log_noise).double()
        conditionals.append(Conditional(name, [above], net, family))
        below = torch.linspace(-6, 6, 1001, dtype=torch.float64)
        density = torch.exp(-(below.unsqueeze(-1) - mean).square() / (2 * math.exp(log_noise))) @ weight
        values, weight = below, density / density.sum()
    return BeliefNetwork(conditionals).requires_grad_(False)


def _sum_of_tanh(source: torch.Generator) -> nn.Sequential:
    """``sum_j a_j tanh(b_j (v - c_j))``."""

    def normal() -> Tensor:
        return torch.randn(N_TANH, generator=source, dtype=torch.float64)

    slope = STEEPEST / 3 * (1 + 2 * torch.rand(N_TANH, generator=source, dtype=torch.float64))
    first, last = nn.Linear(1, N_TANH).double(), nn.Linear(N_TANH, 1).double()
    with torch.no_grad():
        first.weight.copy_(slope.unsqueeze(-1))
        first.bias.copy_(-slope * normal())
        last.weight.copy_(normal().unsqueeze(0))
        last.bias.zero_()
    return nn.Sequential(first, nn.Tanh(), last)


class OnValues(nn.Module):
    """A teacher's fixed tables over values, and an encoder's; each row sums to 1.

    So the bound is that of a chain of discrete variables. No distribution can gain by mass between the values. A call
    answers what the two stages of training raise. `told` is the sum over l of E_p log q(z_l | z_{l-1}) under the
    teacher's own pairs. It is greatest where q covers every mode. The second is the bound on p(x).
    """

    def __init__(self, lines: Lines, encoder: BeliefNetwork) -> None:
        super().__init__()
        self.encoder = encoder
        for name, values in lines.values.items():
            self.register_buffer(f"values_{name}", values)
            self.register_buffer(f"down_{name}", lines.down[name].log_softmax(-1))
        for child, name in itertools.pairwise(lines.values):
            joint = lines.marginals[name].unsqueeze(-1) + lines.down[child]
            self.register_buffer(f"joint_{name}", joint.mT.flatten().softmax(0).view_as(joint.mT))

    def forward(self) -> tuple[Tensor, Tensor]:
        tables, names = self.tables(), self.encoder.variables
        told = [(self._of("joint", name) * up).sum() for name, up in zip(names, tables.up, strict=True)]
        return torch.stack(told).sum(), tables.bound(self.weight, (1.0,) * len(names))

    def tables(self) -> Tables:
        names = ("x", *self.encoder.variables)
        upward = [
            scored(self.encoder[name], self._of("values", below), self._of("values", name)).log_softmax(-1)
            for below, name in itertools.pairwise(names)
        ]
        *down, top = (self._of("down", name) for name in names)
        return Tables(down, top[0], upward)

    @property
    def weight(self) -> Tensor:
        """p(x) `[X]`."""
        return self._of("joint", self.encoder.variables[0]).sum(-1)

    @torch.no_grad()
    def gap(self) -> float:
        """E log p(x) less the bound, of the chain of values."""
        tables, ones = self.tables(), (1.0,) * len(self.encoder.variables)
        return float(tables.best_bound(self.weight, ones) - tables.bound(self.weight, ones))

    def _of(self, what: str, name: str) -> Tensor:
        return self.get_buffer(f"{what}_{name}")


def fitted(stacks: Sequence[OnValues], budget: Budget) -> tuple[list[OnValues], Tensor]:
    """The stacks with encoders trained side by side, and what the last tenth of the steps gained `[R]`.

    `told` is raised first, as the bound alone gives up modes that q does not cover at the start. The bound follows,
    with as many steps. The given stacks do not change.
    """
    parameters, buffers = stack_module_state(list(stacks))
    free = {name: value.detach().clone().requires_grad_(True) for name, value in parameters.items()}
    template = copy.deepcopy(stacks[0]).to("meta")

    def both(values: dict[str, Tensor], constants: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = functional_call(template, (values, constants), ())
        return found

    def raised(stage: int) -> Tensor:
        found: Tensor = vmap(both)(free, buffers)[stage]
        return found

    for stage in (0, 1):
        _, change = ascend(list(free.values()), partial(raised, stage), budget.n_steps, budget.learning_rate)
    made = [copy.deepcopy(stack) for stack in stacks]
    for index, stack in enumerate(made):
        stack.load_state_dict({name: value[index].detach() for name, value in free.items()}, strict=False)
    return made, change


def started(kind: EncoderKind, start: int) -> BeliefNetwork:
    """An untrained encoder with hidden units that turn all over the parent's values.

    With biases of 0 all of them would turn in one place.
    """
    source = torch.Generator().manual_seed(start)
    encoder = kind.encoder((1,) * (DEPTH + 1), source)
    with torch.no_grad():
        for name in encoder.variables:
            net = encoder[name].net
            assert isinstance(net, nn.Sequential)
            first = net[0]
            if len(net) > 1:
                assert isinstance(first, nn.Linear)
                first.weight.copy_(2 * torch.randn(first.weight.shape, generator=source, dtype=torch.float64))
                turns = 1.5 * torch.randn(first.bias.shape, generator=source, dtype=torch.float64)
                first.bias.copy_(-first.weight.squeeze(-1) * turns)
    return encoder


@dataclass(frozen=True)
class Teacher:
    """One teacher, its values for training and for gaps, and the share of parents with several modes, by layer."""

    strength: float
    number: int
    coarse: Lines
    fine: Lines
    multimodal: Sequence[float]

    @staticmethod
    def of(strength: float, number: int) -> "Teacher":
        decoder = smooth_decoder(strength, torch.Generator().manual_seed(FIRST_TEACHER + number))
        fine = Lines.of(decoder, *MEASURED)
        shares = [float(fine.multimodal(name)) for name in fine.latents]
        return Teacher(strength, number, Lines.of(decoder, *TRAINED), fine, shares)

    def row(self, kind: EncoderKind, gaps: Tensor) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "teacher": self.number,
            "encoder": str(kind),
            "law": kind.name,
            "net": kind.net,
            "hidden": kind.hidden,
            "n_components": kind.n_components,
            "gap_nats": float(gaps.sum()),
            "layer_gap_nats": float(gaps.mean()),
            **by_layer("gap", gaps),
            **{f"multimodal{layer}": share for layer, share in enumerate(self.multimodal, start=1)},
        }


def nonlinear_rows(
    strengths: Sequence[float], n_teachers: int, kinds: Sequence[EncoderKind], budget: Budget, say: Say
) -> Arrays:
    """One row per kind of encoder, strength and teacher: exact layer gaps of the best encoder that was found.

    The net ``free`` is not trained. It is the infimum over Gaussians with any mean and deviation as functions of the
    parent. ``multimodal`` is the share of parents, by p, with a reverse conditional of several modes.
    ``disagreement_nats`` is the difference of the gap over finer values and of the gap by the bound in training.
    """
    teachers = [Teacher.of(strength, number) for strength in strengths for number in range(n_teachers)]
    rows = []
    for kind in kinds:
        say(f"non-linear Gaussian teachers: {kind}")
        if kind.net == "free":
            rows += [teacher.row(kind, teacher.fine.least_gaussian()) for teacher in teachers]
            continue
        n = budget.n_starts
        found, change = fitted([OnValues(each.coarse, started(kind, i)) for each in teachers for i in range(n)], budget)
        for index, teacher in enumerate(teachers):
            _, place = min((found[k].gap(), k) for k in range(n * index, n * index + n))
            stack = found[place]
            gaps, off = teacher.fine.gaps(stack.encoder)
            doubt = {
                "disagreement_nats": abs(float(gaps.sum()) - stack.gap()),
                "mass_error": off,
                "late_gain_nats": float(change[place]),
                "n_parameters": n_parameters(stack.encoder),
            }
            rows.append(teacher.row(kind, gaps) | doubt)
    return filled(rows)
