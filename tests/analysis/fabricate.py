"""Run directories with plausible arrays, for tests only: nothing here was trained."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvae.diagnosis.card import Card
from hvae.lab.config import RunConfig
from hvae.lab.runs.run import Run
from hvae.vocabulary import RULE

EPSILONS = np.array([0.03, 0.1, 0.3])
BOTTOM_UP_NATS = (4.8, 1.5, 0.03, 0.001, 0.0)
TOP_DOWN_NATS = (1.6, 2.2, 0.9, 0.2, 0.02)

CARD = Card(
    "digits-threshold", (8, 8), "binary", n_test=500, test_range=(0.0, 1.0), n_distinct=2, n_train=1297,
    train_range=(0.0, 1.0), share_of_ones=0.3, constant=(0, 32, 39),
)  # fmt: skip


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
        if "halfway" not in drop:
            run.save_arrays("halfway", halfway(run.load_arrays("likelihood"), rng))
        run.append_metrics(metrics(config, rng, failed))
        run.keep_data("0" * 64, lambda: [CARD])
        with run.session("cpu", 1):
            pass
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
    if bottom_up and len(config.model.units) == 1:
        level = (5.2,)
    level = (*level, *[0.0] * (len(config.model.units) - len(level)))
    layers = [f"z{index + 1}" for index in range(len(config.model.units))]
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
        "rule": np.array(RULE),
        "died_at": np.where(alive, -1, 120),
        "culprit": np.where(alive, "", "the rate of z1"),
    }
    for index, (name, n_units) in enumerate(zip(layers, config.model.units, strict=True)):
        nats = level[index] * np.exp(0.1 * rng.standard_normal(n))
        width = 0.004 + 0.03 * level[index]
        arrays[f"information_nats/{name}"] = _interval(nats, width, failed, 0.0)
        on_n = np.full(n, np.nan) if bottom_up and index else nats.copy()
        on_n[~alive] = np.nan
        arrays[f"information_on_n_nats/{name}"] = on_n
        arrays[f"n_paths/{name}"] = np.full(n, 64 if bottom_up else 1000)
        arrays[f"parent_information_nats/{name}"] = _interval(1.3 * nats, 1.4 * width, failed, 0.0)
        cap = np.log(65)
        arrays[f"used_nats/{name}"] = np.minimum(_interval(1.1 * nats, width, failed), cap)
        arrays[f"used_cap_nats/{name}"] = np.where(alive, cap, np.nan)
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


def halfway(curve: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The ELBO of the same images at half of training, half a nat lower."""
    end = curve.get("elbo_datum_nats", np.zeros((0, 0)))
    return {"elbo_datum_nats": end - 0.5 + 0.1 * rng.standard_normal(end.shape)}


def likelihood(config: RunConfig, rng: np.random.Generator, failed: int | None) -> dict[str, np.ndarray]:
    n, n_images = len(config.training.seeds), config.evaluation.n_likelihood
    largest = config.evaluation.n_samples
    n_samples = np.array([k for k in (1, 10, 100, 1000, 5000) if k < largest] + [largest])
    gain = 0.3 * len(config.model.units) * (config.model.order == "top-down")
    base = -21.0 + gain + 0.1 * rng.standard_normal((n, 1))
    curve = base - 1.6 * n_samples[None, :] ** -0.3
    bound = _interval(curve, 0.35, failed)
    return {
        "image_index": np.arange(n_images),
        "n_samples": n_samples,
        "bound_nats": bound,
        "elbo_nats": bound[:, 0],
        "bound_datum_nats": of_images(bound[:, -1], n_images),
        "elbo_datum_nats": of_images(bound[:, 0], n_images),
        "se_nats": np.full((n, n_images), 0.02),
        "ess": rng.uniform(5, 200, (n, n_images)),
        "pareto_k": rng.normal(0.45, 0.15, (n, n_images)),
        "floor_nats": np.tile([-27.0, -26.0, -25.0], (n, 1)),
        "floor_datum_nats": np.full((n, n_images), -26.0),
        "floor_fitted_to": np.array("the training data"),
        "floor_refused": np.full(n, ""),
        "n_columns": np.array(64),
        "warning": np.array(["Pareto k-hat exceeds 0.7 for 5 % of the images; raise K."] + [""] * (n - 1)),
    }


def of_images(interval: np.ndarray, n_images: int) -> np.ndarray:
    """[R, B] values of images with the middles of `interval` [R, 3] as their means: the same images for every run,
    4 nats apart, and 0.3 nats by which each seed differs on each."""
    own = np.random.default_rng(int(1e6 * abs(np.nansum(interval))))
    values = np.random.default_rng(n_images).normal(0, 4, n_images) + 0.3 * own.normal(size=(len(interval), n_images))
    return interval[:, 1, None] + values - values.mean(axis=1, keepdims=True)


def images(config: RunConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    side, n = 8, 8
    rows, columns = np.mgrid[0:side, 0:side]
    centre = rng.uniform(2, 5, (n, 2))
    distance = np.hypot(rows[None] - centre[:, :1, None], columns[None] - centre[:, 1:, None])
    x = (np.abs(distance - 2) < 0.8).astype(float).reshape(n, -1)
    soft = np.exp(-((distance - 2) ** 2)).reshape(n, -1)
    arrays = {"image_shape": np.array([side, side]), "x": x, "reconstruction": soft, "samples": soft[::-1]}
    for index in range(len(config.model.units)):
        noise = rng.uniform(0, 1, (n, 4, side * side))
        blend = min(1.0, index / 5)
        arrays[f"resample/z{index + 1}"] = (1 - blend) * soft[:, None] + blend * noise
    return arrays


def metrics(config: RunConfig, rng: np.random.Generator, failed: int | None) -> list[dict[str, object]]:
    n, rows = len(config.training.seeds), []
    bottom_up = config.model.order == "bottom-up"
    level = BOTTOM_UP_NATS if bottom_up else TOP_DOWN_NATS
    level = (*level, *[0.0] * (len(config.model.units) - len(level)))
    shares = [rng.dirichlet(np.full(units, 0.4), size=n) for units in config.model.units]
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
            row[f"active_units/z{index + 1}"] = (units > 0.05).sum(axis=1).tolist()
        rows.append(row)
    return rows


GAP_IMAGES, GAP_SAMPLES = 40, (1, 10, 100)


def measure_further(run: Run, *, n_images: int = GAP_IMAGES, failed: int | None = None) -> Run:
    """What `hvae evaluate --likelihood annealed,exact,gap` leaves behind, with plausible numbers."""
    rng = np.random.default_rng(7)
    for name, make in (("annealed", annealed), ("exact", exact), ("gap", gap)):
        run.save_arrays(name, make(run.config, rng, n_images, failed))
    return run


def refuse(run: Run, name: str, sentence: str) -> Run:
    """The file of a measure that could not be done: its settings and the reason, and no number."""
    n = len(run.config.training.seeds)
    common = _settings(name, run.config, GAP_IMAGES)
    run.save_arrays(name, common | {"refused": np.array([sentence] * n)})
    return run


def _settings(name: str, config: RunConfig, n_images: int) -> dict[str, np.ndarray]:
    counts = {"n_images": n_images, "n_test": 360, "seed": config.evaluation.seed, "step": config.training.n_steps}
    if name != "exact":
        counts |= {"n_temperatures": 400, "n_chains": 32, "n_leapfrog": 4, "n_largest": GAP_SAMPLES[-1]}
    if name == "gap":
        counts["n_draws"] = 4
    return {key: np.array(value) for key, value in counts.items()}


def annealed(config: RunConfig, rng: np.random.Generator, n_images: int, failed: int | None) -> dict[str, np.ndarray]:
    n = len(config.training.seeds)
    k = np.array(GAP_SAMPLES)
    level = -20.0 + 0.3 * rng.standard_normal((n, 1))

    def curve(shift: float) -> np.ndarray:
        return _interval(level + shift - 1.9 * k[None, :] ** -0.35, 0.9, failed)

    test, simulated = curve(0.0), curve(-1.5)
    lower, width = level[:, 0] - 1.6, 0.08 + 0.04 * rng.uniform(size=n)
    arrays = _settings("annealed", config, n_images) | {
        "path": np.array("encoder"),
        "device": np.array(["cpu"] * n),
        "seconds": np.full(n, 12.5),
        "n_samples": k,
        "annealed_nats": _interval(level[:, 0] - 0.1, 0.9, failed),
        "annealed_datum_nats": of_images(_interval(level[:, 0] - 0.1, 0.9, failed), n_images),
        "annealed_se_nats": np.full((n, n_images), 0.05),
        "annealed_ess": rng.uniform(5, 32, (n, n_images)),
        "annealed_pareto_k": rng.normal(0.1, 0.1, (n, n_images)),
        "elbo_nats": test[:, 0],
        "curve_nats": test,
        "curve_pareto_k": rng.normal(0.55, 0.15, (n, n_images)),
        "acceptance": np.full(n, 0.81),
        "warning": np.array([""] * n, dtype="U99"),
        "curve_warning": np.array([""] * n, dtype="U99"),
        "note": np.array([""] * n),
        "simulated_elbo_nats": simulated[:, 0],
        "simulated_curve_nats": simulated,
        "simulated_lower_nats": _interval(lower, 0.8, failed),
        "simulated_upper_nats": _interval(lower + width, 0.8, failed),
        "sandwich_nats": _interval(width, 0.03, failed),
        "simulated_lower_datum_nats": level + rng.normal(0, 4, (n, n_images)),
        "simulated_upper_datum_nats": level + rng.normal(0, 4, (n, n_images)),
        "simulated_warning": np.array([""] * n, dtype="U99"),
        "refused": np.array([""] * n),
    }
    if failed is not None:
        arrays["curve_pareto_k"][failed] = arrays["annealed_pareto_k"][failed] = np.nan
        for key in ("warning", "curve_warning", "simulated_warning"):
            arrays[key][failed] = "failed"
    return arrays


def exact(config: RunConfig, rng: np.random.Generator, n_images: int, failed: int | None) -> dict[str, np.ndarray]:
    n, depth = len(config.training.seeds), len(config.model.units)
    level = -20.0 + 0.3 * rng.standard_normal(n)
    layers = [0.9 / (index + 1) + 0.1 * rng.uniform(size=n) for index in range(depth)]
    total = np.sum(layers, axis=0)
    arrays = _settings("exact", config, n_images) | {
        "log_px_nats": _interval(level, 0.9, failed),
        "log_px_datum_nats": of_images(_interval(level, 0.9, failed), n_images),
        "elbo_nats": _interval(level - total, 0.9, failed),
        "total_gap_nats": _interval(total, 0.1, failed),
        "reference": np.array("LinearGaussian"),
        "error": np.zeros(n),
        "refused": np.array([""] * n),
        "gaps_refused": np.array([""] * n),
    }
    for index, values in enumerate(layers, start=1):
        arrays[f"layer_gap_nats/z{index}"] = _interval(values, 0.05, failed)
        arrays[f"rate_exact_nats/z{index}"] = _interval(values + 1.0, 0.05, failed)
    return arrays


def gap(config: RunConfig, rng: np.random.Generator, n_images: int, failed: int | None) -> dict[str, np.ndarray]:
    """z1 is trusted, the top layer is not; q of the top is dead where the exact posterior is not."""
    n, depth = len(config.training.seeds), len(config.model.units)
    level = -20.0 + 0.3 * rng.standard_normal(n)
    layers = [0.9 / (index + 1) + 0.1 * rng.uniform(size=n) for index in range(depth)]
    total = np.sum(layers, axis=0)
    arrays = _settings("gap", config, n_images) | {
        "log_px_nats": _interval(level, 0.9, failed),
        "log_px_direction": np.array(["lower"] * n),
        "elbo_nats": _interval(level - total, 0.9, failed),
        "total_gap_nats": _interval(total, 0.1, failed),
        "high_pareto_k_share": np.full(n, 0.03),
        "approximation_nats": _interval(0.4 * total, 0.1, failed),
        "amortisation_nats": _interval(0.6 * total, 0.1, failed),
        "remainder_nats": _interval(np.full(n, -0.07), 0.02, failed),
        "warning": np.array([""] * n, dtype="U99"),
        "suboptimality_refused": np.array([""] * n),
        "posterior_refused": np.array([""] * n),
        "posterior_warning": np.array([""] * n, dtype="U99"),
        "refused": np.array([""] * n),
    }
    for index, values in enumerate(layers, start=1):
        top = index == depth
        units = config.model.units[index - 1]
        arrays |= {
            f"layer_gap_nats/z{index}": _interval(values, 0.3 if top else 0.06, failed),
            f"layer_gap_se_nats/z{index}": np.full(n, 0.02),
            f"layer_gap_bias_nats/z{index}": np.full(n, 0.2 if top else 0.001),
            f"trusted/z{index}": np.full(n, not top),
            f"reason/z{index}": np.array(["the effective sample size is below 200 for 12 % of the data" * top] * n),
            f"proposal/z{index}": np.array(["refined" if top else "widened"] * n),
            f"freed_nats/z{index}": _interval(0.5 * values, 0.05, failed),
            f"posterior_active/z{index}": np.full(n, float(units)),
            f"encoder_active/z{index}": np.full(n, 0.0 if top else float(units)),
            f"posterior_share/z{index}": np.full((n, units, 3), 0.5),
            f"encoder_share/z{index}": np.full((n, units, 3), 0.0 if top else 0.5),
        }
        if failed is not None:
            arrays[f"posterior_active/z{index}"][failed] = np.nan
            arrays[f"posterior_share/z{index}"][failed] = np.nan
            arrays[f"reason/z{index}"] = np.array(arrays[f"reason/z{index}"], dtype="U99")
            arrays[f"reason/z{index}"][failed] = "failed"
    return arrays
