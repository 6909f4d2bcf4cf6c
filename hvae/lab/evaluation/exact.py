"""Exact answers, where a reference solves the decoder."""

import copy

import numpy as np
import torch

from hvae.exact import NoReferenceError, solve
from hvae.lab.evaluation.replica import Replica
from hvae.lab.evaluation.replicas import Arrays, array


@torch.no_grad()
def exact_arrays(replica: Replica) -> Arrays:
    """Arrays of one replica, without a replica axis, from a float64 copy on the CPU.

    A reference may know log p(x) but not this encoder's gap: then the gap is NaN, with the reason in `gaps_refused`.
    Raises `NoReferenceError` where nothing solves the decoder.
    """
    model = copy.deepcopy(replica.model).cpu().double()
    x, interval = replica.x.cpu().double(), replica.interval
    reference = solve(model.decoder)
    log_px = array(reference.log_px(x))
    nothing = np.full(3, np.nan)
    arrays: Arrays = {
        "reference": np.array(type(reference).__name__),
        "log_px_nats": interval(log_px),
        "log_px_datum_nats": log_px,
        "elbo_nats": nothing,
        "total_gap_nats": nothing,
        "error": np.array(np.nan),
        "gaps_refused": np.array(""),
    }
    arrays |= {f"{key}/{name}": nothing for key in ("layer_gap_nats", "rate_exact_nats") for name in model.latents}
    try:
        gaps = reference.gaps(model.posterior, x)
    except NoReferenceError as refusal:
        return arrays | {"gaps_refused": np.array(str(refusal))}
    arrays |= {
        "elbo_nats": interval(array(gaps.elbo)),
        "total_gap_nats": interval(array(gaps.total)),
        "error": np.array(gaps.error),
    }
    arrays |= {f"layer_gap_nats/{name}": interval(array(values)) for name, values in gaps.layers.items()}
    return arrays | {f"rate_exact_nats/{name}": interval(array(values)) for name, values in gaps.rates.items()}
