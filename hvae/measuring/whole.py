"""From models to a diagnosis: layers and verdicts, likelihood, pictures, and what is asked for further."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from hvae.diagnosis.arrays import DEEP, epsilons
from hvae.diagnosis.diagnosis import Diagnosis
from hvae.diagnosis.layer import Layer
from hvae.diagnosis.likelihood import Likelihood, Pictures
from hvae.diagnosis.measured import OUTSIDE
from hvae.diagnosis.record import joined
from hvae.diagnosis.sizes import Budget, Sizes
from hvae.diagnostics import units
from hvae.errors import ConfigError, NotMeasuredError
from hvae.evidence import HVAE
from hvae.measuring.floor import Floor
from hvae.measuring.layers import measure_layers
from hvae.measuring.likelihood import measure_curve, measure_likelihood
from hvae.measuring.on_request import further, with_further
from hvae.measuring.pictures import draw_pictures
from hvae.measuring.replica import silent
from hvae.numerics import all_equal

R = TypeVar("R")


def measure(
    models: Sequence[HVAE | None],
    x: Tensor,
    sizes: Sizes | None = None,
    *,
    seeds: Sequence[int] | None = None,
    like: HVAE | None = None,
    order: str = "",
    yardstick: str = "",
    shape: Sequence[int] = (),
    label: str = "",
    source: str = OUTSIDE,
    words: Sequence[str] = (),
    budget: Budget | None = None,
    train: Tensor | None = None,
    tick: Callable[[], object] = silent,
) -> Diagnosis:
    """What is measured of replicas on data ``x [N, D]``, of which the first are taken, so they stand in random order.

    A model may be anything whose decoder and posterior follow `hvae.network.Decoder` and `hvae.posterior.Posterior`;
    it is in evaluation mode. None stands for a replica that died: it has NaN and the verdict "failed". Where all died,
    ``like`` is a model with their layers. ``seeds`` tell the replicas apart, ``order`` is a name for the inference
    order, ``yardstick`` for data and distribution of x, ``shape`` that of x as it is drawn. ``words`` name what is
    measured further, with what ``budget`` (`hvae.measuring.further`). The floor under the likelihood is fitted to the
    training data ``train [n, D]``, or without them to x. ``tick`` is called twice a replica.
    Raises ValueError for no model, and for fewer than two data; `ConfigError` for data that are all equal.

    >>> from hvae.exact.known_stacks import linear_stack
    >>> stack = linear_stack(1.0, "best", seed=0)
    >>> sizes = Sizes(max_paths=16, n_samples=10)
    >>> measure([stack.model, None], stack.x, sizes).verdicts["z2"][1]
    'failed'
    """
    sizes = Sizes() if sizes is None else sizes
    first = next((model for model in models if model is not None), like)
    if first is None:
        raise ValueError(f"Of {len(models)} models none is there, so there is nothing to measure; give at least one.")
    if len(x) < 2:
        raise ValueError(f"There are {len(x)} data; give at least 2, for an interval over them.")
    if all_equal(x):
        raise ConfigError(f"All {len(x)} data are equal, so no layer can tell them apart; give data that differ.")
    images, rest = x[: sizes.n_images], x[sizes.n_images :]

    def every(of_model: Callable[[HVAE], R]) -> list[R | None]:
        found: list[R | None] = []
        for model in models:
            found.append(None if model is None else of_model(model))
            tick()
        return found

    layers = _side_by_side(every(lambda model: measure_layers(model, images, sizes, rest)), first, images, sizes, rest)
    floor = Floor(x, train)
    curves = every(lambda model: _curves(model, x, sizes, floor))
    template = next((curve for curve in curves if curve is not None), None) or _curves(first, x, sizes, floor)
    main, deep = (
        joined([None if curve is None else curve[key] for curve in curves], template[key]) if key in template else None
        for key in ("", DEEP)
    )
    drawn = next((model for model in models if model is not None), None)
    found = Diagnosis(
        layers=layers,
        seeds=tuple(range(len(models))) if seeds is None else tuple(seeds),
        alive=np.array([model is not None for model in models]),
        died_at=np.full(len(models), -1),
        culprit=("",) * len(models),
        step=None,
        epsilons=epsilons(sizes.epsilon_nats),
        n_images=len(images),
        order=order or ("bottom-up" if first.bottom_up else "top-down"),
        bottom_up=first.bottom_up,
        yardstick=yardstick or _digest(x),
        collapse_epsilons=units.EPSILONS,
        likelihood=main,
        likelihood_deep=deep,
        pictures=None if drawn is None else _pictures(drawn, x, sizes, shape),
        sizes=sizes,
        label=label,
        source=source,
    )
    records = further(words, models, x, budget or Budget(), first.latents, seed=sizes.seed, tick=tick)
    return with_further(found, dict(records))


def _side_by_side(
    found: Sequence[tuple[Layer, ...] | None], first: HVAE, x: Tensor, sizes: Sizes, rest: Tensor
) -> tuple[Layer, ...]:
    """The layers of all replicas. Where none is alive, a measurement of ``first`` shows what is missing."""
    some = next((layers for layers in found if layers is not None), None)
    template = measure_layers(first, x, sizes, rest) if some is None else some
    return tuple(
        joined([None if layers is None else layers[index] for layers in found], like)
        for index, like in enumerate(template)
    )


def _curves(model: HVAE, x: Tensor, sizes: Sizes, floor: Floor) -> dict[str, Likelihood]:
    """The likelihood over its floor and, where it is asked for, a deeper curve."""
    bound = measure_likelihood(
        model, x[: sizes.n_likelihood], sizes.n_samples, until_se=sizes.until_se, seed=sizes.seed
    )
    found = {"": floor.beside(bound, model)}
    if sizes.n_likelihood_deep:
        found[DEEP] = measure_curve(model, x[: sizes.n_likelihood_deep], sizes.n_samples_deep, seed=sizes.seed)
    return found


def _pictures(model: HVAE, x: Tensor, sizes: Sizes, shape: Sequence[int]) -> Pictures | None:
    """None where none are wanted, and where x has no mean."""
    if not sizes.n_pictures:
        return None
    try:
        return draw_pictures(model, x[: sizes.n_pictures], shape or x.shape[1:], sizes.seed)
    except NotMeasuredError:
        return None


def _digest(x: Tensor) -> str:
    """A name for data that have none: equal data have equal names."""
    digest = hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:8]
    return f"{digest} of shape {'x'.join(map(str, x.shape))}"
