"""Are the numbers true: how far is every estimator from the exact answer, where there is one?

No public code of hierarchical autoencoders has a stack with a known answer. So the errors of its likelihoods and
divergences are unknown. Here linear-Gaussian, binary and small non-linear stacks have exact answers. Couplings run from
weak to strong; encoders are best, over-confident or tilted. Do three exact ways to each layer's gap agree? Does an
estimated gap lie within its interval where it is trusted? Are lower bounds of log p(x) below it, and upper bounds
above? On a stack trained on images nothing is exact. There, how close do lower and upper bounds come, on data that the
model itself made? And do intervals hold what they say: how often, on stacks with known answers, are their ends on the
wrong side, and is what they show false?

Source: R. Grosse, Z. Ghahramani, R. Adams, "Sandwiching the marginal likelihood using bidirectional Monte Carlo",
arXiv:1511.02543; Y. Wu, Y. Burda, R. Salakhutdinov, R. Grosse, "On the quantitative analysis of decoder-based
generative models", ICLR 2017, arXiv:1611.04273.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hvae.experiments import depth
from hvae.lab.config import RunConfig

PRESETS = ("demo", "cpu")
KEPT = ("accuracy-gaps", "accuracy-bounds", "accuracy-sandwich")
ON_CPU = ("gaps", "bounds", "coverage")
"""parts that stay on the CPU: they read no run"""

TRAINED = "depth-2 bottom-up"

GRID: Mapping[str, Mapping[str, Any]] = {
    "demo": {"strengths": (0.3, 3.0), "n_draws": 32, "n_samples": 1000},
    "cpu": {"strengths": (0.1, 0.3, 1.0, 3.0, 10.0), "n_draws": 128, "n_samples": 2000},
}
"""couplings from weak to strong, draws of q per datum, draws of a proposal"""
BOUNDS: Mapping[str, Mapping[str, Any]] = {
    "demo": {"n_data": 200, "n_samples": (1, 10, 100, 1000), "annealing": (50, 16, 3)},
    "cpu": {"n_data": 300, "n_samples": (1, 10, 100, 1000), "annealing": (100, 32, 4)},
}
SANDWICH: Mapping[str, Mapping[str, Any]] = {
    "demo": {"n_data": 50, "n_temperatures": (10, 40, 160), "n_chains": 16, "n_leapfrog": 4},
    "cpu": {"n_data": 100, "n_temperatures": (10, 25, 50, 100, 200), "n_chains": 64, "n_leapfrog": 4},
}
COMMON, RARE = ("Gaussian", "heavy tails", "5 % of images"), ("1 % of images", "0.5 % of images")
COVERAGE: Mapping[str, Mapping[str, Any]] = {
    "demo": {
        "repetitions": 25, "cells": ((("above",), ("Gaussian", "5 % of images"), (20, 100)),),
        "gaps": (("Gaussian",), (20,)), "n_samples": 200, "tables": (("Gaussian", "5 % of images"), (100,)),
    },
    "cpu": {
        "repetitions": 400,
        "cells": (
            (("above", "below"), COMMON, (20, 100)), (("clear",), COMMON, (100,)), (("above",), COMMON, (512,)),
            (("above",), ("5 % of images",), (72, 144)), (("above",), RARE, (512,)), (("above",), RARE[:1], (100,)),
            (("below",), ("Gaussian", "5 % of images"), (144, 512)),
            (("more than noise", "unread"), ("Gaussian", "5 % of images"), (100, 144)),
            (("more than noise",), ("5 % of images",), (72,)), (("unread",), ("Gaussian",), (512,)),
        ),
        "gaps": (COMMON[:2], (20,)), "n_samples": 400, "tables": (COMMON + RARE, (100, 512)),
    },
}  # fmt: skip
"""repetitions of each cell; stacks, pixels and numbers of images; pixels and images of gap terms, and their draws of a
proposal; pixels and images of tables of seeds"""

MEASUREMENTS: Mapping[str, Mapping[str, Mapping[str, int]]] = {"cpu": {"annealed": {}, "gap": {}}}
"""of the trained stack, so that its report has its gap too"""


def configs(preset: str) -> dict[str, RunConfig]:
    """One trained stack of two layers: 8x8 digits at demo, MNIST at cpu, as in the experiment `depth`."""
    config = depth.configs(preset)[TRAINED]
    training = dataclasses.replace(config.training, seeds=(0,))
    evaluation = dataclasses.replace(config.evaluation, n_likelihood=100, n_likelihood_deep=0)
    return {TRAINED: dataclasses.replace(config, training=training, evaluation=evaluation)}


claims = ()
"""no claim is decided by seeds; the tests assert what must hold of estimators, and the report shows it"""


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """Name -> how to make its arrays: `sandwich` on the trained stack, the others on known ones."""
    from hvae.exact import known_stacks as examples
    from hvae.experiments.truth import accuracy
    from hvae.likelihood import Annealing

    def gaps() -> Any:
        knobs = GRID[preset]
        return accuracy.gap_rows(
            examples.grid(knobs["strengths"]), knobs["n_draws"], knobs["n_samples"], seed=0, say=say
        )

    def bounds() -> Any:
        knobs = BOUNDS[preset]
        return accuracy.bound_rows(
            examples.families(), knobs["n_data"], knobs["n_samples"], Annealing(*knobs["annealing"]), seed=0, say=say
        )

    def sandwich() -> Any:
        from hvae.lab.completion import load_data
        from hvae.lab.runs.run import Run
        from hvae.lab.training.loop import load_trained

        run = Run.open(runs[TRAINED])
        data = load_data(run.config, data_dir)
        trained = load_trained(run, data, device)
        return accuracy.sandwich_rows(trained.models[0], data.test[:1].to(device), **SANDWICH[preset], seed=0, say=say)

    def coverage() -> Any:
        from hvae.experiments.truth.coverage import all_rows

        return all_rows(**COVERAGE[preset], say=say)

    return {"gaps": gaps, "bounds": bounds, "sandwich": sandwich, "coverage": coverage}


def sections() -> tuple[Any, ...]:
    """What this adds to the report."""
    from hvae.experiments.truth import section

    return (section.SECTION,)
