"""From configuration to objects: shapes, knobs of single layers, the start at the data's mean, refusals."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from hvae.build import build_hvae, build_objective, check_observation, latent_names
from hvae.config import ConfigError, ModelConfig, ObjectiveConfig, RunConfig
from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.families import (
    Autoregressive,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    DiscretisedLogistic,
    Flow,
    FullGaussian,
    MixtureGaussian,
)
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


RICH = {
    "autoregressive-bernoulli": (Autoregressive, Bernoulli),
    "autoregressive-categorical": (Autoregressive, Categorical),
    "autoregressive-gaussian": (Autoregressive, DiagonalGaussian),
    "mixture": (MixtureGaussian, DiagonalGaussian),
    "maf": (Flow, DiagonalGaussian),
    "nsf": (Flow, DiagonalGaussian),
}


@pytest.mark.parametrize("name", RICH)
def test_rich_layers_stand_in_encoder_and_decoder(name: str) -> None:
    """A standard prior is of the factorised kin, so that nothing in it learns; a learned one is rich too."""
    kind, kin = RICH[name]
    config = replace(CONFIG, families=(name,), n_masked=5, n_transforms=3, n_components=6)  # type: ignore[arg-type]
    model = build_hvae(config, dataset(), seed=0)
    for network, names in ((upward(model), ("z1", "z2", "z3")), (model.decoder, ("z1", "z2"))):
        families = [network[name].family for name in names]
        assert [type(family) for family in families] == [kind] * len(names)
        assert [family.units for family in families] == [4, 3, 2][: len(names)]
        for family in families:
            if isinstance(family, Autoregressive):
                assert type(family.unit) is kin and family.n_outputs == family.unit.n_outputs + 5
            elif isinstance(family, Flow):
                assert len(family.transforms) == 3 and family.n_outputs == 2 * family.units + 5
            else:
                assert family.n_outputs == 6 * (1 + 2 * family.units)
    flows = [isinstance(t.univariate, partial) for t in getattr(upward(model)["z1"].family, "transforms", ())]
    assert flows == ([] if kind is not Flow else [name == "nsf"] * 3)
    top = model.decoder["z3"]
    assert type(top.family) is kin and not list(top.parameters())
    value = top.family.draw(top({}), torch.full((top.family.noise_width,), 0.3))
    torch.testing.assert_close(
        top.family.log_prob(top({}), value), top.family.log_prob(top.family.standard(value), value)
    )
    learned = build_hvae(replace(config, prior="learned"), dataset(), seed=0).decoder["z3"]
    assert type(learned.family) is kind and isinstance(learned.net, Root) and list(learned.net.parameters())
    weights = [build_hvae(config, dataset(), seed=seed).state_dict() for seed in (0, 1)]
    own = [key for key in weights[0] if key.startswith("posterior") and ".family." in key and weights[0][key].any()]
    assert all(torch.equal(model.state_dict()[key], weights[0][key]) for key in weights[0])
    drawn = [key for key in own if not torch.equal(weights[0][key], weights[1][key])]
    assert drawn or kind is MixtureGaussian  # what starts at random starts from the seed


def test_the_variance_of_rich_latents_is_a_knob() -> None:
    for name in ("autoregressive-gaussian", "maf"):
        config = replace(CONFIG, families=(name,), latent_variance="learned")  # type: ignore[arg-type]
        model = build_hvae(config, dataset(), seed=0)
        inner = [key for key, _ in model.named_parameters() if key.endswith(".log_variance")]
        assert len(inner) == 5 and model.decoder["z3"].family.n_outputs == 4


def test_grey_levels() -> None:
    grey = dataset("grey")
    levels = replace(grey, train=(grey.train * 16).round() / 16)
    for variance, n_outputs in (("learned", 6), ("network", 12)):
        config = replace(CONFIG, observation="discretised-logistic", n_levels=17, observation_variance=variance)  # type: ignore[arg-type]
        found = build_hvae(config, levels, seed=0).decoder["x"]
        assert isinstance(found.family, DiscretisedLogistic)
        assert (found.family.n_levels, found.family.n_outputs) == (17, n_outputs)
        torch.testing.assert_close(found.net[-1].bias[:6].detach(), levels.train.mean(0))
        assert (found.net[-1].bias[6:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "n_levels", "words"),
    [
        ("binary", 2, "toy holds binary values; use model.observation bernoulli."),
        ("real", 256, "toy holds real values; use model.observation gaussian."),
        ("grey", 256, "model.n_levels is 256, but toy holds values that are no multiples of 1/255; give the number"),
    ],
)
def test_levels_that_the_data_do_not_have_are_refused(kind: str, n_levels: int, words: str) -> None:
    config = replace(CONFIG, observation="discretised-logistic", n_levels=n_levels)
    with pytest.raises(ConfigError) as refusal:
        build_hvae(config, dataset(kind), seed=0)
    assert words in str(refusal.value) and "\n" not in str(refusal.value) and str(refusal.value).endswith(".")


@pytest.mark.parametrize("name", ["full-gaussian", *RICH])
def test_a_ladder_refuses_what_it_cannot_merge(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model.families has {name} in a top-down ladder, whose precision-weighted"):
        ModelConfig(order="top-down", families=("gaussian", name, "bernoulli"))  # type: ignore[arg-type]


def test_other_knobs_that_go_with_no_such_law_are_refused() -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"families": ("mixture",), "latent_variance": "fixed"}, "latent_variance is fixed, but each component"),
        ({"observation": "discretised-logistic", "observation_variance": "fixed"}, "no one scale"),
        ({"n_masked": 0}, "model.n_masked is 0; give at least 1."),
        ({"n_transforms": -1}, "model.n_transforms is -1"),
        ({"n_components": 0}, "model.n_components is 0"),
        ({"n_levels": 1}, "model.n_levels is 1; give at least 2"),
    ]
    for knobs, words in bad:
        with pytest.raises(ConfigError, match=words):
            ModelConfig(**knobs)
    for name in ("autoregressive-bernoulli", "autoregressive-categorical"):
        model = ModelConfig(families=(name,))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"leave-one-out baseline of {name} layers needs at least 2"):
            RunConfig(model=model)
        RunConfig(model=model, objective=ObjectiveConfig(n_samples=2))
    for name in ("autoregressive-gaussian", "mixture", "maf", "nsf"):
        RunConfig(model=ModelConfig(families=(name,)))  # type: ignore[arg-type]


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
    zero = {"z1": 0.0, "z2": 0.0}
    assert elbo == Elbo(LinearWarmup(10), {"z1": 2.0, "z2": 2.0}, {"z1": 0.5, "z2": 0.0}, zero)
    units = build_objective(ObjectiveConfig(unit_free_nats=(0.5, 0.0)), names)
    assert units == Elbo(Constant(1.0), {"z1": 1.0, "z2": 1.0}, zero, {"z1": 0.5, "z2": 0.0})
    iwae = build_objective(ObjectiveConfig("iwae", 5, Constant(0.5), (1.0, 3.0)), names)
    assert iwae == Iwae(Constant(0.5), {"z1": 1.0, "z2": 3.0})
    stuck = build_objective(ObjectiveConfig(layer_beta=(1.0, 3.0), gradient="sticking-the-landing"), names)
    assert stuck == StickingTheLanding(Elbo(Constant(1.0), {"z1": 1.0, "z2": 3.0}, zero, zero))
    doubly = build_objective(ObjectiveConfig("iwae", 5, Constant(0.5), gradient="doubly-reparametrised"), names)
    assert doubly == DoublyReparametrised(Iwae(Constant(0.5), {"z1": 1.0, "z2": 1.0}))
    with pytest.raises(ConfigError, match="free_nats has 3 entries for 2 latent layers"):
        build_objective(ObjectiveConfig(free_nats=(0.0, 1.0, 2.0)), names)
