"""What may be asked of a trained run beyond its evaluation, and how much is spent on it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from hvae.errors import ConfigError
from hvae.likelihood.annealing import Annealing

MEASUREMENTS = ("annealed", "exact", "gap")
"""measurements of log p(x); each, like the measurement "gradients", writes the file of arrays of its name"""
WORDS = ("importance", *MEASUREMENTS)


def read_words(text: str) -> tuple[str, ...]:
    """Words separated by commas, each once. Raises `ConfigError` for one that is unknown."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in WORDS:
            raise ConfigError(f"--likelihood has the word {word!r}; give one or more of {', '.join(WORDS)}.")
    return words


@dataclass(frozen=True)
class Budget:
    """How many images, and how much work on each; below its least, `ConfigError`."""

    images: int = 100
    temperatures: int = Annealing.n_temperatures
    chains: int = Annealing.n_chains
    leapfrog: int = Annealing.n_leapfrog
    draws: int = 4
    samples: int = 1000
    gradients: tuple[int, ...] = ()
    """numbers of samples at which the signal of gradients is measured"""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 1)
            if any(number < least for number in (value if isinstance(value, tuple) else (value,))):
                raise ConfigError(f"--{field.name} is {value}; give at least {least}.")

    @property
    def annealing(self) -> Annealing:
        """What of it goes into annealing."""
        return Annealing(self.temperatures, self.chains, self.leapfrog)

    def settings(self, word: str, n_test: int) -> dict[str, int | tuple[int, ...]]:
        """What the numbers of a measurement depend on, by the names that its arrays have; at most ``n_test`` images."""
        values: dict[str, int | tuple[int, ...]] = {
            "n_images": min(self.images, n_test),
            "n_temperatures": self.temperatures,
            "n_chains": self.chains,
            "n_leapfrog": self.leapfrog,
            "n_draws": self.draws,
            "n_largest": self.samples,
            "n_samples": self.gradients,
        }
        return {name: values[name] for name in _NAMES[word]}


LEAST = {"images": 2, "draws": 2}
"""where one tells nothing of chance"""

_ANNEALING = ("n_temperatures", "n_chains", "n_leapfrog")
_NAMES: dict[str, Sequence[str]] = {
    "exact": ("n_images",),
    "annealed": ("n_images", "n_largest", *_ANNEALING),
    "gradients": ("n_images", "n_samples"),
    "gap": ("n_images", "n_largest", "n_draws", *_ANNEALING),
}
