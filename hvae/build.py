"""From configuration to objects. The only module that knows both.

The net between layer l-1 and l has the hidden widths ``model.hidden[l-1]`` upward; the decoder
mirrors them. The decoder's output bias starts at the data's mean, so that training starts from the
best model without latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvae import families, nets
from hvae.config import ConfigError, ModelConfig, ObjectiveConfig, Variance, per_layer
from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives import DoublyReparametrised, Elbo, Iwae, Objective, StickingTheLanding
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
    source = generator(seed, "init")
    names = latent_names(config)
    n_layers = len(names)
    hidden = per_layer("model.hidden", config.hidden, n_layers)
    kinds = per_layer("model.families", config.families, n_layers)
    activations = per_layer("model.activation", config.activation, n_layers)
    inits = per_layer("model.init", config.init, n_layers)
    norms = per_layer("model.batch_norm", config.batch_norm, n_layers)
    n_pixels = data.train.shape[1]

    def latent(layer: int, variance: Variance = config.latent_variance) -> Family:
        match kinds[layer]:
            case "gaussian":
                return families.DiagonalGaussian(config.latents[layer], variance=variance)
            case "full-gaussian":
                return families.FullGaussian(config.latents[layer], variance=variance)
            case "bernoulli":
                return families.Bernoulli(config.latents[layer])
            case "categorical":
                return families.Categorical(config.latents[layer], config.n_classes)

    def observation() -> Family:
        if config.observation == "bernoulli":
            return families.Bernoulli(n_pixels)
        return families.DiagonalGaussian(n_pixels, variance=config.observation_variance)

    def net(layer: int, n_in: int, n_outputs: int, widths: Sequence[int]) -> nn.Sequential:
        return nets.mlp(
            n_in,
            widths,
            n_outputs,
            activation=nets.ACTIVATIONS[activations[layer]],
            initialise=nets.INITIALISERS[inits[layer]],
            source=source,
            batch_norm=norms[layer],
        )

    upward = []
    for layer, name in enumerate(names):
        family, n_in = latent(layer), latent(layer - 1).width if layer else n_pixels
        parent = names[layer - 1] if layer else "x"
        upward.append(Conditional(name, [parent], net(layer, n_in, family.n_outputs, hidden[layer]), family))

    top = latent(n_layers - 1, variance="network")  # N(0, I) is mean 0 and log-variance 0, fixed or learned
    downward = [Conditional(names[-1], [], nets.Root(top.standard_outputs(), learned=config.prior == "learned"), top)]
    for layer in range(n_layers - 1, -1, -1):
        family = latent(layer - 1) if layer else observation()
        child = names[layer - 1] if layer else "x"
        mirrored = net(layer, latent(layer).width, family.n_outputs, hidden[layer][::-1])
        downward.append(Conditional(child, [names[layer]], mirrored, family))
    _start_at_mean(downward[-1], data)
    posterior: Posterior
    posterior = Ladder(BeliefNetwork(upward)) if config.order == "top-down" else NetworkPosterior(BeliefNetwork(upward))
    return HVAE(BeliefNetwork(downward), posterior)


def build_objective(config: ObjectiveConfig, names: tuple[str, ...]) -> Objective:
    """The objective of ``config`` for the latents ``names``."""
    layer_beta = dict(zip(names, per_layer("objective.layer_beta", config.layer_beta, len(names)), strict=True))
    if config.name == "iwae":
        iwae = Iwae(config.beta, layer_beta)
        return DoublyReparametrised(iwae) if config.gradient == "doubly-reparametrised" else iwae
    free_nats = dict(zip(names, per_layer("objective.free_nats", config.free_nats, len(names)), strict=True))
    elbo = Elbo(config.beta, layer_beta, free_nats)
    return StickingTheLanding(elbo) if config.gradient == "sticking-the-landing" else elbo


def check_observation(config: ModelConfig, data: Dataset) -> None:
    """Refuse a law of x that cannot have made the data."""
    if config.observation == "bernoulli" and data.kind != "binary":
        binarise = "" if data.kind == "real" else f", or binarise the images with data.name {data.name}:dynamic"
        if data.kind == "grey" and data.name.endswith("-grey"):
            binarise = f", or take data.name {data.name.removesuffix('-grey')}-dynamic"
        raise ConfigError(
            f"model.observation is bernoulli, but {data.name} holds {data.kind} values; "
            f"use model.observation gaussian{binarise}."
        )
    if config.observation == "gaussian" and data.kind == "binary":
        raise ConfigError(
            f"model.observation is gaussian, but {data.name} holds 0/1 values, where a density has no upper bound; "
            "use model.observation bernoulli."
        )


def check_batch_size(batch_size: int, data: Dataset) -> None:
    """Refuse a batch that the training images do not fill."""
    if batch_size > len(data.train):
        raise ConfigError(
            f"training.batch_size is {batch_size}, but {data.name} has {len(data.train)} training images; "
            "give a smaller batch."
        )


def _start_at_mean(conditional: Conditional, data: Dataset) -> None:
    """Output bias at the data's mean: its logit for coins (clamped to ±5), itself for Gaussians."""
    mean: Tensor = data.train.mean(0)
    assert isinstance(conditional.net, nn.Sequential)
    output = conditional.net[-1]
    assert isinstance(output, nn.Linear)
    start = torch.logit(mean, eps=1e-6).clamp(-5, 5) if isinstance(conditional.family, families.Bernoulli) else mean
    with torch.no_grad():
        output.bias[: len(start)].copy_(start)
