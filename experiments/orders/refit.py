"""Encoders trained at frozen decoders: every inference order at one p.

One decoder has one log p(x), so for any two posteriors

    KL(q(z|x) ‖ p(z|x)) - KL(q'(z|x) ‖ p(z|x)) = ELBO(q') - ELBO(q),

and ELBOs rank orders, with no estimate of log p(x). A decoder has moved to where its own order fits (Cremer, Li and
Duvenaud 2018). So every answer names the order that trained the decoder. Nats.
"""

import collections
import copy
import math
from collections.abc import Sequence

from hvae.data import Dataset
from hvae.errors import ConfigError
from hvae.evidence import DECODER, HVAE
from hvae.fitting import fit
from hvae.lab.assembly import build_hvae, build_objective, relaxation
from hvae.lab.config import RunConfig
from hvae.lab.training.loop import batch
from hvae.nets import BatchNorm, PseudoInputs
from hvae.network import Decoder


def with_encoders(decoders: Sequence[Decoder], data: Dataset, config: RunConfig) -> list[HVAE]:
    """A copy of each decoder with a new encoder of ``config.model``, from the next seed of ``config``.

    Raises `ConfigError` for options that tie a decoder to its first encoder.
    """
    models = []
    for decoder, seed in zip(decoders, config.training.seeds, strict=True):
        posterior = build_hvae(config.model, data, seed=seed).posterior.to(next(decoder.parameters()).device)
        model = HVAE(copy.deepcopy(decoder), posterior)
        if any(isinstance(module, BatchNorm) for module in model.modules()):
            raise ConfigError("model.batch_norm is on, and no encoder can change its constants; turn it off.")
        if any(isinstance(module, PseudoInputs) for module in model.decoder.modules()):
            raise ConfigError("model.prior is vamp, made of the encoder's distribution; take standard or learned.")
        models.append(model)
    return models


def refit(models: Sequence[HVAE], data: Dataset, config: RunConfig) -> list[HVAE]:
    """The models after training of their encoders alone, in evaluation mode; decoders stay bit for bit the same.

    ``config`` gives the objective, and of training the seeds (one a model), steps, batches, clipping and learning
    rate. The rate falls to 0 along half a cosine, so the noise of the last steps averages out. Replica r of R equals
    the one that is refitted alone. A replica that becomes non-finite has only NaN in its encoder, as nothing is to
    measure where it stopped.
    """
    steps, images = config.training, data.train.to(next(models[0].parameters()).device)
    made = [copy.deepcopy(model).train() for model in models]
    for model in made:
        for name, owner in model.owners.items():
            model.get_parameter(name).requires_grad_(owner != DECODER)

    def falling(step: int) -> float:
        return steps.learning_rate(step) * (1 + math.cos(math.pi * step / steps.n_steps)) / 2

    training = fit(
        made,
        build_objective(config.objective, made[0].latents),
        lambda step: batch(images, config, step, dynamic=data.dynamic),
        n_steps=steps.n_steps,
        learning_rate=falling,
        n_samples=config.objective.n_samples,
        relaxation=relaxation(config.objective),
        seeds=steps.seeds,
        clip_norm=steps.clip_norm,
    )
    collections.deque(training, maxlen=0)
    for model, alive in zip(made, training.health.alive.tolist(), strict=True):
        for weight in model.parameters():
            if weight.requires_grad and not alive:
                weight.data.fill_(math.nan)
        model.requires_grad_(True)
    return made
