"""Annealed importance sampling on test images, and between two bounds on simulated data."""

import time

import numpy as np
import torch

from hvae.diagnosis.gap import Annealed
from hvae.diagnosis.record import of_one
from hvae.likelihood.importance import log_likelihood_curve
from hvae.likelihood.sandwich import sandwich
from hvae.measuring.likelihood import powers_of_ten
from hvae.measuring.replica import Replica, annealing


@torch.no_grad()
def measure_annealed(replica: Replica) -> Annealed:
    """The record of one replica, R = 1. Raises `NotWhitenedError` for discrete latents.

    The curve of L_K is on the same images as the annealed bound, and on the same simulated data as the sandwich.
    """
    started = time.monotonic()
    annealed, interval = replica.annealed, replica.interval
    seed, ks = replica.seed, powers_of_ten(replica.budget.samples)
    estimate = annealed.estimate
    curve = log_likelihood_curve(replica.model, replica.x, ks, seed=seed)
    between = sandwich(
        replica.model, len(replica.x), annealing(replica.budget), seed=seed, like=replica.x, tick=replica.tick
    )
    simulated = log_likelihood_curve(replica.model, between.x, ks, seed=seed)
    bounds, simulated_bounds = (interval(found.bound_datum_nats) for found in (curve, simulated))
    doubts = (between.lower.warning, between.upper.warning)
    return of_one(
        Annealed,
        settings={},
        path="encoder",
        device=str(replica.x.device),
        seconds=time.monotonic() - started,
        n_samples=np.array(ks),
        log_px_nats=interval(estimate.log_px),
        log_px_datum_nats=estimate.log_px,
        se_nats=estimate.standard_error,
        ess=estimate.ess,
        pareto_k=estimate.pareto_k,
        acceptance=annealed.acceptance,
        warning=estimate.warning,
        note=estimate.note,
        elbo_nats=bounds[0],
        curve_nats=bounds,
        curve_ess=curve.estimate.ess,
        curve_pareto_k=curve.estimate.pareto_k,
        curve_warning=curve.estimate.warning,
        simulated_elbo_nats=simulated_bounds[0],
        simulated_curve_nats=simulated_bounds,
        simulated_lower_nats=interval(between.lower.log_px),
        simulated_upper_nats=interval(between.upper.log_px),
        sandwich_nats=interval(between.gap_datum_nats),
        simulated_lower_datum_nats=between.lower.log_px,
        simulated_upper_datum_nats=between.upper.log_px,
        simulated_warning=" ".join(dict.fromkeys(filter(None, doubts))),
        refused="",
    )
