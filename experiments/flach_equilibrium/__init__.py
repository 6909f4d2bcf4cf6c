"""Does symmetric equilibrium learning make encoder and decoder of a binary stack agree better than the ELBO does?

The paper has two players: a decoder with the utility E_data,q log p(x, z), and an encoder with E_p log q(z|x). Each
moves its own weights only; without labels that is wake-sleep (`objectives.games`). The authors' code trains a stack of
two Bernoulli layers z1, z2 (theirs: z1, z0) in two orders of inference. In the ladder the encoder adds its logits to
the decoder's (`top-down-shared`; with fair units in z2 the same as `top-down`). The reverse order is q(z1|x) q(z2|z1)
(`bottom-up`), that of wake-sleep and of the lecture's open problem. Here both objectives train the same stack, on the
same data, for the same steps. Compared are the information of every Bernoulli unit, and single-shot samples against the
limit of the chain z ~ q(z|x), x' ~ p(x|z). Their code does not report bounds on log p(x), gaps by layer and verdicts;
this does.

Where we differ:

- The ELBO's gradient: theirs is ZGR, for Bernoulli units DARN(1/2). Its expectation ``(f'(0) + f'(1)) / 2`` is that of
  straight-through in the limit of temperature 0. Ours is straight-through at 0.1, with the same kind of bias. In trials
  (another seed, ladder, 5000 images, 1500 steps) it was within a nat of the unbiased score function with 2 samples. At
  0.5 it was 3 nats ahead of both, with less than half the rate of z2.
- Fréchet distances are in the features of a classifier trained here on the labels, not Inception's. So no published FID
  stands beside one of ours, not even for its order.
- Their nets are convolutional next to x, and between z1 and z2 have 600-600 tanh units with a linear skip. Ours are
  dense. In the ladder ours reads the means of z1 for what x says of z2.
- Our players move at once, theirs in turn.
- Their images are all 70,000 of MNIST at grey > 0.4375 with a thousandth of the bits flipped. The limit of their chain
  is its state after 1,000 steps from samples of the model. Their FIDs are of mean images cut at 1/2, ours of draws.
- Their default rate of 1e-8 is a placeholder. The README's runs have 1e-4 and 200,000 steps, the paper's a million.

Why tanh: with rectifiers the game does not start. If q ignores x and p(x|z) ignores z, both players rest. With linear
nets V: x -> z, W: z -> x and fair Bernoulli units z the state near that point moves by

    4 dW/dt = C V' - S W,    4 dV'/dt = S W - S V',    C the covariance of x, S its diagonal,

which grows as soon as C - S, of trace 0, has a positive eigenvalue: if any two pixels are correlated. It grows only as
far as the encoder's hidden units pass x on. Dreams of independent pixels first teach them to be constant. As x >= 0,
that can turn all rectifiers off (after 250 steps at 1e-3 one of 64 still varied); tanh units stayed on. Units of the
learned p(z1|z2) are trained on their own draws and drift towards 0 or 1. Growth must win that race.

Source: B. Flach, D. Schlesinger, A. Shekhovtsov, "Symmetric Equilibrium Learning of VAEs", AISTATS 2024,
arXiv:2307.09883; settings from the README of the authors' code.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hvae.analysis.claims import Claim, Measured, NotMeasuredError, Runs, Sample
from hvae.analysis.load import Array, LoadedRun
from hvae.analysis.measures import BOUND, in_use, least_gap_in_use, likelihood
from hvae.analysis.papers import Curves, Line, Paper
from hvae.experiments.objectives import COMPARABLE_NATS, DISTANCE_MARGIN, GAP_MARGIN_NATS, INFORMATION_MARGIN_NATS
from hvae.experiments.shared.consistency import features
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant, LinearWarmup

PRESETS = ("smoke", "cpu", "paper")
KEPT = ("spectra", "consistency-distances", "consistency-samples")
NEED_GPU = ("paper",)
NEEDS = features.NEEDS
ON_CPU = features.ON_CPU

PAPER = Paper(
    "B. Flach, D. Schlesinger, A. Shekhovtsov, Symmetric Equilibrium Learning of VAEs, AISTATS 2024, arXiv:2307.09883",
    "the table of Fréchet distances, and spectra of per-unit information, of the authors' code",
    {
        "smoke": "8x8 digits, a few steps, two seeds: whether it runs, nothing more.",
        "cpu": "64 and 16 Bernoulli units (theirs: 100 and 30), dense nets. 20,000 images, binarised at random at "
        "every presentation (theirs: 70,000 at a threshold). Batches of 100 (1,024). 10,000 steps from rate 3e-3 "
        "(README: 200,000 at 1e-4; paper: a million). Chains of 400 steps (1,000). No Fashion-MNIST. Fréchet distances "
        "are in the features of a small classifier, on no common scale with FID.",
        "paper": "The README's numbers of Bernoulli units and steps, its batches and rate. MNIST's 60,000 training "
        "images at a threshold of 1/2. Dense nets in place of convolutions, no flipped bits, no Fashion-MNIST. Fréchet "
        "distances are in the features of a classifier, on no common scale with FID.",
    },
)

ORDERS: Mapping[str, Literal["top-down-shared", "bottom-up"]] = {
    "ladder": "top-down-shared",
    "reverse": "bottom-up",
}
ARMS = {
    "ELBO": ObjectiveConfig(gradient="straight-through", temperature=0.1),
    "symmetric": ObjectiveConfig("symmetric"),
}
LAYERS = ("z1", "z2")

panels = {f"{order} order": tuple(f"{order} {arm}" for arm in ARMS) for order in ORDERS}

CLASSIFIER: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"hidden": (16, 8), "epochs": 10},
    "cpu": {"hidden": (128, 32), "epochs": 15},
    "paper": {"hidden": (256, 64), "epochs": 30},
}
"""hidden layers, the last of which is the features; passes over the training images"""
CONSISTENCY: Mapping[str, Mapping[str, int]] = {
    "smoke": {"n_samples": 100, "n_steps": 4, "n_bootstrap": 20},
    "cpu": {"n_samples": 1000, "n_steps": 400, "n_bootstrap": 60},
    "paper": {"n_samples": 5000, "n_steps": 1000, "n_bootstrap": 200},
}
"""n of every distance, T of the chain, resamples"""
MEASUREMENTS: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "smoke": {"gap": {"images": 4, "draws": 2, "samples": 50, "chains": 2, "temperatures": 5, "leapfrog": 1}},
    "cpu": {"gap": {"images": 32, "draws": 2, "samples": 1000}},
    "paper": {"gap": {"images": 100, "samples": 5000}},
}
"""gaps by layer, of every run once it is trained"""


def configs(preset: str) -> dict[str, RunConfig]:
    """Both objectives in both orders: the same stack, data, seeds and steps."""
    return {f"{order} {arm}": _run(preset, order, arm) for order in ORDERS for arm in ARMS}


def _falling(n_steps: int) -> LinearWarmup:
    """The rate of the short presets: to a tenth over the run."""
    return LinearWarmup(n_steps, start=3e-3, stop=3e-3 / 10)


def _run(preset: str, order: str, arm: str) -> RunConfig:
    latents, hidden, n_steps, rate, batch_size, seeds, data, evaluation = {
        "smoke": (
            (8, 4), ((16,), (8,)), 60, _falling(60), 100, 2, DataConfig("digits-threshold"),
            EvaluationConfig(n_images=32, max_paths=32, n_likelihood=16, n_samples=50),
        ),
        "cpu": (
            (64, 16), ((200,), (64,)), 10_000, _falling(10_000), 100, 6,
            DataConfig("mnist-dynamic", n_train=20_000, n_test=2000),
            EvaluationConfig(n_images=128, max_paths=128, n_likelihood=128, n_samples=1000),
        ),
        "paper": (
            (100, 30), ((600, 600), (600, 600)), 200_000, Constant(1e-4), 1024, 6, DataConfig("mnist-threshold"),
            EvaluationConfig(n_likelihood=10_000, n_samples=5000),
        ),
    }[preset]  # fmt: skip
    return RunConfig(
        data=data,
        model=ModelConfig(
            latents=latents, hidden=hidden, order=ORDERS[order], families=("bernoulli",), activation=("tanh",)
        ),
        objective=ARMS[arm],
        training=TrainingConfig(
            seeds=tuple(range(seeds)),
            n_steps=n_steps,
            batch_size=batch_size,
            learning_rate=rate,
            log_every_steps=max(10, n_steps // 40),
            checkpoint_every_steps=max(60, n_steps // 5),
        ),
        evaluation=evaluation,
    )


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """A classifier, then of every run its consistency and the information of its units."""
    from hvae.experiments.flach_equilibrium.spectra import spectra

    knobs = CONSISTENCY[preset]

    def of_units(label: str, run: Any, trained: Any, data: Any) -> dict[str, Any]:
        test = data.test[: 2 * knobs["n_samples"]].to(device)
        return spectra(trained.models, trained.alive, test, seed=0)

    return features.parts(
        preset, runs, data_dir, say, device, classifier=CLASSIFIER[preset], consistency=knobs, further=of_units
    )


# -- what is said of a replica ---------------------------------------------------------------------------


def _beside(run: LoadedRun, key: str) -> Array:
    if key not in run.beside:
        raise NotMeasuredError(f"of the run '{run.label}' {key} is not measured yet")
    found: Array = run.beside[key]
    return found


def told(run: LoadedRun, player: str, layer: str) -> Array:
    """[R, D] MI_u of the units of a layer under a player, in nats."""
    return _beside(run, f"unit_information_nats/{player}/{layer}")[..., 1]


def top_told(runs: Runs, label: str) -> Sample:
    """[R] sum of MI_u over the units of the top layer under q, in nats."""
    run = in_use(runs, label)
    return Sample(told(run, "q", LAYERS[-1]).sum(-1), run.seeds)


def log_distance(key: str) -> Callable[[Runs, str], Sample]:
    """[R] log of a Fréchet distance, uncorrected, which is never negative."""
    return lambda runs, label: Sample(np.log(_beside(in_use(runs, label), f"{key}/plain")), runs[label].seeds)


def used_likelihood(runs: Runs, label: str) -> Sample:
    """[R, B] the bound on log p(x) in nats, of a stack in use; stacks without use are all alike."""
    return likelihood(runs, in_use(runs, label).label)


# -- what the source says, with margins fixed before any run: those of `objectives` ----------------------

SOURCE = "Flach et al. 2024 (arXiv:2307.09883)"
README = "README of the authors' code (dschles70/symvae-aistats2024)"


def _claim(
    order: str, what: str, source: str, quantity: str, measure: Callable[[Runs, str], Sample], **more: Any
) -> Claim:
    game, elbo = f"{order} symmetric", f"{order} ELBO"
    return Claim(
        statement=f"{order} order: {what}",
        source=source,
        quantity=f"{quantity}, {game} minus {elbo}",
        measure=lambda runs: (measure(runs, game), measure(runs, elbo)),
        **more,
    )


def _claims(order: str) -> list[Claim]:
    nearer: Mapping[str, Any] = {"relation": "below", "margin": -DISTANCE_MARGIN, "unit": "(log of a ratio)"}
    return [
        _claim(
            order, "the equilibrium's encoder leaves a smaller gap than the ELBO's.", SOURCE, f"{BOUND} less the ELBO",
            least_gap_in_use, relation="below", margin=-GAP_MARGIN_NATS,
        ),
        _claim(
            order, "the limit of the equilibrium's chain is nearer to its single-shot samples than the ELBO's.", SOURCE,
            "log Fréchet distance of limit to single-shot samples", log_distance("limit-shot"), **nearer,
        ),
        _claim(
            order, "the equilibrium's likelihood is comparable with the ELBO's.", SOURCE, BOUND, used_likelihood,
            relation="within", margin=COMPARABLE_NATS,
        ),
        _claim(
            order, "the units of the equilibrium's top layer are told no less than the ELBO's "
            "(an open question: the sign is what is asked).", SOURCE, "sum of MI_u over z2 under q", top_told,
            relation="above", margin=-INFORMATION_MARGIN_NATS,
        ),
        _claim(
            order, "the equilibrium's single-shot samples are nearer to test images than the ELBO's.", README,
            "log Fréchet distance of single-shot samples to test images", log_distance("shot-test"), **nearer,
        ),
        _claim(
            order, "the limit of the equilibrium's chain is nearer to test images than the ELBO's.", README,
            "log Fréchet distance of limit to test images", log_distance("limit-test"), **nearer,
        ),
    ]  # fmt: skip


claims = tuple(claim for order in ORDERS for claim in _claims(order))


def _spectra(runs: Runs, measured: Measured) -> dict[str, dict[str, Line]]:
    """Sorted within each replica, as units have no order that replicas share."""
    found: dict[str, dict[str, Line]] = {}
    for order in ORDERS:
        for layer in LAYERS:
            lines = {}
            for arm in ARMS:
                run = runs.get(f"{order} {arm}")
                for player in ("q", "p"):
                    key = f"unit_information_nats/{player}/{layer}"
                    if run is None or key not in run.beside or (player, layer) == ("p", LAYERS[-1]):
                        continue
                    values = -np.sort(-told(run, player, layer), axis=-1)
                    lines[f"{arm}, {player}"] = Line(np.arange(1, values.shape[-1] + 1), values.T)
            found[f"{order} order, {layer}"] = lines
    return found


curves = (
    Curves(
        "spectra",
        "Information of every unit with its parents",
        "H(mean probability) − mean H(probability) of each unit, sorted within each replica, under q on test images "
        "and under p on its own samples. Thick: means over replicas. At most log 2 = 0.69 nats. The units of z2 have "
        "no parents under p.",
        "rank of the unit",
        "information (nats)",
        _spectra,
        as_png=True,
    ),
)


def sections() -> tuple[Any, ...]:
    """What this adds to the report."""
    from hvae.experiments.shared.consistency import section

    return (section.SECTION,)
