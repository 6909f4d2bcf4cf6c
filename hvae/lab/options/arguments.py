"""Arguments as they are typed, before anything is known of their options."""

from collections.abc import Sequence
from itertools import pairwise

from hvae.errors import ConfigError
from hvae.outside import check_text

MOST_DIGITS = 20
"""of a whole number; which of these are too large is for `Budget` to say"""


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what is no text, and what is empty.

    An empty argument is a variable of the shell that is not set: ``--only "$LABEL"`` would begin all runs.
    """
    for before, argument in pairwise(["", *arguments]):
        try:
            check_text(argument)
        except ValueError as error:
            raise ConfigError(f"An argument cannot be read ({error}); give text in UTF-8.") from None
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--") and not value.strip():
            raise ConfigError(f"{option} is empty; give it a value, or leave it out.")
        if not argument.strip():
            where = f" behind {before}" if before else ""
            raise ConfigError(f"The argument{where} is empty; give it a value, or leave it out.")


class Counts:
    """Whole numbers separated by commas, each once, from the smallest."""

    def __call__(self, text: object) -> object:
        if not isinstance(text, str):
            return text
        words = [word.strip() for word in text.split(",")]
        if not all(word.isdecimal() and len(word) <= MOST_DIGITS for word in words):
            raise ValueError(f"--gradients is {text[:60]!r}; give numbers of samples with commas, as in 1,2,5,20")
        return tuple(sorted({int(word) for word in words}))

    def __repr__(self) -> str:
        return "whole numbers with commas"
