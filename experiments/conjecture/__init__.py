"""Can a layered encoder follow the reverse conditionals of a layered decoder, and is that why upper layers collapse?

B. Flach states a conjecture in his lecture on variational autoencoders. A layered belief network cannot in principle
approximate the reverse conditionals of another one, and the last layers collapse because of it. Dang et al. (2024) and
others show that a layer can be worth less than its rate even under exact inference. The exact posterior of a teacher is
known, so three questions are asked of teachers.

(a) How far does the best encoder stay from the exact posterior? It depends on the encoder's distribution and width, on
    the strength of the couplings and on the depth. With one unit a layer there is nothing to factorise. What remains
    is the shape of the distribution, as reverse conditionals have several modes.
(b) Where does the decoder go, and what does it give up, once it may move?
(c) A top layer is needed by construction. At which weight β of its rate is it emptied, under exact and under
    factorised inference? That β is its β threshold.

Two stacks of three layers are trained on images too: diagonal and full-covariance Gaussians in both directions, with
one learned covariance a layer.

Source: B. Flach, lecture on variational autoencoders; A. Dang et al., "Beyond Vanilla Variational Autoencoders:
Detecting Posterior Collapse in Conditional and Hierarchical Variational Autoencoders", ICLR 2024, arXiv:2306.05023.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hvae.experiments import depth
from hvae.experiments.conjecture.claims import claims as of_teachers
from hvae.experiments.conjecture.claims_nonlinear import shapes
from hvae.experiments.conjecture.claims_thresholds import thresholds
from hvae.lab.config import RunConfig

PRESETS = ("demo", "cpu", "paper")
KEPT = ("conjecture-widths", "conjecture-strengths", "conjecture-nonlinear", "conjecture-release", "conjecture-prices")
ON_CPU = (
    "fixed", "release", "threshold", "rich", "gaps", "linear", "linear-threshold", "nonlinear",
)  # fmt: skip
"""parts that stay on the CPU: they read no run"""

RICHER = {"diagonal": "gaussian", "full covariance": "full-gaussian"}

DEEP, NARROW = (6, 5, 5, 5), (6, 3, 3, 3)
"""Bernoulli units of x, z1, z2, z3: wide, where z1 tells 32 of 64 images apart, and a bottleneck of 8 states a layer"""

GRID: Mapping[str, Mapping[str, Any]] = {
    "demo": {
        "strengths": (1.0, 2.0, 4.0), "n_teachers": 2, "wide": (4, 3, 3, 3), "narrow": (4, 2, 2, 2), "other": (),
        "widths": (8,), "masked": (16,), "n_steps": 150, "n_starts": 1, "n_released": 100,
        "grouped": (6, 3, 2), "powers": (0.0, 0.5, 1.5), "n_needed": 30, "n_needed_starts": 2, "n_closer": 1,
    },
    "cpu": {
        "strengths": (0.5, 1.0, 2.0, 4.0), "n_teachers": 6, "wide": DEEP, "narrow": NARROW,
        "other": ((6, 5, 5), (6, 5, 5, 5, 5)), "widths": (4, 16, 64), "masked": (4, 16), "n_steps": 1000,
        "n_starts": 2, "n_released": 1500,
        "grouped": (9, 3, 2), "powers": (-1.0, 0.0, 0.25, 0.5, 0.9, 1.1, 1.5), "n_needed": 250,
        "n_needed_starts": 3, "n_closer": 5,
    },
    "paper": {
        "strengths": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), "n_teachers": 16, "wide": (8, 6, 6, 6), "narrow": (8, 4, 2, 2),
        "other": ((8, 6, 6), (8, 6, 6, 6, 6)), "widths": (4, 16, 64, 256), "masked": (4, 16, 64), "n_steps": 5000,
        "n_starts": 4, "n_released": 10000,
        "grouped": (9, 3, 2), "powers": (-2.0, -1.0, 0.0, 0.125, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0),
        "n_needed": 2000, "n_needed_starts": 8, "n_closer": 8,
    },
}  # fmt: skip
"""Parts (a) and (b): couplings, teachers, Bernoulli units a layer, hidden units, steps and starts of training.

Part (c): Bernoulli units of x, z1 and z2; each β as a power of the threshold under exact inference; steps and starts of
training; steps that close in on a threshold.
"""

SIZES = ((3.0, 8.0), (6.0, 4.0))
"""Sizes of the logits of x | z1 and z1 | z2 in part (c): x tells half of z1, or nearly all."""
GAUSSIAN_SIZES = ((0.5, 2.0), (1.0, 1.0))

SMOOTH: Mapping[str, tuple[tuple[float, ...], tuple[int, ...], int, int]] = {
    "demo": ((1.0, 4.0), (16,), 20, 1),
    "cpu": ((1.0, 2.0, 4.0), (4, 16, 64), 400, 2),
    "paper": ((0.5, 1.0, 2.0, 4.0), (4, 16, 64, 256), 4000, 4),
}
"""Non-linear teachers: couplings, hidden units of Gaussian encoders, steps of each stage of training, starts."""

claims = (*of_teachers, *shapes, *thresholds)


def configs(preset: str) -> dict[str, RunConfig]:
    """Two stacks of three layers on images: 8x8 digits at demo and cpu, MNIST at paper."""
    base = depth.configs("paper" if preset == "paper" else "demo")["depth-3 bottom-up"]
    if preset == "demo":
        base = dataclasses.replace(base, training=dataclasses.replace(base.training, seeds=(0, 1)))
    models = {
        label: dataclasses.replace(base.model, families=(family,), latent_variance="learned")
        for label, family in RICHER.items()
    }
    return {label: dataclasses.replace(base, model=model) for label, model in models.items()}


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """Name -> how to make its arrays, each on known stacks: nothing here reads the runs."""
    from hvae.experiments.conjecture.bernoulli import Budget, EncoderKind, fixed_rows, known_stacks
    from hvae.experiments.conjecture.grouped import grouped_rows
    from hvae.experiments.conjecture.linear import gaussian_rows, linear_threshold_rows
    from hvae.experiments.conjecture.nonlinear import nonlinear_rows
    from hvae.experiments.conjecture.released import release_rows
    from hvae.experiments.truth.accuracy import gap_rows

    knobs = GRID[preset]
    strengths, n_teachers, wide, narrow = (knobs[name] for name in ("strengths", "n_teachers", "wide", "narrow"))
    linear, table = EncoderKind("factorised", "linear"), EncoderKind("factorised", "table")
    nets = [EncoderKind("factorised", "mlp", width) for width in knobs["widths"]]
    rich = [EncoderKind("autoregressive", "mlp", width) for width in knobs["masked"]]
    budget = Budget(knobs["n_steps"], 0.05, knobs["n_starts"])
    once = dataclasses.replace(budget, n_starts=1)

    def fixed() -> Any:
        shapes = {wide: [linear, *nets, table], **{widths: [linear, table] for widths in knobs["other"]}}
        return fixed_rows(shapes, strengths, n_teachers, budget, say)

    def rich_fixed() -> Any:
        encoders = [EncoderKind("autoregressive", "linear"), *rich]
        return fixed_rows({wide: encoders}, strengths, n_teachers, once, say)

    def gaps() -> Any:
        stacks = known_stacks(wide, strengths, 2, 8, linear, once)
        return gap_rows(stacks, 64, 2000, seed=0, say=say)

    def release() -> Any:
        free = Budget(knobs["n_released"], 0.02, 1)
        shapes = {"wide": wide, "bottleneck": narrow}
        encoders = [None, linear, *rich]
        return release_rows(shapes, strengths, n_teachers, encoders, budget=once, released=free, say=say)

    needed = Budget(knobs["n_needed"], 0.05, knobs["n_needed_starts"])
    powers, n_closer = knobs["powers"], knobs["n_closer"]

    def threshold() -> Any:
        kinds = {"linear": SIZES, "parity": SIZES}
        encoders = [linear, table, EncoderKind("autoregressive", "table", 4)]
        return grouped_rows(knobs["grouped"], kinds, n_teachers, encoders, powers, needed, n_closer, say)

    def linear_threshold() -> Any:
        return linear_threshold_rows((9, 3, 2), GAUSSIAN_SIZES, n_teachers, powers, needed, n_closer, say)

    def linear_fixed() -> Any:
        return gaussian_rows((1, 2, 3, 4), 4, strengths, n_teachers)

    def nonlinear() -> Any:
        couplings, hidden, n_steps, n_starts = SMOOTH[preset]
        gaussian = [EncoderKind("gaussian", "linear"), *(EncoderKind("gaussian", "mlp", width) for width in hidden)]
        mixtures = [EncoderKind("mixture", "mlp", 16, n_components) for n_components in (2, 4)]
        encoders = [*gaussian, EncoderKind("gaussian", "free"), *mixtures, EncoderKind("nsf", "mlp", 16)]
        return nonlinear_rows(couplings, n_teachers, encoders, Budget(n_steps, 0.02, n_starts), say)

    return {
        "fixed": fixed, "release": release, "threshold": threshold, "rich": rich_fixed, "gaps": gaps,
        "linear": linear_fixed, "linear-threshold": linear_threshold,
        "nonlinear": nonlinear,
    }  # fmt: skip


def sections() -> tuple[Any, ...]:
    """What this adds to the report."""
    from hvae.experiments.conjecture import section
    from hvae.experiments.truth import section as accuracy

    return (section.SECTION, accuracy.SECTION)
