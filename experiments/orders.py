"""What does the order of inference change, when the decoder's shape, the steps and the seeds stay the same?

A Markov decoder of three layers is trained with every inference order: bottom-up q(z_l | z_{l-1}), as in the lecture;
bottom-up with a view of x, which contains bottom-up and mean field as special cases; mean field q(z_l | x); the
top-down ladder of Sønderby et al.; and the ladder of Flach et al., which adds natural parameters to the decoder's, the
top's prior included. Shown of each are rates, information, likelihood, and the gap between the ELBO and log p(x) with
its split by layer. Layer gaps of two orders are different splits of different totals: only totals compare.

Not among the runs are posteriors with free parameters per image, which need as many visits of every image as an
encoder needs steps, and exact ones, which no non-linear stack has; `conjecture` asks these questions on stacks with
exact answers. The `cpu` preset is small: a few epochs of MNIST, and a gap on 16 test images, so its interval is that
of the draws for these images, and log p(x) is a lower bound where it is not trusted.

Source: C. K. Sønderby et al., "Ladder Variational Autoencoders", NIPS 2016, arXiv:1602.02282; B. Flach,
D. Schlesinger, A. Shekhovtsov, "Symmetric equilibrium learning of VAEs", AISTATS 2024, arXiv:2307.09883.
"""

import sys
from collections.abc import Mapping

from analysis.claims import Claim, NotMeasuredError, Runs, Sample, find
from experiments.cures import active_layers
from experiments.depth import likelihood
from hvae.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant

PRESETS = ("demo", "cpu", "paper")

ORDERS = ("bottom-up", "bottom-up-x", "mean-field", "top-down", "top-down-shared")

LADDER = "Sønderby et al. 2016 (arXiv:1602.02282)"
SYMMETRIC = "Flach et al. 2024 (arXiv:2307.09883)"
CONTAINS = "bottom-up with x can ignore x or the layer below, so its best gap is no larger"

baselines: Mapping[str, str] = dict.fromkeys(ORDERS[1:], "bottom-up")

PROBES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "demo": {"gap": {"images": 8, "draws": 2, "samples": 200, "chains": 4, "temperatures": 10, "leapfrog": 2}},
    "cpu": {"gap": {"images": 16, "draws": 2, "samples": 500, "chains": 8, "temperatures": 20, "leapfrog": 2}},
    "paper": {"gap": {"images": 100, "chains": 500, "temperatures": 200}},
}
"""measured of every run once it is trained"""


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
        evaluation=EvaluationConfig(n_images=128, max_paths=128, n_likelihood=100, n_samples=200, n_bootstrap=500),
    )


def _cpu(order: str) -> RunConfig:
    """MNIST, five epochs: minutes a run."""
    return RunConfig(
        data=DataConfig("mnist-dynamic"),
        model=_model(order, latents=(32, 16, 8), hidden=((128,), (64,), (32,))),
        training=TrainingConfig(
            seeds=(0, 1, 2, 3), n_steps=2400, batch_size=128, learning_rate=Constant(2e-3), log_every_steps=100
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
            seeds=(0, 1, 2, 3),
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


# -- what must hold, with margins fixed before any run -----------------------------------------------

LIKELIHOOD_MARGIN_NATS = 0.5
GAP_MARGIN_NATS = 0.5
LAYERS_MARGIN = 0.5


def total_gap(runs: Runs, name: str) -> Sample:
    """[R] log p(x) less the ELBO in nats, on the same images for every order."""
    run = find(runs, name)
    if run.gap is None:
        raise NotMeasuredError(f"the gap of the run '{name}' is not measured")
    return Sample(run.gap.total_nats[:, 1], run.seeds)


def _gap_claim(smaller: str, larger: str, source: str) -> Claim:
    return Claim(
        statement=f"{smaller} leaves a smaller gap than {larger}.",
        source=source,
        quantity=f"log p(x) less the ELBO, {larger} minus {smaller},",
        measure=lambda runs: (total_gap(runs, larger), total_gap(runs, smaller)),
        relation="above",
        margin=GAP_MARGIN_NATS,
    )


def _likelihood_claim(better: str, worse: str, source: str) -> Claim:
    return Claim(
        statement=f"{better} reaches a higher likelihood than {worse}.",
        source=source,
        quantity=f"L_K, {better} minus {worse},",
        measure=lambda runs: (likelihood(runs, better), likelihood(runs, worse)),
        relation="above",
        margin=LIKELIHOOD_MARGIN_NATS,
    )


claims = (
    _gap_claim("bottom-up-x", "bottom-up", CONTAINS),
    _gap_claim("bottom-up-x", "mean-field", CONTAINS),
    _gap_claim("top-down", "bottom-up", LADDER),
    _likelihood_claim("top-down", "bottom-up", LADDER),
    _likelihood_claim("bottom-up-x", "bottom-up", CONTAINS),
    Claim(
        statement="The ladder keeps more layers active than bottom-up.",
        source=LADDER,
        quantity="active layers by the verdict, top-down minus bottom-up,",
        measure=lambda runs: (active_layers(runs, "top-down"), active_layers(runs, "bottom-up")),
        relation="above",
        margin=LAYERS_MARGIN,
        unit="layers",
    ),
    Claim(
        statement="Sharing the decoder's parameters up to the top's prior leaves a ladder's likelihood as it is.",
        source=SYMMETRIC,
        quantity="L_K, top-down-shared minus top-down,",
        measure=lambda runs: (likelihood(runs, "top-down-shared"), likelihood(runs, "top-down")),
        relation="within",
        margin=LIKELIHOOD_MARGIN_NATS,
    ),
)


if __name__ == "__main__":
    from hvae.cli import main

    sys.exit(main(["run", "orders", *sys.argv[1:]]))
