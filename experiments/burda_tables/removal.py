"""What units are worth: the bound L_K of a stack without them, beside that of the whole.

Burda et al. 2016 (section 5 and appendix C) remove what is inactive: a unit whose variance of the mean over images is
at most `ACTIVE_VARIANCE`. A unit that is removed stands at its prior mean in p and q, and neither weighs it: in one
layer, whose prior mean is 0, that is what the paper's code does, which drops the unit's column (and so sets a unit of
a lower layer to 0 too).
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hvae.data import Dataset
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.usage import prior_mean
from hvae.evidence import HVAE
from hvae.experiments.burda_tables.removed import Removed
from hvae.lab.evaluation.replicas import Arrays, Replicas
from hvae.lab.runs.run import Run
from hvae.likelihood.importance import log_likelihood_curve
from hvae.network import BeliefNetwork
from hvae.numerics import bootstrap_interval
from hvae.posterior import NetworkPosterior
from hvae.vocabulary import ACTIVE_VARIANCE


@torch.no_grad()
def without_units(model: HVAE, removed: Mapping[str, NDArray[np.bool_]], seed: int) -> HVAE:
    """A copy of the stack less the units ``removed`` of each latent, each at its mean under the decoder.

    Raises ValueError for a ladder, whose merged distributions the removal would change, and for a decoder that is no
    belief network.
    """
    stack = copy.deepcopy(model)
    posterior = stack.posterior
    if not isinstance(posterior, NetworkPosterior):
        raise ValueError(
            "units of a ladder cannot be removed alone, since p and q share distributions; use another order."
        )
    if not isinstance(stack.decoder, BeliefNetwork):
        raise ValueError(
            f"units of a {type(stack.decoder).__name__} cannot be removed, since its conditionals are not apart; give "
            "a belief network."
        )
    sampler = Sampler(model, torch.zeros(1, 1).to(next(model.parameters())), seed)
    for name in model.latents:
        gone, constant = torch.as_tensor(removed[name]), prior_mean(sampler, name)
        for network in (stack.decoder, posterior.network):
            network[name].family = Removed(network[name].family, gone, constant)
    return stack


def removal_arrays(
    run: Run, data: Dataset, n_images: int, statistic: str = "burda_variance", threshold: float = ACTIVE_VARIANCE
) -> Arrays:
    """``n_removed/<latent> [R]``, and ``lost_nats [R, 3]``: L_K of the whole stack less that without the units.

    Removed are those of which a ``statistic`` of the run's diagnostics, `<statistic>/<latent> [R, D, 3]`, is not above
    the threshold. On the first ``n_images`` of the run's likelihood, with its K and its draws; the interval is by a
    bootstrap over images. A replica that failed has NaN.
    """
    replicas, config = Replicas.of(run, data, "cpu"), run.config.evaluation
    whole, found = run.load_arrays("likelihood")["bound_datum_nats"][:, :n_images], run.load_arrays("diagnostics")
    x = replicas.test[: whole.shape[1]]
    latents = replicas.models[0].latents
    removed = {name: ~(found[f"{statistic}/{name}"][..., 1] > threshold) for name in latents}
    lost = []
    for replica, (model, good) in enumerate(zip(replicas.models, replicas.alive, strict=True)):
        units = {name: masks[replica] for name, masks in removed.items()}
        if not good:
            lost.append(np.full(3, np.nan))
        elif not any(mask.any() for mask in units.values()):
            lost.append(np.zeros(3))
        else:
            stack = without_units(model, units, config.seed)
            bound = log_likelihood_curve(stack, x, (config.n_samples,), seed=config.seed).estimate.log_px
            lost.append(bootstrap_interval(whole[replica] - bound, config.n_bootstrap, config.seed))
    counts = {f"n_removed/{name}": np.where(replicas.alive, masks.sum(1), np.nan) for name, masks in removed.items()}
    return counts | {"lost_nats": np.stack(lost)}
