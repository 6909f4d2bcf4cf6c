"""Training against a plain loop without stacking, vmap or fused kernels; replicas, kills, damage, records."""

import itertools
import json
import math
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hvae import rng
from hvae.data import Dataset
from hvae.errors import ConfigError
from hvae.exact import DiscreteChain
from hvae.fitting import Health
from hvae.lab.assembly import build_hvae, build_objective, relax
from hvae.lab.config import BlocksConfig, DataConfig, ModelConfig, ObjectiveConfig, RunConfig, Stage, TrainingConfig
from hvae.lab.interrupts import Interrupted
from hvae.lab.runs.checkpoints import latest_checkpoint
from hvae.lab.runs.run import Run
from hvae.lab.training import loop as training
from hvae.lab.training.board import tag_of
from hvae.lab.training.loop import batch, load_trained, train
from hvae.schedules import Constant, LinearWarmup, StepDecay
from tests.statistics import assert_mean

N_PIXELS, N_TRAIN = 16, 96


def toy(dynamic: bool = False) -> Dataset:
    """Four 4x4 patterns with a twentieth of the pixels flipped; dynamic: their probabilities.

    Every pixel is on in two patterns. A pixel that is on in a whole batch has, before batch norm, a gradient of 0
    but for rounding, and Adam makes full steps of rounding: then no two ways to compute it agree.
    """
    source = torch.Generator().manual_seed(0)
    patterns = torch.stack([(torch.randperm(4, generator=source) < 2).float() for _ in range(N_PIXELS)], 1)
    p = 0.05 + 0.9 * patterns[torch.arange(N_TRAIN + 20) % 4]
    images = (torch.rand(p.shape, generator=source) < p).float()
    return Dataset("toy", (p if dynamic else images)[:N_TRAIN], images[N_TRAIN:], (4, 4), "binary", dynamic)


MODEL = ModelConfig(latents=(3, 2), hidden=((6,), (4,)))
TRAINING = TrainingConfig(seeds=(0, 1), n_steps=12, batch_size=32, log_every_steps=4, learning_rate=Constant(1e-2))


def config(model: ModelConfig = MODEL, objective: ObjectiveConfig | None = None, **knobs: Any) -> RunConfig:
    return RunConfig(DataConfig("digits-threshold"), model, objective or ObjectiveConfig(), replace(TRAINING, **knobs))


def trained(root: Path, configuration: RunConfig, data: Dataset | None = None, label: str = "run") -> Run:
    run = Run.create_or_open(root, "trial", label, configuration)
    train(run, data or toy(), progress=False)
    return run


def state(run: Run) -> dict[str, Any]:
    found = latest_checkpoint(run)
    assert found is not None
    return found[1]


def assert_same_state(a: Any, b: Any) -> None:
    """Bit for bit, whatever is nested in it."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b) and not a.requires_grad
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_state(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same_state(one, other)
    else:
        assert a == b


# The step


def plain_twin(configuration: RunConfig, data: Dataset, seed: int) -> dict[str, Tensor]:
    """One model, one seed: no stacking, no vmap, no fused or foreach kernels. An optimiser each for the decoder and
    for the encoder of each layer, which are stepped or not."""
    steps, objective = configuration.training, configuration.objective
    model = relax(build_hvae(configuration.model, data, seed=seed).train(), objective)
    loss_of, rate, first_step = build_objective(objective, model.latents), steps.learning_rate, 0
    groups: dict[int, list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        layer = 0 if name.startswith("decoder.") else int(name.split("conditionals.z")[1][0])
        groups.setdefault(layer, []).append(weight)
    optimisers = {
        layer: torch.optim.Adam(weights, lr=1.0, eps=steps.adam_epsilon, foreach=False, fused=False)
        for layer, weights in groups.items()
    }
    per_epoch = len(data.train) // steps.batch_size
    for step in range(steps.n_steps):
        for stage in steps.then:
            if step == stage.from_step:
                objective, rate, first_step = stage.objective, stage.learning_rate, step
                loss_of = build_objective(objective, model.latents)
        order = rng.permutation(len(data.train), seed=seed, purpose="order", step=step // per_epoch)
        first = step % per_epoch * steps.batch_size
        x = data.train[order][first : first + steps.batch_size]
        specs = loss_of.noise_specs(model)
        noise = rng.noise(specs, objective.n_samples, steps.batch_size, seed=seed, purpose="train", step=step)
        model.zero_grad()
        loss_of.on(model, x.unsqueeze(0), noise, step - first_step)[0].backward()
        stepped = [
            layer
            for layer in groups
            if layer in (steps.aggressive_layers or (1, 2))
            or step >= steps.aggressive_steps
            or step % steps.aggressive_every == steps.aggressive_every - 1
        ]
        gradients = [value.grad for layer in stepped for value in groups[layer] if value.grad is not None]
        norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, steps.clip_norm / norm) if steps.clip_norm else 1.0)
        for layer in stepped:
            optimisers[layer].param_groups[0]["lr"] = rate(step - first_step)
            optimisers[layer].step()
    return {name: value.detach() for name, value in model.named_parameters()}


TWINS: dict[str, tuple[ModelConfig, ObjectiveConfig, int]] = {
    f"{order}{', batch norm' if norm else ''}": (replace(MODEL, order=order, batch_norm=(norm,)), ObjectiveConfig(), 40)
    for order, norm in itertools.product(
        ("bottom-up", "top-down", "bottom-up-x", "mean-field", "top-down-shared"), (False, True)
    )
}
TWINS |= {
    f"{order}, {kind}": (
        replace(MODEL, order=order, families=(kind,), prior="learned"),
        ObjectiveConfig(n_samples=2),
        30,
    )
    for order, kind in itertools.product(("bottom-up-x", "mean-field", "top-down-shared"), ("bernoulli", "categorical"))
}
TWINS |= {
    "vamp": (replace(MODEL, prior="vamp", n_pseudo_inputs=4), ObjectiveConfig(), 10),
    "coins": (replace(MODEL, families=("bernoulli",), prior="learned"), ObjectiveConfig(n_samples=3), 10),
    "categorical units ladder, iwae": (
        replace(MODEL, families=("categorical",), order="top-down"), ObjectiveConfig("iwae", 3, LinearWarmup(8)), 10,
    ),
    "full Gaussian over Bernoulli units, iwae": (
        replace(MODEL, families=("bernoulli", "full-gaussian"), latent_variance="learned"),
        ObjectiveConfig("iwae", 2), 10,
    ),
    "convolutional": (replace(MODEL, nets=("convolutional", "residual"), channels=(2, 3)), ObjectiveConfig(), 20),
    "skips, normalised means and a floor": (
        replace(MODEL, generative_skips=True, normalised_means=(0.5,), floor_nats=0.7), ObjectiveConfig(), 20,
    ),
    "free nats": (MODEL, ObjectiveConfig(beta=LinearWarmup(5), layer_beta=(1.0, 2.0), free_nats=(0.5, 1.0)), 40),
    "vimco, Bernoulli units under a Gaussian": (
        replace(MODEL, families=("bernoulli", "gaussian")), ObjectiveConfig("vimco", 3, LinearWarmup(8)), 10,
    ),
    "tvo ladder": (replace(MODEL, order="top-down"), ObjectiveConfig("tvo", 3, partition=(0.0, 0.2)), 10),
    "covariance, ladder": (
        replace(MODEL, order="top-down"), ObjectiveConfig("tvo", 3, LinearWarmup(8), gradient="covariance"), 10,
    ),
    "wake-sleep, Bernoulli": (
        replace(MODEL, families=("bernoulli",), prior="learned"), ObjectiveConfig("wake-sleep"), 10,
    ),
    "free nats of units": (
        replace(MODEL, families=("bernoulli", "gaussian")),
        ObjectiveConfig(gradient="straight-through", unit_free_nats=(0.1, 0.05)), 10,
    ),
    "relaxed Bernoulli units under a Gaussian": (
        replace(MODEL, families=("bernoulli", "gaussian")), ObjectiveConfig(gradient="relaxed", temperature=0.7), 10,
    ),
    "straight-through categorical units ladder, iwae": (
        replace(MODEL, families=("categorical",), order="top-down"),
        ObjectiveConfig("iwae", 2, gradient="straight-through"), 10,
    ),
    "reweighted ladder": (replace(MODEL, order="top-down"), ObjectiveConfig("reweighted-wake-sleep", 3, sleep=0.3), 10),
}  # fmt: skip


def some(names: Iterable[str]) -> list[Any]:
    """All of them, every other one for `make test-all` only."""
    return [pytest.param(name, marks=pytest.mark.slow) if place % 2 else name for place, name in enumerate(names)]


@pytest.mark.parametrize("name", some(TWINS))
def test_the_step_equals_a_plain_loop_and_replicas_train_as_if_alone(name: str, tmp_path: Path) -> None:
    """Replica r of 4 equals the run of its seed alone and a loop that shares none of the machinery of the step.

    Up to float32 rounding of numbers around 1, 6e-8 each: 1e-6 after 40 steps, where one step moves 1e-2.
    """
    model, objective, n_steps = TWINS[name]
    knobs = {"n_steps": n_steps, "clip_norm": 3.0, "learning_rate": StepDecay(8, factor=0.8, start=1e-2)}
    together = state(trained(tmp_path, config(model, objective, seeds=(4, 0, 7, 2), **knobs)))["parameters"]
    alone = state(trained(tmp_path, config(model, objective, seeds=(7,), **knobs)))["parameters"]
    twin = plain_twin(config(model, objective, **knobs), toy(), seed=7)
    start = dict(build_hvae(model, toy(), seed=7).named_parameters())
    assert together.keys() == twin.keys() == start.keys()
    moved = max((twin[n] - start[n]).abs().max().item() for n in twin)
    assert moved > 0.02
    for parameter, value in together.items():
        torch.testing.assert_close(value[2], alone[parameter][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(value[2], twin[parameter], atol=1e-6, rtol=0)
        assert len({value[r].sum().item() for r in range(4)}) == 4


@pytest.mark.parametrize(
    ("order", "layers"),
    [
        ("bottom-up", (2,)),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("bottom-up", ()), ("top-down", ()), ("top-down", (2,)))
        ),
    ],
)
def test_aggressive_training_equals_a_plain_loop_with_an_optimiser_for_each_part(
    order: Any, layers: tuple[int, ...], tmp_path: Path
) -> None:
    """To float32 rounding, as above. A weight that waits is where it was, bit for bit, and so are its moments.

    Of a seed none of whose weights has a gradient of rounding size when it first moves: Adam makes that a full step.
    """
    knobs: dict[str, Any] = {"learning_rate": StepDecay(8, factor=0.8, start=1e-2), "clip_norm": 3.0}
    knobs |= {"aggressive_steps": 13, "aggressive_every": 5, "aggressive_layers": layers, "checkpoint_every_steps": 1}
    configuration = config(replace(MODEL, order=order, prior="learned"), seeds=(0, 8), n_steps=30, **knobs)
    run = trained(tmp_path, configuration)
    found, twin = state(run)["parameters"], plain_twin(configuration, toy(), seed=8)
    for name, value in found.items():
        torch.testing.assert_close(value[1], twin[name], atol=1e-6, rtol=0)
    usual = plain_twin(
        config(configuration.model, seeds=(8,), n_steps=30, **knobs | {"aggressive_steps": 0, "aggressive_layers": ()}),
        toy(),
        seed=8,
    )
    assert max((usual[name] - twin[name]).abs().max().item() for name in twin) > 1e-3


@pytest.mark.parametrize(("layers", "waiting"), [((), ("decoder.",)), ((2,), ("decoder.", "conditionals.z1."))])
def test_a_weight_that_waits_and_its_moments_stay_bit_for_bit(
    layers: tuple[int, ...], waiting: tuple[str, ...], tmp_path: Path
) -> None:
    """After the decoder's first turn at step 3 there is momentum, by which nothing may move at step 4."""
    knobs = {"aggressive_steps": 6, "aggressive_every": 3, "aggressive_layers": layers, "checkpoint_every_steps": 1}
    three, four = (state(trained(tmp_path, config(n_steps=n, **knobs), label=str(n))) for n in (3, 4))
    for index, (name, before) in enumerate(three["parameters"].items()):
        waits = name.startswith(waiting) or any(part in name for part in waiting[1:])
        assert torch.equal(before, four["parameters"][name]) == waits
        old, new = (saved["optimiser"]["state"][index] for saved in (three, four))
        assert old["exp_avg"].abs().max() > 0
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(old[moment], new[moment]) == waits


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_aggressive_training_is_resumed_bit_for_bit(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the decoder's first turn, when Adam knows nothing of it yet, between two turns, and afterwards."""
    configuration = config(aggressive_steps=6, aggressive_every=3, aggressive_layers=(2,))
    whole = trained(tmp_path, configuration, label="whole")
    run = Run.create_or_open(tmp_path, "trial", "stopped", configuration)

    def stopping(images: Tensor, configuration: RunConfig, step: int, **knobs: Any) -> Any:
        if step == stop - 1:
            signal.raise_signal(signal.SIGTERM)
        return batch(images, configuration, step, **knobs)

    monkeypatch.setattr(training, "batch", stopping)
    with pytest.raises(Interrupted):
        train(run, toy(), progress=False)
    monkeypatch.undo()
    train(run, toy(), progress=False)
    assert_same_state(state(run), state(whole))


# Stages


def staged(from_step: int = 9, **knobs: Any) -> RunConfig:
    """ELBO, five steps of IWAE with three samples, then the thermodynamic bound; each with schedules of its own."""
    iwae = Stage(from_step, ObjectiveConfig("iwae", 3, LinearWarmup(4)), StepDecay(2, factor=0.5, start=2e-2))
    tvo = Stage(from_step + 5, ObjectiveConfig("tvo", 2, partition=(0.0, 0.3)), LinearWarmup(3, start=1e-3, stop=1e-2))
    return config(then=(iwae, tvo), **({"n_steps": from_step + 9, "adam_epsilon": 1e-3} | knobs))


def test_stages_equal_trainings_by_hand_one_after_the_other(tmp_path: Path) -> None:
    """To float32 rounding, as above: by one plain loop whose loss and rate are exchanged, and whose Adam goes on.

    It matters at what step a stage begins, that its schedules count from there, and what epsilon is.
    """
    configuration = staged(seeds=(0, 7), log_every_steps=1)
    run = trained(tmp_path, configuration)
    found, twin = state(run)["parameters"], plain_twin(configuration, toy(), seed=7)
    for name, value in found.items():
        torch.testing.assert_close(value[1], twin[name], atol=1e-6, rtol=0)
    shifted = [replace(stage, from_step=stage.from_step + 1) for stage in configuration.training.then]
    for knobs in ({"then": tuple(shifted)}, {"then": ()}, {"adam_epsilon": 1e-8}):
        other = plain_twin(replace(configuration, training=replace(configuration.training, **knobs)), toy(), seed=7)
        assert max((other[name] - twin[name]).abs().max().item() for name in twin) > 1e-3
    betas = [row["beta"] for row in run.read_metrics()]
    assert betas == [1.0] * 9 + [0.0, 0.25, 0.5, 0.75, 1.0] + [1.0] * 4


def test_up_to_the_switch_a_run_is_the_first_stage_alone_bit_for_bit(tmp_path: Path) -> None:
    alone = trained(tmp_path, config(n_steps=9, adam_epsilon=1e-3), label="alone")
    whole = trained(tmp_path, staged(checkpoint_every_steps=9), label="whole")
    rows = [row for row in whole.read_metrics() if row["step"] <= 8]
    assert rows == alone.read_metrics()[: len(rows)] and len(rows) == 2
    stopped = Run.create_or_open(tmp_path, "trial", "stopped", staged())
    interrupt_at(9, stopped)
    assert_same_state(state(stopped)["parameters"], state(alone)["parameters"])


@pytest.mark.parametrize("stop", [8, 9, 10, 14, 15])
def test_stages_are_resumed_bit_for_bit(stop: int, tmp_path: Path) -> None:
    """Just before a switch, at it, and after it."""
    whole = trained(tmp_path, staged(), label="whole")
    run = Run.create_or_open(tmp_path, "trial", "stopped", staged())
    interrupt_at(stop, run)
    train(run, toy(), progress=False)
    assert_same_state(state(run), state(whole))
    assert run.read_metrics() == whole.read_metrics()


def interrupt_at(stop: int, run: Run) -> None:
    """Train the run to step ``stop`` only."""

    def stopping(images: Tensor, configuration: RunConfig, step: int, **knobs: Any) -> Any:
        if step == stop - 1:
            signal.raise_signal(signal.SIGTERM)
        return batch(images, configuration, step, **knobs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training, "batch", stopping)
        train(run, toy(), progress=False)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (
            (Stage(12, ObjectiveConfig(), Constant(1e-3)),),
            "then begins stages at .12.; give rising steps",
        ),
        ((Stage(0, ObjectiveConfig(), Constant(1e-3)),), r"then\[0\].from_step is 0; give 1 to 1000000000"),
        (
            tuple(Stage(s, ObjectiveConfig(), Constant(1e-3)) for s in (6, 3)),
            "then begins stages at .6, 3.; give rising",
        ),
        ((Stage(3, ObjectiveConfig(), Constant(0.0)),), "then.0..learning_rate runs from 0.0 to 0.0; give"),
        ((Stage(3, ObjectiveConfig("vimco", 2), Constant(1e-3)),), "then.0..objective.name is vimco.*use iwae"),
    ],
)
def test_stages_that_cannot_be_are_refused(then: tuple[Stage, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(then=then)


class Spy(torch.optim.Adam):
    """Adam that keeps the gradients it was given and the parameters it made."""

    gradients: list[list[Tensor]]
    values: list[list[Tensor]]

    def step(self, closure: Any = None) -> Any:
        parameters = self.param_groups[0]["params"]
        Spy.gradients.append([value.grad.clone() for value in parameters])
        result = super().step(closure)
        Spy.values.append([value.detach().clone() for value in parameters])
        return result


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Spy]]:
    Spy.gradients, Spy.values = [], []
    monkeypatch.setattr(torch.optim, "Adam", Spy)
    yield Spy


def test_each_replica_is_clipped_by_its_own_norm(spy: type[Spy], tmp_path: Path) -> None:
    def gradients(clip_norm: float) -> np.ndarray:
        trained(tmp_path, config(n_steps=1, clip_norm=clip_norm, seeds=(0, 1, 2)))
        return torch.cat([g.flatten(1) for g in spy.gradients[-1]], 1).double().numpy()

    whole = gradients(0.0)
    norms = np.linalg.norm(whole, axis=1)
    low, middle, high = np.sort(norms)
    assert high > 1.02 * low
    for clip_norm in ((low + middle) / 2, high * 2, low / 10):
        expected = whole * np.minimum(1, clip_norm / norms)[:, None]
        np.testing.assert_allclose(gradients(float(clip_norm)), expected, rtol=1e-5, atol=1e-9)


def test_averaged_weights(spy: type[Spy], tmp_path: Path) -> None:
    run = trained(tmp_path, config(n_steps=7, ema_decay=0.7))
    saved = state(run)
    start = [build_hvae(MODEL, toy(), seed=seed) for seed in (0, 1)]
    for i, name in enumerate(saved["parameters"]):
        expected = torch.stack([dict(model.named_parameters())[name].detach() for model in start])
        for values in spy.values:
            expected = 0.7 * expected + 0.3 * values[i]
        torch.testing.assert_close(saved["averaged"][name], expected, atol=1e-6, rtol=0)
        assert not saved["averaged"][name].requires_grad  # nor a graph through all steps
        assert torch.equal(saved["parameters"][name], spy.values[-1][i])
        for replica, model in enumerate(load_trained(run, toy()).models):
            assert torch.equal(dict(model.named_parameters())[name], saved["averaged"][name][replica])


def test_the_bound_starts_without_latents_and_rises_above_them(tmp_path: Path) -> None:
    """The start is close to independent pixels at the data's mean; the end is well above them in every replica."""
    data = toy()
    p = data.train.mean(0)
    independent = (p * p.log() + (1 - p) * (1 - p).log()).sum().item()
    model = replace(MODEL, latents=(3,), hidden=((12,),))
    rows = trained(tmp_path, config(model, n_steps=150, log_every_steps=1, clip_norm=0.0)).read_metrics()
    first, last = (np.array([row["bound_nats"] for row in rows[part]]) for part in (slice(5), slice(-30, None)))
    assert first.mean() < independent + 0.5
    assert (last.mean(0) > independent + 2).all()


EVERY: dict[str, ObjectiveConfig] = {
    "elbo": ObjectiveConfig(n_samples=4),
    "iwae": ObjectiveConfig("iwae", 4),
    "vimco": ObjectiveConfig("vimco", 4),
    "tvo": ObjectiveConfig("tvo", 4),
    "covariance": ObjectiveConfig("tvo", 4, gradient="covariance"),
    "wake-sleep": ObjectiveConfig("wake-sleep", 4),
    "reweighted-wake-sleep": ObjectiveConfig("reweighted-wake-sleep", 4),
    "symmetric": ObjectiveConfig("symmetric"),
}


SEEING = ("bottom-up-x", "mean-field", "top-down-shared")
LADDERS = ("covariance", "wake-sleep", "reweighted-wake-sleep")
"""objectives that hold draws constant in a q that shares the decoder's weights"""


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *((name, "bottom-up") for name in EVERY),
        *(pytest.param(name, "top-down", marks=pytest.mark.slow) for name in LADDERS),
        *(pytest.param("elbo", order, marks=pytest.mark.slow) for order in SEEING),
        ("wake-sleep", "top-down-shared"),
    ],
)
def test_every_objective_raises_the_exact_elbo_of_a_binary_stack(name: str, order: Any, tmp_path: Path) -> None:
    """By transfer matrices, in every replica, above what a model without latents reaches."""
    data, model = toy(), replace(MODEL, families=("bernoulli",), order=order)
    run = trained(tmp_path, config(model, EVERY[name], n_steps=80, learning_rate=Constant(3e-2)))
    p = data.train.mean(0)
    independent = (p * p.log() + (1 - p) * (1 - p).log()).sum().item()
    for seed, after in zip(run.config.training.seeds, load_trained(run, data).models, strict=True):
        before = build_hvae(model, data, seed=seed)
        start, end = (DiscreteChain.of(m.decoder).elbo(m.posterior, data.train).mean().item() for m in (before, after))
        assert end > max(start + 1, independent + 0.5)


def test_without_labels_symmetric_is_wake_sleep_bit_for_bit(tmp_path: Path) -> None:
    names: tuple[Any, ...] = ("wake-sleep", "symmetric")
    for order in ("bottom-up", "top-down"):
        model = replace(MODEL, order=order)  # type: ignore[arg-type]
        runs = [trained(tmp_path, config(model, ObjectiveConfig(name)), label=name) for name in names]
        assert_same_state(*[state(run) for run in runs])


# What is recorded


@pytest.mark.parametrize("name", EVERY)
def test_what_is_recorded_is_the_elbo_whatever_is_trained(name: str, tmp_path: Path) -> None:
    """Of the draws that q makes from the latents' noise, in float32: sums of 16 terms around 1."""
    for families in (("bernoulli",), ("gaussian", "bernoulli")):
        model = replace(MODEL, families=families, order="top-down")
        run = trained(tmp_path, config(model, EVERY[name], n_steps=1))
        (row,) = run.read_metrics()
        for replica, seed in enumerate(run.config.training.seeds):
            alone = build_hvae(model, toy(), seed=seed).train()
            x = batch(toy().train, run.config, 0, dynamic=False)[replica]
            n_samples = run.config.objective.n_samples
            noise = rng.noise(alone.noise_specs(), n_samples, len(x), seed=seed, purpose="train")
            evidence = alone(x.unsqueeze(0), noise)
            assert row["bound_nats"][replica] == pytest.approx(evidence.log_weight.mean().item(), abs=1e-5)
            for latent in alone.latents:
                rate = evidence.rate(latent).mean().item()
                assert row[f"rate_nats/{latent}"][replica] == pytest.approx(rate, abs=1e-5)


def test_metrics_are_consistent_and_the_warm_up_is_recorded(tmp_path: Path) -> None:
    objective = ObjectiveConfig(beta=LinearWarmup(20), n_samples=2)
    rows = trained(tmp_path, config(objective=objective, n_steps=30, log_every_steps=7)).read_metrics()
    assert [row["step"] for row in rows] == [7, 14, 21, 28, 30]
    for row in rows:
        assert row["beta"] == LinearWarmup(20)(row["step"] - 1)
        rates = np.array([row["rate_nats/z1"], row["rate_nats/z2"]])
        distortion = np.array(row["distortion_nats"])
        np.testing.assert_allclose(row["bound_nats"], -distortion - rates.sum(0), rtol=1e-5)
        np.testing.assert_allclose(row["loss_nats"], distortion + row["beta"] * rates.sum(0), rtol=1e-5)
        for name, units in (("z1", 3), ("z2", 2)):
            per_unit = np.array(row[f"rate_unit_nats/{name}"])
            assert per_unit.shape == (2, units)
            np.testing.assert_allclose(per_unit.sum(1), row[f"rate_nats/{name}"], rtol=1e-4, atol=1e-5)
            assert all(isinstance(n, int) and 0 <= n <= units for n in row[f"active_units/{name}"])


def test_tensorboard_shows_what_was_recorded(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path, config(seeds=(3, 5)))
    rows = run.read_metrics()
    scalars = {name for name in rows[0] if name != "step" and not name.startswith(("rate_unit_nats/", "twin_"))}
    scalars |= {"burda_active_units/z1", "burda_active_units/z2"}
    assert {"bound_nats", "distortion_nats", "rate_nats/z2", "active_units/z1", "beta"} <= scalars
    for replica, seed in enumerate((3, 5)):
        (file,) = (run.path / "tensorboard" / f"seed-{seed}").iterdir()
        events = EventAccumulator(str(file)).Reload()
        assert set(events.Tags()["scalars"]) == scalars
        for name in scalars:
            source = {"active_units": "twin_active_units", "burda_active_units": "active_units"}
            kind, _, layer = name.partition("/")
            key = f"{source[kind]}/{layer}" if kind in source else name
            expected = [row[key] if key == "beta" else row[key][replica] for row in rows]
            assert [event.step for event in events.Scalars(name)] == [4, 8, 12]
            np.testing.assert_allclose([event.value for event in events.Scalars(name)], expected, rtol=1e-6)
        sizes = {tag: (events.Images(tag)[0].height, events.Images(tag)[0].width) for tag in events.Tags()["images"]}
        assert sizes == {
            "rate per unit over training, blue -1, white 0, red 1 nat": (5 * 6, 3 * 6),  # 5 units, 3 rows of metrics
            "samples from the prior": (4 * 4, 8 * 16),
            "test images": (4 * 4, 8 * 16),
            "reconstructions": (4 * 4, 8 * 16),
        }


def test_the_board_shows_the_count_without_what_a_unit_inherits() -> None:
    row = {"active_units/z1": [8], "active_units/z2": [1], "residual_active_units/z1": [2], "rate_nats/z1": [1.0]}
    assert [tag_of(name, row) for name in row] == [
        "burda_active_units/z1", "active_units/z2", "active_units/z1", "rate_nats/z1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("order", "objective"),
    [("top-down", ObjectiveConfig()), ("bottom-up", ObjectiveConfig()), ("bottom-up", ObjectiveConfig(n_samples=3)),
     ("bottom-up", ObjectiveConfig(name="wake-sleep"))],
)  # fmt: skip
def test_every_row_has_burdas_count_and_the_one_without_what_is_inherited(
    tmp_path: Path, order: str, objective: ObjectiveConfig
) -> None:
    """The name on disk keeps its meaning: `active_units` is Burda's."""
    run = trained(tmp_path, config(replace(MODEL, order=order), objective, n_steps=4))  # type: ignore[arg-type]
    (row,) = run.read_metrics()
    better = "residual" if order == "top-down" else "twin"
    for name, n_units in (("z1", 3), ("z2", 2)):
        for key in (f"active_units/{name}", f"{better}_active_units/{name}"):
            assert all(isinstance(count, int) and 0 <= count <= n_units for count in row[key])
    if order == "bottom-up":
        assert row["active_units/z1"] == row["twin_active_units/z1"]


def test_batch_norm_constants_are_those_of_one_pass_over_the_training_data(tmp_path: Path) -> None:
    """The first normalised layer sees W x of every image once, so its constants do not depend on their order."""
    data, model = toy(), replace(MODEL, batch_norm=(True,))
    for decay in (0.0, 0.5):
        run = trained(tmp_path, config(model, ema_decay=decay), data)
        saved = state(run)
        weights = saved["averaged" if decay else "parameters"]["posterior.network.conditionals.z1.net.0.weight"]
        for replica, made in enumerate(load_trained(run, data).models):
            seen = (data.train.double() @ weights[replica].T.double()).numpy()
            buffers = dict(made.named_buffers())
            for name, expected in (("mean", seen.mean(0)), ("variance", seen.var(0))):
                found = buffers[f"posterior.network.conditionals.z1.net.1.{name}"]
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
                assert torch.equal(found, saved["buffers"][f"posterior.network.conditionals.z1.net.1.{name}"][replica])
            assert not made.training


def test_a_finished_run_is_left_alone_and_quiet_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, config())
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    train(run, toy(), progress=False)
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before
    assert capfd.readouterr() == ("", "")


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 97, but toy has 96 training images; give a smaller"):
        trained(tmp_path, config(batch_size=97))


def test_a_run_without_checkpoint_has_no_models(tmp_path: Path) -> None:
    run = Run.create_or_open(tmp_path, "trial", "new", config())
    with pytest.raises(ConfigError, match="has no checkpoint; train it first"):
        load_trained(run, toy())


# Minibatches


def batches(
    steps: range,
    *,
    seeds: tuple[int, ...] = (3, 5),
    images: Tensor | None = None,
    batch_size: int = 3,
    dynamic: bool = False,
) -> list[Tensor]:
    """The minibatches [R, B, D] of these steps; without images, of ten that hold their own number."""
    data = torch.arange(10.0).unsqueeze(1).expand(-1, N_PIXELS) if images is None else images
    made = config(seeds=seeds, batch_size=batch_size)
    return [batch(data, made, step, dynamic=dynamic) for step in steps]


def test_every_image_is_shown_at_most_once_an_epoch_in_an_order_of_seed_and_epoch() -> None:
    shown = torch.stack(batches(range(9)))[..., 0]  # [step, R, B]: three epochs of 3 batches of 3, of 10 images
    orders = {}
    for epoch, replica in itertools.product(range(3), range(2)):
        seen = shown[3 * epoch : 3 * epoch + 3, replica].flatten().tolist()
        assert len(set(seen)) == 9
        orders[epoch, replica] = tuple(seen)
    assert len(set(orders.values())) == 6
    exact = torch.stack(batches(range(2), batch_size=5))[..., 0]
    assert all(sorted(exact[:, replica].flatten().tolist()) == list(range(10)) for replica in range(2))
    alone = torch.stack(batches(range(9), seeds=(5,)))[..., 0]
    assert torch.equal(alone[:, 0], shown[:, 1])
    assert torch.equal(batches(range(7, 8))[0][..., 0], shown[7])  # whatever came before


def test_dynamic_binarisation_is_drawn_anew_at_every_presentation() -> None:
    grey = torch.linspace(0, 1, 5).view(5, 1).expand(-1, N_PIXELS).contiguous()
    draws = torch.stack(batches(range(0, 400), images=grey, batch_size=5, dynamic=True))  # [step, R, B, D]
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[:, 0], draws[:, 1])
    count = draws.sum((1, 2, 3)) / draws[0].numel()  # mean grey value is 1/2 in every epoch of one batch
    assert_mean(count, 0.5, detect=0.02)
    # each image apart: sort the five by their level, whose order is the permutation's
    made = config(seeds=(3, 5), batch_size=5)
    levels = torch.stack(
        [
            torch.stack([rng.permutation(5, seed=s, purpose="order", step=e) for s in made.training.seeds])
            for e in range(400)
        ]
    )
    by_level = torch.stack([draws[levels == level].mean(-1) for level in range(5)], 1)  # [presentation, level]
    assert_mean(by_level, np.linspace(0, 1, 5), detect=0.06)


# Kills


KILLED = {"n_steps": 120, "checkpoint_every_steps": 7, "log_every_steps": 1, "ema_decay": 0.9}


def go_on(path: str) -> None:
    """What the processes of the next test do: the same command again."""
    torch.set_num_threads(1)
    train(Run.open(Path(path)), toy(dynamic=True), progress=False)


def test_killed_at_any_instant_and_resumed_is_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 of real processes, three times, at moments that differ with every run of this test."""
    configuration = config(replace(MODEL, batch_norm=(True,)), ObjectiveConfig(beta=LinearWarmup(60)), **KILLED)
    whole = trained(tmp_path, configuration, toy(dynamic=True), label="whole")
    run = Run.create_or_open(tmp_path, "trial", "killed", configuration)
    metrics = run.path / "metrics.jsonl"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start() -> BaseProcess:
        process = context.Process(target=go_on, args=(str(run.path),))
        process.start()
        return process

    def saved_steps() -> set[str]:
        return {file.name for file in run.path.glob("checkpoints/step-*.pt")}

    resumed_from = [0]
    for _ in range(3):
        before, process = saved_steps(), start()
        deadline = time.monotonic() + 60
        while not saved_steps() - before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(random.random() * 0.1)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found = latest_checkpoint(run)
        assert found is not None and resumed_from[-1] < found[0] < 120
        resumed_from.append(found[0])
    last = start()
    last.join(timeout=120)
    assert last.exitcode == 0
    assert metrics.read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    assert len(whole.read_metrics()) == 120
    assert_same_state(state(run), state(whole))


def test_blocks_go_on_where_they_were_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both replicas together, while beta rises and weights are averaged."""
    model = ModelConfig(blocks=BlocksConfig("1x1,2m1,4m2", width=8, channels=2))
    goes_on(config(model, ObjectiveConfig(beta=LinearWarmup(8)), ema_decay=0.9), tmp_path, monkeypatch)


def test_replicas_of_blocks_are_those_trained_alone(tmp_path: Path) -> None:
    """To float32 rounding of a few steps, on which Adam has not yet built."""
    model = ModelConfig(blocks=BlocksConfig("1x1,2m1,4m2", width=8, channels=2))
    both, alone = (
        state(trained(tmp_path, config(model, seeds=seeds, n_steps=3, adam_epsilon=1e-2), label=str(seeds)))
        for seeds in ((0, 1), (1,))
    )
    for name, weight in both["parameters"].items():
        torch.testing.assert_close(weight[1], alone["parameters"][name][0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli", "categorical"])
@pytest.mark.parametrize("order", SEEING)
def test_every_order_goes_on_where_it_was_stopped(
    order: Any, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on(config(replace(MODEL, order=order, families=(kind,)), ObjectiveConfig(n_samples=2)), tmp_path, monkeypatch)


def goes_on(configuration: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two checkpoints, and started again: the same state, bit for bit."""
    configuration = replace(configuration, training=replace(configuration.training, checkpoint_every_steps=5))
    whole = state(trained(tmp_path, configuration, label="whole"))
    with monkeypatch.context() as broken:
        broken.setattr(Run, "append_metrics", lambda run, rows: 1 / (rows[0]["step"] < 8))
        with pytest.raises(ZeroDivisionError):
            trained(tmp_path, configuration, label="parts")
    begun = latest_checkpoint(Run.create_or_open(tmp_path, "trial", "parts", configuration))
    assert begun is not None and begun[0] == 5
    assert_same_state(state(trained(tmp_path, configuration, label="parts")), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_in_hand_and_the_same_command_goes_on(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path, config(), label="whole")
    run = Run.create_or_open(tmp_path, "trial", "stopped", config())
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]

    def stopping(images: Tensor, configuration: RunConfig, step: int, **knobs: Any) -> Any:
        if step == 5:
            signal.raise_signal(number)
        return batch(images, configuration, step, **knobs)

    monkeypatch.setattr(training, "batch", stopping)
    with pytest.raises(Interrupted, match="stopped stopped after step 6; the same command goes on from there"):
        train(run, toy(), progress=False)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    found = latest_checkpoint(run)
    assert found is not None and found[0] == 6
    monkeypatch.undo()
    train(run, toy(), progress=False)
    assert_same_state(state(run), state(whole))
    assert (run.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


# Replicas that go non-finite


X_WEIGHT, Z1_WEIGHT = (f"decoder.conditionals.{name}.net.2.weight" for name in ("x", "z1"))


def poisoned(
    root: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[dict[str, Any]], None], *, progress: bool = False
) -> tuple[Run, Run, dict[str, Any]]:
    """A run of 20 steps, and its twin whose second replica is spoilt after step 10; both ran, and the spoilt state."""
    every = {"n_steps": 20, "checkpoint_every_steps": 10, "log_every_steps": 1}
    made = config(replace(MODEL, prior="learned"), seeds=(3, 5, 8), **every)
    clean = trained(root, made, label="clean")
    file = clean.path / "checkpoints" / "step-000000010.pt"
    at_ten = torch.load(file, weights_only=True)["state"]
    spoil(at_ten)
    found = iter([(10, at_ten)])
    monkeypatch.setattr(training, "latest_checkpoint", lambda run, device="cpu": next(found))
    run = Run.create_or_open(root, "trial", "poisoned", made)
    kept = {name: value.clone() for name, value in at_ten["parameters"].items()}
    train(run, toy(), progress=progress)
    monkeypatch.undo()
    return clean, run, kept


@pytest.mark.parametrize(
    ("name", "value", "culprit"),
    [
        (X_WEIGHT, 3e38, "the distortion of x"),
        (Z1_WEIGHT, 3e38, "the rate of z1"),
        ("decoder.conditionals.z2.net.outputs", 3e38, "the rate of z2"),
        (X_WEIGHT, 1e30, "the gradient of "),
    ],
)
def test_a_replica_that_goes_non_finite_is_stopped_named_and_frozen_and_the_others_go_on(
    name: str, value: float, culprit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, run, before = poisoned(tmp_path, monkeypatch, lambda s: s["parameters"][name][1].fill_(value))
    saved, expected = state(run), state(clean)
    for parameter, found in saved["parameters"].items():
        assert found.isfinite().all()
        assert torch.equal(found[1], before[parameter][1])  # where it was, though Adam had momentum
        for replica in (0, 2):
            assert torch.equal(found[replica], expected["parameters"][parameter][replica])
    assert saved["health"]["alive"].tolist() == [True, False, True] and expected["health"]["alive"].all()
    health = Health(3, ("z1", "z2", "x"), tuple(saved["parameters"]), "cpu")
    health.load(saved["health"])
    (sentence,) = health.news((3, 5, 8))
    assert sentence.startswith(f"seed 5 became non-finite at step 11 in {culprit}")
    assert health.news((3, 5, 8)) == []
    for row, other in zip(run.read_metrics(), clean.read_metrics()[10:], strict=True):
        for key in ("bound_nats", "loss_nats", "distortion_nats"):
            assert [row[key][r] for r in (0, 2)] == [other[key][r] for r in (0, 2)]
    assert json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 11


def test_a_replica_that_was_stopped_stays_stopped_when_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(saved: dict[str, Any]) -> None:
        saved["health"]["alive"][1], saved["health"]["died_at"][1] = False, 7

    _, run, before = poisoned(tmp_path, monkeypatch, stop)
    saved = state(run)
    assert saved["health"]["alive"].tolist() == [True, False, True]
    assert saved["health"]["died_at"].tolist() == [-1, 7, -1]
    assert all(torch.equal(value[1], before[name][1]) for name, value in saved["parameters"].items())


def test_the_news_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(tmp_path, monkeypatch, lambda s: s["parameters"][Z1_WEIGHT][1].fill_(3e38))
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "seed 5 became non-finite at step 11 in the rate of z1, first in the net decoder.conditionals.z1.net.2 and was "
        "stopped; the other seeds go on."
    ]


def test_health_names_the_gradient_and_remembers_the_first_step() -> None:
    health = Health(2, ("z1", "x"), ("a", "b"), "cpu")
    fine, ones = {"rate_nats/z1": torch.zeros(2), "distortion_nats": torch.ones(2)}, torch.ones(2, 2)
    health.check(4, torch.ones(2), fine, ones)
    assert health.news((0, 1)) == [] and health.alive.all()
    health.check(5, torch.ones(2), fine, torch.tensor([[1.0, 1.0], [1.0, math.inf]]))
    health.check(6, torch.tensor([1.0, math.nan]), fine, torch.tensor([[1.0, math.nan], [1.0, math.nan]]))
    assert health.alive.tolist() == [True, False]
    assert health.news((7, 9)) == [
        "seed 9 became non-finite at step 6 in the gradient of b and was stopped; the other seeds go on."
    ]
    health.check(7, torch.tensor([math.nan, 1.0]), fine, ones)
    assert health.alive.tolist() == [False, False] and health.culprit(0) == "the loss"
    copy = Health(2, ("z1", "x"), ("a", "b"), "cpu")
    copy.load(health.state())
    assert copy.died_at.tolist() == [8, 6] and copy.culprit(1) == "the gradient of b"
