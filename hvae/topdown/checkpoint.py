"""Weights of a public VDVAE checkpoint (Child 2021, github.com/openai/vdvae) as a stack of blocks.

    encoder.in_conv                              the convolution of x
    encoder.enc_blocks.N.c1 … c4                 block N of the upward pass
    decoder.dec_blocks.N.enc.c1 … c4             q of block N, of h and the activations side by side
    decoder.dec_blocks.N.prior.c1 … c4           p of block N: means, log-scales, features
    decoder.dec_blocks.N.z_proj                  W
    decoder.dec_blocks.N.resnet.c1 … c4          the residual net
    decoder.bias_xs.N                            starts, from the smallest resolution up
    decoder.gain, decoder.bias                   of the state before the last convolution
    decoder.out_net.out_conv                     the numbers of the distribution of x

Block 0 of the decoder is zL. What its weights do not tell, such as the lists of blocks, is given by hand.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.grammar import Kind, parse
from hvae.nets.convolutional import Convolution
from hvae.topdown.blocks import BlockStyle, Body, UpwardBlock, from_log_scale
from hvae.topdown.decoder import ResidualDecoder
from hvae.topdown.posterior import ResidualPosterior

IN, OUT = "encoder.in_conv.weight", "decoder.out_net.out_conv.weight"
FIRST = "decoder.dec_blocks.0.z_proj.weight"
BLOCKS = "give its own dec_blocks and enc_blocks"
LAYOUT = "give the state dict of a VDVAE, with encoder.in_conv, encoder.enc_blocks and decoder.dec_blocks"


def from_vdvae(
    state: Mapping[str, Tensor],
    decoder: str,
    encoder: str,
    observation: Family,
    *,
    entry: nn.Module | None = None,
    bottleneck: float = 0.25,
) -> HVAE:
    """The model whose weights are ``state``, as `torch.load` gives it from a checkpoint of VDVAE.

    ``decoder`` and ``encoder`` are its lists of blocks (``dec_blocks``, ``enc_blocks`` there), ``bottleneck`` its
    ``bottleneck_multiple``. x is distributed by ``observation``, which reads the numbers of the last convolution in the
    order that it says; k numbers of each of C colours are first all C of the first number, then of the second. Images
    of three colours are ``[3, H, W]``. ``entry`` brings x to the scale that the encoder was trained on.

    p and q of every latent are the checkpoint's, up to rounding, while log-variances stay within ±20. x of the public
    checkpoints is distributed by a `hvae.DiscretisedLogisticMixture` of the shape ``(3, H, W)``.
    Raises `ConfigError`, one sentence, for a state of another layout, and for blocks that are not its own.

    >>> import hvae, torch
    >>> from hvae.topdown.checkpoint import as_vdvae
    >>> style, source = hvae.BlockStyle(width=8, channels=2), torch.Generator()
    >>> p = hvae.ResidualDecoder((4, 4), "1x1,4m1", hvae.Bernoulli(16), style, source=source)
    >>> model = hvae.HVAE(p, hvae.ResidualPosterior(p, "4x1,4d4,1x1", source=source))
    >>> again = hvae.from_vdvae(as_vdvae(model), "1x1,4m1", "4x1,4d4,1x1", hvae.Bernoulli(16))
    >>> torch.equal(again.decoder.block("z1").project.weight, p.block("z1").project.weight)
    True
    """
    own = _weights(state)
    model = _model(own, decoder, encoder, observation, entry, bottleneck).to(own[IN].dtype)
    expected = _tensors(model)
    _check(own, expected, f"the blocks '{decoder}' and '{encoder}'")
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(own[name])
    return model


def as_vdvae(model: HVAE) -> dict[str, Tensor]:
    """The weights of a residual stack of four convolutions a net, under the names of a VDVAE checkpoint."""
    return {name: value.detach().clone() for name, value in _tensors(model).items()}


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name, without the prefix of a model that was trained on several devices."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"the checkpoint is no dictionary of tensors; {LAYOUT}.")
    own = {name.removeprefix("module."): value for name, value in state.items()}
    for name in (IN, OUT, FIRST):
        if name not in own or own[name].dim() != 4:
            raise ConfigError(f"the checkpoint has no convolution {name}; {LAYOUT}.")
    return own


def _model(
    own: Mapping[str, Tensor], decoder: str, encoder: str, observation: Family, entry: nn.Module | None,
    bottleneck: float,
) -> HVAE:  # fmt: skip
    """A stack of the checkpoint's shapes."""
    colours = own[IN].shape[1]
    side = math.isqrt(observation.width // colours)
    shape, body = (side, side) if colours == 1 else (colours, side, side), Body(bottleneck=bottleneck)
    widths: dict[int, int] = {}
    parts: list[tuple[Kind, str, str]] = [
        ("encoder", encoder, "encoder.enc_blocks.{}.c1.weight"),
        ("decoder", decoder, "decoder.dec_blocks.{}.prior.c1.weight"),
    ]
    for kind, text, key in parts:
        for number, place in enumerate(parse(kind, text, max(side, 1))):
            weight = own.get(key.format(number))
            widths |= {} if weight is None else {place.resolution: weight.shape[1]}
    starts = [value.shape[-1] for name, value in own.items() if name.startswith("decoder.bias_xs.")]
    style = BlockStyle(
        width=own[IN].shape[0], channels=own[FIRST].shape[1], widths=widths, prior=body, posterior=body, residual=body,
        upward=body, start_up_to=max(starts, default=0), out_kernel=own[OUT].shape[-1], log_variance=from_log_scale,
    )  # fmt: skip
    source = torch.Generator()
    p = ResidualDecoder(shape, decoder, observation, style, source=source)
    return HVAE(p, ResidualPosterior(p, encoder, source=source, entry=entry))


def _check(own: Mapping[str, Tensor], expected: Mapping[str, Tensor], blocks: str) -> None:
    """Refuse weights that are missing, of another shape, or left over."""
    for name, value in expected.items():
        if name not in own:
            raise ConfigError(f"the checkpoint has no {name}, which {blocks} have; {BLOCKS}.")
        if own[name].shape != value.shape:
            raise ConfigError(
                f"{name} has the shape {list(own[name].shape)} in the checkpoint, and {list(value.shape)} by {blocks}; "
                f"{BLOCKS}, its bottleneck, and a family of x with as many numbers."
            )
    for name in own:
        if name not in expected:
            raise ConfigError(f"the checkpoint has {name}, which {blocks} do not have; {BLOCKS}.")


def _tensors(model: HVAE) -> dict[str, Tensor]:
    """The weights of a stack, by the names of the layout."""
    decoder, posterior = model.decoder, model.posterior
    assert isinstance(decoder, ResidualDecoder) and isinstance(posterior, ResidualPosterior)
    nets: dict[str, nn.Module] = {"encoder.in_conv": posterior.upward.into, "decoder.out_net.out_conv": decoder.to_x}
    found: dict[str, Tensor] = {"decoder.gain": decoder.gain[None], "decoder.bias": decoder.bias[None]}
    for number, block in enumerate(posterior.upward.blocks):
        assert isinstance(block, UpwardBlock)
        nets |= _convolutions(f"encoder.enc_blocks.{number}", block.net)
    starts = []
    for number, name in enumerate(decoder.names):
        own, prefix = decoder.block(name), f"decoder.dec_blocks.{number}"
        nets[f"{prefix}.z_proj"] = own.project
        for part, net in (("enc", posterior.nets[name]), ("prior", own.prior), ("resnet", own.residual)):
            nets |= _convolutions(f"{prefix}.{part}", net)
        starts += [] if own.start is None else [own.start]
    found |= {f"decoder.bias_xs.{number}": start[None] for number, start in enumerate(starts)}
    for name, net in nets.items():
        found |= {f"{name}.{key}": value for key, value in net.named_parameters()}
    return found


def _convolutions(prefix: str, net: nn.Module) -> dict[str, nn.Module]:
    layers = [layer for layer in net.children() if isinstance(layer, Convolution)]
    return {f"{prefix}.c{place}": layer for place, layer in enumerate(layers, 1)}
