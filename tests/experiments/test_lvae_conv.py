"""Presets of `lvae-conv`: depths, sizes, the settings of the replication."""

import pytest
import torch

from hvae import Bernoulli, DiscretisedLogisticMixture
from hvae.experiments import lvae_conv
from hvae.experiments.lvae_conv import CIFAR, DEPTHS, STACKS, label
from hvae.lab.assembly.blocks import build_blocks


def sizes(preset: str) -> dict[str, int]:
    found = {}
    for name, blocks in STACKS[preset].items():
        shape = (3, 32, 32) if name == CIFAR else (28, 28) if preset != "smoke" else (8, 8)
        family = DiscretisedLogisticMixture(shape) if name == CIFAR else Bernoulli(shape[0] * shape[1])
        model = build_blocks(blocks, shape, family, torch.Generator(), None)
        assert len(model.latents) == int(name.removeprefix("CIFAR-10, ").split()[0])
        found[name] = sum(weights.numel() for weights in model.parameters())
    return found


def test_stacks_of_the_small_preset_have_equally_many_weights() -> None:
    assert set(sizes("smoke")) == set(map(label, DEPTHS))
    found = sizes("cpu").values()
    assert max(found) <= 1.05 * min(found)


def test_paper_stacks_have_about_a_million_weights_a_layer_as_the_replication() -> None:
    assert all(0.75e6 <= n / int(name.split()[-2]) <= 1.25e6 for name, n in sizes("paper").items())


@pytest.mark.parametrize("preset", lvae_conv.PRESETS)
def test_free_nats_follow_the_depth(preset: str) -> None:
    free = {name: run.objective.free_nats for name, run in lvae_conv.configs(preset).items()}
    assert free[label(3)] == free[label(6)] == (0.5,) and free[label(12)] == (1.0,)
    assert free.get(CIFAR, (1.0,)) == (1.0,)


def test_the_paper_preset_trains_as_the_replication() -> None:
    for run in lvae_conv.configs("paper").values():
        assert (run.training.batch_size, run.training.learning_rate(0)) == (64, 3e-4)
        assert run.model.blocks is not None and (run.model.blocks.width, run.model.blocks.channels) == (64, 32)
