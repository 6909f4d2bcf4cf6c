"""The user's own ELBO against the door's, datum by datum.

It sees what no check of functions can: a scale that is a variance, constants or tokens left out, a mean in place of a
sum, a weight on the rate.
"""

import math
from collections.abc import Callable, Mapping

import torch
from scipy import stats
from torch import Tensor

from hvae.errors import ConfigError
from hvae.foreign.finding import Finding
from hvae.foreign.probe import FLOOR_NATS, SHARE
from hvae.foreign.stack import Stack
from hvae.foreign.two_functions import Mean
from hvae.rng import noise

N_DRAWS, CALLS = 16, 8
"""draws of ours; calls of theirs, where two differ"""
ALIKE = 1.5
"""causes are named together whose remainders differ by less than this factor"""


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
                f"own_elbo agrees with the ELBO of infer and generate: {found.value:+.2g} nats (standard error "
                f"{found.error:.2g}) on {found.n} data with {N_DRAWS} draws (an error of "
                f"{found.seen_from + rounding:.2g} would have been seen).",
                doubtful=False,
            )
        ]
    units = sum(signature.p_kinds[name].width for name in signature.observed)
    noise_of_datum = float((weights.var(0) / N_DRAWS + own_variance).mean().sqrt())
    terms = {"own": own, "ours": ours, "rate": rate, "distortion": distortion}
    cause = likely_cause(terms, noise_of_datum + rounding, units)
    single = f", and {lone} single data further than their draws allow" if lone else ""
    raise ConfigError(
        f"own_elbo is {found.value:+.3g} nats (standard error {found.error:.2g}) from the ELBO of infer and generate "
        f"on {found.n} data with {N_DRAWS} draws{single}: {cause}."
    )


def _own(stack: Stack, own_elbo: Callable[..., Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The user's ELBO ``[n]`` and its variance: the mean of some calls, where two calls differ."""
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
                    f"own_elbo gave {shape} for {len(numbers)} data; return one ELBO a datum, in nats, without the "
                    "mean over data."
                )
            if value.is_meta or value.is_complex():
                raise ConfigError(
                    f"own_elbo gave {value.dtype} on {value.device}; return real numbers, on the device of x."
                )
            if not value.isfinite().all():
                raise ConfigError(f"own_elbo is not finite for {int((~value.isfinite()).sum())} of {len(value)} data.")
            calls.append(value.detach().to(shelf.device).double())
            if len(calls) == 2 and torch.equal(*calls):
                return calls[0], torch.zeros_like(calls[0])
    values = torch.stack(calls)
    return values.mean(0), values.var(0).mean().expand(len(numbers)) / CALLS


def likely_cause(terms: Mapping[str, Tensor], noise_nats: float, units: int) -> str:
    """What explains how the user's ELBO differs: what is one number for all data, and each such where two do.

    >>> rate, distortion = torch.tensor([3.0, 5.0, 9.0]), torch.tensor([60.0, 50.0, 80.0])
    >>> own = -distortion - 4 * rate
    >>> likely_cause({"own": own, "ours": -distortion - rate, "rate": rate, "distortion": distortion}, 0.01, 6)
    'they differ by a multiple of the rate, as if yours had beta = 4'
    """
    own, ours = terms["own"], terms["ours"]
    apart = own - ours
    tolerated = max(3 * noise_nats, 0.05 * float(apart.square().mean().sqrt()))
    scale = float(own @ ours / (ours @ ours))
    if float((own - scale * ours).square().mean().sqrt()) < tolerated:
        if abs(scale + 1) < 0.05:
            return "yours has the other sign: it is a loss, return its negative"
        if abs(scale * units - 1) < 0.1:
            return f"yours is a mean over the {units} elements of x in place of a sum"
        if abs(abs(scale) * units * math.log(2) - 1) < 0.1:
            return "yours is in bits per dimension; return nats, summed over the elements"
    candidates = {"constant": torch.ones_like(apart), "rate": terms["rate"], "distortion": terms["distortion"]}
    found = []
    for name, shape in candidates.items():
        size = float(apart @ shape / (shape @ shape))
        left = float((apart - size * shape).square().mean().sqrt())
        if left < tolerated:
            found.append((left, _said(name, size, units, noise_nats)))
    if not found:
        return (
            "no single cause explains it: look for a scale that is a variance, a mean in place of a sum, tokens left "
            "out of log_prob, or an own_elbo of several samples (a bound above the ELBO)"
        )
    found.sort()
    return "; or ".join(said for left, said in found if left <= ALIKE * max(found[0][0], noise_nats))


def _said(name: str, size: float, units: int, noise_nats: float) -> str:
    if name == "constant":
        normal = units / 2 * math.log(2 * math.pi)
        known = f", {units}/2 log 2 pi," if abs(abs(size) - normal) < max(4 * noise_nats, 0.01 * normal) else ""
        return f"they differ by one constant{known} for all data: a term is left out of one of them"
    weight = 1 - size
    if name == "rate":
        inside = f", or z held {1 / weight:.2g} draws and the likelihood their mean" if 0.02 < weight < 0.7 else ""
        return f"they differ by a multiple of the rate, as if yours had beta = {weight:.2g}{inside}"
    if units > 2 and weight > 0 and abs(math.log(weight * units)) < 0.35:
        return f"your likelihood is a mean over the {units} elements of x in place of a sum"
    if units > 2 and weight > 0 and abs(math.log(weight / units)) < 0.35:
        return f"the likelihood in generate is a mean over the {units} elements of x in place of a sum"
    return (
        f"they differ by a multiple of the distortion, as if your likelihood had the weight {weight:.3g}, or one scale "
        "were a variance"
    )
