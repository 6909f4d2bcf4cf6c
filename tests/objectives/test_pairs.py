"""Every objective with every gradient on every kind of layer: it works, or it is refused with the reason."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from hvae import rng
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.fitting import fit
from hvae.gradients import fill_in
from hvae.lab.assembly import build_hvae, build_objective, relax
from hvae.lab.config import RELAXED, ModelConfig, ObjectiveConfig, RunConfig
from hvae.lab.config.objective import Gradient, ObjectiveName
from hvae.lab.runs.run import Run
from hvae.lab.training.loop import train
from hvae.network import BeliefNetwork
from hvae.objectives import (
    Covariance,
    DoublyReparametrised,
    Elbo,
    Iwae,
    Objective,
    ReweightedWakeSleep,
    StickingTheLanding,
    SymmetricEquilibrium,
    Tvo,
    UnsuitedError,
    WakeSleep,
)
from hvae.posterior import NetworkPosterior
from tests.lab.training.test_loop import toy

LAYERS = {
    "gaussian": ["gaussian", "gaussian"],
    "bernoulli": ["bernoulli", "bernoulli"],
    "categorical": ["categorical", "categorical"],
    "mixed": ["bernoulli", "gaussian"],
}
ALL, DISCRETE, PATHS = set(LAYERS), {"bernoulli", "categorical", "mixed"}, {"gaussian", "mixed"}
WORKS: dict[tuple[str, str], set[str]] = {
    ("elbo", "pathwise"): ALL,
    ("elbo", "sticking-the-landing"): PATHS,
    ("elbo", "relaxed"): DISCRETE,
    ("elbo", "straight-through"): DISCRETE,
    ("iwae", "pathwise"): ALL,
    ("iwae", "doubly-reparametrised"): {"gaussian"},
    ("iwae", "relaxed"): DISCRETE,
    ("iwae", "straight-through"): DISCRETE,
    ("vimco", "pathwise"): DISCRETE,
    ("tvo", "pathwise"): ALL,
    ("tvo", "covariance"): ALL,
    ("wake-sleep", "pathwise"): ALL,
    ("reweighted-wake-sleep", "pathwise"): ALL,
    ("symmetric", "pathwise"): ALL,
}
"""what is not here is refused"""
REASONS = {
    "sticking-the-landing": ("biased for the iwae bound", "not made for", "no path leads through their draws"),
    "doubly-reparametrised": ("made for the iwae bound", "not made for", "do not allow", "no path leads"),
    "covariance": ("not made for",),
    "relaxed": ("not made for", "is for discrete layers"),
    "straight-through": ("not made for", "is for discrete layers"),
    "pathwise": ("whose baseline is for discrete layers",),
}
PAIRS = list(itertools.product(get_args(ObjectiveName), get_args(Gradient), LAYERS))


@pytest.mark.parametrize(("name", "gradient", "layers"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_every_pair_works_or_is_refused(name: Any, gradient: Any, layers: str) -> None:
    values: dict[str, Any] = {"objective": {"name": name, "gradient": gradient, "n_samples": 2}}
    values["model"] = {"latents": [3, 2], "hidden": [[4]], "families": LAYERS[layers]}
    if layers not in WORKS.get((name, gradient), set()):
        with pytest.raises(ConfigError) as refused:
            RunConfig.from_dict(values)
        assert any(reason in str(refused.value) for reason in REASONS[gradient]), str(refused.value)
        return
    config = RunConfig.from_dict(values)
    model = relax(build_hvae(config.model, toy(), seed=0), config.objective).train()
    objective = build_objective(config.objective, model.latents)
    noise = rng.noise(objective.noise_specs(model), 2, 5, seed=0, purpose="test")
    loss, evidence = objective.on(model, toy().train[:5].unsqueeze(0), noise, 0)
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    assert loss.isfinite() and all(part.isfinite().all() for part in gradients)
    owners: dict[str, float] = {}
    for owner, part in zip(model.owners.values(), gradients, strict=True):
        owners[owner] = max(owners.get(owner, 0.0), part.abs().max().item())
    assert owners.keys() == {"z1", "z2", "decoder"} and min(owners.values()) > 0
    assert len(evidence.log_weight) == 2


def in_python(name: str, gradient: str) -> Objective:
    """The objective as a user of Python writes it down; the relaxed gradients are a matter of the model."""
    players: dict[str, Callable[[], Objective]] = {
        "wake-sleep": WakeSleep,
        "reweighted-wake-sleep": ReweightedWakeSleep,
        "symmetric": SymmetricEquilibrium,
    }
    losses = {"elbo": Elbo, "iwae": Iwae, "vimco": lambda: Iwae(baseline=fill_in), "tvo": lambda: Tvo((0.0, 0.3))}
    made: Any = (players | losses)[name]()
    around: dict[str, Any] = {
        "sticking-the-landing": StickingTheLanding,
        "doubly-reparametrised": DoublyReparametrised,
        "covariance": Covariance,
    }
    objective = around[gradient](made) if gradient in around else made
    assert isinstance(objective, Objective)
    return objective


@pytest.mark.parametrize(("name", "gradient", "layers"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_python_refuses_the_same_pairs(name: str, gradient: Any, layers: str) -> None:
    """When asked, and at the first call; without any configuration of the objective."""
    kinds = tuple(LAYERS[layers])
    model = build_hvae(ModelConfig(latents=(3, 2), hidden=((4,),), families=kinds), toy(), seed=0).train()  # type: ignore[arg-type]

    def asked() -> None:
        """Everything up to the question."""
        relax(model, ObjectiveConfig(gradient=gradient if gradient in RELAXED else "pathwise", n_samples=2))
        in_python(name, gradient).refuse(model)

    if layers in WORKS.get((name, gradient), set()):
        asked()
        return
    with pytest.raises(UnsuitedError) as refused:
        asked()
    assert "; " in str(refused.value) and "\n" not in str(refused.value) and str(refused.value).endswith(".")
    with pytest.raises(UnsuitedError) as called:
        relax(model, ObjectiveConfig(gradient=gradient if gradient in RELAXED else "pathwise", n_samples=2))
        objective = in_python(name, gradient)
        noise = rng.noise(objective.noise_specs(model), 2, 5, seed=0, purpose="test")
        objective.on(model, toy().train[:5].unsqueeze(0), noise, 0)
    assert str(called.value) == str(refused.value)


KNOBS: dict[str, dict[str, Any]] = {
    "batch norm": {"batch_norm": (True,)},
    "batch norm of one layer": {"batch_norm": (False, True)},
    "normalised means": {"normalised_means": (1.0, 0.0), "families": ("gaussian", "bernoulli")},
    "normalised means of Gaussians": {"normalised_means": (1.0,)},
    "batch norm beside Bernoulli": {"batch_norm": (True,), "families": ("bernoulli",)},
    "vamp": {"prior": "vamp"},
    "autoregressive Bernoulli": {"families": ("autoregressive-bernoulli", "bernoulli")},
    "a rich encoder": {"encoder_families": ("maf", "gaussian")},
    "full covariance": {"families": ("gaussian", "full-gaussian")},
    "Bernoulli": {"families": ("bernoulli",)},
    "a ladder": {"order": "top-down"},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    f"{name} {gradient}": {"name": name, "gradient": gradient} for name, gradient in WORKS
} | {
    "free nats": {"free_nats": (0.0, 0.1)},
    "relaxed free nats": {"free_nats": (0.1,), "gradient": "straight-through"},
    "free nats of z1's units": {"unit_free_nats": (0.1, 0.0)},
    "free nats of z2's units": {"unit_free_nats": (0.0, 0.1)},
}


NORMED = {"batch norm", "batch norm of one layer", "normalised means of Gaussians"}
NORMED_BESIDE_BERNOULLI = {"normalised means", "batch norm beside Bernoulli"}
BERNOULLI = {"Bernoulli", "autoregressive Bernoulli", "batch norm beside Bernoulli"}
NO_BERNOULLI = NORMED | {"vamp", "a rich encoder", "full covariance", "a ladder"}
GAME = NORMED | NORMED_BESIDE_BERNOULLI | {"vamp"}
NOT_RELAXED = NO_BERNOULLI | {"autoregressive Bernoulli"}
REFUSED: dict[str, set[str]] = {
    "elbo pathwise": NORMED_BESIDE_BERNOULLI,
    "elbo sticking-the-landing": NORMED_BESIDE_BERNOULLI | BERNOULLI,
    "elbo relaxed": NOT_RELAXED,
    "elbo straight-through": NOT_RELAXED,
    "iwae pathwise": NORMED_BESIDE_BERNOULLI,
    "iwae doubly-reparametrised": NORMED | NORMED_BESIDE_BERNOULLI | BERNOULLI,
    "iwae relaxed": NOT_RELAXED,
    "iwae straight-through": NOT_RELAXED,
    "vimco pathwise": NO_BERNOULLI | NORMED_BESIDE_BERNOULLI,
    "tvo pathwise": NORMED_BESIDE_BERNOULLI,
    "tvo covariance": NORMED | NORMED_BESIDE_BERNOULLI,
    "wake-sleep pathwise": GAME,
    "reweighted-wake-sleep pathwise": GAME,
    "symmetric pathwise": GAME,
    "free nats": NORMED_BESIDE_BERNOULLI | BERNOULLI,
    "relaxed free nats": NOT_RELAXED,
    "free nats of z1's units": NORMED_BESIDE_BERNOULLI | BERNOULLI | {"a rich encoder"},
    "free nats of z2's units": NORMED_BESIDE_BERNOULLI | BERNOULLI | {"vamp", "full covariance"},
}


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_python_refuses_the_models_that_the_command_refuses(knob: str, objective: str) -> None:
    """One rule for both: an objective and a model are built by hand, and refused exactly where a run of them is."""
    model_config = ModelConfig(latents=(3, 2), hidden=((4,),), **KNOBS[knob])
    settings = ObjectiveConfig(n_samples=2, **OBJECTIVES[objective])
    said = ""
    try:
        RunConfig(model=model_config, objective=settings)
    except ConfigError as error:
        said = str(error)
    assert bool(said) == (knob in REFUSED[objective]), said
    model = build_hvae(model_config, toy(), seed=0).train()

    def put() -> None:
        relax(model, settings)
        build_objective(settings, model.latents).refuse(model)

    if not said:
        put()
        return
    with pytest.raises(UnsuitedError) as refused:
        put()
    same = {"biased", "no path leads", "do not allow", "one by one", "each player", "of dreams", "has no rate per unit",
            "is for discrete layers", "one after another", "move the gates"}  # fmt: skip
    assert {words for words in same if words in said} == {words for words in same if words in str(refused.value)}


def test_the_command_and_the_loop_ask_too(tmp_path: Path) -> None:
    """A run that slipped through the configuration is refused before its first step, as bad input is."""
    values = {"model": {"latents": [2], "hidden": [[4]], "batch_norm": [True]}, "training": {"batch_size": 8}}
    config = RunConfig.from_dict(values)
    run = Run.create_or_open(tmp_path, "trial", "slipped", config)
    run.config.objective.__dict__.update(name="iwae", n_samples=2, gradient="doubly-reparametrised")  # past its checks
    with pytest.raises(ConfigError, match="with batch norm a draw moves the weights of all others"):
        train(run, toy(), progress=False)
    assert not list(run.path.rglob("*.pt")) and run.read_metrics() == []
    with pytest.raises(UnsuitedError):
        model = build_hvae(config.model, toy(), seed=0)
        fit(model, build_objective(run.config.objective, model.latents), [toy().train], n_steps=1)


def test_constants_of_evaluation_are_no_batch_statistics() -> None:
    """Batch norm in evaluation moves no other draw; the answer is that of the mode in which it is asked."""
    model = build_hvae(ModelConfig(latents=(2,), hidden=((4,),), batch_norm=(True,)), toy(), seed=0)
    objective = DoublyReparametrised(Iwae())
    noise = rng.noise(model.noise_specs(), 2, 5, seed=0, purpose="test")
    x = toy().train[:5].unsqueeze(0)
    objective.on(model.eval(), x, noise, 0)
    with pytest.raises(UnsuitedError, match="with batch norm a draw moves the weights"):
        objective.on(model.train(), x, noise, 0)
    torch_norm = HVAE(model.decoder, model.posterior)
    torch_norm.posterior.add_module("norm", torch.nn.BatchNorm1d(2))
    for module in model.modules():
        module.training = isinstance(module, torch.nn.BatchNorm1d)
    with pytest.raises(UnsuitedError, match="q of dreams"):
        WakeSleep().refuse(torch_norm)


def test_weights_that_both_players_hold_are_refused() -> None:
    model = build_hvae(ModelConfig(latents=(3, 2), hidden=((4,),)), toy(), seed=0)
    WakeSleep().refuse(model)
    assert isinstance(model.decoder, BeliefNetwork) and isinstance(model.posterior, NetworkPosterior)
    model.decoder["z1"].add_module("shared", model.posterior.network["z2"].net)
    with pytest.raises(UnsuitedError, match="each player moves a distribution of its own"):
        WakeSleep().refuse(model)


def test_it_is_asked_once_for_each_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Elbo, "refuse", lambda self, model: asked.append(id(model)))
    models = [build_hvae(ModelConfig(latents=(2,), hidden=((4,),)), toy(), seed=seed) for seed in (0, 1)]
    objectives = [Elbo(), Elbo()]
    noise = rng.noise(models[0].noise_specs(), 1, 5, seed=0, purpose="test")
    for _ in range(3):
        for model in models:
            for objective in objectives:
                objective.on(model, toy().train[:5].unsqueeze(0), noise, 0)
    assert len(asked) == 4


def test_no_pair_is_forgotten() -> None:
    assert set(WORKS) <= set(itertools.product(get_args(ObjectiveName), get_args(Gradient)))
    assert {name for name, _ in WORKS} == set(get_args(ObjectiveName))
    assert {gradient for _, gradient in WORKS} == set(get_args(Gradient))


def made(objective: dict[str, Any], **model: Any) -> RunConfig:
    return RunConfig.from_dict({"objective": objective, "model": {"latents": [3, 2]} | model})


@pytest.mark.parametrize(
    ("objective", "model", "words"),
    [
        (
            {"gradient": "relaxed"},
            {"families": ["autoregressive-bernoulli"]},
            "one after another from the states before",
        ),
        ({"temperature": 0.2}, {}, "objective.temperature goes with the gradients relaxed and straight-through only"),
        (
            {"unit_free_nats": [0.1]},
            {"families": ["full-gaussian"]},
            "z1, but a distribution of full-gaussian has no rate per unit",
        ),
        (
            {"unit_free_nats": [0, 0.1]},
            {"encoder_families": ["gaussian", "maf"]},
            "z2, but a distribution of maf has no rate",
        ),
        ({"unit_free_nats": [0.1]}, {"prior": "vamp"}, "a vamp prior has no rate per unit"),
        ({"unit_free_nats": [0, 0.1], "free_nats": [0.1]}, {}, "are both above 0 for z2; give one"),
        ({"free_nats": [0.1], "n_samples": 2}, {"families": ["bernoulli"]}, "move the gates of a whole batch"),
        (
            {"n_samples": 2},
            {"families": ["bernoulli", "gaussian"], "normalised_means": [0, 1]},
            "model.normalised_means is on beside bernoulli layers",
        ),
        ({"unit_free_nats": [0.1], "gradient": "sticking-the-landing"}, {}, "objective.unit_free_nats is [0.1], and"),
    ],
)
def test_what_does_not_go_together_is_refused(objective: dict[str, Any], model: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        made(objective, **model)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_one_relaxed_sample_is_enough_and_a_layer_may_have_either_kind_of_free_nats() -> None:
    made({"gradient": "relaxed", "temperature": 0.2}, families=["bernoulli"])
    made({"unit_free_nats": [0, 0.1], "free_nats": [0.5, 0]})
    made({"unit_free_nats": [0, 0.1]}, families=["full-gaussian", "gaussian"])
    assert ObjectiveConfig() == made({}).objective and ModelConfig(latents=(3, 2)) == made({}).model


@pytest.mark.parametrize("layers", [[3], [2, 3], [1, 1]])
def test_aggressive_layers_are_layers(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match="give layers from 1 to 2, each once"):
        RunConfig.from_dict(
            {"training": {"aggressive_steps": 5, "aggressive_layers": layers}, "model": {"latents": [3, 2]}}
        )
    with pytest.raises(ConfigError, match=r"training\.aggressive_steps is 0; give the number"):
        RunConfig.from_dict({"training": {"aggressive_layers": [1]}})
