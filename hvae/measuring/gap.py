"""log p(x) - ELBO, by layer and by cause; and the activity of units, which tells the cause of a collapse."""

import copy
import time
from typing import Any

import numpy as np

from hvae.diagnosis.gap import Gap as GapRecord
from hvae.diagnosis.gap import LayerGap
from hvae.diagnosis.record import of_one
from hvae.diagnostics.collapse import activity
from hvae.diagnostics.gap import Gap, annealed_marginal, exact_marginal, split_gap
from hvae.diagnostics.marginals import TRUSTED_ESS, Marginal, Sampling
from hvae.diagnostics.suboptimality import suboptimality
from hvae.errors import NotMeasuredError
from hvae.exact import NoReferenceError, solve
from hvae.likelihood.estimate import SMALLEST_ESS, TOLERATED_SHARE, Estimate
from hvae.likelihood.target import from_encoder
from hvae.measuring.replica import Replica, annealing
from hvae.numerics import FloatArray
from hvae.topdown import ResidualDecoder
from hvae.vocabulary import ACTIVE_SHARE

N_PATHS = 32
"""draws per image behind the ELBOs of refined encoders"""
N_ACTIVITY_PATHS = 128
"""draws per image and twin for the activity of q. They are cheap next to chains, so q is seldom the unsure side"""
MOMENT_ESS = 2 * SMALLEST_ESS
"""with fewer effective chains, moments of the exact posterior are doubted: `SMALLEST_ESS` for each of two halves"""
FAMILY_RISK = 0.05
"""chance that any statement on a unit errs; few chains on few images make many units look active by chance"""
OF_BLOCKS = (
    "The gap by layer refines q for every image, path and layer by thousands of gradients, whatever the budget, which "
    "takes too long in a stack of blocks; take annealed bounds with a small budget, as of 16 images and 16 chains, and "
    "of each layer V and the bound of the layers above it, which every diagnosis has."
)

Values = dict[str, Any]
"""fields of a record, without the axis of replicas"""


def measure_gap(replica: Replica) -> GapRecord:
    """The record of one replica, R = 1.

    The interval of a gap covers its draws and the bias of its estimates, for these images. A unit is active where its
    whole interval, widened for the number of units, is above `ACTIVE_SHARE`. Discrete latents have no annealed chains
    and no causes of the gap; these are NaN, with the reason in `posterior_refused` and `suboptimality_refused`.
    Raises ValueError where no number is finite, and `NotMeasuredError` for a stack of blocks.
    """
    if isinstance(replica.model.decoder, ResidualDecoder):
        raise NotMeasuredError(OF_BLOCKS)
    started = time.monotonic()
    budget = replica.budget
    chains = annealing(budget) if budget.chains > TRUSTED_ESS else None  # fewer chains are never trusted
    sampling = Sampling(n_samples=budget.samples, seed=replica.seed, annealing=chains)
    gap = split_gap(replica.model, replica.x, budget.draws, sampling, _known(replica))
    causes, freed = _causes(replica, gap)
    said, units = measure_activity(replica)
    layers = {
        name: of_one(LayerGap, **_layer(replica, gap, name), freed_nats=freed[name], **units[name])
        for name in gap.layers
    }
    return of_one(
        GapRecord,
        settings={},
        device=str(replica.x.device),
        seconds=time.monotonic() - started,
        layers=layers,
        refused="",
        **_split(replica, gap),
        **causes,
        **said,
    )


def _known(replica: Replica) -> Marginal | None:
    """log p(x): exact where a reference has it (in float64 on the CPU), else by annealed chains if latents allow."""
    model = copy.deepcopy(replica.model).cpu().double()
    try:
        return exact_marginal(solve(model.decoder), replica.x.cpu().double())
    except NoReferenceError:
        pass
    try:
        return annealed_marginal(replica.annealed)
    except NotMeasuredError:
        return None


def _split(replica: Replica, gap: Gap) -> Values:
    estimate = gap.log_px.estimate
    defined = estimate.pareto_k[~np.isnan(estimate.pareto_k)]
    return {
        "log_px_nats": replica.interval(estimate.log_px),
        "log_px_datum_nats": estimate.log_px,
        "log_px_direction": estimate.direction,
        "high_pareto_k_share": (defined > estimate.largest_pareto_k).mean() if len(defined) else np.nan,
        "warning": "" if estimate.direction == "exact" else gap.log_px.reason or estimate.warning,
        "elbo_nats": replica.interval(gap.elbo.datum_nats),
        "total_nats": gap.total.interval(),
        "log_px_trusted": gap.log_px.trusted,
        "log_px_reason": gap.log_px.reason,
        "log_px_proposal": gap.log_px.proposal,
    }


def _layer(replica: Replica, gap: Gap, name: str) -> Values:
    layer = gap.layers[name]
    return {
        "gap_nats": layer.interval(),
        "se_nats": np.sqrt(np.square(layer.standard_error).sum()) / len(replica.x),
        "bias_nats": layer.bias.mean(),
        "trusted": layer.trusted,
        "reason": layer.reason,
        "proposal": layer.proposal,
        "remaining_nats": gap.remaining[name].interval(),
        "ess": layer.median_ess,
        "pareto_k": layer.median_pareto_k,
        "halving_nats": layer.halving_nats,
    }


def _causes(replica: Replica, gap: Gap) -> tuple[Values, Values]:
    """Of the gap as a whole, and what refining each layer alone gains."""
    nothing, names = np.full(3, np.nan), replica.model.latents
    causes = ("approximation_nats", "amortisation_nats", "remainder_nats")
    try:
        found = suboptimality(replica.model, replica.x, gap.log_px, n_draws=N_PATHS, seed=replica.seed)
    except NotMeasuredError as refusal:
        return dict.fromkeys(causes, nothing) | {"suboptimality_refused": str(refusal)}, dict.fromkeys(names, nothing)
    terms = (found.approximation, found.amortisation, found.remainder)
    whole: Values = {key: term.interval() for key, term in zip(causes, terms, strict=True)}
    return whole | {"suboptimality_refused": ""}, {name: term.interval() for name, term in found.freed.items()}


def _doubt(estimate: Estimate) -> str:
    """Why the chains cannot give moments of p(z|x), judged by their effective number alone.

    The rule for log p(x) does not serve here: at 64 chains its k-hat doubts even weights that are nearly equal.
    """
    n_poor, n_data = int((~(estimate.ess > MOMENT_ESS)).sum()), len(estimate.ess)
    if n_poor <= TOLERATED_SHARE * n_data:
        return ""
    return (
        f"Nothing is said of the exact posterior: the chains of {n_poor} of {n_data} images have an effective sample "
        f"size of {MOMENT_ESS:.0f} or less; give more --chains or --temperatures."
    )


def measure_activity(replica: Replica) -> tuple[Values, dict[str, Values]]:
    """Sentences on the chains, and by layer the shares of its units and how many are surely active.

    Where the chains are doubted, nothing is sure of p(z|x): its intervals go from 0 to 1, without a count.
    """
    said: Values = {"posterior_refused": "", "posterior_warning": ""}
    nothing = {name: _nothing(replica.model.decoder.family(name).units) for name in replica.model.latents}
    if replica.budget.chains < 2:
        return said | {"posterior_refused": "--chains is 1, and the posterior's variance takes two halves."}, nothing
    try:
        annealed = replica.annealed
    except NotMeasuredError as refusal:
        return said | {"posterior_refused": str(refusal)}, nothing
    noise = from_encoder(replica.model, replica.x).split(annealed.noise)
    found = activity(
        replica.model, replica.x, noise, annealed.log_weight,
        n_paths=N_ACTIVITY_PATHS, seed=replica.seed, risk=FAMILY_RISK,
    )  # fmt: skip
    doubt = _doubt(annealed.estimate)
    of_layers = {}
    for name, sure in found.items():
        units = sure.withheld() if doubt else sure
        of_layers[name] = {
            "posterior_share": units.posterior,
            "encoder_share": units.encoder,
            "posterior_active": np.nan if doubt else _count(units.posterior),
            "encoder_active": _count(units.encoder),
        }
    return said | {"posterior_warning": doubt}, of_layers


def _nothing(n_units: int) -> Values:
    shares = np.full((n_units, 3), np.nan)
    counts = {"posterior_active": np.nan, "encoder_active": np.nan}
    return {"posterior_share": shares, "encoder_share": shares} | counts


def _count(shares: FloatArray) -> float:
    return float((shares[:, 0] > ACTIVE_SHARE).sum())
