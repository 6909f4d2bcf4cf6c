"""Teachers of Bernoulli units that need z2: every unit of z1 writes its own pixels; see `thresholds`. Nats."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hvae.experiments.conjecture.bernoulli import FIRST_TEACHER, Budget, EncoderKind, ParentTable, Widths
from hvae.experiments.conjecture.codes import code_thresholds
from hvae.experiments.conjecture.enumeration import Enumeration, Tables, bernoulli_states, fit
from hvae.experiments.conjecture.thresholds import Job, Needing, Solution, Train, needing, threshold_rows
from hvae.families import Bernoulli
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional

SIDE_BY_SIDE = 48
"""stacks trained at once; more do not fit a processor's cache"""
Strengths = tuple[float, float]
"""size of the logits of x | z1 and of z1 | z2"""


class OwnPixels(nn.Module):
    """Every unit of the parent writes the logits of its own pixels."""

    def __init__(self, weight: Tensor) -> None:
        """``weight`` is `[units, pixels of each]`; for a unit at 1/2 the logits are 0."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(-weight / 2)

    def forward(self, value: Tensor) -> Tensor:
        return (value.unsqueeze(-1) * self.weight + self.bias).flatten(-2)


def grouped_decoder(widths: Widths, kind: str, strengths: Strengths, source: torch.Generator) -> BeliefNetwork:
    """x, z1, z2, where each unit of z1 has its own pixels; logits of random signs, 0.5 to 1.5 times ``strengths``.

    p(z1 | z2) is a table of logits. With ``kind`` ``linear`` they are linear in z2, and units of z1 are not fair. With
    ``parity`` each unit of z1 follows the parity of a set of units of z2: pairs of z1 are independent, three are not.
    """
    n_x, n_z1, n_z2 = widths

    def weight(rows: int, columns: int) -> Tensor:
        size = torch.rand(rows, columns, generator=source, dtype=torch.float64) + 0.5
        return size * (2 * torch.randint(2, (rows, columns), generator=source) - 1)

    x, z1 = OwnPixels(strengths[0] * weight(n_z1, n_x // n_z1)), ParentTable(n_z2, n_z1, source)
    states = bernoulli_states(n_z2)
    odd = (states @ states[1 : n_z1 + 1].mT) % 2
    with torch.no_grad():
        if kind == "parity":
            logits = (2 * odd - 1) * weight(1, n_z1)
        else:
            logits = (states - 0.5) @ weight(n_z2, n_z1) + weight(1, n_z1) / 4
        z1.outputs.copy_(strengths[1] * logits)
    top = Root(torch.zeros(n_z2).double(), learned=False)
    return BeliefNetwork(
        [
            Conditional("z2", [], top, Bernoulli(n_z2)),
            Conditional("z1", ["z2"], z1, Bernoulli(n_z1)),
            Conditional("x", ["z1"], x, Bernoulli(n_x)),
        ]
    )


def log_groups(log_px: Tensor, n_groups: int) -> Tensor:
    """log prod_g p(x_g) `[X]` of the distribution ``log_px [X]`` of Bernoulli units; all groups have one size."""
    size = round(len(log_px) ** (1 / n_groups))
    cube, product = log_px.reshape((size,) * n_groups), torch.zeros_like(log_px).reshape((size,) * n_groups)
    for group in range(n_groups):
        product = product + cube.logsumexp([axis for axis in range(n_groups) if axis != group], keepdim=True)
    return product.flatten()


def local_threshold(tables: Tables) -> float:
    """λ: the largest eigenvalue of the correlations of z1_g ~ p(z1_g | x_g) on the teacher's x."""
    states = bernoulli_states(tables.down[0].shape[0].bit_length() - 1)
    log_px, log_z1 = tables.marginals()[:2]
    on = log_z1.exp() @ states
    prior = torch.where(states == 1, on, 1 - on).log().sum(-1)
    standard = (states - on) / (on * (1 - on)).sqrt()
    mean = (tables.down[0].mT + prior).softmax(-1) @ standard
    return float(torch.linalg.eigvalsh((mean.mT @ (log_px.exp().unsqueeze(-1) * mean)).fill_diagonal_(1.0))[-1])


@torch.no_grad()
def teacher(widths: Widths, kind: str, strengths: Strengths, number: int) -> Needing:
    decoder = grouped_decoder(widths, kind, strengths, torch.Generator().manual_seed(FIRST_TEACHER + number))
    tables = Enumeration(decoder, None)()
    log_px = tables.marginals()[0]
    without = float((log_px.exp() * log_groups(log_px, widths[1])).sum())
    described = {
        "units": "-".join(map(str, widths)), "kind": kind, "x_strength": strengths[0], "z_strength": strengths[1],
        "teacher": number, "teacher_top_nats": float(tables.couplings()[1]),
    }  # fmt: skip
    worth = float((log_px.exp() * log_px).sum()) - without
    return Needing(described, worth, local_threshold(tables), without, (decoder, tables))


def trained_at_betas(teachers: Sequence[Needing], widths: Widths, kind: EncoderKind | None, budget: Budget) -> Train:
    """Starts: the teacher; the teacher with next to no z2, at the bound without it; random weights.

    An encoder is first trained on the decoder that it starts with. Without ``kind`` inference is exact.
    """

    def begun(job: Job) -> Enumeration:
        if job.state is not None:
            made: Enumeration = job.state
            return made
        source = torch.Generator().manual_seed(job.start)
        truth, tables = teachers[job.teacher].truth
        decoder = grouped_decoder(widths, "linear", (1.0, 1.0), source)
        if job.start < 2:
            decoder.load_state_dict(truth.state_dict())
        if job.start == 1:
            on, outputs = tables.marginals()[1].exp() @ bernoulli_states(widths[1]), decoder["z1"].net.outputs
            assert isinstance(outputs, Tensor)
            with torch.no_grad():
                outputs.copy_(on.logit() + 0.1 * torch.randn(outputs.shape, generator=source, dtype=torch.float64))
        return Enumeration(decoder, None if kind is None else kind.encoder(widths, source))

    def train(jobs: Sequence[Job]) -> list[Solution]:
        parts = [jobs[start : start + SIDE_BY_SIDE] for start in range(0, len(jobs), SIDE_BY_SIDE)]
        return [solution for part in parts for solution in trained(part)]

    def trained(jobs: Sequence[Job]) -> list[Solution]:
        weight = torch.stack([teachers[job.teacher].truth[1].marginals()[0].exp() for job in jobs])
        betas = torch.tensor([[1.0, job.beta] for job in jobs], dtype=torch.float64)
        stacks: Sequence[Enumeration] = [begun(job) for job in jobs]
        if kind is not None and jobs[0].state is None:
            stacks = fit(stacks, weight, betas, budget.n_steps // 2, budget.learning_rate, decoder=False).stacks
        found = fit(stacks, weight, betas, budget.n_steps, budget.learning_rate)
        return [
            _solution(teachers[job.teacher], job.beta, stack, late)
            for job, stack, late in zip(jobs, found.stacks, found.change.tolist(), strict=True)
        ]

    return train


@torch.no_grad()
def _solution(teacher: Needing, beta: float, stack: Enumeration, late_gain: float) -> Solution:
    tables, log_px = stack(), teacher.truth[1].marginals()[0]
    if stack.encoder is None:
        tables = tables.best((1.0, beta))
    weight = log_px.exp()
    told = {
        "top_nats": float(tables.couplings()[1]),
        "about_x_nats": float(tables.about_x()[1]),
        "given_up_nats": float((weight * (log_px - tables.marginals()[0])).sum()),
    }
    gain = float(tables.bound(weight, (1.0, 0.0))) - teacher.without
    return Solution(gain, float(tables.rates(weight)[1]), late_gain, stack, told)


def grouped_rows(
    widths: Widths, kinds: Mapping[str, Sequence[Strengths]], n_teachers: int, encoders: Sequence[EncoderKind],
    powers: Sequence[float], budget: Budget, n_closer: int, say: Say,
) -> Arrays:  # fmt: skip
    """`threshold_rows` of the first ``n_teachers`` that need z2, for every kind of teacher and its strengths."""
    teachers = [
        one
        for kind, own in kinds.items()
        for strengths in own
        for one in needing(lambda number, k=kind, s=strengths: teacher(widths, k, s, number), n_teachers)  # type: ignore[misc]
    ]
    trains = {
        "exact" if encoder is None else str(encoder): trained_at_betas(teachers, widths, encoder, budget)
        for encoder in (None, *encoders)
    }
    truths = [one.truth[1] for one in teachers]
    codes = {
        "exact" if encoder is None else str(encoder): code_thresholds(truths, encoder) for encoder in (None, *encoders)
    }
    return threshold_rows(teachers, trains, powers, budget.n_starts, n_closer, say, codes)
