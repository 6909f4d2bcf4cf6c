"""Two-layer linear VAE: strengths of its layers on the closed form, the top given up while the lower one codes.

Dang et al. (2024) solve the linear VAE of two latent layers in which q(z1|x) has a given deviation σ1: per mode θ of
the data, λ (what z1 codes of x) and ω (what p(z1|z2) reads of z2) as functions of σ1, η_enc, η_dec and the weights
β1, β2 of the two rates. Asked here: does training from random weights arrive there, for every setting printed and along
β1, β2 and η; does the top layer collapse, the lower one at work, beyond β2 = max(√β1 σ1 θ, β1 σ1²) / η_dec²; is an
optimum in which z2 codes nothing but the noise of z1, with a rate above 0 and I(x; z2) = 0, found out by the verdict;
and do β1, β2 and η act in the same direction on a ReLU stack on MNIST?

Exact parts (`hvae.evaluation.two_layers`) train on the covariance of the data, all of its eigenvalues, by L-BFGS to a
gradient below 1e-7; six starts a setting. The paper's linear MHVAE is not given its σ1 and η in what we have of it: 0.5
each is the middle of its grid. Where Σ2 is given too (`two_layer` with sigma2) the closed form was derived here.

Runs have unit variances in p(x|z1) where the paper has η²: -ELBO times η² is the same objective with weights β η²,
which is how η enters. ReLU stacks learn one deviation per unit in q(z1|x), p(z1|z2) and q(z2|z1), none moves with the
datum, so that η of z1 and z2 is a matter of scale. Their code does not halve the squared error while its divergences
are halved: the weights count half, or η² does, against the paper's formula (η = 0.5 there is 0.35 here); it clamps
divergences at 0, drops constant traces in the linear script, and its `Sigma` is a deviation, not a variance.

Source: H. A. Dang, T. H. Tran, T. Nguyen, N. Ho, "Beyond Vanilla Variational Autoencoders: Detecting Posterior Collapse
in Conditional and Hierarchical Variational Autoencoders", ICLR 2024, arXiv:2306.05023, theorem 2 and its figures.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.claims import Claim, Measured, NotMeasuredError, Relation, Runs, Sample, find
from analysis.load import Array, Layer
from analysis.papers import Curves, Line, Number, Paper
from experiments.published import published
from hvae.config import DataConfig, EvaluationConfig, ModelConfig, ObjectiveConfig, RunConfig, TrainingConfig
from hvae.schedules import Constant, LinearWarmup
from hvae.vocabulary import ACTIVE, COLLAPSED, CONSTANT, NOISE_ONLY

PRESETS = ("smoke", "cpu", "paper")
NEED_GPU = ("paper",)
SOURCE = "Dang et al. 2024, theorem 2 (arXiv:2306.05023)"

PAPER = Paper(
    citation="H. A. Dang, T. H. Tran, T. Nguyen, N. Ho, Beyond Vanilla Variational Autoencoders, ICLR 2024, "
    "arXiv:2306.05023",
    exhibits="Theorem 2 with the unit-test values of the closed form; strengths of the linear MHVAE against β2; rates "
    "and active units of the ReLU MHVAE against β1, β2 and η",
    limits={
        "smoke": "Two starts a setting, 8x8 digits for MNIST, four settings a sweep; runs of 60 steps, too short for "
        "any verdict.",
        "cpu": "The linear part is whole (all eigenvalues of MNIST, 10 units a layer). ReLU: hidden layers of 128 and "
        "64 units for 256, 20,000 images for 60,000, 2000 steps for about 47,000, no tanh heads.",
        "paper": "ReLU stacks of the paper's size and number of steps, without the code's tanh heads and clamps.",
    },
)

# -- settings: σ1, η_enc, η_dec, β1, β2 (and σ2 where Σ2 is given), with the θ of the data -------------------------

Knobs = tuple[float, ...]
UNIT: Mapping[str, tuple[float, Knobs]] = {
    "theta=2 s1=1 ee=1 ed=1 b1=1 b2=1": (2.0, (1.0, 1.0, 1.0, 1.0, 1.0)),
    "theta=2 s1=.5 ee=.5 ed=.5 b1=1 b2=2": (2.0, (0.5, 0.5, 0.5, 1.0, 2.0)),
    "theta=1.2 s1=.5 ee=.5 ed=.5 b1=1 b2=4": (1.2, (0.5, 0.5, 0.5, 1.0, 4.0)),
    "theta=.9 s1=.5 ee=.5 ed=.5 b1=1 b2=2": (0.9, (0.5, 0.5, 0.5, 1.0, 2.0)),
    "theta=1.2 s1=.5 ee=.5 ed=.5 b1=4 b2=4": (1.2, (0.5, 0.5, 0.5, 4.0, 4.0)),
}
"""the printed settings, by the names of their rows"""

REGIMES: Mapping[str, tuple[Knobs, tuple[float, ...]]] = {
    "A, both layers": ((0.9, 1.0, 0.7, 1.3, 0.8), (2.4, 2.0, 1.7, 1.4)),
    "C, both layers": ((0.5, 1.0, 0.5, 1.0, 2.0), (2.4, 2.0, 1.7, 1.4)),
    "B, top collapsed": ((0.5, 1.0, 0.5, 1.0, 4.0), (1.6, 1.4, 1.2, 0.9)),
    "A, noise only": ((1.2, 1.0, 0.6, 1.0, 0.9), (0.5, 0.4, 0.3, 0.2)),
    "B, both collapsed": ((0.5, 1.0, 0.5, 1.0, 2.0), (0.4, 0.3, 0.2, 0.1)),
}
"""one stack of four modes in each regime of the theorem"""

HALF = 0.5
GRID: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "seeds": (0, 1), "data": "digits-grey", "units": 3, "beta2": (0.5, 1.5, 2.5), "beta1": (0.5, 2.0, 6.0),
        "eta": (0.25, 2.0), "given": (0.5, 2.5), "n_images": 100, "max_paths": 64,
    },
    "cpu": {
        "seeds": tuple(range(6)), "data": "mnist-grey", "units": 10,
        "beta2": tuple(round(0.1 * step, 1) for step in range(1, 71)), "beta1": (0.1, 0.5, 1.0, 2.0, 4.0, 6.0),
        "eta": (0.25, 0.5, 1.0, 2.0), "given": tuple(round(0.5 * step, 1) for step in range(1, 15)),
        "n_images": 256, "max_paths": 256,
    },
}  # fmt: skip
"""starts, data, units a layer, the grids of each sweep, images and paths of the verdicts; paper is as cpu"""
BETA2_OF_BETA1 = 4.0
"""β2 along the sweep of β1: there the top is collapsed in nearly all modes at β1 = 1"""


def _knobs(preset: str) -> Mapping[str, Any]:
    return GRID["smoke" if preset == "smoke" else "cpu"]


def sweeps(preset: str) -> dict[str, tuple[Knobs, ...]]:
    """Part -> the settings along a grid, on the eigenvalues of the data."""
    grid = _knobs(preset)
    return {
        "beta2": tuple((HALF, HALF, HALF, 1.0, beta2) for beta2 in grid["beta2"]),
        "beta1": tuple((HALF, HALF, HALF, beta1, BETA2_OF_BETA1) for beta1 in grid["beta1"]),
        "eta": tuple((HALF, eta, eta, 1.0, 1.0) for eta in grid["eta"]),
        "given": tuple((HALF, HALF, HALF, 1.0, beta2, HALF / 2) for beta2 in grid["given"]),
    }


# -- runs ----------------------------------------------------------------------------------------------------------

LINEAR: Mapping[str, tuple[float, float]] = {
    "linear, both layers": (0.05, 0.0125),
    "linear, top collapsed": (0.05, 0.8),
    "linear, noise only": (2.0, 0.5),
}
"""(β1, β2) of linear stacks of unit variances on 8x8 digits, whose largest eigenvalue is 0.7: noise only where every
θ² <= √(β1 β2) and β2 < β1"""

BETAS = (0.1, 0.5, 1.0, 2.0)
ETAS = (0.25, 0.5, 1.0, 2.0)


def relu(beta1: float = 1.0, beta2: float = 1.0, eta: float = HALF) -> str:
    """The name of a ReLU run."""
    return f"ReLU β1 {beta1:g}, β2 {beta2:g}, η {eta:g}"


RELU: Mapping[str, Mapping[float, str]] = {
    "β1 (β2 = 1, η = 0.5)": {beta: relu(beta1=beta) for beta in BETAS},
    "β2 (β1 = 1, η = 0.5)": {beta: relu(beta2=beta) for beta in BETAS},
    "η (β1 = β2 = 1)": {eta: relu(eta=eta) for eta in ETAS},
}
"""sweep -> its value -> the run, as the paper's figures have them"""

panels = {"linear": tuple(LINEAR), **{sweep: tuple(runs.values()) for sweep, runs in RELU.items()}}


def configs(preset: str) -> dict[str, RunConfig]:
    """Three linear stacks on digits, and the ReLU stacks of the three sweeps: smoke 9 runs, cpu and paper 13."""
    found = {label: _linear(preset, betas) for label, betas in LINEAR.items()}
    settings = {relu(beta1=b): (b, 1.0, HALF) for b in BETAS}
    settings |= {relu(beta2=b): (1.0, b, HALF) for b in BETAS} | {relu(eta=eta): (1.0, 1.0, eta) for eta in ETAS}
    if preset == "smoke":
        ends = {label for runs in RELU.values() for value, label in runs.items() if value in (min(runs), max(runs))}
        settings = {label: values for label, values in settings.items() if label in ends}
    return found | {
        label: _relu(preset, (eta**2 * beta1, eta**2 * beta2)) for label, (beta1, beta2, eta) in settings.items()
    }


def _linear(preset: str, betas: tuple[float, float]) -> RunConfig:
    n_steps = 60 if preset == "smoke" else 3000
    model = ModelConfig(
        latents=(5, 5), hidden=((),), observation="gaussian", observation_variance="fixed", latent_variance="fixed"
    )
    rate = LinearWarmup(n_steps, start=1e-2, stop=1e-4)
    return _run(preset, DataConfig("digits-grey"), model, betas, n_steps, rate)


def _relu(preset: str, betas: tuple[float, float]) -> RunConfig:
    data, hidden, n_steps = {
        "smoke": (DataConfig("digits-grey"), ((32,), (16,)), 60),
        "cpu": (DataConfig("mnist-grey", n_train=20_000, n_test=2000), ((128,), (64,)), 2000),
        "paper": (DataConfig("mnist-grey"), ((256,), (256,)), 100 * (60_000 // 128)),
    }[preset]
    model = ModelConfig(
        latents=(16, 16), hidden=hidden, activation=("relu",), observation="gaussian", observation_variance="fixed",
        latent_variance="learned",
    )  # fmt: skip
    return _run(preset, data, model, betas, n_steps, Constant(1e-3))


def _run(
    preset: str, data: DataConfig, model: ModelConfig, betas: tuple[float, float], n_steps: int,
    rate: Constant | LinearWarmup,
) -> RunConfig:  # fmt: skip
    smoke = preset == "smoke"
    n_images, max_paths = (64, 16) if smoke else (256, 128)
    return RunConfig(
        data=data,
        model=model,
        objective=ObjectiveConfig(layer_beta=betas),
        training=TrainingConfig(
            seeds=_knobs(preset)["seeds"],
            n_steps=n_steps,
            batch_size=128,
            learning_rate=rate,
            log_every_steps=max(20, n_steps // 40),
            checkpoint_every_steps=max(60, n_steps // 4),
        ),
        evaluation=EvaluationConfig(
            n_images=n_images, max_paths=max_paths, n_likelihood=20 if smoke else 100, n_samples=20 if smoke else 200,
            n_bootstrap=100 if smoke else 500,
        ),
    )  # fmt: skip


# -- parts ---------------------------------------------------------------------------------------------------------


def measure(
    preset: str, runs: Mapping[str, Path], data_dir: Path | None, say: Callable[[str], None]
) -> dict[str, Callable[[], Any]]:
    """`unit`, the sweeps, `verdicts` on stacks at the optimum of each regime, `linear-runs`: strengths of the runs."""
    from hvae.completion import load_data
    from hvae.data import load
    from hvae.evaluation import two_layers
    from hvae.evaluation.two_layers import Setting
    from hvae.runs import Run
    from hvae.training import load_trained

    grid = _knobs(preset)
    seeds, units = grid["seeds"], grid["units"]

    def unit() -> Any:
        cases = [(Setting(*knobs), [theta]) for theta, knobs in UNIT.values()]
        return two_layers.strength_rows(cases, 1, seeds, say) | {"name": np.array(list(UNIT))}

    def sweep(part: str) -> Any:
        theta = two_layers.deviations(load(grid["data"], data_dir=data_dir).train)
        cases = [(Setting(*knobs), theta) for knobs in sweeps(preset)[part]]
        return two_layers.strength_rows(cases, units, seeds, say)

    def regimes() -> Any:
        cases = {name: (Setting(*knobs), theta) for name, (knobs, theta) in REGIMES.items()}
        return two_layers.verdict_rows(cases, 4, seeds, grid["n_images"], grid["max_paths"], say)

    def linear_runs() -> Any:
        rows = []
        for label, (beta1, beta2) in LINEAR.items():
            run = Run.open(runs[label])
            data = load_data(run.config, data_dir)
            found = [two_layers.model_strengths(model, data.train) for model in load_trained(run, data).models]
            setting = Setting(1.0, 1.0, 1.0, beta1, beta2, sigma2=1.0)
            modes = [setting.optimum(theta) for theta in two_layers.deviations(data.train)[: found[0][0].size]]
            rows.append(
                {
                    "encoder": [strengths for strengths, _ in found], "decoder": [strengths for _, strengths in found],
                    "expected_encoder": [mode.encoder for mode in modes],
                    "expected_decoder": [mode.decoder for mode in modes],
                }
            )  # fmt: skip
        arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return arrays | {"label": np.array(list(LINEAR)), "seeds": np.array(seeds)}

    parts: dict[str, Callable[[], Any]] = {"unit": unit}
    parts |= {part: lambda part=part: sweep(part) for part in sweeps(preset)}
    return parts | {"verdicts": regimes, "linear-runs": linear_runs}


# -- what is claimed -----------------------------------------------------------------------------------------------

STRENGTH = 1e-3
"""how far a strength may be from the closed form: trials on other spectra and starts were within 2e-4, at β2 = 0.1"""
NOISY_STRENGTH = 0.1
"""the same for runs by stochastic gradients: trials from other seeds were within 0.05"""
CODES = 0.1
"""a strength above this counts as at work, one below `STRENGTH` as gone"""
INFORMATION_MARGIN_NATS = 0.5
RATE_MARGIN_NATS = 0.1

EXACT = ("unit", "beta2", "beta1", "eta", "given")


def part(measured: Measured, name: str) -> Mapping[str, Array]:
    """The arrays of a part. Raises `NotMeasuredError`."""
    if name not in measured:
        raise NotMeasuredError(f"the part '{name}' is not measured yet")
    return measured[name]


def sample(rows: Mapping[str, Array], values: Array) -> Sample:
    """`values` [R] of the starts of a part."""
    return Sample(np.asarray(values, dtype=float), tuple(rows["seeds"].tolist()))


def farthest(measured: Measured, layer: str) -> Sample:
    """[R] the largest distance of a strength from the closed form, over all settings and modes."""
    every = [part(measured, name) for name in EXACT]
    errors = [np.abs(rows[layer] - rows[f"expected_{layer}"][:, None]).max(axis=(0, 2)) for rows in every]
    return sample(every[0], np.max(errors, axis=0))


def run_errors(measured: Measured) -> tuple[Sample, None]:
    """[R] the largest distance of a linear run's strength from the closed form."""
    rows = part(measured, "linear-runs")
    errors = [np.abs(rows[layer] - rows[f"expected_{layer}"][:, None]) for layer in ("encoder", "decoder")]
    return sample(rows, np.max(errors, axis=(0, 1, 3))), None


def beyond(rows: Mapping[str, Array]) -> Array:
    """[N, units] modes beyond the threshold of the top layer, at least a hundredth of β2, that the lower one codes."""
    beta1, sigma1, eta = (rows[name][:, None] for name in ("beta1", "sigma1", "eta_dec"))
    edge = np.maximum(np.sqrt(beta1) * sigma1 * rows["theta"], beta1 * sigma1**2) / eta**2
    found: Array = (rows["beta2"][:, None] > 1.01 * edge) & (rows["theta"] > 1.01 * np.sqrt(beta1) * sigma1)
    return found


def collapsed_top(measured: Measured, layer: str, extreme: Callable[..., Array]) -> Sample:
    """[R] the extreme strength of a layer over all modes in which the top is collapsed and the lower one codes."""
    found, first = [], part(measured, "beta2")
    for name in ("beta2", "beta1", "eta"):
        rows = part(measured, name)
        chosen = beyond(rows)
        if chosen.any():
            found.append(extreme(np.moveaxis(rows[layer], 1, 0)[:, chosen], axis=1))
    if not found:
        raise NotMeasuredError("no setting of the sweeps is beyond the threshold")
    return sample(first, extreme(np.array(found), axis=0))


def ends(name: str) -> Callable[[Measured], tuple[Sample, None]]:
    """[R] ω of the first mode at the last value of a sweep less that at its first."""

    def measure(measured: Measured) -> tuple[Sample, None]:
        rows = part(measured, name)
        return sample(rows, rows["decoder"][-1, :, 0] - rows["decoder"][0, :, 0]), None

    return measure


def matters(measured: Measured) -> tuple[Sample, None]:
    """[R] ω of the first mode at the largest β2: Σ2 given at half η_enc, less Σ2 learned."""
    given, learned = part(measured, "given"), part(measured, "beta2")
    same = np.flatnonzero(learned["beta2"] == given["beta2"][-1])
    if len(same) != 1:
        raise NotMeasuredError("the two sweeps share no largest β2")
    return sample(given, given["decoder"][-1, :, 0] - learned["decoder"][same[0], :, 0]), None


def of_regime(name: str, quantity: str) -> Callable[[Measured], tuple[Sample, None]]:
    """[R] a quantity of a regime's stacks; of an interval, its middle."""

    def measure(measured: Measured) -> tuple[Sample, None]:
        rows = part(measured, "verdicts")
        values = rows[quantity][rows["regime"].tolist().index(name)]
        return sample(rows, values[:, 1] if values.ndim == 2 else values), None

    return measure


REGIME_VERDICTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "A, both layers": ((ACTIVE,), (ACTIVE,)),
    "C, both layers": ((ACTIVE,), (ACTIVE,)),
    "B, top collapsed": ((ACTIVE,), (COLLAPSED, CONSTANT)),
    "A, noise only": ((COLLAPSED, CONSTANT), (NOISE_ONLY,)),
    "B, both collapsed": ((COLLAPSED, CONSTANT), (COLLAPSED, CONSTANT)),
}
"""what the verdict should say of z1 and of z2"""


def right_verdicts(name: str) -> Callable[[Measured], tuple[Sample, None]]:
    """[R] 1 where the verdicts on both layers are those of the regime, else 0."""

    def measure(measured: Measured) -> tuple[Sample, None]:
        rows = part(measured, "verdicts")
        at = rows["regime"].tolist().index(name)
        found = [np.isin(rows[f"verdict/z{z}"][at], REGIME_VERDICTS[name][z - 1]) for z in (1, 2)]
        return sample(rows, np.all(found, axis=0)), None

    return measure


def called(label: str, word: Sequence[str]) -> Callable[[Runs], tuple[Sample, None]]:
    """[R] 1 where the verdict on z2 of a run is one of these words, else 0."""

    def measure(runs: Runs) -> tuple[Sample, None]:
        run = find(runs, label)
        return Sample(np.isin(run.layers[1].verdict[:, run.epsilon_index], word).astype(float), run.seeds), None

    return measure


def top_rate(label: str) -> Callable[[Runs], tuple[Sample, None]]:
    """[R] rate of z2 in a run."""

    def measure(runs: Runs) -> tuple[Sample, None]:
        run = find(runs, label)
        return Sample(run.layers[1].interval("rate_nats")[:, 1], run.seeds), None

    return measure


def holds_more(more: str, less: str) -> Callable[[Runs], tuple[Sample, Sample]]:
    """[R] I(z1; z2) surely held by z2 in one run, and at most in another: the ends of their intervals."""

    def end(runs: Runs, label: str, which: int) -> Sample:
        run = find(runs, label)
        return Sample(run.layers[1].interval("parent_information_nats")[:, which], run.seeds)

    return lambda runs: (end(runs, more, 0), end(runs, less, 2))


def _exact(statement: str, quantity: str, measure: Callable[[Measured], tuple[Sample, None]], relation: Relation,
           margin: float, unit: str = "") -> Claim:  # fmt: skip
    return Claim(statement, SOURCE, quantity, measure, relation, margin, unit, reads="measured")


claims = (
    _exact(
        "Trained from random weights, the lower layer has the strengths of the closed form in every setting.",
        "the largest |λ - theory| over all settings and modes",
        lambda measured: (farthest(measured, "encoder"), None),
        "below",
        STRENGTH,
    ),
    _exact(
        "So has the top layer.",
        "the largest |ω - theory| over all settings and modes",
        lambda measured: (farthest(measured, "decoder"), None),
        "below",
        STRENGTH,
    ),
    _exact(
        "The top layer collapses where β2 > max(√β1 σ1 θ, β1 σ1²) / η_dec².",
        "the largest ω beyond the threshold, by a hundredth or more,",
        lambda measured: (collapsed_top(measured, "decoder", np.max), None),
        "below",
        STRENGTH,
    ),
    _exact(
        "There the lower layer goes on coding the same modes.",
        "the smallest λ of these modes",
        lambda measured: (collapsed_top(measured, "encoder", np.min), None),
        "above",
        CODES,
    ),
    _exact("A larger β1 rescues the top layer.", "ω of the first mode at the largest less the smallest β1",
           ends("beta1"), "above", CODES),
    _exact("A larger β2 kills it.", "ω of the first mode at the largest less the smallest β2", ends("beta2"), "below",
           -CODES),
    _exact("So does a larger η.", "ω of the first mode at the largest less the smallest η", ends("eta"), "below",
           -CODES),
    _exact(
        "Whether Σ2 is learned matters: given at half η_enc, the top layer works where with a learned one it is gone.",
        "ω of the first mode at the largest β2, Σ2 given less learned,",
        matters,
        "above",
        CODES,
    ),
    *(
        _exact(f"Optimum, regime {name}: the verdicts on both layers are right.",
               "share of starts with the right verdicts", right_verdicts(name), "above", 0.9)
        for name in REGIMES
    ),
    _exact("Where z2 codes only the noise of z1, it has a rate.", "exact E rate of z2",
           of_regime("A, noise only", "exact_rate_nats/z2"), "above", RATE_MARGIN_NATS, "nats"),
    _exact("And it tells nothing of x.", "exact I(x; z2)", of_regime("A, noise only", "exact_information_nats/z2"),
           "below", 1e-6, "nats"),
    Claim(
        statement="Trained by stochastic gradients on images, a linear stack ends there too, and its verdict says so.",
        source=SOURCE,
        quantity="share of replicas whose z2 codes noise only",
        measure=called("linear, noise only", (NOISE_ONLY,)),
        relation="above",
        margin=0.9,
        unit="",
    ),
    _exact("The strengths of the linear runs are those of the closed form of given variances, as near as noise lets "
           "them.", "the largest |λ - theory| or |ω - theory| over modes and the three runs", run_errors, "below",
           NOISY_STRENGTH),
    Claim(
        statement="Its z2 has a rate all the same.",
        source=SOURCE,
        quantity="rate of z2",
        measure=top_rate("linear, noise only"),
        relation="above",
        margin=RATE_MARGIN_NATS,
    ),
    Claim(
        statement="A linear stack on images gives up its top layer at a large β2.",
        source=SOURCE,
        quantity="share of replicas whose z2 is collapsed",
        measure=called("linear, top collapsed", (COLLAPSED, CONSTANT)),
        relation="above",
        margin=0.9,
        unit="",
    ),
    *(
        Claim(
            statement=f"In a ReLU stack a {'larger' if more > less else 'smaller'} {knob} keeps the top layer at work.",
            source="Dang et al. 2024, experiments on MNIST (arXiv:2306.05023)",
            quantity=f"I(z1; z2) at {knob} = {more:g}, lower end, less at {less:g}, upper end,",
            measure=holds_more(run(more), run(less)),
            relation="above",
            margin=INFORMATION_MARGIN_NATS,
        )
        for knob, more, less, run in (
            ("β1", 2.0, 0.1, lambda value: relu(beta1=value)),
            ("β2", 0.1, 2.0, lambda value: relu(beta2=value)),
            ("η", 0.25, 2.0, lambda value: relu(eta=value)),
        )
    ),
)  # fmt: skip


# -- what was printed ----------------------------------------------------------------------------------------------


def strength_of(name: str, layer: str) -> Callable[[Measured], Sample]:
    """[R] a strength of one of the printed settings."""

    def measure(measured: Measured) -> Sample:
        rows = part(measured, "unit")
        return sample(rows, rows[layer][rows["name"].tolist().index(name), :, 0])

    return measure


numbers = tuple(
    Number(
        published("dang2024", "Theorem 3 closed form (unit-test values)", f"{name}", metric),
        strength_of(name, layer),
        tolerance=1e-4,
        comparable=PRESETS,
        reads="measured",
    )
    for name in UNIT
    for layer, metric in (("encoder", "lambda (lower layer)"), ("decoder", "omega (top layer)"))
)
"""to the four digits printed"""


# -- figures -------------------------------------------------------------------------------------------------------

MODES = (1, 2, 5, 10)


def strengths(name: str, knob: str) -> Callable[[Runs, Measured], Mapping[str, Mapping[str, Line]]]:
    """λ and ω along a sweep: starts as points over the closed form."""

    def panels(runs: Runs, measured: Measured) -> Mapping[str, Mapping[str, Line]]:
        if name not in measured:
            return {}
        rows = measured[name]
        modes = [mode for mode in MODES if mode <= rows["encoder"].shape[-1]]
        return {
            title: {
                f"mode {mode}": Line(
                    rows[knob],
                    rows[layer][..., mode - 1],
                    expected=(rows[knob], rows[f"expected_{layer}"][:, mode - 1]),
                )
                for mode in modes
            }
            for title, layer in (("λ, lower layer", "encoder"), ("ω, top layer", "decoder"))
        }

    return panels


def of_relu(
    lines: Mapping[str, tuple[int, Callable[[Layer], Array]]],
) -> Callable[[Runs, Measured], Mapping[str, Mapping[str, Line]]]:
    """Lines (a layer's number and what is read of it, [R]) along the sweeps of ReLU stacks."""

    def panels(runs: Runs, measured: Measured) -> Mapping[str, Mapping[str, Line]]:
        found = {}
        for sweep, labels in RELU.items():
            here = {value: runs[label] for value, label in labels.items() if label in runs and runs[label].evaluated}
            if here:
                x = np.array(list(here))
                found[sweep] = {
                    name: Line(x, np.array([read(run.layers[number - 1]) for run in here.values()]))
                    for name, (number, read) in lines.items()
                }
        return found

    return panels


def _middle(quantity: str) -> Callable[[Layer], Array]:
    def read(layer: Layer) -> Array:
        values: Array = layer.interval(quantity)[:, 1]
        return values

    return read


_CLOSED = "Points: six starts from random weights; lines: the closed form. "
curves = (
    Curves(
        "strengths-beta2", "Linear stack: strengths against β2",
        _CLOSED + "MNIST, 10 units a layer, σ1 = η_enc = η_dec = 0.5, β1 = 1 (smoke: digits, 3 units). The top layer "
        "gives up one mode after the other while the lower one goes on with it.",
        "β2", "strength", strengths("beta2", "beta2"),
    ),
    Curves(
        "strengths-beta1", "Linear stack: strengths against β1",
        _CLOSED + f"As above with β2 = {BETA2_OF_BETA1:g}: a larger β1 wakes the top layer, and weakens the lower one.",
        "β1", "strength", strengths("beta1", "beta1"),
    ),
    Curves(
        "strengths-eta", "Linear stack: strengths against η",
        _CLOSED + "η_enc = η_dec = η, σ1 = 0.5, β1 = β2 = 1.", "η", "strength", strengths("eta", "eta_dec"),
        x_scale="log",
    ),
    Curves(
        "strengths-given", "Linear stack: strengths against β2 where Σ2 is given",
        _CLOSED + "Deviations of q(z2|z1) held at half η_enc, all else as against β2: the top layer lives longer.",
        "β2", "strength", strengths("given", "beta2"),
    ),
    Curves(
        "relu-rates", "ReLU stack: rates and information per layer",
        "Rates of both layers, what z2 holds of z1, and what it holds of x (capped at the logarithm of the number of "
        "images). Per-layer rates alone are no evidence of use.",
        "weight, or η", "nats",
        of_relu(
            {
                "rate of z1": (1, _middle("rate_nats")),
                "rate of z2": (2, _middle("rate_nats")),
                "I(z1; z2)": (2, _middle("parent_information_nats")),
                "I(x; z2)": (2, _middle("information_nats")),
            }
        ),
        x_scale="log",
    ),
    Curves(
        "relu-units", "ReLU stack: active units",
        "Units of each layer whose mean varies with the datum by more than 0.01, unbiased by the noise of the path; of "
        "a layer that codes noise alone the count is chance.",
        "weight, or η", "units",
        of_relu({"z1": (1, lambda layer: layer.active_units()), "z2": (2, lambda layer: layer.active_units())}),
        x_scale="log",
    ),
)  # fmt: skip


if __name__ == "__main__":
    from hvae.cli import main

    sys.exit(main(["run", "dang-strengths", *sys.argv[1:]]))
