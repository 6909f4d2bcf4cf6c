"""Weights of a VDVAE checkpoint: p and q of every layer are those of the layout, by an implementation of its own here.

The checkpoint is made here, by names and shapes of the public one (`hvae.topdown.checkpoint` lists them); the
arithmetic is `conv2d` on a dictionary of states by resolution, as the paper's figure 3 draws it.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hvae import HVAE, Bernoulli, ConfigError, DiagonalGaussian, DiscretisedLogisticMixture, from_vdvae, rng
from hvae.evidence import Evidence
from hvae.nets import Standardised
from hvae.topdown.checkpoint import as_vdvae

DEC, ENC = "1x1,4m1,4x1,8m4,8x1", "8x1,8d2,4x2,4d4,1x1"
DEC_AT = [(1, None), (4, 1), (4, None), (8, 4), (8, None)]
ENC_AT = [(8, None), (8, 2), (4, None), (4, None), (4, 4), (1, None)]
Z, WIDTH = 3, 8
State = dict[str, Tensor]


def checkpoint(colours: int, n_out: int, widths: dict[int, int]) -> State:
    """Random weights, none of which is 0."""
    source, found = torch.Generator().manual_seed(0), {}

    def conv(name: str, n_in: int, n_out: int, kernel: int) -> None:
        found[f"{name}.weight"] = torch.randn(n_out, n_in, kernel, kernel, generator=source, dtype=torch.float64)
        found[f"{name}.weight"] *= 0.7 / (n_in * kernel**2) ** 0.5
        found[f"{name}.bias"] = 0.1 * torch.randn(n_out, generator=source, dtype=torch.float64)

    def block(name: str, n_in: int, middle: int, n_out: int, at: int) -> None:
        kernel = 3 if at > 2 else 1
        for number, (a, b, k) in enumerate(
            [(n_in, middle, 1), (middle, middle, kernel), (middle, middle, kernel), (middle, n_out, 1)], 1
        ):
            conv(f"{name}.c{number}", a, b, k)

    def width(at: int) -> int:
        return widths.get(at, WIDTH)

    conv("encoder.in_conv", colours, WIDTH, 3)
    for number, (at, _) in enumerate(ENC_AT):
        block(f"encoder.enc_blocks.{number}", width(at), width(at) // 4, width(at), at)
    for number, (at, _) in enumerate(DEC_AT):
        prefix, w = f"decoder.dec_blocks.{number}", width(at)
        block(f"{prefix}.enc", 2 * w, w // 4, 2 * Z, at)
        block(f"{prefix}.prior", w, w // 4, 2 * Z + w, at)
        block(f"{prefix}.resnet", w, w // 4, w, at)
        conv(f"{prefix}.z_proj", Z, w, 1)
    for number, at in enumerate((1, 4)):  # no_bias_above = 4
        found[f"decoder.bias_xs.{number}"] = torch.randn(1, width(at), at, at, generator=source, dtype=torch.float64)
    for name in ("gain", "bias"):
        found[f"decoder.{name}"] = torch.randn(1, WIDTH, 1, 1, generator=source, dtype=torch.float64)
    conv("decoder.out_net.out_conv", WIDTH, n_out, 1)
    return found


def conv(state: State, name: str, h: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(h, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def net(state: State, name: str, h: Tensor) -> Tensor:
    for number in range(1, 5):
        h = conv(state, f"{name}.c{number}", F.gelu(h))
    return h


def plainly(
    state: State, x: Tensor, drawn: Callable[[int, Tensor, Tensor], Tensor], widths: dict[int, int]
) -> tuple[list[tuple[Tensor, ...]], Tensor]:
    """Of every layer, z_L first, (mean, log-scale) of q and of p; and what comes out of the last convolution."""
    h = conv(state, "encoder.in_conv", x)
    seen = {8: h}
    for number, (_, down) in enumerate(ENC_AT):
        h = h + net(state, f"encoder.enc_blocks.{number}", h)
        if down is not None:
            h = F.avg_pool2d(h, down)
            wider = widths.get(h.shape[-1], WIDTH) - h.shape[1]
            h = torch.cat([h, h.new_zeros(len(h), wider, *h.shape[2:])], 1)
        seen[h.shape[-1]] = h
    states = {1: state["decoder.bias_xs.0"], 4: state["decoder.bias_xs.1"], 8: torch.zeros(1, WIDTH, 8, 8).double()}
    found = []
    for number, (at, mixed) in enumerate(DEC_AT):
        prefix, h = f"decoder.dec_blocks.{number}", states[at].expand(len(x), -1, -1, -1)
        if mixed is not None:
            h = h + F.interpolate(states[mixed][:, : h.shape[1]], scale_factor=at // mixed)
        q = net(state, f"{prefix}.enc", torch.cat([h, seen[at]], 1)).chunk(2, 1)
        features = net(state, f"{prefix}.prior", h)
        found.append((*q, features[:, :Z], features[:, Z : 2 * Z]))
        h = h + features[:, 2 * Z :] + conv(state, f"{prefix}.z_proj", drawn(number, *q))
        states[at] = h + net(state, f"{prefix}.resnet", h)
    return found, conv(state, "decoder.out_net.out_conv", states[8] * state["decoder.gain"] + state["decoder.bias"])


def kl(mean: Tensor, log_scale: Tensor, other: Tensor, its: Tensor) -> Tensor:
    terms = -0.5 + its - log_scale + 0.5 * ((2 * log_scale).exp() + (mean - other) ** 2) / (2 * its).exp()
    return terms.flatten(1).sum(1)


@pytest.mark.parametrize("widths", [{}, {1: 12, 4: 12}], ids=["one width", "widths"])
def test_p_and_q_of_every_layer_are_those_of_the_layout(widths: dict[int, int]) -> None:
    """On the same noise, one-coloured images, at a scale of their own; the prefix of parallel training is dropped."""
    state = checkpoint(1, 1, widths)
    scale = Standardised(torch.full((64,), 0.25), torch.full((64,), 0.5))
    model = from_vdvae({f"module.{name}": value for name, value in state.items()}, DEC, ENC, Bernoulli(64), entry=scale)
    images = (torch.rand(6, 64, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    noise = rng.noise(model.noise_specs(), 1, 6, seed=0, purpose="test", dtype=torch.float64)
    names = model.decoder.variables

    def drawn(number: int, mean: Tensor, log_scale: Tensor) -> Tensor:
        return mean + log_scale.exp() * noise[names[number]][0].reshape(mean.shape)

    with torch.no_grad():
        evidence = model(images.unsqueeze(0), noise)
        expected, logits = plainly(state, ((images - 0.25) / 0.5).reshape(-1, 1, 8, 8), drawn, widths)
    assert len(expected) == len(model.latents) == 5
    for name, (mean, log_scale, p_mean, p_log_scale) in zip(names, expected, strict=False):
        for site, its in ((evidence.q[name], (mean, log_scale)), (evidence.p[name], (p_mean, p_log_scale))):
            torch.testing.assert_close(site.mean.expand(1, 6, -1)[0], its[0].flatten(1), rtol=1e-10, atol=1e-10)
            spread = site.distribution.stddev.expand(1, 6, -1)[0]
            torch.testing.assert_close(spread, its[1].exp().flatten(1), rtol=1e-10, atol=1e-10)
        divergence = kl(mean, log_scale, p_mean, p_log_scale)
        torch.testing.assert_close(evidence.kl(name)[0], divergence, rtol=1e-10, atol=1e-10)
        assert divergence.min() > 0.01
    log_px = -F.binary_cross_entropy_with_logits(logits.flatten(1), images, reduction="none").sum(1)
    torch.testing.assert_close(-evidence.distortion[0], log_px, rtol=1e-10, atol=1e-10)


def both(model: HVAE, state: State, images: Tensor) -> tuple[Evidence, Tensor]:
    """What the model says of images ``[B, C, H, W]``, and the numbers of x by plain convolutions of the same draws."""
    noise = rng.noise(model.noise_specs(), 1, len(images), seed=0, purpose="test", dtype=torch.float64)

    def drawn(number: int, mean: Tensor, log_scale: Tensor) -> Tensor:
        return mean + log_scale.exp() * noise[model.decoder.names[number]][0].reshape(mean.shape)

    with torch.no_grad():
        evidence = model(images.flatten(1).unsqueeze(0), noise)
        _, numbers = plainly(state, images, drawn, {})
    return evidence, numbers


def test_colours_and_several_numbers_a_pixel() -> None:
    """Six outputs a pixel: the means of three colours, then their log-variances."""
    state = checkpoint(3, 6, {})
    model = from_vdvae(state, DEC, ENC, DiagonalGaussian(192))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    evidence, numbers = both(model, state, images)
    mean, log_variance = numbers[:, :3], numbers[:, 3:]
    log_px = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(-evidence.distortion[0], log_px, rtol=1e-10, atol=1e-10)


def mixture_by_hand(numbers: Tensor, images: Tensor, n_components: int) -> Tensor:
    """log P of images of bytes ``[B, 3, H, W]``, from 10 K numbers of each pixel ``[B, 10 K, H, W]``: K logits, then
    for red, green and blue K means, K log-scales and K couplings."""
    k, v = n_components, 2 * images - 1
    share, rest = numbers[:, :k].softmax(1), numbers[:, k:].unflatten(1, (3, 3, k))
    red, green, blue = rest.unbind(1)
    slopes = [part[:, 2].tanh() for part in (red, green, blue)]
    means = [
        red[:, 0],
        green[:, 0] + slopes[0] * v[:, :1],
        blue[:, 0] + slopes[1] * v[:, :1] + slopes[2] * v[:, 1:2],
    ]
    for colour, (part, mean) in enumerate(zip((red, green, blue), means, strict=True)):
        share = share * chance(v[:, colour : colour + 1], mean, part[:, 1])
    return share.sum(1).log().flatten(1).sum(1)


def chance(v: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Of the bin of a byte, by a difference of sigmoids."""
    scale = log_scale.clamp(min=-7).exp()
    upper = torch.where(v > 0.999, 1.0, ((v + 1 / 255 - mean) / scale).sigmoid())
    lower = torch.where(v < -0.999, 0.0, ((v - 1 / 255 - mean) / scale).sigmoid())
    return upper - lower


@pytest.mark.parametrize(("colours", "n_components"), [(3, 10), (3, 3), (1, 10)])
def test_the_mixture_of_logistics_of_the_public_checkpoints(colours: int, n_components: int) -> None:
    """100 numbers a pixel, in the order of their last convolution; grey images have 30."""
    state = checkpoint(colours, n_components * (10 if colours == 3 else 3), {})
    shape = (3, 8, 8) if colours == 3 else (8, 8)
    model = from_vdvae(state, DEC, ENC, DiscretisedLogisticMixture(shape, n_components=n_components))
    source = torch.Generator().manual_seed(1)
    images = torch.randint(256, (4, colours, 8, 8), generator=source).double() / 255
    images[0, :, 0, 0], images[1, :, 1, 1] = 0.0, 1.0
    evidence, numbers = both(model, state, images)
    if colours == 3:
        expected = mixture_by_hand(numbers, images, n_components)
    else:
        logits, mean, log_scale = numbers.split(n_components, 1)
        expected = (logits.softmax(1) * chance(2 * images - 1, mean, log_scale)).sum(1).log().flatten(1).sum(1)
    torch.testing.assert_close(-evidence.distortion[0], expected, rtol=1e-10, atol=1e-10)
    specs = model.decoder.noise_specs()
    sampled = model.decoder.walk({}, rng.noise(specs, 1, 4, seed=0, purpose="test", dtype=torch.float64))["x"].value
    assert sampled.shape == (1, 4, colours * 64) and ((sampled * 255).round() / 255 - sampled).abs().max() < 1e-12


def test_what_was_loaded_has_the_names_and_numbers_of_the_layout() -> None:
    state = checkpoint(1, 1, {})
    again = as_vdvae(from_vdvae(state, DEC, ENC, Bernoulli(64)))
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)


FIRST = "decoder.dec_blocks.0.z_proj.weight"
THEIRS = "give its own dec_blocks and enc_blocks"
REFUSED: dict[str, tuple[Callable[[State], object], str, str, str]] = {
    "no dictionary": (list, DEC, ENC, "no dictionary of tensors; give the state dict of a VDVAE"),
    "nested": (lambda state: {"model": state}, DEC, ENC, "no dictionary of tensors"),
    "another model": (lambda _: {"fc.weight": torch.zeros(3, 3)}, DEC, ENC, "no convolution encoder.in_conv.weight"),
    "flat weights": (lambda state: state | {FIRST: torch.zeros(3)}, DEC, ENC, f"has no convolution {FIRST}"),
    "a weight is missing": (
        lambda state: {name: value for name, value in state.items() if name != "decoder.dec_blocks.2.enc.c3.bias"},
        DEC, ENC, "has no decoder.dec_blocks.2.enc.c3.bias, which the blocks",
    ),
    "too few blocks of the decoder": (lambda state: state, "1x1,4m1,8m4,8x1", ENC, THEIRS),
    "too many": (lambda state: state, "1x1,4m1,4x1,8m4,8x2", ENC, "has no decoder.dec_blocks.5"),
    "other blocks of the encoder": (lambda state: state, DEC, "8x1,8d2,4x1,4d4,1x1", THEIRS),
    "another resolution": (lambda state: state, "1x1,2m1,4m2,8m4,8x1", "8x1,8d2,4d2,2d2,1x2", "has the shape"),
    "another size": (lambda state: state, "1x1,16m1", ENC, "the image of 8 rows is too small for resolution 16"),
    "a weight that nothing reads": (
        lambda state: state | {"decoder.extra": torch.zeros(1)}, DEC, ENC, "has decoder.extra, which the blocks"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "decoder", "encoder", "why"), REFUSED.values(), ids=REFUSED)
def test_a_checkpoint_of_another_layout_is_refused(
    change: Callable[[State], State], decoder: str, encoder: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as refusal:
        from_vdvae(change(checkpoint(1, 1, {})), decoder, encoder, Bernoulli(64))
    assert "\n" not in str(refusal.value)


def test_numbers_of_x_that_the_family_does_not_read_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"out_conv.weight has the shape \[10, 8, 1, 1\] in the checkpoint, and \[1,"):
        from_vdvae(checkpoint(1, 10, {}), DEC, ENC, Bernoulli(64))
    with pytest.raises(ConfigError, match=r"has the shape \[10, 8, 1, 1\] in the checkpoint, and \[100,"):
        from_vdvae(checkpoint(3, 10, {}), DEC, ENC, DiscretisedLogisticMixture((3, 8, 8)))
    with pytest.raises(ConfigError, match=r"is for images of shape \(8, 8, 3\), and image_shape is \(3, 8, 8\)"):
        from_vdvae(checkpoint(3, 100, {}), DEC, ENC, DiscretisedLogisticMixture((8, 8, 3)))
    with pytest.raises(ConfigError, match="image of 4 rows is too small for resolution 8"):
        from_vdvae(checkpoint(3, 6, {}), DEC, ENC, DiagonalGaussian(64))
