"""From configuration to objects: shapes, knobs of single layers, the start at the data's mean, refusals."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from hvae.data import Dataset
from hvae.errors import ConfigError
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
from hvae.lab.assembly import build_hvae, build_objective, check_observation, latent_names
from hvae.lab.config import ModelConfig, ObjectiveConfig, RunConfig
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


@pytest.mark.parametrize(
    ("order", "parents"),
    [("bottom-up-x", [("x",), ("z1", "x"), ("z2", "x")]), ("mean-field", [("x",), ("x",), ("x",)])],
)
def test_layers_that_see_x_take_it_through_the_widths_below(order: str, parents: list[tuple[str, ...]]) -> None:
    """The decoder does not know of the order; the first layer, and its initial weights, are those of every order."""
    model, plain = (build_hvae(replace(CONFIG, order=name), dataset(), seed=0) for name in (order, "bottom-up"))  # type: ignore[arg-type]
    up = upward(model)
    assert isinstance(model.posterior, NetworkPosterior) and model.posterior.order == ("z1", "z2", "z3")
    assert [up[name].parents for name in model.latents] == parents
    n_in = [6, 10, 9] if order == "bottom-up-x" else [6, 6, 6]
    assert [widths(up[name].net) for name in model.latents] == [
        [(6, 8), (8, 7), (7, 8)],
        [(n_in[1], 8), (8, 7), (7, 5), (5, 6)],
        [(n_in[2], 8), (8, 7), (7, 5), (5, 4)],
    ]
    assert widths(model.decoder) == widths(plain.decoder)
    assert torch.equal(up["z1"].net[0].weight, upward(plain)["z1"].net[0].weight)


def test_the_shared_ladder_is_the_ladder_with_its_top_merged() -> None:
    """The same modules with the same weights; of N(0, I) the merged top has precision 1 more."""
    config = replace(CONFIG, latent_variance="network")
    plain, merged = (
        build_hvae(replace(config, order=name), dataset(), seed=0) for name in ("top-down", "top-down-shared")
    )  # type: ignore[arg-type]
    assert isinstance(merged.posterior, Ladder)
    for key, value in plain.state_dict().items():
        assert torch.equal(merged.state_dict()[key], value)
    x, noise = (
        dataset().test.unsqueeze(0),
        {name: torch.zeros(1, 10, n) for name, (_, n) in plain.noise_specs().items()},
    )
    own, both = (model.infer(x, noise)["z3"].distribution for model in (plain, merged))
    torch.testing.assert_close(1 / both.variance, 1 / own.variance + 1)
    torch.testing.assert_close(both.mean / both.variance, own.mean / own.variance)


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


@pytest.mark.parametrize("name", ["full-gaussian", *RICH])
def test_the_encoder_may_have_distributions_of_its_own(name: str) -> None:
    plain = name.removeprefix("autoregressive-").removeprefix("full-")
    plain = plain if plain in ("bernoulli", "categorical") else "gaussian"
    config = replace(CONFIG, families=(plain,), encoder_families=(name,))  # type: ignore[arg-type]
    model, same = (
        build_hvae(config, dataset(), seed=0),
        build_hvae(
            replace(config, encoder_families=(plain,)),
            dataset(),
            seed=0,  # type: ignore[arg-type]
        ),
    )
    kind = RICH[name][0] if name in RICH else FullGaussian
    assert [type(upward(model)[z].family) for z in ("z1", "z2", "z3")] == [kind] * 3
    names = ("z3", "z2", "z1", "x")
    assert [type(model.decoder[v].family) for v in names] == [type(same.decoder[v].family) for v in names]
    empty = build_hvae(replace(config, encoder_families=()), dataset(), seed=0).state_dict()
    assert all(torch.equal(value, empty[key]) for key, value in same.state_dict().items())


@pytest.mark.parametrize(
    ("families", "encoder", "words"),
    [
        (
            ("gaussian",),
            ("bernoulli",),
            "bernoulli for z1, whose values are binary, but model.families has gaussian",
        ),
        (("gaussian", "bernoulli", "maf"), ("nsf", "autoregressive-bernoulli", "categorical"), "categorical for z3"),
        (
            ("categorical",),
            ("autoregressive-bernoulli",),
            "whose values are categorical; give distributions of the same kind.",
        ),
        (("gaussian",), ("maf", "nsf"), "model.encoder_families has 2 entries for 3 latent layers"),
    ],
)
def test_distributions_of_other_values_are_refused(families: Any, encoder: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ModelConfig(families=families, encoder_families=encoder)


def test_a_ladder_refuses_rich_encoders_and_bernoulli_their_knobs() -> None:
    with pytest.raises(ConfigError, match=r"model.encoder_families has maf in a top-down ladder"):
        ModelConfig(order="top-down", encoder_families=("maf",))
    bernoulli = ModelConfig(families=("bernoulli",), encoder_families=("autoregressive-bernoulli",))
    with pytest.raises(ConfigError, match="leave-one-out baseline of autoregressive-bernoulli layers"):
        RunConfig(model=bernoulli)
    two = ObjectiveConfig(n_samples=2)
    with pytest.raises(ConfigError, match="all layers are discrete"):
        RunConfig(model=bernoulli, objective=replace(two, gradient="sticking-the-landing"))
    with pytest.raises(ConfigError, match=r"batch_norm is on beside bernoulli layers.*its gradient is biased"):
        RunConfig(model=ModelConfig(families=("gaussian", "gaussian", "bernoulli"), batch_norm=(True,)), objective=two)
    with pytest.raises(ConfigError, match="latent_variance is fixed, but each component"):
        ModelConfig(encoder_families=("mixture",), latent_variance="fixed")


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
    with pytest.raises(
        ConfigError, match=f"model.families has {name} in a top-down ladder, but its precision-weighted"
    ):
        ModelConfig(order="top-down", families=("gaussian", name, "bernoulli"))  # type: ignore[arg-type]


def test_other_knobs_that_go_with_no_such_distribution_are_refused() -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"families": ("mixture",), "latent_variance": "fixed"}, "latent_variance is fixed, but each component"),
        ({"observation": "discretised-logistic", "observation_variance": "fixed"}, "no one scale"),
        ({"observation": "discretised-logistic", "observation_variance": "shared"}, "is for a gaussian observation"),
        (
            {"observation": "gaussian", "observation_start": 0.0},
            "model.observation_start is 0.0; give 1e-12 to",
        ),
        ({"observation_start": 0.1}, "model.observation is bernoulli .*; leave it at 1."),
        (
            {"observation": "gaussian", "observation_variance": "network", "observation_start": 0.1},
            "model.observation_variance network; leave it at 1.",
        ),
        ({"n_masked": 0}, "model.n_masked is 0; give 1 to 1000000."),
        ({"n_transforms": -1}, "model.n_transforms is -1"),
        ({"n_components": 0}, "model.n_components is 0"),
        ({"observation_components": 0}, "model.observation_components is 0; give 1 to 1000."),
        ({"n_levels": 1}, "model.n_levels is 1; give 2 to 65536"),
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
        distribution = made.decoder["x"]({"z1": torch.zeros(1, 1, 4)})
        assert isinstance(made.decoder["x"].family, DiagonalGaussian) and distribution.mean.shape == (1, 1, 6)


def test_where_the_variance_of_a_gaussian_observation_starts() -> None:
    z1 = {"z1": torch.zeros(1, 1, 4)}
    for variance, n_learned in (("learned", 6), ("shared", 1), ("fixed", 0)):
        config = replace(CONFIG, observation="gaussian", observation_variance=variance, observation_start=0.25)  # type: ignore[arg-type]
        found = build_hvae(config, dataset("grey"), seed=0).decoder["x"]
        torch.testing.assert_close(found(z1).variance, torch.full((1, 1, 6), 0.25))
        assert sum(parameter.numel() for parameter in found.family.parameters()) == n_learned


@pytest.mark.parametrize("observation_variance", ["learned", "network"])
def test_training_starts_from_the_mean_of_the_data(observation_variance: str) -> None:
    data = dataset()
    bernoulli = build_hvae(CONFIG, data, seed=0).decoder["x"]
    p = data.train.mean(0)
    assert p[0] == 0 and p[5] == 1
    expected = torch.tensor([-5, *(torch.log(p / (1 - p)).clamp(-5, 5)[1:5].tolist()), 5])
    torch.testing.assert_close(bernoulli.net[-1].bias.detach(), expected, rtol=1e-4, atol=1e-5)
    grey = dataset("grey")
    config = replace(CONFIG, observation="gaussian", observation_variance=observation_variance)  # type: ignore[arg-type]
    bias = build_hvae(config, grey, seed=0).decoder["x"].net[-1].bias
    torch.testing.assert_close(bias[:6].detach(), grey.train.mean(0))
    assert (bias[6:] == 0).all()
    others = [layer.bias for layer in bernoulli.net[:-1] if isinstance(layer, nn.Linear)]
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
def test_a_distribution_that_cannot_have_made_the_data_is_refused(
    observation: str, kind: str, name: str, remedy: str
) -> None:
    config = replace(CONFIG, observation=observation)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as refusal:
        build_hvae(config, dataset(kind, name), seed=0)
    assert remedy in str(refusal.value) and str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_fitting_distributions_pass() -> None:
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


# Nets, skips and cures


def test_a_skip_decoder_sees_all_layers_above() -> None:
    for order in ("bottom-up", "top-down"):
        model = build_hvae(replace(CONFIG, generative_skips=True, order=order), dataset(), seed=0)  # type: ignore[arg-type]
        parents = [model.decoder[name].parents for name in ("z3", "z2", "z1", "x")]
        assert parents == [(), ("z3",), ("z2", "z3"), ("z1", "z2", "z3")]
        assert [widths(model.decoder[name].net)[0][0] for name in ("z2", "z1", "x")] == [2, 5, 9]
        noise = {name: torch.zeros(2, 10, n) for name, (_, n) in model.noise_specs().items()}
        evidence = model(dataset().test.unsqueeze(0), noise)
        assert evidence.log_weight.shape == (2, 10)
        assert [evidence.closed_form(name) for name in ("z1", "z2", "z3")] == [order == "top-down"] * 2 + [True]


@pytest.mark.parametrize("shape", [(9, 7), (3, 3, 7), (3, 7, 3)])
@pytest.mark.parametrize("variance", ["learned", "network"])
def test_a_convolutional_stack(variance: str, shape: tuple[int, ...]) -> None:
    grey = dataset("grey")
    grey = replace(grey, train=torch.rand(20, 63), test=torch.rand(5, 63), image_shape=shape)
    config = ModelConfig(
        latents=(4, 3), hidden=((8,), (5,)), nets=("convolutional", "residual"), channels=(2, 3),
        observation="gaussian", observation_variance=variance,  # type: ignore[arg-type]
    )  # fmt: skip
    model = build_hvae(config, grey, seed=0)
    distribution = model.decoder["x"]({"z1": torch.zeros(2, 5, 4)})
    assert distribution.mean.shape == (2, 5, 63)
    bias = model.decoder["x"].net[-1].bias.detach()
    torch.testing.assert_close(bias[:63], grey.train.mean(0))
    assert (bias[63:] == 0).all() and len(bias) == (126 if variance == "network" else 63)
    noise = {name: torch.randn(2, 5, n) for name, (_, n) in model.noise_specs().items()}
    model(grey.test.unsqueeze(0), noise).log_weight.mean().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in model.parameters())
    again = build_hvae(config, grey, seed=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_convolutions_over_what_is_no_image_are_refused() -> None:
    config = replace(CONFIG, nets=("convolutional", "mlp", "mlp"))
    for data, words in (
        (replace(dataset(), image_shape=(6,)), "toy holds rows of 6 numbers and no images; use mlp or residual."),
        (dataset(), r"model.channels is \[16, 32\], which halves the 2 x 3 images of toy 2 times, beyond one pixel"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_hvae(config, data, seed=0)


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_the_cures_hold_the_top_off_the_prior(order: str) -> None:
    """floor: KL(q(zL|·) ‖ N(0, I)) >= floor for each x; spread γ: its mean >= Σ_i γ² v_i / (v_i + 1e-5) / 2."""
    data = dataset()
    for seed in range(3):
        floored = build_hvae(replace(CONFIG, order=order, floor_nats=1.7), data, seed=seed).double()  # type: ignore[arg-type]
        spread = build_hvae(replace(CONFIG, order=order, normalised_means=(0.5,)), data, seed=seed).double()  # type: ignore[arg-type]
        for model in (floored, spread):
            with torch.no_grad():
                for value in model.posterior.parameters():
                    value.mul_(3.0)
            noise = {name: torch.randn(8, 50, n).double() for name, (_, n) in model.noise_specs().items()}
            came: list[torch.Tensor] = []
            if model is spread:
                norm = upward(model)["z3"].net[-1].norm
                norm.register_forward_pre_hook(lambda _, inputs, came=came: came.append(inputs[0].detach()))
            q = model.infer(data.train.double().unsqueeze(0), noise)["z3"]
            mean, log_v = q.distribution.mean, q.distribution.log_variance
            found = ((mean.square() + log_v.exp() - 1 - log_v) / 2).sum(-1)
            if model is floored:
                assert found.min() >= 1.7 - 1e-12
            else:
                v = came[0].flatten(end_dim=-2).var(0, unbiased=False)
                least = (0.25 * v / (v + 1e-5)).sum() / 2
                assert found.mean() >= least > 0.2
                square = norm.shift.square() + 0.25 * v / (v + 1e-5)
                torch.testing.assert_close(mean.square().flatten(end_dim=-2).mean(0), square, atol=1e-10, rtol=0)


BAD_CURES: list[tuple[dict[str, Any], str]] = [
    (
        {"nets": ("convolutional",)},
        "model.nets is convolutional for z2 and z3, whose parent is no image; give it for z1",
    ),
    (
        {"normalised_means": (0.5,), "families": ("gaussian", "bernoulli", "gaussian")},
        "0.5 for z2, but its distribution in the",
    ),
    (
        {"floor_nats": 1.0, "order": "top-down-shared"},
        "in order top-down-shared the top distribution is no plain output",
    ),
    (
        {"floor_nats": 1.0, "families": ("gaussian", "gaussian", "full-gaussian")},
        "the encoder's distribution is full-gaussian",
    ),
    ({"floor_nats": 1.0, "latent_variance": "learned"}, "with model.latent_variance learned and model.prior standard"),
    ({"floor_nats": 1.0, "prior": "learned"}, "and model.prior learned; use gaussian, network and standard."),
    ({"floor_nats": 16.5}, "model.floor_nats is 16.5, more than 8 for each of the 2 units of the top layer"),
]


@pytest.mark.parametrize(("knobs", "words"), BAD_CURES, ids=lambda value: str(value)[:50])
def test_cures_and_nets_that_go_with_no_such_layer_are_refused(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        replace(CONFIG, **knobs)
    assert words in str(refusal.value) and "\n" not in str(refusal.value) and str(refusal.value).endswith(".")
