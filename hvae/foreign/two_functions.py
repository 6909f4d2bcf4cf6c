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
"""draws of each of the 16 rows for each of four z'; 1024 in all, and as many of the z'"""
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
    """9: for each distribution of p that is two functions, the mean ratio over its own draws."""
    findings = []
    for name, landed in probe.laws["p"].p.items():
        law = landed.law
        if not isinstance(law, Law) or not law.can_sample:
            continue
        near = _neighbours(probe, name, law)
        if near is None:
            continue
        with torch.random.fork_rng(devices=_gpus(probe)):
            torch.manual_seed(9)
            own, theirs = (
                torch.stack([torch.stack([_log_ratio(law, each, of) for each in near]) for _ in range(ROUNDS)])
                for of in (0, 1)
            )
        mean = Mean.of(own.exp() - 1)
        both = own.sigmoid() + theirs.sigmoid() - 1
        # each pair normalised by its own draws, which makes the sum smaller than chi square's rather than larger
        squares = both.sum(0).square() / both.square().sum(0).clamp(min=1e-30)
        limit = float(stats.chi2.isf(FALSE_ALARM, squares.numel()))
        if abs(mean.value) > mean.limit + 1e-4 or float(squares.sum()) > limit:
            raise ConfigError(
                f"{name}: its log_prob is not the distribution that its sample draws from: over own draws the mean of "
                f"p({name}|z')/p({name}|z) is {1 + mean.value:.3f} +- {mean.error:.3f} where it is 1, and the chi "
                f"square of single pairs {float(squares.sum()):.0f} where {squares.numel()} is usual and {limit:.0f} the "
                "limit; an element that sees itself, another order or another temperature in sample do that."
            )
        findings.append(
            Finding(
                f"{name}: log_prob and sample agree: over own draws the mean of p({name}|z')/p({name}|z) is "
                f"{1 + mean.value:.3f} +- {mean.error:.3f} where it is 1; an error of {mean.seen_from:.2f} would have "
                "been seen, a missing constant or a mean over elements would not.",
                name,
                doubtful=False,
            )
        )
    return findings


def _log_ratio(law: Law, near: Law, of: int) -> Tensor:
    """``log p(x|z') - log p(x|z)`` of a fresh draw for each row, of z (0) or of z' (1)."""
    draw = (law, near)[of].sample()
    return summed(near.log_prob(draw)) - summed(law.log_prob(draw))


def _gpus(probe: Probe) -> list[torch.device]:
    return [probe.numbers.device] if probe.numbers.device.type == "cuda" else []


def _neighbours(probe: Probe, name: str, law: Law) -> list[Law] | None:
    """The same distribution at four z' near z; None where no z moves it."""
    signature = probe.stack.functions.signature
    parents = signature.p_parents["x" if name in signature.observed else name]
    smooth = [parent for parent in parents if signature.q_kinds[parent].continuous]
    if not parents:
        return None
    if not smooth:
        return [_moved(probe, name, [*parents], 1.0, shift) for shift in SHIFTS]
    pilot = [_moved(probe, name, smooth, PILOT, shift) for shift in SHIFTS]
    with torch.random.fork_rng(devices=_gpus(probe)):
        torch.manual_seed(10)
        ratios = torch.stack([torch.stack([_log_ratio(law, each, 0) for each in pilot]) for _ in range(4)])
    step = min(FURTHEST, PILOT * SPREAD_NATS / max(float(ratios.std(0).max()), 1e-6))
    return [_moved(probe, name, smooth, step, shift) for shift in SHIFTS]


def _moved(probe: Probe, name: str, parents: list[str], step: float, shift: int) -> Law:
    values = dict(probe.values)
    for parent in parents:
        values[parent] = values[parent].lerp(values[parent].roll(shift, 0), step)
    law = probe.walk("p", probe.all_rows, values=values).p[name].law
    assert isinstance(law, Law)
    return law
