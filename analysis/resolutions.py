"""Layers of a stack by the resolution of their latents."""

from collections.abc import Sequence

import numpy as np

from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.tables.words import KIND
from hvae.diagnosis.layer import Layer


def resolutions(runs: Sequence[LoadedRun]) -> list[str]:
    """Places of latents, the coarsest first."""
    places = {layer.place for run in runs for layer in run.layers if layer.place}
    return sorted(places, key=lambda place: [int(side) for side in place.split("x")])


def kinds(run: LoadedRun, place: str) -> list[str]:
    """The kind of verdict of every layer at a resolution, in every seed that did not fail."""
    found = [KIND.get(str(word), str(word)) for z in at_place(run, place) for word in z.verdict[:, run.epsilon_index]]
    return [kind for kind in found if kind != "failed"]


def rate(run: LoadedRun, place: str) -> Array:
    """``[R]`` the sum of the rates of the layers at a resolution, nats."""
    total: Array = np.sum([z.interval("rate_nats")[:, 1] for z in at_place(run, place)], axis=0)
    return total


def at_place(run: LoadedRun, place: str) -> list[Layer]:
    """The layers of a run whose latents have this resolution."""
    return [z for z in run.layers if z.place == place]
