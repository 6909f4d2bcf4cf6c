"""log p(x) from below, and the curve of bounds L_1 … L_K with the encoder as proposal."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.likelihood import Likelihood
from hvae.diagnosis.record import of_one
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.likelihood.cheapest import cheapest_bound
from hvae.likelihood.importance import Curve, log_likelihood_curve
from hvae.likelihood.spending import Bound, Spending
from hvae.numerics import mean_interval


@torch.no_grad()
def measure_likelihood(model: HVAE, x: Tensor, n_samples: int, *, until_se: float, seed: int) -> Likelihood:
    """log p(x) of one model on ``x [B, D]``, and L_K at powers of ten up to ``n_samples``; R = 1.

    Where the model cannot give it, the numbers are NaN, with the reason in `refused`.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> found = measure_likelihood(stack.model, stack.x, 1000, until_se=0.1, seed=0)
    >>> found.n_samples.tolist(), bool(found.log_px_reached.all()), found.warning
    ([1, 10, 100, 1000], True, ('',))
    """
    ks = powers_of_ten(n_samples)
    try:
        curve, bound = cheapest_bound(model, x, ks, Spending(n_samples, until_se), seed=seed)
    except NotMeasuredError as refusal:
        return _record(_nothing(len(x), ks), _nowhere(len(x), until_se), _sentence(refusal))
    return _record(_of_curve(curve), _of_bound(bound))


@torch.no_grad()
def measure_curve(model: HVAE, x: Tensor, n_samples: int, *, seed: int) -> Likelihood:
    """The curve alone; R = 1. Its warning is that of L_K."""
    ks = powers_of_ten(n_samples)
    alone = dict.fromkeys(_DATUM, np.full(0, np.nan)) | {"doubt_nats": np.nan, "until_se": None}
    try:
        curve = log_likelihood_curve(model, x, ks, seed=seed)
    except NotMeasuredError as refusal:
        return _record(_nothing(len(x), ks), alone | _SILENT, _sentence(refusal))
    said = {"warning": curve.estimate.warning, "note": curve.estimate.note}
    return _record(_of_curve(curve), alone | said)


def powers_of_ten(n_samples: int) -> tuple[int, ...]:
    """1, 10, 100, … and ``n_samples`` itself."""
    powers = [10**exponent for exponent in range(len(str(n_samples))) if 10**exponent < n_samples]
    return (*powers, n_samples)


Values = dict[str, Any]
"""fields of a record, without the axis of replicas"""
_DATUM = (
    "log_px_datum_nats", "log_px_se_nats", "log_px_ess", "log_px_pareto_k", "log_px_method", "log_px_evaluations",
    "log_px_reached",
)  # fmt: skip
_SILENT: Values = {"warning": "", "note": ""}


def _of_curve(curve: Curve) -> Values:
    estimate = curve.estimate
    return {
        "n_samples": np.array(curve.n_samples),
        "bound": curve.bound_datum_nats,
        "bound_datum_nats": estimate.log_px,
        "elbo_datum_nats": curve.bound_datum_nats[0],
        "se_nats": estimate.standard_error,
        "ess": estimate.ess,
        "pareto_k": estimate.pareto_k,
    }


def _nothing(n_data: int, n_samples: tuple[int, ...]) -> Values:
    of_data = dict.fromkeys(
        ("bound_datum_nats", "elbo_datum_nats", "se_nats", "ess", "pareto_k"), np.full(n_data, np.nan)
    )
    return {"n_samples": np.array(n_samples), "bound": np.full((len(n_samples), n_data), np.nan)} | of_data


def _of_bound(bound: Bound) -> Values:
    estimate = bound.estimate
    values = (
        estimate.log_px, estimate.standard_error, estimate.ess, estimate.pareto_k, np.array(bound.method),
        bound.evaluations, bound.reached,
    )  # fmt: skip
    return dict(zip(_DATUM, values, strict=True)) | {
        "doubt_nats": sum(estimate.doubt_nats),
        "until_se": bound.until_se,
        "warning": estimate.warning,
        "note": bound.note,
    }


def _nowhere(n_data: int, until_se: float) -> Values:
    nothing = np.full(n_data, np.nan)
    words: Values = {"log_px_method": np.full(n_data, ""), "log_px_reached": np.zeros(n_data, dtype=bool)}
    return dict.fromkeys(_DATUM, nothing) | words | {"doubt_nats": np.nan, "until_se": until_se} | _SILENT


def _record(curve: Values, bound: Values, refused: str = "") -> Likelihood:
    curve = dict(curve)
    by_datum = bound["log_px_datum_nats"]
    return of_one(
        Likelihood,
        bound_nats=mean_interval(curve.pop("bound")),
        log_px_nats=mean_interval(by_datum) if len(by_datum) else np.full(3, np.nan),
        refused=refused,
        image_index=None,
        **_no_floor(len(curve["pareto_k"])),
        **curve,
        **bound,
    )


def _no_floor(n_data: int) -> Values:
    """Of a likelihood before `hvae.measuring.floor` was asked."""
    unknown: Values = dict.fromkeys(("floor_fitted_to", "n_columns", "n_levels"))
    return unknown | {
        "floor_nats": np.full(3, np.nan),
        "floor_datum_nats": np.full(n_data, np.nan),
        "floor_refused": "",
    }


def _sentence(refusal: NotMeasuredError) -> str:
    return " ".join(str(refusal).split())
