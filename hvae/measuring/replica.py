"""One replica under several further measurements, which share its annealed chains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from hvae.diagnosis.record import Setting
from hvae.diagnosis.sizes import Budget
from hvae.evidence import HVAE
from hvae.likelihood.annealing import Annealed, Annealing, anneal
from hvae.likelihood.target import from_encoder
from hvae.numerics import FloatArray, mean_interval
from hvae.objectives import Objective

CHUNK_DATA = 128
"""images annealed together; this limits the memory"""

AsTrained = Callable[[HVAE], tuple[HVAE, Objective]]
"""a model -> a copy of it as training saw it, and the objective that it followed"""


def silent() -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Replica:
    """A model, the images ``x [B, D]``, and the budget of the measurements.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> chains = Replica(stack.model, stack.x, Budget(temperatures=3, chains=5, leapfrog=1)).annealed
    >>> chains.log_weight.shape
    torch.Size([5, 6])
    """

    model: HVAE
    x: Tensor
    budget: Budget
    seed: int = 0
    tick: Callable[[], object] = silent
    """called after every temperature"""
    as_trained: AsTrained | None = None
    """what the signal of the gradients needs"""
    step: int = 0
    """the last step of training, as its objective counts"""

    @cached_property
    def annealed(self) -> Annealed:
        """Chains from q to the posterior of each image. Raises `NotWhitenedError` for discrete latents."""
        parts = [
            anneal(from_encoder(self.model, x), annealing(self.budget), self.seed, f"annealing/{part}", self.tick)
            for part, x in enumerate(self.x.split(CHUNK_DATA))
        ]
        return Annealed.joined(parts)

    def interval(self, datum_nats: FloatArray) -> FloatArray:
        """(low, middle, high) ``[..., 3]`` of the mean over images."""
        return mean_interval(datum_nats)


def annealing(budget: Budget) -> Annealing:
    """The part of a budget that annealing takes."""
    return Annealing(budget.temperatures, budget.chains, budget.leapfrog)


def settings(budget: Budget, word: str, n_test: int) -> dict[str, Setting]:
    """What the numbers of a measurement depend on, under the names of its arrays; at most ``n_test`` images."""
    values: dict[str, Setting] = {
        "n_images": min(budget.images, n_test),
        "n_temperatures": budget.temperatures,
        "n_chains": budget.chains,
        "n_leapfrog": budget.leapfrog,
        "n_draws": budget.draws,
        "n_largest": budget.samples,
        "n_samples": budget.gradients,
    }
    return {name: values[name] for name in _NAMES[word]}


_ANNEALING = ("n_temperatures", "n_chains", "n_leapfrog")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "exact": ("n_images",),
    "annealed": ("n_images", "n_largest", *_ANNEALING),
    "gradients": ("n_images", "n_samples"),
    "gap": ("n_images", "n_largest", "n_draws", *_ANNEALING),
}
