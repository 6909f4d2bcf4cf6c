"""Run directories with plausible arrays, for tests only: nothing here was trained."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvae.config import RunConfig
from hvae.runs import Run

EPSILONS = np.array([0.03, 0.1, 0.3])
BOTTOM_UP_NATS = (4.8, 1.5, 0.03, 0.001, 0.0)
TOP_DOWN_NATS = (1.6, 2.2, 0.9, 0.2, 0.02)


def fabricate(
    root: Path,
    configs: Mapping[str, RunConfig],
    *,
    experiment: str = "depth",
    n_replicas: int | None = None,
    failed: int | None = None,
    drop: tuple[str, ...] = (),
) -> list[Run]:
    """One finished directory per configuration.

    `failed` is a replica that stopped; keys that start with one of `drop` are left out.
    """
    runs = []
    for number, (label, config) in enumerate(configs.items()):
        if n_replicas is not None:
            training = dataclasses.replace(config.training, seeds=tuple(range(n_replicas)))
            config = dataclasses.replace(config, training=training)
        run = Run.create_or_open(root, experiment, label, config)
        rng = np.random.default_rng(number)
        run.save_arrays("diagnostics", _kept(diagnostics(config, rng, failed), drop))
        run.save_arrays("likelihood", _kept(likelihood(config, rng, failed), drop))
        run.save_arrays("images", _kept(images(config, rng), drop))
        run.append_metrics(metrics(config, rng, failed))
        run.write_provenance("cpu", 1)
        run.mark_done()
        runs.append(run)
    return runs


def _kept(arrays: dict[str, np.ndarray], drop: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {key: array for key, array in arrays.items() if not key.startswith(drop or ("\0",))}


def _interval(middle: np.ndarray, width: float, failed: int | None, floor: float = -np.inf) -> np.ndarray:
    interval = np.stack([np.maximum(middle - width, floor), middle, middle + width], axis=-1)
    if failed is not None:
        interval[failed] = np.nan
    return interval


def diagnostics(config: RunConfig, rng: np.random.Generator, failed: int | None) -> dict[str, np.ndarray]:
    seeds = config.training.seeds
    n = len(seeds)
    bottom_up = config.model.order == "bottom-up"
    level = BOTTOM_UP_NATS if bottom_up else TOP_DOWN_NATS
    if bottom_up and len(config.model.latents) == 1:
        level = (5.2,)
    layers = [f"z{index + 1}" for index in range(len(config.model.latents))]
    alive = np.ones(n, dtype=bool)
    if failed is not None:
        alive[failed] = False
    arrays = {
        "seeds": np.array(seeds),
        "alive": alive,
        "n_images": np.array(500),
        "epsilons": EPSILONS,
        "order": np.array(config.model.order),
        "layers": np.array(layers),
        "collapse_epsilons": np.geomspace(1e-3, 10, 25),
        "step": np.array(config.training.n_steps),
        "died_at": np.where(alive, -1, 120),
        "culprit": np.where(alive, "", "the rate of z1"),
    }
    for index, (name, n_units) in enumerate(zip(layers, config.model.latents, strict=True)):
        nats = level[index] * np.exp(0.1 * rng.standard_normal(n))
        width = 0.004 + 0.03 * level[index]
        arrays[f"information_nats/{name}"] = _interval(nats, width, failed, 0.0)
        on_n = np.full(n, np.nan) if bottom_up and index else nats.copy()
        on_n[~alive] = np.nan
        arrays[f"information_on_n_nats/{name}"] = on_n
        arrays[f"n_paths/{name}"] = np.full(n, 64 if bottom_up else 1000)
        arrays[f"parent_information_nats/{name}"] = _interval(1.3 * nats, 1.4 * width, failed, 0.0)
        arrays[f"reading_nats/{name}"] = _interval(0.9 * nats, width, failed, 0.0)
        rate = nats - (1.8 if bottom_up and index == 1 else 0.0)
        arrays[f"rate_nats/{name}"] = _interval(rate, width, failed)
        arrays[f"kl_standard_nats/{name}"] = _interval(2 * nats + 0.01, width, failed, 0.0)
        if not bottom_up or index == len(layers) - 1:
            arrays[f"kl_prior_nats/{name}"] = _interval(nats, width, failed, 0.0)
        arrays[f"knockout_encoder_nats/{name}"] = _interval(3 * nats, width, failed)
        arrays[f"knockout_model_nats/{name}"] = _interval(1.2 * nats - 0.02, width, failed)
        share = rng.dirichlet(np.full(n_units, 0.4), size=n) * nats[:, None]
        variance = np.minimum(share, 1.0)
        statistic = "twin_covariance" if bottom_up else "residual_variance"
        for key in ("rate_unit_nats", "kl_standard_unit_nats"):
            arrays[f"{key}/{name}"] = _interval(share, 0.01, failed)
        for key in ("burda_variance", statistic):
            arrays[f"{key}/{name}"] = _interval(variance, 0.002, failed)
        fraction = (share[:, :, None] < arrays["collapse_epsilons"]).mean(axis=1)
        if failed is not None:
            fraction[failed] = np.nan
        arrays[f"collapsed_fraction/{name}"] = fraction
        arrays[f"verdict/{name}"] = _verdicts(arrays, name, failed)
    return arrays


def _verdicts(arrays: dict[str, np.ndarray], name: str, failed: int | None) -> np.ndarray:
    j, i, u, k = (
        arrays[f"{key}/{name}"]
        for key in ("parent_information_nats", "information_nats", "reading_nats", "kl_standard_nats")
    )
    words = np.full((len(j), 3), "undecided", dtype="U24")
    for column, epsilon in enumerate(EPSILONS):
        words[(i[:, 0] > epsilon) & (u[:, 0] > epsilon), column] = "active"
        words[(i[:, 0] > epsilon) & (u[:, 2] < epsilon), column] = "coded but unread"
        words[(j[:, 0] > epsilon) & (i[:, 2] < epsilon), column] = "codes noise only"
        words[j[:, 2] < epsilon, column] = "collapsed to a constant"
        words[(j[:, 2] < epsilon) & (k[:, 2] < epsilon), column] = "collapsed to N(0, I)"
    if failed is not None:
        words[failed] = "failed"
    return words


def likelihood(config: RunConfig, rng: np.random.Generator, failed: int | None) -> dict[str, np.ndarray]:
    n, n_images = len(config.training.seeds), config.evaluation.n_likelihood
    largest = config.evaluation.n_samples
    n_samples = np.array([k for k in (1, 10, 100, 1000, 5000) if k < largest] + [largest])
    gain = 0.3 * len(config.model.latents) * (config.model.order == "top-down")
    base = -21.0 + gain + 0.1 * rng.standard_normal((n, 1))
    curve = base - 1.6 * n_samples[None, :] ** -0.3
    bound = _interval(curve, 0.35, failed)
    datum = base + rng.normal(0, 4, (n, n_images))
    return {
        "image_index": np.arange(n_images),
        "n_samples": n_samples,
        "bound_nats": bound,
        "elbo_nats": bound[:, 0],
        "bound_datum_nats": datum,
        "se_nats": np.full((n, n_images), 0.02),
        "ess": rng.uniform(5, 200, (n, n_images)),
        "pareto_k": rng.normal(0.45, 0.15, (n, n_images)),
        "warning": np.array(["Pareto k-hat exceeds 0.7 for 5 % of the images; raise K."] + [""] * (n - 1)),
    }


def images(config: RunConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    side, n = 8, 8
    rows, columns = np.mgrid[0:side, 0:side]
    centre = rng.uniform(2, 5, (n, 2))
    distance = np.hypot(rows[None] - centre[:, :1, None], columns[None] - centre[:, 1:, None])
    x = (np.abs(distance - 2) < 0.8).astype(float).reshape(n, -1)
    soft = np.exp(-((distance - 2) ** 2)).reshape(n, -1)
    arrays = {"image_shape": np.array([side, side]), "x": x, "reconstruction": soft, "samples": soft[::-1]}
    for index in range(len(config.model.latents)):
        noise = rng.uniform(0, 1, (n, 4, side * side))
        blend = index / 5
        arrays[f"resample/z{index + 1}"] = (1 - blend) * soft[:, None] + blend * noise
    return arrays


def metrics(config: RunConfig, rng: np.random.Generator, failed: int | None) -> list[dict[str, object]]:
    n, rows = len(config.training.seeds), []
    bottom_up = config.model.order == "bottom-up"
    level = BOTTOM_UP_NATS if bottom_up else TOP_DOWN_NATS
    shares = [rng.dirichlet(np.full(units, 0.4), size=n) for units in config.model.latents]
    for step in range(0, config.training.n_steps, max(1, config.training.n_steps // 40)):
        t = step / config.training.n_steps
        row: dict[str, object] = {"step": step, "beta": 1.0, "bound_nats": [float(-44 + 22 * (1 - np.exp(-8 * t)))] * n}
        for index, share in enumerate(shares):
            bump = level[index] * (1 - np.exp(-6 * t)) + 0.5 * np.exp(-(((t - 0.2) / 0.1) ** 2))
            shift = 0.8 * t if bottom_up and index == 1 else 0.0
            units = share * bump - shift / share.shape[1]
            if failed is not None:
                units[failed] = np.nan
            row[f"rate_unit_nats/z{index + 1}"] = units.tolist()
            row[f"rate_nats/z{index + 1}"] = units.sum(axis=1).tolist()
        rows.append(row)
    return rows
