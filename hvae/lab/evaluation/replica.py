"""One replica under several measurements, which share its annealed chains."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from hvae.evidence import HVAE
from hvae.lab.config import EvaluationConfig, ObjectiveConfig
from hvae.lab.evaluation.budget import Budget, annealing
from hvae.likelihood.annealing import Annealed, anneal
from hvae.likelihood.target import from_encoder
from hvae.numerics import FloatArray, bootstrap_interval

CHUNK_DATA = 128
"""images annealed together; this limits the memory"""


@dataclass(frozen=True)
class Replica:
    """A model, the test images ``x [B, D]``, and the budget of the measurements."""

    model: HVAE
    x: Tensor
    config: EvaluationConfig
    budget: Budget
    tick: Callable[[], object]
    """called after every temperature"""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """the objective of its last step of training"""
    step: int = 0
    """the last step of training, as that objective counts"""

    @cached_property
    def annealed(self) -> Annealed:
        """Chains from q to the posterior of each image. Raises `NotWhitenedError` for discrete latents."""
        parts = [
            anneal(
                from_encoder(self.model, x), annealing(self.budget), self.config.seed, f"annealing/{part}", self.tick
            )
            for part, x in enumerate(self.x.split(CHUNK_DATA))
        ]
        return Annealed.joined(parts)

    def interval(self, datum_nats: FloatArray) -> FloatArray:
        """(low, middle, high) ``[..., 3]`` of the mean over images, by a bootstrap over them."""
        return bootstrap_interval(datum_nats, self.config.n_bootstrap, self.config.seed)
