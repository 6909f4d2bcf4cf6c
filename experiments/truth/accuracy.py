"""Errors of the estimators on stacks with a known answer: arrays of rows, one entry per row.

Do the three exact ways to a layer's gap agree, and does a trusted estimate lie within its interval (`gap_rows`)? On
which side of log p(x) are its bounds, and how far off (`bound_rows`)? How fast does a sandwich close with the number of
temperatures, where nothing is known (`sandwich_rows`)?
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from hvae.diagnostics.gap import Gap, split_gap
from hvae.diagnostics.marginals import Sampling
from hvae.evidence import HVAE
from hvae.exact import Gaps
from hvae.exact.known_stacks import KnownStack
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.importance import log_likelihood_curve
from hvae.likelihood.sandwich import sandwich, simulate
from hvae.likelihood.target import NotWhitenedError, from_prior
from hvae.numerics import FloatArray

FALSE_ALARM = 1e-6
"""chance that any interval of a table misses, if every standard error is right"""


def gap_rows(stacks: Iterable[KnownStack], n_draws: int, n_samples: int, seed: int, say: Say) -> Arrays:
    """One row per stack and layer: the exact gap by three ways, and the estimate with its interval and its trust.

    ``disagreement_nats`` is the largest difference, over data, between G_l from divergences, R_{l-1} - R_l from
    marginals, and, in all layers together, log p(x) - ELBO. The interval's level leaves the whole table
    a false alarm of 1e-6. ``alone`` is the same estimate with q as its only proposal.
    """
    rows: list[dict[str, Any]] = []
    known = list(stacks)
    n_rows = sum(len(stack.model.latents) for stack in known)
    for position, stack in enumerate(known):
        say(f"gaps of {stack.name}")
        exact = stack.exact
        best = split_gap(stack.model, stack.x, n_draws, Sampling(n_samples, seed + position))
        alone = split_gap(stack.model, stack.x, n_draws, Sampling(n_samples, seed + position, proposals=("q",)))
        for name in exact.layers:
            truth = float(exact.layers[name].mean())
            row = {
                "stack": stack.name,
                "family": stack.family,
                "strength": stack.strength,
                "encoder": stack.encoder,
                "layer": name,
                "exact_nats": truth,
                "disagreement_nats": disagreement(stack.model, exact, name),
                "proposal": best.layers[name].proposal,
            }
            for key, gap in (("", best), ("alone_", alone)):
                row |= {f"{key}{what}": value for what, value in _estimated(gap, name, truth, n_rows).items()}
            rows.append(row)
    return columns(rows)


def _estimated(gap: Gap, name: str, truth: float, n_rows: int) -> dict[str, Any]:
    layer = gap.layers[name]
    low, middle, high = layer.interval(1 - FALSE_ALARM / n_rows)
    low_95, _, high_95 = layer.interval(0.95)
    return {
        "low_nats": low, "middle_nats": middle, "high_nats": high,
        "inside": low <= truth <= high, "inside_95": low_95 <= truth <= high_95,
        "trusted": layer.trusted,
    }  # fmt: skip


def disagreement(model: HVAE, exact: Gaps, name: str) -> float:
    """Largest difference over data of the three ways to a layer's gap; the total counts for every layer."""
    order = model.posterior.order
    before = exact.total if name == order[0] else exact.remaining[order[order.index(name) - 1]]
    split = (exact.layers[name] - (before - exact.remaining[name])).abs().max()
    total = (torch.stack([exact.layers[n] for n in order]).sum(0) - exact.total).abs().max()
    return float(torch.maximum(split, total))


def bound_rows(
    stacks: Iterable[KnownStack], n_data: int, n_samples: Sequence[int], annealing: Annealing, seed: int,
    say: Say,
) -> Arrays:  # fmt: skip
    """One row per stack and estimator: its mean error against exact log p(x) on simulated data, with standard error.

    ELBO and L_K by importance sampling; annealing from the prior, and from the encoder forward and backward where the
    latents are Gaussian.
    """
    rows: list[dict[str, Any]] = []
    for stack in stacks:
        say(f"bounds of {stack.name}")
        model, like = stack.model, stack.x[:1]
        x, _ = simulate(model, n_data, seed, like)
        exact = stack.reference.log_px(x).cpu().numpy()
        found: list[tuple[str, str, FloatArray]] = []
        curve = log_likelihood_curve(model, x, n_samples, seed=seed)
        found += [
            ("ELBO" if k == 1 else f"L_{k}", "lower", bound)
            for k, bound in zip(n_samples, curve.bound_datum_nats, strict=True)
        ]
        try:
            between = sandwich(model, n_data, annealing, seed=seed, like=like)
            prior = anneal(from_prior(model.decoder, x), annealing, seed)
            found += [
                ("annealed from the prior", "lower", prior.estimate.log_px),
                ("annealed from the encoder", "lower", between.lower.log_px),
                ("annealed backward", "upper", between.upper.log_px),
            ]
        except NotWhitenedError:
            pass
        for estimator, direction, values in found:
            error = values - exact
            rows.append(
                {
                    "stack": stack.name,
                    "family": stack.family,
                    "estimator": estimator,
                    "direction": direction,
                    "exact_nats": float(exact.mean()),
                    "error_nats": float(error.mean()),
                    "se_nats": float(error.std(ddof=1) / np.sqrt(n_data)),
                }
            )
    return columns(rows)


def sandwich_rows(
    model: HVAE, like: torch.Tensor, n_data: int, n_temperatures: Sequence[int], n_chains: int, n_leapfrog: int,
    seed: int, say: Say,
) -> Arrays:  # fmt: skip
    """One row per number of temperatures: both bounds on the same simulated data, their distance, and the time."""
    rows: list[dict[str, Any]] = []
    for temperatures in n_temperatures:
        say(f"sandwich of {n_data} simulated data with {temperatures} temperatures")
        started = time.monotonic()
        found = sandwich(model, n_data, Annealing(temperatures, n_chains, n_leapfrog), seed=seed, like=like)
        gap = found.gap_datum_nats
        rows.append(
            {
                "n_temperatures": temperatures,
                "lower_nats": float(found.lower.log_px.mean()),
                "upper_nats": float(found.upper.log_px.mean()),
                "gap_nats": float(gap.mean()),
                "se_nats": float(gap.std(ddof=1) / np.sqrt(n_data)),
                "high_pareto_k_share": float((found.lower.pareto_k > found.lower.largest_pareto_k).mean()),
                "seconds": time.monotonic() - started,
            }
        )
    return columns(rows)


def columns(rows: Sequence[dict[str, Any]]) -> Arrays:
    """Rows as arrays by name."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
