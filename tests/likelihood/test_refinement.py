"""A fit goes on where a gradient is no number. What a fit reaches is tested with the diagnostics that use it."""

import math

import torch

from hvae.likelihood.refinement import Refinement, refine
from hvae.likelihood.target import Target


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    """``log w = c ε``: the slopes of three data are infinite or none, and the fourth goes on."""
    slopes = torch.tensor([math.inf, -math.inf, math.nan, 1.0], dtype=torch.float64)
    target = Target(lambda noise: noise[..., 0] * slopes, {"z1": ("normal", 1)}, like=slopes[:, None])
    shift, log_scale = refine(target, Refinement(n_steps=20), seed=0, purpose="test")
    assert (shift[:3] == 0).all() and (log_scale[:3] == 0).all()
    assert shift[3] > 0.5 and log_scale[3].isfinite()
