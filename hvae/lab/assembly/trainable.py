"""Which weights a step trains."""

from collections.abc import Callable, Collection

from hvae.errors import ConfigError
from hvae.evidence import DECODER, HVAE
from hvae.lab.config import TrainingConfig


def trainable(config: TrainingConfig, model: HVAE) -> Callable[[int], Collection[str]]:
    """Step -> names of the weights that it trains: all of them, except in the first, aggressive steps.

    Aggressive training (He et al. 2019, algorithm 1) lets the encoder catch up: the decoder moves only at every
    ``aggressive_every``-th step. With ``aggressive_layers``, the encoder of other layers also waits for these steps. In
    the paper the encoder rests when the decoder moves; here it goes on. There the phase ends when the mutual
    information of a validation set stops rising; here after ``aggressive_steps``.
    Raises `ConfigError` for a layer without its own encoder.
    """
    owners = model.owners
    everything = frozenset(owners)
    wanted = [f"z{layer}" for layer in config.aggressive_layers]
    for name in wanted:
        if name not in owners.values():
            raise ConfigError(
                f"training.aggressive_layers names layer {name.removeprefix('z')}, but its encoder has no weights of "
                "its own; leave it out, or give [] for the whole encoder."
            )
    restless = frozenset(w for w, owner in owners.items() if (owner in wanted if wanted else owner != DECODER))

    def at(step: int) -> Collection[str]:
        waits = step < config.aggressive_steps and (step + 1) % config.aggressive_every != 0
        return restless if waits else everything

    return at
