"""Tables of whole stacks of Bernoulli units: bounds, gaps and informations against other arithmetic, and their
training."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from hvae import nets
from hvae.exact import DiscreteChain
from hvae.exact import known_stacks as examples
from hvae.experiments.conjecture.enumeration import Enumeration, Tables, bernoulli_states, fit
from hvae.families import Autoregressive, Bernoulli
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import NetworkPosterior

EXACT = {"atol": 1e-10, "rtol": 0}


def stack(widths: tuple[int, ...] = (3, 2, 3, 2), seed: int = 0, rich: bool = False) -> Enumeration:
    source = torch.Generator().manual_seed(seed)
    conditionals = []
    for layer, (n_in, units) in enumerate(itertools.pairwise(widths), start=1):
        family = Autoregressive(Bernoulli(units), 3, source=source) if rich else Bernoulli(units)
        net = nets.mlp(n_in, (3,), family.n_outputs, activation=nn.Tanh, initialise=nets.xavier, source=source)
        conditionals.append(Conditional(f"z{layer}", [f"z{layer - 1}" if layer > 1 else "x"], net, family))
    encoder = BeliefNetwork(conditionals).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return Enumeration(examples.binary_decoder(1.0, widths, source), encoder)


def weights(n: int, seed: int = 7) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(-1).exp()


@pytest.mark.parametrize("rich", [False, True])
@torch.no_grad()
def test_bound_and_gaps_equal_the_chain_of_transfer_matrices(rich: bool) -> None:
    made = stack(rich=rich)
    assert made.encoder is not None
    tables, weight, x = made(), weights(8), bernoulli_states(3)
    chain, visits = DiscreteChain.of(made.decoder), NetworkPosterior(made.encoder)
    exact = chain.gaps(visits, x)
    torch.testing.assert_close(tables.bound(weight, (1.0, 1.0, 1.0)), (weight * exact.elbo).sum(), **EXACT)
    expected = torch.stack([(weight * layer).sum() for layer in exact.layers.values()])
    torch.testing.assert_close(tables.gaps(weight), expected, **EXACT)
    assert expected.min() > 1e-3
    rates = torch.stack([(weight * rate).sum() for rate in exact.rates.values()])
    betas = (1.3, 0.6, 2.5)
    torch.testing.assert_close(tables.rates(weight), rates, **EXACT)
    distortion = (weight * exact.elbo).sum() + rates.sum()
    torch.testing.assert_close(
        tables.bound(weight, betas), distortion - (torch.tensor(betas, dtype=torch.float64) * rates).sum(), **EXACT
    )
    torch.testing.assert_close(tables.best_bound(weight, (1.0, 1.0, 1.0)), (weight * exact.log_px).sum(), **EXACT)


@pytest.mark.parametrize("betas", [(1.0, 1.0), (1.0, 3.0), (0.5, 2.0), (2.0, 0.7)])
@torch.no_grad()
def test_the_best_bound_is_what_a_search_over_all_posteriors_finds(betas: tuple[float, float]) -> None:
    """Every table of q free, by quasi-Newton steps on the bound's definition."""
    tables, weight = stack((2, 2, 1))(), weights(4)
    p = [down.exp().numpy() for down in tables.down]
    top = tables.top.exp().numpy()

    def loss(logits: np.ndarray) -> float:
        q1, q2 = (np.exp(part.reshape(4, -1)) for part in np.split(logits, [16]))
        q1, q2 = q1 / q1.sum(-1, keepdims=True), q2 / q2.sum(-1, keepdims=True)
        found = 0.0
        for x, z1, z2 in itertools.product(range(4), range(4), range(2)):
            rates = betas[0] * np.log(q1[x, z1] / p[1][z2, z1]) + betas[1] * np.log(q2[z1, z2] / top[z2])
            found += float(weight[x]) * q1[x, z1] * q2[z1, z2] * (np.log(p[0][z1, x]) - rates)
        return -found

    best = min(minimize(loss, np.random.default_rng(seed).normal(size=24), tol=1e-10).fun for seed in range(3))
    assert float(tables.best_bound(weight, betas)) == pytest.approx(-best, abs=1e-7)
    torch.testing.assert_close(tables.best(betas).bound(weight, betas), tables.best_bound(weight, betas), **EXACT)


@torch.no_grad()
def test_informations_equal_those_of_the_joint_table() -> None:
    tables = stack()()
    down = [table.exp().numpy() for table in tables.down]
    joint = np.einsum("ax,ba,cb,c->xabc", *down, tables.top.exp().numpy())

    def information(*axes: int) -> float:
        pair = joint.sum(tuple(axis for axis in range(4) if axis not in axes))
        return float((pair * np.log(pair / pair.sum(1, keepdims=True) / pair.sum(0, keepdims=True))).sum())

    np.testing.assert_allclose(tables.couplings(), [information(axis, axis + 1) for axis in range(3)], **EXACT)
    np.testing.assert_allclose(tables.about_x(), [information(0, axis) for axis in (1, 2, 3)], **EXACT)
    np.testing.assert_allclose(tables.marginals()[0].exp(), joint.sum((1, 2, 3)), **EXACT)


def test_a_stack_trained_among_others_equals_the_stack_trained_alone() -> None:
    stacks = [stack(seed=seed, rich=True) for seed in range(3)]
    before = copy.deepcopy(stacks[1].state_dict())
    weight = torch.stack([weights(8, seed) for seed in range(3)])
    betas = torch.tensor([[1.0, 1.0, 3.0], [1.0, 2.0, 1.0], [0.5, 1.0, 1.0]]).double()
    together = fit(stacks, weight, betas, 20, 0.05)
    alone = fit(stacks[1:2], weight[1:2], (1.0, 2.0, 1.0), 20, 0.05)
    for name, value in alone.stacks[0].state_dict().items():
        torch.testing.assert_close(together.stacks[1].state_dict()[name], value, **EXACT)
        torch.testing.assert_close(stacks[1].state_dict()[name], before[name], atol=0, rtol=0)
    with torch.no_grad():
        tables: Tables = alone.stacks[0]()
        torch.testing.assert_close(alone.bound[0], tables.bound(weight[1], (1.0, 2.0, 1.0)), **EXACT)


@pytest.mark.slow
def test_the_encoder_alone_is_trained_to_a_gap_that_no_longer_falls() -> None:
    made = stack(rich=True)
    with torch.no_grad():
        start, weight = made(), made().marginals()[0].exp()
    found = fit([made], weight.unsqueeze(0), (1.0,) * 3, 400, 0.05, decoder=False)
    with torch.no_grad():
        end = found.stacks[0]()
    torch.testing.assert_close(end.down[0], start.down[0], atol=0, rtol=0)
    assert end.gaps(weight).sum() < 0.05 * start.gaps(weight).sum()
    assert 0 <= float(found.change) < 0.01 and float(found.gradient) < 0.1


def test_exact_inference_trains_the_likelihood() -> None:
    made = stack((3, 2, 2))
    exact = Enumeration(made.decoder, None)
    weight = weights(8)
    found = fit([exact], weight.unsqueeze(0), (1.0, 1.0), 100, 0.05)
    with torch.no_grad():
        chain = DiscreteChain.of(found.stacks[0].decoder)
        torch.testing.assert_close(found.bound[0], (weight * chain.log_px(bernoulli_states(3))).sum(), **EXACT)
        assert found.bound[0] > (weight * DiscreteChain.of(made.decoder).log_px(bernoulli_states(3))).sum()
