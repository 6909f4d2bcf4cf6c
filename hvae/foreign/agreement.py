"""Two ways to one number: log_prob and sample of `hvae.law`, and the door's ELBO and the user's own.

A density that is known by two functions only is checked by an identity. Over draws x of p(x|z), for any z',

    E p(x|z') / p(x|z) = 1

where both are normalised and the draws are those of p(x|z). z' stands near z, so that the ratio has a small spread.

The user's own ELBO sees what no check of functions can: a scale that is a variance, constants or tokens left out, a
mean in place of a sum, a weight on the rate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from hvae.errors import ConfigError
from hvae.foreign.finding import Finding
from hvae.foreign.laws import Law, summed
from hvae.foreign.probe import FLOOR_NATS, SHARE, Probe
from hvae.foreign.stack import Stack
from hvae.rng import noise

ROUNDS = 32
"""draws of each of the 16 rows; 512 in all"""
STEPS = (1.0, 0.5, 0.25, 0.1, 0.03)
"""how far z' may lie from z, as a share of the way to another row's"""
SPREAD_NATS = 0.7
"""spread of the log-ratio at which its mean is told best"""
FALSE_ALARM, POWER = 1e-4, 0.95
N_DRAWS, CALLS = 16, 4


@dataclass(frozen=True)
class Mean:
    """A mean with what it can tell.

    >>> Mean.of(torch.tensor([1.0, 1.1, 0.9, 1.0])).seen_from < 1
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
        ratios = []
        with torch.random.fork_rng(devices=_gpus(probe)):
            torch.manual_seed(9)
            for round_ in range(ROUNDS):
                draw = law.sample()
                ratios.append((summed(near[round_ % len(near)].log_prob(draw)) - summed(law.log_prob(draw))).exp())
        found = Mean.of(torch.stack(ratios))
        if abs(found.value - 1) > found.limit + 1e-4:
            raise ConfigError(
                f"{name}: its log_prob is not the distribution that its sample draws from: over own draws the mean of "
                f"p({name}|z')/p({name}|z) is {found.value:.3f} +- {found.error:.3f} where it is 1; an element that "
                "sees itself, another order or another temperature in sample do that."
            )
        findings.append(
            Finding(
                f"{name}: log_prob and sample agree: over own draws the mean of p({name}|z')/p({name}|z) is "
                f"{found.value:.3f} +- {found.error:.3f} where it is 1 (an error of {found.seen_from:.2f} would have been "
                "seen, a missing constant or a mean over elements would not).",
                name,
                doubtful=False,
            )
        )
    return findings


def _gpus(probe: Probe) -> list[torch.device]:
    return [probe.numbers.device] if probe.numbers.device.type == "cuda" else []


def _neighbours(probe: Probe, name: str, law: Law) -> list[Law] | None:
    """The same distribution at four z' near z; None where no z moves it."""
    signature = probe.stack.functions.signature
    parents = signature.p_parents["x" if name in signature.observed else name]
    smooth = [parent for parent in parents if signature.q_kinds[parent].continuous]
    if not parents:
        return None
    for step in STEPS if smooth else (1.0,):
        near = [_moved(probe, name, smooth or [*parents], step, shift) for shift in (1, 5, 7, 11)]
        with torch.random.fork_rng(devices=_gpus(probe)):
            torch.manual_seed(10)
            draw = law.sample()
        spread = [(summed(each.log_prob(draw)) - summed(law.log_prob(draw))).std() for each in near]
        if not smooth or max(spread) < SPREAD_NATS:
            break
    return near


def _moved(probe: Probe, name: str, parents: list[str], step: float, shift: int) -> Law:
    values = dict(probe.values)
    for parent in parents:
        values[parent] = values[parent].lerp(values[parent].roll(shift, 0), step)
    law = probe.walk("p", probe.all_rows, values=values).p[name].law
    assert isinstance(law, Law)
    return law


def compare_own_elbo(stack: Stack, own_elbo: Callable[..., Tensor], n_data: int) -> list[Finding]:
    """10: the user's ELBO of some data against the mean log-weight of 16 draws, datum by datum."""
    shelf, signature = stack.functions.shelf, stack.functions.signature
    # spread over the data, which may be sorted
    numbers = torch.linspace(0, shelf.first - 1, min(n_data, shelf.first), device=shelf.device).long()
    own, own_variance = _own(stack, own_elbo, numbers)
    drawn = noise(
        stack.noise_specs(), N_DRAWS, len(numbers), seed=0, purpose="own ELBO", device=str(shelf.device),
        dtype=signature.dtype,
    )  # fmt: skip
    evidence = stack(numbers.to(signature.dtype).view(1, -1, 1), drawn)
    weights = evidence.log_weight
    rate = sum((evidence.rate(name).double() for name in stack.latents), start=torch.zeros_like(weights)).mean(0)
    ours, distortion = weights.mean(0), evidence.distortion.double().mean(0)
    apart = own - ours
    found = Mean.of(apart)
    rounding = FLOOR_NATS + SHARE * float((rate.abs() + distortion.abs()).mean())
    # each datum by itself: one draw's spread, since an ELBO of one draw with a seed of its own looks certain
    spread = weights.var(0).add(own_variance).sqrt() * float(stats.t.isf(1e-6 / len(own), N_DRAWS - 1))
    lone = int(((apart - found.value).abs() > spread + 3 * rounding + found.error).sum())
    if abs(found.value) <= found.limit + rounding and not lone:
        return [
            Finding(
                f"own_elbo agrees with the ELBO of infer and generate: {found.value:+.2g} +- {found.error:.2g} nats on "
                f"{found.n} data with {N_DRAWS} draws (an error of {found.seen_from + rounding:.2g} would have been "
                "seen).",
                doubtful=False,
            )
        ]
    units = sum(signature.p_kinds[name].width for name in signature.observed)
    noise_of_datum = float((weights.var(0) / N_DRAWS + own_variance).mean().sqrt())
    terms = {"own": own, "ours": ours, "rate": rate, "distortion": distortion}
    cause = likely_cause(terms, noise_of_datum + rounding, units)
    single = f", and {lone} single data further than their draws allow" if lone else ""
    raise ConfigError(
        f"own_elbo is {found.value:+.3g} +- {found.error:.2g} nats from the ELBO of infer and generate on {found.n} data "
        f"with {N_DRAWS} draws{single} (an error of {found.seen_from + rounding:.2g} would have been seen); {cause}."
    )


def _own(stack: Stack, own_elbo: Callable[..., Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The user's ELBO ``[n]`` and its variance: the mean of four calls, where calls differ."""
    shelf = stack.functions.shelf
    calls: list[Tensor] = []
    with torch.random.fork_rng(devices=[shelf.device] if shelf.device.type == "cuda" else []):
        for seed in range(CALLS):
            torch.manual_seed(seed)
            given = (shelf.x(numbers), *(() if shelf.context_tree is None else (shelf.context(numbers),)))
            try:
                value = own_elbo(*given)
            except Exception as error:
                first = next(iter(str(error).strip().splitlines()), "")
                raise ConfigError(f"own_elbo: {type(error).__name__}: {first[:200]}") from error
            if not isinstance(value, Tensor) or value.shape != (len(numbers),):
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError(
                    f"own_elbo gave {shape} for {len(numbers)} data; return one ELBO a datum, in nats, without the mean "
                    "over data."
                )
            if not value.isfinite().all():
                raise ConfigError(f"own_elbo is not finite for {int((~value.isfinite()).sum())} of {len(value)} data.")
            calls.append(value.detach().double())
            if len(calls) == 2 and torch.equal(*calls):
                return calls[0], torch.zeros_like(calls[0])
    values = torch.stack(calls)
    return values.mean(0), values.var(0).mean().expand(len(numbers)) / CALLS


def likely_cause(terms: Mapping[str, Tensor], noise_nats: float, units: int) -> str:
    """What best explains how the user's ELBO differs: one number for all data.

    >>> rate, distortion = torch.tensor([3.0, 5.0, 9.0]), torch.tensor([60.0, 50.0, 80.0])
    >>> own = -distortion - 4 * rate
    >>> likely_cause({"own": own, "ours": -distortion - rate, "rate": rate, "distortion": distortion}, 0.01, 6)
    'they differ by a multiple of the rate, as if yours had beta = 4'
    """
    own, ours = terms["own"], terms["ours"]
    apart = own - ours
    scale = float(own @ ours / (ours @ ours))
    tolerated = max(3 * noise_nats, 0.05 * float(apart.square().mean().sqrt()))

    def left(explained: Tensor) -> float:
        return float((apart - explained).square().mean().sqrt())

    if left((scale - 1) * ours) < tolerated:
        if abs(scale + 1) < 0.05:
            return "yours has the other sign: it is a loss, return its negative"
        if abs(scale * units - 1) < 0.1:
            return f"yours is a mean over the {units} elements of x in place of a sum"
        if abs(abs(scale) * units * math.log(2) - 1) < 0.1:
            return "yours is in bits per dimension; return nats, summed over the elements"
    constant = float(apart.mean())
    slopes = {name: float(apart @ terms[name] / (terms[name] @ terms[name])) for name in ("rate", "distortion")}
    lefts = {name: left(slope * terms[name]) for name, slope in slopes.items()}
    lefts["constant"] = left(torch.full_like(apart, constant))
    best = min(lefts, key=lambda name: lefts[name])
    if lefts[best] > tolerated:
        return (
            "no single cause explains it: look for a scale that is a variance, a mean in place of a sum, tokens left out "
            "of log_prob, or an own_elbo of several samples (a bound above the ELBO)"
        )
    if best == "constant":
        normal = units / 2 * math.log(2 * math.pi)
        known = f", {units}/2 log 2 pi," if abs(abs(constant) - normal) < max(4 * noise_nats, 0.01 * normal) else ""
        return f"they differ by one constant{known} for all data: a term is left out of one of them"
    if best == "rate":
        if slopes["rate"] > 0.5:
            return (
                f"yours has {slopes['rate']:.3g} rates less, as if a mean over {slopes['rate'] + 1:.3g} draws stood within "
                "the likelihood, or the rate of some latent were left out"
            )
        return f"they differ by a multiple of the rate, as if yours had beta = {1 - slopes['rate']:.3g}"
    weight = 1 - slopes["distortion"]
    if abs(weight * units - 1) < 0.1:
        return f"your likelihood is a mean over the {units} elements of x in place of a sum"
    return f"they differ by a multiple of the distortion, as if your likelihood had the weight {weight:.3g}"


__all__ = ["Mean", "compare_own_elbo", "laws_agree", "likely_cause"]
