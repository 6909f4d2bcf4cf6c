"""Does a two-layer linear VAE train to its closed form, and does its top layer collapse while the lower one codes?

Dang et al. (2024) solve the linear VAE of two latent layers in which q(z1|x) has a given deviation σ1. For each mode θ
of the data they give λ (what z1 codes of x) and ω (what p(z1|z2) reads of z2), as functions of σ1, η_enc, η_dec and the
weights β1, β2 of the two rates. The questions here:

- Does training from random weights arrive there, at every printed setting and along β1, β2 and η?
- Does the top layer collapse beyond β2 = max(√β1 σ1 θ, β1 σ1²) / η_dec², while the lower one still codes?
- At some optima z2 codes only the noise of z1, with a rate above 0 and I(x; z2) = 0. Does the verdict detect this?
- Do β1, β2 and η act in the same direction on a ReLU stack on MNIST?

Exact parts (`two_layers`) train on the covariance of the data, with all its eigenvalues, by L-BFGS to a gradient below
1e-7; six starts a setting. σ1 and η of 0.5 each are the defaults of the authors' linear script. If Σ2 is given too
(`two_layer` with sigma2; theorem 5), the closed form was derived here. The authors' code has the same strengths with
another threshold: √β1 β2 c² σ2² / σ1 in place of β2 c² σ2² / (√β1 σ1), with c = η_dec / η_enc. The two agree where β1
is 1, as in the sweep. The ten values to compare with are the authors' formula, evaluated.

Runs have unit variances in p(x|z1), where the paper has η². -ELBO times η² is the same objective with weights β η², and
so η enters. ReLU stacks learn one deviation per unit in q(z1|x), p(z1|z2) and q(z2|z1). None depends on the datum, so η
of z1 and z2 is a matter of scale. Their ReLU script halves the divergences and not the squared error. So the weights,
or η², count half against the paper's formula (η = 0.5 there is 0.35 here). It clamps divergences at 0. The linear
script drops constant traces, and its `Sigma` is a deviation, not a variance.

Source: H. A. Dang, T. H. Tran, T. Nguyen, N. Ho, "Beyond Vanilla Variational Autoencoders: Detecting Posterior Collapse
in Conditional and Hierarchical Variational Autoencoders", ICLR 2024, arXiv:2306.05023, theorem 3 and its figures.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.claims import Measured, Sample, find_part
from hvae.analysis.papers import Number, Paper
from hvae.experiments.dang_strengths.claims import BETA2_OF_BETA1, BETAS, ETAS, HALF, RELU, relu, sample
from hvae.experiments.dang_strengths.claims import claims as claims
from hvae.experiments.dang_strengths.curves import curves as curves
from hvae.experiments.shared.published import published
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant, LinearWarmup

PRESETS = ("smoke", "cpu", "paper")
KEPT = ("strengths-beta2", "strengths-given", "relu-rates")
NEED_GPU = ("paper",)
ON_CPU = ("unit", "beta2", "beta1", "eta", "given", "verdicts", "linear-runs")
"""parts that stay on the CPU: they read no run, or its weights alone"""

NOT_THEIRS = (
    "ReLU stacks have no tanh heads and no clamps. σ1 and the deviation of p(z1|z2) are learned (theirs: fixed). The "
    "deviation of q(z2|z1) is one number a unit (theirs: given by the net). Their squared error is not halved, so "
    "their weights count half. Left out: reconstructions, the likelihood as a curve, and the conditional VAE."
)
PAPER = Paper(
    citation="H. A. Dang, T. H. Tran, T. Nguyen, N. Ho, Beyond Vanilla Variational Autoencoders, ICLR 2024, "
    "arXiv:2306.05023",
    exhibits="Theorem 3 with values of the authors' formula (evaluated, not printed by them); strengths of the "
    "linear MHVAE against β2; rates and active units of the ReLU MHVAE against β1, β2 and η",
    limits={
        "smoke": "Two starts a setting, 8x8 digits for MNIST, four settings a sweep; runs of 60 steps, too short for "
        "any verdict.",
        "cpu": "The linear part is complete (all eigenvalues of MNIST, 10 units a layer). ReLU: hidden layers of 128 "
        f"and 64 units (256), 20,000 images (60,000), 2000 steps (about 47,000). {NOT_THEIRS}",
        "paper": f"ReLU stacks of the code's size, number of steps and clipping. {NOT_THEIRS}",
    },
)

# -- settings: σ1, η_enc, η_dec, β1, β2 (and σ2 where Σ2 is given), with the θ of the data -------------------------

Knobs = tuple[float, ...]
UNIT: Mapping[str, tuple[float, Knobs]] = {
    "θ = 2, σ1 = 1, η_enc = 1, η_dec = 1, β1 = 1, β2 = 1": (2.0, (1.0, 1.0, 1.0, 1.0, 1.0)),
    "θ = 2, σ1 = 0.5, η_enc = 0.5, η_dec = 0.5, β1 = 1, β2 = 2": (2.0, (0.5, 0.5, 0.5, 1.0, 2.0)),
    "θ = 1.2, σ1 = 0.5, η_enc = 0.5, η_dec = 0.5, β1 = 1, β2 = 4": (1.2, (0.5, 0.5, 0.5, 1.0, 4.0)),
    "θ = 0.9, σ1 = 0.5, η_enc = 0.5, η_dec = 0.5, β1 = 1, β2 = 2": (0.9, (0.5, 0.5, 0.5, 1.0, 2.0)),
    "θ = 1.2, σ1 = 0.5, η_enc = 0.5, η_dec = 0.5, β1 = 4, β2 = 4": (1.2, (0.5, 0.5, 0.5, 4.0, 4.0)),
}
"""the settings at which the formula was evaluated, by the names of their rows"""

REGIMES: Mapping[str, tuple[Knobs, tuple[float, ...]]] = {
    "A, both layers": ((0.9, 1.0, 0.7, 1.3, 0.8), (2.4, 2.0, 1.7, 1.4)),
    "C, both layers": ((0.5, 1.0, 0.5, 1.0, 2.0), (2.4, 2.0, 1.7, 1.4)),
    "B, top collapsed": ((0.5, 1.0, 0.5, 1.0, 4.0), (1.6, 1.4, 1.2, 0.9)),
    "A, noise only": ((1.2, 1.0, 0.6, 1.0, 0.9), (0.5, 0.4, 0.3, 0.2)),
    "B, both collapsed": ((0.5, 1.0, 0.5, 1.0, 2.0), (0.4, 0.3, 0.2, 0.1)),
}
"""one stack of four modes in each regime of the theorem"""

GRID: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "seeds": (0, 1), "data": "digits-grey", "units": 3, "beta2": (0.5, 1.5, 2.5), "beta1": (0.5, 2.0, 6.0),
        "eta": (0.25, 2.0), "given": (0.5, 2.5), "n_images": 160, "max_paths": 64,
    },
    "cpu": {
        "seeds": tuple(range(6)), "data": "mnist-grey", "units": 10,
        "beta2": tuple(round(0.1 * step, 1) for step in range(1, 71)), "beta1": (0.1, 0.5, 1.0, 2.0, 4.0, 6.0),
        "eta": (0.25, 0.5, 1.0, 2.0), "given": tuple(round(0.5 * step, 1) for step in range(1, 15)),
        "n_images": 256, "max_paths": 256,
    },
}  # fmt: skip
"""starts, data, units a layer, the grids of each sweep, images and paths of the verdicts; paper is as cpu"""


def _knobs(preset: str) -> Mapping[str, Any]:
    return GRID["smoke" if preset == "smoke" else "cpu"]


def sweeps(preset: str) -> dict[str, tuple[Knobs, ...]]:
    """Part -> the settings along a grid, on the eigenvalues of the data."""
    grid = _knobs(preset)
    return {
        "beta2": tuple((HALF, HALF, HALF, 1.0, beta2) for beta2 in grid["beta2"]),
        "beta1": tuple((HALF, HALF, HALF, beta1, BETA2_OF_BETA1) for beta1 in grid["beta1"]),
        "eta": tuple((HALF, eta, eta, 1.0, 1.0) for eta in grid["eta"]),
        "given": tuple((HALF, HALF, HALF, 1.0, beta2, HALF / 2) for beta2 in grid["given"]),
    }


# -- runs ----------------------------------------------------------------------------------------------------------

LINEAR: Mapping[str, tuple[float, float]] = {
    "linear, both layers": (0.05, 0.0125),
    "linear, top collapsed": (0.05, 0.8),
    "linear, noise only": (2.0, 0.5),
}
"""(β1, β2) of linear stacks of unit variances on 8x8 digits, where the largest eigenvalue is 0.7.

Noise only where every θ² <= √(β1 β2) and β2 < β1.
"""

panels = {"linear": tuple(LINEAR), **{sweep: tuple(runs.values()) for sweep, runs in RELU.items()}}


def configs(preset: str) -> dict[str, RunConfig]:
    """Three linear stacks on digits, and the ReLU stacks of the three sweeps: smoke 9 runs, cpu and paper 13."""
    found = {label: _linear(preset, betas) for label, betas in LINEAR.items()}
    settings = {relu(beta1=b): (b, 1.0, HALF) for b in BETAS}
    settings |= {relu(beta2=b): (1.0, b, HALF) for b in BETAS} | {relu(eta=eta): (1.0, 1.0, eta) for eta in ETAS}
    if preset == "smoke":
        ends = {label for runs in RELU.values() for value, label in runs.items() if value in (min(runs), max(runs))}
        settings = {label: values for label, values in settings.items() if label in ends}
    return found | {
        label: _relu(preset, (eta**2 * beta1, eta**2 * beta2)) for label, (beta1, beta2, eta) in settings.items()
    }


def _linear(preset: str, betas: tuple[float, float]) -> RunConfig:
    n_steps = 60 if preset == "smoke" else 3000
    model = ModelConfig(
        latents=(5, 5), hidden=((),), observation="gaussian", observation_variance="fixed", latent_variance="fixed"
    )
    rate = LinearWarmup(n_steps, start=1e-2, stop=1e-4)
    return _run(preset, DataConfig("digits-grey"), model, betas, n_steps, rate)


def _relu(preset: str, betas: tuple[float, float]) -> RunConfig:
    data, hidden, n_steps = {
        "smoke": (DataConfig("digits-grey"), ((32,), (16,)), 60),
        "cpu": (DataConfig("mnist-grey", n_train=20_000, n_test=2000), ((128,), (64,)), 2000),
        "paper": (DataConfig("mnist-grey"), ((256,), (256,)), 100 * (60_000 // 128)),
    }[preset]
    model = ModelConfig(
        latents=(16, 16), hidden=hidden, activation=("relu",), observation="gaussian", observation_variance="fixed",
        latent_variance="learned",
    )  # fmt: skip
    return _run(preset, data, model, betas, n_steps, Constant(1e-3), 0.1 if preset == "paper" else 100.0)


def _run(
    preset: str, data: DataConfig, model: ModelConfig, betas: tuple[float, float], n_steps: int,
    rate: Constant | LinearWarmup, clip_norm: float = 100.0,
) -> RunConfig:  # fmt: skip
    smoke = preset == "smoke"
    n_images, max_paths = (64, 16) if smoke else (256, 128)
    return RunConfig(
        data=data,
        model=model,
        objective=ObjectiveConfig(layer_beta=betas),
        training=TrainingConfig(
            seeds=_knobs(preset)["seeds"],
            n_steps=n_steps,
            batch_size=128,
            learning_rate=rate,
            clip_norm=clip_norm,
            log_every_steps=max(20, n_steps // 40),
            checkpoint_every_steps=max(60, n_steps // 4),
        ),
        evaluation=EvaluationConfig(
            n_images=n_images, max_paths=max_paths, n_likelihood=20 if smoke else 100, n_samples=20 if smoke else 200,
        ),
    )  # fmt: skip


# -- parts ---------------------------------------------------------------------------------------------------------


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """`unit`, the sweeps, `verdicts` on stacks at the optimum of each regime, `linear-runs`: strengths of the runs."""
    from hvae.data import load
    from hvae.experiments.dang_strengths import two_layers
    from hvae.experiments.dang_strengths.two_layers import Setting
    from hvae.lab.completion import load_data
    from hvae.lab.runs.run import Run
    from hvae.lab.training.loop import load_trained

    grid = _knobs(preset)
    seeds, units = grid["seeds"], grid["units"]

    def unit() -> Any:
        cases = [(Setting(*knobs), [theta]) for theta, knobs in UNIT.values()]
        return two_layers.strength_rows(cases, 1, seeds, say) | {"name": np.array(list(UNIT))}

    def sweep(part: str) -> Any:
        theta = two_layers.deviations(load(grid["data"], data_dir=data_dir).train)
        cases = [(Setting(*knobs), theta) for knobs in sweeps(preset)[part]]
        return two_layers.strength_rows(cases, units, seeds, say)

    def regimes() -> Any:
        cases = {name: (Setting(*knobs), theta) for name, (knobs, theta) in REGIMES.items()}
        return two_layers.verdict_rows(cases, 4, seeds, grid["n_images"], grid["max_paths"], say)

    def linear_runs() -> Any:
        rows = []
        for label, (beta1, beta2) in LINEAR.items():
            run = Run.open(runs[label])
            data = load_data(run.config, data_dir)
            found = [two_layers.model_strengths(model, data.train) for model in load_trained(run, data).models]
            setting = Setting(1.0, 1.0, 1.0, beta1, beta2, sigma2=1.0)
            modes = [setting.optimum(theta) for theta in two_layers.deviations(data.train)[: found[0][0].size]]
            rows.append(
                {
                    "encoder": [strengths for strengths, _ in found], "decoder": [strengths for _, strengths in found],
                    "expected_encoder": [mode.encoder for mode in modes],
                    "expected_decoder": [mode.decoder for mode in modes],
                }
            )  # fmt: skip
        arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return arrays | {"label": np.array(list(LINEAR)), "seeds": np.array(seeds)}

    parts: dict[str, Callable[[], Any]] = {"unit": unit}
    parts |= {part: lambda part=part: sweep(part) for part in sweeps(preset)}
    return parts | {"verdicts": regimes, "linear-runs": linear_runs}


# -- printed numbers ----------------------------------------------------------------------------------------------


def strength_of(name: str, layer: str) -> Callable[[Measured], Sample]:
    """[R] a strength of one of the printed settings."""

    def measure(measured: Measured) -> Sample:
        rows = find_part(measured, "unit")
        return sample(rows, rows[layer][rows["name"].tolist().index(name), :, 0])

    return measure


numbers = tuple(
    Number(
        published("dang2024", "Theorem 3 (the authors' formula evaluated)", f"{name}", metric),
        strength_of(name, layer),
        tolerance=1e-4,
        comparable=PRESETS,
        reads="measured",
    )
    for name in UNIT
    for layer, metric in (("encoder", "λ (lower layer)"), ("decoder", "ω (top layer)"))
)
"""to the four digits printed"""
