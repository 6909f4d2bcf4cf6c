"""From configuration to objects. The only module that knows both.

The net between layer l-1 and l has the hidden widths ``model.hidden[l-1]`` upward; the decoder
mirrors them. The decoder's output bias starts at the data's mean, so that training starts from the
best model without latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hvae import families, nets
from hvae.config import ConfigError, LatentFamily, ModelConfig, ObjectiveConfig, per_layer
from hvae.data import Dataset
from hvae.evidence import HVAE
from hvae.families import Family
from hvae.gradients import fill_in, leave_one_out
from hvae.network import BeliefNetwork, Conditional
from hvae.objectives import (
    Covariance,
    DoublyReparametrised,
    Elbo,
    Iwae,
    Objective,
    ReweightedWakeSleep,
    StickingTheLanding,
    SymmetricEquilibrium,
    Tvo,
    WakeSleep,
)
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

    def latent(layer: int) -> Family:
        return _latent(config, kinds[layer], config.latents[layer], source)

    def observation() -> Family:
        match config.observation:
            case "bernoulli":
                return families.Bernoulli(n_pixels)
            case "gaussian":
                return families.DiagonalGaussian(n_pixels, variance=config.observation_variance)
            case "discretised-logistic":
                n_levels, variance = config.n_levels, config.observation_variance
                return families.DiscretisedLogistic(n_pixels, n_levels=n_levels, variance=variance)

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

    upward: list[Conditional] = []
    for layer, name in enumerate(names):
        family, n_in = latent(layer), upward[-1].family.width if layer else n_pixels
        parent = names[layer - 1] if layer else "x"
        upward.append(Conditional(name, [parent], net(layer, n_in, family.n_outputs, hidden[layer]), family))

    top = _prior(config, kinds[-1], source)
    downward = [Conditional(names[-1], [], nets.Root(top.standard_outputs(), learned=config.prior == "learned"), top)]
    for layer in range(n_layers - 1, -1, -1):
        family = latent(layer - 1) if layer else observation()
        child = names[layer - 1] if layer else "x"
        mirrored = net(layer, downward[-1].family.width, family.n_outputs, hidden[layer][::-1])
        downward.append(Conditional(child, [names[layer]], mirrored, family))
    _start_at_mean(downward[-1], data)
    posterior: Posterior
    posterior = Ladder(BeliefNetwork(upward)) if config.order == "top-down" else NetworkPosterior(BeliefNetwork(upward))
    return HVAE(BeliefNetwork(downward), posterior)


def _latent(config: ModelConfig, kind: LatentFamily, units: int, source: torch.Generator) -> Family:
    """The family of a layer: what weights it has of its own are drawn from ``source``."""
    variance = config.latent_variance
    match kind:
        case "gaussian":
            return families.DiagonalGaussian(units, variance=variance)
        case "full-gaussian":
            return families.FullGaussian(units, variance=variance)
        case "bernoulli":
            return families.Bernoulli(units)
        case "categorical":
            return families.Categorical(units, config.n_classes)
        case "autoregressive-gaussian" | "autoregressive-bernoulli" | "autoregressive-categorical":
            return families.Autoregressive(_latent(config, UNIT[kind], units, source), config.n_masked, source=source)
        case "mixture":
            return families.MixtureGaussian(units, config.n_components)
        case "maf" | "nsf":
            n_hidden, n_transforms = config.n_masked, config.n_transforms
            return families.Flow(units, kind, n_hidden, n_transforms, source=source, variance=variance)


UNIT: Mapping[LatentFamily, LatentFamily] = {
    "autoregressive-gaussian": "gaussian",
    "autoregressive-bernoulli": "bernoulli",
    "autoregressive-categorical": "categorical",
    "mixture": "gaussian",
    "maf": "gaussian",
    "nsf": "gaussian",
}
"""the factorised kin of a family with weights, or components, of its own"""


def _prior(config: ModelConfig, kind: LatentFamily, source: torch.Generator) -> Family:
    """The family of p(zL): N(0, I) is mean 0 and log-variance 0, fixed or learned.

    A standard prior is of the factorised kin, which has no weights of its own that would learn to be something else.
    """
    config = replace(config, latent_variance="network")
    return _latent(config, UNIT.get(kind, kind) if config.prior == "standard" else kind, config.latents[-1], source)


def build_objective(config: ObjectiveConfig, names: tuple[str, ...]) -> Objective:
    """The objective of ``config`` for the latents ``names``."""
    layer_beta = dict(zip(names, per_layer("objective.layer_beta", config.layer_beta, len(names)), strict=True))
    match config.name:
        case "wake-sleep":
            return WakeSleep()
        case "symmetric":
            return SymmetricEquilibrium()
        case "reweighted-wake-sleep":
            return ReweightedWakeSleep(config.sleep)
        case "tvo":
            tvo = Tvo(config.partition, config.beta, layer_beta)
            return Covariance(tvo) if config.gradient == "covariance" else tvo
        case "iwae" | "vimco":
            iwae = Iwae(config.beta, layer_beta, fill_in if config.name == "vimco" else leave_one_out)
            return DoublyReparametrised(iwae) if config.gradient == "doubly-reparametrised" else iwae
        case "elbo":
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
    if config.observation == "discretised-logistic":
        if data.kind != "grey":
            raise ConfigError(
                f"model.observation is discretised-logistic, which is for grey values in steps, but {data.name} holds "
                f"{data.kind} values; use model.observation {'bernoulli' if data.kind == 'binary' else 'gaussian'}."
            )
        steps = config.n_levels - 1
        off = max(float((values * steps - (values * steps).round()).abs().max()) for values in (data.train, data.test))
        if off > 1e-3:
            raise ConfigError(
                f"model.n_levels is {config.n_levels}, but {data.name} holds values that are no multiples of "
                f"1/{steps}; give the number of its levels, or use model.observation gaussian."
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
