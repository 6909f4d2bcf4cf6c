"""Every diagnostic of every layer of one model: rates, information, use by the decoder, knock-out, units, verdict.

Each is measured under a guard: a `NotMeasuredError` leaves NaN, and its sentence in `Layer.not_measured`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.arrays import epsilons
from hvae.diagnosis.layer import Layer
from hvae.diagnosis.record import of_one
from hvae.diagnosis.sizes import Sizes
from hvae.diagnostics import laws, rates, units, usage
from hvae.diagnostics.bounds import Information, ordered
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.knockouts import Knockouts, images_of_walks
from hvae.diagnostics.redrawn import redrawn_information
from hvae.diagnostics.verdict import Found
from hvae.evidence import HVAE, Evidence
from hvae.measuring.guard import Guard
from hvae.measuring.judging import MOST_OTHERS, USED, judge
from hvae.numerics import FloatArray, mean_interval
from hvae.vocabulary import TO_PRIOR

FROM_PARENT, ABOUT_X, USE = "parent_information_nats", "information_nats", "reading_nats"
OWN_PRIOR, COMES_BACK, ABOVE = "kl_prior_nats", "redrawn_nats", "bound_above_nats"
STATED = {
    "from_parent": FROM_PARENT, "about_datum": ABOUT_X, "read": USE, "from_prior": OWN_PRIOR,
    "comes_back": COMES_BACK,
}  # fmt: skip
"""J, I, U, M and U_x, by their names in a file: what a verdict rests on"""
RATES = ["rate_nats", "kl_standard_nats", "rate_unit_nats", "kl_standard_unit_nats"]
LIKELIHOODS = ["knockout_whole_nats", "knockout_clamped_nats"]
"""bounds on log p(x) of the whole decoder and of the one with a layer clamped"""
OF_UNITS = ["burda_variance", "twin_covariance", "residual_variance"]


@torch.no_grad()
def measure_layers(model: HVAE, x: Tensor, sizes: Sizes, rest: Tensor | None = None) -> tuple[Layer, ...]:
    """The layers of one model, z1 first, on the images ``x [n, D]`` in random order; R = 1.

    ``rest`` are further images: their codes are the alternatives of V_l, and a top-down mixture may take them in.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> z1, *_ = measure_layers(stack.model, stack.x, Sizes(max_paths=16))
    >>> z1.interval("information_nats").shape, z1.unit_intervals["burda_variance"].shape
    ((1, 3), (1, 4, 3))
    """
    sampler, guard, names = Sampler(model, x, sizes.seed), Guard(), list(model.latents)

    @cache
    def evidence(n_paths: int) -> Evidence:
        return sampler.evidence(n_paths, "diagnostics")

    few = Sampler(model, x[: images_of_walks(len(x), len(names))], sizes.seed)

    def of_few(n_paths: int) -> Evidence:
        return evidence(n_paths) if len(few.x) == len(x) else few.evidence(n_paths, "diagnostics")

    extra = None if rest is None else rest[: (sizes.n_mixture - 1) * len(x)]

    def carried() -> dict[str, Information]:
        return information(sampler, epsilon=sizes.epsilon_nats, max_paths=sizes.max_paths, extra=extra)

    judged = judge(sampler, evidence(sizes.n_paths), sizes, rest, guard)
    informations = guard.measured([FROM_PARENT, ABOUT_X], names, carried) or {}
    read = guard.measured([USE], names, lambda: usage.use(few, of_few(sizes.n_paths_use))) or {}
    knockouts = Knockouts(few, of_few(sizes.n_paths_knockout))
    every: dict[str, dict[str, FloatArray]] = {}
    for name in names:
        found = every[name] = _rates(evidence(sizes.n_paths), name, guard)
        carries = informations.get(name)
        if carries is not None:
            found |= {FROM_PARENT: carries.from_parent, ABOUT_X: carries.about_datum}
        found[OWN_PRIOR] = _own_prior(judged[name].found, model, evidence(sizes.n_paths), name, found)
        found[USED] = judged[name].used
        if name in read:
            found[USE] = mean_interval(read[name], clusters=few.pairs)
    asked = [z for z in names if judged[z].moved and _perhaps_unread(judged[z].found, every[z], sizes.epsilon_nats)]
    if asked:
        comes_back = guard.measured([COMES_BACK], asked, partial(_comes_back, few, asked, rest)) or {}
        for name, interval in comes_back.items():
            every[name][COMES_BACK] = interval
    layers = []
    for name, found in every.items():
        found |= _knocked_out(knockouts, name, guard)
        of_units = guard.measured(OF_UNITS, [name], partial(_units, model, evidence(sizes.n_paths), name, guard))
        found |= of_units or {}
        known: dict[str, Any] = {field: found[key] for field, key in STATED.items() if key in found}
        statement = replace(judged[name].found, **known)
        of_all, cap, carried_by = evidence(sizes.n_paths), judged[name].cap, informations.get(name)
        layers.append(_layer(model, of_all, name, found, statement, cap, carried_by, sizes, guard))
    return tuple(layers)


def _perhaps_unread(statement: Found, found: Mapping[str, FloatArray], epsilon: float) -> bool:
    """Whether a layer is coded and not surely used, and U cannot say that it is unread."""
    if not {ABOUT_X, USE} <= set(found) or statement.used[0] > epsilon:
        return False
    return replace(statement, about_datum=found[ABOUT_X]).coded(epsilon) and bool(found[USE][2] > epsilon)


def _comes_back(sampler: Sampler, names: list[str], rest: Tensor | None) -> dict[str, FloatArray]:
    others = None if rest is None else rest[:MOST_OTHERS]
    terms = redrawn_information(sampler, sampler.evidence(1, "use"), names, others)
    return {name: mean_interval(values) for name, values in terms.items()}


def _own_prior(
    statement: Found, model: HVAE, evidence: Evidence, name: str, found: Mapping[str, FloatArray]
) -> FloatArray:
    """M_l, the divergence from its prior: as a mean, or between J_l and T_l."""
    terms = statement.divergences.get(TO_PRIOR)
    if terms is None:  # no divergence, or not judged
        terms = laws.from_prior(model, evidence, name)
    if terms is not None:
        return mean_interval(terms)
    at_most = mean_interval(laws.up_to_the_top(evidence, name))
    return ordered(found[FROM_PARENT][0] if FROM_PARENT in found else 0.0, at_most[2])


def _knocked_out(knockouts: Knockouts, name: str, guard: Guard) -> dict[str, FloatArray]:
    """What is lost without the layer in q, and in the decoder; the likelihoods with and without it there; L^{>l}."""
    of_model, found = "knockout_model_nats", {}
    lost = guard.measured(["knockout_encoder_nats"], [name], lambda: knockouts.encoder(name))
    if lost is not None:
        found["knockout_encoder_nats"] = mean_interval(lost)
    above = guard.measured([ABOVE], [name], lambda: knockouts.above(name))
    if above is not None:
        found[ABOVE] = mean_interval(above.log_px)
    bounds = guard.measured([of_model, *LIKELIHOODS], [name], lambda: knockouts.model(name))
    if bounds is not None:
        for key, bound in zip(LIKELIHOODS, (bounds.whole, bounds.clamped), strict=True):
            found[key] = mean_interval(bound.log_px)
        loss = guard.measured([of_model], [name], bounds.loss)
        if loss is not None:
            found[of_model] = np.array([np.nan, loss.mean(), np.nan])  # the difference of two bounds has no ends
    return found


def _rates(evidence: Evidence, name: str, guard: Guard) -> dict[str, FloatArray]:
    terms = guard.measured(RATES, [name], lambda: rates.rates(evidence, name)) or {}
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
    model: HVAE, evidence: Evidence, name: str, found: Mapping[str, FloatArray], statement: Found, cap: float,
    carried: Information | None, sizes: Sizes, guard: Guard,
) -> Layer:  # fmt: skip
    fraction = None
    if evidence.q[name].family.factorised:
        fraction = guard.measured(["collapsed_fraction"], [name], lambda: units.collapsed_fraction(evidence, name))
    thresholds = epsilons(sizes.epsilon_nats)
    return of_one(
        Layer,
        name=name,
        n_units=model.decoder.family(name).units,
        mixed=not model.bottom_up,
        verdict=np.array([statement.verdict(epsilon) for epsilon in thresholds]),
        moved_share=np.array([statement.moved_share(epsilon) for epsilon in thresholds]),
        used_cap=np.array(cap),
        n_paths=np.array(0 if carried is None else carried.n_paths),
        information_on_n=np.array(np.nan if carried is None else carried.on_images),
        collapsed_fraction=fraction,
        collapse_reference=units.collapse_reference(evidence, name),
        event=np.array(model.decoder.event(name)),
        marks=statement.mark(sizes.epsilon_nats),
        intervals={key: values for key, values in found.items() if values.ndim == 1},
        unit_intervals={key: values for key, values in found.items() if values.ndim == 2},
        not_measured=guard.reasons.get(name, {}),
    )
