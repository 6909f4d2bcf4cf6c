"""log p(x) of a finished model, with its doubt: importance sampling now, exact answers in `hvae.reference`."""

from hvae.likelihood.estimate import Estimate
from hvae.likelihood.importance import Curve, importance_sample, log_likelihood_curve

__all__ = ["Curve", "Estimate", "importance_sample", "log_likelihood_curve"]
