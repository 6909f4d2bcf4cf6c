"""Checks of a configuration that need the data."""

import torch
from torch import nn

from hvae.data import Dataset
from hvae.data.card import whole_numbers
from hvae.diagnosis.pixels import Pixels
from hvae.errors import ConfigError
from hvae.lab.config import ModelConfig, TrainingConfig
from hvae.lab.config.observations import COUNTS, LEVELS
from hvae.nets.frugal import save_memory

MOST = 2**24
"""the largest count: float32 does not tell it from the next"""


def check_observation(config: ModelConfig, data: Dataset) -> None:
    """Refuse a distribution of x that cannot produce the data."""
    if config.observation in COUNTS or data.kind == "counts":
        _check_counts(config, data)
        return
    if config.observation == "bernoulli" and data.kind != "binary":
        binarise = "" if data.kind == "real" else f", or binarise the images with data.name {data.name}:dynamic"
        if data.kind == "grey" and data.name.endswith("-grey"):
            binarise = f", or take data.name {data.name.removesuffix('-grey')}-dynamic"
        raise ConfigError(
            f"model.observation is bernoulli, but {data.name} holds {data.kind} values; "
            f"use model.observation gaussian{binarise}."
        )
    if config.observation in LEVELS:
        if data.kind != "grey":
            raise ConfigError(
                f"model.observation is {config.observation}, which is for grey values in steps, but {data.name} holds "
                f"{data.kind} values; use model.observation {'bernoulli' if data.kind == 'binary' else 'gaussian'}."
            )
        steps = config.n_levels - 1
        off = max(float((values * steps - (values * steps).round()).abs().max()) for values in (data.train, data.test))
        if off > 1e-3:
            raise ConfigError(
                f"model.n_levels is {config.n_levels}, but {data.name} holds values that are no multiples of "
                f"1/{steps}; give the number of its levels, or use model.observation gaussian."
            )
        if config.observation != LEVELS[0] and Pixels.of(data.image_shape) is None:
            raise ConfigError(
                f"model.observation is {config.observation}, which is for images, but {data.name} holds rows of "
                f"{data.train.shape[1]} numbers; use model.observation {LEVELS[0]}."
            )
    if config.observation == "gaussian" and data.kind == "binary":
        raise ConfigError(
            f"model.observation is gaussian, but {data.name} holds 0/1 values, where a density has no upper bound; "
            "use model.observation bernoulli."
        )


def _check_counts(config: ModelConfig, data: Dataset) -> None:
    low, high = (float(value) for value in torch.cat([data.train, data.test]).aminmax())
    if config.observation not in COUNTS:
        raise ConfigError(whole_numbers(data.name, low, high))
    if data.kind != "counts":
        remedy = {"binary": "use model.observation bernoulli", "real": "use model.observation gaussian"}
        raise ConfigError(
            f"model.observation is {config.observation}, which is for counts 0, 1, 2 and so on, but {data.name} holds "
            f"{data.kind} values; {remedy.get(data.kind, 'write counts that are bytes as int64, or use gaussian')}."
        )
    if high > MOST:
        raise ConfigError(
            f"{data.name} holds counts up to {high:.4g}, above 2^24 = {MOST}, where neighbours are one number in "
            "float32; count in larger units, or write the logarithms for model.observation gaussian."
        )


def check_image(config: ModelConfig, data: Dataset) -> None:
    """Refuse convolutions over data that are no images, or too small ones."""
    if "convolutional" not in config.nets:
        return
    pixels = Pixels.of(data.image_shape)
    if pixels is None:
        raise ConfigError(
            f"model.nets is convolutional, but {data.name} holds rows of {data.train.shape[1]} numbers and no images; "
            "use mlp or residual."
        )
    side, n = min(pixels.rows, pixels.columns), len(config.channels)
    if side <= 2 ** (n - 1):
        raise ConfigError(
            f"model.channels is {list(config.channels)}, which halves the {pixels.rows} x "
            f"{pixels.columns} images of {data.name} {n} times, beyond one pixel; give fewer."
        )


def check_batch_size(batch_size: int, data: Dataset) -> None:
    """Refuse a batch larger than the training set."""
    if batch_size > len(data.train):
        raise ConfigError(
            f"training.batch_size is {batch_size}, but {data.name} has {len(data.train)} training images; "
            "give a smaller batch."
        )


def precision(config: TrainingConfig) -> torch.dtype | None:
    """Of the nets of a residual stack while it trains; None for that of the weights."""
    return torch.bfloat16 if config.precision == "bfloat16" else None


def check_savings(config: TrainingConfig, model: nn.Module) -> None:
    """Refuse to save memory in a model that has no residual blocks."""
    save_memory([model], recompute=config.checkpoint_gradients, precision=precision(config))
