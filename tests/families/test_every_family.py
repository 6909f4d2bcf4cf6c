"""One contract for every family that a configuration can name, and for every class of `hvae.families`.

The members are found, not listed: a family that is new is asked all of this without a line here.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from inspect import isabstract
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

import hvae.families
from hvae import rng
from hvae.families import DiagonalGaussian, EqualMixture, Family
from hvae.lab.assembly.families import latent_family, observation_family
from hvae.lab.config import ModelConfig
from hvae.lab.config.latents import LatentFamily
from hvae.lab.config.model import Variance
from hvae.lab.config.observations import ObservationFamily, ObservationVariance

UNITS = 3
CONFIG = ModelConfig(n_classes=3, n_masked=4, n_components=2)


def latent(kind: LatentFamily, variance: Variance) -> Family:
    config = replace(CONFIG, latent_variance=variance)
    return latent_family(config, kind, UNITS, torch.Generator().manual_seed(0)).double()


def observed(kind: ObservationFamily, variance: ObservationVariance, shape: tuple[int, ...] = (1, UNITS)) -> Family:
    return observation_family(replace(CONFIG, observation=kind, observation_variance=variance), shape).double()


def _admitted(make: Callable[[], Family]) -> bool:
    """Whether the configuration has this family with this variance."""
    try:
        make()
    except (ValueError, AssertionError):
        return False
    return True


MEMBERS: dict[str, Callable[[], Family]] = {
    **{f"{kind}, {of}": partial(latent, kind, of) for kind in get_args(LatentFamily) for of in get_args(Variance)},
    **{
        f"x {kind}, {of}": partial(observed, kind, of)
        for kind in get_args(ObservationFamily)
        for of in get_args(ObservationVariance)
    },
    "x of a colour pixel": lambda: observed("discretised-logistic-mixture", "network", (UNITS, 1, 1)),
    "vamp": lambda: EqualMixture(DiagonalGaussian(UNITS), 2).double(),
}
MEMBERS = {name: make for name, make in MEMBERS.items() if _admitted(make)}
every = pytest.mark.parametrize("make", MEMBERS.values(), ids=MEMBERS)


def classes(of: type[Family] = Family) -> Iterator[type[Family]]:
    for below in of.__subclasses__():
        if below.__module__.startswith("hvae.families.") and not isabstract(below):
            yield below
        yield from classes(below)


def outputs(family: Family, *shape: int, seed: int = 1) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, family.n_outputs, generator=source, dtype=torch.float64) / 2


def noise(family: Family, n_samples: int, n_data: int) -> Tensor:
    specs: rng.NoiseSpecs = {"z": (family.noise, family.noise_width)}
    return rng.noise(specs, n_samples, n_data, seed=0, purpose="test", dtype=torch.float64)["z"]


def test_every_class_is_a_member() -> None:
    """Also those within others, as the units of an autoregressive layer."""
    reached = {type(part) for make in MEMBERS.values() for part in make().modules() if isinstance(part, Family)}
    assert set(classes()) <= reached
    assert {found.__name__ for found in classes()} <= set(hvae.families.__all__)


@every
def test_draws_and_scores_have_their_shapes_and_an_axis_of_one_is_the_same_for_all(
    make: Callable[[], Family],
) -> None:
    family = make()
    assert family.width % family.units == 0 and family.noise in ("normal", "uniform")
    distribution = family.distribution(outputs(family, 1, 5))
    value = family.draw(distribution, noise(family, 4, 5)).detach()
    assert value.shape == (4, 5, family.width) and value.dtype == torch.float64
    assert distribution.batch_shape == (1, 5) and distribution.event_shape.numel() == family.width
    scores = family.log_prob(distribution, value)
    assert scores.shape == (4, 5) and scores.isfinite().all()
    once = family.log_prob(distribution, value[:1, :1])
    assert once.shape == (1, 5)
    repeated = family.log_prob(family.distribution(outputs(family, 1, 5).expand(4, 5, -1)), value)
    torch.testing.assert_close(repeated, scores, rtol=1e-10, atol=1e-10)
    mean = family.mean(distribution)
    assert mean.shape == (1, 5, family.width) and mean.isfinite().all()
    prior = family.distribution(family.standard_outputs().double())
    assert family.standard_outputs().shape == (family.n_outputs,)
    assert family.log_prob(prior, value).shape == (4, 5)


@every
def test_what_it_says_of_itself_holds_or_is_refused_in_a_sentence(make: Callable[[], Family]) -> None:
    """Terms per unit, exponential form and noise: there, or a TypeError."""
    family = make()
    distribution = family.distribution(outputs(family, 2, 5))
    value = family.draw(distribution, noise(family, 2, 5)).detach()

    def answer(ask: Callable[[], Any], has: bool) -> Any:
        if has:
            return ask()
        with pytest.raises(TypeError) as refused:
            ask()
        assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
        return None

    whole = family.log_prob(distribution, value)
    terms = answer(lambda: family.unit_log_prob(distribution, value), family.factorised)
    if terms is not None:
        assert terms.shape == (2, 5, family.units)
        torch.testing.assert_close(terms.sum(-1), whole, rtol=1e-10, atol=1e-10)
    natural = answer(lambda: family.natural(distribution), family.exponential)
    statistic = answer(lambda: family.statistic(value), family.exponential)
    product = answer(lambda: family.product(distribution, distribution), family.exponential)
    matched = answer(lambda: family.match(distribution), family.exponential)
    if natural is not None:
        base = whole - ((statistic * natural[0]).sum(-1) - natural[1])
        torch.testing.assert_close(base, base[:1, :1].expand(2, 5), rtol=1e-9, atol=1e-9)
        assert family.log_prob(product, value).shape == family.log_prob(matched, value).shape == (2, 5)
    try:
        again = family.noise_of(distribution, value)
    except TypeError as refused:
        assert str(refused).endswith(".") and "\n" not in str(refused)
    else:
        torch.testing.assert_close(family.draw(distribution, again), value, rtol=1e-6, atol=1e-6)


@every
def test_the_standard_distribution_draws_and_scores_or_is_refused(make: Callable[[], Family]) -> None:
    family = make()
    like = torch.zeros(2, 5, family.width)
    try:
        standard = family.standard(like)
    except TypeError as refused:
        assert str(refused).endswith(".") and "\n" not in str(refused)
        return
    value = family.kin.draw(standard, noise(family.kin, 2, 5).float())
    assert value.shape == like.shape and value.dtype == like.dtype
    scores = family.kin.log_prob(standard, value)
    assert scores.shape == (2, 5) and scores.isfinite().all() and scores.dtype == like.dtype


@every
def test_gradients_pass_from_a_draw_where_it_says_so(make: Callable[[], Family]) -> None:
    family = make()
    parameters = outputs(family, 2, 5).requires_grad_()
    value = family.draw(family.distribution(parameters), noise(family, 2, 5))
    gradient = torch.zeros(())
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), parameters, materialize_grads=True)
    assert bool((gradient != 0).any()) == family.reparametrised


@every
def test_two_replicas_under_vmap_are_each_as_if_alone(make: Callable[[], Family]) -> None:
    one, other = make(), make()
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.1)
    weights, buffers = stack_module_state([one, other])  # type: ignore[list-item]

    class Score(torch.nn.Module):
        def __init__(self, family: Family) -> None:
            super().__init__()
            self.family = family

        def forward(self, parameters: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
            distribution = self.family.distribution(parameters)
            value = self.family.draw(distribution, numbers)
            return value, self.family.log_prob(distribution, value)

    parameters, numbers = outputs(one, 2, 1, 5), torch.stack([noise(one, 4, 5)] * 2)
    state = {f"family.{name}": weight for name, weight in {**weights, **buffers}.items()}
    found = vmap(partial(functional_call, Score(one)), randomness="error")(state, (parameters, numbers))
    for replica, family in enumerate((one, other)):
        alone = Score(family)(parameters[replica], numbers[replica])
        for together, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(together[replica], expected, rtol=1e-9, atol=1e-9)


@every
def test_a_checkpoint_holds_its_parameters_and_the_constants_it_was_given(make: Callable[[], Family]) -> None:
    """What the constructor works out again, masks and indices and quadratures, is not saved: such names would stay."""
    family = make()
    constants = family.state_dict().keys() - dict(family.named_parameters()).keys()
    given = {"log_variance", "log_scale", "scale", "shift"}
    assert {name.rpartition(".")[2] for name in constants} <= given | {"mask", "order"}, "the last two are zuko's"
