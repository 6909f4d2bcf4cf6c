"""What can be measured of a trained run beyond its evaluation, and what its numbers depend on."""

from collections.abc import Sequence

from hvae.errors import ConfigError
from hvae.lab.config.budget import Budget as Budget
from hvae.likelihood.annealing import Annealing

MEASUREMENTS = ("annealed", "exact", "gap")
"""measurements of log p(x). Like the measurement "gradients", each writes the file of arrays of its name"""
WORDS = ("importance", *MEASUREMENTS)


def read_words(text: str) -> tuple[str, ...]:
    """Words separated by commas, each once. Raises `ConfigError` for one that is unknown."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in WORDS:
            raise ConfigError(f"--likelihood has the word {word!r}; give one or more of {', '.join(WORDS)}.")
    return words


def annealing(budget: Budget) -> Annealing:
    """The part of a budget that annealing takes."""
    return Annealing(budget.temperatures, budget.chains, budget.leapfrog)


def settings(budget: Budget, word: str, n_test: int) -> dict[str, int | tuple[int, ...]]:
    """What the numbers of a measurement depend on, under the names of its arrays; at most ``n_test`` images."""
    values: dict[str, int | tuple[int, ...]] = {
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
_NAMES: dict[str, Sequence[str]] = {
    "exact": ("n_images",),
    "annealed": ("n_images", "n_largest", *_ANNEALING),
    "gradients": ("n_images", "n_samples"),
    "gap": ("n_images", "n_largest", "n_draws", *_ANNEALING),
}
