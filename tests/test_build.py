"""From configuration to objects: shapes, knobs of single layers, the start at the data's mean, refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from hvae.build import build_hvae, build_objective, check_observation, latent_names
from hvae.config import ConfigError, ModelConfig, ObjectiveConfig
from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.families import Bernoulli, Categorical, DiagonalGaussian, FullGaussian
from hvae.nets import BatchNorm, Root
from hvae.objectives import DoublyReparametrised, Elbo, Iwae, StickingTheLanding
from hvae.posterior import Ladder, NetworkPosterior
from hvae.schedules import Constant, LinearWarmup


def dataset(kind: str = "binary", name: str = "toy", dynamic: bool = False) -> Dataset:
    source = torch.Generator().manual_seed(0)
    train = torch.rand(50, 6, generator=source)
    if kind == "binary" and not dynamic:
        train = (train < torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 1.1])).float()
    return Dataset(name, train, train[:10].round(), (2, 3), kind, dynamic)  # type: ignore[arg-type]


CONFIG = ModelConfig(latents=(4, 3, 2), hidden=((8, 7), (5,), ()))


def widths(module: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in module.modules() if isinstance(layer, nn.Linear)]


def upward(model: HVAE) -> Any:
    return model.posterior.upward if isinstance(model.posterior, Ladder) else model.posterior.network


@pytest.mark.parametrize(("order", "kind"), [("bottom-up", NetworkPosterior), ("top-down", Ladder)])
def test_the_decoder_mirrors_the_encoder(order: str, kind: type) -> None:
    model = build_hvae(replace(CONFIG, order=order), dataset(), seed=0)  # type: ignore[arg-type]
    assert isinstance(model.posterior, kind)
    assert model.latents == latent_names(CONFIG) == ("z1", "z2", "z3")
    assert model.decoder.variables == ("z3", "z2", "z1", "x")
    up = upward(model)
    assert [up[name].parents for name in ("z1", "z2", "z3")] == [("x",), ("z1",), ("z2",)]
    parents = [model.decoder[name].parents for name in ("z3", "z2", "z1", "x")]
    assert parents == [(), ("z3",), ("z2",), ("z1",)]
    assert [widths(up[name].net) for name in ("z1", "z2", "z3")] == [
        [(6, 8), (8, 7), (7, 8)], [(4, 5), (5, 6)], [(3, 4)]
    ]  # fmt: skip
    assert isinstance(model.decoder["z3"].net, Root) and not list(model.decoder["z3"].net.parameters())
    assert [widths(model.decoder[name].net) for name in ("z2", "z1", "x")] == [
        [(2, 6)], [(3, 5), (5, 8)], [(4, 7), (7, 8), (8, 6)]
    ]  # fmt: skip
    noise = {name: torch.zeros(2, 10, n) for name, (_, n) in model.noise_specs().items()}
    assert model(dataset().test.unsqueeze(0), noise).log_weight.shape == (2, 10)


def test_every_layer_has_its_own_knobs() -> None:
    config = replace(
        CONFIG,
        families=("bernoulli", "categorical", "full-gaussian"),
        n_classes=5,
        activation=("relu", "elu", "tanh"),
        init=("orthogonal", "kaiming", "xavier"),
        batch_norm=(True, False, False),
    )
    model = build_hvae(config, dataset(), seed=0)
    for network in (upward(model), model.decoder):
        kinds = [type(network[name].family) for name in ("z1", "z2", "z3")]
        assert kinds == [Bernoulli, Categorical, FullGaussian]
        assert (network["z2"].family.units, network["z2"].family.width) == (3, 15)
    for first, second in ((upward(model)["z1"].net, upward(model)["z2"].net),
                          (model.decoder["x"].net, model.decoder["z1"].net)):  # fmt: skip
        assert any(isinstance(layer, nn.ReLU) for layer in first) and any(isinstance(layer, nn.ELU) for layer in second)
        assert any(isinstance(layer, BatchNorm) for layer in first)
        assert not any(isinstance(layer, BatchNorm) for layer in second)
        weight = first[0].weight
        gram = weight @ weight.T if weight.shape[0] < weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)


def test_variances_and_priors() -> None:
    config = replace(CONFIG, latent_variance="learned", prior="learned", observation="gaussian")
    model = build_hvae(config, dataset("grey"), seed=0)
    names = {name for name, _ in model.named_parameters()}
    for network, layers in (("decoder", (1, 2)), ("posterior.network", (1, 2, 3))):
        assert {f"{network}.conditionals.z{i}.family.log_variance" for i in layers} <= names
    assert "decoder.conditionals.x.family.log_variance" in names
    assert "decoder.conditionals.z3.net.outputs" in names
    fixed = build_hvae(replace(config, observation_variance="fixed", prior="standard"), dataset("grey"), seed=0)
    top = fixed.decoder["z3"]({})
    assert top.mean.abs().max() == 0 and (top.variance == 1).all()  # standard, whatever the latents' variance
    assert not {n for n, _ in fixed.named_parameters()} & {
        "decoder.conditionals.x.family.log_variance", "decoder.conditionals.z3.net.outputs"
    }  # fmt: skip
    for variance in ("network", "learned", "fixed"):  # a standard prior is N(0, I) and learns nothing
        standard = build_hvae(replace(CONFIG, latent_variance=variance), dataset(), seed=0).decoder["z3"]  # type: ignore[arg-type]
        assert not list(standard.parameters())
        torch.testing.assert_close(standard({}).variance, torch.ones(2))
    headed = build_hvae(replace(config, observation_variance="network"), dataset("grey"), seed=0)
    assert headed.decoder["x"].net[-1].out_features == 12
    for made in (model, fixed, headed):
        law = made.decoder["x"]({"z1": torch.zeros(1, 1, 4)})
        assert isinstance(made.decoder["x"].family, DiagonalGaussian) and law.mean.shape == (1, 1, 6)


@pytest.mark.parametrize("observation_variance", ["learned", "network"])
def test_training_starts_from_the_mean_of_the_data(observation_variance: str) -> None:
    data = dataset()
    coins = build_hvae(CONFIG, data, seed=0).decoder["x"]
    p = data.train.mean(0)
    assert p[0] == 0 and p[5] == 1
    expected = torch.tensor([-5, *(torch.log(p / (1 - p)).clamp(-5, 5)[1:5].tolist()), 5])
    torch.testing.assert_close(coins.net[-1].bias.detach(), expected, rtol=1e-4, atol=1e-5)
    grey = dataset("grey")
    config = replace(CONFIG, observation="gaussian", observation_variance=observation_variance)  # type: ignore[arg-type]
    bias = build_hvae(config, grey, seed=0).decoder["x"].net[-1].bias
    torch.testing.assert_close(bias[:6].detach(), grey.train.mean(0))
    assert (bias[6:] == 0).all()
    others = [layer.bias for layer in coins.net[:-1] if isinstance(layer, nn.Linear)]
    assert others and all((b == 0).all() for b in others)


def test_seeds_make_models() -> None:
    first, again, other = (build_hvae(CONFIG, dataset(), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all((first[name] != other[name]).all() for name in first if name.endswith("weight"))


@pytest.mark.parametrize(
    ("observation", "kind", "name", "remedy"),
    [
        ("bernoulli", "grey", "mnist-grey", "use model.observation gaussian, or take data.name mnist-dynamic"),
        ("bernoulli", "grey", "own.npy", "binarise the images with data.name own.npy:dynamic"),
        ("bernoulli", "real", "synthetic-linear-2", "holds real values; use model.observation gaussian."),
        ("gaussian", "binary", "toy", "toy holds 0/1 values, where a density has no upper bound; use model"),
    ],
)
def test_a_law_that_cannot_have_made_the_data_is_refused(observation: str, kind: str, name: str, remedy: str) -> None:
    config = replace(CONFIG, observation=observation)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as refusal:
        build_hvae(config, dataset(kind, name), seed=0)
    assert remedy in str(refusal.value) and str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_fitting_laws_pass() -> None:
    check_observation(CONFIG, dataset("binary", dynamic=True))
    for kind in ("grey", "real"):
        check_observation(replace(CONFIG, observation="gaussian"), dataset(kind))


def test_objectives_are_what_was_asked_for() -> None:
    names = ("z1", "z2")
    elbo = build_objective(ObjectiveConfig(beta=LinearWarmup(10), layer_beta=(2.0,), free_nats=(0.5, 0.0)), names)
    assert elbo == Elbo(LinearWarmup(10), {"z1": 2.0, "z2": 2.0}, {"z1": 0.5, "z2": 0.0})
    iwae = build_objective(ObjectiveConfig("iwae", 5, Constant(0.5), (1.0, 3.0)), names)
    assert iwae == Iwae(Constant(0.5), {"z1": 1.0, "z2": 3.0})
    stuck = build_objective(ObjectiveConfig(layer_beta=(1.0, 3.0), gradient="sticking-the-landing"), names)
    assert stuck == StickingTheLanding(Elbo(Constant(1.0), {"z1": 1.0, "z2": 3.0}, {"z1": 0.0, "z2": 0.0}))
    doubly = build_objective(ObjectiveConfig("iwae", 5, Constant(0.5), gradient="doubly-reparametrised"), names)
    assert doubly == DoublyReparametrised(Iwae(Constant(0.5), {"z1": 1.0, "z2": 1.0}))
    with pytest.raises(ConfigError, match="free_nats has 3 entries for 2 latent layers"):
        build_objective(ObjectiveConfig(free_nats=(0.0, 1.0, 2.0)), names)
