"""Codes of z2 on a held first layer: brute force over small encoders, each of which proves a β threshold. Nats.

Training from random starts misses a z2 that pays all at once or not at all. So codes are also tried without training.
The first layer is q(z1|x) = prod_g p(z1_g|x_g). There each code q(z2|z1) has, with p(z1_g|z2) at its best,

    A = sum_g I(z1_g; z2),    R = I(z1; z2) + KL(q(z2) ‖ p(z2)),    A / R <= β*

(`docs/theorem.md`, statements 5 and 10). Every unit of z2 has the logit ``strength f(z1) + bias``. A linear net has f
linear in z1: copies, counts and thresholds of signed units, and the direction whose weak code proves λ. A table has f =
±1 in any pattern. z2 may have one such unit, or two that are copies of units or parities. A β threshold under an
encoder that reaches the first layer and has these codes is at least theirs, however it is trained.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hvae.experiments.conjecture.bernoulli import EncoderKind
from hvae.experiments.conjecture.enumeration import Tables, bernoulli_states
from hvae.experiments.conjecture.thresholds import LEAST_RATE

STRENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LARGEST_TABLE = 8
"""states of z1 up to which every pattern is tried"""


def product_posterior(tables: Tables) -> Tensor:
    """log prod_g p(z1_g | x_g) `[X, S_1]`, where every unit of z1 writes its own x."""
    states = bernoulli_states(len(tables.down[0]).bit_length() - 1)
    on = tables.marginals()[1].exp() @ states
    prior = torch.where(states == 1, on, 1 - on).log().sum(-1)
    found: Tensor = (tables.down[0].mT + prior).log_softmax(-1)
    return found


def code_thresholds(truths: Sequence[Tables], kind: EncoderKind | None) -> list[float]:
    """`code_threshold` of every teacher under an encoder, None for exact inference; -inf for kinds without codes."""
    if kind is not None and (kind.name != "factorised" or kind.net not in ("linear", "table")):
        return [-math.inf] * len(truths)
    return [code_threshold(tables, table=kind is None or kind.net == "table") for tables in truths]


@torch.no_grad()
def code_threshold(tables: Tables, *, table: bool) -> float:
    """The largest A / R of all codes on the first layer of a teacher, for nets that are linear or tables."""
    weight = tables.marginals()[0].exp()
    first = product_posterior(tables)
    q1, n_z2 = weight @ first.exp(), len(tables.top).bit_length() - 1
    proofs = [-math.inf]
    for logits in _codes(q1, n_z2, table):
        best = torch.cat([_ratio(q1, _probabilities(part), tables.top) for part in logits.split(1024)])
        stack = _stack(tables, first, weight, _probabilities(logits[best.argmax()][None])[0])
        rate = float(stack.rates(weight)[1])
        gain = float(stack.bound(weight, (1.0, 0.0)) - _alone(tables, first).bound(weight, (1.0, 0.0)))
        proofs.append(gain / rate if rate > LEAST_RATE else -math.inf)
    return max(proofs)


def _codes(q1: Tensor, n_z2: int, table: bool) -> list[Tensor]:
    """Logits `[C, S_1, units of z2]`: of one unit, the others fair and blind; and of two."""
    states = bernoulli_states(len(q1).bit_length() - 1)
    signs, n = 2 * states - 1, states.shape[1]
    copies = signs.mT
    parities = 1 - 2 * ((states @ states[1:].mT) % 2).mT
    slopes = torch.tensor([*itertools.product((-1.0, 0.0, 1.0), repeat=n)], dtype=q1.dtype)
    slopes = torch.cat([slopes, _steepest(q1)[None]])
    shapes = slopes[(slopes != 0).any(-1)] @ signs.mT
    if table:
        every = bernoulli_states(len(q1))[1:-1] * 2 - 1 if len(q1) <= LARGEST_TABLE else q1.new_zeros(0, len(q1))
        shapes = torch.cat([shapes, parities, every])
    strengths = torch.tensor(STRENGTHS, dtype=q1.dtype).repeat_interleave(len(shapes)).unsqueeze(-1)
    scaled = strengths * shapes.repeat(len(STRENGTHS), 1)
    # a bias that makes the unit fair, or puts its threshold at a count
    one = torch.cat([_fair(scaled, q1), *(scaled + shift * strengths for shift in range(-n, n + 1))])
    found = [torch.nn.functional.pad(one.unsqueeze(-1), (0, n_z2 - 1))]
    if n_z2 > 1:
        sure = STRENGTHS[-1] * (parities if table else copies)
        pairs = [torch.stack(pair, -1) for pair in itertools.combinations(sure, 2)]
        if pairs:
            found.append(torch.nn.functional.pad(torch.stack(pairs), (0, n_z2 - 2)))
    return found


def _steepest(q1: Tensor) -> Tensor:
    """The slope `[units]` whose weak code proves λ: the first eigenvector of the correlations of z1."""
    states = bernoulli_states(len(q1).bit_length() - 1)
    on = q1 @ states
    deviation = (on * (1 - on)).sqrt()
    standard = (states - on) / deviation
    slope: Tensor = torch.linalg.eigh(standard.mT @ (q1.unsqueeze(-1) * standard))[1][:, -1] / deviation
    return slope / slope.abs().amax()


def _fair(logits: Tensor, q1: Tensor) -> Tensor:
    """``logits [C, S_1]`` with a bias that makes the unit fair, by bisection."""
    low, high = -logits.amax(-1, keepdim=True) - 1, -logits.amin(-1, keepdim=True) + 1
    for _ in range(60):
        middle = (low + high) / 2
        above = ((logits + middle).sigmoid() @ q1).unsqueeze(-1) > 0.5
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    fair: Tensor = logits + (low + high) / 2
    return fair


def _probabilities(logits: Tensor) -> Tensor:
    """q(z2 | z1) `[C, S_1, S_2]` of the logits of its units."""
    states = bernoulli_states(logits.shape[-1])
    on, off = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    found: Tensor = (on @ states.mT + off @ (1 - states).mT).exp()
    return found


def _ratio(q1: Tensor, code: Tensor, top: Tensor) -> Tensor:
    """A / R `[C]` of codes `[C, S_1, S_2]`."""
    states = bernoulli_states(len(q1).bit_length() - 1)
    pair = q1.unsqueeze(-1) * code
    q2 = pair.sum(1)
    rate = torch.xlogy(pair, code).sum((1, 2)) - (q2 * top).sum(-1)
    both = torch.stack([pair.mT @ states, pair.mT @ (1 - states)], -1)  # of z2 and one unit
    alone = torch.stack([q1 @ states, q1 @ (1 - states)], -1)
    own = torch.xlogy(both, both).sum((1, 2, 3)) - states.shape[1] * torch.xlogy(q2, q2).sum(-1)
    gain = own - torch.xlogy(alone, alone).sum()
    return torch.where(rate > LEAST_RATE, gain / rate, -torch.inf)


def _stack(tables: Tables, first: Tensor, weight: Tensor, code: Tensor) -> Tables:
    """The teacher's p(x | z1), the best products p(z1 | z2), and the encoder: a stack as any other."""
    states = bernoulli_states(len(code).bit_length() - 1)
    pair = (weight @ first.exp()).unsqueeze(-1) * code
    seen = pair.sum(0).clamp(min=torch.finfo(pair.dtype).tiny)
    on, off = (pair.mT @ side / seen.unsqueeze(-1) for side in (states, 1 - states))
    tiny = torch.finfo(pair.dtype).tiny
    down = on.clamp(min=tiny).log() @ states.mT + off.clamp(min=tiny).log() @ (1 - states).mT
    return replace(tables, down=[tables.down[0], down], up=[first, code.clamp(min=tiny).log()])


def _alone(tables: Tables, first: Tensor) -> Tables:
    """The same first layer under a z2 that says nothing."""
    q1 = tables.marginals()[0].exp() @ first.exp()
    blind = tables.top.exp().expand(len(q1), -1)
    return _stack(tables, first, tables.marginals()[0].exp(), blind)
