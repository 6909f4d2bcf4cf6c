"""Checks that the parts of a configuration share."""

from typing import TypeVar

from hvae.errors import ConfigError

T = TypeVar("T")


def require(condition: bool, sentence: str) -> None:
    """Raise `ConfigError` with the sentence unless the condition holds."""
    if not condition:
        raise ConfigError(sentence)


def per_layer(name: str, entries: tuple[T, ...], n_layers: int) -> tuple[T, ...]:
    """One entry per latent layer: a single entry is repeated, any other count must match."""
    if len(entries) == 1:
        return entries * n_layers
    require(
        len(entries) == n_layers,
        f"{name} has {len(entries)} entries for {n_layers} latent layers; give one, or one per layer.",
    )
    return entries
