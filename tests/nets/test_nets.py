"""Nets against numpy: what they compute, how they start, and which statistics batch normalisation uses when."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import signal, special
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from hvae.nets import (
    ACTIVATIONS,
    INITIALISERS,
    BatchNorm,
    Capped,
    ImageNorm,
    Residual,
    Root,
    Style,
    convolutional,
    estimate_constants,
    kaiming,
    mlp,
    normalise_means,
    orthogonal,
    residual,
    transposed,
    xavier,
)
from hvae.nets.convolutional import Convolution, Transposed
from hvae.numerics import log_variance_cap
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


# Residual nets


def test_hidden_layers_that_keep_their_width_add_to_their_input() -> None:
    made = residual(5, (5, 5, 3, 3), 2, activation=nn.Tanh, initialise=xavier, source=source()).double()
    assert [type(layer) for layer in made] == [nn.Linear, nn.Tanh, Residual, nn.Linear, nn.Tanh, Residual, nn.Linear]
    w = [value.detach().numpy() for value in made.parameters()]
    x = normal(2, 7, 5)
    h = np.tanh(x.numpy() @ w[0].T + w[1])  # the first is plain, even where it keeps the width of the input
    h = h + np.tanh(h @ w[2].T + w[3])
    h = np.tanh(h @ w[4].T + w[5])  # the width changes
    h = h + np.tanh(h @ w[6].T + w[7])
    np.testing.assert_allclose(made(x).detach(), h @ w[8].T + w[9], atol=1e-12)


def test_where_no_width_is_kept_a_residual_net_is_an_mlp() -> None:
    style: Style = {"activation": nn.Tanh, "initialise": xavier, "source": source(), "batch_norm": True}
    first = residual(4, (5, 3), 2, **style)
    second = mlp(4, (5, 3), 2, **{**style, "source": source()})
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    normed = residual(4, (3, 3), 2, **style)[3]
    assert isinstance(normed, Residual)
    assert [type(layer) for layer in normed.layer] == [nn.Linear, BatchNorm, nn.Tanh]  # type: ignore[arg-type]


# Convolutional nets


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (4, 7)])
def test_a_convolution_is_a_correlation_at_every_other_pixel(shape: tuple[int, int]) -> None:
    layer = Convolution(2, 3, xavier, source()).double()
    layer.bias.data.copy_(normal(3))  # type: ignore[union-attr]
    h = normal(4, 2, *shape)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # type: ignore[union-attr]
    for image, found in zip(h.numpy(), layer(h).detach(), strict=True):
        for out in range(3):
            same = sum(signal.correlate2d(image[c], weight[out, c], mode="same") for c in range(2))
            np.testing.assert_allclose(found[out], same[::2, ::2] + bias[out], atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (4, 7), (28, 14), (1, 3)])
def test_a_transposed_convolution_is_the_adjoint(shape: tuple[int, int]) -> None:
    """<conv a, b> = <a, transposed b> with the same weights: every pixel is back where it came from, odd or even."""
    down = Convolution(2, 3, xavier, source(), bias=False).double()
    up = Transposed(3, 2, shape, xavier, source(), bias=False).double()
    up.weight.data.copy_(down.weight)
    a = normal(4, 2, *shape)
    b = normal(*down(a).shape, seed=1)
    assert up(b).shape == a.shape
    assert (down(a) * b).sum().item() == pytest.approx((a * up(b)).sum().item(), abs=1e-10)


def both_ways(
    shape: tuple[int, int], *, n_outputs: int = 1, batch_norm: bool = False, seed: int = 0
) -> tuple[nn.Sequential, nn.Sequential]:
    style: Style = {
        "activation": nn.ELU, "initialise": xavier, "source": source(seed), "batch_norm": batch_norm
    }  # fmt: skip
    up = convolutional(shape, (3, 5), (6,), 4, **style)
    down = transposed(4, (6,), (5, 3), shape, n_outputs * shape[0] * shape[1], **style)
    return up.double(), down.double()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("shape", "n_outputs"), [((28, 28), 1), ((8, 8), 2), ((7, 5), 1)])
def test_convolutional_nets_mirror_each_other(shape: tuple[int, int], n_outputs: int, batch_norm: bool) -> None:
    up, down = both_ways(shape, n_outputs=n_outputs, batch_norm=batch_norm)
    x = normal(2, 3, shape[0] * shape[1])
    z = up(x)
    outputs = down(z)
    assert z.shape == (2, 3, 4) and outputs.shape == (2, 3, n_outputs * shape[0] * shape[1])
    outputs.square().sum().backward()
    parameters = [*up.named_parameters(), *down.named_parameters()]
    assert all(value.grad is not None and value.grad.abs().max() > 0 for _, value in parameters)
    assert down[-1].bias.shape == outputs.shape[-1:]  # a bias for each pixel, which can start at the data's mean
    if not batch_norm:  # every image for itself, whatever the leading axes
        torch.testing.assert_close(down(up(x[1, 2])), outputs[1, 2], atol=1e-12, rtol=0)
        wide = x[:1].expand(5, 3, -1)
        torch.testing.assert_close(up(wide)[4], z[0], atol=1e-12, rtol=0)
    assert any(isinstance(layer, ImageNorm) for layer in down) == batch_norm


def test_channels_are_normalised_over_samples_data_and_pixels() -> None:
    layer = ImageNorm(3).double()
    layer.scale.data.copy_(normal(3, seed=1))
    h = normal(2, 5, 3, 4, 6) + 2
    rows = h.numpy().transpose(0, 1, 3, 4, 2)
    flat = rows.reshape(-1, 3)
    expected = normalise(rows, flat.mean(0), flat.var(0), layer).transpose(0, 1, 4, 2, 3)
    np.testing.assert_allclose(layer(h).detach(), expected, atol=1e-12)
    estimate_constants(layer, lambda: [layer(h)] and None)
    np.testing.assert_allclose(layer.variance, flat.var(0), atol=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_convolutional_nets_keep_replicas_apart_under_vmap(batch_norm: bool) -> None:
    models = [nn.Sequential(*both_ways((7, 6), batch_norm=batch_norm, seed=seed)) for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    template, x = nn.Sequential(*both_ways((7, 6), batch_norm=batch_norm)).to("meta"), normal(3, 2, 4, 42)
    found = vmap(lambda p, b, x: functional_call(template, (p, b), (x,)), randomness="error")(parameters, buffers, x)
    for replica, model in enumerate(models):
        torch.testing.assert_close(found[replica], model(x[replica]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_colours_stand_in_either_order(n_outputs: int) -> None:
    """The same weights read [3, rows, columns] and [rows, columns, 3], and both are a convolution of numpy's order."""
    style: Style = {"activation": nn.ELU, "initialise": xavier, "source": source(), "batch_norm": False}
    planes, pixels = (
        nn.Sequential(
            convolutional(shape, (3, 5), (6,), 4, **style),
            transposed(4, (6,), (5, 3), shape, n_outputs * 105, **style),
        ).double()
        for shape in ((3, 7, 5), (7, 5, 3))
    )
    pixels.load_state_dict(planes.state_dict())
    images = normal(2, 4, 3, 7, 5).numpy()
    first = planes(torch.from_numpy(images.reshape(2, 4, 105)))
    last = pixels(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 1, 3, 4, 2)).reshape(2, 4, 105)))
    expected = first.detach().numpy().reshape(2, 4, n_outputs, 3, 7, 5).transpose(0, 1, 2, 4, 5, 3)
    np.testing.assert_allclose(last.detach().numpy().reshape(expected.shape), expected, atol=1e-12, rtol=0)
    layer = planes[0][1]
    assert isinstance(layer, Convolution)
    middle = (layer.weight.detach().numpy() * images[1, 2, :, 1:4, 1:4]).sum((1, 2, 3))  # the pixel (2, 2)
    found = layer(planes[0][0](torch.from_numpy(images.reshape(2, 4, 105))))[1, 2, :, 1, 1]
    np.testing.assert_allclose(found.detach(), middle, atol=1e-12, rtol=0)


def test_what_is_no_image_is_refused() -> None:
    style: Style = {"activation": nn.ELU, "initialise": xavier, "source": source(), "batch_norm": False}
    with pytest.raises(ValueError, match=r"image_shape is \(4, 7, 5\); give \(rows, columns\)"):
        convolutional((4, 7, 5), (3,), (), 4, **style)


# What follows a net


def test_normalised_means_have_their_spread_and_the_rest_passes() -> None:
    plain = net()
    x, plain_outputs = normal(3, 8, 4), net()(normal(3, 8, 4)).detach().numpy()
    made = normalise_means(plain, 1, 0.5).double()
    made[-1].norm.shift.data.fill_(0.25)
    made[-1].bias.data.fill_(3.0)
    assert "4.bias" not in dict(made.named_parameters()) and "5.norm.scale" in dict(made.named_buffers())
    h = plain_outputs.reshape(-1, 2)[:, 0]
    expected = 0.5 * (plain_outputs[..., 0] - h.mean()) / np.sqrt(h.var() + 1e-5) + 0.25
    found = made(x).detach().numpy()
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(found[..., 1], plain_outputs[..., 1] + 3, atol=1e-12)
    assert np.square(found[..., 0]).mean() == pytest.approx(0.0625 + 0.25 * h.var() / (h.var() + 1e-5), abs=1e-12)
    estimate_constants(made, lambda: [made(x[:2]), made(x[2:])] and None)
    assert not made.training
    np.testing.assert_allclose(made(x).detach().numpy()[..., 0], expected, atol=1e-12)


@pytest.mark.parametrize("nats", [1e-6, 0.01, 0.5, 3.0, 8.0])
def test_capped_variances_keep_the_least_divergence_and_reach_it(nats: float) -> None:
    """(v - 1 - log v) / 2 >= nats for every output of a net, = nats far above the cap, and a gradient at both ends."""
    capped = Capped(1, log_variance_cap(nats))
    outputs = torch.cat([20 * normal(1000, 3), torch.full((1, 3), 300.0).double()]).requires_grad_()
    found = capped(outputs)
    assert torch.equal(found[:, 0], outputs[:, 0])
    log_v = found[:, 1:].detach().numpy()
    divergence = (np.expm1(log_v) - log_v) / 2
    assert divergence.min() >= nats - 1e-12
    assert divergence[-1] == pytest.approx(nats, abs=1e-12)
    far_below = capped(torch.tensor([0.0, -40.0]).double())
    assert far_below[1] == pytest.approx(-40, abs=1e-9)
    ordinary = torch.tensor([[0.0, 5.0], [0.0, -5.0]], dtype=torch.float64, requires_grad=True)
    capped(ordinary)[:, 1].sum().backward()
    assert ordinary.grad is not None and (ordinary.grad[:, 1] > 0).all()
