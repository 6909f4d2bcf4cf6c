"""Which cure revives which layer of a five-layer stack, how many nats does it gain, and what does it cost?

Every cure by itself and two combinations are compared with one plain bottom-up stack, with the same seeds and number of
steps. A layer is alive by the verdict (V surely above 0.1 nats), never by its rate. The likelihood is a lower bound on
log p(x); its difference from the plain stack is paired by seed. The combination `all together` was chosen from the
literature before any run: ladder, warm-up and batch normalisation (Sønderby et al. 2016) with free nats (Kingma et al.
2016). `bottom-up together` is the same without the ladder. Two runs on grey images compare a learned variance of a
Gaussian observation with one fixed at 1. They compare only with each other.

The `cpu` preset is small (MNIST, one hidden layer per conditional, a few epochs). It shows cures early in training.
Layers that come alive late, and cures that help late, are not seen. A warm-up spends a third of these steps below
weight 1. The aggressive phase has a fixed length here; He et al. stop it by the mutual information.

Source: C. K. Sønderby et al., "Ladder Variational Autoencoders", NIPS 2016, arXiv:1602.02282; the claims name the
papers of the cures.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvae.analysis.claims import Claim, difference, single
from hvae.analysis.measures import BOUND, LIKELIHOOD_MARGIN_NATS, active_layers, likelihood
from hvae.experiments.shared import costs
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant, Cyclical, LinearWarmup

PRESETS = ("demo", "cpu", "paper")
KEPT = ("comparison", "information")
ON_CPU = ("cost",)
"""a part that stays on the CPU, whose time it measures"""

PLAIN, TOGETHER, BOTTOM_UP_TOGETHER = "plain", "all together", "bottom-up together"
FIXED, LEARNED = "grey, variance fixed", "grey, variance learned"

UPPER_RICH = {family: {"encoder_families": ("gaussian", "gaussian", family, family, family)} for family in (
    "full-gaussian", "autoregressive-gaussian", "nsf",
)}  # fmt: skip

Changes = Mapping[str, Mapping[str, Any]]
"""part of the configuration -> knob -> value"""


def cures(n_steps: int) -> dict[str, Changes]:
    """Run -> its changes to the plain stack, for training of so many steps."""
    warm = LinearWarmup(n_steps // 3)
    cyclical = Cyclical(period_steps=n_steps // 4, rising=0.5)
    together = {"objective": {"beta": warm, "free_nats": (0.5,)}, "model": {"batch_norm": (True,)}}
    ladder = {"order": "top-down"}
    aggressive = {"aggressive_steps": n_steps // 4, "aggressive_every": 10}
    return {
        PLAIN: {},
        "warm-up": {"objective": {"beta": warm}},
        "cyclical warm-up": {"objective": {"beta": cyclical}},
        "free nats, layer": {"objective": {"free_nats": (1.0,)}},
        "free nats, unit": {"objective": {"unit_free_nats": (0.1,)}},
        "cheaper top": {"objective": {"layer_beta": (1.0, 0.8, 0.6, 0.4, 0.2)}},
        "aggressive": {"training": aggressive},
        "aggressive top": {"training": aggressive | {"aggressive_layers": (3, 4, 5)}},
        "normalised means": {"model": {"normalised_means": (0.6,)}},
        "floor at the top": {"model": {"floor_nats": 1.0}},
        "generative skips": {"model": {"generative_skips": True}},
        "batch norm": {"model": {"batch_norm": (True,)}},
        "VampPrior": {"model": {"prior": "vamp"}},
        "full covariance": {"model": UPPER_RICH["full-gaussian"]},
        "autoregressive": {"model": UPPER_RICH["autoregressive-gaussian"]},
        "flow": {"model": UPPER_RICH["nsf"] | {"n_transforms": 1}},
        "ladder": {"model": ladder},
        BOTTOM_UP_TOGETHER: together,
        TOGETHER: together | {"model": together["model"] | ladder},
    }


SOURCES: Mapping[str, str] = {
    "warm-up": "Sønderby et al. 2016 (arXiv:1602.02282)",
    "cyclical warm-up": "Fu et al. 2019 (arXiv:1903.10145)",
    "free nats, layer": "Kingma et al. 2016 (arXiv:1606.04934)",
    "free nats, unit": "Kingma et al. 2016 (arXiv:1606.04934)",
    "cheaper top": "Higgins et al. 2017 (ICLR), with a weight per layer, below 1",
    "aggressive": "He et al. 2019 (arXiv:1901.05534)",
    "aggressive top": "He et al. 2019 (arXiv:1901.05534), for z3 to z5 alone",
    "normalised means": "Zhu et al. 2020 (arXiv:2004.12585)",
    "floor at the top": "Razavi et al. 2019 (arXiv:1901.03416)",
    "generative skips": "Dieng et al. 2019 (arXiv:1807.04863)",
    "batch norm": "Sønderby et al. 2016 (arXiv:1602.02282)",
    "VampPrior": "Tomczak & Welling 2018 (arXiv:1705.07120)",
    "full covariance": "Flach's conjecture: the encoder's distribution is too poor",
    "autoregressive": "Flach's conjecture: the encoder's distribution is too poor",
    "flow": "Flach's conjecture: the encoder's distribution is too poor",
    "ladder": "Sønderby et al. 2016 (arXiv:1602.02282)",
    BOTTOM_UP_TOGETHER: "Sønderby et al. 2016; Kingma et al. 2016",
    TOGETHER: "Sønderby et al. 2016; Kingma et al. 2016",
}

baselines: Mapping[str, str] = dict.fromkeys(SOURCES, PLAIN) | {LEARNED: FIXED}

panels: Mapping[str, tuple[str, ...]] = {
    "objective": (PLAIN, "warm-up", "cyclical warm-up", "free nats, layer", "free nats, unit", "cheaper top"),
    "training and distributions of q": (
        PLAIN, "aggressive", "aggressive top", "full covariance", "autoregressive", "flow",
    ),
    "model": (PLAIN, "normalised means", "floor at the top", "generative skips", "batch norm", "VampPrior"),
    "ladder and together": (PLAIN, "ladder", BOTTOM_UP_TOGETHER, TOGETHER),
    "grey images": (FIXED, LEARNED),
}  # fmt: skip


def configs(preset: str) -> dict[str, RunConfig]:
    """Every run of a preset: 21; cpu leaves out the flow, as measuring its information takes hours."""
    plain = {"demo": _demo, "cpu": _cpu, "paper": _paper}[preset]()
    runs = {label: _changed(plain, changes) for label, changes in cures(plain.training.n_steps).items()}
    if preset == "cpu":
        del runs["flow"]
    grey = DataConfig(plain.data.name.rpartition("-")[0] + "-grey", plain.data.n_train)
    for label, variance in ((FIXED, "fixed"), (LEARNED, "learned")):
        changes: Changes = {"model": {"observation": "gaussian", "observation_variance": variance}}
        runs[label] = _changed(dataclasses.replace(plain, data=grey), changes)
    return runs


def _changed(config: RunConfig, changes: Changes) -> RunConfig:
    parts = {part: dataclasses.replace(getattr(config, part), **knobs) for part, knobs in changes.items()}
    return dataclasses.replace(config, **parts)


def _demo() -> RunConfig:
    """8x8 digits: seconds a run."""
    return RunConfig(
        data=DataConfig("digits-threshold"),
        model=ModelConfig(
            latents=(16, 8, 8, 4, 2), hidden=((64,), (32,), (16,), (16,), (16,)), activation=("leaky-relu",)
        ),
        training=TrainingConfig(
            seeds=(0, 1, 2), n_steps=480, batch_size=100, learning_rate=Constant(2e-3), log_every_steps=24
        ),
        evaluation=EvaluationConfig(n_images=128, max_paths=64, n_likelihood=64, n_samples=100),
    )


def _cpu() -> RunConfig:
    """MNIST, five epochs: minutes a run."""
    return RunConfig(
        data=DataConfig("mnist-dynamic"),
        model=ModelConfig(
            latents=(32, 16, 8, 8, 4), hidden=((128,), (64,), (32,), (16,), (16,)), activation=("leaky-relu",)
        ),
        training=TrainingConfig(
            seeds=tuple(range(6)), n_steps=2400, batch_size=128, learning_rate=Constant(2e-3), log_every_steps=100
        ),
        evaluation=EvaluationConfig(n_images=256, max_paths=512, n_likelihood=200),
    )


def _paper() -> RunConfig:
    """The sizes and the 2,000 epochs of the ladder's paper, for a GPU."""
    epoch = 60_000 // 256
    return RunConfig(
        data=DataConfig("mnist-dynamic"),
        model=ModelConfig(
            latents=(64, 32, 16, 8, 4),
            hidden=((512, 512), (256, 256), (128, 128), (64, 64), (32, 32)),
            activation=("leaky-relu",),
        ),
        training=TrainingConfig(
            seeds=tuple(range(6)),
            n_steps=2000 * epoch,
            batch_size=256,
            learning_rate=Constant(1e-3),
            log_every_steps=10 * epoch,
            checkpoint_every_steps=10 * epoch,
        ),
        evaluation=EvaluationConfig(n_likelihood=10_000, n_samples=5000),
    )


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """`cost`: CPU seconds of a training step of every run, all seeds at once, `[run, round]`."""

    def cost() -> Any:
        say("Timing a step of every run")
        found = costs.step_seconds(configs(preset), data_dir)
        return {"run": np.array(list(found)), "step_seconds": np.array(list(found.values()))}

    return {"cost": cost}


# -- what must hold, with margins fixed before any run -----------------------------------------------

VARIANCE = "Lucas et al. 2019 (arXiv:1911.02469)"
LAYERS_MARGIN = 0.5
ALL_LAYERS = 4.5
"""more is all five"""


def _revives(label: str) -> Claim:
    reference, what = baselines[label], "active layers by the verdict"
    statement = f"More layers are active: {label} against {reference}."
    source = SOURCES.get(label, VARIANCE)
    return difference(statement, source, what, active_layers, label, reference, "above", LAYERS_MARGIN, unit="layers")


def _buys(label: str) -> Claim:
    reference = baselines[label]
    statement = f"The likelihood is higher: {label} against {reference}."
    source = SOURCES.get(label, VARIANCE)
    return difference(statement, source, BOUND, likelihood, label, reference, "above", LIKELIHOOD_MARGIN_NATS)


claims = (
    *(_revives(label) for label in baselines),
    *(_buys(label) for label in ("batch norm", "VampPrior", "ladder", BOTTOM_UP_TOGETHER, TOGETHER, LEARNED)),
    Claim(
        statement=f"One stack keeps all five layers active: {TOGETHER}.",
        source="a number to reach of this project",
        quantity="active layers by the verdict",
        measure=single(lambda runs: active_layers(runs, TOGETHER)),
        relation="above",
        margin=ALL_LAYERS,
        unit="layers",
    ),
)


if __name__ == "__main__":
    from hvae.lab.cli import main

    sys.exit(main(["run", "cures", *sys.argv[1:]]))
