"""How often the intervals of gap terms and annealed bounds hold: on a linear stack, of many sets of images at once."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from hvae.diagnostics.gap import split_gap
from hvae.diagnostics.marginals import Sampling
from hvae.diagnostics.terms import Term
from hvae.exact.known_stacks import linear_stack
from hvae.exact.linear_gaussian import LinearGaussian
from hvae.experiments.truth.accuracy import columns
from hvae.experiments.truth.planted import Pixel
from hvae.experiments.truth.tally import Tally
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.likelihood.annealing import Annealing, anneal
from hvae.likelihood.target import from_encoder
from hvae.numerics import mean_interval

IMAGES = 1000
"""images at once: bounds the memory"""


@torch.no_grad()
def gap_coverage_rows(
    pixels: Sequence[Pixel], sizes: Sequence[int], n_samples: int, repetitions: int, say: Say
) -> Arrays:
    """Gap terms and annealed bounds of a linear stack, on images of its decoder times a pixel.

    A gap term is of the n images that it was measured on, against their exact gap. The annealed bound is of images at
    large, against the mean of log p(x), which has the moments of the decoder's images for every pixel. Terms are made
    of many sets at once; so the proposals are chosen once for all of them.
    """
    stack, rows = linear_stack(1.0, "best", seed=0, widths=(4, 2, 2)), []
    assert isinstance(stack.reference, LinearGaussian)
    mean, covariance = stack.reference.marginal(["x"])
    root, width = torch.linalg.cholesky(covariance), len(mean)
    log_px = -(width * math.log(2 * math.pi * math.e) + float(covariance.logdet())) / 2
    for pixel in pixels:
        for n in sizes:
            say(f"coverage of gaps, {pixel.name}, n = {n}")
            source = np.random.default_rng([n, *pixel.name.encode()])
            tallies = {(name, "gap"): Tally("gap", math.nan) for name in stack.model.latents}
            tallies["x", "annealed bound"] = Tally("annealed bound", log_px)
            at_once = max(1, min(repetitions, IMAGES // n))
            for first in range(0, repetitions, at_once):
                n_sets = min(at_once, repetitions - first)
                size = np.ones(n_sets * n) if pixel.name == "Gaussian" else pixel.draw(source, n_sets * n)
                x = mean + torch.as_tensor(source.normal(size=(n_sets * n, width)) * size[:, None]) @ root.mT
                gap = split_gap(stack.model, x, 4, Sampling(n_samples, first, proposals=("q", "widened")))
                exact = stack.reference.gaps(stack.model.posterior, x)
                for name, layer in gap.layers.items():
                    truth = exact.layers[name].numpy().reshape(n_sets, n).mean(1)
                    tallies[name, "gap"].add(np.array([_of_set(layer.term, row, n) for row in range(n_sets)]), truth)
                annealed = anneal(from_encoder(stack.model, x), Annealing(8, 8, 2), first).estimate.log_px
                tallies["x", "annealed bound"].add(mean_interval(annealed.reshape(n_sets, n))[:, [0, 2]])
            here = {"inference": "bottom-up", "stack": "known", "pixel": pixel.name, "n": n, "counted": False}
            rows += [{**here, "layer": layer, **tally.row()} for (layer, _), tally in tallies.items()]
    return columns(rows)


def _of_set(term: Term, row: int, n: int) -> tuple[float, float]:
    """The ends of the interval of one set's images."""
    own = slice(row * n, (row + 1) * n)
    of_set = dataclasses.replace(
        term, datum_nats=term.datum_nats[own], standard_error=term.standard_error[own], bias=term.bias[own]
    )
    low, _, high = of_set.interval()
    return low, high
