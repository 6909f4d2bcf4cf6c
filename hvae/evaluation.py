"""Evaluation: a trained run -> arrays on disk.

Every quantity is measured on test images drawn at random with ``evaluation.seed``, for every
replica by itself, and stored with the replica axis first as an interval (low, middle, high): the
estimator's two bounds, widened by a bootstrap over images. Replicas stay side by side and are
never pooled with data. A replica that became non-finite has NaN and the verdict "failed".

``evaluation/diagnostics.npz``, ``likelihood.npz`` and ``images.npz`` are all that figures and reports read.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from hvae import rng
from hvae.config import EvaluationConfig
from hvae.data import Dataset
from hvae.diagnostics import rates, units, usage
from hvae.diagnostics.draws import Sampler
from hvae.diagnostics.information import information
from hvae.diagnostics.verdict import verdict
from hvae.evidence import HVAE
from hvae.likelihood.importance import Curve, log_likelihood_curve
from hvae.numerics import FloatArray, bootstrap_interval
from hvae.runs import Run
from hvae.training import load_trained
from hvae.vocabulary import FAILED

Arrays = dict[str, NDArray[Any]]

N_PATHS = 32
"""draws per image of rates, units, reading and knock-out"""
EPSILON_FACTORS = (0.3, 1.0, 3.0)
"""the verdict is also given at these multiples of epsilon"""
N_MIXTURE = 8
"""a top-down mixture grows to at most this many times n images"""


@torch.no_grad()
def evaluate(run: Run, data: Dataset, *, device: str = "cpu", progress: bool = True) -> None:
    """Measure every replica of the newest checkpoint and write the arrays.

    What was measured of a run in training is not kept if the run ended, and was measured, meanwhile.
    """
    config = run.config.evaluation
    found = load_trained(run, data, device)
    models, alive = found.models, found.alive
    order = rng.permutation(len(data.test), seed=config.seed, purpose="evaluation")
    test = data.test[order].to(device)
    index = order.numpy()
    x, rest = test[: config.n_images], test[config.n_images : N_MIXTURE * config.n_images]
    silent = None if progress else True
    with tqdm(total=2 * len(models), desc=f"{run.label} evaluated", disable=silent) as bar:

        def every(measure: Callable[[HVAE], Arrays]) -> Arrays:
            """The arrays of all replicas, stacked; a replica that is not alive takes NaN."""
            each: list[Arrays | None] = []
            for model, good in zip(models, alive, strict=True):
                each.append(measure(model) if good else None)
                bar.update()
            measured = [arrays for arrays in each if arrays is not None]
            return _stack(each, template=measured[0] if measured else measure(models[0]))

        diagnostics = every(partial(layer_diagnostics, x=x, config=config, extra=rest))
        likelihood = every(partial(likelihood_arrays, x=test, config=config))
    if run.done and found.step < run.config.training.n_steps:
        return
    run.save_arrays(
        "diagnostics",
        diagnostics
        | {
            "seeds": np.array(run.config.training.seeds),
            "step": np.array(found.step),
            "alive": np.array(alive),
            "died_at": found.health.died_at.cpu().numpy(),
            "culprit": np.array(["" if good else found.health.culprit(r) for r, good in enumerate(alive)]),
            "n_images": np.array(len(x)),
            "epsilons": _epsilons(config),
            "order": np.array(run.config.model.order),
            "layers": np.array(models[0].latents),
            "collapse_epsilons": units.EPSILONS,
        },
    )
    run.save_arrays("likelihood", likelihood | {"image_index": index[: config.n_likelihood]})
    first = next((model for model, good in zip(models, alive, strict=True) if good), None)
    if first is not None:
        run.save_arrays("images", image_arrays(first, test[:10], data.image_shape, config.seed))


@torch.no_grad()
def layer_diagnostics(model: HVAE, x: Tensor, config: EvaluationConfig, extra: Tensor | None = None) -> Arrays:
    """Every diagnostic of one model on the images ``x [n, D]``; names as in the module's arrays, no replica axis."""
    sampler = Sampler(model, x, config.seed)
    evidence = sampler.evidence(N_PATHS, "diagnostics")
    interval = partial(bootstrap_interval, n_bootstrap=config.n_bootstrap, seed=config.seed)
    carried = information(
        sampler, epsilon=config.epsilon_nats, max_paths=config.max_paths, n_bootstrap=config.n_bootstrap, extra=extra
    )
    read = usage.reading(sampler, evidence)
    bottom_up = model.posterior.order == model.latents
    found: Arrays = {}
    for name in model.latents:
        site = evidence.q[name]
        layer: dict[str, FloatArray] = {key: interval(terms) for key, terms in rates.rates(evidence, name).items()}
        layer["parent_information_nats"] = carried[name].from_parent
        layer["information_nats"] = carried[name].about_datum
        layer["reading_nats"] = interval(read[name])
        layer["knockout_encoder_nats"] = interval(usage.encoder_knockout(sampler, evidence, name))
        layer["knockout_model_nats"] = interval(usage.model_knockout(sampler, evidence, name, "diagnostics"))
        if site.family.factorised:
            covariance = partial(
                units.covariance_interval,
                n_units=site.family.units, n_bootstrap=config.n_bootstrap, seed=config.seed,
            )  # fmt: skip
            one, other = units.mean_variance(site, len(x))
            layer["burda_variance"] = covariance(one, one)
            if bottom_up:
                layer["twin_covariance"] = covariance(one, other)
            else:
                residual = units.residual(evidence, name)
                layer["residual_variance"] = covariance(residual, residual)
            layer["collapsed_fraction"] = units.collapsed_fraction(evidence, name)
        found |= {f"{key}/{name}": value for key, value in layer.items()}
        found[f"collapse_reference/{name}"] = np.array(units.collapse_reference(evidence, name))
        found[f"n_paths/{name}"] = np.array(carried[name].n_paths)
        found[f"information_on_n_nats/{name}"] = np.array(carried[name].on_images)
        judge = partial(
            verdict,
            layer["parent_information_nats"], layer["information_nats"],
            layer["reading_nats"], layer["kl_standard_nats"],
        )  # fmt: skip
        found[f"verdict/{name}"] = np.array([judge(epsilon) for epsilon in _epsilons(config).tolist()])
    return found


@torch.no_grad()
def likelihood_arrays(model: HVAE, x: Tensor, config: EvaluationConfig) -> Arrays:
    """The bounds L_1 … L_K of one model, on ``n_likelihood`` images and, deeper, on the first ``n_likelihood_deep``."""

    def curve(n_images: int, n_samples: int) -> Arrays:
        return _curve_arrays(log_likelihood_curve(model, x[:n_images], _ks(n_samples), seed=config.seed), config)

    found = curve(config.n_likelihood, config.n_samples)
    found["elbo_nats"] = found["bound_nats"][0]
    if config.n_likelihood_deep:
        deep = curve(config.n_likelihood_deep, config.n_samples_deep)
        found |= {f"{key}_deep": value for key, value in deep.items()}
    return found


@torch.no_grad()
def image_arrays(model: HVAE, x: Tensor, image_shape: Sequence[int], seed: int, n_samples: int = 8) -> Arrays:
    """Means of x: reconstructions, samples, and resamplings that keep z_{>=l} from q(z|x) and draw what is below."""
    sampler = Sampler(model, x, seed)
    specs = model.decoder.noise_specs()
    evidence = sampler.evidence(1, "images")
    drawn = rng.noise(specs, 1, 6 * n_samples, seed=seed, purpose="samples", device=str(x.device))
    found = {
        "image_shape": np.array(image_shape),
        "x": _array(x),
        "reconstruction": _array(evidence.p["x"].mean[0]),
        "samples": _array(model.decoder.walk({}, drawn)["x"].mean[0]),
    }
    for position, name in enumerate(evidence.latents):
        kept = {above: evidence.q[above].value.expand(n_samples, len(x), -1) for above in evidence.latents[position:]}
        fresh = rng.noise(specs, n_samples, len(x), seed=seed, purpose=f"resample {name}", device=str(x.device))
        found[f"resample/{name}"] = _array(model.decoder.walk(kept, fresh)["x"].mean.transpose(0, 1))
    return found


def _ks(n_samples: int) -> tuple[int, ...]:
    """1, 10, 100, … and ``n_samples`` itself."""
    powers = [10**exponent for exponent in range(len(str(n_samples))) if 10**exponent < n_samples]
    return (*powers, n_samples)


def _curve_arrays(curve: Curve, config: EvaluationConfig) -> Arrays:
    estimate = curve.estimate
    return {
        "n_samples": np.array(curve.n_samples),
        "bound_nats": bootstrap_interval(curve.bound_datum_nats, config.n_bootstrap, config.seed),
        "bound_datum_nats": estimate.log_px,
        "se_nats": estimate.standard_error,
        "ess": estimate.ess,
        "pareto_k": estimate.pareto_k,
        "warning": np.array(estimate.warning),
        "note": np.array(estimate.note),
    }


def _epsilons(config: EvaluationConfig) -> FloatArray:
    return np.round(np.array(EPSILON_FACTORS) * config.epsilon_nats, 12)


def _array(values: Tensor) -> NDArray[Any]:
    return values.cpu().numpy()


SHARED = ("n_samples", "collapse_reference/")
"""arrays without a replica axis"""


def _stack(found: Sequence[Arrays | None], template: Arrays) -> Arrays:
    """Arrays of all replicas along a first axis; a replica without takes the template's names, with NaN or "failed"."""
    stacked: Arrays = {}
    for key, like in template.items():
        if key.startswith(SHARED):
            stacked[key] = like
            continue
        fill = FAILED if like.dtype.kind == "U" else -1 if like.dtype.kind == "i" else np.nan
        missing = np.full_like(like, fill, dtype="U64" if like.dtype.kind == "U" else None)
        stacked[key] = np.stack([missing if arrays is None else arrays[key] for arrays in found])
    return stacked
