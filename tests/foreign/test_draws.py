"""Draws and densities of every class of torch.distributions, as a function of noise."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical

import hvae
from hvae.foreign.draws import is_smooth, noise_kind
from hvae.foreign.kinds import Kind, kind_of
from hvae.foreign.laws import summed
from hvae.foreign.reading import shape_of, widened
from tests.foreign.zoo import MAPPED, ROWS, SEEDED, Zoo
from tests.statistics import assert_mean

ALL: Zoo = MAPPED | SEEDED
pytestmark = pytest.mark.filterwarnings("ignore:Singular sample detected")  # torch says so of every Wishart
every = pytest.mark.parametrize("name", ALL)
HALF = ROWS // 2
SMOOTH = [name for name in MAPPED if not any(word in name for word in ("ernoulli", "ategorical", "mixture"))] + [
    "ContinuousBernoulli"
]


def kind(law: Distribution, rows: int, *, has_rows: bool = True) -> Kind:
    shape = shape_of(law)
    assert shape is not None
    return kind_of(law, shape[1:] if has_rows else shape, rows, has_rows=has_rows)


def noise(of: Kind, rows: int, seed: int = 0) -> Tensor:
    specs = {"z": (of.family.noise, of.family.noise_width)}
    return hvae.noise(specs, 1, rows, seed=seed, purpose="test", dtype=torch.float64)["z"][0]


def drawn(law: Distribution, rows: int, *, has_rows: bool = True, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A value for each row, and the log-probability that the house makes of it."""
    of = kind(law, rows, has_rows=has_rows)
    read = of.read(law, rows)
    value, _ = of.draw(read, noise(of, rows, seed))
    assert value.shape == (rows, *of.event)
    return value, scored(of, read, value)


def scored(of: Kind, read: object, value: Tensor) -> Tensor:
    joined = of.join([read], [len(value)], torch.Size([1, len(value)]))  # type: ignore[list-item]
    return of.family.log_prob(joined, of.flat(value).unsqueeze(0))[0]


def assert_close(log_prob: Tensor, law: Distribution, value: Tensor) -> None:
    small = 1e-9 if value.dtype != torch.float32 else 1e-5
    torch.testing.assert_close(log_prob, summed(law.log_prob(value)), rtol=small, atol=small)


@every
def test_log_probabilities_are_those_of_torch(name: str) -> None:
    law = ALL[name](slice(ROWS))
    value, log_prob = drawn(law, ROWS)
    assert law.support.check(value).all(), "it was drawn outside its support"
    assert_close(log_prob, law, value)


@every
def test_without_rows_it_is_the_same_for_each(name: str) -> None:
    """A prior: one distribution, as many draws as rows, and all of them differ."""
    law = ALL[name](0)
    value, log_prob = drawn(law, ROWS, has_rows=False)
    assert_close(log_prob, law, value)
    assert len(value.unique(dim=0)) > 1
    if value.is_floating_point() and not law.support.is_discrete:
        assert len(value.unique(dim=0)) == ROWS


@every
def test_the_same_noise_is_the_same_draw(name: str) -> None:
    law = ALL[name](slice(ROWS))
    torch.rand(3)  # whatever else is drawn
    first, again, other = (drawn(law, ROWS, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("name", MAPPED)
def test_a_draw_by_a_map_does_not_know_the_other_rows(name: str) -> None:
    whole, half = MAPPED[name](slice(ROWS)), MAPPED[name](slice(HALF))
    of = kind(whole, ROWS)
    numbers = noise(of, ROWS)
    value = of.draw(of.read(whole, ROWS), numbers)[0]
    part = of.draw(of.read(half, HALF), numbers[:HALF])[0]
    assert torch.equal(value[:HALF], part)
    assert noise_kind(whole) is not None
    assert of.family.reparametrised == is_smooth(whole) == (name in SMOOTH)


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_draw_leaves_the_generator_alone(name: str) -> None:
    law = SEEDED[name](slice(ROWS))
    assert noise_kind(law) is None
    state = torch.random.get_rng_state()
    drawn(law, ROWS)
    assert torch.equal(state, torch.random.get_rng_state())


N = 40_000


@every
def test_draws_have_the_right_distribution(name: str) -> None:
    """Location and spread of one row's draws against torch's: false alarms 1e-6 at most, misses of a shift of 0.1 too.

    Of the standardised values the means of tanh and of its square, which no tail can hide.
    """
    law = ALL[name](5)
    value = drawn(law, N, has_rows=False)[0].reshape(N, -1).double()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        own = law.sample(torch.Size([N])).reshape(N, -1).double()
    middle = own.median(0).values
    spread = (own - middle).abs().mean(0).clamp(1e-6, 20)
    bounded, of_torch = ((each - middle).div(spread).tanh() for each in (value, own))
    assert_mean(torch.cat([bounded - of_torch, bounded.square() - of_torch.square()], -1), 0.0, detect=0.1)


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "GeneralizedPareto"])  # which is in float32
def test_a_map_is_smooth(name: str) -> None:
    """Its derivative by the noise is that of finite differences."""
    law = MAPPED[name](slice(4))
    of = kind(law, 4)
    numbers = noise(of, 4)
    read = of.read(law, 4)
    torch.autograd.gradcheck(lambda e: of.flat(of.draw(read, e)[0]), numbers.requires_grad_(), atol=1e-4, rtol=1e-4)


def test_a_certain_state_costs_nothing_and_is_always_drawn() -> None:
    """As the code of a codebook: torch rounds a probability of 0 up to 1e-7, which adds up over a map of codes."""
    states = torch.nn.functional.one_hot(torch.arange(ROWS) % 512, 512).double()
    for probs in (states, states.float()):
        value, log_prob = drawn(OneHotCategorical(probs), ROWS)
        assert torch.equal(value.double(), states) and (log_prob == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype: torch.dtype) -> None:
    """The value is what the net is given, in its precision; its density is that of float32 at this very value."""
    location = torch.linspace(-2, 2, 12).reshape(4, 3).to(dtype)
    for law in (torch.distributions.Normal(location, 0.5), torch.distributions.Laplace(location, 0.5 + 0 * location)):
        of = kind(law, 4)
        assert of.dtype == dtype
        read = of.read(widened(law), 4)
        value, _ = of.draw(read, noise(of, 4).float())
        value = value.to(of.dtype)
        log_prob = scored(of, read, value)
        wide = type(law)(location.float(), 0.5).log_prob(value.float()).sum(-1)
        torch.testing.assert_close(log_prob.float(), wide, rtol=1e-6, atol=1e-6)
