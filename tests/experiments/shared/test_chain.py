"""The encode-decode chain against transition matrices, from every joint state listed without `hvae`."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hvae.evidence import HVAE
from hvae.experiments.shared.consistency.chain import chain, mean_after
from hvae.families import Bernoulli, Categorical, Family
from hvae.likelihood.sandwich import simulate
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior
from tests.exact import enumerated
from tests.statistics import assert_mean

N = 40_000


def distribution_of(model: HVAE, kinds: list[Family]) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """States of x, p(x|z1) by rows, and the transition matrix T[x, x'] = sum_z q(z|x) p(x'|z1), by listing."""
    x = torch.tensor(enumerated.states(kinds[0]), dtype=torch.float64)
    first = torch.tensor(enumerated.states(kinds[1]), dtype=torch.float64)
    emission = _table(model.decoder["x"], {"z1": first}, x)
    inferred = _marginal_of_z1(model, kinds, x, first)
    return x, emission, inferred @ emission


def _table(conditional: Conditional, parents: dict[str, Tensor], children: Tensor) -> np.ndarray:
    """[S_parent, S_child] probabilities, from the net's outputs alone."""
    out = conditional.net(torch.cat(list(parents.values()), -1)).detach().numpy()
    return _of_outputs(out, conditional.family, children.numpy())


def _of_outputs(out: np.ndarray, family: Family, children: np.ndarray) -> np.ndarray:
    if isinstance(family, Bernoulli):
        on = 1 / (1 + np.exp(-out))
        return np.stack([np.prod(np.where(child == 1, on, 1 - on), -1) for child in children], -1)
    assert isinstance(family, Categorical)
    shares = np.exp(out).reshape(*out.shape[:-1], -1, family.n_classes)
    shares /= shares.sum(-1, keepdims=True)
    return np.stack([np.prod((shares.reshape(out.shape) ** child), -1) for child in children], -1)


def _marginal_of_z1(model: HVAE, kinds: list[Family], x: Tensor, first: Tensor) -> np.ndarray:
    """q(z1|x) [S_x, S_1], summed over the layers above where these are visited first."""
    network = model.posterior.network
    if network.variables[0] == "z1":
        return _table(network["z1"], {"x": x}, first)
    above = torch.tensor(enumerated.states(kinds[2]), dtype=torch.float64)
    top = _table(network["z2"], {"x": x}, above)
    rows = []
    for datum in x:
        pairs = {"z2": above, "x": datum.expand(len(above), -1)}
        rows.append(_table(network["z1"], {name: pairs[name] for name in network["z1"].parents}, first))
    return np.einsum("xa,xaz->xz", top, np.stack(rows))


BERNOULLI: list[Family] = [Bernoulli(3), Bernoulli(3), Bernoulli(2)]
CATEGORICAL: list[Family] = [Categorical(1, 4), Categorical(1, 3), Bernoulli(2)]


def shares(x: Tensor, states: Tensor) -> Tensor:
    """[n, S] one where a draw is in the state."""
    return (x.unsqueeze(1) == states).all(-1).double()


@pytest.mark.parametrize(
    ("kinds", "kind", "seed"),
    [
        (BERNOULLI, "bottom-up", 50),
        (BERNOULLI, "bottom-up sees x", 54),
        (BERNOULLI, "top-down", 16),
        (CATEGORICAL, "bottom-up", 43),
    ],
)
def test_after_any_number_of_steps_the_distribution_is_a_power_of_the_transition_matrix(
    kinds: list[Family], kind: str, seed: int
) -> None:
    """Seeds of stacks whose chains take some steps to forget where they began."""
    model = HVAE(enumerated.decoder(kinds, scale=3), enumerated.posterior(kind, kinds, seed=seed, scale=3))
    states, _, transition = distribution_of(model, kinds)
    np.testing.assert_allclose(transition.sum(1), 1, atol=1e-12)
    values, vectors = np.linalg.eig(transition.T)
    at_rest = np.real(vectors[:, np.argmax(np.real(values))])
    at_rest /= at_rest.sum()
    assert np.abs(at_rest - transition[0]).max() > 0.2, "one step must not be the limit, or the test sees nothing"
    found = chain(model, states[:1].expand(N, -1), (1, 2, 30), seed=3)
    for step, x in found.items():
        distribution = np.linalg.matrix_power(transition, step)[0]
        seen = distribution > 0.005  # of rarer states the central limit theorem says nothing
        assert_mean(shares(x, states)[:, seen], distribution[seen], detect=0.03)
    common = at_rest > 0.005
    assert_mean(shares(found[30], states)[:, common], at_rest[common], detect=0.03)


def test_with_the_exact_posterior_it_rests_at_the_decoders_own_distribution() -> None:
    """One Bernoulli unit a layer: p(z1|x) and p(z2|z1) are logistic, with weights by hand."""
    up, bias, top = torch.tensor([[1.5], [-2.0], [0.7]]).double(), torch.tensor([0.3, 0.1, -0.6]).double(), 0.4
    weight, offset = 2.2, -1.0
    decoder = BeliefNetwork(
        [
            Conditional("z2", [], _Constant(top), Bernoulli(1)),
            Conditional("z1", ["z2"], _linear(torch.tensor([[weight]]), torch.tensor([offset])), Bernoulli(1)),
            Conditional("x", ["z1"], _linear(up, bias), Bernoulli(3)),
        ]
    )
    on = 1 / (1 + np.exp(-top))
    given = 1 / (1 + np.exp(-(offset + weight * np.array([0.0, 1.0]))))
    prior = (1 - on) * given[0] + on * given[1]
    softplus = np.log1p(np.exp(bias.numpy())) - np.log1p(np.exp(bias.numpy() + up.numpy()[:, 0]))
    first = _linear(up.T, torch.tensor([np.log(prior / (1 - prior)) + softplus.sum()]))
    odds = np.log(on / (1 - on)) + np.log((1 - given[1]) / (1 - given[0]))
    second = _linear(torch.tensor([[weight]]), torch.tensor([odds]))
    encoder = BeliefNetwork(
        [Conditional("z1", ["x"], first, Bernoulli(1)), Conditional("z2", ["z1"], second, Bernoulli(1))]
    )
    model = HVAE(decoder, NetworkPosterior(encoder))
    states, emission, transition = distribution_of(model, [Bernoulli(3), Bernoulli(1), Bernoulli(1)])
    px = np.array([1 - prior, prior]) @ emission
    np.testing.assert_allclose(px @ transition, px, atol=1e-12)
    shot, _ = simulate(model, N, 0, states)
    assert_mean(shares(chain(model, shot, (5,), seed=1)[5], states), px, detect=0.03)


def test_marks_are_the_states_of_one_chain_and_seeds_are_chains() -> None:
    model = HVAE(enumerated.decoder(BERNOULLI), enumerated.posterior("bottom-up", BERNOULLI))
    start = torch.zeros(500, 3, dtype=torch.float64)
    both, late = chain(model, start, (2, 4), seed=0), chain(model, start, (4,), seed=0)
    assert list(both) == [2, 4] and torch.equal(both[4], late[4])
    assert not torch.equal(both[4], chain(model, start, (4,), seed=1)[4])
    assert (start == 0).all(), "the start is left as it was"


def test_means_are_of_the_distributions_that_the_states_were_drawn_from() -> None:
    """They average to the row of the transition matrix. A mean m of other latents would have E (x - m) m = -Var m."""
    model = HVAE(enumerated.decoder(BERNOULLI, scale=3), enumerated.posterior("bottom-up", BERNOULLI, seed=50, scale=3))
    states, _, transition = distribution_of(model, BERNOULLI)
    start = states[:1].expand(N, -1)
    x, mean = chain(model, start, (1,), seed=3)[1], mean_after(model, start, 1, seed=3)
    assert mean.var(0).max() > 0.05, "or the second line sees nothing"
    assert_mean(mean, transition[0] @ states.numpy(), detect=0.02)
    assert_mean((x - mean) * mean, np.zeros(mean.shape[1]), detect=0.02)


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.value


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made
