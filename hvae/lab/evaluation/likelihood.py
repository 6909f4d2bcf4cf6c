"""The curve of bounds L_1 … L_K on log p(x), with the encoder as proposal."""

import numpy as np
import torch
from torch import Tensor

from hvae.evidence import HVAE
from hvae.lab.config import EvaluationConfig
from hvae.lab.evaluation.replicas import Arrays
from hvae.likelihood.importance import Curve, log_likelihood_curve
from hvae.numerics import bootstrap_interval


@torch.no_grad()
def likelihood_arrays(model: HVAE, x: Tensor, config: EvaluationConfig) -> Arrays:
    """The bounds L_1 … L_K of one model, on ``n_likelihood`` images and, deeper, on the first ``n_likelihood_deep``."""

    def curve(n_images: int, n_samples: int) -> Arrays:
        return _curve_arrays(
            log_likelihood_curve(model, x[:n_images], powers_of_ten(n_samples), seed=config.seed), config
        )

    found = curve(config.n_likelihood, config.n_samples)
    found["elbo_nats"] = found["bound_nats"][0]
    if config.n_likelihood_deep:
        deep = curve(config.n_likelihood_deep, config.n_samples_deep)
        found |= {f"{key}_deep": value for key, value in deep.items()}
    return found


def powers_of_ten(n_samples: int) -> tuple[int, ...]:
    """1, 10, 100, … and ``n_samples`` itself."""
    powers = [10**exponent for exponent in range(len(str(n_samples))) if 10**exponent < n_samples]
    return (*powers, n_samples)


def _curve_arrays(curve: Curve, config: EvaluationConfig) -> Arrays:
    estimate = curve.estimate
    return {
        "n_samples": np.array(curve.n_samples),
        "bound_nats": bootstrap_interval(curve.bound_datum_nats, config.n_bootstrap, config.seed),
        "bound_datum_nats": estimate.log_px,
        "se_nats": estimate.standard_error,
        "ess": estimate.ess,
        "pareto_k": estimate.pareto_k,
        "warning": np.array(estimate.warning),
        "note": np.array(estimate.note),
    }
