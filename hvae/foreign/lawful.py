"""Whether distributions are finite, hold the values that they score, and are of one measure in q and p.

log q - log p is a rate only of two densities or two mass functions over one set of values. torch answers a number for
others too where its validation is off.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from hvae.errors import ConfigError, NotMeasuredError
from hvae.families.logistic import LevelsDistribution
from hvae.foreign.data import refuse_not_finite
from hvae.foreign.finding import Finding
from hvae.foreign.kinds import Kind
from hvae.foreign.laws import Masked, elementwise, innermost
from hvae.foreign.probe import Probe
from hvae.foreign.reading import measure_of, support_of
from hvae.foreign.visit import Landed


def lawful(probe: Probe) -> list[Finding]:
    """4: finite, inside the support, and log q - log p of two densities or two masses on one set."""
    signature = probe.stack.functions.signature
    q, p = probe.laws["q"].q, probe.laws["p"].p
    findings = []
    for name, landed in q.items():
        kinds = signature.q_kinds[name], signature.p_kinds[name]
        findings += _one_measure(name, kinds, (landed, p[name]), probe)
    for name in signature.observed:
        values = probe.laws["p"].observed
        assert values is not None
        _observable(name, signature.p_kinds[name], p[name], values[name])
        _all_observable(name, signature.p_kinds[name], p[name], probe.stack.functions.shelf.observed[name])
    for walk, landeds in (("q", q), ("p", p)):
        for name, landed in landeds.items():
            _refuse_not_finite(name, walk, landed.terms)
    return findings


def _one_measure(name: str, kinds: tuple[Kind, Kind], landed: tuple[Landed, Landed], probe: Probe) -> list[Finding]:
    measures = [_measure(kind, place) for kind, place in zip(kinds, landed, strict=True)]
    (q_name, p_name), (q_law, p_law) = [kind.name for kind in kinds], landed
    if set(measures) == {"density", "mass"}:
        words = {"density": "a density", "mass": "a mass function"}
        discrete = q_name if measures[0] == "mass" else p_name
        raise ConfigError(
            f"{name}: q is {words[str(measures[0])]} ({q_name}), p {words[str(measures[1])]} ({p_name}); log q - log p "
            f"is no rate. Visit {discrete} in both, as at test time."
        )
    supports = [support_of(_distribution(kind, place)) for kind, place in zip(kinds, landed, strict=True)]
    known = all(
        isinstance(law, tuple) or support is not None
        for law, support in zip((q_law.law, p_law.law), supports, strict=True)
    )
    if known and len({_is_simplex(support) for support in supports}) == 2:
        raise ConfigError(
            f"{name}: q ({q_name}) and p ({p_name}) are densities over different sets, one of them the simplex; log q "
            "- log p is no rate. Visit distributions of one support in both."
        )
    value = _outside(kinds[1], p_law, q_law.value)
    if value is not None:
        raise ConfigError(
            f"{name}: q ({q_name}) draws values outside the support of p ({p_name}), such as {value:.4g}; give q the "
            "support of p, by a transform such as exp or sigmoid, or by the distribution of p itself."
        )
    try:
        drawn, _ = kinds[1].draw(p_law.law, _noise_like(kinds[1], probe))
    except NotMeasuredError:
        return []
    if _outside(kinds[0], q_law, kinds[1].flat(drawn)) is None:
        return []
    return [
        Finding(
            f"{name}: p ({p_name}) draws values that q ({q_name}) never gives; the ELBO stays a bound, but no number "
            "of samples brings L_K to log p(x).",
            name,
        )
    ]


def _noise_like(kind: Kind, probe: Probe) -> Tensor:
    source = torch.Generator(probe.numbers.device).manual_seed(0)
    sampler = torch.randn if kind.family.noise == "normal" else torch.rand
    return sampler(len(probe.numbers), kind.family.noise_width, generator=source, device=probe.numbers.device)


def _distribution(kind: Kind, landed: Landed) -> Distribution:
    if isinstance(landed.law, Distribution):
        return landed.law
    rows = len(landed.terms)
    return kind.join([landed.law], [rows], torch.Size([rows]))


def _measure(kind: Kind, landed: Landed) -> str | None:
    if isinstance(landed.law, Distribution):
        return measure_of(landed.law)
    return "density" if kind.continuous else "mass"


def _is_simplex(support: constraints.Constraint | None) -> bool:
    return innermost(support) is constraints.simplex


def _outside(kind: Kind, landed: Landed, flat: Tensor) -> float | None:
    """One value outside the support; None where all lie inside, or nobody knows."""
    law: Distribution = elementwise(_distribution(kind, landed))
    value = kind.shaped(flat) if isinstance(landed.law, Distribution) else flat
    if isinstance(law, Masked):
        value, law = law.inside(value), law.distribution
    if isinstance(law, LevelsDistribution):
        steps = value * (law.n_levels - 1)
        inside = ((steps - steps.round()).abs() < 1e-3) & (value >= 0) & (value <= 1)
    else:
        support = support_of(law)
        if support is None:
            return None
        if _is_simplex(support):  # torch asks for a sum within 1e-6 of 1, which float32 breaks
            inside = (value >= 0) & ((value.sum(-1, keepdim=True) - 1).abs() < 1e-3)
        else:
            inside = support.check(value)
    if inside.all():
        return None
    wrong = _where_not(inside, value)
    # of a row that is wrong as a whole, the entry that is the least like a whole number
    return float(wrong[(wrong - wrong.round()).abs().argmax()])


def _observable(name: str, kind: Kind, landed: Landed, values: Tensor) -> None:
    missing = values.isnan().any() if values.is_floating_point() else torch.tensor(False)
    if missing and not isinstance(landed.law, Masked) and landed.terms.isnan().any():
        raise ConfigError(
            f"{name} has missing values (NaN), which no density scores; visit hvae.masked(distribution, mask, "
            "fill=float('nan')), with the mask in the context."
        )
    value = _outside(kind, landed, values.reshape(len(values), -1))
    if value is not None:
        _refuse_outside(name, kind, value)


def _all_observable(name: str, kind: Kind, landed: Landed, values: Tensor) -> None:
    """All data, not those of the probe alone, by a support that is the same for each of them."""
    law = elementwise(_distribution(kind, landed))
    if isinstance(law, Masked):
        return
    shaped = values if isinstance(landed.law, Distribution) else values.reshape(len(values), *kind.event)
    refuse_not_finite(name, shaped)
    support = support_of(law)
    if isinstance(law, LevelsDistribution) or support is None or _is_simplex(support):
        return
    if any(isinstance(bound, Tensor) and bound.numel() > 1 for bound in vars(innermost(support)).values()):
        return  # each datum has its own
    for part in shaped.split(4096):
        inside = support.check(part)
        if not inside.all():
            _refuse_outside(name, kind, float(_where_not(inside, part)[0]))


def _where_not(inside: Tensor, value: Tensor) -> Tensor:
    """The numbers of ``value`` that are not inside; an event that is wrong is wrong as a whole."""
    return value[~inside.reshape(*inside.shape, *(1,) * (value.ndim - inside.ndim)).expand(value.shape)]


def _refuse_outside(name: str, kind: Kind, value: float) -> None:
    raise ConfigError(
        f"{name} has values outside the support of {kind.name}, such as {value:.4g}, so log p({name}) is of no "
        f"distribution of {name}; prepare {name} (binarise, scale, round), or visit a distribution of such values."
    )


def _refuse_not_finite(name: str, walk: str, terms: Tensor) -> None:
    wrong = ~terms.isfinite().all(-1)
    if wrong.any():
        first = terms[wrong].flatten()
        value = float(first[~first.isfinite()][0])
        raise ConfigError(
            f"the log-probability of {name} under {walk} is {value} in {int(wrong.sum())} of {len(terms)} rows; look "
            "at the parameters there: a scale that is 0, negative or overflows, a probability of 0, or values at the "
            "edge of its support."
        )
