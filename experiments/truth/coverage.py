"""Do intervals hold what they say, and is what is said surely so? Counted over repetitions on planted stacks.

A repetition draws n images, further images, and all noise anew, and makes every interval that a diagnosis makes.
"Surely" is false where an interval lies on one side of epsilon and the truth on the other. The statements are those of
the rule: collapsed, active, noise only, weakly coded, unread. Nats.

    python -m hvae.experiments.truth.coverage DIR --preset cpu --to experiments/results/truth

makes the page of results; what is in DIR is not made again.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvae.certain import crossed_interval
from hvae.experiments import truth
from hvae.experiments.truth.accuracy import columns
from hvae.experiments.truth.coverage_gaps import gap_coverage_rows
from hvae.experiments.truth.coverage_page import coverage_csv, coverage_page, read_rows
from hvae.experiments.truth.planted import PIXELS, STACKS, Pixel, Planted
from hvae.experiments.truth.repeated import LAYERS, N_PATHS, Effort, Interval, built, intervals
from hvae.experiments.truth.tally import EPSILON, STATEMENT, Tally
from hvae.lab.evaluation.replicas import Arrays, Say
from hvae.numerics import mean_interval
from hvae.vocabulary import ACTIVE, COLLAPSED, NOISE_ONLY, RARE_SHARE, UNREAD, WEAK

EFFORT = Effort(n_alternatives=16, n_walks=2, max_paths=16)
"""less than a diagnosis takes, which is as valid and less sharp"""
MADE_WITH = (
    f"Settings are smaller than those of a diagnosis: V has {EFFORT.n_alternatives} alternatives, {EFFORT.n_walks} "
    f"walks and one look, information {EFFORT.max_paths} paths, everything else {N_PATHS}; L_{N_PATHS} stands for L_K."
)
N_OTHERS = 256
IMAGES = 4096
"""images at once: bounds the memory"""

Grid = tuple[Sequence[str], Sequence[int]]


def parts(
    *, repetitions: int, cells: Sequence[tuple[Sequence[str], Sequence[str], Sequence[int]]], gaps: Grid,
    n_samples: int, tables: Grid, say: Say,
) -> dict[str, Callable[[], Arrays]]:  # fmt: skip
    """Name -> what makes its rows: gaps and annealed bounds, tables of seeds and images, and each planted cell."""
    found: dict[str, Callable[[], Arrays]] = {
        "gaps": lambda: gap_coverage_rows([PIXELS[name] for name in gaps[0]], gaps[1], n_samples, repetitions, say),
        "tables": lambda: crossed_rows([PIXELS[name] for name in tables[0]], tables[1], repetitions, say),
    }
    for stacks, pixels, sizes in cells:
        for stack, pixel, n in product((s for s in STACKS if s.name in stacks), pixels, sizes):
            cell = (stack, PIXELS[pixel], n)
            name = f"{stack.inference} {stack.name} {pixel.split()[0]} {n}"
            found[name] = partial(coverage_rows, [cell], EFFORT, repetitions, say)
    return found


def together(rows: Sequence[Arrays]) -> Arrays:
    """One table: planted cells first, by pixel and number of images."""
    every = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
    pixels = np.array([list(PIXELS).index(name) for name in every["pixel"]])
    others = ~np.isin(every["stack"], [stack.name for stack in STACKS])
    order = np.lexsort(np.stack([every["n"], pixels, others]))
    return {name: values[order] for name, values in every.items()}


def all_rows(*, say: Say, **knobs: Any) -> Arrays:
    """Every row of a preset."""
    return together([make() for make in parts(**knobs, say=say).values()])


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the rows part by part, skips those that are there, and writes the table and the page."""
    parser = argparse.ArgumentParser(prog="python -m hvae.experiments.truth.coverage", description=main.__doc__)
    parser.add_argument("rows", type=Path, metavar="DIR", help="folder of the rows, a file for each part")
    parser.add_argument("--preset", choices=list(truth.COVERAGE), default="cpu")
    parser.add_argument("--to", type=Path, help="folder of coverage.md and tables/accuracy-coverage.csv; default DIR")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.rows.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, make in parts(**truth.COVERAGE[given.preset], say=partial(print, flush=True)).items():
        file = files[name] = given.rows / f"{given.preset} {name}.npz"
        if not file.exists():
            made, half = make(), file.with_suffix(".half.npz")
            np.savez(half, **made)
            half.rename(file)
    write(together([dict(np.load(file)) for file in files.values()]), given.to or given.rows)


def write(rows: Arrays, folder: Path) -> None:
    """The table, and the page that is made of it."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    table = coverage_csv(rows)
    (folder / "tables" / "accuracy-coverage.csv").write_text(table, encoding="utf-8")
    (folder / "coverage.md").write_text(coverage_page(read_rows(table), MADE_WITH), encoding="utf-8")


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
        found, verdicts = intervals(
            model, x[: repetitions - first, :n], x[: repetitions - first, n:], first, effort, interval
        )
        for (layer, quantity), ends in found.items():
            if (layer, quantity) not in tallies:
                tallies[layer, quantity] = Tally(quantity, _truth(stack, pixel, layer, quantity))
            tallies[layer, quantity].add(ends)
        for layer in LAYERS:
            said.update((layer, STATEMENTS[0] if word in COLLAPSED else word) for word in verdicts[layer])
    here = {
        "inference": stack.inference,
        "stack": stack.name,
        "pixel": pixel.name,
        "n": n,
        "counted": pixel.share >= RARE_SHARE,
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
    return stack.truth(layer, quantity, pixel)


STATEMENTS = ("collapsed", ACTIVE, NOISE_ONLY, WEAK, UNREAD)


def truths(stack: Planted, layer: str, pixel: Pixel) -> dict[str, bool]:
    """Which statements are true of a layer: of its share of images, what is used, coded, and coded of x."""
    i, j, v, child = (stack.truth(layer, quantity, pixel) for quantity in ("I", "J", "V", "child"))
    share = stack.share_beyond(layer, EPSILON, pixel)
    noise, weak, unread = j > EPSILON > i, i < EPSILON and share > RARE_SHARE, i > EPSILON > child
    holds = (share < RARE_SHARE, v > EPSILON, noise, weak, unread)
    return dict(zip(STATEMENTS, holds, strict=True))


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


if __name__ == "__main__":
    main()
