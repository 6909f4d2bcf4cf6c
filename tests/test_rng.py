"""Draws are functions of a key: equal keys equal numbers, any part changed other numbers, and the distributions are
right."""

import hashlib

import numpy as np
import torch

from hvae import rng
from hvae.rng import NoiseSpecs
from tests.statistics import assert_mean

SPECS: NoiseSpecs = {"z2": ("normal", 3), "z1": ("uniform", 2)}


def draw(**key: object) -> dict[str, torch.Tensor]:
    return rng.noise(SPECS, 4, 5, **{"seed": 1, "purpose": "train", "step": 7, **key})  # type: ignore[arg-type]


def test_the_key_is_part_of_the_released_meaning() -> None:
    """Seeds by hashlib, as the docstring says: a change here would change the numbers of every run."""
    digest = hashlib.sha256(b"3/train/7").digest()
    assert rng.generator(3, "train", 7).initial_seed() == int.from_bytes(digest[:8], "big") >> 1 == 799840831371539595


def test_equal_keys_give_equal_numbers_in_any_order_of_asking() -> None:
    first, other = draw(), draw(step=8)
    torch.manual_seed(0)
    torch.randn(10)
    assert all(torch.equal(draw(step=8)[name], other[name]) for name in SPECS)
    assert all(torch.equal(draw()[name], first[name]) for name in SPECS)
    assert {name: tuple(value.shape) for name, value in first.items()} == {"z2": (4, 5, 3), "z1": (4, 5, 2)}


def test_any_part_of_the_key_changes_all_numbers() -> None:
    first = draw()
    for key in ({"seed": 2}, {"purpose": "binarise"}, {"step": 6}, {"seed": 17, "step": 0}, {"seed": 1, "step": 77}):
        assert all((draw(**key)[name] != first[name]).all() for name in SPECS)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw()
    rng.permutation(10, seed=0, purpose="order")
    assert torch.equal(torch.get_rng_state(), before)


def test_kinds_of_noise_have_their_moments_and_streams_are_independent() -> None:
    a = rng.noise(SPECS, 200, 200, seed=0, purpose="a", dtype=torch.float64)
    b = rng.noise(SPECS, 200, 200, seed=0, purpose="a", step=1, dtype=torch.float64)
    normal, uniform = (a[name].flatten(end_dim=1).numpy() for name in SPECS)
    again = b["z2"].flatten(end_dim=1).numpy()
    for values, expected, detect in (
        (normal, 0, 0.06), (normal**2, 1, 0.09), (normal**4, 3, 0.6), (normal * again, 0, 0.06),
        (normal[:, :2] * uniform, 0, 0.06), (uniform, 1 / 2, 0.02), (uniform**2, 1 / 3, 0.02),
    ):  # fmt: skip
        assert_mean(values, np.full(values.shape[1], expected), detect=detect)
    assert uniform.min() >= 0 and uniform.max() < 1


def test_permutations_hold_everything_once_and_every_place_is_equally_likely() -> None:
    orders = np.stack([rng.permutation(5, seed=seed, purpose="order", step=3).numpy() for seed in range(3000)])
    assert (np.sort(orders, 1) == np.arange(5)).all()
    assert_mean(orders[:, :, None] == np.arange(5), np.full((5, 5), 0.2), detect=0.1)
    assert not np.array_equal(orders[0], rng.permutation(5, seed=0, purpose="order", step=4).numpy())
