"""Two functions as one distribution: whether log_prob and sample of `hvae.law` are of the same.

With the log-ratio ``d(x) = log p(x|z') - log p(x|z)``, where both are normalised and the draws are theirs,

    E_z exp d = 1                          for any z and z'
    E_z sigmoid(d) + E_z' sigmoid(d) = 1   since p/(p + p') and p'/(p + p') sum to 1

The first sees a sample that is sharper or flatter than log_prob; z' stands near z, so that exp d has a small spread.
The second has bounded terms. It differs from pair to pair, up and down alike, where the sum of p(x|z) over x depends on
z, as with an element that sees itself; so squares are summed over pairs.
"""

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from hvae.errors import ConfigError
from hvae.foreign.finding import Finding
from hvae.foreign.laws import Law, summed
from hvae.foreign.probe import Probe

ROUNDS, SHIFTS = 16, (1, 5, 7, 11)
"""draws of each of the 16 rows for each of four z', 1024 in all, and as many of the z'; in calls of 256 rows"""
PILOT = 0.1
"""how far z' lies from z at first, as a share of the way to another row's"""
FURTHEST = 10.0
"""and at most: the identity holds for any z', but nets far from all data answer large numbers"""
SPREAD_NATS = 0.5
"""largest spread of the log-ratio of a pair, at which its mean is told best"""
FALSE_ALARM, POWER = 1e-4, 0.95


@dataclass(frozen=True)
class Mean:
    """A mean with what it can tell.

    >>> Mean.of(torch.tensor([1.0, 1.1, 0.9, 1.0] * 4)).seen_from < 0.2
    True
    """

    value: float
    error: float
    """standard error"""
    n: int

    @staticmethod
    def of(samples: Tensor) -> "Mean":
        values = samples.double().flatten()
        return Mean(float(values.mean()), float(values.std() / math.sqrt(len(values))), len(values))

    @property
    def limit(self) -> float:
        """A larger distance from the truth has a chance of `FALSE_ALARM`."""
        return float(stats.t.isf(FALSE_ALARM / 2, self.n - 1)) * self.error

    @property
    def seen_from(self) -> float:
        """The smallest distance that is seen with a chance of `POWER`."""
        return self.limit + float(stats.t.ppf(POWER, self.n - 1)) * self.error


def laws_agree(probe: Probe) -> list[Finding]:
    """9: for each distribution of p that is two functions, the log-ratio of pairs over their own draws."""
    laws = {name: landed.law for name, landed in probe.laws["p"].p.items()}
    found = (_agrees(probe, name) for name, law in laws.items() if isinstance(law, Law) and law.can_sample)
    return [finding for finding in found if finding is not None]


def _agrees(probe: Probe, name: str) -> Finding | None:
    parents = _parents(probe, name)
    if not parents:
        return None
    rounds = max(2, min(ROUNDS, probe.stack.functions.most // len(probe.numbers)))
    device = probe.numbers.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(9)
        step = _step(probe, name, parents)
        law = _law(probe, name, rounds)
        near = [_law(probe, name, rounds, parents, step, shift) for shift in SHIFTS]
        own = torch.cat([_log_ratio(law, each, law).view(rounds, -1) for each in near], 1)
        theirs = torch.cat([_log_ratio(law, each, each).view(rounds, -1) for each in near], 1)
    mean = Mean.of(own.exp() - 1)
    both = own.sigmoid() + theirs.sigmoid() - 1
    # each pair normalised by its own draws, which makes the sum smaller than chi square's rather than larger
    squares = both.sum(0).square() / both.square().sum(0).clamp(min=1e-30)
    total, usual = float(squares.sum()), squares.numel()
    limit = float(stats.chi2.isf(FALSE_ALARM, usual))
    ratio = f"p({name}|z')/p({name}|z) is {1 + mean.value:.3f} +- {mean.error:.3f} where it is 1"
    if abs(mean.value) > mean.limit + 1e-4 or total > limit:
        raise ConfigError(
            f"{name}: its log_prob is not the distribution that its sample draws from: over own draws the mean of "
            f"{ratio}, and the chi square of {usual} pairs {total:.0f} where {limit:.0f} is the limit; an element that "
            "sees itself, another order or another temperature in sample do that."
        )
    return Finding(
        f"{name}: log_prob and sample agree: over own draws the mean of {ratio}; an error of {mean.seen_from:.2f} "
        "would have been seen, a missing constant or a mean over elements would not.",
        name,
        doubtful=False,
    )


def _parents(probe: Probe, name: str) -> list[str]:
    """The latents that move a distribution: the continuous ones, which can be moved a little, where there are any."""
    signature = probe.stack.functions.signature
    parents = signature.p_parents["x" if name in signature.observed else name]
    return [parent for parent in parents if signature.q_kinds[parent].continuous] or [*parents]


def _step(probe: Probe, name: str, parents: list[str]) -> float:
    if not all(probe.stack.functions.signature.q_kinds[parent].continuous for parent in parents):
        return 1.0
    law, rounds = _law(probe, name, 4), 4
    near = [_law(probe, name, rounds, parents, PILOT, shift) for shift in SHIFTS]
    spread = torch.stack([_log_ratio(law, each, law).view(rounds, -1).std(0).max() for each in near]).max()
    return min(FURTHEST, PILOT * SPREAD_NATS / max(float(spread), 1e-6))


def _law(
    probe: Probe, name: str, rounds: int, parents: list[str] | None = None, step: float = 0.0, shift: int = 0
) -> Law:
    """The distribution for all rows, ``rounds`` times, with parents some way to those of other rows."""
    values = dict(probe.values)
    for parent in parents or []:
        values[parent] = values[parent].lerp(values[parent].roll(shift, 0), step)
    law = probe.walk("p", probe.all_rows.repeat(rounds), values=values).p[name].law
    assert isinstance(law, Law)
    return law


def _log_ratio(law: Law, near: Law, of: Law) -> Tensor:
    """``log p(x|z') - log p(x|z)`` of a fresh draw for each row."""
    draw = of.sample()
    return summed(near.log_prob(draw)) - summed(law.log_prob(draw))
