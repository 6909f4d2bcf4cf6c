"""`hvae.from_laws`: a flat VAE in two lines is the same model as in functions that visit."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from hvae.errors import ConfigError
from hvae.foreign.flat import from_laws
from hvae.foreign.model import Model
from hvae.foreign.stack import Stack
from hvae.rng import noise

N_DATA, D, Z = 7, 6, 2


@pytest.fixture
def nets() -> nn.ModuleDict:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.ModuleDict({"encoder": nn.Linear(D, 2 * Z), "decoder": nn.Linear(Z, D)})


def x() -> Tensor:
    return (torch.arange(N_DATA * D).reshape(N_DATA, D) % 5 < 2).float()


@torch.no_grad()
def log_weight(model: Model, context: Tensor | None = None) -> Tensor:
    stack = Stack.of(model, {"x": x()}, context)
    noises = noise(stack.noise_specs(), 3, N_DATA, seed=0, purpose="test")
    found: Tensor = stack(stack.numbers.unsqueeze(0), noises).log_weight
    return found


def as_normal(outputs: Tensor) -> Distribution:
    mean, log_scale = outputs.chunk(2, -1)
    return Normal(mean, log_scale.exp())


LAWS = {
    "bare": as_normal,
    "independent": lambda outputs: Independent(as_normal(outputs), 1),
    "full": lambda outputs: MultivariateNormal(outputs[:, :Z], scale_tril=outputs[:, Z:].exp().diag_embed()),
    "mixture": lambda outputs: MixtureSameFamily(
        Categorical(logits=torch.zeros(len(outputs), 2)),
        Independent(Normal(outputs[:, :Z].unsqueeze(1).repeat(1, 2, 1), outputs[:, Z:].exp().unsqueeze(1)), 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_it_is_the_model_that_visits(name: str, nets: nn.ModuleDict) -> None:
    def encode(x: Tensor) -> Distribution:
        return LAWS[name](nets["encoder"](x))

    def decode(z: Tensor) -> Distribution:
        return Bernoulli(logits=nets["decoder"](z))

    prior = Normal(torch.zeros(Z), 1.0)

    def infer(visit) -> None:  # type: ignore[no-untyped-def]
        visit("z", encode(visit.code))

    def generate(visit) -> None:  # type: ignore[no-untyped-def]
        visit("x", decode(visit("z", prior)))

    assert torch.equal(log_weight(from_laws(encode, decode, prior)), log_weight(Model(infer, generate)))


def test_the_encoder_runs_once_per_datum(nets: nn.ModuleDict) -> None:
    rows = []

    def encode(x: Tensor) -> Distribution:
        rows.append(len(x))
        return as_normal(nets["encoder"](x))

    model = from_laws(encode, lambda z: Bernoulli(logits=nets["decoder"](z)), Normal(torch.zeros(Z), 1.0))
    stack = Stack.of(model, {"x": x()})
    rows.clear()
    for seed in range(3):
        stack(stack.numbers.unsqueeze(0), noise(stack.noise_specs(), 3, N_DATA, seed=seed, purpose="test"))
    assert sum(rows) <= N_DATA


def test_a_context_reaches_encoder_decoder_and_prior(nets: nn.ModuleDict) -> None:
    y = torch.linspace(-1, 1, N_DATA).unsqueeze(1)

    def model(use: Tensor) -> Model:
        e, d, p = use
        return from_laws(
            lambda x, y: as_normal(nets["encoder"](x) + e * y),
            lambda z, y: Bernoulli(logits=nets["decoder"](z) + d * y),
            lambda y: Normal(p * y.expand(-1, Z), 1.0),
        )

    found = [log_weight(model(use), y) for use in torch.cat([torch.zeros(1, 3), torch.eye(3)])]
    assert all(not torch.equal(found[0], other) for other in found[1:])


def test_what_gives_no_distribution_is_refused(nets: nn.ModuleDict) -> None:
    model = from_laws(nets["encoder"], lambda z: Bernoulli(logits=nets["decoder"](z)), Normal(torch.zeros(Z), 1.0))
    with pytest.raises(ConfigError, match="encode gave a Tensor; from_laws takes a distribution of z"):
        log_weight(model)
