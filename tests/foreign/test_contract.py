"""The contract: a stack of the house, handed in through the user's door, gives the same digits as through its own."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch

from hvae.diagnostics import rates, usage
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.knockouts import Knockouts
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.families import has_closed_kl
from hvae.foreign.stack import Stack
from hvae.lab.config import Order
from hvae.likelihood import log_likelihood_curve
from tests.foreign.house import through_the_door
from tests.test_every_stack import KNOBS, built, images_for

EXACT = {"rtol": 1e-9, "atol": 1e-9}
ORDERS = [order for order in get_args(Order) if order not in ("exact", "unamortised")]
"""those that functions of a user can walk"""
every = pytest.mark.parametrize("knobs", KNOBS)


@cache
def stack(knobs: str, order: str) -> HVAE | None:
    """None for settings that the laboratory refuses."""
    try:
        return built(**KNOBS[knobs], order=order)
    except ConfigError:
        return None


def pairs(knobs: str) -> Iterator[tuple[str, Sampler, Sampler]]:
    """Each order of these settings, by the stack's own door and by the user's, as two functions and as one."""
    toy = images_for(KNOBS[knobs].get("observation", "bernoulli"))
    x = torch.cat([toy.test, toy.train]).double()
    for order in ORDERS:
        model = stack(knobs, order)
        for joint in () if model is None else (False, True) if "top-down" in order else (False,):
            foreign = Stack.of(through_the_door(model, joint=joint), {"x": x})
            assert foreign.bottom_up == model.bottom_up and foreign.latents == model.latents
            yield f"{order}{', joint' * joint}", Sampler(model, x, 0), Sampler(foreign, foreign.numbers, 0)


def same(order: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        message = f"{order}: {name}"
        np.testing.assert_allclose(np.asarray(other[name]), np.asarray(one[name]), **EXACT, err_msg=message)


@torch.no_grad()
def walked(sampler: Sampler) -> dict[str, Any]:
    """Weights, rates, terms per unit, closed forms and draws of x."""
    evidence = sampler.evidence(3, "test")
    found: dict[str, Any] = {"weights": evidence.log_weight, "distortion": evidence.distortion}
    for name in sampler.model.latents:
        found |= {f"{name} {quantity}": values for quantity, values in rates.rates(evidence, name).items()}
    return found


@every
def test_weights_and_rates_are_the_same(knobs: str) -> None:
    for order, own, foreign in pairs(knobs):
        same(order, walked(own), walked(foreign))


@torch.no_grad()
def measured(sampler: Sampler) -> dict[str, Any]:
    """What walks with given layers, other images' layers, pairs of all data, and many draws."""
    evidence, found = sampler.evidence(3, "test"), {}
    knockouts = Knockouts(sampler, evidence)
    for name in sampler.model.latents:
        found[f"{name} knocked out of q"] = knockouts.encoder(name)
        found[f"{name} knocked out"] = knockouts.model(name).clamped.log_px
    x = evidence.p["x"].distribution
    if has_closed_kl(x, x):  # else U counts x by its draws in a stack of the house, and by the data through the door
        found |= {f"{name} used": values for name, values in usage.use(sampler, evidence).items()}
    for name, carried in information(sampler, epsilon=0.1, max_paths=16).items():
        found |= {f"{name} about x": carried.about_datum, f"{name} about its parents": carried.from_parent}
    curve = log_likelihood_curve(sampler.model, sampler.x, (1, 10), seed=0)
    return found | {"bounds": curve.bound_datum_nats}


def test_what_is_measured_is_the_same() -> None:
    """Of one stack for each way of walking; all others when there is time."""
    for order, own, foreign in pairs("skips"):
        if order in ("bottom-up", "top-down-shared, joint"):
            same(order, measured(own), measured(foreign))


@pytest.mark.slow
@every
def test_what_is_measured_of_all_is_the_same(knobs: str) -> None:
    for order, own, foreign in pairs(knobs):
        same(order, measured(own), measured(foreign))


def test_all_families_orders_and_skips_are_asked() -> None:
    """What the laboratory refuses hides no family and no order."""
    asked = {(knobs, order) for knobs in KNOBS for order in ORDERS if stack(knobs, order) is not None}
    assert {knobs for knobs, _ in asked} == set(KNOBS) and {order for _, order in asked} == set(ORDERS)
