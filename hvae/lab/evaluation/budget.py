"""What can be measured of a trained run beyond its evaluation, by the words of the command line."""

from hvae.diagnosis.sizes import Budget as Budget
from hvae.errors import ConfigError

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
