"""What is trained from a step on."""

from collections.abc import Callable
from dataclasses import dataclass

from hvae.errors import ConfigError
from hvae.families import Relaxation
from hvae.objectives import Objective


@dataclass(frozen=True)
class Stage:
    """An objective from a step on. Its schedules count from that step; weights and Adam's moments go on.

    Raises `ConfigError` for what is no objective, for no samples and for a learning rate that is not positive.

    >>> from hvae import Elbo, Iwae
    >>> Stage(0, Elbo(), 1e-3).rate(step=7)
    0.001
    >>> Stage(500, Iwae(), lambda step: 1e-3 / (1 + step), n_samples=5).rate(step=501)
    0.0005
    """

    from_step: int
    objective: Objective
    learning_rate: float | Callable[[int], float]
    """of Adam: a number, or a schedule (`hvae.schedules`) of the steps since ``from_step``"""
    n_samples: int = 1
    """K, draws of q per datum"""
    relaxation: Relaxation | None = None
    """how gradients pass through discrete draws; None draws hard values and follows the objective's own gradient"""

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise ConfigError(f"objective is {self.objective!r}, which is none; give one, as in hvae.Elbo().")
        if not isinstance(self.n_samples, int) or self.n_samples < 1:
            raise ConfigError(f"n_samples is {self.n_samples}; give a whole number of 1 or more.")
        rate = self.learning_rate
        if not callable(rate) and not (isinstance(rate, int | float) and 0 < rate < float("inf")):
            raise ConfigError(f"learning_rate is {rate}; give a positive number, or a schedule from hvae.schedules.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, which is counted from the start of the training."""
        rate = self.learning_rate
        return float(rate(step - self.from_step)) if callable(rate) else float(rate)
