"""Does a convolutional net between the image and z1 beat a dense one, with the same latents and steps?

The lecture's layer is "a deterministic (convolutional) network whose outputs parametrise a distribution". Here only the
net between x and z1 changes, in both directions, in a stack of three Gaussian layers. The arms are a dense net of two
hidden layers (MLP), a dense net with a second hidden layer that adds to the first (residual), and two strided
convolutions with a dense layer behind them (convolutional). Their sizes are not matched in weights or time; the report
says so.

The `cpu` preset has a few epochs. It shows which net is ahead early, at equal steps, and not where they end.

Source: B. Flach's lecture on variational autoencoders (layered belief networks with convolutional conditionals); the
margin is this project's number to reach.
"""

import sys
from collections.abc import Mapping

from hvae.analysis.claims import Claim, difference
from hvae.analysis.measures import BOUND, LIKELIHOOD_MARGIN_NATS, likelihood
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant

PRESETS = ("demo", "cpu", "paper")
KEPT = ("comparison", "information")

NETS = ("MLP", "residual", "convolutional")
DATA: Mapping[str, Mapping[str, str]] = {
    "demo": {"digits": "digits-threshold"},
    "cpu": {"MNIST": "mnist-dynamic", "Fashion-MNIST": "fashion-dynamic"},
    "paper": {"MNIST": "mnist-dynamic", "Fashion-MNIST": "fashion-dynamic"},
}
"""preset -> name of the images in labels -> data set"""
IMAGES = ("MNIST", "Fashion-MNIST", "digits")


def label(images: str, net: str) -> str:
    """The name of a run."""
    return f"{images} {net}"


baselines: Mapping[str, str] = {label(images, net): label(images, "MLP") for images in IMAGES for net in NETS[1:]}


def configs(preset: str) -> dict[str, RunConfig]:
    """One run per net and data set."""
    make = {"demo": _demo, "cpu": _cpu, "paper": _paper}[preset]
    return {label(images, net): make(data, net) for images, data in DATA[preset].items() for net in NETS}


def _model(net: str, latents: tuple[int, ...], dense: int, channels: tuple[int, ...]) -> ModelConfig:
    """z1 is next to the image; the hidden layers above it are the same in every arm."""
    first = {"MLP": (dense, dense), "residual": (dense, dense), "convolutional": (dense,)}[net]
    kind = net if net != "MLP" else "mlp"
    return ModelConfig(
        latents=latents,
        hidden=(first, *((width,) for width in (64, 32)[: len(latents) - 1])),
        nets=(kind, *("mlp",) * (len(latents) - 1)),  # type: ignore[arg-type]
        channels=channels if net == "convolutional" else ModelConfig.channels,
        activation=("leaky-relu",),
    )


def _demo(data: str, net: str) -> RunConfig:
    """8x8 digits: seconds a run."""
    return RunConfig(
        data=DataConfig(data),
        model=_model(net, latents=(12, 6, 3), dense=64, channels=(8, 16)),
        training=TrainingConfig(
            seeds=(0, 1, 2), n_steps=400, batch_size=100, learning_rate=Constant(2e-3), log_every_steps=25
        ),
        evaluation=EvaluationConfig(n_images=128, max_paths=128, n_likelihood=100, n_samples=200),
    )


def _cpu(data: str, net: str) -> RunConfig:
    """Four epochs of 60,000 images: minutes a run."""
    return RunConfig(
        data=DataConfig(data),
        model=_model(net, latents=(32, 16, 8), dense=128, channels=(16, 32)),
        training=TrainingConfig(
            seeds=(0, 1, 2), n_steps=2000, batch_size=128, learning_rate=Constant(2e-3), log_every_steps=50
        ),
        evaluation=EvaluationConfig(n_images=128, max_paths=256, n_likelihood=200),
    )


def _paper(data: str, net: str) -> RunConfig:
    """Five hundred epochs of larger nets, for a GPU."""
    epoch = 60_000 // 256
    return RunConfig(
        data=DataConfig(data),
        model=_model(net, latents=(64, 32, 16), dense=512, channels=(32, 64)),
        training=TrainingConfig(
            seeds=(0, 1, 2, 3),
            n_steps=500 * epoch,
            batch_size=256,
            learning_rate=Constant(1e-3),
            log_every_steps=epoch,
            checkpoint_every_steps=5 * epoch,
        ),
        evaluation=EvaluationConfig(n_likelihood=10_000, n_samples=5000),
    )


def _beats(images: str, net: str) -> Claim:
    first, second = label(images, net), label(images, "MLP")
    statement = f"The {net} stack's likelihood beats the MLP stack's on {images}."
    source = "a number to reach of this project" if net == "convolutional" else "question of this project"
    return difference(statement, source, BOUND, likelihood, first, second, "above", LIKELIHOOD_MARGIN_NATS)


claims = tuple(_beats(images, net) for net in ("convolutional", "residual") for images in ("MNIST", "Fashion-MNIST"))


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "convolution", *sys.argv[1:]]))
