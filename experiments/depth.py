"""Does a deeper stack use its upper layers, and what makes it use them?

Sønderby et al. (2016) train variational autoencoders of up to five stochastic layers. With bottom-up
inference the layers above the second collapse and add no likelihood. Warm-up of the rates, batch
normalisation and top-down (ladder) inference each activate more of the stack. The question here:
which layers collapse in each of four arms at depth 1 to 5, with seeds as replicas? The arms are
bottom-up, bottom-up with warm-up (WU), ladder with warm-up, and ladder with warm-up and batch
normalisation (BN).

Source: C. K. Sønderby, T. Raiko, L. Maaløe, S. K. Sønderby, O. Winther, "Ladder Variational
Autoencoders", NIPS 2016, arXiv:1602.02282, section 4.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np

from hvae.analysis.claims import Claim, NotMeasuredError, Runs, Sample, find, single
from hvae.analysis.measures import BOUND, EPSILON_NATS, LIKELIHOOD_MARGIN_NATS, active_units, likelihood
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant, LinearWarmup

PRESETS = ("demo", "cpu", "paper")
KEPT = ("information", "active-units", "unit-rates")

SOURCE = "Sønderby et al. 2016, section 4 (arXiv:1602.02282)"

ARMS: dict[str, tuple[str, bool, bool]] = {
    "bottom-up": ("bottom-up", False, False),
    "bottom-up+WU": ("bottom-up", True, False),
    "ladder+WU": ("top-down", True, False),
    "ladder+WU+BN": ("top-down", True, True),
}
"""Arm -> (inference order, warm-up, batch normalisation)."""

DEEPEST = 5


def label(depth: int, arm: str) -> str:
    """The name of a run. One layer has one inference order, so at depth 1 only the rest of the arm counts."""
    if depth > 1:
        return f"depth-{depth} {arm}"
    return f"depth-1{arm.removeprefix('bottom-up').removeprefix('ladder')}"


def configs(preset: str) -> dict[str, RunConfig]:
    """Every run of a preset: demo 15, about 2.5 minutes; cpu 15, hours; paper 19, for a GPU."""
    make = {"demo": _demo, "cpu": _cpu, "paper": _paper}[preset]
    depths = (1, 2, 3, 4, 5) if preset == "paper" else (1, 2, 3, 5)
    return {label(depth, arm): make(depth, arm) for depth in depths for arm in ARMS}


panels = {arm: tuple(label(depth, arm) for depth in range(1, DEEPEST + 1)) for arm in ARMS}


def _demo(depth: int, arm: str) -> RunConfig:
    """8x8 digits: seconds a run, and every layer's verdict clear.

    Hidden layers above z1 have 32 units: with 16 above z2, twice as many seeds leave z2 or z3 within chance of the
    threshold of 0.1 nats.
    """
    n_steps = 1000
    return _run(
        depth,
        arm,
        data="digits-threshold",
        latents=(16, 8, 8, 4, 2),
        hidden=((64,), (32,), (32,), (32,), (32,)),
        activation="leaky-relu",
        warmup_steps=n_steps // 2,
        training=TrainingConfig(
            seeds=(0, 1, 2, 3), n_steps=n_steps, batch_size=128, learning_rate=Constant(2e-3), log_every_steps=25
        ),
        evaluation=EvaluationConfig(n_images=500, max_paths=256, n_likelihood=64, n_samples=500),
    )


def _cpu(depth: int, arm: str) -> RunConfig:
    """MNIST with one hidden layer per conditional, a hundredth of the paper's epochs."""
    epoch = 240
    return _run(
        depth,
        arm,
        data="mnist-dynamic",
        latents=(64, 32, 16, 8, 4),
        hidden=((256,), (128,), (64,), (32,), (16,)),
        activation="leaky-relu",
        warmup_steps=10 * epoch,
        training=TrainingConfig(
            seeds=tuple(range(6)),
            n_steps=20 * epoch,
            batch_size=250,
            learning_rate=Constant(2e-3),
            log_every_steps=epoch // 2,
            checkpoint_every_steps=2 * epoch,
        ),
        evaluation=EvaluationConfig(n_likelihood=500, n_samples=1000, n_likelihood_deep=100, n_samples_deep=5000),
    )


def _paper(depth: int, arm: str) -> RunConfig:
    """The paper's sizes and schedule: 2000 epochs of 60,000 images, warm-up over the first 200, the code's default rate
    of 2e-3 (its README's example has 2e-4).

    Not the paper's: Adam's epsilon is 1e-8 (theirs 1e-4), leaky rectifiers have slope 0.01, and a net gives the
    logarithm of a variance (theirs its softplus, and 1e-5 more).
    """
    epoch = 60_000 // 256
    return _run(
        depth,
        arm,
        data="mnist-dynamic",
        latents=(64, 32, 16, 8, 4),
        hidden=((512, 512), (256, 256), (128, 128), (64, 64), (32, 32)),
        activation="leaky-relu",
        warmup_steps=200 * epoch,
        training=TrainingConfig(
            seeds=tuple(range(6)),
            n_steps=2000 * epoch,
            batch_size=256,
            learning_rate=Constant(2e-3),
            log_every_steps=10 * epoch,
            checkpoint_every_steps=10 * epoch,
        ),
        evaluation=EvaluationConfig(n_likelihood=10_000, n_samples=5000),
    )


def _run(
    depth: int,
    arm: str,
    *,
    data: str,
    latents: tuple[int, ...],
    hidden: tuple[tuple[int, ...], ...],
    activation: str,
    warmup_steps: int,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
) -> RunConfig:
    order, warmup, batch_norm = ARMS[arm]
    return RunConfig(
        data=DataConfig(name=data),
        model=ModelConfig(
            latents=latents[:depth],
            hidden=hidden[:depth],
            order=order if depth > 1 else "bottom-up",  # type: ignore[arg-type]
            activation=(activation,),  # type: ignore[arg-type]
            init=("xavier",),
            batch_norm=(batch_norm,),
        ),
        objective=ObjectiveConfig(beta=LinearWarmup(warmup_steps) if warmup else Constant(1.0)),
        training=training,
        evaluation=evaluation,
    )


# -- what is measured of a replica ------------------------------------------------------------------


def upper_information(runs: Runs, ladder: str, bottom_up: str) -> tuple[Sample, Sample]:
    """[R] I(x; z_2 ... z_L) on the n images in nats, of a ladder and, its upper end, of a bottom-up stack.

    Both ask "which of the n images?" and cannot exceed log n. The ladder's is the sum of I(x; z_l | z_>l)
    over l >= 2 by the chain rule; bottom-up, z_3 ... z_L add nothing to z_2, so it is I(x; z_2).
    """
    top_down, plain = find(runs, ladder), find(runs, bottom_up)
    if top_down.n_images != plain.n_images:
        raise NotMeasuredError(f"'{ladder}' and '{bottom_up}' were measured on different numbers of images")
    cap = math.log(plain.n_images)
    held = np.minimum(np.sum([layer.information_on_n for layer in top_down.layers[1:]], axis=0), cap)
    most = plain.layers[1].interval("information_nats")[:, 2]
    for name, values in ((ladder, held), (bottom_up, most)):
        if np.isnan(values).all():
            raise NotMeasuredError(f"the run '{name}' has no information on exactly n images; evaluate it again")
    if min(np.nanmean(held), np.nanmean(most)) >= cap - SATURATED_NATS:
        raise NotMeasuredError(f"both saturate at log n = {cap:.2f} nats: {plain.n_images} images cannot tell")
    return Sample(held, top_down.seeds), Sample(most, plain.seeds)


def most_from_parent(runs: Runs, names: Sequence[str], lowest_layer: int) -> Sample:
    """[R] the largest upper end of J_l over the layers from `lowest_layer` up, of all runs that are there."""
    present = [find(runs, name) for name in names if name in runs]
    if not present:
        raise NotMeasuredError(f"none of the runs {', '.join(names)} is there")
    ends = [
        layer.interval("parent_information_nats")[:, 2] for run in present for layer in run.layers[lowest_layer - 1 :]
    ]
    if len({run.seeds for run in present}) > 1:
        raise NotMeasuredError("the runs have different seeds")
    return Sample(np.max(ends, axis=0), present[0].seeds)


# -- what the source says, with margins fixed before any run ----------------------------------------

INFORMATION_MARGIN_NATS = 0.5
UNITS_MARGIN = 1.0
SATURATED_NATS = 0.1
"""information this close to log n says no more than that n images are told apart"""

_PLAIN, _WARM = label(DEEPEST, "bottom-up"), label(DEEPEST, "bottom-up+WU")
_LADDER, _LADDER_BN = label(DEEPEST, "ladder+WU"), label(DEEPEST, "ladder+WU+BN")
_UPPER = "I(x; z2 ... z5) on the same number n of images (which of the n?; not measured where both are at log n)"

claims = (
    Claim(
        statement="Bottom-up without tricks, every layer from the third up is collapsed.",
        source=SOURCE,
        quantity="the largest J of layers z3 and above at depths 3 to 5, upper end of its interval,",
        measure=single(lambda runs: most_from_parent(runs, [label(depth, "bottom-up") for depth in (3, 4, 5)], 3)),
        relation="below",
        margin=EPSILON_NATS,
    ),
    Claim(
        statement="Bottom-up without tricks, layers beyond the second do not help the likelihood.",
        source=SOURCE,
        quantity=f"{BOUND} at depth 5 minus that at depth 2",
        measure=lambda runs: (likelihood(runs, _PLAIN), likelihood(runs, label(2, "bottom-up"))),
        relation="below",
        margin=LIKELIHOOD_MARGIN_NATS,
    ),
    Claim(
        statement="Warm-up activates more units.",
        source=SOURCE,
        quantity="active units of all layers at depth 5, bottom-up with minus without warm-up,",
        measure=lambda runs: (active_units(runs, _WARM), active_units(runs, _PLAIN)),
        relation="above",
        margin=UNITS_MARGIN,
        unit="units",
    ),
    Claim(
        statement="Batch normalisation activates more units.",
        source=SOURCE,
        quantity="active units of all layers at depth 5, ladder+WU with minus without BN,",
        measure=lambda runs: (active_units(runs, _LADDER_BN), active_units(runs, _LADDER)),
        relation="above",
        margin=UNITS_MARGIN,
        unit="units",
    ),
    Claim(
        statement="Batch normalisation raises the likelihood.",
        source=SOURCE,
        quantity=f"{BOUND} at depth 5, ladder+WU with minus without BN,",
        measure=lambda runs: (likelihood(runs, _LADDER_BN), likelihood(runs, _LADDER)),
        relation="above",
        margin=LIKELIHOOD_MARGIN_NATS,
    ),
    Claim(
        statement="A ladder holds more information above the first layer than a bottom-up stack, both with warm-up.",
        source=SOURCE,
        quantity=f"{_UPPER}, ladder+WU minus the upper end for bottom-up+WU,",
        measure=lambda runs: upper_information(runs, _LADDER, _WARM),
        relation="above",
        margin=INFORMATION_MARGIN_NATS,
    ),
    Claim(
        statement="So does a ladder with batch normalisation.",
        source=SOURCE,
        quantity=f"{_UPPER}, ladder+WU+BN minus the upper end for bottom-up+WU,",
        measure=lambda runs: upper_information(runs, _LADDER_BN, _WARM),
        relation="above",
        margin=INFORMATION_MARGIN_NATS,
    ),
    Claim(
        statement="At depth 5 the ladder with warm-up and batch normalisation is more likely than the plain stack.",
        source=SOURCE,
        quantity=f"{BOUND} at depth 5, ladder+WU+BN minus bottom-up,",
        measure=lambda runs: (likelihood(runs, _LADDER_BN), likelihood(runs, _PLAIN)),
        relation="above",
        margin=LIKELIHOOD_MARGIN_NATS,
    ),
)


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "depth", *sys.argv[1:]]))
