"""Is a deeper convolutional ladder more likely, and does it use all its layers?

A public replication of the ladder with convolutions prints its bounds on statically binarised MNIST at 3, 6 and 12
latent layers, and on CIFAR-10 at 15. Each layer of it adds a million weights, so its table does not tell depth from
size. Child (2021) claims that depth helps at equal size. Here the stacks of 3, 6 and 12 layers have equal numbers of
weights at preset cpu, and those of the replication's plan at preset paper.

The stacks are those of `hvae.topdown`: every layer sees all above it, q reads the decoder's state beside x, and each
layer has free nats, 0.5 up to six layers and 1 above, as in the replication.

Source: C. K. Sønderby, T. Raiko, L. Maaløe, S. K. Sønderby, O. Winther, "Ladder Variational Autoencoders", NIPS 2016,
arXiv:1602.02282; its replication addtt/ladder-vae-pytorch (README and experiment/config.py); R. Child, "Very Deep VAEs
Generalize Autoregressive Models and Can Outperform Them on Images", ICLR 2021, arXiv:2011.10650.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from hvae.analysis.claims import Runs, Sample
from hvae.analysis.measures import (
    elbo,
    importance_bound,
    seen,
)
from hvae.analysis.papers import Number, Paper
from hvae.analysis.samples import combined
from hvae.experiments.shared.depths import all_used, deeper, measured_on_cpu
from hvae.experiments.shared.published import published
from hvae.lab.config import (
    BlocksConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from hvae.schedules import Constant, LinearWarmup

PRESETS = ("smoke", "cpu", "paper")
KEPT = ("stack-1", "bounds-above")
NEED_GPU = ("paper",)
DEPTHS = (3, 6, 12)
CIFAR = "CIFAR-10, 15 layers"

PAPER = Paper(
    "Sønderby, Raiko, Maaløe, Sønderby, Winther 2016, Ladder Variational Autoencoders, NIPS 2016, arXiv:1602.02282, in "
    "the convolutional replication addtt/ladder-vae-pytorch.",
    "The replication's table of bounds on static MNIST at 3, 6 and 12 layers, and on CIFAR-10 at 15",
    {
        "smoke": "8x8 digits, 40 steps, two seeds: shows that everything runs, and nothing else.",
        "cpu": "Static MNIST, two epochs. Equal numbers of weights at every depth, about 100 thousand (theirs: about a "
        "million a layer). Latents of 4 channels (32), a state of 32 to 72 (64). Blocks of VDVAE (four gated residual "
        "blocks with batch norm and dropout). The last latent has the image's size, the top 7x7 (theirs: 16x16 of a "
        "padded image, and 2x2). Adam (Adamax).",
        "paper": "Blocks of VDVAE (four gated residual blocks with batch norm and dropout), without a start that "
        "depends on data. The last latent has the image's size, the top 7x7 (theirs: 16x16 of a padded image, and "
        "2x2). Adam (Adamax). The number of steps is ours, as theirs is not printed.",
    },
)


def label(n_layers: int) -> str:
    """The name of a run."""
    return f"{n_layers} layers"


STACKS: Mapping[str, Mapping[str, BlocksConfig]] = {
    "smoke": {
        label(3): BlocksConfig("2x1,4m2,8m4", width=32, channels=2),
        label(6): BlocksConfig("2x2,4m2,4x2,8m4", width=24, channels=2),
        label(12): BlocksConfig("2x5,4m2,4x4,8m4,8x1", width=16, channels=2),
    },
    "cpu": {
        label(3): BlocksConfig("7x1,14m7,28m14", width=72, widths=((28, 12),)),
        label(6): BlocksConfig("7x2,14m7,14x2,28m14", width=48, widths=((28, 12),)),
        label(12): BlocksConfig("7x5,14m7,14x5,28m14", width=32, widths=((28, 12),)),
    },
    "paper": {
        label(3): BlocksConfig("7x1,14m7,28m14", width=64, channels=32, bottleneck=1.75),
        label(6): BlocksConfig("7x2,14m7,14x2,28m14", width=64, channels=32, bottleneck=1.75),
        label(12): BlocksConfig("7x5,14m7,14x5,28m14", width=64, channels=32, bottleneck=1.75),
        CIFAR: BlocksConfig("4x4,8m4,8x4,16m8,16x4,32m16", width=64, channels=32, bottleneck=1.75),
    },
}
"""preset -> run -> its blocks; at cpu with equally many weights, within a twentieth"""
panels: Mapping[str, tuple[str, ...]] = {"static MNIST": tuple(map(label, DEPTHS)), "CIFAR-10": (CIFAR,)}


def configs(preset: str) -> dict[str, RunConfig]:
    """Every run of a preset: smoke 3, seconds; cpu 3, hours; paper 4, for a GPU."""
    make = {"smoke": _smoke, "cpu": _cpu, "paper": _paper}[preset]
    return {name: make(name, blocks) for name, blocks in STACKS[preset].items()}


def _run(name: str, blocks: BlocksConfig, data: str, training: TrainingConfig, look: EvaluationConfig) -> RunConfig:
    free = 0.5 if len(blocks.resolutions) <= 6 else 1.0
    model = ModelConfig(blocks=blocks)
    if name == CIFAR:
        model = dataclasses.replace(model, observation="discretised-logistic-mixture")
    return RunConfig(DataConfig(data), model, ObjectiveConfig(free_nats=(free,)), training, look)


def _smoke(name: str, blocks: BlocksConfig) -> RunConfig:
    training = TrainingConfig(seeds=(0, 1), n_steps=40, batch_size=64, learning_rate=Constant(4e-3), log_every_steps=10)
    look = EvaluationConfig(n_images=40, max_paths=8, n_likelihood=20, n_samples=20)
    return _run(name, blocks, "digits-threshold", training, look)


def _cpu(name: str, blocks: BlocksConfig) -> RunConfig:
    """Two epochs of 50,000 images."""
    n_steps = 2 * 50_000 // 64
    training = TrainingConfig(
        seeds=(0, 1, 2, 3), n_steps=n_steps, batch_size=64, learning_rate=LinearWarmup(n_steps, start=4e-3, stop=2e-4),
        clip_norm=200.0, log_every_steps=50, checkpoint_every_steps=100,
    )  # fmt: skip
    look = measured_on_cpu(max_paths=32, n_likelihood=100, n_samples=100)
    return _run(name, blocks, "mnist-static", training, look)


def _paper(name: str, blocks: BlocksConfig) -> RunConfig:
    """The replication's batches, rate, channels and free nats."""
    training = TrainingConfig(
        seeds=(0, 1, 2, 3), n_steps=400_000, batch_size=64, learning_rate=Constant(3e-4), clip_norm=200.0,
        skip_norm=1000.0, checkpoint_gradients=name == CIFAR, log_every_steps=2000, checkpoint_every_steps=2000,
    )  # fmt: skip
    look = EvaluationConfig(n_images=256, max_paths=128, n_likelihood=1000, n_samples=1000)
    return _run(name, blocks, "cifar10" if name == CIFAR else "mnist-static", training, look)


# -- printed numbers -----------------------------------------------------------------------------------

KEY, TABLE, TOLERANCE_NATS = "addtt2019lvae", "README, likelihood results", 0.5


def printed(name: str, bound: Callable[[Runs, str], Sample], data: str) -> Callable[[Runs], Sample]:
    """The negative bound of a run, as the table prints it."""

    def measured(runs: Runs) -> Sample:
        seen(runs, name, data)
        return combined(np.negative, bound(runs, name))

    return measured


numbers = tuple(
    Number(
        published(KEY, TABLE, f"convolutional LVAE, {n} layers", metric), printed(name, bound, data),
        TOLERANCE_NATS, ("paper",),
    )
    for n, name, data in (*((n, label(n), "mnist-static") for n in DEPTHS), (15, CIFAR, "cifar10"))
    for metric, bound in (("test -ELBO", elbo), ("test -L1000", importance_bound))
    if not (name == CIFAR and bound is importance_bound)
)  # fmt: skip

# -- what must hold, with margins fixed before any run ---------------------------------------------------

CHILD = "Child 2021 (arXiv:2011.10650)"


claims = (
    *(deeper(shallow, deep, label) for shallow, deep in pairwise(DEPTHS)),
    *(all_used(f"All of {n} layers are used.", label(n)) for n in DEPTHS),
)


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "lvae-conv", *sys.argv[1:]]))
