"""A stack of conditionals, upward and downward.

The decoder mirrors the encoder's nets (`hvae.build.nets`); with generative skips each of its conditionals sees all
layers above, the nearest first (Dieng et al. 2019, section 3). The decoder's output bias starts at the data's mean, so
that training starts from the best model without latents.
"""

import torch
from torch import Tensor, nn

from hvae import families, nets
from hvae.build.checks import check_image, check_observation, refuse_unbuilt
from hvae.build.laws import latent_law, observation_law, prior_law
from hvae.build.nets import Nets
from hvae.config import ModelConfig, per_layer
from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.network import BeliefNetwork, Conditional
from hvae.posterior import Ladder, NetworkPosterior, Posterior
from hvae.rng import generator


def latent_names(config: ModelConfig) -> tuple[str, ...]:
    """``z1 … zL``."""
    return tuple(f"z{layer}" for layer in range(1, len(config.latents) + 1))


def build_hvae(config: ModelConfig, data: Dataset, *, seed: int) -> HVAE:
    """The stack of ``config`` for ``data``, initialised from ``seed``.

    Raises `ConfigError` where the observation's family does not fit the data.
    """
    check_observation(config, data)
    check_image(config, data)
    refuse_unbuilt(config)
    source = generator(seed, "init")
    names = latent_names(config)
    n_layers = len(names)
    kinds = per_layer("model.families", config.families, n_layers)
    made = Nets(config, data, source)
    n_pixels = data.train.shape[1]

    def latent(layer: int) -> Family:
        return latent_law(config, kinds[layer], config.latents[layer], source)

    upward: list[Conditional] = []
    for layer, name in enumerate(names):
        family, n_in = latent(layer), upward[-1].family.width if layer else n_pixels
        parent = names[layer - 1] if layer else "x"
        upward.append(Conditional(name, [parent], made.upward(layer, n_in, family), family))

    top = prior_law(config, kinds[-1], source)
    downward = [Conditional(names[-1], [], nets.Root(top.standard_outputs(), learned=config.prior == "learned"), top)]
    for layer in range(n_layers - 1, -1, -1):
        family = latent(layer - 1) if layer else observation_law(config, n_pixels)
        child = names[layer - 1] if layer else "x"
        seen = downward[::-1] if config.generative_skips else downward[-1:]
        net = made.downward(layer, sum(above.family.width for above in seen), family)
        downward.append(Conditional(child, [above.name for above in seen], net, family))
    _start_at_mean(downward[-1], data)
    posterior: Posterior
    posterior = Ladder(BeliefNetwork(upward)) if config.order == "top-down" else NetworkPosterior(BeliefNetwork(upward))
    return HVAE(BeliefNetwork(downward), posterior)


def _start_at_mean(conditional: Conditional, data: Dataset) -> None:
    """Output bias at the data's mean: its logit for coins (clamped to ±5), itself for Gaussians."""
    mean: Tensor = data.train.mean(0)
    assert isinstance(conditional.net, nn.Sequential)
    bias = conditional.net[-1].bias
    assert isinstance(bias, Tensor)
    start = torch.logit(mean, eps=1e-6).clamp(-5, 5) if isinstance(conditional.family, families.Bernoulli) else mean
    with torch.no_grad():
        bias[: len(start)].copy_(start)
