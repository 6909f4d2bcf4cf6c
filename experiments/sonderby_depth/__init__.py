"""Which units are used over training, and does depth help: plain, with batch norm, with warm-up, as a ladder?

Sønderby et al. show the rate of every unit of a stack of five layers over training, and the bounds L_1 and L_5000
against depth 1 to 5. Their arms are a bottom-up stack without tricks ("plain"), with batch normalisation (+BN), with
batch normalisation and a linear warm-up of the rates (+BN+WU), and the ladder with both (LVAE+BN+WU). Here every arm is
a run with seeds as replicas, at the settings of `depth`. (The arms of `depth` add warm-up before batch norm.)

Source: C. K. Sønderby, T. Raiko, L. Maaløe, S. K. Sønderby, O. Winther, "Ladder Variational Autoencoders", NIPS 2016,
arXiv:1602.02282, section 4 and figures 3 and 4; settings from the authors' code. Published numbers from a secondary
source are marked so. Of the paper's table for OMNIGLOT only one entry was read. Our OMNIGLOT has another split and
another resizing, so its bounds never compare.

An active unit has a mean that moves with the image. Over training this is Burda's statistic on the batch. At the end it
is a statistic that leaves out what a unit inherits from its parent (in a ladder, the mean given the layers above). One
layer has one order of inference, so there is no ladder of depth 1.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from hvae.analysis.claims import Measured, NotMeasuredError, Runs, Sample
from hvae.analysis.measures import elbo, importance_bound, seen
from hvae.analysis.papers import Curves, Grid, Line, Number, Paper
from hvae.analysis.samples import combined
from hvae.experiments import depth as base
from hvae.experiments.shared.published import published
from hvae.experiments.sonderby_depth.claims import ARMS, DEEP, DEEPEST, LADDER, MNIST, OMNIGLOT, PLAIN, label
from hvae.experiments.sonderby_depth.claims import claims as claims
from hvae.lab.config import DataConfig, EvaluationConfig, RunConfig
from hvae.schedules import LinearWarmup

PRESETS = ("smoke", "cpu", "paper")
KEPT = ("depth", "active-over-training", "active-units")
NEED_GPU = ("paper",)

PAPER = Paper(
    "Sønderby, Raiko, Maaløe, Sønderby, Winther 2016, Ladder Variational Autoencoders, NIPS 2016, arXiv:1602.02282.",
    "Figures 3 and 4 and the depth table",
    {
        "smoke": "8x8 digits, 60 steps, depths 2 and 5, two seeds: shows that everything runs, and nothing else.",
        "cpu": "MNIST with one hidden layer a conditional (256-128-64-32-16; the paper: two of 512 down to 32). "
        "Batches of 250. 16 epochs with warm-up over the first 5 (2,000 and 200). L_1000 on 500 test images (L_5000 on "
        "10,000). Adam's epsilon 1e-8 (1e-4). No depth of 4, no OMNIGLOT, no principal components by class.",
        "paper": "Leaky rectifiers have slope 0.01, and nets give the logarithm of a variance (theirs its softplus). "
        "The rate is the code's default. No fine-tuning with 10 samples. OMNIGLOT is ours, not theirs. Left out: NORB "
        "and principal components by class.",
    },
)

EPOCH = 240
CPU_STEPS, CPU_WARMUP = 16 * EPOCH, 5 * EPOCH


def configs(preset: str) -> dict[str, RunConfig]:
    """Every run of a preset: smoke 8, seconds; cpu 15, hours; paper 38, for a GPU."""
    depths = {"smoke": (2, 5), "cpu": (1, 2, 3, 5), "paper": (1, 2, 3, 4, 5)}[preset]
    known = base.configs("demo" if preset == "smoke" else preset)
    return {
        label(depth, arm, data): {"smoke": _smoke, "cpu": _cpu, "paper": _paper}[preset](_arm(known, depth, arm), data)
        for data in ((MNIST, OMNIGLOT) if preset == "paper" else (MNIST,))
        for depth in depths
        for arm in ARMS
        if depth > 1 or arm != LADDER
    }


def _arm(known: Mapping[str, RunConfig], depth: int, arm: str) -> RunConfig:
    of_depth, batch_norm = ARMS[arm]
    found = known[base.label(depth, of_depth)]
    return dataclasses.replace(found, model=dataclasses.replace(found.model, batch_norm=(batch_norm,)))


def _smoke(config: RunConfig, data: str) -> RunConfig:
    training = dataclasses.replace(config.training, seeds=(0, 1), n_steps=60, log_every_steps=6)
    evaluation = EvaluationConfig(n_images=40, max_paths=8, n_likelihood=20, n_samples=20)
    return _warmed(dataclasses.replace(config, training=training, evaluation=evaluation), 20)


def _cpu(config: RunConfig, data: str) -> RunConfig:
    seeds = tuple(range(10, 16))  # not those of `depth`, as the margins could have been chosen by its results
    training = dataclasses.replace(config.training, seeds=seeds, n_steps=CPU_STEPS, log_every_steps=EPOCH // 4)
    evaluation = EvaluationConfig(n_images=256, max_paths=512, n_likelihood=500, n_samples=1000)
    return _warmed(dataclasses.replace(config, training=training, evaluation=evaluation), CPU_WARMUP)


def _paper(config: RunConfig, data: str) -> RunConfig:
    training = dataclasses.replace(config.training, seeds=tuple(range(6)), adam_epsilon=1e-4)
    config = dataclasses.replace(config, training=training)
    if data == MNIST:
        return config
    epoch = 24_345 // training.batch_size
    steps = {"n_steps": 2000 * epoch, "log_every_steps": 10 * epoch, "checkpoint_every_steps": 10 * epoch}
    ours = dataclasses.replace(
        config, data=DataConfig("omniglot-dynamic"), training=dataclasses.replace(training, **steps)
    )
    ours = dataclasses.replace(ours, evaluation=dataclasses.replace(ours.evaluation, n_likelihood=8115))
    return _warmed(ours, 200 * epoch)


def _warmed(config: RunConfig, warmup_steps: int) -> RunConfig:
    """With a warm-up of so many steps, where there is one."""
    if not isinstance(config.objective.beta, LinearWarmup):
        return config
    objective = dataclasses.replace(config.objective, beta=LinearWarmup(warmup_steps))
    return dataclasses.replace(config, objective=objective)


panels = {
    f"{data}{arm}": tuple(label(depth, arm, data) for depth in range(1, DEEPEST + 1))
    for data in (MNIST, OMNIGLOT)
    for arm in ARMS
}

# -- printed numbers -----------------------------------------------------------------------------------

TOLERANCE_NATS = 0.5
KEY, MNIST_TABLE = "sonderby2016lvae", "Table 1 / text"
OUR_K = "L_1000 for L_5000 at preset cpu"


def printed(name: str, bound: Callable[[Runs, str], Sample], data: str = "mnist-dynamic") -> Callable[[Runs], Sample]:
    """The negative bound of the run ``name``, as the paper prints it, where it is of the data ``data``."""

    def measured(runs: Runs) -> Sample:
        seen(runs, name, data)
        return combined(np.negative, bound(runs, name))

    return measured


def best_other(runs: Runs) -> Sample:
    """[R, B] L_K of the run of the best mean that is no ladder."""
    names = [label(depth, arm) for depth in range(1, DEEPEST + 1) for arm in ARMS if arm != LADDER]
    found = [importance_bound(runs, name) for name in names if name in runs]
    if not found:
        raise NotMeasuredError("no run without a ladder is there")
    return max(found, key=lambda sample: float(np.nanmean(sample.values)))


numbers = (
    Number(
        published(KEY, MNIST_TABLE, "LVAE+BN+WU 5 layer", "test -L1 (ELBO)"),
        printed(DEEP[LADDER], elbo), TOLERANCE_NATS, ("paper",),
    ),
    Number(
        published(KEY, MNIST_TABLE, "LVAE+BN+WU 5 layer", "test -L5000"),
        printed(DEEP[LADDER], importance_bound), TOLERANCE_NATS, ("paper",), arm=OUR_K,
    ),
    Number(
        published(KEY, MNIST_TABLE, "best VAE (as compared in paper)", "test -L5000"),
        printed(DEEP[PLAIN], lambda runs, name: best_other(runs)), TOLERANCE_NATS, ("paper",), arm=OUR_K,
    ),
    Number(
        published(KEY, "Table 2", "LVAE+BN+WU 64-32-16-8-4", "test -L5000"),
        printed(label(DEEPEST, LADDER, OMNIGLOT), importance_bound, "omniglot-dynamic"), TOLERANCE_NATS, (), arm=OUR_K,
    ),
)  # fmt: skip


def against_depth(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    """L_1 and L_K on MNIST, one line per arm."""

    def line(arm: str, place: int) -> Line | None:
        found = {depth: label(depth, arm) for depth in range(1, DEEPEST + 1)}
        bounds = {depth: runs[name].likelihood for depth, name in found.items() if _measured(runs, name)}
        there = {depth: bound.bound_nats[:, place, 1] for depth, bound in bounds.items() if bound is not None}
        return Line(np.array(list(there)), np.stack(list(there.values()))) if there else None

    panels = {title: {arm: line(arm, place) for arm in ARMS} for title, place in (("$L_1$", 0), ("$L_K$", -1))}
    return {title: {arm: found for arm, found in lines.items() if found} for title, lines in panels.items()}


def over_training(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    """Per cent of every layer's units, active in the deepest MNIST stacks, against the step; one line per arm."""
    found: dict[str, dict[str, Line]] = {}
    for arm, name in DEEP.items():
        if _measured(runs, name):
            training = runs[name].training
            for layer in runs[name].layers:
                share = 100 * training.active_units[layer.name].T / layer.n_units
                found.setdefault(layer.name, {})[arm] = Line(training.step, share)
    return found


def _measured(runs: Runs, name: str) -> bool:
    return name in runs and runs[name].likelihood is not None and not runs[name].early


curves = (
    Curves(
        "depth",
        "Bounds against depth",
        "Mean of L_1 and L_K over test images of MNIST against the number of latent layers. Every point is one "
        "replica; the line joins their means. After figure 3 of Sønderby et al. 2016.",
        "latent layers",
        "bound (nats)",
        against_depth,
    ),
    Curves(
        "active-over-training",
        "Active units over training",
        "Per cent of a layer's units in the five-layer stacks with a variance of the mean over the batch above 0.01, "
        "against the training step. In a ladder this statistic of Burda also counts what a unit inherits from the "
        "layer above. Every thin line is one replica; the thick line is their mean.",
        "training step",
        "active units (% of D)",
        over_training,
        as_png=True,
    ),
)

DEPTHS = {"64": 1, "64-32": 2, "64-32-16": 3, "64-32-16-8": 4, "64-32-16-8-4": 5}

grids = tuple(
    Grid(
        f"{title} by depth{name}", tuple(DEPTHS), tuple(ARMS),
        lambda runs, measured, row, column, bound=bound, data=data: bound(runs, label(DEPTHS[row], column, data)),
    )
    for name, data in (("", MNIST), (", OMNIGLOT (ours)", OMNIGLOT))
    for title, bound in (("L_1", elbo), ("L_K", importance_bound))
)  # fmt: skip
