"""The one walk: draw, score, clamp; against sums of hand-written log-probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor, nn

from hvae.families import Bernoulli, Categorical, DiagonalGaussian, Family, FullGaussian
from hvae.nets import Root
from hvae.network import BeliefNetwork, Conditional

EXACT = {"atol": 1e-10, "rtol": 1e-10}


def net(n_in: int, n_out: int, seed: int) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(n_in, 4), nn.Tanh(), nn.Linear(4, n_out)).double()
    source = torch.Generator().manual_seed(seed)
    for value in made.parameters():
        value.data.copy_(torch.randn(value.shape, generator=source, dtype=torch.float64))
    return made


def stack(seed: int = 0) -> BeliefNetwork:
    """Gaussian z2 (2 units) -> two categorical units of three faces z1 -> x: five Bernoulli units that see z1 and
    z2."""
    family: list[Family] = [DiagonalGaussian(2), Categorical(2, 3), Bernoulli(5)]
    root = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return BeliefNetwork(
        [
            Conditional("z2", [], Root(root, learned=True), family[0]),
            Conditional("z1", ["z2"], net(2, 6, seed + 1), family[1]),
            Conditional("x", ["z1", "z2"], net(8, 5, seed + 2), family[2]),
        ]
    )


def noise(network: BeliefNetwork, n_samples: int, n_data: int, seed: int = 0) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    kinds = {"normal": torch.randn, "uniform": torch.rand}
    return {
        name: kinds[kind](n_samples, n_data, width, generator=source, dtype=torch.float64)
        for name, (kind, width) in network.noise_specs().items()
    }


def by_hand(network: BeliefNetwork, values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """log p of every variable at values [K, B, ·], by numpy and scipy."""
    z2, z1, x = (values[name].detach().numpy() for name in ("z2", "z1", "x"))
    root = network["z2"].net().detach().numpy()
    logits = network["z1"].net(values["z2"]).detach().numpy().reshape(*z2.shape[:-1], 2, 3)
    shape = np.broadcast_shapes(z1.shape[:-1], z2.shape[:-1])
    parents = np.concatenate([np.broadcast_to(z, (*shape, z.shape[-1])) for z in (z1, z2)], -1)
    x_logits = network["x"].net(torch.from_numpy(parents)).detach().numpy()
    return {
        "z2": stats.norm(root[:2], np.exp(root[2:] / 2)).logpdf(z2).sum(-1),
        "z1": (z1.reshape(*z1.shape[:-1], 2, 3) * special.log_softmax(logits, -1)).sum((-1, -2)),
        "x": stats.bernoulli(special.expit(x_logits)).logpmf(x).sum(-1),
    }


def test_variables_come_in_ancestral_order_with_the_noise_they_want() -> None:
    network = stack()
    assert network.variables == ("z2", "z1", "x")
    assert network.noise_specs() == {"z2": ("normal", 2), "z1": ("uniform", 6), "x": ("uniform", 5)}
    with pytest.raises(ValueError, match="repeat a name"):
        BeliefNetwork([Conditional("x", [], Root(torch.zeros(2), learned=False), Bernoulli(2)) for _ in range(2)])


def test_drawn_values_score_as_they_were_drawn_and_as_by_hand() -> None:
    network = stack()
    drawn = network.walk({}, noise(network, 3, 4))
    values = {name: site.value for name, site in drawn.items()}
    scored = network.walk(values, {})
    expected = by_hand(network, values)
    for name in network.variables:
        assert scored[name].value is values[name]
        assert drawn[name].log_prob.shape == (3, 4)
        torch.testing.assert_close(scored[name].log_prob, drawn[name].log_prob, **EXACT)
        np.testing.assert_allclose(drawn[name].log_prob.detach(), expected[name], **EXACT)
        torch.testing.assert_close(drawn[name].unit_log_prob.sum(-1), drawn[name].log_prob, **EXACT)


@pytest.mark.parametrize("clamped", [("z2",), ("z1",), ("z1", "z2"), ("x",), ("x", "z2")])
def test_clamping_draws_the_rest_from_the_same_noise(clamped: tuple[str, ...]) -> None:
    """What is given stays; what is drawn moves exactly as far as its parents say."""
    network, fresh = stack(), noise(stack(), 3, 4)
    other = network.walk({}, noise(network, 3, 4, seed=9))
    given_values = {name: other[name].value for name in clamped}
    trace = network.walk(given_values, fresh)  # what is given wins over its noise
    expected = by_hand(network, {name: site.value for name, site in trace.items()})
    free = network.walk({}, fresh)
    for name in network.variables:
        if name in clamped:
            assert torch.equal(trace[name].value, given_values[name])
        if not {name, *network[name].parents} & set(clamped) and not (name == "x" and "z2" in clamped):
            assert torch.equal(trace[name].value, free[name].value)
        np.testing.assert_allclose(trace[name].log_prob.detach(), expected[name], **EXACT)


def test_a_variable_neither_given_nor_with_noise_is_refused() -> None:
    with pytest.raises(KeyError, match="z1"):
        stack().walk({"z2": torch.zeros(1, 1, 2).double()}, {})


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    n_samples=st.integers(1, 3),
    n_data=st.integers(1, 3),
    axes=st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 3),
    seed=st.integers(0, 10),
)
def test_any_mixture_of_axes_of_length_one_broadcasts(
    n_samples: int, n_data: int, axes: tuple[tuple[bool, bool], ...], seed: int
) -> None:
    """Values [K or 1, B or 1, ·] score like their expansions; x [1, n, ·] with z [m, 1, ·] gives all m·n pairs."""
    network = stack(seed)
    full = {name: site.value for name, site in network.walk({}, noise(network, n_samples, n_data, seed)).items()}
    values, expanded = {}, {}
    for (name, value), (few_samples, few_data) in zip(full.items(), axes, strict=True):
        values[name] = value[: 1 if few_samples else None, : 1 if few_data else None]
        expanded[name] = values[name].expand(n_samples, n_data, -1)
    found, expected = network.walk(values, {}), by_hand(network, expanded)
    for name in network.variables:
        log_prob = found[name].log_prob
        assert log_prob.dim() == 2
        np.testing.assert_allclose(log_prob.detach().expand(n_samples, n_data), expected[name], **EXACT)


def test_all_pairs_of_a_full_covariance_child() -> None:
    network = BeliefNetwork([Conditional("x", ["z1"], net(2, 9, 0), FullGaussian(3))])
    for value in network.parameters():
        value.data.mul_(0.4)
    source = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, 3, generator=source, dtype=torch.float64)
    z = torch.randn(4, 1, 2, generator=source, dtype=torch.float64)
    found = network.walk({"x": x, "z1": z}, {})["x"].log_prob
    assert found.shape == (4, 5)
    for k in range(4):
        distribution = network["x"]({"z1": z[k, 0]})
        expected = stats.multivariate_normal(
            distribution.mean.detach(), distribution.covariance_matrix.detach()
        ).logpdf(x[0])
        np.testing.assert_allclose(found[k].detach(), expected, **EXACT)


@pytest.mark.parametrize("stranger", ["x", None, 3])
def test_a_stranger_among_the_conditionals_is_named(stranger: object) -> None:
    with pytest.raises(TypeError, match=f"made of Conditionals in ancestral order; got {stranger!r}"):
        BeliefNetwork([stranger])  # type: ignore[list-item]
