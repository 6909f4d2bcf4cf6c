"""Every diagnostic of every layer: rates, information, use by the decoder, knock-out, units, verdict."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from hvae.diagnostics import rates, units, usage
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.verdict import verdict
from hvae.evidence import HVAE
from hvae.lab.config import EvaluationConfig
from hvae.lab.evaluation.replicas import Arrays
from hvae.numerics import FloatArray, bootstrap_interval

N_PATHS = 32
"""draws per image of rates, units, use and knock-out"""
EPSILON_FACTORS = (0.3, 1.0, 3.0)
"""the verdict is also given at these multiples of epsilon"""


@torch.no_grad()
def layer_diagnostics(model: HVAE, x: Tensor, config: EvaluationConfig, extra: Tensor | None = None) -> Arrays:
    """Arrays of one model on the images ``x [n, D]``, without a replica axis: ``<quantity>/<layer>``."""
    sampler = Sampler(model, x, config.seed)
    evidence = sampler.evidence(N_PATHS, "diagnostics")
    interval = partial(bootstrap_interval, n_bootstrap=config.n_bootstrap, seed=config.seed)
    carried = information(
        sampler, epsilon=config.epsilon_nats, max_paths=config.max_paths, n_bootstrap=config.n_bootstrap, extra=extra
    )
    read = usage.reading(sampler, evidence)
    found: Arrays = {}
    for name in model.latents:
        site = evidence.q[name]
        layer: dict[str, FloatArray] = {key: interval(terms) for key, terms in rates.rates(evidence, name).items()}
        layer["parent_information_nats"] = carried[name].from_parent
        layer["information_nats"] = carried[name].about_datum
        layer["reading_nats"] = interval(read[name])
        layer["knockout_encoder_nats"] = interval(usage.encoder_knockout(sampler, evidence, name))
        layer["knockout_model_nats"] = interval(usage.model_knockout(sampler, evidence, name, "diagnostics"))
        if site.family.factorised:
            covariance = partial(
                units.covariance_interval,
                n_units=site.family.units, n_bootstrap=config.n_bootstrap, seed=config.seed,
            )  # fmt: skip
            one, other = units.mean_variance(site, len(x))
            layer["burda_variance"] = covariance(one, one)
            if model.bottom_up:
                layer["twin_covariance"] = covariance(one, other)
            elif evidence.p[name].family.exponential:  # the others know no variance
                residual = units.residual(evidence, name)
                layer["residual_variance"] = covariance(residual, residual)
            layer["collapsed_fraction"] = units.collapsed_fraction(evidence, name)
        found |= {f"{key}/{name}": value for key, value in layer.items()}
        found[f"collapse_reference/{name}"] = np.array(units.collapse_reference(evidence, name))
        found[f"n_paths/{name}"] = np.array(carried[name].n_paths)
        found[f"information_on_n_nats/{name}"] = np.array(carried[name].on_images)
        judge = partial(
            verdict,
            layer["parent_information_nats"], layer["information_nats"],
            layer["reading_nats"], layer["kl_standard_nats"],
        )  # fmt: skip
        found[f"verdict/{name}"] = np.array([judge(epsilon) for epsilon in epsilons(config).tolist()])
    return found


def epsilons(config: EvaluationConfig) -> FloatArray:
    """The thresholds of the verdict in nats: a lower one, the configured one, a higher one."""
    return np.round(np.array(EPSILON_FACTORS) * config.epsilon_nats, 12)
