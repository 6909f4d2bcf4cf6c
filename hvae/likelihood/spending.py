"""What `hvae.likelihood.cheapest` may spend on each datum, how many draws that takes, and the bound that was found."""

import math
from dataclasses import dataclass

import numpy as np

from hvae.likelihood.estimate import SMALLEST_ESS, Estimate
from hvae.numerics import BoolArray, FloatArray, IntArray
from hvae.vocabulary import FEWEST_SAMPLES

IMPORTANCE, REFINED, ANNEALED = "importance", "refined", "annealed"
BUDGET = 14
"""evaluations a datum may cost, in units of K"""
MARGIN = 3.0
"""as many more draws as a pilot asks for: what it has not drawn may spread more"""


@dataclass(frozen=True)
class Spending:
    """K draws for the curve, the standard error that is wanted, and the budget.

    Raises ValueError for what cannot be wanted.

    >>> Spending(n_samples=1000, until_se=0.1).n_evaluations
    14000
    """

    n_samples: int = 1000
    until_se: float = 0.1
    """nats a datum"""

    def __post_init__(self) -> None:
        if self.n_samples < 2:
            raise ValueError(f"n_samples is {self.n_samples}; give at least 2.")
        if not 0 < self.until_se < math.inf:
            raise ValueError(f"until_se is {self.until_se}; give a standard error above 0 nats, such as 0.1.")

    @property
    def n_evaluations(self) -> int:
        """The budget of a datum, the curve's draws included."""
        return BUDGET * self.n_samples

    @property
    def n_pilot(self) -> int:
        """Draws of the curve that choose; 0 where there are too few to judge."""
        n = self.n_samples // 2
        return n if n >= FEWEST_SAMPLES else 0

    def needed(self, pilot: Estimate, heaviest: float) -> FloatArray:
        """Draws ``[B]`` that reach `until_se`, as the pilot's weights spread, and that carry its k-hat.

        Infinite where those say nothing: their k-hat is above ``heaviest``, or hardly one of them counts. A k-hat takes
        ``10^(1/(1 - k))`` draws (Vehtari et al. 2024, section 3.2.4).
        """
        relative_variance = np.asarray(pilot.n_samples, dtype=np.float64) / pilot.ess - 1
        unknown = (pilot.pareto_k > heaviest) | ~(pilot.ess >= SMALLEST_ESS)
        carried = 10 ** (1 / (1 - pilot.pareto_k.clip(0, heaviest)))
        wanted = np.fmax(MARGIN * relative_variance / self.until_se**2, carried)
        return np.where(unknown, math.inf, wanted)


@dataclass(frozen=True)
class Bound:
    """The bound of each of B data: how it was made, and what that cost.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> from hvae.likelihood import cheapest_bound
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> _, found = cheapest_bound(stack.model, stack.x, (1, 1000), Spending(1000), seed=0)
    >>> found.estimate.direction, len(found.method), bool(found.reached.all())
    ('lower', 6, True)
    """

    estimate: Estimate
    method: tuple[str, ...]
    evaluations: FloatArray
    """of log w a datum, with pilots and fits"""
    until_se: float

    @property
    def reached(self) -> BoolArray:
        """Where the standard error is as wanted, and the weights are sound or miss less than that.

        The k-hat of few chains is too noisy to judge them alone: it doubts weights that are nearly equal.
        """
        found = self.estimate
        sound = ~found.doubtful | (found.missing_nats <= self.until_se)
        return np.asarray((found.standard_error <= self.until_se) & sound & np.isfinite(found.log_px))

    @property
    def note(self) -> str:
        """How many data the budget did not suffice for, and what k-hat does not say; empty where there is nothing."""
        missed, errors = ~self.reached, self.estimate.standard_error
        sentences = [self.estimate.note]
        if missed.any():
            worst = np.nanmax(errors[missed], initial=0.0)
            sentences.append(
                f"{missed.sum()} of {len(missed)} data did not reach a standard error of {self.until_se:g} nats within "
                f"the budget (the largest is {worst:.2g}); more samples K raise it."
            )
        return " ".join(filter(None, sentences))


class Found:
    """What is known so far: an estimate of every datum, replaced where a better method was chosen.

    >>> counted = Estimate(np.full(3, -5.0), "lower", np.ones(3), np.full(3, 9.0), pareto_k=np.zeros(3), n_samples=100)
    >>> refined = Estimate(np.array([-4.0]), "lower", np.ones(1), np.full(1, 9.0), pareto_k=np.zeros(1), n_samples=100)
    >>> found = Found(counted, Spending(100))
    >>> found.put(np.array([1]), refined, REFINED)
    >>> found.bound.estimate.log_px.tolist(), found.bound.method
    ([-5.0, -4.0, -5.0], ('importance', 'refined', 'importance'))
    """

    def __init__(self, counted: Estimate, spending: Spending) -> None:
        self.spending = spending
        n = len(counted.log_px)
        self._parts: list[Estimate] = [counted]
        self._place = np.arange(n)
        self._size = n
        self._method = np.full(n, IMPORTANCE, dtype="U10")
        self.evaluations = np.full(n, float(spending.n_samples))

    def put(self, places: IntArray, estimates: Estimate, method: str) -> None:
        self._parts.append(estimates)
        self._place[places] = self._size + np.arange(len(places))
        self._size += len(places)
        self._method[places] = method

    def left(self, places: IntArray) -> FloatArray:
        """Evaluations that the budget still has."""
        left: FloatArray = self.spending.n_evaluations - self.evaluations[places]
        return left

    @property
    def bound(self) -> Bound:
        estimates = Estimate.joined(self._parts).taken(self._place)
        return Bound(estimates, tuple(self._method.tolist()), self.evaluations, self.spending.until_se)
