"""Stacks whose nets are linear, so that all is known: the joint distribution of z and x is one dense Gaussian.

Its mean and covariance are made here in numpy, by carrying the state as an affine function of all latents. Nothing of
the stack is called for them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hvae import HVAE, BlockStyle, DiagonalGaussian, rng
from hvae.likelihood.importance import log_likelihood_curve
from hvae.topdown import Body
from tests.statistics import assert_mean
from tests.topdown.stacks import stack

LINEAR = Body(kernels=(1,), leading=False)
WIDTH = 7
Array = np.ndarray


def linear(blocks: str, side: int, channels: int = 2, **style: Any) -> HVAE:
    """In float64; variances of p and q do not move with what is seen."""
    bodies = {part: LINEAR for part in ("prior", "posterior", "residual", "upward")}
    form = BlockStyle(width=WIDTH, channels=channels, **bodies, **style)
    x = DiagonalGaussian(side * side, variance="learned")
    model = stack(blocks, side=side, observation=x, style=form, spread=0.3).double()
    with torch.no_grad():
        for net in (*(model.decoder.block(name).prior for name in model.latents), *model.posterior.nets.values()):
            net[-1].weight[channels : 2 * channels] = 0
    return model.requires_grad_(False)


def weights(convolution: Any) -> tuple[Array, Array]:
    return convolution.weight.numpy()[:, :, 0, 0], convolution.bias.numpy()


@dataclass
class Affine:
    """``A z + b`` for all latents z ``[Z]``: A is ``[channels, R, R, Z]``, b ``[channels, R, R]``."""

    A: Array
    b: Array

    def then(self, convolution: Any, rows: slice = slice(None)) -> "Affine":
        weight, bias = (each[rows] for each in weights(convolution))
        return Affine(
            np.einsum("oi,ijkz->ojkz", weight, self.A), np.einsum("oi,ijk->ojk", weight, self.b) + bias[:, None, None]
        )

    def __add__(self, other: "Affine") -> "Affine":
        return Affine(self.A + other.A, self.b + other.b)

    def larger(self, side: int) -> "Affine":
        times = side // self.A.shape[1]
        return Affine(*(each.repeat(times, 1).repeat(times, 2) for each in (self.A, self.b)))


def unrolled(model: HVAE) -> tuple[dict[str, Affine], dict[str, Array], dict[str, slice], dict[str, Affine]]:
    """Means of every variable of p, its variances, where it stands in z, and the states, as functions of all z."""
    decoder, where, start = model.decoder, {}, 0
    C, skips = decoder.style.channels, decoder.style.skips
    for name, place in decoder.places.items():
        where[name] = slice(start, start := start + C * place.resolution**2)
    means, variances, states, h = {}, {}, {}, None
    for name, place in decoder.places.items():
        block, side = decoder.block(name), place.resolution
        begin = 0 if block.start is None else block.start.numpy()
        if h is None:
            h = Affine(np.zeros((WIDTH, side, side, start)), np.zeros((WIDTH, side, side)))
        h = h.larger(side)
        states[name] = h = Affine(h.A, h.b + begin)
        means[name] = h.then(block.prior[-1], slice(0, C))
        variances[name] = np.exp(np.repeat(weights(block.prior[-1])[1][C : 2 * C], side * side))
        z = Affine(np.eye(start)[where[name]].reshape(C, side, side, start), np.zeros((C, side, side)))
        told = z.then(block.project)
        h = h + h.then(block.prior[-1], slice(2 * C, None)) + told if skips else told
        h = h + h.then(block.residual[-1])
    gain, bias = decoder.gain.numpy(), decoder.bias.numpy()
    means["x"] = Affine(h.A * gain[..., None], h.b * gain + bias).then(decoder.to_x)
    variances["x"] = np.exp(decoder.family("x").log_variance.numpy())
    return means, variances, where, states


def dense(model: HVAE) -> tuple[Array, Array]:
    """Mean and covariance of (z_L, …, z_1, x)."""
    means, variances, _, _ = unrolled(model)
    mean, covariance = np.zeros(0), np.zeros((0, 0))
    for name, affine in means.items():
        A, b = affine.A.reshape(-1, affine.A.shape[-1])[:, : len(mean)], affine.b.reshape(-1)
        cross = A @ covariance
        mean = np.append(mean, A @ mean + b)
        covariance = np.block([[covariance, cross.T], [cross, cross @ A.T + np.diag(variances[name])]])
    return mean, covariance


def log_px(model: HVAE, x: Tensor) -> Array:
    (mean, covariance), d = dense(model), x.shape[-1]
    found: Array = stats.multivariate_normal(mean[-d:], covariance[-d:, -d:]).logpdf(x.numpy())
    return found


def data(side: int, n: int = 5) -> Tensor:
    return torch.randn(n, side * side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


BLOCKS = {"1x1 to 4x4": ("1x1,2m1,2x1,4m2,4x1", 4), "one resolution": ("2x3", 2), "threefold": ("1x2,3m1", 3)}
stacks = pytest.mark.parametrize(("blocks", "side"), BLOCKS.values(), ids=BLOCKS)


@stacks
def test_the_joint_distribution_is_the_dense_gaussian(blocks: str, side: int) -> None:
    """log p(z, x) at draws of p; and log p(x, z) less log p(z | x), both dense, is log p(x) whatever z is."""
    model = linear(blocks, side)
    noise = rng.noise(model.decoder.noise_specs(), 4, 3, seed=0, purpose="test", dtype=torch.float64)
    trace = model.decoder.walk({}, noise)
    values = torch.cat([site.value for site in trace.values()], dim=-1).numpy()
    found = sum(site.log_prob for site in trace.values())
    mean, covariance = dense(model)
    np.testing.assert_allclose(found, stats.multivariate_normal(mean, covariance).logpdf(values), atol=1e-9)


@stacks
def test_the_posterior_and_each_layers_kl(blocks: str, side: int) -> None:
    """q is a function of the state and of x: both by numpy, and the KL of two Gaussians by its formula."""
    model, x = linear(blocks, side), data(side)
    evidence = model(x.unsqueeze(0), rng.noise(model.noise_specs(), 3, len(x), seed=0, purpose="test", dtype=x.dtype))
    z = np.concatenate([evidence.p[name].value.numpy() for name in model.decoder.names], -1)  # [K, B, Z]
    means, variances, where, states = unrolled(model)
    upward, decoder, C = model.posterior.upward, model.decoder, model.decoder.style.channels
    a = _three_by_three(upward.into, x.numpy().reshape(-1, 1, side, side))
    seen = {side: a}
    for block in upward.blocks:
        weight, bias = weights(block.net[-1])
        a = a + np.einsum("oi,bijk->bojk", weight, a) + bias[:, None, None]
        times = block.place.other or 1
        a = a.reshape(*a.shape[:2], a.shape[2] // times, times, a.shape[3] // times, times).mean((3, 5))
        seen[a.shape[-1]] = a
    for name, place in decoder.places.items():
        at, own = place.resolution, slice(where[name].start, where[name].stop)
        h = np.einsum("ijkz,sbz->sbijk", states[name].A, z) + states[name].b
        both = np.concatenate([h, np.broadcast_to(seen[at], (*h.shape[:2], *seen[at].shape[1:]))], 2)
        weight, bias = weights(model.posterior.nets[name][-1])
        q_mean = (np.einsum("oi,sbijk->sbojk", weight, both) + bias[:, None, None])[:, :, :C].reshape(*z.shape[:2], -1)
        p_mean = (np.einsum("ijkz,sbz->sbijk", means[name].A, z) + means[name].b).reshape(*z.shape[:2], -1)
        q_variance = np.exp(np.repeat(bias[C:], at * at))
        ratio = q_variance / variances[name]
        kl = ((q_mean - p_mean) ** 2 / variances[name] + ratio - 1 - np.log(ratio)).sum(-1) / 2
        np.testing.assert_allclose(evidence.kl(name), kl, atol=1e-10)
        log_q = stats.norm(q_mean, np.sqrt(q_variance)).logpdf(z[..., own]).sum(-1)
        log_p = stats.norm(p_mean, np.sqrt(variances[name])).logpdf(z[..., own]).sum(-1)
        np.testing.assert_allclose(evidence.rate(name), log_q - log_p, atol=1e-10)


def _three_by_three(convolution: Any, images: Array) -> Array:
    """A convolution with zeros around the image, pixel by pixel."""
    weight, bias = convolution.weight.numpy(), convolution.bias.numpy()
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros((len(images), len(weight), *images.shape[2:]))
    for row in range(images.shape[2]):
        for column in range(images.shape[3]):
            window = padded[:, :, row : row + 3, column : column + 3]
            found[:, :, row, column] = np.einsum("oijk,bijk->bo", weight, window) + bias
    return found


@pytest.mark.parametrize("skips", [True, False], ids=["skips", "no skips"])
def test_with_the_exact_posterior_each_weight_is_px(skips: bool) -> None:
    """At 1x1, where a net is a matrix, that of q is set to the regression of z_l on h_l and x in the dense Gaussian.

    With skips the seven channels of h_l tell all latents above; without, the one that z_l depends on.
    """
    model, x = linear("1x4", 1, channels=1, skips=skips), data(1)
    set_exact(model)
    evidence = model(x.unsqueeze(0), rng.noise(model.noise_specs(), 6, len(x), seed=0, purpose="test", dtype=x.dtype))
    np.testing.assert_allclose(evidence.log_weight, np.broadcast_to(log_px(model, x), (6, len(x))), atol=1e-10)
    curve = log_likelihood_curve(model, x, (1, 8), seed=0)
    np.testing.assert_allclose(curve.bound_datum_nats, np.stack([log_px(model, x)] * 2), atol=1e-10)


def test_a_mean_that_is_off_costs_half_its_square_in_its_layer() -> None:
    """The expected log-weight falls by s² / 2 for a mean of z_l that is off by s deviations of q, known without draws.

    It fails by chance once in a million times, and sees an error of a tenth of that.
    """
    model, x, off = linear("1x4", 1, channels=1), data(1, 1), 0.8
    set_exact(model)
    last = model.posterior.nets["z2"][-1]
    last.bias[0] += off * torch.exp(last.bias[1] / 2)
    noise = rng.noise(model.noise_specs(), 70_000, 1, seed=0, purpose="test", dtype=x.dtype)
    lost = log_px(model, x) - model(x.unsqueeze(0), noise).log_weight.flatten()
    assert_mean(lost, off**2 / 2, detect=off**2 / 20)


def set_exact(model: HVAE) -> None:
    mean, covariance = dense(model)
    _, _, where, states = unrolled(model)
    upward = model.posterior.upward
    for weight in upward.parameters():
        weight.zero_()
    upward.into.weight[0, 0, 1, 1] = 1  # the first channel of a is x
    for name, net in model.posterior.nets.items():
        own, known = [where[name].start], [*range(where[name].start), len(mean) - 1]
        gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, own)])[:, 0]
        left = covariance[own[0], own[0]] - gain @ covariance[known, own[0]]
        of_h = gain[:-1] @ np.linalg.pinv(states[name].A.reshape(WIDTH, -1)[:, : own[0]])
        constant = mean[own[0]] - gain @ mean[known] - of_h @ states[name].b.reshape(-1)
        net[-1].weight.zero_()
        net[-1].weight[0, :WIDTH, 0, 0], net[-1].weight[0, WIDTH, 0, 0] = torch.from_numpy(of_h), float(gain[-1])
        net[-1].bias.copy_(torch.tensor([constant, np.log(left)]))
