"""log p(x) - ELBO, by layer and by cause, and whose collapse it is: the encoder's or the model's."""

import copy
import time

import numpy as np

from hvae.diagnostics.collapse import activity
from hvae.diagnostics.gap import Gap, annealed_marginal, exact_marginal, split_gap
from hvae.diagnostics.marginals import TRUSTED_ESS, Budget, Marginal
from hvae.diagnostics.suboptimality import suboptimality
from hvae.evaluation.replicas import Arrays
from hvae.evaluation.subject import Subject
from hvae.likelihood.target import NotWhitenedError, from_encoder
from hvae.reference import NoReferenceError, solve
from hvae.vocabulary import ACTIVE_VARIANCE, PARETO_K_LIMIT

N_PATHS = 32
"""draws per image behind the ELBOs of refined encoders, and behind the means of q"""
FAMILY_RISK = 0.05
"""chance that any unit's interval misses: few chains on few images make many units look active by chance"""


def gap_arrays(subject: Subject) -> Arrays:
    """Arrays of one replica, no replica axis.

    The interval of a gap is that of its draws and of its estimates' bias, for these images. A unit counts as active
    where its whole interval, widened for the number of units, is above `ACTIVE_VARIANCE`. What discrete latents do
    not have, causes and annealed chains, is NaN, with the reason in `suboptimality_refused` and `posterior_refused`.
    Raises ValueError where no number is finite.
    """
    started = time.monotonic()
    effort, seed = subject.effort, subject.config.seed
    annealing = effort.annealing if effort.chains > TRUSTED_ESS else None  # fewer chains are never trusted
    budget = Budget(n_samples=effort.samples, seed=seed, annealing=annealing)
    gap = split_gap(subject.model, subject.x, effort.draws, budget, _known(subject))
    arrays = _split(subject, gap) | _causes(subject, gap) | _activity(subject)
    return arrays | {"device": np.array(str(subject.x.device)), "seconds": np.array(time.monotonic() - started)}


def _known(subject: Subject) -> Marginal | None:
    """log p(x) exactly where a reference has it (in float64 on the CPU), else by annealed chains, if latents allow."""

    model = copy.deepcopy(subject.model).cpu().double()
    try:
        return exact_marginal(solve(model.decoder), subject.x.cpu().double())
    except NoReferenceError:
        pass
    try:
        return annealed_marginal(subject.annealed)
    except NotWhitenedError:
        return None


def _split(subject: Subject, gap: Gap) -> Arrays:
    estimate = gap.log_px.estimate
    arrays: Arrays = {
        "log_px_nats": subject.interval(estimate.log_px),
        "log_px_datum_nats": estimate.log_px,
        "log_px_direction": np.array(estimate.direction),
        "high_pareto_k_share": np.array((estimate.pareto_k > PARETO_K_LIMIT).mean()),
        "warning": np.array("" if estimate.direction == "exact" else gap.log_px.reason or estimate.warning),
        "elbo_nats": subject.interval(gap.elbo.datum_nats),
        "total_gap_nats": np.array(gap.total.interval()),
    }
    for name, layer in gap.layers.items():
        arrays |= {
            f"layer_gap_nats/{name}": np.array(layer.interval()),
            f"layer_gap_se_nats/{name}": np.array(np.sqrt(np.square(layer.standard_error).sum()) / len(subject.x)),
            f"layer_gap_bias_nats/{name}": np.array(layer.bias.mean()),
            f"trusted/{name}": np.array(layer.trusted),
            f"reason/{name}": np.array(layer.reason),
            f"proposal/{name}": np.array(layer.proposal),
        }
    return arrays


def _causes(subject: Subject, gap: Gap) -> Arrays:
    model, nothing = subject.model, np.full(3, np.nan)
    keys = ("approximation_nats", "amortisation_nats", "remainder_nats", *(f"freed_nats/{n}" for n in model.latents))
    arrays: Arrays = {key: nothing for key in keys} | {"suboptimality_refused": np.array("")}
    try:
        found = suboptimality(model, subject.x, gap.log_px.estimate, n_draws=N_PATHS, seed=subject.config.seed)
    except NotWhitenedError as refusal:
        return arrays | {"suboptimality_refused": np.array(str(refusal))}
    terms = {"approximation_nats": found.approximation, "amortisation_nats": found.amortisation}
    terms |= {"remainder_nats": found.remainder} | {f"freed_nats/{name}": term for name, term in found.freed.items()}
    return arrays | {key: np.array(term.interval()) for key, term in terms.items()}


def _activity(subject: Subject) -> Arrays:
    model, config = subject.model, subject.config
    arrays: Arrays = {"posterior_refused": np.array(""), "posterior_warning": np.array("")}
    for name in model.latents:
        nothing = np.full((model.decoder[name].family.units, 3), np.nan)
        arrays |= {f"posterior_active/{name}": np.array(np.nan), f"encoder_active/{name}": np.array(np.nan)}
        arrays |= {f"posterior_covariance/{name}": nothing, f"encoder_covariance/{name}": nothing}
    if subject.effort.chains < 2:
        return arrays | {"posterior_refused": np.array("--chains is 1, and the posterior's variance takes two halves.")}
    try:
        annealed = subject.annealed
    except NotWhitenedError as refusal:
        return arrays | {"posterior_refused": np.array(str(refusal))}
    noise = from_encoder(model, subject.x).split(annealed.noise)
    n_units = sum(model.decoder[name].family.units for name in model.latents)
    found = activity(
        model, subject.x, noise, annealed.log_weight,
        n_paths=N_PATHS, seed=config.seed, n_bootstrap=config.n_bootstrap, level=1 - FAMILY_RISK / n_units,
    )  # fmt: skip
    arrays["posterior_warning"] = np.array(annealed.estimate.warning)
    for name, units in found.items():
        for owner, covariance in (("posterior", units.posterior), ("encoder", units.encoder)):
            arrays[f"{owner}_covariance/{name}"] = covariance
            arrays[f"{owner}_active/{name}"] = np.array(float((covariance[:, 0] > ACTIVE_VARIANCE).sum()))
    return arrays
