"""log p(x) - ELBO, by layer and by cause; and the activity of units, which tells the cause of a collapse."""

import copy
import time

import numpy as np

from hvae.diagnostics.collapse import activity
from hvae.diagnostics.gap import Gap, annealed_marginal, exact_marginal, split_gap
from hvae.diagnostics.marginals import TRUSTED_ESS, Marginal, Sampling
from hvae.diagnostics.suboptimality import suboptimality
from hvae.exact import NoReferenceError, solve
from hvae.lab.evaluation.budget import annealing
from hvae.lab.evaluation.replica import Replica
from hvae.lab.evaluation.replicas import Arrays
from hvae.likelihood.estimate import SMALLEST_ESS, TOLERATED_SHARE, Estimate
from hvae.likelihood.target import NotWhitenedError, from_encoder
from hvae.vocabulary import ACTIVE_SHARE

N_PATHS = 32
"""draws per image behind the ELBOs of refined encoders"""
N_ACTIVITY_PATHS = 128
"""draws per image and twin for the activity of q. They are cheap next to chains, so q is seldom the unsure side"""
MOMENT_ESS = 2 * SMALLEST_ESS
"""with fewer effective chains, moments of the exact posterior are doubted: `SMALLEST_ESS` for each of two halves"""
FAMILY_RISK = 0.05
"""chance that any statement on a unit errs; few chains on few images make many units look active by chance"""


def gap_arrays(replica: Replica) -> Arrays:
    """Arrays of one replica, without a replica axis.

    The interval of a gap covers its draws and the bias of its estimates, for these images. A unit is active where its
    whole interval, widened for the number of units, is above `ACTIVE_SHARE`. Discrete latents have no annealed chains
    and no causes of the gap; these are NaN, with the reason in `posterior_refused` and `suboptimality_refused`.
    Raises ValueError where no number is finite.
    """
    started = time.monotonic()
    budget, seed = replica.budget, replica.config.seed
    chains = annealing(budget) if budget.chains > TRUSTED_ESS else None  # fewer chains are never trusted
    sampling = Sampling(n_samples=budget.samples, seed=seed, annealing=chains)
    gap = split_gap(replica.model, replica.x, budget.draws, sampling, _known(replica))
    arrays = _split(replica, gap) | _causes(replica, gap) | _activity(replica)
    return arrays | {"device": np.array(str(replica.x.device)), "seconds": np.array(time.monotonic() - started)}


def _known(replica: Replica) -> Marginal | None:
    """log p(x): exact where a reference has it (in float64 on the CPU), else by annealed chains if latents allow."""
    model = copy.deepcopy(replica.model).cpu().double()
    try:
        return exact_marginal(solve(model.decoder), replica.x.cpu().double())
    except NoReferenceError:
        pass
    try:
        return annealed_marginal(replica.annealed)
    except NotWhitenedError:
        return None


def _split(replica: Replica, gap: Gap) -> Arrays:
    estimate = gap.log_px.estimate
    defined = estimate.pareto_k[~np.isnan(estimate.pareto_k)]
    arrays: Arrays = {
        "log_px_nats": replica.interval(estimate.log_px),
        "log_px_datum_nats": estimate.log_px,
        "log_px_direction": np.array(estimate.direction),
        "high_pareto_k_share": np.array((defined > estimate.largest_pareto_k).mean() if len(defined) else np.nan),
        "warning": np.array("" if estimate.direction == "exact" else gap.log_px.reason or estimate.warning),
        "elbo_nats": replica.interval(gap.elbo.datum_nats),
        "total_gap_nats": np.array(gap.total.interval()),
        "trusted/log_px": np.array(gap.log_px.trusted),
        "reason/log_px": np.array(gap.log_px.reason),
        "proposal/log_px": np.array(gap.log_px.proposal),
    }
    for name, layer in gap.layers.items():
        arrays |= {
            f"layer_gap_nats/{name}": np.array(layer.interval()),
            f"layer_gap_se_nats/{name}": np.array(np.sqrt(np.square(layer.standard_error).sum()) / len(replica.x)),
            f"layer_gap_bias_nats/{name}": np.array(layer.bias.mean()),
            f"trusted/{name}": np.array(layer.trusted),
            f"reason/{name}": np.array(layer.reason),
            f"proposal/{name}": np.array(layer.proposal),
            f"remaining_nats/{name}": np.array(gap.remaining[name].interval()),
            f"ess/{name}": np.array(layer.median_ess),
            f"pareto_k/{name}": np.array(layer.median_pareto_k),
            f"halving_nats/{name}": np.array(layer.halving_nats),
        }
    return arrays


def _causes(replica: Replica, gap: Gap) -> Arrays:
    model, nothing = replica.model, np.full(3, np.nan)
    keys = ("approximation_nats", "amortisation_nats", "remainder_nats", *(f"freed_nats/{n}" for n in model.latents))
    arrays: Arrays = {key: nothing for key in keys} | {"suboptimality_refused": np.array("")}
    try:
        found = suboptimality(model, replica.x, gap.log_px, n_draws=N_PATHS, seed=replica.config.seed)
    except NotWhitenedError as refusal:
        return arrays | {"suboptimality_refused": np.array(str(refusal))}
    terms = {"approximation_nats": found.approximation, "amortisation_nats": found.amortisation}
    terms |= {"remainder_nats": found.remainder} | {f"freed_nats/{name}": term for name, term in found.freed.items()}
    return arrays | {key: np.array(term.interval()) for key, term in terms.items()}


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


def _activity(replica: Replica) -> Arrays:
    """Where the chains are doubted, nothing is sure of p(z|x): its intervals go from 0 to 1, without a count."""
    model = replica.model
    arrays: Arrays = {"posterior_refused": np.array(""), "posterior_warning": np.array("")}
    for name in model.latents:
        nothing = np.full((model.decoder.family(name).units, 3), np.nan)
        arrays |= {f"posterior_active/{name}": np.array(np.nan), f"encoder_active/{name}": np.array(np.nan)}
        arrays |= {f"posterior_share/{name}": nothing, f"encoder_share/{name}": nothing}
    if replica.budget.chains < 2:
        return arrays | {"posterior_refused": np.array("--chains is 1, and the posterior's variance takes two halves.")}
    try:
        annealed = replica.annealed
    except NotWhitenedError as refusal:
        return arrays | {"posterior_refused": np.array(str(refusal))}
    noise = from_encoder(model, replica.x).split(annealed.noise)
    found = activity(
        model, replica.x, noise, annealed.log_weight,
        n_paths=N_ACTIVITY_PATHS, seed=replica.config.seed, risk=FAMILY_RISK,
    )  # fmt: skip
    doubt = _doubt(annealed.estimate)
    arrays["posterior_warning"] = np.array(doubt)
    for name, sure in found.items():
        units = sure.withheld() if doubt else sure
        for owner, share in (("posterior", units.posterior), ("encoder", units.encoder)):
            arrays[f"{owner}_share/{name}"] = share
            arrays[f"{owner}_active/{name}"] = np.array(float((share[:, 0] > ACTIVE_SHARE).sum()))
        if doubt:
            arrays[f"posterior_active/{name}"] = np.array(np.nan)
    return arrays
