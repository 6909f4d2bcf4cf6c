"""log p(x) of a finished model, with its doubt: importance sampling, annealing, bounds from both sides;
and the floor that independent columns set.

Exact answers, where there are any, are in `hvae.exact`.
"""

from hvae.likelihood.annealing import Annealed, Annealing, anneal
from hvae.likelihood.cheapest import cheapest_bound
from hvae.likelihood.estimate import Estimate
from hvae.likelihood.floor import Columns, floor_datum_nats
from hvae.likelihood.importance import Curve, importance_sample, log_likelihood_curve
from hvae.likelihood.sandwich import Sandwich, sandwich
from hvae.likelihood.spending import Bound, Spending
from hvae.likelihood.target import NotWhitenedError, Target, from_encoder, from_prior

__all__ = [
    "Annealed",
    "Annealing",
    "Bound",
    "Columns",
    "Curve",
    "Estimate",
    "NotWhitenedError",
    "Sandwich",
    "Spending",
    "Target",
    "anneal",
    "cheapest_bound",
    "floor_datum_nats",
    "from_encoder",
    "from_prior",
    "importance_sample",
    "log_likelihood_curve",
    "sandwich",
]
