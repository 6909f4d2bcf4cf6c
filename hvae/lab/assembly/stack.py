"""A stack of conditionals, upward and downward.

The decoder mirrors the encoder's nets (`nets`); with generative skips each of its conditionals sees all
layers above, the nearest first (Dieng et al. 2019, section 3). Or a residual top-down stack (`blocks`). The decoder's
output bias starts at the data's mean, so that training starts from the best model without latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvae import families, nets, rng
from hvae.data import Dataset
from hvae.diagnosis.pixels import Pixels
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.lab.assembly.blocks import build_blocks, check_blocks
from hvae.lab.assembly.checks import check_image, check_observation
from hvae.lab.assembly.families import latent_family, observation_family, prior_family
from hvae.lab.assembly.nets import Nets
from hvae.lab.assembly.posteriors import build_upward, visited_in
from hvae.lab.assembly.units import check_units
from hvae.lab.config import LatentFamily, ModelConfig, per_layer
from hvae.nets.convolutional import Unfold
from hvae.network import BeliefNetwork, Conditional
from hvae.rng import NoiseSpecs, generator
from hvae.topdown import ResidualDecoder


def latent_names(config: ModelConfig) -> tuple[str, ...]:
    """``z1 … zL``."""
    return tuple(f"z{layer}" for layer in range(1, config.n_layers + 1))


def build_hvae(config: ModelConfig, data: Dataset, *, seed: int) -> HVAE:
    """The stack of ``config`` for ``data``, initialised from ``seed``.

    Raises `ConfigError` where the distribution of x, or the layers, do not fit the data.
    """
    check_observation(config, data)
    check_units(config, data)
    check_image(config, data)
    source = generator(seed, "init")
    names = latent_names(config)
    n_layers = len(names)
    kinds = per_layer("model.families", config.families, n_layers)
    made = Nets(config, data, source)
    n_pixels = data.train.shape[1]
    if config.blocks is not None:
        check_blocks(config.blocks, data)
        observation = observation_family(config, data.image_shape)
        model = build_blocks(config.blocks, data.image_shape, observation, source, made.seen)
        assert isinstance(model.decoder, ResidualDecoder)
        pixels = model.decoder.pixels
        colours = Unfold(pixels)(data.train.mean(0)).mean((-2, -1))  # a convolution's bias serves every pixel
        one = observation_family(config, Pixels(1, 1, pixels.channels).shape)
        _start_at_mean(model.decoder.to_x.bias, one, colours, len(data.train))
        return model

    def latent(layer: int, kinds: Sequence[LatentFamily]) -> Family:
        return latent_family(config, kinds[layer], config.latents[layer], source)

    upward = build_upward(config, names, n_pixels, lambda layer: latent(layer, config.distributions_upward), made)
    if config.prior == "vamp":
        downward = [_vamp_prior(config, upward, data, seed)]
    else:
        top = prior_family(config, kinds[-1], source)
        root = nets.Root(top.standard_outputs(), learned=config.prior == "learned")
        downward = [Conditional(names[-1], [], root, top)]
    for layer in range(n_layers - 1, -1, -1):
        family = latent(layer - 1, kinds) if layer else observation_family(config, data.image_shape, made.units)
        child = names[layer - 1] if layer else "x"
        seen = downward[::-1] if config.generative_skips else downward[-1:]
        net = made.downward(layer, sum(above.family.width for above in seen), family)
        downward.append(Conditional(child, [above.name for above in seen], net, family))
    last = downward[-1]
    assert isinstance(last.net, nn.Sequential)
    _start_at_mean(last.net[-1].bias, last.family, data.train.mean(0), len(data.train))
    return HVAE(BeliefNetwork(downward), visited_in(config.order, BeliefNetwork(upward)))


def _vamp_prior(config: ModelConfig, upward: Sequence[Conditional], data: Dataset, seed: int) -> Conditional:
    """``p(z_L) = 1/C Σ_c q(z_L | u_c)`` (Tomczak and Welling 2018, equation 9), q the last of ``upward``, shared.

    A pseudo-input u_c has a value for every parent of z_L in the encoder. It starts as a training image, drawn at
    random; for latent parents, as a draw from their standard distribution.
    """
    top, n = upward[-1], config.n_pseudo_inputs
    assert isinstance(top.family, families.DiagonalGaussian)
    distributions = {conditional.name: conditional.family for conditional in upward if conditional.name in top.parents}
    specs: NoiseSpecs = {
        name: (distribution.noise, distribution.noise_width) for name, distribution in distributions.items()
    }
    noise = rng.noise(specs, 1, n, seed=seed, purpose="pseudo-inputs")
    chosen = torch.randint(len(data.train), (n,), generator=generator(seed, "pseudo-inputs/x"))
    values = {"x": data.train[chosen]}
    for name, distribution in distributions.items():
        values[name] = distribution.kin.draw(distribution.kin.standard(noise[name]), noise[name])[0]
    inputs, net = torch.cat([values[parent] for parent in top.parents], dim=-1), top.net
    assert isinstance(net, nn.Sequential)
    if isinstance(net[0], nets.Standardised | nets.LogCounts):  # learned as the net sees them, in no units
        inputs, net = net[0](inputs), net[1:]
    return Conditional(top.name, [], nets.PseudoInputs(inputs, net), families.EqualMixture(top.family, n))


def _start_at_mean(bias: object, family: Family, mean: Tensor, n: int) -> None:
    """Output bias at the ``mean`` of n data, for every number of x or for every colour.

    Its logit (clamped to ±5) for a Bernoulli observation; for counts its logarithm, with half a count added in all;
    for a standardised one 0. The components of a mixture lie around it.
    """
    assert isinstance(bias, Tensor)
    match family:
        case families.Bernoulli():
            start = torch.logit(mean, eps=1e-6).clamp(-5, 5)
        case families.Poisson() | families.NegativeBinomial():
            start = (mean + 0.5 / n).log()
        case families.DiscretisedLogisticMixture():
            start = family.outputs_at(mean)
        case families.DiagonalGaussian(shift=Tensor()):
            start = torch.zeros_like(mean)
        case _:
            start = mean
    with torch.no_grad():
        bias[: len(start)].copy_(start)
