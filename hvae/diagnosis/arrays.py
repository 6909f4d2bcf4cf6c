"""A diagnosis as files of flat arrays, as they stand in `evaluation/` of a run or of a saved diagnosis.

    diagnostics  layers and verdicts, and what is known of the replicas
    likelihood   L_K; the deeper curve has _deep behind its keys
    images       pictures
    annealed  exact  gap  gradients

Keys keep the words of the first release. What a file lacks, such as the units of layers in the first runs, is taken
from an `Outline`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from hvae.diagnosis.gap import Annealed, Exact, Gap
from hvae.diagnosis.layer import flat_layer, read_layer
from hvae.diagnosis.likelihood import Likelihood, Pictures, Signal
from hvae.diagnosis.measured import OUTSIDE, Measured
from hvae.diagnosis.record import Array, Arrays, flat, read
from hvae.diagnosis.sizes import Sizes
from hvae.errors import ConfigError
from hvae.vocabulary import FIRST_RULE

DIAGNOSTICS, LIKELIHOOD, IMAGES = "diagnostics", "likelihood", "images"
FURTHER: Mapping[str, type[Any]] = {"annealed": Annealed, "exact": Exact, "gap": Gap, "gradients": Signal}
"""file -> its record"""
EPSILON_FACTORS = (0.3, 1.0, 3.0)
"""the verdict is also given at these multiples of epsilon"""
DEEP = "_deep"


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True)
class Outline:
    """What is known of replicas before they are measured.

    >>> Outline((0, 1), {"z1": 8}, "bottom-up", True, epsilon_nats=0.1, yardstick="digits").units
    {'z1': 8}
    """

    seeds: tuple[int, ...]
    units: Mapping[str, int]
    """layer -> units, z1 first"""
    order: str
    bottom_up: bool
    epsilon_nats: float
    yardstick: str


def epsilons(epsilon_nats: float) -> tuple[float, ...]:
    """The thresholds of the verdict in nats: a lower one, the one that counts, a higher one."""
    return tuple(np.round(np.array(EPSILON_FACTORS) * epsilon_nats, 12).tolist())


def outline_of(arrays: Arrays) -> Outline:
    """What a file of diagnostics says of itself. Raises `ConfigError` for one that does not."""
    lacking = [key for key in ("layers", "units", "seeds", "order", "bottom_up", "epsilons") if key not in arrays]
    if lacking:
        raise ConfigError(f"The diagnosis lacks {', '.join(lacking)}; measure the model again.")
    thresholds = arrays["epsilons"].tolist()
    return Outline(
        seeds=tuple(arrays["seeds"].tolist()),
        units=dict(zip(arrays["layers"].tolist(), arrays["units"].tolist(), strict=True)),
        order=str(arrays["order"]),
        bottom_up=bool(arrays["bottom_up"]),
        epsilon_nats=thresholds[len(thresholds) // 2],
        yardstick=str(arrays.get("yardstick", "")),
    )


def from_arrays(
    kind: type[M], load: Callable[[str], Arrays], outline: Outline | None = None, *,
    label: str = "", source: str = OUTSIDE,
) -> M:  # fmt: skip
    """The diagnosis behind ``load``: name of a file -> its arrays, empty where there is none."""
    arrays = load(DIAGNOSTICS)
    known = outline_of(arrays) if outline is None else outline
    n = len(known.seeds)
    alive = arrays.get("alive", np.ones(n, dtype=bool))
    thresholds = tuple(float(value) for value in arrays.get("epsilons", epsilons(known.epsilon_nats)))
    bottom_up = bool(arrays.get("bottom_up", known.bottom_up))
    names = list(known.units)
    further = {word: _further(word, load(word), n, names) for word in FURTHER}
    gap = further["gap"]
    likelihood = load(LIKELIHOOD)
    return kind(
        layers=tuple(
            read_layer(arrays, name, n_units, alive, len(thresholds), bottom_up=bottom_up)
            for name, n_units in known.units.items()
        ),
        seeds=known.seeds,
        alive=alive,
        died_at=arrays.get("died_at", np.full(n, -1)),
        culprit=tuple(str(text) for text in arrays.get("culprit", [""] * n)),
        step=int(arrays["step"]) if "step" in arrays else None,
        epsilons=thresholds,
        n_images=int(arrays.get("n_images", 0)),
        order=known.order,
        bottom_up=bottom_up,
        yardstick=known.yardstick,
        collapse_epsilons=arrays.get("collapse_epsilons", np.zeros(0)),
        likelihood=_likelihood(likelihood, "", n),
        likelihood_deep=_likelihood(likelihood, DEEP, n),
        annealed=further["annealed"],
        exact=further["exact"],
        gap=None if gap is None else Gap(**{**vars(gap), "order": known.order}),
        signal=further["gradients"],
        pictures=_pictures(load(IMAGES), names),
        sizes=_sizes(arrays),
        rule=int(arrays.get("rule", FIRST_RULE)),
        schema=int(arrays.get("schema", 0)),
        label=label,
        source=source,
    )


def _further(word: str, arrays: Arrays, n_replicas: int, names: list[str]) -> Any:
    if not arrays:
        return None
    if word == "gradients":  # of latents, and of the encoder and the decoder
        names = list(dict.fromkeys(key.partition("/")[2] for key in arrays if key.startswith("gradient_")))
        if not names and not any(arrays.get("refused", [])):
            return None
    return read(FURTHER[word], arrays, n_replicas, names)


def _likelihood(arrays: Arrays, suffix: str, n_replicas: int) -> Likelihood | None:
    return read(Likelihood, arrays, n_replicas, suffix=suffix) if f"bound_nats{suffix}" in arrays else None


def _pictures(arrays: Arrays, names: list[str]) -> Pictures | None:
    return read(Pictures, arrays, 0, names) if arrays else None


def _sizes(arrays: Arrays) -> Sizes | None:
    known = {knob.name for knob in fields(Sizes)}
    found = {key.removeprefix("sizes/"): values.item() for key, values in arrays.items() if key.startswith("sizes/")}
    return Sizes(**{key: value for key, value in found.items() if key in known}) if found else None


def to_arrays(diagnosis: Measured) -> dict[str, dict[str, Array]]:
    """Name of a file -> its arrays; only files that hold anything."""
    alive = diagnosis.alive.tolist()
    files = {DIAGNOSTICS: _diagnostics(diagnosis), LIKELIHOOD: _curves(diagnosis, alive)}
    if diagnosis.pictures is not None:
        files[IMAGES] = flat(diagnosis.pictures, alive)
    records = (diagnosis.annealed, diagnosis.exact, diagnosis.gap, diagnosis.signal)
    files |= {word: further_arrays(found, alive) for word, found in zip(FURTHER, records, strict=True) if found}
    return {name: arrays for name, arrays in files.items() if arrays}


def further_arrays(record: Any, alive: list[bool]) -> dict[str, Array]:
    """The arrays of a further measurement; its settings and reasons alone where every replica refused."""
    found = flat(record, alive)
    if all(text or not good for text, good in zip(record.refused, alive, strict=True)):
        return {key: found[key] for key in (*record.settings, "refused")}
    return found


def _diagnostics(diagnosis: Measured) -> dict[str, Array]:
    alive = diagnosis.alive.tolist()
    found = {key: array for layer in diagnosis.layers for key, array in flat_layer(layer, alive).items()}
    found |= {
        "seeds": np.array(diagnosis.seeds),
        "alive": diagnosis.alive,
        "died_at": diagnosis.died_at,
        "culprit": np.array(diagnosis.culprit),
        "n_images": np.array(diagnosis.n_images),
        "epsilons": np.array(diagnosis.epsilons),
        "order": np.array(diagnosis.order),
        "bottom_up": np.array(diagnosis.bottom_up),
        "layers": np.array([layer.name for layer in diagnosis.layers]),
        "units": np.array([layer.n_units for layer in diagnosis.layers]),
        "collapse_epsilons": diagnosis.collapse_epsilons,
        "yardstick": np.array(diagnosis.yardstick),
        "rule": np.array(diagnosis.rule),
        "schema": np.array(diagnosis.schema),
    }
    if diagnosis.step is not None:
        found["step"] = np.array(diagnosis.step)
    if diagnosis.sizes is not None:
        found |= {f"sizes/{name}": np.array(value) for name, value in vars(diagnosis.sizes).items()}
    return found


def _curves(diagnosis: Measured, alive: list[bool]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    if diagnosis.likelihood is not None:
        found |= flat(diagnosis.likelihood, alive) | {"elbo_nats": diagnosis.likelihood.elbo_nats}
    if diagnosis.likelihood_deep is not None:
        found |= flat(diagnosis.likelihood_deep, alive, DEEP)
    return found
