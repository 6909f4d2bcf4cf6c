"""How do objectives differ on the same stack: in collapse, likelihood, and consistency of encoder and decoder?

ELBO, IWAE (also with doubly reparametrised gradients, DReG, or VIMCO's baseline), reweighted wake-sleep (RWS) and
wake-sleep train the same Gaussian stack and the same binary stack, at equal numbers of steps and at equal CPU time.
Without labels symmetric equilibrium learning is wake-sleep, bottom-up and in a ladder with an encoder that shares the
decoder's conditionals. So the arm "wake-sleep (symmetric)" is both. The source compares it with the ELBO on the ladder.
The source updates the two players in turn; here they move at once. Gaussian layers have one learned variance each. With
a net for the logarithms of variances the rates of wake-sleep grew without bound, as it trains that net on samples of p
alone and uses it on images. Nets are tanh. The first samples are independent pixels that tell an encoder nothing, and
its loss then switches rectifiers off for good (inputs are never negative). That looks like a stack that wake-sleep
cannot start.

Consistency is the squared Fréchet distance between single-shot samples and the limit of the chain z ~ q(z|x),
x' ~ p(x|z). It is measured in the features of a classifier that the experiment trains on labels, on that classifier's
scale. Numbers compare within a preset only, and with no published FID.

Equal CPU time: an arm takes the steps of its ELBO times cost(ELBO) / cost(arm). Costs per step were measured once by
`python -m hvae.experiments.shared.costs`, and are committed. An arm within 10 % of its ELBO has no run of its own. The
paper preset takes the ratios of cpu.

Source: B. Flach, D. Schlesinger, A. Shekhovtsov, "Symmetric Equilibrium Learning of VAEs", AISTATS 2024,
arXiv:2307.09883.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.claims import Claim, Measure, NotMeasuredError, Read, Runs, Sample, difference
from hvae.analysis.measures import BOUND, LIKELIHOOD_MARGIN_NATS, in_use, least_gap_in_use, likelihood
from hvae.experiments.shared import costs
from hvae.experiments.shared.consistency import features
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant

PRESETS = ("demo", "cpu", "paper")
KEPT = ("consistency-distances", "consistency-samples")

GAME = "wake-sleep (symmetric)"
_REWEIGHTED = ObjectiveConfig("reweighted-wake-sleep", n_samples=5)
ARMS: Mapping[str, Mapping[str, ObjectiveConfig]] = {
    "Gaussian": {
        "ELBO": ObjectiveConfig(),
        "IWAE": ObjectiveConfig("iwae", n_samples=5),
        "IWAE DReG": ObjectiveConfig("iwae", n_samples=5, gradient="doubly-reparametrised"),
        "RWS": _REWEIGHTED,
        GAME: ObjectiveConfig("wake-sleep"),
        "ladder ELBO": ObjectiveConfig(),
        f"ladder {GAME}": ObjectiveConfig("wake-sleep"),
    },
    "binary": {
        "ELBO": ObjectiveConfig(n_samples=2),
        "IWAE": ObjectiveConfig("iwae", n_samples=5),
        "VIMCO": ObjectiveConfig("vimco", n_samples=5),
        "RWS": _REWEIGHTED,
        GAME: ObjectiveConfig("wake-sleep"),
        "ladder ELBO": ObjectiveConfig(n_samples=2),
        f"ladder {GAME}": ObjectiveConfig("wake-sleep"),
    },
}
"""Stack -> arm -> what is maximised. Binary ELBO and IWAE take the score with a leave-one-out baseline, so K >= 2."""

TIMED = ", equal time"
ALIKE = 0.1
"""an arm with a cost within this share of its ELBO's needs no second run"""

NEEDS = features.NEEDS
ON_CPU = features.ON_CPU

CLASSIFIER: Mapping[str, Mapping[str, Any]] = {
    "demo": {"hidden": (32, 8), "epochs": 60},
    "cpu": {"hidden": (128, 32), "epochs": 15},
    "paper": {"hidden": (256, 64), "epochs": 30},
}
"""hidden layers, the last of which is the features; passes over the training images"""
CONSISTENCY: Mapping[str, Mapping[str, int]] = {
    "demo": {"n_samples": 250, "n_steps": 20, "n_bootstrap": 50},
    "cpu": {"n_samples": 1000, "n_steps": 40, "n_bootstrap": 60},
    "paper": {"n_samples": 5000, "n_steps": 200, "n_bootstrap": 200},
}
"""n of every distance, T of the chain, resamples"""


def configs(preset: str) -> dict[str, RunConfig]:
    """Every run of a preset: each arm at equal steps, then those that cost more or less than ELBO at equal time."""
    base, timed = equal_steps(preset), {}
    for label, config in base.items():
        ratio = costs.ratio(preset, label, reference(label))
        if abs(ratio - 1) > ALIKE:
            n_steps = max(1, round(config.training.n_steps / ratio))
            timed[label + TIMED] = dataclasses.replace(
                config, training=dataclasses.replace(config.training, n_steps=n_steps)
            )
    return base | timed


def equal_steps(preset: str) -> dict[str, RunConfig]:
    """Every arm at the same number of steps."""
    return {f"{stack} {arm}": _run(preset, stack, arm) for stack, arms in ARMS.items() for arm in arms}


def reference(label: str) -> str:
    """The ELBO that an arm's time is held against: of the same stack and inference order."""
    return f"{label.split()[0]} {'ladder ' if 'ladder' in label else ''}ELBO"


panels = {
    f"{stack} stack": tuple(f"{stack} {arm}{suffix}" for arm in arms for suffix in ("", TIMED))
    for stack, arms in ARMS.items()
}


def _run(preset: str, stack: str, arm: str) -> RunConfig:
    binary, ladder = stack == "binary", arm.startswith("ladder")
    step = 3e-3 if binary else 1e-3
    latents, hidden, n_steps, rate, data, evaluation = {
        "demo": (
            (24, 12, 6) if binary else (12, 6, 3), ((32,), (16,), (16,)), 400, step, DataConfig("digits-threshold"),
            EvaluationConfig(n_images=100, max_paths=128, n_likelihood=100, n_samples=1000),
        ),
        "cpu": (
            (64, 32, 16) if binary else (32, 16, 8), ((128,), (64,), (32,)), 3000, step,
            DataConfig("mnist-dynamic", n_train=20_000, n_test=2000),
            EvaluationConfig(n_images=128, max_paths=128, n_likelihood=128, n_samples=1000),
        ),
        "paper": (
            (200, 100, 50) if binary else (64, 32, 16), ((512, 512), (256, 256), (128, 128)), 200_000, 1e-3,
            DataConfig("mnist-dynamic"), EvaluationConfig(n_likelihood=10_000, n_samples=1000),
        ),
    }[preset]  # fmt: skip
    return RunConfig(
        data=data,
        model=ModelConfig(
            latents=latents,
            hidden=hidden,
            order="top-down" if ladder else "bottom-up",
            families=("bernoulli",) if binary else ("gaussian",),
            latent_variance="network" if binary else "learned",
            activation=("tanh",),
        ),
        objective=ARMS[stack][arm],
        training=TrainingConfig(
            n_steps=n_steps,
            batch_size=100,
            learning_rate=Constant(rate),
            log_every_steps=max(10, n_steps // 40),
            checkpoint_every_steps=max(100, n_steps // 5),
        ),
        evaluation=evaluation,
    )


# -- consistency of the runs -------------------------------------------------------------------------


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """A classifier, then the consistency and the cost of every run (`features.parts`)."""

    def cost(label: str, run: Any, trained: Any, data: Any) -> dict[str, Any]:
        seconds = costs.milliseconds(preset, label.removesuffix(TIMED)) * run.config.training.n_steps / 1000
        return {"cpu_seconds": np.array(seconds)}

    return features.parts(
        preset, runs, data_dir, say, device,
        classifier=CLASSIFIER[preset], consistency=CONSISTENCY[preset], further=cost,
    )  # fmt: skip


# -- what is claimed of a replica ---------------------------------------------------------------------


def timed(runs: Runs, label: str) -> str:
    """The run of an arm at its ELBO's CPU time: at equal steps too, where the costs are alike."""
    return label + TIMED if label + TIMED in runs else label


def log_distance(runs: Runs, label: str) -> Sample:
    """[R] log of the (uncorrected) distance of the chain's limit to single-shot samples."""
    run = in_use(runs, label)
    if "limit-shot/plain" not in run.beside:
        raise NotMeasuredError(f"the consistency of the run '{label}' is not measured yet")
    return Sample(np.log(run.beside["limit-shot/plain"]), run.seeds)


def top_information(runs: Runs, label: str) -> Sample:
    """[R] I(x; zL) in nats."""
    run = in_use(runs, label)
    return Sample(run.layers[-1].interval("information_nats")[:, 1], run.seeds)


COMPARABLE_NATS = 2.0
GAP_MARGIN_NATS = 0.5
DISTANCE_MARGIN = 0.2
INFORMATION_MARGIN_NATS = 0.1

FLACH = "Flach et al. 2024 (arXiv:2307.09883)"
_LIKELIER = (
    ("Gaussian", "IWAE", "ELBO", "Burda et al. 2016 (arXiv:1509.00519)"),
    ("Gaussian", "IWAE DReG", "IWAE", "Tucker et al. 2019 (arXiv:1810.04152)"),
    ("binary", "IWAE", "ELBO", "Burda et al. 2016 (arXiv:1509.00519)"),
    ("binary", "VIMCO", "RWS", "Mnih and Rezende 2016 (arXiv:1602.06725)"),
    ("binary", "RWS", GAME, "Bornschein and Bengio 2015 (arXiv:1406.2751)"),
)


def _claims(*, equal_time: bool) -> list[Claim]:
    when = "at equal CPU time" if equal_time else "at equal steps"
    found = []

    def pair(read: Read, first: str, second: str) -> Measure:
        def of(runs: Runs) -> tuple[Sample, Sample]:
            labels = [timed(runs, label) if equal_time else label for label in (first, second)]
            if equal_time and labels == [first, second]:
                raise NotMeasuredError("their costs are alike, so that this is the claim at equal steps")
            return read(runs, labels[0]), read(runs, labels[1])

        return of

    for stack, better, worse, source in _LIKELIER:
        statement = f"{stack}: {better} reaches a higher likelihood than {worse} {when}."
        first, second = f"{stack} {better}", f"{stack} {worse}"
        found.append(
            difference(statement, source, BOUND, likelihood, first, second, "above", LIKELIHOOD_MARGIN_NATS, pair=pair)
        )
    for name in ("binary ", "binary ladder "):
        game, elbo = name + GAME, f"{name}ELBO"
        found += [
            difference(
                f"{name}stack: wake-sleep's encoder and decoder agree better than the ELBO's {when}.",
                FLACH, "log Fréchet distance of the chain's limit to single-shot samples", log_distance,
                game, elbo, "below", -DISTANCE_MARGIN, unit="(log of a ratio)", pair=pair,
            ),
            difference(
                f"{name}stack: wake-sleep leaves less between the ELBO and the bound on log p(x), a lower estimate of "
                f"the gap, {when}.",
                FLACH, f"{BOUND} less the ELBO", least_gap_in_use, game, elbo, "below", -GAP_MARGIN_NATS, pair=pair,
            ),
            difference(
                f"{name}stack: wake-sleep's likelihood is comparable with the ELBO's {when}.",
                FLACH, BOUND, likelihood, game, elbo, "within", COMPARABLE_NATS, pair=pair,
            ),
            difference(
                f"{name}stack: wake-sleep's top layer holds no less about the image than the ELBO's {when} "
                "(an open question: the sign is what is asked).",
                FLACH, "I(x; z3)", top_information, game, elbo, "above", -INFORMATION_MARGIN_NATS, pair=pair,
            ),
        ]  # fmt: skip
    return found


claims = (*_claims(equal_time=False), *_claims(equal_time=True))


def sections() -> tuple[Any, ...]:
    """What this adds to the report."""
    from hvae.experiments.shared.consistency import section

    return (section.SECTION,)


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "objectives", *sys.argv[1:]]))
