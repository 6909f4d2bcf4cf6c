"""Exact answers, where a reference solves the decoder."""

import copy

import numpy as np
import torch
from torch import Tensor

from hvae.diagnosis.gap import Exact
from hvae.diagnosis.record import of_one
from hvae.exact import NoReferenceError, solve
from hvae.exact.answers import Gaps, Reference
from hvae.measuring.replica import Replica
from hvae.numerics import FloatArray
from hvae.posterior import Posterior


@torch.no_grad()
def measure_exact(replica: Replica) -> Exact:
    """The record of one replica, R = 1, from a float64 copy on the CPU.

    A reference may know log p(x) but not this encoder's gap: then the gap is NaN, with the reason in `gaps_refused`.
    Raises `NoReferenceError` where nothing solves the decoder.
    """
    model = copy.deepcopy(replica.model).cpu().double()
    x, interval = replica.x.cpu().double(), replica.interval
    reference = solve(model.decoder)
    log_px = _array(reference.log_px(x))
    gaps, reason = _gaps(reference, model.posterior, x)
    nothing = np.full(3, np.nan)
    by_layer = {name: nothing for name in model.latents}
    return of_one(
        Exact,
        settings={},
        reference=type(reference).__name__,
        log_px_nats=interval(log_px),
        log_px_datum_nats=log_px,
        elbo_nats=nothing if gaps is None else interval(_array(gaps.elbo)),
        total_gap_nats=nothing if gaps is None else interval(_array(gaps.total)),
        layer_gap_nats=by_layer if gaps is None else {n: interval(_array(v)) for n, v in gaps.layers.items()},
        rate_exact_nats=by_layer if gaps is None else {n: interval(_array(v)) for n, v in gaps.rates.items()},
        error=float(reference.log_px_error(x).max()) if gaps is None else gaps.error,
        gaps_refused=reason,
        refused="",
    )


def _gaps(reference: Reference, posterior: Posterior, x: Tensor) -> tuple[Gaps | None, str]:
    try:
        return reference.gaps(posterior, x), ""
    except NoReferenceError as refusal:
        return None, str(refusal)


def _array(values: Tensor) -> FloatArray:
    found: FloatArray = values.detach().cpu().numpy()
    return found
