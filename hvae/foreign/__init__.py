"""Anybody's model, as it was trained: handed over as functions that visit its variables.

`Model` has two functions, ``infer(visit)`` for q and ``generate(visit)`` for p, or one for both (`Model.joint`). They
call ``visit(name, distribution)`` with any distribution of torch, or with `law`, `pushed`, `masked`. `Stack` makes of
them a decoder and a posterior of the house, so whatever is measured of the house's stacks is measured of them, by the
same code.
"""

from hvae.foreign.laws import law, masked, pushed
from hvae.foreign.model import Model
from hvae.foreign.stack import Stack
from hvae.foreign.visit import Visit

__all__ = ["Model", "Stack", "Visit", "law", "masked", "pushed"]
