"""The worth of units: the bound L_K of a stack without them, against that of the whole.

Burda et al. 2016 (section 5 and appendix C) remove inactive units: their mean has a variance over images of at most
`ACTIVE_VARIANCE`. A removed unit has its prior mean in p and q, and no weight in either. With one layer the prior mean
is 0, and the paper's code does the same: it drops the unit's column (and so sets a unit of a lower layer to 0 too).
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hvae.data import Dataset
from hvae.diagnostics.draws import Sampler
from hvae.evidence import HVAE
from hvae.experiments.burda_tables.removed import Removed
from hvae.lab.evaluation.replicas import Arrays, Replicas
from hvae.lab.runs.run import Run
from hvae.likelihood.importance import log_likelihood_curve
from hvae.network import BeliefNetwork
from hvae.numerics import FloatArray, mean_interval
from hvae.posterior import NetworkPosterior
from hvae.vocabulary import ACTIVE_VARIANCE


@torch.no_grad()
def without_units(model: HVAE, removed: Mapping[str, NDArray[np.bool_]], seed: int) -> HVAE:
    """A copy of the stack less the units ``removed`` of each latent, each at its mean under the decoder.

    Raises ValueError for a ladder, as removal would change its merged distributions, and for a decoder other than a
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
        constant = sampler.prior_means[name]
        gone = torch.as_tensor(removed[name], device=constant.device)
        for network in (stack.decoder, posterior.network):
            network[name].family = Removed(network[name].family, gone, constant)
    return stack


def removal_arrays(
    run: Run, data: Dataset, n_images: int, statistic: str = "burda_variance", threshold: float = ACTIVE_VARIANCE,
    *, device: str = "cpu",
) -> Arrays:  # fmt: skip
    """``n_removed/<latent> [R]``, and ``lost_nats [R, 3]``: L_K of the whole stack less that without the units.

    A unit is removed if the ``statistic`` of the run's diagnostics, `<statistic>/<latent> [R, D, 3]`, is not above the
    threshold. On the first ``n_images`` of the run's likelihood, with its K. Both bounds are made here, as a device has
    draws of its own: they differ by the units and not by the draws. The interval is `mean_interval` over images. A
    failed replica has NaN.
    """
    replicas, config = Replicas.of(run, data, device), run.config.evaluation
    found = run.load_arrays("diagnostics")
    x = replicas.test[: min(n_images, config.n_likelihood)]

    def bound(model: HVAE) -> FloatArray:
        return log_likelihood_curve(model, x, (config.n_samples,), seed=config.seed).estimate.log_px

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
            lost.append(mean_interval(bound(model) - bound(without_units(model, units, config.seed))))
    counts = {f"n_removed/{name}": np.where(replicas.alive, masks.sum(1), np.nan) for name, masks in removed.items()}
    return counts | {"lost_nats": np.stack(lost)}
