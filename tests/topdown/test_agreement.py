"""The net of `examples/vdvae.py`, written by a user, and the house's stack of blocks: same weights, same numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional as F

from hvae import HVAE, Bernoulli, BlockStyle, ResidualDecoder, ResidualPosterior, rng
from hvae.foreign.stack import Stack
from hvae.topdown import Body
from tests.foreign.examples import example

vdvae = example("vdvae")
ONE = Body(kernels=(3,), leading=False)
AFTER_GELU = Body(kernels=(3,))
SIZES = (1, 1, 2, 2, 4, 4, 8, 8)
BLOCKS = "1x2,2m1,2x1,4m2,4x1,8m4,8x1"


def log_variance(numbers: Tensor) -> Tensor:
    """Of the example's ``softplus(log_scale + 1/2) + 0.001``."""
    return 2 * (F.softplus(numbers + 0.5) + 1e-3).log()


STYLE = BlockStyle(
    width=vdvae.WIDTH, channels=vdvae.UNITS, prior=ONE, posterior=ONE, residual=AFTER_GELU,
    upward=Body(kernels=(3,), smallest=0), features=False, start_up_to=1, out_kernel=3, log_variance=log_variance,
)  # fmt: skip


def house(net: Any) -> HVAE:
    """The example's net as a stack of blocks, with its weights."""
    source = torch.Generator()
    decoder = ResidualDecoder((8, 8), BLOCKS, Bernoulli(64), STYLE, source=source)
    posterior = ResidualPosterior(decoder, "8d2,4d2,2d2", source=source)
    pairs: list[tuple[nn.Module, nn.Module]] = [(decoder.to_x, net.to_x), (posterior.upward.into, net.into)]
    pairs += [(block.net[-1], conv) for block, conv in zip(posterior.upward.blocks, net.down, strict=True)]
    for name, theirs in net.blocks.items():
        ours = decoder.block(name)
        pairs += [(ours.prior[-1], theirs.prior_net), (ours.project, theirs.project)]
        pairs += [(ours.residual[-1], theirs.residual[-1]), (posterior.nets[name][-1], theirs.posterior_net)]
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    with torch.no_grad():
        decoder.block("z8").start.copy_(net.start[0])
    n_weights = sum(weight.numel() for weight in net.parameters())
    gain_and_bias = 2 * vdvae.WIDTH
    assert (
        sum(weight.numel() for weight in decoder.parameters())
        + sum(weight.numel() for weight in posterior.parameters())
        == n_weights + gain_and_bias
    )
    return HVAE(decoder, posterior).double().eval()


@pytest.fixture(scope="module")
def net() -> Any:
    """A few steps of training, so that no part stands where it began."""
    torch.manual_seed(0)
    return vdvae.trained(vdvae.TopDown(SIZES), vdvae.digits()[:200], 30).double().eval()


@torch.no_grad()
def test_the_same_weights_give_the_same_elbo_and_the_same_kl_of_each_layer(net: Any) -> None:
    """By the author's own loop, on the same noise."""
    images, model = vdvae.digits()[-20:].double(), house(net)
    noise = rng.noise(model.noise_specs(), 3, len(images), seed=0, purpose="test", dtype=torch.float64)
    evidence = model(images.flatten(1).unsqueeze(0), noise)
    for k in range(3):
        activations, total = net.upward(images), torch.zeros(len(images), dtype=torch.float64)
        h = net.start.expand(len(images), -1, -1, -1)
        for name, block in net.blocks.items():
            h = block.widen(h)
            p, q = block.prior(h), block.posterior(h, activations[block.size])
            divergence = kl_divergence(q, p).flatten(1).sum(1)
            torch.testing.assert_close(evidence.kl(name)[k], divergence, rtol=1e-10, atol=1e-10)
            z = q.mean + q.stddev * noise[name][k].reshape(q.mean.shape)
            torch.testing.assert_close(evidence.q[name].value[k], z.flatten(1), rtol=1e-10, atol=1e-10)
            total, h = total - divergence, block.below(h, z)
        log_px = torch.distributions.Bernoulli(logits=net.to_x(h)).log_prob(images).flatten(1).sum(1)
        ours = -evidence.distortion[k] - sum(evidence.kl(name)[k] for name in model.latents)
        torch.testing.assert_close(ours, total + log_px, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_and_the_same_log_weights_as_through_the_users_door(net: Any) -> None:
    images, model = vdvae.digits()[-12:].double(), house(net)
    through = Stack.of(vdvae.as_model(net), {"x": images})
    noise = rng.noise(model.noise_specs(), 4, len(images), seed=0, purpose="test", dtype=torch.float64)
    found, expected = model(images.flatten(1).unsqueeze(0), noise), through(through.numbers.unsqueeze(0), noise)
    for name in model.latents:
        torch.testing.assert_close(found.rate(name), expected.rate(name).double(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.log_weight, expected.log_weight, rtol=1e-10, atol=1e-10)


def test_gradients_agree_too(net: Any) -> None:
    images, model = vdvae.digits()[-6:].double(), house(net)
    noise = rng.noise(model.noise_specs(), 1, len(images), seed=0, purpose="test", dtype=torch.float64)
    through = Stack.of(vdvae.as_model(net), {"x": images})
    net.zero_grad()
    model(images.flatten(1).unsqueeze(0), noise).log_weight.sum().backward()
    through(through.numbers.unsqueeze(0), noise).log_weight.sum().backward()
    for name, theirs in net.blocks.items():
        ours = model.decoder.block(name)
        for mine, other in ((ours.prior[-1], theirs.prior_net), (ours.project, theirs.project)):
            torch.testing.assert_close(mine.weight.grad, other.weight.grad, rtol=1e-8, atol=1e-8)
