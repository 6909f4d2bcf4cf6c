"""Where do layers die in a very deep top-down stack with spatial latents, and what keeps them in use?

The stacks that people train today are residual (NVAE, VDVAE). A state is carried from one pixel to the full image, and
every block adds a latent to it. Here such stacks of 4, 12 and 24 latent layers are trained on small natural images,
with equal numbers of weights. Five questions are asked of them.

- Depth. Is a deeper stack more likely at equal size, as Child (2021) finds, and are all its layers used?
- Resolution. Do layers die at 1x1, at the full image, or in between? Twelve layers stand mostly at coarse
  resolutions, evenly, or mostly at fine ones.
- Width of z. Do latents of more channels keep more layers in use?
- Cures. Warm-up with free nats revived a dense stack (`cures`). Does it keep layers in use here?
- Dense nets. How far is such a stack ahead of the best dense ladder of `depth`, on MNIST at equal epochs?

All runs of one data set have the same number of steps. At preset cpu that is early in training, so a layer that comes
into use later is not seen. The stack of one layer has strided convolutions, and about as many weights.

Source: R. Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images", ICLR 2021,
arXiv:2011.10650; C. K. Sønderby et al., "Ladder Variational Autoencoders", NIPS 2016, arXiv:1602.02282; D. P. Kingma
et al., "Improved Variational Inference with Inverse Autoregressive Flow", NIPS 2016, arXiv:1606.04934.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping

import numpy as np

from hvae.analysis.claims import Claim, NotMeasuredError, Runs, Sample, difference, find, single
from hvae.analysis.measures import BOUND, EPSILON_NATS, LIKELIHOOD_MARGIN_NATS, least_use, likelihood
from hvae.analysis.resolutions import rate, resolutions
from hvae.experiments import depth
from hvae.experiments.shared.depths import QUESTION, USE, all_used, deeper, measured_on_cpu
from hvae.lab.config import (
    BlocksConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from hvae.schedules import CosineDecay, LinearWarmup

PRESETS = ("demo", "cpu", "paper")
KEPT = ("stack-1", "stack-2", "bounds-above", "resampling-1")
NEED_GPU = ("paper",)

ONE, MNIST, DENSE = "one layer", "MNIST, 12 layers", "MNIST, dense ladder"
COARSE, FINE = "12 layers, coarse", "12 layers, fine"
CHANNELS = {"demo": (1, 4), "cpu": (1, 16), "paper": (1, 32)}
"""preset -> channels of z in the arms on its width; the others have those of `STACKS`"""


def label(n_layers: int, cured: bool = False) -> str:
    """The name of a run."""
    return f"{n_layers} layers{', cured' if cured else ''}"


def width_of_z(channels: int) -> str:
    """The name of a run of 12 layers with so many channels of z."""
    return f"12 layers, {channels} channel{'' if channels == 1 else 's'}"


DEPTHS = (4, 12, 24, 43)
baselines: Mapping[str, str] = {label(n, cured=True): label(n) for n in DEPTHS}
panels: Mapping[str, tuple[str, ...]] = {
    "depth": (ONE, *(label(n) for n in DEPTHS)),
    "with warm-up and free nats": tuple(label(n, cured=True) for n in DEPTHS),
    "resolution": (COARSE, label(12), FINE),
    "width of z": (label(12), *(width_of_z(n) for n in sorted({n for pair in CHANNELS.values() for n in pair}))),
    "MNIST": (DENSE, MNIST),
}

Blocks = BlocksConfig
STACKS: Mapping[str, Mapping[str, BlocksConfig]] = {
    "demo": {
        label(4): Blocks("1x1,2m1,4m2,8m4", width=41, channels=2),
        label(12): Blocks("1x2,2m1,2x2,4m2,4x3,8m4,8x2", width=24, channels=2),
        label(24): Blocks("1x4,2m1,2x5,4m2,4x6,8m4,8x6", width=19, channels=2),
        COARSE: Blocks("1x4,2m1,2x4,4m2,4x1,8m4", width=28, channels=2),
        FINE: Blocks("1x1,2m1,4m2,4x3,8m4,8x5", width=23, channels=2),
    },
    "cpu": {
        label(4): Blocks("1x1,4m1,8m4,16m8", width=68),
        label(12): Blocks("1x2,4m1,4x4,8m4,8x3,16m8", width=40),
        label(24): Blocks("1x4,4m1,4x9,8m4,8x6,16m8,16x2", width=28),
        COARSE: Blocks("1x5,4m1,4x4,8m4,16m8", width=44),
        FINE: Blocks("1x1,4m1,8m4,8x3,16m8,16x5", width=40),
        MNIST: Blocks("1x2,7m1,7x4,14m7,14x3,28m14", width=32, widths=((28, 12),)),
    },
    "paper": {
        label(4): Blocks("1x1,8m1,16m8,32m16", width=1280, channels=16),
        label(12): Blocks("1x1,4m1,4x1,8m4,8x2,16m8,16x2,32m16,32x2", width=712, channels=16),
        label(24): Blocks("1x1,4m1,4x1,8m4,8x2,16m8,16x5,32m16,32x11", width=496, channels=16),
        label(43): Blocks(
            "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21", "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3", width=384,
            channels=16,
        ),
        COARSE: Blocks("1x3,4m1,4x4,8m4,8x1,16m8,32m16", width=760, channels=16),
        FINE: Blocks("1x1,4m1,8m4,16m8,16x2,32m16,32x5", width=712, channels=16),
        MNIST: Blocks("1x2,7m1,7x4,14m7,14x3,28m14", width=128, widths=((28, 48),), channels=16),
    },
}  # fmt: skip
"""preset -> run -> its blocks; those of natural images have equally many weights, within an eighth"""


_FEW = dict.fromkeys((COARSE, FINE, *(width_of_z(n) for pair in CHANNELS.values() for n in pair)), 2)
SEEDS: Mapping[str, Mapping[str, int]] = {
    "demo": {},
    "cpu": {
        **dict.fromkeys((label(12), ONE, MNIST, DENSE), 3),
        **dict.fromkeys((label(4), *(label(n, cured=True) for n in (4, 12, 24))), 2), **_FEW,
    },
    "paper": _FEW,
}  # fmt: skip
"""preset -> run -> its seeds, where they are fewer than the four of 24 layers; a demo has two"""


def configs(preset: str) -> dict[str, RunConfig]:
    """Every run of a preset: demo 8, in minutes; cpu 13, in hours; paper 15, for a GPU."""
    make = {"demo": _demo, "cpu": _cpu, "paper": _paper}[preset]
    known = STACKS[preset]
    depths = [n for n in DEPTHS if label(n) in known]
    runs = {label(n): make(known[label(n)]) for n in depths}
    runs |= {label(n, cured=True): _cured(runs[label(n)]) for n in depths if preset != "demo" or n == 24}
    runs |= {name: make(known[name]) for name in (COARSE, FINE)}
    runs |= {width_of_z(n): make(dataclasses.replace(known[label(12)], channels=n)) for n in CHANNELS[preset]}
    if preset != "demo":
        runs |= {ONE: _one_layer(runs[label(12)], preset), **_mnist(preset)}
    return {name: _with_seeds(config, SEEDS[preset].get(name, 4)) for name, config in runs.items()}


def _demo(blocks: BlocksConfig) -> RunConfig:
    """8x8 digits: a minute a run."""
    n_steps = 300
    return RunConfig(
        data=DataConfig("digits-threshold"),
        model=ModelConfig(blocks=blocks),
        training=TrainingConfig(
            seeds=(0, 1), n_steps=n_steps, batch_size=64, learning_rate=LinearWarmup(n_steps, start=6e-3, stop=5e-4),
            log_every_steps=25,
        ),
        evaluation=EvaluationConfig(n_images=80, max_paths=32, n_likelihood=64, n_samples=50),
    )  # fmt: skip


def _cpu(blocks: BlocksConfig) -> RunConfig:
    """10,000 images of CIFAR-10, averaged to 16x16: ten epochs."""
    n_steps = 1600
    return RunConfig(
        data=DataConfig("cifar10-subset-16"),
        model=ModelConfig(blocks=blocks, observation="discretised-logistic-mixture"),
        training=TrainingConfig(
            seeds=(0, 1, 2, 3), n_steps=n_steps, batch_size=64,
            learning_rate=CosineDecay(n_steps, peak=1e-2, warmup_steps=100), adam_betas=(0.9, 0.95), clip_norm=200.0,
            log_every_steps=50, checkpoint_every_steps=100,
        ),
        evaluation=measured_on_cpu(max_paths=16, n_likelihood=60, n_samples=50),
    )  # fmt: skip


def _paper(blocks: BlocksConfig) -> RunConfig:
    """CIFAR-10 with the settings of VDVAE's released code (openai/vdvae, hps.py, cifar10), whose stack has 43 layers.

    As there: blocks and widths of 43 layers, channels of z, batches (16 on each of two GPUs), rate and its warm-up,
    AdamW's moments and decay, norms for clipping and skipping, averaged weights, about a million steps. Not theirs:
    images are not mirrored at random, and weights start from one scheme. Encoders of the other depths have as many
    blocks as their decoders at each resolution.
    """
    n_steps = 1_000_000
    return RunConfig(
        data=DataConfig("cifar10"),
        model=ModelConfig(blocks=blocks, observation="discretised-logistic-mixture"),
        training=TrainingConfig(
            seeds=(0, 1, 2, 3), n_steps=n_steps, batch_size=32, learning_rate=LinearWarmup(100, stop=2e-4),
            adam_betas=(0.9, 0.9), weight_decay=0.01, clip_norm=200.0, skip_norm=400.0, ema_decay=0.9999,
            checkpoint_gradients=True, log_every_steps=2000, checkpoint_every_steps=2000,
        ),
        evaluation=EvaluationConfig(n_images=256, max_paths=128, n_likelihood=1000, n_samples=1000),
    )  # fmt: skip


def _cured(config: RunConfig) -> RunConfig:
    """With a warm-up over a third of the steps, and one free nat a layer."""
    objective = ObjectiveConfig(beta=LinearWarmup(config.training.n_steps // 3), free_nats=(1.0,))
    return dataclasses.replace(config, objective=objective)


def _with_seeds(config: RunConfig, n: int) -> RunConfig:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, seeds=config.training.seeds[:n]))


def _one_layer(config: RunConfig, preset: str) -> RunConfig:
    """Strided convolutions beside x, and one dense latent."""
    latents, hidden, channels = {"cpu": (64, 56, (16, 40)), "paper": (512, 768, (192, 384))}[preset]
    model = ModelConfig(
        latents=(latents,), hidden=((hidden,),), nets=("convolutional",), channels=channels,
        activation=("leaky-relu",), observation=config.model.observation,
    )  # fmt: skip
    training = dataclasses.replace(config.training, checkpoint_gradients=False)
    return dataclasses.replace(config, model=model, training=training)


def _mnist(preset: str) -> dict[str, RunConfig]:
    """The stack of blocks, and the best arm of `depth`, for equally many epochs of 60,000 images."""
    n_epochs, batch_size = {"cpu": (2, 128), "paper": (300, 128)}[preset]
    seeds = (0, 1, 2, 3)
    evaluation = measured_on_cpu(max_paths=32, n_likelihood=100, n_samples=200)
    n_steps = n_epochs * 60_000 // batch_size
    training = TrainingConfig(
        seeds=seeds, n_steps=n_steps, batch_size=batch_size,
        learning_rate=LinearWarmup(n_steps, start=4e-3, stop=2e-4), clip_norm=200.0, log_every_steps=50,
        checkpoint_every_steps=100,
    )  # fmt: skip
    blocks = RunConfig(DataConfig("mnist-dynamic"), ModelConfig(blocks=STACKS[preset][MNIST]), training=training)
    dense = depth.configs(preset)[depth.label(depth.DEEPEST, "ladder+WU+BN")]
    n_steps = n_epochs * 60_000 // dense.training.batch_size
    training = dataclasses.replace(
        dense.training, seeds=seeds, n_steps=n_steps, log_every_steps=40, checkpoint_every_steps=240
    )
    dense = dataclasses.replace(dense, objective=ObjectiveConfig(beta=LinearWarmup(n_steps // 2)), training=training)
    return {name: dataclasses.replace(run, evaluation=evaluation) for name, run in ((MNIST, blocks), (DENSE, dense))}


# -- what is measured of a replica ------------------------------------------------------------------


def bits_per_dim(runs: Runs, name: str) -> Sample:
    """[R, B] the bound in bits per dimension, of 8-bit images."""
    run = find(runs, name)
    if run.config is None or run.config.model.observation != "discretised-logistic-mixture":
        raise NotMeasuredError(f"'{name}' is not of 8-bit images")
    assert run.likelihood is not None
    found, size = likelihood(runs, name), run.likelihood.n_columns
    if size is None:
        raise NotMeasuredError(f"how many numbers an image of '{name}' has was not recorded")
    return dataclasses.replace(found, values=-found.values / (int(size) * math.log(2)))


def share_of_rate(runs: Runs, name: str, place: str) -> Sample:
    """[R] per cent of all nats of the rates that the layers at a resolution hold."""
    run = find(runs, name)
    if place not in resolutions([run]):
        raise NotMeasuredError(f"'{name}' has no latent at {place}")
    whole = np.sum([rate(run, each) for each in resolutions([run])], axis=0)
    return Sample(100 * rate(run, place) / whole, run.seeds)


# -- what must hold, with margins fixed before any run ----------------------------------------------

OURS = "a number to reach of this project"
MNIST_MARGIN_NATS, MOST_BITS, FEW_PER_CENT = 3.0, 5.2, 5.0


def _used(n_layers: int, cured: bool) -> Claim:
    how = ", with warm-up and free nats" if cured else ""
    return all_used(f"Every one of {n_layers} layers is used{how}.", label(n_layers, cured))


claims = (
    *(deeper(*depths, label, "At equal numbers of weights ") for depths in ((4, 12), (12, 24))),
    *(_used(n, cured) for n in (4, 12, 24) for cured in (False, True)),
    difference(
        "Warm-up and free nats raise the use of the least used layer of 24.", QUESTION, USE, least_use,
        label(24, cured=True), label(24), "above", EPSILON_NATS,
    ),
    difference(
        "They cost no likelihood at 24 layers.", QUESTION, BOUND, likelihood, label(24, cured=True), label(24),
        "above", -LIKELIHOOD_MARGIN_NATS,
    ),
    Claim(
        statement="Of 24 layers those at 1x1 hold next to nothing.",
        source=QUESTION,
        quantity="per cent of the rate that is held at 1x1",
        measure=single(lambda runs: share_of_rate(runs, label(24), "1x1")),
        relation="below",
        margin=FEW_PER_CENT,
        unit="%",
    ),
    Claim(
        statement="24 layers reach 5.2 bits per dimension on natural images.",
        source=OURS,
        quantity=f"{BOUND}, in bits per dimension,",
        measure=single(lambda runs: bits_per_dim(runs, label(24))),
        relation="below",
        margin=MOST_BITS,
        unit="bits",
    ),
    difference(
        "Twelve layers are more likely than one, at equal numbers of weights.", OURS, BOUND, likelihood, label(12),
        ONE, "above", LIKELIHOOD_MARGIN_NATS,
    ),
    difference(
        "On MNIST the stack of blocks is ahead of the best dense ladder by 3 nats, at equal epochs.", OURS, BOUND,
        likelihood, MNIST, DENSE, "above", MNIST_MARGIN_NATS,
    ),
)  # fmt: skip


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "very-deep", *sys.argv[1:]]))
