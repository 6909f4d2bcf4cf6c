"""Do the modes of a linear beta-VAE go out one by one as beta passes the eigenvalues of the data?

Wang and Ziyin (2022) solve a model that learns y from x through one linear Gaussian layer. A mode of singular value ζ
of E[y x̃ᵀ] (x̃ the whitened x) is given up iff ζ² <= β η_dec², for any variance of the prior. With five units on MNIST,
modes go out at the covariance's eigenvalues 5.12, 3.74, 3.25, 2.84, 2.57. Here the model is trained exactly (no noise
is drawn) from random weights, on MNIST and on a regression in five dimensions. It is compared with the closed form mode
by mode. Beta-VAEs with a hidden layer are trained on grey images with the variance of x fixed at 1. Each is trained
from random weights, and once more from the end of training at beta 1. (In a trial on other seeds at beta 4 the first
had no unit after 8000 steps, the second two or three. So the objective alone does not decide where a net collapses.)

The paper prints these eigenvalues as ζ, but compares them with β, so they are ζ². For the same reason its line on
partial collapse means ζ <= √β η_dec, and raising β is identical to raising η_dec (the paper writes lowering). Its
regression data are not given. Ours have ζ² from 0.8² to 14 by construction, so the paper's collapse at about 14 is no
number to compare with.

Source: Z. Wang, L. Ziyin, "Posterior Collapse of a Linear Latent Variable Model", NeurIPS 2022, arXiv:2205.04009,
theorems 2 and 3, figures 1 to 3.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.papers import Number, Paper
from hvae.experiments.shared.published import published
from hvae.experiments.wang_staircase.claims import (
    CONTINUED,
    RANDOM,
    RUN_BETAS,
    START_BETA,
    STARTS,
    collapse_beta,
    eigenvalue,
    modes_at,
)
from hvae.experiments.wang_staircase.claims import claims as claims
from hvae.experiments.wang_staircase.claims import panels as panels
from hvae.experiments.wang_staircase.curves import curves as curves
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, Stage, TrainingConfig
from hvae.schedules import Constant

PRESETS = ("smoke", "cpu", "paper")
KEPT = ("staircase", "decoder-modes", "vae")
NEED_GPU = ("paper",)
ON_CPU = ("images", "regression")
"""parts that stay on the CPU: they read no run"""

PAPER = Paper(
    citation='Z. Wang, L. Ziyin, "Posterior Collapse of a Linear Latent Variable Model", NeurIPS 2022, '
    "arXiv:2205.04009",
    exhibits="Figures 1 to 3: loss and standard deviations against beta, complete collapse, modes left at six betas",
    limits={
        "smoke": "8x8 digits in place of MNIST, few betas. Beta-VAEs of 30 steps, which say nothing.",
        "cpu": "The linear model is that of theorem 2, trained exactly. The paper's figure of modes may show it or a "
        "net with a hidden layer; this was not found. The width of 8 in its regression is taken for 8 latents. The "
        "beta-VAEs on MNIST have 128 hidden units (2048), and 1500 steps of Adam at 1e-3 on 10,000 images.",
        "paper": "The beta-VAEs have 2048 hidden units and Adam at 1e-4 as the paper's. The number of steps was not "
        "found; it is 60,000.",
    },
)

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
"""No beta is near a threshold: there the bound has no curvature, and training never ends."""
OTHER_ETAS = ((0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 1.2))
"""(η_enc, η_dec) other than (1, 1), at β 2 and 3"""


def configs(preset: str) -> dict[str, RunConfig]:
    """A beta-VAE for each beta and start: smoke 3 runs, cpu 15, paper 21."""
    base = {"smoke": _smoke, "cpu": _cpu, "paper": _paper}[preset]()
    training = base.training

    def fresh(beta: float) -> RunConfig:
        return dataclasses.replace(base, objective=ObjectiveConfig(beta=Constant(beta)))

    def continued(beta: float) -> RunConfig:
        stage = Stage(training.n_steps, ObjectiveConfig(beta=Constant(beta)), training.learning_rate)
        longer = dataclasses.replace(training, n_steps=2 * training.n_steps, then=(stage,))
        return dataclasses.replace(fresh(START_BETA), training=longer)

    betas = RUN_BETAS[preset]
    return {STARTS[RANDOM](beta): fresh(beta) for beta in betas} | {
        STARTS[CONTINUED](beta): continued(beta) for beta in betas if beta != START_BETA
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
        TrainingConfig(seeds=(0, 1), n_steps=30, batch_size=64, learning_rate=Constant(5e-3)),
        EvaluationConfig(n_images=32, max_paths=16, n_likelihood=16, n_samples=20),
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
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """`images`: the linear model on all training images; `regression`: on y from x in five dimensions."""
    from hvae.experiments.wang_staircase.staircase import Setting, Task, staircase_rows

    knobs = GRID[preset]
    others = [Setting(beta, *etas) for beta in (2.0, 3.0) for etas in OTHER_ETAS]

    def trained(tasks: list[Task], settings: list[Setting], units: int) -> Any:
        return staircase_rows(tasks, settings, units, knobs["tolerance"], knobs["n_refined"], say)

    def images() -> Any:
        from hvae.data import load
        from hvae.experiments.shared.linear.training import spectrum

        task = Task.reconstruction(spectrum(load(knobs["data"], data_dir=data_dir).train))
        printed = PRINTED_BETAS if knobs["data"].startswith("mnist") else ()
        betas = sorted({*knobs["betas"], *printed})
        return trained([task] * knobs["n_replicas"], [Setting(beta) for beta in betas] + others, knobs["units"])

    def regression() -> Any:
        tasks = [Task.regression(ZETAS, seed) for seed in range(knobs["n_replicas"])]
        return trained(tasks, [Setting(beta) for beta in knobs["regression"]] + others, 8)

    return {"images": images, "regression": regression}


# -- printed numbers -------------------------------------------------------------------------------

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
            arm="the linear model, trained exactly",
        )
        for beta in PRINTED_BETAS
    ),
    *(
        Number(
            published("wang_ziyin2022", "Fig. 2", "nonlinear beta-VAE", "beta of complete collapse (approx.)"),
            lambda runs, start=start: collapse_beta(runs, start),
            tolerance=1.0,
            comparable=("cpu", "paper"),
            arm=start if start == RANDOM else f"{start}, added after the first was seen",
        )
        for start in STARTS
    ),
)
