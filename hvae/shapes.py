"""The legend of shapes, as annotations.

``R`` replicas (seeds trained together), ``K`` samples, ``B`` data, ``D`` units, ``L`` latent layers.
Values are ``[K, B, D]`` and log-probabilities ``[K, B]``, always, also for K = 1. An axis of length
1 stands for "the same for all": x is ``[1, B, D]``, and a distribution that does not depend on the sample
gives ``[1, B]`` until it meets a value. Only the trainer and what is recorded know ``R``. The first axes of what a
family is given and gives are its caller's: ``[..., D]``.

Axes are written as jaxtyping writes them: ``#`` before one that may have length 1, ``_`` before one that each variable
has for itself. Nothing is checked here; ``tests/shapes.py`` does, where the tests run.
"""

from typing import Annotated

from torch import Tensor

Value = Annotated[Tensor, "#K #B _D"]
"""a draw or an observation: one number per sample, datum and unit"""
Noise = Annotated[Tensor, "#K #B _N"]
"""standard normal or uniform numbers; a draw is a function of them"""
Outputs = Annotated[Tensor, "... _n_outputs"]
"""outputs of a net: a distribution's parameters before the family reads them"""
LogProb = Annotated[Tensor, "#K #B"]
"""nats"""
UnitLogProb = Annotated[Tensor, "#K #B _D"]
"""nats, one term per unit of a factorised distribution"""
PerDatum = Annotated[Tensor, "B"]
Scalar = Annotated[Tensor, ""]
