"""What experiments on stacks of several depths share: claims, and what is measured on a CPU."""

from collections.abc import Callable

from hvae.analysis.claims import Claim, difference, single
from hvae.analysis.measures import BOUND, EPSILON_NATS, LIKELIHOOD_MARGIN_NATS, least_use, likelihood
from hvae.lab.config import EvaluationConfig

CHILD = "Child 2021 (arXiv:2011.10650)"
QUESTION = "question of this project"
USE = "V of the layer that is used least"


def deeper(shallow: int, deep: int, label: Callable[[int], str], where: str = "") -> Claim:
    """A deep stack is more likely than a shallow one; ``label`` names the run of a depth."""
    statement = f"{where}{deep} layers are more likely than {shallow}."
    return difference(statement, CHILD, BOUND, likelihood, label(deep), label(shallow), "above", LIKELIHOOD_MARGIN_NATS)


def all_used(statement: str, name: str) -> Claim:
    """The decoder uses every layer of a run."""
    return Claim(
        statement=statement,
        source=QUESTION,
        quantity=USE,
        measure=single(lambda runs: least_use(runs, name)),
        relation="above",
        margin=EPSILON_NATS,
    )


def measured_on_cpu(max_paths: int, n_likelihood: int, n_samples: int) -> EvaluationConfig:
    """A quarter of the default alternatives and draws, on images that just suffice for a verdict."""
    return EvaluationConfig(
        n_images=80, max_paths=max_paths, n_alternatives=16, n_paths_use=8, n_paths_knockout=8,
        n_likelihood=n_likelihood, n_samples=n_samples,
    )  # fmt: skip
