"""Two functions as one distribution: whether log_prob and sample of `hvae.law` are of the same.

Over draws x of p(x|z), for any z',

    E p(x|z') / p(x|z) = 1

where both are normalised and the draws are those of p(x|z). z' stands near z, so that the ratio has a small spread.
Means over all data see little of an error that is one way for z' and the other way from z' to z. So the squares of the
errors of single data are estimated too, without bias: their terms are products of two draws.
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

ROUNDS, SHIFTS = 8, (1, 5, 7, 11)
"""draws of each of the 16 rows for each of four z'; 512 in all"""
PILOT = 0.1
"""how far z' lies from z at first, as a share of the way to another row's"""
FURTHEST = 10.0
"""and at most: the identity holds for any z', but nets far from all data answer large numbers"""
SPREAD_NATS = 0.7
"""spread of the log-ratio at which its mean is told best"""
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
            off = torch.stack([torch.stack([_ratio(law, each) for each in near]) for _ in range(ROUNDS)]) - 1
        mean = Mean.of(off)
        squares = Mean.of((off.sum(0).square() - off.square().sum(0)) / (ROUNDS * (ROUNDS - 1)))
        if abs(mean.value) > mean.limit + 1e-4 or squares.value > squares.limit + 1e-6:
            raise ConfigError(
                f"{name}: its log_prob is not the distribution that its sample draws from: over own draws the mean of "
                f"p({name}|z')/p({name}|z) is {1 + mean.value:.3f} +- {mean.error:.3f}, and for single data "
                f"{max(squares.value, 0) ** 0.5:.2f} away from 1, where it is 1; an element that sees itself, another "
                "order or another temperature in sample do that."
            )
        findings.append(
            Finding(
                f"{name}: log_prob and sample agree: over own draws the mean of p({name}|z')/p({name}|z) is "
                f"{1 + mean.value:.3f} +- {mean.error:.3f} where it is 1; an error of {mean.seen_from:.2f}, or of "
                f"{squares.seen_from**0.5:.2f} for single data, would have been seen, a missing constant or a mean "
                "over elements would not.",
                name,
                doubtful=False,
            )
        )
    return findings


def _ratio(law: Law, near: Law) -> Tensor:
    """``p(x|z') / p(x|z)`` of a fresh draw for each row."""
    draw = law.sample()
    return (summed(near.log_prob(draw)) - summed(law.log_prob(draw))).exp()


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
        spread = torch.stack([_ratio(law, each).log() for each in pilot]).std()
    step = min(FURTHEST, PILOT * SPREAD_NATS / max(float(spread), 1e-6))
    return [_moved(probe, name, smooth, step, shift) for shift in SHIFTS]


def _moved(probe: Probe, name: str, parents: list[str], step: float, shift: int) -> Law:
    values = dict(probe.values)
    for parent in parents:
        values[parent] = values[parent].lerp(values[parent].roll(shift, 0), step)
    law = probe.walk("p", probe.all_rows, values=values).p[name].law
    assert isinstance(law, Law)
    return law
