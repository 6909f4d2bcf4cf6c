"""Objectives: evidence and step in, loss to minimise out.

A loss is lower when better. A bound (`bounds`) reads evidence of data, a game (`games`) also of dreams. Nats per datum.
"""

from hvae.objectives.bounds import Bound, Elbo, Iwae, Tvo, discrete_log_q, tempered
from hvae.objectives.games import Game, ReweightedWakeSleep, SymmetricEquilibrium, WakeSleep
from hvae.objectives.objective import Objective, model_traits, total
from hvae.objectives.other_gradients import Covariance, DoublyReparametrised, StickingTheLanding
from hvae.suitability import UnsuitedError

__all__ = [
    "Bound",
    "Covariance",
    "DoublyReparametrised",
    "Elbo",
    "Game",
    "Iwae",
    "Objective",
    "ReweightedWakeSleep",
    "StickingTheLanding",
    "SymmetricEquilibrium",
    "Tvo",
    "UnsuitedError",
    "WakeSleep",
    "discrete_log_q",
    "model_traits",
    "tempered",
    "total",
]
