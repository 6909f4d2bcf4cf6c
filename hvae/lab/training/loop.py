"""Training: one configuration from R seeds at once, in one function read top to bottom.

The parameters of R unchanged single models are stacked along a leading axis and the step is
vmapped over them. Minibatches, binarisation and noise are functions of (seed, step), so replica r
equals the model trained alone, nothing random is stored, and a run that is killed and started
again gives the same numbers bit for bit on the same machine.

A replica with a loss or gradient that is not finite is stopped at its last finite parameters. Its
gradient and first moment become 0, so Adam leaves them alone; the others go on. A weight that a step
does not train (`assembly.trainable`) has no gradient there, so neither it nor its moments change, in
any replica. Only logging waits for the device.
"""

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from hvae import rng
from hvae.data import Dataset
from hvae.diagnostics.units import active_on_batch
from hvae.errors import ConfigError
from hvae.evidence import HVAE, Evidence
from hvae.lab.assembly import build_hvae, build_objective, check_batch_size, relax, trainable
from hvae.lab.config import ObjectiveConfig, RunConfig
from hvae.lab.runs.checkpoints import latest_checkpoint, save_checkpoint
from hvae.lab.runs.run import Run
from hvae.lab.training.board import Board
from hvae.lab.training.health import Health
from hvae.lab.training.interrupts import Interrupted, stop_requests
from hvae.nets import BatchNorm, estimate_constants
from hvae.objectives import Objective
from hvae.rng import NoiseSpecs
from hvae.vocabulary import ACTIVE_VARIANCE


def train(run: Run, data: Dataset, *, device: str = "cpu", progress: bool = True) -> None:
    """Train the run to its last step, from its newest checkpoint if it has one.

    Leaves a final checkpoint that holds, with batch normalisation, the constants of one pass over
    the training data. Raises `ConfigError` for data that do not fit and `Interrupted` after a
    SIGINT or SIGTERM, once the step in hand is saved.
    """
    config = run.config
    steps, seeds = config.training, config.training.seeds
    check_batch_size(steps.batch_size, data)
    models = [build_hvae(config.model, data, seed=seed).to(device) for seed in seeds]
    templates = {stage.from_step: Step.of(models[0], stage.objective) for stage in config.stages}
    trainable_at = trainable(steps, models[0])
    parameters, buffers = stack_module_state(models)
    latest = {name: value.detach() for name, value in parameters.items()}
    averaged = {name: value.clone() for name, value in latest.items()} if steps.ema_decay > 0 else latest
    optimiser = torch.optim.Adam(list(parameters.values()), eps=steps.adam_epsilon, fused=True)
    health = Health(len(seeds), (*models[0].latents, "x"), tuple(parameters), device)
    first = 0
    found = latest_checkpoint(run, device)
    if found is not None:
        first, state = found
        stored = {"averaged": averaged} if steps.ema_decay > 0 else {}
        for kind, tensors in {"parameters": latest, "buffers": buffers, **stored}.items():
            for name, value in tensors.items():
                value.copy_(state[kind][name])
        optimiser.load_state_dict(state["optimiser"])
        health.load(state["health"])
    if first >= steps.n_steps:
        return
    run.truncate_metrics(first)
    images = data.train.to(device)

    def step_loss(
        parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, noise: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        weights = [{f"model.{name}": value for name, value in kind.items()} for kind in (parameters, buffers)]
        loss, evidence = functional_call(template, tuple(weights), (x, dict(noise), step - stage.from_step))
        return loss, summary(evidence, units=logging)

    with (
        Board(run, seeds, first) as board,
        stop_requests() as stop,
        tqdm(
            total=steps.n_steps, initial=first, desc=run.label, unit="step", disable=None if progress else True
        ) as bar,
    ):
        for step in range(first, steps.n_steps):
            logging = (step + 1) % steps.log_every_steps == 0 or step + 1 == steps.n_steps
            stage = config.stage_at(step)
            template = templates[stage.from_step]
            specs = template.objective.noise_specs(models[0])
            x, noise = batch(images, config, models[0], step, dynamic=data.dynamic, specs=specs)
            loss, terms = vmap(step_loss, randomness="error")(parameters, buffers, x, noise)
            gradients = torch.autograd.grad(loss.sum(), list(parameters.values()))

            trained = trainable_at(step)
            squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients])  # [parameter, R]
            loss = loss.detach()
            health.check(step, loss, terms, squares)
            scale = torch.ones_like(loss)
            if steps.clip_norm > 0:
                applied = torch.tensor([name in trained for name in parameters], device=device)
                scale = (steps.clip_norm / squares[applied].sum(0).sqrt()).clamp(max=1)
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                if name not in trained:
                    value.grad = None  # Adam passes it by: its moments and its count of steps stay
                    continue
                per_replica = (-1,) + (1,) * (value.dim() - 1)
                clipped = gradient.contiguous() * scale.view(per_replica)  # fused Adam misreads other strides
                value.grad = torch.where(health.alive.view(per_replica), clipped, torch.zeros_like(clipped))
                moment = optimiser.state[value].get("exp_avg")
                if moment is not None:
                    moment.mul_(health.alive.view(per_replica))
            optimiser.param_groups[0]["lr"] = stage.learning_rate(step - stage.from_step)
            optimiser.step()
            if steps.ema_decay > 0:
                torch._foreach_lerp_(list(averaged.values()), list(latest.values()), 1 - steps.ema_decay)

            if logging:
                row = record(step + 1, stage.objective.beta(step - stage.from_step), loss, terms)
                run.append_metrics([row])
                board.scalars(row)
                for message in health.news(seeds):
                    tqdm.write(message, file=sys.stderr)
                bar.update(step + 1 - bar.n)
                bar.set_postfix_str(f"ELBO {torch.nanmean(terms['bound_nats']).item():.2f} nats")
            last = step + 1 == steps.n_steps
            if last or stop.requested or (step + 1) % steps.checkpoint_every_steps == 0:
                if last:
                    settle(models, averaged, buffers, images, config, data.dynamic)
                save_checkpoint(
                    run,
                    step + 1,
                    {
                        "parameters": latest,
                        "averaged": averaged,
                        "buffers": buffers,
                        "optimiser": optimiser.state_dict(),
                        "health": health.state(),
                    },
                )
                board.heat_map(step + 1)
                for replica, model in enumerate(models):
                    _load(model, averaged, buffers, replica)
                    board.pictures(model, replica, seeds[replica], data, step + 1)
            if stop.requested and not last:
                raise Interrupted(f"{run.label} stopped after step {step + 1}; the same command goes on from there.")


class Step(nn.Module):
    """A model and its objective, as a module with weights that can be exchanged for a call.

    Raises `UnsuitedError` where the objective refuses the model.
    """

    def __init__(self, model: HVAE, objective: Objective) -> None:
        super().__init__()
        objective.refuse(model)
        self.model = model
        self.objective = objective

    @staticmethod
    def of(model: HVAE, config: ObjectiveConfig) -> "Step":
        """A copy of the model without weights of its own, and the objective of ``config``."""
        template = relax(copy.deepcopy(model).to("meta"), config)
        return Step(template, build_objective(config, model.latents))

    def forward(self, x: Tensor, noise: Mapping[str, Tensor], step: int) -> tuple[Tensor, Evidence]:
        return self.objective.on(self.model, x, noise, step)


@dataclass(frozen=True)
class Trained:
    """What the newest checkpoint of a run holds."""

    step: int
    models: list[HVAE]
    """the R models in evaluation mode, with averaged weights if they were asked for"""
    health: Health

    @property
    def alive(self) -> list[bool]:
        """Which replicas were finite so far."""
        return [bool(alive) for alive in self.health.alive.tolist()]


def load_trained(run: Run, data: Dataset, device: str = "cpu") -> Trained:
    """Read the newest checkpoint. Raises `ConfigError` where there is none."""
    found = latest_checkpoint(run, device)
    if found is None:
        raise ConfigError(f"{run.path} has no checkpoint; train it first with `hvae train`.")
    step, state = found
    config, seeds = run.config, run.config.training.seeds
    weights = state["averaged"] if config.training.ema_decay > 0 else state["parameters"]
    models = [build_hvae(config.model, data, seed=seed).to(device).eval() for seed in seeds]
    for replica, model in enumerate(models):
        _load(model, weights, state["buffers"], replica)
    health = Health(len(seeds), (*models[0].latents, "x"), tuple(weights), device)
    health.load(state["health"])
    return Trained(step, models, health)


def batch(
    images: Tensor,
    config: RunConfig,
    model: HVAE,
    step: int,
    *,
    dynamic: bool,
    seeds: Sequence[int] = (),
    specs: NoiseSpecs | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minibatch ``[R, 1, B, D]`` and noise ``[R, K, B, ·]`` of a step, from each replica's own seed (or ``seeds``).

    The noise is that of one visit of the latents, or of ``specs`` where an objective takes more.

    An epoch is a random order of the data, cut into batches. Images that do not fill a batch wait for
    the next epoch. Dynamic binarisation draws each pixel again every time an image is seen.
    """
    n_batch, device = config.training.batch_size, str(images.device)
    epoch, position = divmod(step, len(images) // n_batch)
    xs, noises = [], []
    for seed in seeds or config.training.seeds:
        x = images[_order(len(images), seed, epoch, device)[position * n_batch : (position + 1) * n_batch]]
        if dynamic:
            source = rng.generator(seed, "binarise", step, device=device)
            x = (torch.rand(x.shape, generator=source, device=device) < x).to(x.dtype)
        xs.append(x.unsqueeze(0))
        noises.append(
            rng.noise(
                specs or model.noise_specs(), config.stage_at(step).objective.n_samples, n_batch,
                seed=seed, purpose="train", step=step, device=device,
            )
        )  # fmt: skip
    return torch.stack(xs), {name: torch.stack([noise[name] for noise in noises]) for name in noises[0]}


@lru_cache(maxsize=64)
def _order(n: int, seed: int, epoch: int, device: str) -> Tensor:
    """The order of an epoch, kept for as many seeds as are likely to train at once."""
    return rng.permutation(n, seed=seed, purpose="order", step=epoch, device=device)


def summary(evidence: Evidence, *, units: bool) -> dict[str, Tensor]:
    """The record of a batch, as tensors: means over samples and data in nats; with ``units`` also per unit."""
    terms = {"distortion_nats": evidence.distortion.mean()}
    for name in evidence.latents:
        terms[f"rate_nats/{name}"] = evidence.rate(name).mean()
    terms["bound_nats"] = -sum(terms.values(), start=torch.zeros_like(terms["distortion_nats"]))
    if units:
        for name in evidence.latents:
            site = evidence.q[name]
            mean = site.mean.expand(*site.value.shape)[0]
            terms[f"active_units/{name}"] = (site.family.per_unit(mean.var(0)) > ACTIVE_VARIANCE).sum()
            if site.family.factorised and evidence.p[name].family.factorised:
                terms[f"rate_unit_nats/{name}"] = evidence.unit_rate(name).mean((0, 1))
        terms |= active_on_batch(evidence)
    return {name: term.detach() for name, term in terms.items()}


def record(step: int, beta: float, loss: Tensor, terms: Mapping[str, Tensor]) -> dict[str, Any]:
    """One row of metrics: every entry but step and beta has the replica axis first."""
    row: dict[str, Any] = {"step": step, "beta": beta, "loss_nats": loss.tolist()}
    return row | {name: term.tolist() for name, term in terms.items()}


def settle(
    models: Sequence[HVAE],
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    images: Tensor,
    config: RunConfig,
    dynamic: bool,
) -> None:
    """Write into ``buffers`` the batch-norm constants of each replica, from one pass over the training data."""
    if not any(isinstance(module, BatchNorm) for module in models[0].modules()):
        return
    per_epoch = len(images) // config.training.batch_size
    start = -(-config.training.n_steps // per_epoch) * per_epoch  # the first epoch that training did not touch
    for replica, model in enumerate(models):
        _load(model, weights, buffers, replica)
        seeds = config.training.seeds[replica : replica + 1]

        def one_pass(model: HVAE = model, seeds: Sequence[int] = seeds) -> None:
            for step in range(start, start + per_epoch):
                x, noise = batch(images, config, model, step, dynamic=dynamic, seeds=seeds)
                model(x[0], {name: value[0] for name, value in noise.items()})

        estimate_constants(model, one_pass)
        for name, value in model.named_buffers():
            buffers[name][replica] = value


def _load(model: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], replica: int) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name][replica])
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name][replica])
