"""Floating-point operations of the presets `paper` of deep stacks, and the hours that they would take on a GPU.

    python -m hvae.experiments.shared.costs.flops

It counts one training step of each run at its true size, on the CPU and with two images, by
`torch.utils.flop_counter` (matrix products and convolutions, forward and backward, recomputed activations included).
All of these grow with the number of images, so a step of B images has B / 2 times as many. Writes the table between
the marks of docs/performance.md.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import hvae
from hvae.data import Dataset
from hvae.experiments.shared.costs.bench.page import renewed
from hvae.lab import experiment
from hvae.lab.assembly import build_hvae
from hvae.lab.config import RunConfig

MARKS = "<!-- begin: paper presets -->", "<!-- end: paper presets -->"
PAGE = Path("docs/performance.md")
NAMES = ("very-deep", "lvae-conv")
SUSTAINED = 20e12
"""operations a second of a data-centre GPU on these nets, in TF32; far below its peak, as the layers are small"""
SHAPES: Mapping[str, tuple[int, ...]] = {"cifar10": (3, 32, 32), "mnist": (28, 28)}
"""beginning of a data set's name -> shape of its images"""
N_IMAGES = 2


def flops_of_step(config: RunConfig) -> float:
    """Operations of one training step of one seed."""
    shape = next(shape for name, shape in SHAPES.items() if config.data.name.startswith(name))
    x = torch.rand(N_IMAGES, math.prod(shape), generator=torch.Generator().manual_seed(0))
    binary = config.model.observation == "bernoulli"
    x = x.round() if binary else x.mul(255).round().div(255)
    data = Dataset("toy", x, x, shape, "binary" if binary else "grey", False)
    model = build_hvae(config.model, data, seed=0)
    fit = hvae.fit(
        [model], hvae.Elbo(), lambda step: x, n_steps=1, checkpoint_gradients=config.training.checkpoint_gradients
    )
    with FlopCounterMode(display=False) as counter:
        for _ in fit:
            pass
    return counter.get_total_flops() * config.training.batch_size / N_IMAGES


def table() -> str:
    """A row for each run."""
    heads = ("preset `paper` of", "run", "seeds", "steps", "GFLOP a step and seed", "hours of a GPU")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|"]
    total = 0.0
    for name in NAMES:
        for label, config in experiment.find(name).configs("paper").items():
            per_step, training = flops_of_step(config), config.training
            hours = per_step * training.n_steps * len(training.seeds) / SUSTAINED / 3600
            total += hours
            seen = (name, label, len(training.seeds), training.n_steps, f"{per_step / 1e9:.3g}", f"{hours:.3g}")
            lines.append(f"| {' | '.join(map(str, seen))} |")
            print(lines[-1], file=sys.stderr, flush=True)
    said = f"At {SUSTAINED / 1e12:g} TFLOP/s, all together {total:.3g} hours. Measuring is not counted."
    return "\n".join(["", *lines, "", said, ""])


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), table(), MARKS), encoding="utf-8")
