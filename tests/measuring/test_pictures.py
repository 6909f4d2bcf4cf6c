"""Resampling grids: which layers are kept, and what stays where all are."""

import numpy as np
import pytest
import torch

from hvae import rng
from hvae.diagnostics.draws import Sampler
from hvae.measuring.pictures import MOST_CUTS, cuts, draw_pictures
from tests.measuring.growth import stack as dense
from tests.topdown.stacks import stack


def test_of_a_residual_stack_one_cut_a_resolution() -> None:
    """z6 is at 1x1, z5 and z4 at 2x2, z3 at 4x4, z2 and z1 at 8x8: kept are the layers no finer than each."""
    assert cuts(stack()) == ["z1", "z3", "z4", "z6"]


@pytest.mark.parametrize(("depth", "first"), [(5, ["z1", "z2", "z3", "z4", "z5"]), (40, ["z1", "z7"])])
def test_of_a_dense_stack_some_at_equal_steps(depth: int, first: list[str]) -> None:
    found = cuts(dense("top-down", depth, width=2))
    assert found[: len(first)] == first and found[-1] == f"z{depth}" and len(found) == min(depth, MOST_CUTS)


def test_what_is_kept_is_kept_and_the_rest_is_drawn() -> None:
    model = stack()
    x = (torch.rand(4, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    found = draw_pictures(model, x, (8, 8), 0)
    whole = found.resampled["z1"]
    assert found.reconstruction is not None
    assert whole == pytest.approx(np.broadcast_to(found.reconstruction[:, None], whole.shape), abs=1e-6)
    for name in ("z3", "z4", "z6"):
        assert found.resampled[name].std(axis=1).max() > 1e-3
    evidence = Sampler(model, x, 0).evidence(1, "images")
    kept = {z: evidence.q[z].value.expand(8, 4, -1) for z in ("z6", "z5", "z4")}
    noise = rng.noise(model.decoder.noise_specs(), 8, 4, seed=0, purpose="resample z4")
    with torch.no_grad():
        again = model.decoder.walk(kept, noise)["x"].mean.transpose(0, 1)
    assert np.array_equal(found.resampled["z4"], again.numpy())
