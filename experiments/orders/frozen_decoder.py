"""Every inference order at frozen decoders: arrays of a run's decoders, rows of known ones.

New encoders of each order are trained (`refit`) and measured on test images that they never saw. So orders differ by
their posterior alone: the graph, the capacity of the nets and how they generalise. ELBOs are compared image by image.
Layer gaps are estimates that say whether they are trusted; splits of two directions of visit do not compare.
`unamortised` fits a distribution to each image by itself. Nats.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from hvae import rng
from hvae.data import Dataset
from hvae.diagnostics.gap import split_gap
from hvae.diagnostics.marginals import Sampling
from hvae.diagnostics.unamortised import Ascent, fitted
from hvae.evidence import HVAE
from hvae.exact import LinearGaussian, NoReferenceError, solve
from hvae.exact.known_stacks import binary_decoder, linear_stack
from hvae.experiments.orders.refit import refit, with_encoders
from hvae.experiments.truth.accuracy import columns
from hvae.lab.config import ModelConfig, ObjectiveConfig, Order, RunConfig, TrainingConfig
from hvae.lab.evaluation.budget import Budget
from hvae.lab.evaluation.replicas import Arrays, Replicas, Say, stack
from hvae.lab.evaluation.whole import sizes_of
from hvae.lab.runs.run import Run
from hvae.likelihood.importance import log_likelihood_curve
from hvae.measuring import measure_layers
from hvae.network import Decoder

KEPT = ("rate_nats", "parent_information_nats", "information_nats", "reading_nats", "verdict")
"""of every layer"""
CHEAP = ("widened", "prior", "full")
"""proposals of the layer gaps; none of them climbs the ELBO of single images"""
UNAMORTISED = "unamortised"
AMORTISED: tuple[Order, ...] = tuple(order for order in get_args(Order) if order not in (UNAMORTISED, "exact"))


def refitted_arrays(run: Run, data: Dataset, config: RunConfig, budget: Budget, device: str = "cpu") -> Arrays:
    """New encoders of ``config`` at the decoders of ``run``, ``[R, …]``; a failed replica has NaN.

    ``elbo_datum_nats`` and ``bound_datum_nats`` (L_K) `[R, n_likelihood]`; the quantities `KEPT` of every layer; layer
    gaps on the first images of ``budget``, and whether they are trusted.
    """
    replicas = Replicas.of(run, data, device)
    models = refit(with_encoders([model.decoder for model in replicas.models], data, config), data, config)
    measure = partial(_arrays, test=replicas.test, config=config, budget=budget)
    return _replicated(run, replicas, [partial(measure, model) for model in models], config.model.order)


def unamortised_arrays(run: Run, data: Dataset, n_images: int, ascent: Ascent, device: str = "cpu") -> Arrays:
    """A distribution fitted to each of the first test images at the decoders of ``run``.

    ELBO and L_K `[R, n_images]`.
    """
    replicas, config = Replicas.of(run, data, device), run.config.evaluation
    x = replicas.test[:n_images]

    def measure(decoder: Decoder) -> Arrays:
        return _bounds(fitted(decoder, x, ascent, seed=config.seed), x, config.n_samples, config.seed)

    return _replicated(run, replicas, [partial(measure, model.decoder) for model in replicas.models], UNAMORTISED)


def _replicated(run: Run, replicas: Replicas, measures: Sequence[Callable[[], Arrays]], order: str) -> Arrays:
    """Arrays of the replicas that did not fail, side by side, and what they are of."""
    each = [_finite(measure) if alive else None for measure, alive in zip(measures, replicas.alive, strict=True)]
    template = next((arrays for arrays in each if arrays is not None), {})
    return stack(each, template) | {
        "decoder": np.array(run.label),
        "order": np.array(order),
        "seeds": np.array(run.config.training.seeds),
    }


def _finite(measure: Callable[[], Arrays]) -> Arrays | None:
    """None for a posterior that became non-finite, which diagnostics report as ValueError."""
    try:
        found = measure()
    except ValueError:
        return None
    return found if np.isfinite(found["elbo_datum_nats"]).all() else None


def _arrays(model: HVAE, test: Tensor, config: RunConfig, budget: Budget) -> Arrays:
    knobs = sizes_of(config.evaluation)
    x, rest = test[: knobs.n_images], test[knobs.n_images : knobs.n_mixture * knobs.n_images]
    found: Arrays = {}
    for layer in measure_layers(model, x, knobs, rest):
        kept = {**layer.intervals, "verdict": layer.verdict}
        found |= {f"{key}/{layer.name}": kept[key][0] for key in KEPT}
    found |= _bounds(model, test[: knobs.n_likelihood], knobs.n_samples, knobs.seed)
    return found | _layer_gaps(model, test[: budget.images], budget, knobs.seed)


@torch.no_grad()
def _bounds(model: HVAE, x: Tensor, n_samples: int, seed: int) -> Arrays:
    elbo, bound = log_likelihood_curve(model, x, (1, n_samples), seed=seed).bound_datum_nats
    return {"elbo_datum_nats": elbo, "bound_datum_nats": bound}


def _layer_gaps(model: HVAE, x: Tensor, budget: Budget, seed: int) -> Arrays:
    gap = split_gap(model, x, budget.draws, Sampling(budget.samples, seed, CHEAP))
    found: Arrays = {}
    for name, layer in gap.layers.items():
        found |= {f"layer_gap_nats/{name}": np.array(layer.interval()), f"trusted/{name}": np.array(layer.trusted)}
    return found


# -- decoders that are known -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A decoder with exact answers, data drawn from it, and the encoders' shape."""

    name: str
    decoder: Decoder
    data: Dataset
    model: ModelConfig
    n_samples: int
    """draws a step"""


def bernoulli(n_data: int) -> Known:
    """Bernoulli layers of ten, five and three units; the couplings leave every factorised posterior a gap."""
    decoder = binary_decoder(1.5, (10, 5, 3), torch.Generator().manual_seed(0)).float()
    model = ModelConfig(latents=(5, 3), hidden=((16,),), families=("bernoulli",))
    return Known("coins", decoder, _drawn(decoder, n_data, "binary"), model, n_samples=4)


def gaussians(n_data: int) -> Known:
    """Linear-Gaussian layers of six, four and three units, and linear-Gaussian encoders."""
    decoder = linear_stack(1.0, "best", seed=0, widths=(6, 4, 3)).model.decoder.float()
    model = ModelConfig(latents=(4, 3), hidden=((),), latent_variance="learned", observation="gaussian")
    return Known("linear-Gaussian", decoder, _drawn(decoder, n_data, "real"), model, n_samples=1)


def _drawn(decoder: Decoder, n_data: int, kind: Any) -> Dataset:
    """Half to train on, half to measure on."""
    with torch.no_grad():
        noise = rng.noise(decoder.noise_specs(), 1, 2 * n_data, seed=0, purpose="data of a known decoder")
        x = decoder.walk({}, noise)["x"].value[0]
    return Dataset("known", x[:n_data], x[n_data:], (x.shape[1],), kind, dynamic=False)


def known_rows(
    stacks: Sequence[Known],
    training: TrainingConfig,
    n_images: int,
    n_samples: int,
    ascent: Ascent,
    say: Say,
) -> Arrays:
    """One row per known decoder, order and seed: the exact gap and the gap by draws.

    The gap by draws is log p(x) less the ELBO of ``n_samples`` draws a datum, as for decoders of images. ``best_nats``
    is the least gap that the order's factorised distributions can leave, where it has a closed form. Exact numbers are
    NaN where no reference has them.
    """
    rows: list[dict[str, Any]] = []
    for known in stacks:
        say(f"Every order at the known decoder of {known.name}")
        x = known.data.test[:n_images]
        for order, seed, model in _posteriors(known, x, training, ascent):
            rows.append({"stack": known.name, "order": order, "seed": seed, **_row(model, x, order, n_samples)})
    return columns(rows)


def _posteriors(known: Known, x: Tensor, training: TrainingConfig, ascent: Ascent) -> Iterator[tuple[str, int, HVAE]]:
    for order in AMORTISED:
        objective = ObjectiveConfig(n_samples=known.n_samples)
        config = RunConfig(model=replace(known.model, order=order), objective=objective, training=training)
        models = refit(with_encoders([known.decoder] * len(training.seeds), known.data, config), known.data, config)
        yield from zip([order] * len(models), training.seeds, models, strict=True)
    for seed in training.seeds:
        yield UNAMORTISED, seed, fitted(known.decoder, x, ascent, seed=seed)


@torch.no_grad()
def _row(model: HVAE, x: Tensor, order: str, n_samples: int) -> Mapping[str, Any]:
    plain = copy.deepcopy(model).double()
    reference, wide = solve(plain.decoder), x.double()
    elbo = _bounds(model, x, n_samples, seed=0)["elbo_datum_nats"]
    row: dict[str, Any] = {
        "gap_nats": np.nan,
        "sampled_nats": float(reference.log_px(wide).mean()) - float(elbo.mean()),
        "best_nats": least_gap(reference, order) if isinstance(reference, LinearGaussian) else np.nan,
    }
    row |= {f"gap_{name}_nats": np.nan for name in model.latents}
    try:
        exact = reference.gaps(plain.posterior, wide)
        row |= {"gap_nats": float(exact.total.mean())}
        row |= {f"gap_{name}_nats": float(values.mean()) for name, values in exact.layers.items()}
    except NoReferenceError:  # a table of images is no affine distribution
        pass
    return row


def least_gap(reference: LinearGaussian, order: str) -> float:
    """``(sum_i log Λ_ii - log |Λ|) / 2``: the least gap of a diagonal Gaussian, Λ the precision of its target.

    In mean field Λ is that of p(z | x). With z1 first, seeing x or not, it is that of each p(z_l | z_{l-1}), as x adds
    nothing to z_{l-1}. A ladder's means are tied to the decoder's, so its least gap is another one: NaN.
    """
    latents = [name for name in reversed(reference.decoder.variables) if name != "x"]
    match order:
        case "mean-field" | "unamortised":
            distributions = [reference.conditional(latents, ["x"])]
        case "bottom-up" | "bottom-up-x":
            distributions = [
                reference.conditional([name], [below]) for name, below in zip(latents, ["x", *latents], strict=False)
            ]
        case _:
            return float("nan")
    precisions = [torch.linalg.inv(distribution.covariance) for distribution in distributions]
    return sum(float(p.diagonal().log().sum() - torch.logdet(p)) / 2 for p in precisions)
