"""Encoders trained at frozen decoders: every inference order at one p.

One decoder has one log p(x), so for any two posteriors

    KL(q(z|x) ‖ p(z|x)) - KL(q'(z|x) ‖ p(z|x)) = ELBO(q') - ELBO(q),

and ELBOs rank orders, with no estimate of log p(x). A decoder has moved to where its own order fits (Cremer, Li and
Duvenaud 2018). So every answer names the order that trained the decoder. Nats.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from hvae.data import Dataset
from hvae.errors import ConfigError
from hvae.evidence import DECODER, HVAE
from hvae.lab.assembly import build_hvae, build_objective, relax
from hvae.lab.config import RunConfig
from hvae.lab.training.loop import Step, batch
from hvae.nets import BatchNorm, PseudoInputs
from hvae.network import Decoder


def with_encoders(decoders: Sequence[Decoder], data: Dataset, config: RunConfig) -> list[HVAE]:
    """A copy of each decoder with a new encoder of ``config.model``, from the next seed of ``config``.

    Raises `ConfigError` for options that tie a decoder to its first encoder.
    """
    models = []
    for decoder, seed in zip(decoders, config.training.seeds, strict=True):
        model = HVAE(copy.deepcopy(decoder), build_hvae(config.model, data, seed=seed).posterior)
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
    the one that is refitted alone. A replica that becomes non-finite stays so.
    """
    steps, images = config.training, data.train
    objective = build_objective(config.objective, models[0].latents)
    template = Step(relax(copy.deepcopy(models[0]).to("meta"), config.objective), objective)
    weights, buffers = stack_module_state(list(models))
    free = {name: weights[name] for name, owner in models[0].owners.items() if owner != DECODER}
    still = {name: value.detach() for name, value in weights.items() if name not in free} | buffers
    specs = objective.noise_specs(models[0])

    def step_loss(
        free: Mapping[str, Tensor], still: Mapping[str, Tensor], x: Tensor, noise: Mapping[str, Tensor]
    ) -> Tensor:
        values = [{f"model.{name}": value for name, value in kind.items()} for kind in (free, still)]
        loss: Tensor = functional_call(template, tuple(values), (x, dict(noise), step))[0]
        return loss

    optimiser = torch.optim.Adam(list(free.values()), fused=True)
    for step in range(steps.n_steps):
        x, noise = batch(images, config, models[0], step, dynamic=data.dynamic, specs=specs)
        loss = vmap(step_loss, randomness="error")(free, still, x, noise)
        gradients = torch.autograd.grad(loss.sum(), list(free.values()))
        norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        scale = (steps.clip_norm / norm).clamp(max=1) if steps.clip_norm > 0 else torch.ones_like(norm)
        for value, gradient in zip(free.values(), gradients, strict=True):
            value.grad = gradient.contiguous() * scale.view(-1, *(1,) * (value.dim() - 1))
        optimiser.param_groups[0]["lr"] = steps.learning_rate(step) * (1 + math.cos(math.pi * step / steps.n_steps)) / 2
        optimiser.step()

    made = [copy.deepcopy(model).eval() for model in models]
    for replica, model in enumerate(made):
        model.load_state_dict({name: value[replica].detach() for name, value in free.items()}, strict=False)
    return made
