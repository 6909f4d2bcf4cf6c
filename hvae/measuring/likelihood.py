"""The curve of bounds L_1 … L_K on log p(x), with the encoder as proposal."""

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.likelihood import Likelihood
from hvae.diagnosis.record import of_one
from hvae.errors import NotMeasuredError
from hvae.evidence import HVAE
from hvae.likelihood.importance import Curve, log_likelihood_curve
from hvae.numerics import mean_interval


@torch.no_grad()
def measure_likelihood(model: HVAE, x: Tensor, n_samples: int, *, seed: int) -> Likelihood:
    """L_K of one model on ``x [B, D]``, at powers of ten up to ``n_samples``; R = 1.

    Where the model cannot give it, the numbers are NaN, with the reason in `refused`.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> measure_likelihood(stack.model, stack.x, 30, seed=0).n_samples.tolist()
    [1, 10, 30]
    """
    try:
        curve = log_likelihood_curve(model, x, powers_of_ten(n_samples), seed=seed)
    except NotMeasuredError as refusal:
        return _refused(len(x), powers_of_ten(n_samples), " ".join(str(refusal).split()))
    return _record(curve)


def powers_of_ten(n_samples: int) -> tuple[int, ...]:
    """1, 10, 100, … and ``n_samples`` itself."""
    powers = [10**exponent for exponent in range(len(str(n_samples))) if 10**exponent < n_samples]
    return (*powers, n_samples)


def _record(curve: Curve) -> Likelihood:
    estimate = curve.estimate
    return of_one(
        Likelihood,
        n_samples=np.array(curve.n_samples),
        bound_nats=mean_interval(curve.bound_datum_nats),
        bound_datum_nats=estimate.log_px,
        elbo_datum_nats=curve.bound_datum_nats[0],
        se_nats=estimate.standard_error,
        ess=estimate.ess,
        pareto_k=estimate.pareto_k,
        warning=estimate.warning,
        note=estimate.note,
        refused="",
        image_index=None,
    )


def _refused(n_data: int, n_samples: tuple[int, ...], sentence: str) -> Likelihood:
    nothing = np.full(n_data, np.nan)
    return of_one(
        Likelihood,
        n_samples=np.array(n_samples),
        bound_nats=np.full((len(n_samples), 3), np.nan),
        bound_datum_nats=nothing,
        elbo_datum_nats=nothing,
        se_nats=nothing,
        ess=nothing,
        pareto_k=nothing,
        warning="",
        note="",
        refused=sentence,
        image_index=None,
    )
