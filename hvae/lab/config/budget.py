"""How much is spent on a measurement of a trained run; no part of a `RunConfig`."""

from hvae.diagnosis.sizes import LEAST as LEAST
from hvae.diagnosis.sizes import Budget as Budget
