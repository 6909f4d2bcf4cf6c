"""What does the order of inference change, with a decoder trained by each order, and with one frozen decoder?

A Markov decoder of three layers is trained with every inference order: bottom-up q(z_l | z_{l-1}), as in the lecture;
bottom-up with a view of x, which contains bottom-up and mean field as special cases; mean field q(z_l | x); the
top-down ladder of Sønderby et al.; and the ladder of Flach et al., which adds natural parameters to the decoder's, the
top's prior included. The report shows rates, information, likelihood, and the gap between the ELBO and log p(x) with
its split by layer. Layer gaps of two orders are different splits of different totals: only totals compare.

Then decoders are frozen. For each order new encoders are trained on them, for equal steps on the same data. One decoder
has one log p(x), so gaps differ exactly by the ELBOs. No trained decoder is neutral: it has moved to where its own
order fits. So two decoders are used: one trained bottom-up, as in the lecture, and one trained top-down, its rival. An
answer counts if it holds at both. Encoders start from other seeds than the decoder's first encoder. A posterior with
free parameters is also fitted to each of a few test images. It shows the cost of one net for all images. Two small
decoders with a known posterior show whether ELBOs rank orders as exact gaps do.

The `cpu` preset is small: a few epochs of MNIST, and a gap on 16 test images. So its interval is that of the draws for
these images. Where log p(x) is not trusted, claims on the gaps of the joint runs are not measured.

Source: C. K. Sønderby et al., "Ladder Variational Autoencoders", NIPS 2016, arXiv:1602.02282; B. Flach,
D. Schlesinger, A. Shekhovtsov, "Symmetric equilibrium learning of VAEs", AISTATS 2024, arXiv:2307.09883; C. Cremer,
X. Li, D. Duvenaud, "Inference Suboptimality in Variational Autoencoders", ICML 2018, arXiv:1801.03558.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hvae.experiments.orders.claims import OWNERS, part
from hvae.experiments.orders.claims import claims as claims
from hvae.lab.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant

PRESETS = ("demo", "cpu", "paper")
KEPT = ("comparison", "same-decoder-leads", "same-decoder-known")
ON_CPU = ("known",)
"""a part that stays on the CPU: decoders with exact answers in float64"""

ORDERS = ("bottom-up", "bottom-up-x", "mean-field", "top-down", "top-down-shared")

baselines: Mapping[str, str] = dict.fromkeys(ORDERS[1:], "bottom-up")

MEASUREMENTS: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "demo": {"gap": {"images": 8, "draws": 2, "samples": 1000, "chains": 4, "temperatures": 10, "leapfrog": 2}},
    "cpu": {"gap": {"images": 16, "draws": 2, "samples": 4000, "chains": 8, "temperatures": 20, "leapfrog": 2}},
    "paper": {"gap": {"images": 100, "chains": 500, "temperatures": 200}},
}
"""measured of every trained run; with fewer than some hundreds of samples nothing is trusted"""

FROZEN: Mapping[str, Mapping[str, Any]] = {
    "demo": {
        "n_steps": 250, "learning_rate": 6e-3, "gap": {"images": 8, "draws": 2, "samples": 1000},
        "n_unamortised": 16, "ascent": {"n_steps": 200, "n_samples": 4},
        "known": {"n_data": 1000, "n_steps": 150, "n_images": 32, "n_samples": 500, "seeds": (0, 1)},
    },
    "cpu": {
        "n_steps": 1600, "learning_rate": 4e-3, "gap": {"images": 16, "draws": 2, "samples": 1000},
        "n_unamortised": 32, "ascent": {},
        "known": {"n_data": 5000, "n_steps": 1000, "n_images": 100, "n_samples": 1000, "seeds": tuple(range(6))},
    },
    "paper": {
        "n_steps": 100_000, "learning_rate": 2e-3, "gap": {"images": 100},
        "n_unamortised": 100, "ascent": {"n_steps": 2000},
        "known": {"n_data": 20_000, "n_steps": 5000, "n_images": 200, "n_samples": 1000, "seeds": tuple(range(8))},
    },
}  # fmt: skip
"""Of refitted encoders: steps, first learning rate, budget of the layer gaps; images with their own posterior.

The same for known decoders.
"""
FRESH = 1000
"""added to a run's seeds, so no encoder starts from the weights of the decoder's first encoder"""


def configs(preset: str) -> dict[str, RunConfig]:
    """One run per order."""
    make = {"demo": _demo, "cpu": _cpu, "paper": _paper}[preset]
    return {order: make(order) for order in ORDERS}


def _demo(order: str) -> RunConfig:
    """8x8 digits: seconds a run."""
    return RunConfig(
        data=DataConfig("digits-threshold"),
        model=_model(order, latents=(12, 6, 3), hidden=((64,), (32,), (16,))),
        training=TrainingConfig(
            seeds=(0, 1, 2), n_steps=600, batch_size=100, learning_rate=Constant(2e-3), log_every_steps=25
        ),
        evaluation=EvaluationConfig(n_images=128, max_paths=128, n_likelihood=100, n_samples=200),
    )


def _cpu(order: str) -> RunConfig:
    """MNIST, five epochs: minutes a run."""
    return RunConfig(
        data=DataConfig("mnist-dynamic"),
        model=_model(order, latents=(32, 16, 8), hidden=((128,), (64,), (32,))),
        training=TrainingConfig(
            seeds=tuple(range(6)), n_steps=2400, batch_size=128, learning_rate=Constant(2e-3), log_every_steps=100
        ),
        evaluation=EvaluationConfig(n_images=256, max_paths=512, n_likelihood=200),
    )


def _paper(order: str) -> RunConfig:
    """Three layers of the ladder's paper at its sizes, for a GPU."""
    epoch = 60_000 // 256
    return RunConfig(
        data=DataConfig("mnist-dynamic"),
        model=_model(order, latents=(64, 32, 16), hidden=((512, 512), (256, 256), (128, 128))),
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


def _model(order: str, latents: tuple[int, ...], hidden: tuple[tuple[int, ...], ...]) -> ModelConfig:
    return ModelConfig(latents=latents, hidden=hidden, order=order, activation=("leaky-relu",))  # type: ignore[arg-type]


# -- every order at a frozen decoder -----------------------------------------------------------------------


def refitted(preset: str, order: str) -> RunConfig:
    """How an encoder of this order is trained at a frozen decoder."""
    config, knobs = configs(preset)[order], FROZEN[preset]
    training = dataclasses.replace(
        config.training,
        seeds=tuple(FRESH + seed for seed in config.training.seeds),
        n_steps=knobs["n_steps"],
        learning_rate=Constant(knobs["learning_rate"]),
    )
    return dataclasses.replace(config, training=training)


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """A part for each frozen decoder and order, a part for posteriors without a net, and `known`."""
    from hvae.diagnostics.unamortised import Ascent
    from hvae.experiments.orders import frozen_decoder
    from hvae.lab.completion import load_data
    from hvae.lab.evaluation import Budget
    from hvae.lab.runs.run import Run

    knobs = FROZEN[preset]
    ascent = Ascent(**knobs["ascent"])

    def frozen(owner: str, order: str) -> Any:
        say(f"{order} at the decoder trained {owner}")
        run = Run.open(runs[owner])
        data = load_data(run.config, data_dir)
        if order == frozen_decoder.UNAMORTISED:
            return frozen_decoder.unamortised_arrays(run, data, knobs["n_unamortised"], ascent, device)
        budget = Budget(**knobs["gap"])
        return frozen_decoder.refitted_arrays(run, data, refitted(preset, order), budget, device)

    def known() -> Any:
        small = knobs["known"]
        training = TrainingConfig(
            seeds=small["seeds"], n_steps=small["n_steps"], batch_size=200, learning_rate=Constant(0.03)
        )
        stacks = [frozen_decoder.bernoulli(small["n_data"]), frozen_decoder.gaussians(small["n_data"])]
        return frozen_decoder.known_rows(stacks, training, small["n_images"], small["n_samples"], Ascent(), say)

    return {
        part(owner, order): lambda owner=owner, order=order: frozen(owner, order)
        for owner in OWNERS
        for order in (*ORDERS, frozen_decoder.UNAMORTISED)
    } | {"known": known}


def sections() -> tuple[Any, ...]:
    """What this adds to the report."""
    from hvae.experiments.orders import section

    return (section.SECTION,)
