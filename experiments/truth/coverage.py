"""Do intervals hold what they say, and is what is said surely so? Counted over repetitions on planted stacks.

A repetition draws n images, further images, and all noise anew, and makes every interval that a diagnosis makes.
"Surely" is false where an interval lies on one side of epsilon and the truth on the other. The statements are those of
the rule: collapsed, active, noise only, unread. Nats.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from hvae.diagnostics.certain import crossed_interval

from hvae.diagnostics import usage
from hvae.diagnostics.draws import Sampler
from hvae.experiments.truth.accuracy import columns
from hvae.experiments.truth.coverage_gaps import gap_coverage_rows
from hvae.experiments.truth.planted import PIXELS, STACKS, Pixel, Planted
from hvae.experiments.truth.repeated import ITS_BOUNDS, LAYERS, N_PATHS, Effort, Interval, built, intervals
from hvae.experiments.truth.tally import EPSILON, FEWEST_ABSENT, FEWEST_ACTIVE, SHARE, STATEMENT, Tally
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.numerics import FloatArray, mean_interval

N_OTHERS = 256
IMAGES = 4096
"""images at once: bounds the memory"""
MANY = 2**17


def all_rows(
    *, repetitions: int, sizes: Mapping[str, Sequence[int]], pixels: Sequence[str], gaps: Sequence[int], n_samples: int,
    say: Say,
) -> Arrays:  # fmt: skip
    """Every row: of the planted stacks at their sizes, of gaps and annealed bounds, of tables of seeds and images."""
    chosen = [PIXELS[name] for name in pixels]
    cells = [(stack, pixel, n) for pixel in chosen for stack in STACKS for n in sizes.get(stack.name, ())]
    parts = (
        coverage_rows(cells, Effort(16, 2, 16), repetitions, say),
        gap_coverage_rows(chosen[:2], gaps, n_samples, repetitions, say),
        crossed_rows(chosen, (100, 512), repetitions, say),
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def coverage_rows(
    cells: Iterable[tuple[Planted, Pixel, int]],
    effort: Effort,
    repetitions: int,
    say: Say,
    interval: Interval = mean_interval,
) -> Arrays:
    """One row per stack, pixel, number n of images, layer, and kind of interval or statement.

    ``interval`` makes the ends of a mean over images; the tests break it on purpose.
    """
    rows = []
    for stack, pixel, n in cells:
        say(f"coverage of {stack.inference}, {stack.name}, {pixel.name}, n = {n}")
        rows += _cell(stack, pixel, n, effort, repetitions, interval)
    return columns(rows)


def _cell(
    stack: Planted, pixel: Pixel, n: int, effort: Effort, repetitions: int, interval: Interval
) -> list[dict[str, Any]]:
    model, source = built(stack), np.random.default_rng([n, *f"{stack.inference} {stack.name} {pixel.name}".encode()])
    tallies: dict[tuple[str, str], Tally] = {}
    said: Counter[tuple[str, str]] = Counter()
    at_once = max(1, min(repetitions, IMAGES // n))
    for first in range(0, repetitions, at_once):
        x = torch.as_tensor(pixel.draw(source, at_once * (n + N_OTHERS)).reshape(at_once, n + N_OTHERS, 1))
        found = intervals(model, x[: repetitions - first, :n], x[: repetitions - first, n:], first, effort, interval)
        for (layer, quantity), ends in found.items():
            if (layer, quantity) not in tallies:
                tallies[layer, quantity] = Tally(quantity, _truth(stack, pixel, layer, quantity))
            tallies[layer, quantity].add(ends)
        for layer in LAYERS:
            of_layer = {quantity: ends for (of, quantity), ends in found.items() if of == layer}
            said.update((layer, statement) for statement in stated(of_layer, n))
    here = {
        "inference": stack.inference,
        "stack": stack.name,
        "pixel": pixel.name,
        "n": n,
        "counted": pixel.share >= SHARE,
    }
    rows = [{**here, "layer": layer, **tally.row()} for (layer, _), tally in tallies.items()]
    for layer in LAYERS:
        for statement, holds in truths(stack, layer, pixel).items():
            share = said[layer, statement] / repetitions
            wrong = 0.0 if holds else share
            row = Tally(statement, float(holds), Counter(n=repetitions)).row()
            rows.append({**here, "layer": layer, **row, "covers": STATEMENT, "covered": share, "falsely_above": wrong})
    return rows


def _truth(stack: Planted, pixel: Pixel, layer: str, quantity: str) -> float:
    if quantity == "share of images":
        return stack.share_beyond(layer, EPSILON, pixel)
    return _mean_of_bounds(stack, pixel, layer) if quantity == ITS_BOUNDS else stack.truth(layer, quantity, pixel)


@cache
@torch.no_grad()
def _mean_of_bounds(stack: Planted, pixel: Pixel, layer: str) -> float:
    """The model knock-out's own mean, of `MANY` images: SE 3 % of the half width of an interval at 512."""
    x = torch.as_tensor(pixel.draw(np.random.default_rng(0), MANY)).unsqueeze(-1)
    sampler = Sampler(built(stack), x, seed=2**20)
    return float(usage.model_knockout(sampler, sampler.evidence(N_PATHS, "truth"), layer, "truth").mean())


STATEMENTS = ("collapsed", "active", "codes noise only", "coded but unread")


def truths(stack: Planted, layer: str, pixel: Pixel) -> dict[str, bool]:
    """Which statements are true of a layer: of its share of images, what is used, coded, and coded of x."""
    i, j, v, child = (stack.truth(layer, quantity, pixel) for quantity in ("I", "J", "V", "child"))
    return {
        "collapsed": stack.share_beyond(layer, EPSILON, pixel) < SHARE,
        "active": v > EPSILON,
        "codes noise only": j > EPSILON > i,
        "coded but unread": i > EPSILON > child,
    }


def stated(ends: Mapping[str, FloatArray], n: int) -> list[str]:
    """What the rule says of a layer, from its intervals ``[R, 2]`` on n images, in each repetition."""
    v, j, i, u = (ends[quantity].T for quantity in ("V", "J", "I", "U"))
    collapsed = ends["share of images"][:, 1] < SHARE
    active = (n >= FEWEST_ACTIVE) & (v[0] > EPSILON)
    noise = (n >= FEWEST_ABSENT) & (j[0] > EPSILON) & (i[1] < EPSILON)
    unread = (n >= FEWEST_ABSENT) & (i[0] > EPSILON) & (u[1] < EPSILON)
    found: list[str] = np.select([collapsed, active, noise, unread], STATEMENTS, "undecided").tolist()
    return found


def crossed_rows(pixels: Sequence[Pixel], sizes: Sequence[int], repetitions: int, say: Say) -> Arrays:
    """Means of tables ``[S, n]``, S = 4 seeds on the same images, and paired differences of two; the truth is 0."""
    rows = []
    for pixel in pixels:
        say(f"coverage over seeds and images, {pixel.name}")
        for n in sizes:
            for kind, of_images, of_seeds in (("L over seeds", 30.0, 0.2), ("difference of L over seeds", 3.7, 0.3)):
                source = np.random.default_rng([n, *f"{kind} {pixel.name}".encode()])
                tables = of_images * pixel.draw(source, repetitions * n).reshape(repetitions, 1, n)
                tables = tables + of_seeds * source.normal(size=(repetitions, 4, 1))
                tables = tables + source.normal(size=(repetitions, 4, n))
                tally = Tally(kind, 0.0)
                tally.add(np.array([crossed_interval(table) for table in tables])[:, [0, 2]])
                here = {"inference": "any", "stack": "tables", "pixel": pixel.name, "n": n, "counted": False}
                rows.append({**here, "layer": "x", **tally.row()})
    return columns(rows)
