"""`fit`: everything is checked, then there is a stream."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.families import Relaxation
from hvae.fitting.batches import Batches, Source, peeked
from hvae.fitting.checks import (
    check_given,
    check_seeds,
    check_stages,
    check_state,
    check_trainable,
    check_update,
    given_models,
    warn_of_schedules,
)
from hvae.fitting.record import Also, nothing_more
from hvae.fitting.replicas import Replicas
from hvae.fitting.stage import Stage
from hvae.fitting.stream import Fit
from hvae.fitting.update import Update
from hvae.foreign.model import Model
from hvae.foreign.training import Trainable
from hvae.nets.frugal import save_memory
from hvae.objectives import Objective

UNKNOWN_PASS = 100
"""batches that stand for one pass over the data where nobody knows how many there are"""


def fit(
    models: HVAE | Model | Sequence[HVAE | Model],
    objective: Objective,
    batches: Source,
    *,
    n_steps: int,
    learning_rate: float | Callable[[int], float] = 1e-3,
    n_samples: int = 1,
    relaxation: Relaxation | None = None,
    then: Sequence[Stage] = (),
    seeds: Sequence[int] | None = None,
    trainable: Collection[str] | Callable[[int], Collection[str]] | None = None,
    clip_norm: float = 0.0,
    skip_norm: float = 0.0,
    adam_betas: tuple[float, float] = (0.9, 0.999),
    adam_epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    ema_decay: float = 0.0,
    checkpoint_gradients: bool = False,
    precision: torch.dtype | None = None,
    also: Also = nothing_more,
    settling: Sequence[int] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Fit:
    """Train R models of one shape at once, without files: a stream that yields a `Record` after every step.

    ``models`` are `HVAE`, or a user's own `Model` with its ``module``, which trains one replica after another; the data
    of a batch then have the shape that its functions see.

    Step t moves the weights of each replica r by Adam along the gradient of ``objective(batch_t, noise_{r,t})``, the
    mean over the data of the batch, nats per datum. Nothing trains before the stream is gone through. When it ends, or
    is left by ``break``, the models carry the trained weights; at its end they are in evaluation mode.

    - ``batches``: tensors ``[B, D]``, or ``[R, B, D]`` with data for each replica, in a list, a DataLoader (of a tuple
      the first entry is x) or an iterator without end; or a function from the step to one.
    - ``n_steps``: the step to train to, counted from the start; ``learning_rate``: a number, or a schedule of the step.
    - ``n_samples``: K, draws of q per datum; ``relaxation``: of discrete draws; ``then``: later stages, of `Stage`.
    - ``seeds``: of the noise, one per model; 0, 1, … unless given.
    - ``trainable``: names of the weights that train, or a function from the step to them; all unless given.
      `HVAE.owners` tells which part of the model a weight belongs to.
    - ``clip_norm``: the largest norm of a replica's gradient; 0 does not clip. ``skip_norm``: the norm above which a
      replica skips the step, with its weights, moments and averages as they were; 0 skips none.
    - ``adam_betas``: decay of the two moments; ``weight_decay``: of all weights, decoupled as in AdamW; ``ema_decay``:
      of the averaged weights that the models are given in the end; 0 gives them the last ones.
    - ``checkpoint_gradients``: keep what enters the nets of a `ResidualDecoder` and its posterior, and compute the rest
      again in the backward pass; several replicas then train one after another. ``precision``: `torch.bfloat16` for
      these nets; weights, distributions and log-weights stay float32. Both only while training.
    - ``also``: (evidence of one replica, step) -> further terms of the record.
    - ``settling``: steps of the batches that constants of `hvae.nets.BatchNorm` are made of in the end; one pass from
      ``n_steps`` on unless given.
    - ``state``: what `Fit.state` gave, to go on from there. The numbers are those of a training that never stopped
      where the batches are a function of the step, or a list.

    Replicas train together under `torch.func.vmap`. Where a net does not allow it, they train one after another, and a
    warning says why. A replica that is not finite any more is stopped at its last finite weights, the others go on, and
    a warning in the end names it. Where none is left the stream raises `TrainingError`, with layers and the largest
    column of x. A beta or a learning rate that does not reach its end within ``n_steps`` is warned of.

    Raises `ConfigError` at once, with nothing trained, for input that does not fit, and `UnsuitedError` where the
    objective is biased for the models.

    >>> import hvae, torch
    >>> from torch import nn
    >>> def make(seed):
    ...     torch.manual_seed(seed)
    ...     prior = hvae.Conditional("z1", [], hvae.Root(torch.zeros(4), learned=False), hvae.DiagonalGaussian(2))
    ...     decoder = hvae.BeliefNetwork([prior, hvae.Conditional("x", ["z1"], nn.Linear(2, 6), hvae.Bernoulli(6))])
    ...     encoder = hvae.BeliefNetwork([hvae.Conditional("z1", ["x"], nn.Linear(6, 4), hvae.DiagonalGaussian(2))])
    ...     return hvae.HVAE(decoder, hvae.NetworkPosterior(encoder))
    >>> models = [make(seed) for seed in range(4)]
    >>> x = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).repeat(50, 1)
    >>> for record in hvae.fit(models, hvae.Elbo(), x.split(20), n_steps=60, learning_rate=0.05):
    ...     if record.step == 1:
    ...         first = record.bound_nats
    >>> record.bound_nats.shape, bool((record.bound_nats > first + 1).all()), list(record.rate_nats)
    (torch.Size([4]), True, ['z1'])
    """
    check_given(then=then, seeds=seeds, settling=settling, trainable=trainable, also=also, state=state)
    given = given_models(models)
    event: Sequence[int] = ()
    if given and all(isinstance(each, Model) for each in given):
        users = [each for each in given if isinstance(each, Model)]
        first_batch, batches = peeked(batches, users[0].module)
        walked = [Trainable.of_batch(each, first_batch) for each in users]
        replicas, event = Replicas(walked), walked[0].event
    else:
        replicas = Replicas(given)  # which refuses all else
    save_memory(replicas.models, recompute=checkpoint_gradients, precision=precision)
    stages = check_stages((Stage(0, objective, learning_rate, n_samples, relaxation), *then), n_steps)
    warn_of_schedules(stages, n_steps)
    seeds = check_seeds(range(len(replicas)) if seeds is None else seeds, len(replicas))
    adam: Any = {
        "clip_norm": clip_norm,
        "skip_norm": skip_norm,
        "adam_betas": adam_betas,
        "adam_epsilon": adam_epsilon,
        "weight_decay": weight_decay,
        "ema_decay": ema_decay,
    }
    check_update(**adam)
    first = replicas.models[0]
    variables, visited = (*first.latents, "x"), (*first.posterior.order, "x")
    update = Update(replicas.weights, variables, visited=visited, **adam)
    width = first.decoder.family("x").width
    found = Batches(batches, len(replicas), width, replicas.device, replicas.dtype, event)
    trained = check_trainable(frozenset(replicas.weights) if trainable is None else trainable, replicas.weights)
    if settling is None:
        settling = range(n_steps, n_steps + (found.n_batches or UNKNOWN_PASS))
    made = Fit(replicas, stages, found, seeds, update, trained, also, n_steps, settling)
    if state is not None:
        check_state(state, replicas)
        try:
            made.load(state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ConfigError(f"state lacks what Fit.state gives ({error}); give that.") from error
    if made.step < n_steps:
        found.look(made.step)
    return made
