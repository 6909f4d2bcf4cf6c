"""The β threshold of a needed top layer: the β at which it empties, under exact inference and under encoders. Nats.

Every unit of z1 writes its own group of x, in the teacher and in every decoder trained on it:

    p(x | z1) = prod_g p(x_g | z1_g),    p(z1 | z2) = prod_g p(z1_g | z2),    g = 1 … G.

Without z2 the groups are independent. The product of the teacher's p(x_g) is still reached, with its p(z1_g) as prior.
The bound weighs the rate of z2 by β and all else by 1, and a layer that codes nothing has no rate. So the bound without
z2 is -sum_g H(x_g) at every β, under every inference that reaches each p(z1_g | x_g). At β = 1 exact inference adds

    worth = KL(p(x) ‖ prod_g p(x_g)).

Let the bound of a stack of rate R lie A - β R above that. From the threshold β* = sup A / R on z2 pays nothing. Every
stack proves A / R <= β*, however it was trained. With λ the largest eigenvalue of the correlations of z1 without z2 (of
z1_g ~ p(z1_g | x_g) on the teacher's x),

    1 <= λ <= β* under an encoder <= β* of exact inference <= G.

Proofs, and where each statement ends: `docs/theorem.md`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvae.experiments.truth.accuracy import columns
from hvae.lab.evaluation.replicas import Arrays, Say

WORTH = 0.1
"""nats; a teacher with a z2 worth less is passed over before anything is trained"""
MOST_LOOKED_AT = 50
"""teachers tried for each one wanted"""
LEAST_RATE = 1e-5
"""nats; a smaller rate proves no threshold, as its gain is lost in rounding"""
FIRST_BETAS = tuple(2 ** (step / 4) for step in range(6))
"""where the search for the threshold of exact inference begins"""


@dataclass(frozen=True)
class Needing:
    """A teacher that needs its z2."""

    described: Mapping[str, Any]
    worth: float
    local: float
    """λ"""
    without: float
    """the bound without z2"""
    truth: Any
    """known to the training"""


def needing(make: Callable[[int], Needing], n_teachers: int) -> list[Needing]:
    """The first ``n_teachers``, by number, with a z2 worth at least `WORTH`; ``looked_at`` says how many were tried."""
    found: list[Needing] = []
    number = 0
    while len(found) < n_teachers:
        if number == MOST_LOOKED_AT * n_teachers:
            raise ValueError(
                f"of {number} teachers {len(found)} have a z2 that is worth {WORTH:g} nats; "
                "make the couplings stronger."
            )
        teacher = make(number)
        number += 1
        found += [teacher] if teacher.worth >= WORTH else []
    looked_at = {"looked_at": number}
    return [Needing({**one.described, **looked_at}, one.worth, one.local, one.without, one.truth) for one in found]


@dataclass(frozen=True)
class Solution:
    """A stack trained at some β."""

    gain: float
    """A"""
    rate: float
    """R"""
    late_gain: float
    state: Any
    """where further training starts"""
    told: Mapping[str, float]
    """other measurements"""

    def value(self, beta: float) -> float:
        """A - β R."""
        return self.gain - beta * self.rate

    @property
    def proved(self) -> float:
        """A / R: the threshold is at least this."""
        return self.gain / self.rate if self.rate > LEAST_RATE else -math.inf


@dataclass(frozen=True)
class Job:
    """Train on teacher number ``teacher`` at ``beta``, from a fresh start or from a solution's state."""

    teacher: int
    beta: float
    start: int
    state: Any = None


Train = Callable[[Sequence[Job]], list[Solution]]
"""all jobs of a call are fresh, or none is"""


class Search:
    """The best stacks of one inference, for several teachers at once.

    Each β has several starts. One more start is the stack that is best at this β among all stacks of the teacher.
    Without it, a start that misses the optimum looks like a layer that does not pay.
    """

    def __init__(self, train: Train, n_teachers: int, n_starts: int) -> None:
        self._train, self._n_starts = train, n_starts
        self._known: list[list[Solution]] = [[] for _ in range(n_teachers)]

    def at(self, betas: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
        """Train at each teacher's own ``betas``; (teacher, β) of each."""
        places = [(teacher, beta) for teacher, own in enumerate(betas) for beta in own]
        self._learn([Job(*place, start) for place in places for start in range(self._n_starts)])
        self._learn([Job(*place, -1, self.best(*place).state) for place in places])
        return places

    def closer(self) -> list[tuple[int, float]]:
        """Train each teacher's best proof at the β that it proves (Dinkelbach 1967); (teacher, β) of each."""
        best = [max(own, key=lambda solution: solution.proved) for own in self._known]
        jobs = [Job(teacher, max(proof.proved, 1e-3), -1, proof.state) for teacher, proof in enumerate(best)]
        self._learn(jobs)
        return [(job.teacher, job.beta) for job in jobs]

    def best(self, teacher: int, beta: float) -> Solution:
        return max(self._known[teacher], key=lambda solution: solution.value(beta))

    @property
    def proved(self) -> list[float]:
        """The largest threshold that a trained stack of each teacher proves; nan where none gains anything."""
        best = [max(solution.proved for solution in own) for own in self._known]
        return [proof if proof > 0 else math.nan for proof in best]

    def _learn(self, jobs: Sequence[Job]) -> None:
        for job, solution in zip(jobs, self._train(jobs), strict=True):
            self._known[job.teacher].append(solution)


def threshold_rows(
    teachers: Sequence[Needing], trains: Mapping[str, Train], powers: Sequence[float], n_starts: int, n_closer: int,
    say: Say, codes: Mapping[str, Sequence[float]] | None = None,
) -> Arrays:  # fmt: skip
    """One row per teacher, inference and β; the first of ``trains`` is exact inference.

    ``codes`` has, for an inference, the threshold that untrained codes of each teacher prove (`codes`).

    Each β is one of the ``powers`` of the teacher's threshold under exact inference: 0 is the bound itself and 1 the
    threshold. ``n_closer`` more close in on the threshold of the inference.

    ``threshold_beta`` is the largest value that is surely no larger than the threshold: see `at_least`.
    """
    rows: list[dict[str, Any]] = []
    untrained = {name: (codes or {}).get(name, [-math.inf] * len(teachers)) for name in trains}
    proved: dict[str, list[float]] = {}
    exact: list[float] = []
    for inference, train in trains.items():
        say(f"β threshold of z2: {inference}")
        search = Search(train, len(teachers), n_starts)
        if not exact:
            search.at([FIRST_BETAS] * len(teachers))
            for _ in range(n_closer):
                search.closer()
            proofs = zip(teachers, search.proved, untrained[inference], strict=True)
            exact = [at_least(one.local, both) for one, *both in proofs]
        places = search.at([[threshold**power for power in powers] for threshold in exact])
        for _ in range(n_closer):
            places += search.closer()
        proved[inference] = search.proved
        for place, (index, beta) in enumerate(places):
            teacher, solution = teachers[index], search.best(index, beta)
            on_grid = place < len(teachers) * len(powers)
            rows.append(
                {
                    **teacher.described,
                    "worth_nats": teacher.worth,
                    "local_beta": teacher.local,
                    "exact_beta": exact[index],
                    "inference": inference,
                    "proved_beta": search.proved[index],
                    "code_beta": untrained[inference][index],
                    "beta": beta,
                    "power": powers[place % len(powers)] if on_grid else math.nan,
                    "value_nats": solution.value(beta),
                    "gain_nats": solution.gain,
                    "rate_nats": solution.rate,
                    **solution.told,
                    "late_gain_nats": solution.late_gain,
                    "place": index,
                }
            )
    first = next(iter(trains))
    for row in rows:
        index, inference = row.pop("place"), row["inference"]
        names = proved if inference == first else [inference]
        proofs_of = [of[name][index] for of in (proved, untrained) for name in names]
        row["threshold_beta"] = at_least(row["local_beta"], proofs_of)
    return columns(rows)


def at_least(local: float, proofs: Sequence[float]) -> float:
    """The larger of λ and the best of the ``proofs`` A / R of stacks, nan or -inf where a search has none.

    Training comes near λ from below only, by a z2 of vanishing rate. Under exact inference a stack gains at least what
    it gains under its encoder, so there the proofs of all inferences count.
    """
    return max([local, *(proof for proof in proofs if proof > local)])
