"""Every diagnostic of every layer of one model: rates, information, use by the decoder, knock-out, units, verdict.

Each is measured under a guard: a `NotMeasuredError` leaves NaN, and its sentence in `Layer.not_measured`.
"""

from collections.abc import Mapping
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.arrays import epsilons
from hvae.diagnosis.layer import Layer
from hvae.diagnosis.record import Array, of_one
from hvae.diagnosis.sizes import Sizes
from hvae.diagnostics import rates, units, usage
from hvae.diagnostics.bounds import Information
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.verdict import verdict
from hvae.evidence import HVAE, Evidence
from hvae.measuring.guard import Guard
from hvae.numerics import FloatArray, mean_interval
from hvae.vocabulary import UNDECIDED

FROM_PARENT, ABOUT_X, USE, STANDARD = "parent_information_nats", "information_nats", "reading_nats", "kl_standard_nats"
"""J, I, U and the divergence from N(0, I), by their names in a file: what a verdict rests on"""
RATES = ["rate_nats", STANDARD, "kl_prior_nats", "rate_unit_nats", "kl_standard_unit_nats"]
OF_UNITS = ["burda_variance", "twin_covariance", "residual_variance"]


@torch.no_grad()
def measure_layers(model: HVAE, x: Tensor, sizes: Sizes, rest: Tensor | None = None) -> tuple[Layer, ...]:
    """The layers of one model, z1 first, on the images ``x [n, D]`` in random order; R = 1.

    ``rest`` are further images that a top-down mixture may take in.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> z1, *_ = measure_layers(stack.model, stack.x, Sizes(max_paths=16, n_bootstrap=50))
    >>> z1.interval("information_nats").shape, z1.unit_intervals["burda_variance"].shape
    ((1, 3), (1, 4, 3))
    """
    sampler, guard, names = Sampler(model, x, sizes.seed), Guard(), list(model.latents)

    @cache
    def evidence(n_paths: int) -> Evidence:
        return sampler.evidence(n_paths, "diagnostics")

    def carried() -> dict[str, Information]:
        return information(sampler, epsilon=sizes.epsilon_nats, max_paths=sizes.max_paths, extra=rest)

    evidence(sizes.n_paths)
    informations = guard.measured([FROM_PARENT, ABOUT_X], names, carried) or {}
    read = guard.measured([USE], names, lambda: usage.use(sampler, evidence(sizes.n_paths_use))) or {}
    knocked = evidence(sizes.n_paths_knockout)
    layers = []
    for name in names:
        found = _rates(evidence(sizes.n_paths), name, guard)
        if name in informations:
            found |= {FROM_PARENT: informations[name].from_parent, ABOUT_X: informations[name].about_datum}
        if name in read:
            found[USE] = mean_interval(read[name], clusters=sampler.pairs)
        for key, knockout in (
            ("knockout_encoder_nats", partial(usage.encoder_knockout, sampler, knocked, name)),
            ("knockout_model_nats", partial(usage.model_knockout, sampler, knocked, name, "diagnostics")),
        ):
            lost = guard.measured([key], [name], knockout)
            if lost is not None:
                found[key] = mean_interval(lost)
        of_units = guard.measured(OF_UNITS, [name], partial(_units, model, evidence(sizes.n_paths), name, guard))
        found |= of_units or {}
        layers.append(_layer(model, evidence(sizes.n_paths), name, found, informations.get(name), sizes, guard))
    return tuple(layers)


def _rates(evidence: Evidence, name: str, guard: Guard) -> dict[str, FloatArray]:
    terms = guard.measured(RATES, [name], lambda: rates.rates(evidence, name)) or {}
    if terms and "kl_prior_nats" not in terms:
        parents = evidence.prior_parents[name]
        late = [parent for parent in parents if list(evidence.q).index(parent) > list(evidence.q).index(name)]
        why = f"The distributions of {name} have no divergence in closed form."
        if late:
            prior = f"p({name}|{', '.join(parents)})"
            why = f"The prior {prior} depends on {', '.join(late)}, which q visits after {name}."
        guard.refuse(["kl_prior_nats"], [name], why)
    return {key: mean_interval(values) for key, values in terms.items()}


def _units(model: HVAE, evidence: Evidence, name: str, guard: Guard) -> dict[str, FloatArray]:
    """Per unit ``[D, 3]``, where the distribution factorises over units."""
    site, n = evidence.q[name], evidence.p["x"].value.shape[1]
    if not site.family.factorised:
        guard.refuse(["rate_unit_nats", *OF_UNITS], [name], f"The units of {name} depend on each other in q.")
        return {}
    covariance = partial(units.covariance_interval, n_units=site.family.units)
    one, other = units.mean_variance(site, n)
    found = {"burda_variance": covariance(one, one)}
    if model.bottom_up:
        found["twin_covariance"] = covariance(one, other)
    elif evidence.p[name].family.exponential:  # the others know no variance
        residual = units.residual(evidence, name)
        found["residual_variance"] = covariance(residual, residual)
    return found


def _layer(
    model: HVAE, evidence: Evidence, name: str, found: Mapping[str, FloatArray], carried: Information | None,
    sizes: Sizes, guard: Guard,
) -> Layer:  # fmt: skip
    fraction = None
    if evidence.q[name].family.factorised:
        fraction = guard.measured(["collapsed_fraction"], [name], lambda: units.collapsed_fraction(evidence, name))
    words = [_judge(found, epsilon) for epsilon in epsilons(sizes.epsilon_nats)]
    return of_one(
        Layer,
        name=name,
        n_units=model.decoder.family(name).units,
        mixed=not model.bottom_up,
        verdict=np.array(words),
        n_paths=np.array(0 if carried is None else carried.n_paths),
        information_on_n=np.array(np.nan if carried is None else carried.on_images),
        collapsed_fraction=fraction,
        collapse_reference=units.collapse_reference(evidence, name),
        marks="",
        intervals={key: values for key, values in found.items() if values.ndim == 1},
        unit_intervals={key: values for key, values in found.items() if values.ndim == 2},
        not_measured=guard.reasons.get(name, {}),
    )


def _judge(found: Mapping[str, Array], epsilon: float) -> str:
    """The verdict; undecided where what it would rest on was not measured."""
    nothing = np.full(3, np.nan)
    j, i, u, kl = (found.get(key, nothing) for key in (FROM_PARENT, ABOUT_X, USE, STANDARD))
    if j[2] < epsilon and not np.isfinite(kl).all():
        return UNDECIDED
    return verdict(j, i, u, kl, epsilon)
