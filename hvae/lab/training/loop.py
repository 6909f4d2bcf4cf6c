"""Training a run: the stream of `hvae.fit`, listened to by metrics, board, checkpoints and signals.

Minibatches and binarisation are functions of (seed, step), as the noise is. So replica r equals the model trained
alone, nothing random is stored, and a run that is killed and started again gives the same numbers bit for bit on the
same machine. Only logging waits for the device.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hvae import rng
from hvae.data import Dataset
from hvae.diagnosis.likelihood import bits_per_dim
from hvae.diagnosis.measured import Doubt
from hvae.diagnostics.units import active_on_batch
from hvae.errors import ConfigError
from hvae.evidence import HVAE, Evidence
from hvae.fitting import Fit, Health, Record, Stage, fit, put
from hvae.lab.assembly import build_hvae, build_objective, check_batch_size, precision, relaxation, trainable
from hvae.lab.config import RunConfig
from hvae.lab.config.observations import LEVELS
from hvae.lab.interrupts import Interrupted, stop_requests
from hvae.lab.runs.checkpoints import latest_checkpoint, save_checkpoint
from hvae.lab.runs.remarks import START, unlucky
from hvae.lab.runs.run import Run
from hvae.lab.training.board import Board, resolutions
from hvae.lab.training.halfway import N_BATCHES, half, measure_halfway
from hvae.vocabulary import ACTIVE_VARIANCE

KEPT = ("parameters", "averaged", "buffers", "optimiser", "health")
"""parts of a checkpoint"""


def train(run: Run, data: Dataset, *, device: str = "cpu", progress: bool = True) -> None:
    """Train the run to its last step, from its newest checkpoint if it has one.

    Leaves a final checkpoint that holds, with batch normalisation, the constants of one pass over
    the training data. Raises `ConfigError` for data that do not fit and `Interrupted` after a
    SIGINT, SIGTERM or SIGHUP, once the step in hand is saved.
    """
    steps = run.config.training
    check_batch_size(steps.batch_size, data)
    models = [build_hvae(run.config.model, data, seed=seed).to(device) for seed in steps.seeds]
    found = latest_checkpoint(run, device)
    first = 0 if found is None else found[0]
    if first >= steps.n_steps:
        return
    with stop_requests() as stop:
        state = None if found is None else {"step": first, **found[1]}
        training = training_of(run.config, models, data, device, state)
        training.columns = data.columns
        run.truncate_metrics(first)
        with (
            Board(run, steps.seeds, first, resolutions(models[0])) as board,
            tqdm(
                total=steps.n_steps, initial=first, desc=run.label, unit="step", disable=None if progress else True
            ) as bar,
        ):
            for record in training:
                if record.step == 1:
                    for doubt in keep_start(run, record):
                        tqdm.write(str(doubt), file=sys.stderr)
                if is_logged(run.config, record.step):
                    row = row_of(record, run.config, data.train.shape[1])
                    run.append_metrics([row])
                    board.scalars(row)
                    for message in training.news(done=record.step == steps.n_steps):
                        tqdm.write(message, file=sys.stderr)
                    bar.update(record.step - bar.n)
                    bar.set_postfix_str(progress_text(row))
                if record.step == half(run.config):
                    training.put()
                    images = data.train.to(device)
                    settling = [
                        batch(images, run.config, record.step + n, dynamic=data.dynamic) for n in range(N_BATCHES)
                    ]
                    alive = [bool(good) for good in record.alive.tolist()]
                    measure_halfway(run, training.models, alive, data, settling, device)
                if record.step == steps.n_steps:
                    continue  # it is saved below, once the constants of batch normalisation are there
                if stop.requested or record.step % steps.checkpoint_every_steps == 0:
                    save(run, training, board, data)
                if stop.requested:
                    raise Interrupted(
                        f"{run.label} stopped after step {record.step}; the same command goes on from there."
                    )
            save(run, training, board, data)


def keep_start(run: Run, record: Record) -> list[Doubt]:
    """Keep bound and rates of the first step; a doubt for every seed that began far off."""
    start = {"bound_nats": record.bound_nats, **{f"rate_nats/{name}": rate for name, rate in record.rate_nats.items()}}
    arrays = {key: term.cpu().numpy() for key, term in start.items()}
    run.save_arrays(START, arrays)
    return unlucky(arrays, run.config)


def training_of(
    config: RunConfig, models: Sequence[HVAE], data: Dataset, device: str, state: Mapping[str, Any] | None
) -> Fit:
    """The stream of a configuration's training."""
    steps, images = config.training, data.train.to(device)
    first, *then = (
        Stage(
            stage.from_step,
            build_objective(stage.objective, models[0].latents),
            stage.learning_rate,
            stage.objective.n_samples,
            relaxation(stage.objective),
        )
        for stage in config.stages
    )
    per_epoch = len(images) // steps.batch_size
    untouched = -(-steps.n_steps // per_epoch) * per_epoch  # the first step of the first epoch that is not trained on

    def also(evidence: Evidence, step: int) -> Mapping[str, Tensor]:
        return units(evidence) if is_logged(config, step + 1) else {}

    return fit(
        models,
        first.objective,
        lambda step: batch(images, config, step, dynamic=data.dynamic),
        n_steps=steps.n_steps,
        learning_rate=first.learning_rate,
        n_samples=first.n_samples,
        relaxation=first.relaxation,
        then=then,
        seeds=steps.seeds,
        trainable=trainable(steps, models[0]),
        clip_norm=steps.clip_norm,
        skip_norm=steps.skip_norm,
        adam_betas=(steps.adam_betas[0], steps.adam_betas[1]),
        adam_epsilon=steps.adam_epsilon,
        weight_decay=steps.weight_decay,
        ema_decay=steps.ema_decay,
        checkpoint_gradients=steps.checkpoint_gradients,
        precision=precision(steps),
        also=also,
        settling=range(untouched, untouched + per_epoch),
        state=state,
    )


def save(run: Run, training: Fit, board: Board, data: Dataset) -> None:
    """Write a checkpoint, and show what the models make of it."""
    state = training.state()
    save_checkpoint(run, training.step, {part: state[part] for part in KEPT})
    board.heat_map(training.step)
    training.put()
    for replica, (model, seed) in enumerate(zip(training.models, training.seeds, strict=True)):
        board.pictures(model, replica, seed, data, training.step)


def is_logged(config: RunConfig, step: int) -> bool:
    """Whether there is a row of metrics after so many steps."""
    return step % config.training.log_every_steps == 0 or step == config.training.n_steps


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
        put(model, weights, state["buffers"], replica)
    visited = (*models[0].posterior.order, "x")
    health = Health(len(seeds), (*models[0].latents, "x"), tuple(weights), device, visited=visited)
    health.load(state["health"])
    return Trained(step, models, health)


def batch(images: Tensor, config: RunConfig, step: int, *, dynamic: bool) -> Tensor:
    """The minibatch ``[R, B, D]`` of a step, from each replica's own seed.

    An epoch is a random order of the data, cut into batches. Images that do not fill a batch wait for
    the next epoch. Dynamic binarisation draws each pixel again every time an image is seen.
    """
    n_batch, device = config.training.batch_size, str(images.device)
    epoch, position = divmod(step, len(images) // n_batch)
    xs = []
    for seed in config.training.seeds:
        x = images[_order(len(images), seed, epoch, device)[position * n_batch : (position + 1) * n_batch]]
        if dynamic:
            source = rng.generator(seed, "binarise", step, device=device)
            x = (torch.rand(x.shape, generator=source, device=device) < x).to(x.dtype)
        xs.append(x)
    return torch.stack(xs)


@lru_cache(maxsize=64)
def _order(n: int, seed: int, epoch: int, device: str) -> Tensor:
    """The order of an epoch, kept for as many seeds as are likely to train at once."""
    return rng.permutation(n, seed=seed, purpose="order", step=epoch, device=device)


def units(evidence: Evidence) -> dict[str, Tensor]:
    """What a row of metrics also says of each latent: its active units and the rate of each unit, in nats."""
    terms = {}
    for name in evidence.latents:
        site = evidence.q[name]
        mean = site.mean.expand(*site.value.shape)[0]
        terms[f"active_units/{name}"] = (site.family.per_unit(mean.var(0)) > ACTIVE_VARIANCE).sum()
        if site.family.factorised and evidence.p[name].family.factorised:
            terms[f"rate_unit_nats/{name}"] = evidence.unit_rate(name).mean((0, 1))
    return terms | active_on_batch(evidence)


def progress_text(row: Mapping[str, Any]) -> str:
    """What a bar of progress says: the mean ELBO over replicas, also in bits per dimension where x has levels."""
    said = f"ELBO {_mean(row['bound_nats']):.2f} nats"
    return f"{said}, {_mean(row['bits_per_dim']):.3f} bits/dim" if "bits_per_dim" in row else said


def _mean(of_replicas: list[float]) -> float:
    """Over those that are finite."""
    finite = [value for value in of_replicas if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def row_of(record: Record, config: RunConfig, n_columns: int) -> dict[str, Any]:
    """One row of metrics: every entry but step and beta has the replica axis first.

    Where x has levels, the ELBO of the batch stands there in bits per dimension too.
    """
    stage = config.stage_at(record.step - 1)
    beta = stage.objective.beta(record.step - 1 - stage.from_step)
    row: dict[str, Any] = {"step": record.step, "beta": beta, "loss_nats": record.loss_nats.tolist()}
    row |= {name: term.tolist() for name, term in record.terms.items()}
    if config.model.observation in LEVELS:
        row["bits_per_dim"] = bits_per_dim(np.array(row["bound_nats"]), n_columns).tolist()
    return row
