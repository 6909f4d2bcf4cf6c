"""Do the modes of a linear beta-VAE go out one by one as beta passes the eigenvalues of the data?

Wang and Ziyin (2022) solve a model that learns y from x through one linear Gaussian layer: a mode of singular value ζ
of E[y x̃ᵀ] (x̃ the whitened x) is given up iff ζ² <= β η_dec², whatever the prior's variance; reconstructing MNIST with
five units, modes go out at the covariance's eigenvalues 5.12, 3.74, 3.25, 2.84, 2.57. Here the model is trained exactly
(no noise is drawn) from random weights, on MNIST and on a regression in five dimensions, and held against the closed
form mode by mode; and beta-VAEs with a hidden layer are trained on grey images with the variance of x fixed at 1.

The paper prints these eigenvalues as ζ, but compares them with β, so they are ζ²; for the same reason its line on
partial collapse means ζ <= √β η_dec, and raising β is identical to raising η_dec. Its regression data are not given:
ours have ζ² from 0.8² to 14 by construction, so that the collapse at about 14 that it shows is no number to compare
with.

Source: Z. Wang, L. Ziyin, "Posterior Collapse of a Linear Latent Variable Model", NeurIPS 2022, arXiv:2205.04009,
theorems 2 and 3, figures 1 to 3.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.claims import Claim, Measured, NotMeasuredError, Runs, Sample, find
from analysis.load import Arrays
from analysis.papers import Curves, Line, Number, Paper
from experiments.published import published
from hvae.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant

PRESETS = ("smoke", "cpu", "paper")
NEED_GPU = ("paper",)

PAPER = Paper(
    citation='Z. Wang, L. Ziyin, "Posterior Collapse of a Linear Latent Variable Model", NeurIPS 2022, '
    "arXiv:2205.04009",
    exhibits="Figures 1 to 3: loss and standard deviations against beta, complete collapse, modes left at six betas",
    limits={
        "smoke": "8x8 digits in place of MNIST, few betas; beta-VAEs of 60 steps, which say nothing.",
        "cpu": "The linear model is the paper's own. The beta-VAEs on MNIST have 128 hidden units, not 2048, and 1500 "
        "steps of Adam at 1e-3 on 10,000 images.",
        "paper": "The beta-VAEs have 2048 hidden units and Adam at 1e-4 as the paper's; the number of steps, which was "
        "not found, is 60,000.",
    },
)

SOURCE = "Wang & Ziyin 2022, theorem 2 (arXiv:2205.04009)"
PRINTED_BETAS = (1.0, 2.75, 3.0, 3.5, 4.0, 6.0)
ZETAS = (14.0**0.5, 3.0, 2.2, 1.5, 0.8)
"""of the regression in five dimensions; its latent has 8 units"""
UNITS = 5

GRID: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "data": "digits-grey", "n_replicas": 2, "betas": (0.1, 0.3, 0.45, 0.6, 0.8), "regression": (3.0, 16.0),
        "tolerance": 1e-7, "n_refined": 400, "seeds": (0, 1), "units": 3,
    },
    "cpu": {
        "data": "mnist-grey", "n_replicas": 6, "betas": tuple(np.round(np.arange(0.4, 6.41, 0.4), 2).tolist()),
        "regression": tuple(np.arange(0.75, 16, 1.0).tolist()), "tolerance": 1e-8, "n_refined": 2000,
        "seeds": (0, 1, 2, 3, 4, 5), "units": UNITS,
    },
    "paper": {
        "data": "mnist-grey", "n_replicas": 10, "betas": tuple(np.round(np.arange(0.2, 6.41, 0.2), 2).tolist()),
        "regression": tuple(np.round(np.arange(0.8, 16, 0.5), 2).tolist()), "tolerance": 1e-8, "n_refined": 4000,
        "seeds": tuple(range(6)), "units": UNITS,
    },
}  # fmt: skip
"""betas keep their distance from every threshold: on one the bound has no curvature, and no training ends"""
OTHER_ETAS = ((0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 1.2))
"""(η_enc, η_dec) beside (1, 1), at β 2 and 3"""

RUN_BETAS: Mapping[str, tuple[float, ...]] = {
    "smoke": (0.3, 1.0),
    "cpu": (1.0, 2.0, 3.0, 4.0, 4.5, 5.5, 6.0, 7.0),
    "paper": (1.0, 2.0, 2.75, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0),
}


def label(beta: float) -> str:
    """The name of a beta-VAE."""
    return f"beta {beta:g}"


def configs(preset: str) -> dict[str, RunConfig]:
    """A beta-VAE for each beta: 2, 8 or 11."""
    base = {"smoke": _smoke, "cpu": _cpu, "paper": _paper}[preset]()
    return {
        label(beta): dataclasses.replace(base, objective=ObjectiveConfig(beta=Constant(beta)))
        for beta in RUN_BETAS[preset]
    }


def _vae(
    data: DataConfig, hidden: int, units: int, training: TrainingConfig, evaluation: EvaluationConfig
) -> RunConfig:
    model = ModelConfig(
        latents=(units,),
        hidden=((hidden,),),
        activation=("relu",),
        observation="gaussian",
        observation_variance="fixed",
    )
    return RunConfig(data, model, ObjectiveConfig(), training, evaluation)


def _smoke() -> RunConfig:
    return _vae(
        DataConfig("digits-grey"),
        16,
        3,
        TrainingConfig(seeds=(0, 1), n_steps=60, batch_size=64, learning_rate=Constant(5e-3)),
        EvaluationConfig(n_images=32, max_paths=16, n_likelihood=16, n_samples=20, n_bootstrap=50),
    )


def _cpu() -> RunConfig:
    return _vae(
        DataConfig("mnist-grey", n_train=10_000),
        128,
        UNITS,
        TrainingConfig(
            seeds=GRID["cpu"]["seeds"], n_steps=1500, batch_size=100, learning_rate=Constant(1e-3), log_every_steps=100
        ),
        EvaluationConfig(n_images=256, max_paths=256, n_likelihood=100, n_samples=200),
    )


def _paper() -> RunConfig:
    return _vae(
        DataConfig("mnist-grey"),
        2048,
        UNITS,
        TrainingConfig(
            seeds=GRID["paper"]["seeds"], n_steps=60_000, batch_size=100, learning_rate=Constant(1e-4),
            log_every_steps=1000, checkpoint_every_steps=10_000,
        ),
        EvaluationConfig(n_likelihood=1000),
    )  # fmt: skip


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None]
) -> dict[str, Callable[[], Any]]:
    """`images`: the linear model on all training images; `regression`: on y from x in five dimensions."""
    from hvae.evaluation.staircase import Setting, Task, staircase_rows

    knobs = GRID[preset]
    others = [Setting(beta, *etas) for beta in (2.0, 3.0) for etas in OTHER_ETAS]

    def trained(tasks: list[Task], settings: list[Setting], units: int) -> Any:
        return staircase_rows(tasks, settings, units, knobs["tolerance"], knobs["n_refined"], say)

    def images() -> Any:
        from hvae.data import load
        from hvae.evaluation.ppca import spectrum

        task = Task.reconstruction(spectrum(load(knobs["data"], data_dir=data_dir).train))
        printed = PRINTED_BETAS if knobs["data"].startswith("mnist") else ()
        betas = sorted({*knobs["betas"], *printed})
        return trained([task] * knobs["n_replicas"], [Setting(beta) for beta in betas] + others, knobs["units"])

    def regression() -> Any:
        tasks = [Task.regression(ZETAS, seed) for seed in range(knobs["n_replicas"])]
        return trained(tasks, [Setting(beta) for beta in knobs["regression"]] + others, 8)

    return {"images": images, "regression": regression}


# -- what is measured ------------------------------------------------------------------------------

PARTS = {"images": "images", "regression": "regression in five dimensions"}


def part(measured: Measured, name: str) -> Arrays:
    """The rows of a part."""
    if name not in measured:
        raise NotMeasuredError(f"the part '{name}' is not measured yet")
    return measured[name]


def per_replica(rows: Arrays, values: Any, keep: Any = None) -> Sample:
    """The largest of the ``values`` of each replica's rows, of those to ``keep``."""
    replicas = np.unique(rows["replica"])
    chosen = np.ones(len(values), bool) if keep is None else keep
    if not chosen.any():
        raise NotMeasuredError("none of the settings that it speaks of is among those of this preset")
    largest = [np.max(values[(rows["replica"] == replica) & chosen]) for replica in replicas]
    return Sample(np.array(largest, dtype=float), tuple(int(replica) for replica in replicas))


def _modes(rows: Arrays, name: str) -> Any:
    """[rows, modes] of a quantity."""
    n = sum(key.startswith(f"{name}_") for key in rows)
    return np.stack([rows[f"{name}_{mode + 1}"] for mode in range(n)], axis=-1)


def furthest(name: str) -> Callable[[Measured], tuple[Sample, None]]:
    """Largest deviation of a singular value or standard deviation from its closed form, over settings and modes."""

    def measure(measured: Measured) -> tuple[Sample, None]:
        rows = part(measured, name)
        off = [
            np.abs(_modes(rows, key) - _modes(rows, f"best_{key}")).max(-1) for key in ("decoder", "encoder", "sigma")
        ]
        return per_replica(rows, np.max(off, axis=0)), None

    return measure


def miscounted(name: str) -> Callable[[Measured], tuple[Sample, None]]:
    """Largest difference between the modes that are left and the singular values with ζ² > β η_dec²."""

    def measure(measured: Measured) -> tuple[Sample, None]:
        rows = part(measured, name)
        return per_replica(rows, np.abs(rows["modes"] - rows["best_modes"])), None

    return measure


def wrong_signs(name: str) -> Callable[[Measured], tuple[Sample, None]]:
    """Whether the origin is a maximum at any setting where it is not the global one, or the other way round: 1 or 0."""

    def measure(measured: Measured) -> tuple[Sample, None]:
        rows = part(measured, name)
        return per_replica(rows, (rows["origin_curvature"] <= 0) != (rows["best_modes"] == 0)), None

    return measure


def _plain(rows: Arrays) -> Any:
    return (rows["eta_enc"] == 1) & (rows["eta_dec"] == 1)


def modes_at(beta: float) -> Callable[[Measured], Sample]:
    """[R] modes left on images at this beta, both η 1."""

    def measure(measured: Measured) -> Sample:
        rows = part(measured, "images")
        return per_replica(rows, rows["modes"], _plain(rows) & (rows["beta"] == beta))

    return measure


def eigenvalue(mode: int) -> Callable[[Measured], Sample]:
    """[R] ζ² of a mode as training finds it: λ² η_enc² + β η_dec², at β 1 and both η 1."""

    def measure(measured: Measured) -> Sample:
        rows = part(measured, "images")
        values = rows.get(f"decoder_{mode}", np.full(len(rows["beta"]), np.nan)) ** 2 + 1.0
        return per_replica(rows, values, _plain(rows) & (rows["beta"] == 1.0))

    return measure


def active_units(runs: Runs, beta: float) -> Sample:
    """[R] active units of a beta-VAE."""
    run = find(runs, label(beta))
    return Sample(run.layers[0].active_units(), run.seeds)


def information(runs: Runs, beta: float, end: int) -> Sample:
    """[R] an end of the interval of I(x; z1), nats."""
    run = find(runs, label(beta))
    return Sample(run.layers[0].interval("information_nats")[:, end], run.seeds)


def betas_of(runs: Runs) -> list[float]:
    """The betas of the runs that are evaluated, rising."""
    known = sorted({beta for betas in RUN_BETAS.values() for beta in betas})
    return [beta for beta in known if label(beta) in runs and runs[label(beta)].evaluated]


def collapse_beta(runs: Runs) -> Sample:
    """[R] beta of complete collapse: midway between the last beta with an active unit and the next."""
    betas = betas_of(runs)
    if len(betas) < 2:
        raise NotMeasuredError("fewer than two betas are measured")
    counts = np.stack([active_units(runs, beta).values for beta in betas])  # [betas, R]
    found = []
    for replica in counts.T:
        alive = [place for place, count in enumerate(replica) if count > 0]
        last = alive[-1] if alive else -1
        bracketed = 0 <= last < len(betas) - 1 and bool(np.isfinite(replica).all())
        found.append((betas[last] + betas[last + 1]) / 2 if bracketed else np.nan)
    if not np.isfinite(found).any():
        raise NotMeasuredError("no beta between those of this preset is where the last unit goes out")
    return Sample(np.array(found), runs[label(betas[0])].seeds)


# -- what the source says, with margins fixed before any run of a preset but `smoke` ----------------------

EXACT = 1e-4
"""of singular values and deviations, trained to gradients of 1e-8 (smoke 1e-7): near a threshold the bound is flat"""
EPSILON_NATS = 0.1
UNITS_MARGIN = 2.0

claims = (
    *(
        Claim(
            statement=f"Training from random weights finds the closed form, mode by mode ({words}).",
            source=SOURCE,
            quantity="the largest deviation of U, V and the deviations of q from theorem 2, over all betas and etas,",
            measure=furthest(name),
            relation="below",
            margin=EXACT,
            unit="",
            reads="measured",
        )
        for name, words in PARTS.items()
    ),
    *(
        Claim(
            statement=f"A staircase: the modes that are left are those with ζ² above β η_dec² ({words}).",
            source=SOURCE,
            quantity="the largest difference of the two counts, over all betas and etas,",
            measure=miscounted(name),
            relation="below",
            margin=0.5,
            unit="modes",
            reads="measured",
        )
        for name, words in PARTS.items()
    ),
    *(
        Claim(
            statement=f"The origin is a maximum exactly where everything collapses ({words}).",
            source="Wang & Ziyin 2022, theorem 3 (arXiv:2205.04009)",
            quantity="1 if the sign of the Hessian at 0 says otherwise at any beta and eta, else 0,",
            measure=wrong_signs(name),
            relation="below",
            margin=0.5,
            unit="",
            reads="measured",
        )
        for name, words in PARTS.items()
    ),
    Claim(
        statement="A beta-VAE with a hidden layer loses its units as beta rises.",
        source="Wang & Ziyin 2022, section 5 (arXiv:2205.04009)",
        quantity="active units at beta 1 minus those at beta 4,",
        measure=lambda runs: (active_units(runs, 1.0), active_units(runs, 4.0)),
        relation="above",
        margin=UNITS_MARGIN,
        unit="units",
    ),
    Claim(
        statement="It is not collapsed yet below the largest eigenvalue of the data.",
        source="Wang & Ziyin 2022, figure 2 (arXiv:2205.04009)",
        quantity="the lower end of I(x; z1) at beta 4",
        measure=lambda runs: (information(runs, 4.0, 0), None),
        relation="above",
        margin=EPSILON_NATS,
    ),
    Claim(
        statement="It is collapsed altogether above it.",
        source="Wang & Ziyin 2022, figure 2 (arXiv:2205.04009)",
        quantity="the upper end of I(x; z1) at beta 7",
        measure=lambda runs: (information(runs, 7.0, 2), None),
        relation="below",
        margin=EPSILON_NATS,
    ),
)

EIGENVALUE = "covariance eigenvalue {} (called zeta_i in text; acts as zeta_i^2)"

numbers = (
    *(
        Number(
            published("wang_ziyin2022", "Sec. 5 / Fig. 3", EIGENVALUE.format(mode), "eigenvalue"),
            eigenvalue(mode),
            tolerance=0.01,
            comparable=("cpu", "paper"),
            reads="measured",
        )
        for mode in range(1, 6)
    ),
    *(
        Number(
            published(
                "wang_ziyin2022", "Fig. 3", f"beta-VAE d1=5, eta_dec=eta_enc=1, beta={beta:g}", "remaining modes"
            ),
            modes_at(beta),
            tolerance=0.5,
            comparable=("cpu", "paper"),
            reads="measured",
        )
        for beta in PRINTED_BETAS
    ),
    Number(
        published("wang_ziyin2022", "Fig. 2", "nonlinear beta-VAE", "beta of complete collapse (approx.)"),
        collapse_beta,
        tolerance=1.0,
        comparable=("cpu", "paper"),
    ),
)


# -- figures ---------------------------------------------------------------------------------------


def _lines(rows: Arrays, name: str) -> dict[str, Line]:
    """A line for every mode of a quantity against beta, both η 1."""
    kept = _plain(rows)
    betas, replicas = np.unique(rows["beta"][kept]), np.unique(rows["replica"])
    ours, best = (_modes(rows, key)[kept].reshape(len(replicas), len(betas), -1) for key in (name, f"best_{name}"))
    order = np.argsort(rows["beta"][kept].reshape(len(replicas), -1)[0])
    ours, best = ours[:, order], best[:, order]
    return {
        f"mode {mode + 1}": Line(betas, ours[:, :, mode].T, (betas, best[0, :, mode])) for mode in range(ours.shape[-1])
    }


def _of_parts(quantity: Callable[[Arrays], dict[str, Line]]) -> Callable[[Runs, Measured], dict[str, dict[str, Line]]]:
    def panels(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
        return {title: quantity(measured[name]) for name, title in PARTS.items() if name in measured}

    return panels


def _steps(rows: Arrays) -> dict[str, Line]:
    kept = _plain(rows)
    betas, replicas = np.unique(rows["beta"][kept]), np.unique(rows["replica"])
    order = np.argsort(rows["beta"][kept].reshape(len(replicas), -1)[0])
    ours, best = (rows[key][kept].reshape(len(replicas), -1)[:, order] for key in ("modes", "best_modes"))
    return {"modes left": Line(betas, ours.T, (betas, best[0]))}


def _units(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    betas = betas_of(runs)
    if not betas:
        return {}
    counts = np.stack([active_units(runs, beta).values for beta in betas])
    nats = np.stack([information(runs, beta, 1).values for beta in betas])
    return {"active units": {"": Line(np.array(betas), counts)}, "I(x; z1) in nats": {"": Line(np.array(betas), nats)}}


curves = (
    Curves(
        "staircase",
        "The staircase of modes",
        "Modes left by training from random weights (points, one per replica; they lie on each other) and by theorem 2 "
        "(line), against β at η_enc = η_dec = 1. After figure 3.",
        "β",
        "modes left",
        _of_parts(_steps),
    ),
    Curves(
        "decoder-modes",
        "Singular values of the decoder",
        "Points: trained, one per replica; lines: theorem 2. A mode is 0 from β = ζ² / η_dec² on.",
        "β",
        "singular value",
        _of_parts(lambda rows: _lines(rows, "decoder")),
    ),
    Curves(
        "deviations",
        "Standard deviations of q",
        "Points: trained, one a replica; lines: theorem 2. At 1 the posterior of a mode is its prior. After figure 1.",
        "β",
        "standard deviation of q",
        _of_parts(lambda rows: _lines(rows, "sigma")),
    ),
    Curves(
        "vae",
        "With a hidden layer",
        "Active units and information of beta-VAEs with one hidden layer, variance of x fixed at 1, against β; one "
        "point per replica, the line joins their means. After figure 2, which shows complete collapse at about 5.",
        "β",
        "units, or nats",
        _units,
    ),
)


if __name__ == "__main__":
    from hvae.cli import main

    sys.exit(main(["run", "wang-staircase", *sys.argv[1:]]))
