"""Training: one configuration from R seeds at once, in one function read top to bottom.

The parameters of R unchanged single models are stacked along a leading axis and the step is
vmapped over them. Minibatches, binarisation and noise are functions of (seed, step), so replica r
equals the model trained alone, nothing random is stored, and a run that is killed and started
again gives the same numbers bit for bit on the same machine.

A replica whose loss or gradient is not finite is stopped where it was: its gradient and first
moment become 0, so Adam leaves its parameters alone, and the others go on. Nothing in the loop
waits for the device except logging.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from hvae import rng
from hvae.board import Board
from hvae.build import build_hvae, build_objective
from hvae.checkpoints import latest_checkpoint, save_checkpoint
from hvae.config import ConfigError, RunConfig
from hvae.data import Dataset
from hvae.evidence import HVAE, Evidence
from hvae.health import Health
from hvae.interrupts import Interrupted, stop_requests
from hvae.nets import BatchNorm, estimate_constants
from hvae.runs import Run

ACTIVE_VARIANCE = 0.01
"""a unit is active if the variance of its mean over data exceeds this (Burda et al. 2016, section 5)"""


def train(run: Run, data: Dataset, *, device: str = "cpu", progress: bool = True) -> None:
    """Train the run to its last step, from its newest checkpoint if it has one.

    Leaves a final checkpoint that holds, with batch normalisation, the constants of one pass over
    the training data. Raises `ConfigError` for data that do not fit and `Interrupted` after a
    SIGINT or SIGTERM, once the step in hand is saved.
    """
    config = run.config
    steps, seeds = config.training, config.training.seeds
    if steps.batch_size > len(data.train):
        raise ConfigError(
            f"training.batch_size is {steps.batch_size}, but {data.name} has {len(data.train)} training images; "
            "give a smaller batch."
        )
    models = [build_hvae(config.model, data, seed=seed).to(device) for seed in seeds]
    template = copy.deepcopy(models[0]).to("meta")
    objective = build_objective(config.objective, models[0].latents)
    parameters, buffers = stack_module_state(models)
    averaged = {name: value.detach().clone() for name, value in parameters.items()}
    optimiser = torch.optim.Adam(list(parameters.values()), lr=steps.learning_rate(0), fused=True)
    health = Health(len(seeds), (*models[0].latents, "x"), tuple(parameters), device)
    first = 0
    found = latest_checkpoint(run, device)
    if found is not None:
        first, state = found
        for name, value in parameters.items():
            value.data.copy_(state["parameters"][name])
            averaged[name].copy_(state["averaged"][name])
        for name, value in buffers.items():
            value.copy_(state["buffers"][name])
        optimiser.load_state_dict(state["optimiser"])
        health.load(state["health"])
    if first >= steps.n_steps:
        return
    run.truncate_metrics(first)
    images = data.train.to(device)

    def step_loss(
        parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, noise: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        evidence = functional_call(template, (dict(parameters), dict(buffers)), (x, dict(noise)))
        return objective(evidence, step), summary(evidence, units=logging)

    with Board(run, seeds, first) as board, stop_requests() as stop, tqdm(
        total=steps.n_steps, initial=first, desc=run.label, unit="step", disable=None if progress else True
    ) as bar:
        for step in range(first, steps.n_steps):
            logging = (step + 1) % steps.log_every_steps == 0 or step + 1 == steps.n_steps
            x, noise = batch(images, config, models[0], step, dynamic=data.dynamic)
            loss, terms = vmap(step_loss, randomness="error")(parameters, buffers, x, noise)
            gradients = torch.autograd.grad(loss.sum(), list(parameters.values()))

            squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients])  # [parameter, R]
            loss = loss.detach()
            health.check(step, loss, terms, squares)
            scale = torch.ones_like(loss)
            if steps.clip_norm > 0:
                scale = (steps.clip_norm / squares.sum(0).sqrt()).clamp(max=1)
            for value, gradient in zip(parameters.values(), gradients, strict=True):
                per_replica = (-1,) + (1,) * (value.dim() - 1)
                clipped = gradient.contiguous() * scale.view(per_replica)  # fused Adam misreads other strides
                value.grad = torch.where(health.alive.view(per_replica), clipped, torch.zeros_like(clipped))
                moment = optimiser.state[value].get("exp_avg")
                if moment is not None:
                    moment.mul_(health.alive.view(per_replica))
            optimiser.param_groups[0]["lr"] = steps.learning_rate(step)
            optimiser.step()
            if steps.ema_decay > 0:
                latest = [value.detach() for value in parameters.values()]
                torch._foreach_lerp_(list(averaged.values()), latest, 1 - steps.ema_decay)

            if logging:
                row = record(step + 1, objective_beta(config, step), loss, terms)
                run.append_metrics([row])
                board.scalars(row)
                for message in health.news(seeds):
                    tqdm.write(message) if progress else None
                bar.update(step + 1 - bar.n)
                bar.set_postfix_str(f"ELBO {torch.nanmean(terms['bound_nats']).item():.2f} nats")
            last = step + 1 == steps.n_steps
            if last or stop.requested or (step + 1) % steps.checkpoint_every_steps == 0:
                if last:
                    weights = averaged if steps.ema_decay > 0 else parameters
                    settle(models, weights, buffers, images, config, data.dynamic)
                if steps.ema_decay == 0:
                    for name, value in parameters.items():
                        averaged[name].copy_(value.detach())
                save_checkpoint(
                    run,
                    step + 1,
                    {
                        "parameters": {name: value.detach() for name, value in parameters.items()},
                        "averaged": averaged,
                        "buffers": buffers,
                        "optimiser": optimiser.state_dict(),
                        "health": health.state(),
                    },
                )
                board.heat_map(step + 1)
                for replica, model in enumerate(models):
                    _load(model, parameters, buffers, replica)
                    pictures(board, model, replica, data, step + 1)
            if stop.requested and not last:
                raise Interrupted(f"{run.label} stopped after step {step + 1}; the same command goes on from there.")


def trained_models(run: Run, data: Dataset, device: str = "cpu") -> list[HVAE]:
    """The R models of the newest checkpoint, in evaluation mode (averaged weights if they were asked for)."""
    found = latest_checkpoint(run, device)
    if found is None:
        raise ConfigError(f"{run.path} has no checkpoint; train it first with `hvae train`.")
    _, state = found
    weights = state["averaged"] if run.config.training.ema_decay > 0 else state["parameters"]
    models = []
    for replica, seed in enumerate(run.config.training.seeds):
        model = build_hvae(run.config.model, data, seed=seed).to(device)
        _load(model, weights, state["buffers"], replica)
        models.append(model.eval())
    return models


def alive_replicas(run: Run) -> list[bool]:
    """Which replicas were finite to the end."""
    found = latest_checkpoint(run)
    return [] if found is None else [bool(alive) for alive in found[1]["health"]["alive"]]


def batch(
    images: Tensor, config: RunConfig, model: HVAE, step: int, *, dynamic: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minibatch ``[R, 1, B, D]`` and noise ``[R, K, B, ·]`` of a step, from each replica's own seed.

    An epoch is a random order of the data, cut into batches; what does not fill a batch waits for
    the next epoch's order. Dynamic binarisation draws each pixel anew at every presentation.
    """
    n_batch, device = config.training.batch_size, str(images.device)
    per_epoch = len(images) // n_batch
    epoch, position = divmod(step, per_epoch)
    xs, noises = [], []
    for seed in config.training.seeds:
        order = rng.permutation(len(images), seed=seed, purpose="order", step=epoch, device=device)
        x = images[order[position * n_batch : (position + 1) * n_batch]]
        if dynamic:
            source = rng.generator(seed, "binarise", step, device=device)
            x = (torch.rand(x.shape, generator=source, device=device) < x).to(x.dtype)
        xs.append(x.unsqueeze(0))
        noises.append(
            rng.noise(
                model.noise_specs(), config.objective.n_samples, n_batch,
                seed=seed, purpose="train", step=step, device=device,
            )
        )  # fmt: skip
    return torch.stack(xs), {name: torch.stack([noise[name] for noise in noises]) for name in noises[0]}


def summary(evidence: Evidence, *, units: bool) -> dict[str, Tensor]:
    """What is recorded of a batch, as tensors: means over samples and data, nats; with ``units`` also per unit."""
    terms = {"distortion_nats": evidence.distortion.mean()}
    for name in evidence.latents:
        terms[f"rate_nats/{name}"] = evidence.rate(name).mean()
    terms["bound_nats"] = -sum(terms.values(), start=torch.zeros_like(terms["distortion_nats"]))
    if units:
        for name in evidence.latents:
            site = evidence.q[name]
            mean = site.mean.expand(*site.value.shape)[0]
            terms[f"active_units/{name}"] = (mean.var(0) > ACTIVE_VARIANCE).sum()
            if site.family.factorised and evidence.p[name].family.factorised:
                terms[f"rate_unit_nats/{name}"] = evidence.unit_rate(name).mean((0, 1))
    return {name: term.detach() for name, term in terms.items()}


def pictures(board: Board, model: HVAE, replica: int, data: Dataset, step: int, n: int = 8) -> None:
    """Samples from the prior, test images and their reconstructions (means), on the board."""
    x = data.test[:n].to(next(model.parameters()).device)
    device = str(x.device)
    with torch.no_grad():
        drawn = rng.noise(model.decoder.noise_specs(), 1, n, seed=replica, purpose="pictures", device=device)
        samples = model.decoder.walk({}, drawn)["x"].mean[0]
        noise = rng.noise(model.noise_specs(), 1, len(x), seed=replica, purpose="pictures", step=1, device=device)
        reconstructions = model(x.unsqueeze(0), noise).p["x"].mean[0]
    board.images("samples from the prior", replica, samples, data.image_shape, step)
    board.images("test images", replica, x, data.image_shape, step)
    board.images("reconstructions", replica, reconstructions, data.image_shape, step)


def record(step: int, beta: float, loss: Tensor, terms: Mapping[str, Tensor]) -> dict[str, Any]:
    """One row of metrics: every entry but step and beta has the replica axis first."""
    row: dict[str, Any] = {"step": step, "beta": beta, "loss_nats": loss.tolist()}
    return row | {name: term.tolist() for name, term in terms.items()}


def objective_beta(config: RunConfig, step: int) -> float:
    """The weight of the rates at a step."""
    return config.objective.beta(step)


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
    per_epoch = max(1, len(images) // config.training.batch_size)
    for replica, model in enumerate(models):
        _load(model, weights, buffers, replica)

        def one_pass(model: HVAE = model, replica: int = replica) -> None:
            for step in range(config.training.n_steps, config.training.n_steps + per_epoch):
                x, noise = batch(images, config, model, step, dynamic=dynamic)
                model(x[replica], {name: value[replica] for name, value in noise.items()})

        estimate_constants(model, one_pass)
        for name, value in model.named_buffers():
            buffers[name][replica] = value


def _load(model: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], replica: int) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name][replica])
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name][replica])
