"""Presets of `very-deep`: depths, equal sizes, what the claims read."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from hvae import Bernoulli, DiscretisedLogisticMixture
from hvae.analysis import measures
from hvae.analysis.claims import NotMeasuredError
from hvae.data import Dataset
from hvae.experiments import very_deep
from hvae.experiments.very_deep import COARSE, FINE, MNIST, ONE, STACKS, label
from hvae.lab.assembly import build_hvae
from hvae.lab.assembly.blocks import build_blocks

SHAPES = {"demo": (8, 8), "cpu": (3, 16, 16), "paper": (3, 32, 32)}


def images(shape: tuple[int, ...]) -> Dataset:
    source = torch.Generator().manual_seed(0)
    x = torch.rand(8, math.prod(shape), generator=source).mul(255).round().div(255)
    return Dataset("toy", x, x, shape, "grey", False)


def size(model: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


@pytest.mark.parametrize("preset", ["demo", "cpu", pytest.param("paper", marks=pytest.mark.slow)])
def test_stacks_of_one_preset_have_the_layers_they_are_named_after_and_equal_numbers_of_weights(preset: str) -> None:
    shape, sizes = SHAPES[preset], {}
    for name, blocks in STACKS[preset].items():
        if name != MNIST:
            family = DiscretisedLogisticMixture(shape) if len(shape) == 3 else Bernoulli(64)
            model = build_blocks(blocks, shape, family, torch.Generator(), None)
            assert len(model.latents) == int(name.split()[0])
            sizes[name] = size(model)
    if preset != "demo":
        sizes[ONE] = size(build_hvae(very_deep.configs(preset)[ONE].model, images(shape), seed=0))
    wanted = sizes[label(12)]
    assert all(abs(found / wanted - 1) <= 1 / 8 for found in sizes.values()), sizes


def test_the_deepest_paper_stack_is_that_of_the_released_code() -> None:
    """39 million weights, as its authors say; blocks and settings of their file."""
    run = very_deep.configs("paper")[label(43)]
    blocks, training = run.model.blocks, run.training
    assert blocks is not None and (blocks.width, blocks.channels, blocks.bottleneck) == (384, 16, 0.25)
    assert (training.batch_size, training.learning_rate(10**6), training.weight_decay) == (2 * 16, 2e-4, 0.01)
    assert (training.adam_betas, training.ema_decay) == ((0.9, 0.9), 0.9999)
    assert (training.clip_norm, training.skip_norm) == (200.0, 400.0)


@pytest.mark.parametrize("preset", very_deep.PRESETS)
def test_arms_differ_from_their_baseline_in_what_they_are_named_after(preset: str) -> None:
    runs = very_deep.configs(preset)
    plain, cured = runs[label(24)], runs[label(24, cured=True)]
    seeds = cured.training.seeds
    assert seeds == plain.training.seeds[: len(seeds)]
    as_plain = dataclasses.replace(plain, training=dataclasses.replace(plain.training, seeds=seeds))
    assert dataclasses.replace(cured, objective=plain.objective) == as_plain
    assert cured.objective.free_nats == (1.0,) and cured.objective.beta(plain.training.n_steps // 3) == 1.0
    for name in (COARSE, FINE):
        assert len(runs[name].model.units) == 12 and runs[name].data == plain.data
    for name, run in runs.items():
        blocks, named = run.model.blocks, re.search(r"(\d+) channel", name)
        assert named is None or (blocks is not None and blocks.channels == int(named[1])), name
    sums = {name: sum(runs[name].model.blocks.resolutions) for name in (COARSE, label(12), FINE)}  # type: ignore[union-attr]
    assert sums[COARSE] < sums[label(12)] < sums[FINE]
    steps = {run.training.n_steps for name, run in runs.items() if "MNIST" not in name}
    assert len(steps) == 1
    if preset != "demo":
        seen = {n: runs[n].training.n_steps * runs[n].training.batch_size for n in (MNIST, very_deep.DENSE)}
        assert seen[MNIST] == pytest.approx(seen[very_deep.DENSE], rel=0.01)


class Layer:
    def __init__(self, name: str, place: str, rate: float, used: float) -> None:
        self.name, self.place, self.found = name, place, {"rate_nats": rate, "used_nats": used}

    def interval(self, key: str) -> np.ndarray:
        return np.full((2, 3), self.found[key])


class Run:
    seeds = (0, 1)
    layers = (Layer("z1", "2x2", 3.0, 0.5), Layer("z2", "1x1", 0.5, 0.25), Layer("z3", "1x1", 0.5, 2.0))

    def __init__(self, config: Any) -> None:
        self.config, self.evaluated, self.label = config, True, "12 layers"


def test_measures_read_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (very_deep, measures):
        monkeypatch.setattr(module, "find", lambda runs, name: runs[name])
    runs: Any = {label(12): Run(very_deep.configs("demo")[label(12)])}
    assert measures.least_use(runs, label(12)).values.tolist() == [0.25, 0.25]
    assert very_deep.share_of_rate(runs, label(12), "1x1").values.tolist() == [25.0, 25.0]
    with pytest.raises(NotMeasuredError, match="no latent at 4x4"):
        very_deep.share_of_rate(runs, label(12), "4x4")
    with pytest.raises(NotMeasuredError, match="8-bit"):
        very_deep.bits_per_dim(runs, label(12))


def test_panels_and_baselines_name_runs_of_a_preset() -> None:
    names = set(very_deep.configs("cpu"))
    assert {name for panel in very_deep.panels.values() for name in panel} >= names
    assert set(very_deep.baselines.values()) <= names | set(very_deep.configs("paper"))
