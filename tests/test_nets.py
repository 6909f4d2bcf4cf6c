"""Nets against numpy: what they compute, how they start, and which statistics batch normalisation uses when."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hvae.nets import ACTIVATIONS, INITIALISERS, BatchNorm, Root, estimate_constants, kaiming, mlp, orthogonal, xavier
from tests.statistics import assert_mean

NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda h: np.maximum(h, 0),
    "leaky-relu": lambda h: np.where(h > 0, h, 0.01 * h),
    "elu": lambda h: np.where(h > 0, h, np.expm1(h)),
    "softplus": lambda h: special.logsumexp([h, 0 * h], axis=0),
}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=source(seed), dtype=torch.float64)


def net(hidden: Sequence[int] = (5, 3), *, activation: str = "tanh", batch_norm: bool = False) -> nn.Sequential:
    made = mlp(
        4, hidden, 2, activation=ACTIVATIONS[activation], initialise=xavier, source=source(), batch_norm=batch_norm
    )
    return made.double()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_mlp_is_what_numpy_says(activation: str) -> None:
    made, h = net(activation=activation), normal(2, 7, 4)
    weights = [value.detach().numpy() for value in made.parameters()]
    assert [w.shape for w in weights] == [(5, 4), (5,), (3, 5), (3,), (2, 3), (2,)]
    expected = h.numpy()
    for i in (0, 2, 4):
        expected = expected @ weights[i].T + weights[i + 1]
        expected = NUMPY[activation](expected) if i < 4 else expected
    np.testing.assert_allclose(made(h).detach(), expected, atol=1e-12)


def test_without_hidden_layers_a_net_is_linear() -> None:
    (layer,) = net(())
    assert isinstance(layer, nn.Linear) and layer.weight.shape == (2, 4)


def test_roots_answer_the_same_always_and_learn_only_if_asked() -> None:
    outputs = torch.arange(3.0)
    learned, fixed = Root(outputs, learned=True), Root(outputs, learned=False)
    assert torch.equal(learned(), outputs) and torch.equal(fixed(), outputs)
    assert [len(list(root.parameters())) for root in (learned, fixed)] == [1, 0]
    assert list(fixed.state_dict()) == ["outputs"]
    outputs += 1
    assert learned()[0] == fixed()[0] == 0  # copies


@pytest.mark.parametrize(("n_in", "n_out"), [(300, 100), (100, 300)])
def test_initial_weights_have_the_variance_of_their_papers(n_in: int, n_out: int) -> None:
    limit = math.sqrt(6 / (n_in + n_out))
    for initialise, variance in ((xavier, limit**2 / 3), (kaiming, 2 / n_in)):
        weight = torch.empty(n_out, n_in)
        initialise(weight, source())
        assert_mean(weight.flatten() / math.sqrt(variance), 0, detect=0.07)
        assert_mean(weight.flatten() ** 2 / variance, 1, detect=0.09)
    weight = torch.empty(n_out, n_in)
    xavier(weight, source())
    assert 0.999 * limit < weight.abs().max() <= limit
    orthogonal(weight, source())
    product = weight @ weight.T if n_out < n_in else weight.T @ weight
    torch.testing.assert_close(product, torch.eye(min(n_in, n_out)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("init", INITIALISERS)
def test_a_net_starts_from_its_generator_with_biases_at_zero(init: str) -> None:
    def make(seed: int) -> nn.Sequential:
        return mlp(4, (5,), 2, activation=nn.Tanh, initialise=INITIALISERS[init], source=source(seed))

    torch.manual_seed(1)
    first, again, other = make(3), make(3), make(4)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert (a == 0).all() if name.endswith("bias") else (a != c).any()


def test_layers_before_batch_norm_have_no_bias_and_the_output_is_not_normalised() -> None:
    made = net(batch_norm=True)
    kinds = [type(layer) for layer in made]
    assert kinds == [nn.Linear, BatchNorm, nn.Tanh, nn.Linear, BatchNorm, nn.Tanh, nn.Linear]
    assert [layer.bias is not None for layer in made if isinstance(layer, nn.Linear)] == [False, False, True]


def normalise(h: np.ndarray, mean: np.ndarray, variance: np.ndarray, layer: BatchNorm) -> np.ndarray:
    scale, shift = layer.scale.detach().numpy(), layer.shift.detach().numpy()
    return scale * (h - mean) / np.sqrt(variance + 1e-5) + shift


def batch_norm() -> BatchNorm:
    layer = BatchNorm(3).double()
    layer.scale.data.copy_(normal(3, seed=1))
    layer.shift.data.copy_(normal(3, seed=2))
    return layer


def test_batch_norm_uses_the_batch_in_training_and_its_constants_in_evaluation() -> None:
    layer, h = batch_norm(), 3 * normal(2, 7, 3) + 1
    flat = h.numpy().reshape(14, 3)  # statistics over samples and data together
    expected = normalise(h.numpy(), flat.mean(0), flat.var(0), layer)
    np.testing.assert_allclose(layer(h).detach(), expected, atol=1e-12)
    assert torch.equal(layer.mean, torch.zeros(3)) and torch.equal(layer.variance, torch.ones(3))  # no running average
    layer.eval()
    np.testing.assert_allclose(layer(h).detach(), normalise(h.numpy(), np.zeros(3), np.ones(3), layer), atol=1e-12)
    layer.mean.copy_(torch.tensor([1.0, -2, 3]))
    layer.variance.copy_(torch.tensor([4.0, 0.5, 9]))
    expected = normalise(h.numpy(), np.array([1.0, -2, 3]), np.array([4.0, 0.5, 9]), layer)
    np.testing.assert_allclose(layer(h).detach(), expected, atol=1e-12)
    np.testing.assert_allclose(layer(h[:, :1]).detach(), expected[:, :1], atol=1e-12)  # data do not see each other


def test_batch_norm_keeps_replicas_apart_under_vmap() -> None:
    layers = [batch_norm(), batch_norm()]
    layers[1].scale.data.mul_(2)
    parameters, buffers = stack_module_state(layers)
    h = normal(2, 4, 7, 3)
    template = BatchNorm(3).to("meta")
    found = vmap(lambda p, b, h: functional_call(template, (p, b), (h,)), randomness="error")(parameters, buffers, h)
    for replica in range(2):
        torch.testing.assert_close(found[replica], layers[replica](h[replica]), atol=1e-12, rtol=0)


def test_constants_are_the_moments_of_one_pass_whatever_the_batches() -> None:
    made = net(batch_norm=True)
    batches = [normal(2, 6, 4, seed=3), 5 * normal(1, 3, 4, seed=4) + 2, normal(4, 5, 4, seed=5)]
    before = [value.clone() for value in made.parameters()]
    made.eval()
    estimate_constants(made, lambda: [made(batch) for batch in batches] and None)
    assert not made.training
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    first, second = made[1], made[4]
    assert isinstance(first, BatchNorm) and isinstance(second, BatchNorm)
    w0, w1 = (made[i].weight.detach().numpy() for i in (0, 3))
    seen, deeper = [], []
    for batch in batches:  # each layer sees its inputs normalised with the batch's own statistics
        h = batch.numpy().reshape(-1, 4) @ w0.T
        seen.append(h)
        deeper.append(np.tanh(normalise(h, h.mean(0), h.var(0), first)) @ w1.T)
    for layer, inputs in ((first, np.concatenate(seen)), (second, np.concatenate(deeper))):
        np.testing.assert_allclose(layer.mean, inputs.mean(0), atol=1e-12)
        np.testing.assert_allclose(layer.variance, inputs.var(0), atol=1e-12)


def test_constants_stay_where_nothing_was_shown() -> None:
    made = net(batch_norm=True)
    estimate_constants(made, lambda: None)
    assert isinstance(made[1], BatchNorm) and torch.equal(made[1].variance, torch.ones(5).double())
