"""Every objective with every gradient on every kind of layer: it works, or it is refused with the reason."""

import itertools
from typing import Any, get_args

import pytest
import torch

from hvae import rng
from hvae.errors import ConfigError
from hvae.lab.assembly import build_hvae, build_objective, relax
from hvae.lab.config import ModelConfig, ObjectiveConfig, RunConfig
from hvae.lab.config.objective import Gradient, ObjectiveName
from tests.test_training import toy

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
            "z1, but a law of full-gaussian has no rate per unit",
        ),
        ({"unit_free_nats": [0, 0.1]}, {"encoder_families": ["gaussian", "maf"]}, "z2, but a law of maf has no rate"),
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


@pytest.mark.parametrize("layers", [[3], [0], [1, 1]])
def test_aggressive_layers_are_layers(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match="give layers from 1 to 2, each once"):
        RunConfig.from_dict(
            {"training": {"aggressive_steps": 5, "aggressive_layers": layers}, "model": {"latents": [3, 2]}}
        )
    with pytest.raises(ConfigError, match=r"training\.aggressive_steps is 0; give the number"):
        RunConfig.from_dict({"training": {"aggressive_layers": [1]}})
