"""Other units of a table's columns: the same draws and log-weights, but for a constant. Counts: what they need."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hvae import rng
from hvae.data import Dataset
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.families import DiagonalGaussian, NegativeBinomial, Poisson
from hvae.lab.assembly import build_hvae
from hvae.lab.assembly.checks import MOST
from hvae.lab.assembly.units import standardises, units_remark
from hvae.lab.config import ModelConfig
from hvae.nets import LogCounts, PseudoInputs, Standardised
from hvae.objectives import Elbo

N, D = 60, 5
SOURCE = torch.Generator().manual_seed(0)
Z = torch.randn(N, 2, generator=SOURCE) @ torch.randn(2, D, generator=SOURCE) + torch.randn(N, D, generator=SOURCE) / 2
ONE = torch.ones(D)
UNITS = {"1e-3": 1e-3 * ONE, "1e3": 1e3 * ONE, "one column": torch.tensor([1.0, 1.0, 1e6, 1.0, 1.0])}
GAUSSIAN = ModelConfig(latents=(3, 2), hidden=((8,), (4,)), observation="gaussian", standardise=True)


def table(x: Tensor, kind: Any = "real", shape: tuple[int, ...] = (D,), name: str = "my.npz") -> Dataset:
    return Dataset(name, x[: N - 20], x[N - 20 :], shape, kind, False)


def weighed(model: HVAE, x: Tensor) -> Any:
    drawn = rng.noise(model.noise_specs(), 4, len(x), seed=0, purpose="test", dtype=x.dtype)
    return model(x.unsqueeze(0), drawn)


def in_units(config: ModelConfig, unit: Tensor) -> tuple[HVAE, Tensor]:
    """A model of the data in these units, in float64 with constants of the data in float64, and the data."""
    x = Z.double() * unit.double()
    model = build_hvae(config, table(Z * unit), seed=0).double()
    exact = Standardised.of(x[: N - 20])
    for module in model.modules():
        if isinstance(module, Standardised | DiagonalGaussian) and isinstance(module.scale, Tensor):
            module.shift, module.scale = exact.shift.clone(), exact.scale.clone()
    return model, x[N - 20 :]


ORDERS = ["bottom-up", "bottom-up-x", "mean-field", "top-down", "top-down-shared"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("variance", ["learned", "network"])
@pytest.mark.parametrize("order", ORDERS)
def test_other_units_move_log_weights_by_the_jacobian(order: Any, variance: Any, unit: str) -> None:
    """The same draws of every layer, and the same gradients: so the same training, and the same verdict."""
    config = replace(GAUSSIAN, order=order, observation_variance=variance)
    found = []
    for factor in (ONE, UNITS[unit]):
        model, x = in_units(config, factor)
        evidence = weighed(model, x)
        Elbo()(evidence, 0).backward()
        found.append((evidence, {name: weight.grad for name, weight in model.named_parameters()}))
    (plain, slopes), (other, its) = found
    for name in plain.q:
        torch.testing.assert_close(other.q[name].value, plain.q[name].value, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(other.rate(name), plain.rate(name), rtol=1e-10, atol=1e-10)
    jacobian = UNITS[unit].double().log().sum()
    torch.testing.assert_close(other.log_weight, plain.log_weight - jacobian, rtol=1e-10, atol=1e-10)
    assert slopes.keys() == its.keys() and len(slopes) > 10
    for name, slope in slopes.items():
        torch.testing.assert_close(its[name], slope, rtol=1e-9, atol=1e-9)


def test_without_it_the_draws_move() -> None:
    """What the test above can see: nets that take the numbers of the file as they are."""
    plain, tables = replace(GAUSSIAN, standardise=False), [Z, Z * UNITS["1e3"]]
    draws = [weighed(build_hvae(plain, table(x), seed=0), x[:9]) for x in tables]
    assert not torch.allclose(draws[0].q["z1"].value, draws[1].q["z1"].value, atol=0.1)


def test_log_densities_are_those_of_the_data_in_their_own_units() -> None:
    x = Z.double() * torch.tensor([1.0, 1e3, 1.0, 1e-3, 1.0]).double() + 7
    shift, scale = x.mean(0), x.std(0)
    family = DiagonalGaussian(D, units_of=(shift, scale))
    outputs = torch.randn(N, 2 * D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    distribution = family.distribution(outputs)
    mean = shift + scale * outputs[:, :D]
    deviation = scale * (outputs[:, D:] / 2).exp()
    wanted = stats.norm.logpdf(x.numpy(), mean.numpy(), deviation.numpy())
    np.testing.assert_allclose(family.unit_log_prob(distribution, x), wanted, rtol=1e-10, atol=1e-10)
    noise = torch.randn(N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = family.draw(distribution, noise)
    torch.testing.assert_close(drawn, mean + deviation * noise, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(family.noise_of(distribution, drawn), noise, rtol=1e-8, atol=1e-8)


def test_it_starts_from_the_mean_of_the_data_and_unit_scores() -> None:
    x = Z * UNITS["one column"] + 3
    model = build_hvae(GAUSSIAN, table(x), seed=0)
    family, bias = model.decoder["x"].family, model.decoder["x"].net[-1].bias
    assert bias.tolist() == [0.0] * D
    start = family.distribution(bias).mean
    torch.testing.assert_close(start, x[: N - 20].mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("observation", "view"), [("gaussian", Standardised), ("poisson", LogCounts)])
def test_pseudo_inputs_are_learned_as_the_net_sees_them(observation: Any, view: type) -> None:
    x = (1e3 * Z).abs().round() if observation == "poisson" else 1e3 * Z
    config = ModelConfig(
        latents=(2,), hidden=((4,),), observation=observation, prior="vamp", n_pseudo_inputs=3,
        standardise=observation == "gaussian",
    )  # fmt: skip
    model = build_hvae(config, table(x, "counts" if observation == "poisson" else "real"), seed=0)
    root, q = model.decoder["z1"].net, model.posterior.network["z1"]
    assert isinstance(root, PseudoInputs) and isinstance(q.net[0], view)
    assert root.inputs.abs().max() < 12
    rows = [row for row in q.net[0](x[: N - 20]) if torch.isclose(row, root.inputs[0]).all()]
    assert rows
    torch.testing.assert_close(root()[: q.family.n_outputs], q.net[1:](root.inputs)[0])


def test_who_is_standardised() -> None:
    plain = replace(GAUSSIAN, standardise=False)
    assert standardises(plain, table(Z)) and standardises(replace(plain, observation_variance="network"), table(Z))
    for data in (table(Z, "grey"), table(Z, shape=(1, 5)), table(Z, name="digits-grey"), table(Z, "counts")):
        assert not standardises(plain, data)
    for variance in ("fixed", "shared"):
        assert not standardises(replace(plain, observation_variance=variance), table(Z))  # type: ignore[arg-type]
    assert not standardises(ModelConfig(observation="bernoulli"), table(Z, "binary"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (table(Z, "grey", (1, 5)), "but my.npz holds images, with units that all its columns share; leave it out"),
        (table(Z, "grey", (5,), "digits-grey"), "but digits-grey is a data set with a name, with units"),
    ],
)
def test_images_and_named_data_are_never_standardised(data: Dataset, words: str) -> None:
    with pytest.raises(ConfigError, match=f"model.standardise is true, {words}"):
        build_hvae(GAUSSIAN, data, seed=0)


@pytest.mark.parametrize(
    "knobs",
    [
        {"observation_variance": "fixed"},
        {"observation_variance": "shared"},
        {"observation": "bernoulli"},
        {"observation": "discretised-logistic"},
        {"observation": "poisson"},
    ],
)
def test_a_model_that_would_change_is_not_standardised(knobs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"it would change the model and not its units alone; use gaussian with"):
        replace(GAUSSIAN, **knobs)


def test_remarks_on_columns_that_differ_in_scale() -> None:
    x = Z * torch.tensor([1.0, 1.0, 1e6, 0.0, 1.0])  # a constant column has no scale
    plain = replace(GAUSSIAN, standardise=False)
    for variance in ("fixed", "shared"):
        remark = units_remark(replace(plain, observation_variance=variance), table(x))  # type: ignore[arg-type]
        assert remark.startswith("Columns differ in scale: column 2 varies ")
        assert f"hardly counts where model.observation_variance is {variance}; write columns as" in remark
        assert units_remark(replace(plain, observation_variance=variance), table(Z)) == ""  # type: ignore[arg-type]
    assert units_remark(plain, table(x)) == (
        "Columns differ in scale, and are taken as they are; --model.standardise true takes each as z-scores."
    )
    assert "lie between 0 and 1, as grey levels do" in units_remark(plain, table(Z.sigmoid(), "grey"))
    for config, data in (
        (GAUSSIAN, table(x)),
        (plain, table(Z)),
        (plain, table(x, shape=(1, 5))),
        (ModelConfig(), table(x)),
    ):
        assert units_remark(config, data) == ""
    assert units_remark(replace(plain, observation_variance="fixed"), table(0 * Z)) == ""


COUNTS = torch.poisson(torch.full((N, D), 3.0), generator=SOURCE)


@pytest.mark.parametrize("observation", ["bernoulli", "gaussian", "discretised-logistic"])
def test_counts_are_offered_their_distributions(observation: Any) -> None:
    with pytest.raises(ConfigError, match=r"give counts model.observation poisson or negative-binomial, ") as refused:
        build_hvae(ModelConfig(observation=observation), table(COUNTS, "counts"), seed=0)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize("observation", ["poisson", "negative-binomial"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("real", "holds real values; use model.observation gaussian"), ("grey", "holds grey values; write counts that are "
     "bytes as int64"), ("binary", "holds binary values; use model.observation bernoulli")],
)  # fmt: skip
def test_what_is_no_count_is_refused(observation: Any, kind: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"model.observation is {observation}, which is for counts 0, 1, .*{words}"):
        build_hvae(ModelConfig(observation=observation), table(Z, kind), seed=0)


@pytest.mark.parametrize("observation", ["poisson", "negative-binomial"])
def test_huge_counts(observation: Any) -> None:
    """Up to 2^24 everything is finite, beyond they are refused: float32 does not tell neighbours apart."""
    x = COUNTS.clone()
    x[:, 1] = MOST - x[:, 1]
    config = ModelConfig(latents=(2,), hidden=((4,),), observation=observation)
    model = build_hvae(config, table(x, "counts"), seed=0)
    evidence = weighed(model, x)
    assert evidence.log_weight.isfinite().all()
    Elbo()(evidence, 0).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    with pytest.raises(ConfigError, match=r"my.npz holds counts up to 1.678e\+07, above 2\^24 = 16777216, "):
        build_hvae(config, table(x + 2 * (x > 9), "counts"), seed=0)


def test_counts_start_from_their_mean_with_half_a_count() -> None:
    x = COUNTS.clone()
    x[:, 2] = 0
    for observation, kind in (("poisson", Poisson), ("negative-binomial", NegativeBinomial)):
        config = ModelConfig(latents=(2,), observation=observation)  # type: ignore[arg-type]
        conditional = build_hvae(config, table(x, "counts"), seed=0).decoder["x"]
        assert isinstance(conditional.family, kind)
        mean = conditional.family.distribution(conditional.net[-1].bias).mean
        torch.testing.assert_close(mean, (x[: N - 20].sum(0) + 0.5) / (N - 20))


def test_no_fixed_or_shared_dispersion() -> None:
    with pytest.raises(ConfigError, match="no one dispersion of a negative-binomial observation suits all counts"):
        ModelConfig(observation="negative-binomial", observation_variance="fixed")
    with pytest.raises(ConfigError, match="which is for a gaussian observation; use learned or network"):
        ModelConfig(observation="negative-binomial", observation_variance="shared")
