"""The stream of a training, and the door to it.

Draws are functions of (seed, step), so replica r of R equals the model that is trained alone, nothing random is stored,
and a training that goes on from its state gives the same numbers as one that never stopped.
"""

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hvae import rng
from hvae.errors import ConfigError
from hvae.evidence import HVAE
from hvae.families import Relaxation
from hvae.fitting.batches import Batches, Source
from hvae.fitting.checks import check_seeds, check_stages, check_state, check_trainable, check_update
from hvae.fitting.health import Health
from hvae.fitting.record import Also, Record, nothing_more
from hvae.fitting.replicas import Replicas
from hvae.fitting.stage import Stage
from hvae.fitting.step import Outcome, Step, in_training, one_by_one, relaxed, together
from hvae.fitting.update import Update
from hvae.nets import BatchNorm, estimate_constants
from hvae.objectives import Objective

UNKNOWN_PASS = 100
"""batches that stand for one pass over the data where nobody knows how many there are"""


def fit(
    models: HVAE | Sequence[HVAE],
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
    adam_epsilon: float = 1e-8,
    ema_decay: float = 0.0,
    also: Also = nothing_more,
    settling: Sequence[int] | None = None,
    state: Mapping[str, Any] | None = None,
) -> "Fit":
    """Train R models of one shape at once, without files: a stream that yields a `Record` after every step.

    Step t moves the weights of each replica r by Adam along the gradient of ``objective(batch_t, noise_{r,t})``, the
    mean over the data of the batch, nats per datum. Nothing trains before the stream is gone through. When it ends, or
    is left by ``break``, the models carry the trained weights; at its end they are in evaluation mode.

    - ``batches``: tensors ``[B, D]``, or ``[R, B, D]`` with data for each replica, in a list, a DataLoader (of a tuple
      the first entry is x) or an iterator without end; or a function from the step to one.
    - ``n_steps``: the step to train to, counted from the start; ``learning_rate``: a number, or a schedule of the step.
    - ``n_samples``: K, draws of q per datum; ``relaxation``: of discrete draws; ``then``: further `Stage`s.
    - ``seeds``: of the noise, one per model; 0, 1, … unless given.
    - ``trainable``: names of the weights that train, or a function from the step to them; all unless given.
      `HVAE.owners` tells which part of the model a weight belongs to.
    - ``clip_norm``: the largest norm of a replica's gradient; 0 does not clip. ``ema_decay``: of the averaged weights
      that the models are given in the end; 0 gives them the last ones.
    - ``also``: (evidence of one replica, step) -> further terms of the record.
    - ``settling``: steps of the batches that constants of `hvae.nets.BatchNorm` are made of in the end; one pass from
      ``n_steps`` on unless given.
    - ``state``: what `Fit.state` gave, to go on from there. The numbers are those of a training that never stopped
      where the batches are a function of the step, or a list.

    Replicas train together under `torch.func.vmap`. Where a net does not allow it, they train one after another, and a
    warning says why. A replica that is not finite any more is stopped at its last finite weights, the others go on, and
    a warning in the end names it.

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
    replicas = Replicas([models] if isinstance(models, nn.Module) else list(models))
    stages = check_stages((Stage(0, objective, learning_rate, n_samples, relaxation), *then), n_steps)
    seeds = check_seeds(range(len(replicas)) if seeds is None else seeds, len(replicas))
    check_update(clip_norm=clip_norm, adam_epsilon=adam_epsilon, ema_decay=ema_decay)
    first = replicas.models[0]
    update = Update(
        replicas.weights, (*first.latents, "x"), clip_norm=clip_norm, adam_epsilon=adam_epsilon, ema_decay=ema_decay
    )
    width = first.decoder.family("x").width
    found = Batches(batches, len(replicas), width, replicas.device, replicas.dtype)
    trained = check_trainable(frozenset(replicas.weights) if trainable is None else trainable, replicas.weights)
    if settling is None:
        settling = range(n_steps, n_steps + (found.n_batches or UNKNOWN_PASS))
    made = Fit(replicas, stages, found, seeds, update, trained, also, n_steps, settling)
    if state is not None:
        check_state(state, replicas)
        made.load(state)
    if made.step < n_steps:
        found.look(made.step)
    return made


class Fit:
    """R replicas in training, as `fit` makes them: going through it trains them.

    It may be left and gone through again: it goes on where it was left.

    >>> from hvae import Elbo, fit
    >>> from hvae.exact.known_stacks import linear_stack
    >>> def stack():
    ...     return linear_stack(1.0, "best", seed=0).model
    >>> def x(step):
    ...     return torch.randn(5, stack().decoder.family("x").width, generator=rng.generator(step, "example"))
    >>> training = fit(stack(), Elbo(), x, n_steps=4)
    >>> for record in training:
    ...     if record.step == 2:
    ...         break
    >>> training.step, training.one_by_one, training.health.alive.tolist()
    (2, '', [True])
    >>> resumed = list(fit(stack(), Elbo(), x, n_steps=4, state=training.state()))
    >>> all(torch.equal(a.bound_nats, b.bound_nats) for a, b in zip(training, resumed, strict=True))
    True
    """

    def __init__(
        self,
        replicas: Replicas,
        stages: Sequence[Stage],
        batches: Batches,
        seeds: Sequence[int],
        update: Update,
        trainable: Callable[[int], Collection[str]],
        also: Also,
        n_steps: int,
        settling: Sequence[int],
    ) -> None:
        self.step = 0
        """steps done"""
        self.n_steps, self.seeds = n_steps, tuple(seeds)
        self.one_by_one = ""
        """why the replicas train one after another, in a sentence; empty while they train together"""
        self._replicas, self._batches, self._update, self._trainable = replicas, batches, update, trainable
        self._also, self._settling, self._settled = also, settling, False
        self._stages = {stage.from_step: stage for stage in stages}
        self._steps = {stage.from_step: _step(replicas.models[0], stage) for stage in stages}
        self._each: dict[int, list[Step]] = {}
        self._mapped: set[int] = set()

    @property
    def models(self) -> list[HVAE]:
        """The models, with the weights that `put` gave them last."""
        return self._replicas.models

    @property
    def health(self) -> Health:
        """Which replicas are finite, and where the others were not."""
        return self._update.health

    def __iter__(self) -> Iterator[Record]:
        try:
            while self.step < self.n_steps:
                yield self._advance()
            self._finish()
        finally:
            self.put()

    def put(self) -> None:
        """Give the models the weights of this step, averaged ones if they were asked for."""
        self._replicas.put(self._update.averaged)

    def state(self) -> dict[str, Any]:
        """A copy of all that the next step rests on: numbers and tensors ``[R, ...]``, which `torch.save` writes.

        Draws are functions of seed and step, so no random state is in it.
        """
        found = self._update.state()
        buffers = {name: value.clone() for name, value in self._replicas.buffers.items()}
        return {"step": self.step, **found, "buffers": buffers}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._update.load(state)
        for name, value in self._replicas.buffers.items():
            value.copy_(state["buffers"][name])
        self.step = int(state["step"])
        self._settled = self.step >= self.n_steps

    def _advance(self) -> Record:
        step = self.step
        stage = self._stages[max(start for start in self._stages if start <= step)]
        x = self._batches(step)
        noise = self._noise(stage, x.shape[-2], step)
        loss, terms, gradients = self._outcome(stage, x, noise, step)
        rate = stage.rate(step)
        self._update(
            step, rate, loss.detach(), terms, _filled(gradients, self._replicas.weights), self._trainable(step)
        )
        self.step = step + 1
        return Record(self.step, loss.detach(), terms, self.health.alive, rate)

    def _noise(self, stage: Stage, n_data: int, step: int, *, latents_only: bool = False) -> dict[str, Tensor]:
        """``[R, K, B, ·]``, from each replica's own seed: for the objective, or for one visit of the latents."""
        model, device, dtype = self.models[0], str(self._replicas.device), self._replicas.dtype
        specs = model.noise_specs() if latents_only else stage.objective.noise_specs(model)
        drawn = [
            rng.noise(specs, stage.n_samples, n_data, seed=seed, purpose="train", step=step, device=device, dtype=dtype)
            for seed in self.seeds
        ]
        return {name: torch.stack([noise[name] for noise in drawn]) for name in drawn[0]}

    def _outcome(self, stage: Stage, x: Tensor, noise: Mapping[str, Tensor], step: int) -> Outcome:
        """Loss, terms and gradients; the first step of a stage finds out whether vmap allows them."""
        replicas, start = self._replicas, stage.from_step
        weights, inputs = replicas.weights, (x, noise, step - start, self._also, step)
        if start in self._mapped:
            return together(self._steps[start], weights, replicas.still, *inputs)
        refused = self.one_by_one
        if not refused:
            tried = {name: value.clone() for name, value in replicas.buffers.items()}  # a failure may leave traces
            try:
                outcome = together(self._steps[start], weights, tried | replicas.fixed, *inputs)
            except ConfigError:
                raise
            except Exception as error:  # vmap raises RuntimeError and ValueError, a net under it whatever it likes
                refused = str(error).strip().partition("\n")[0].partition(". ")[0][:200] or type(error).__name__
            else:
                for name, value in replicas.buffers.items():
                    value.copy_(tried[name])
                self._mapped.add(start)
                return outcome
        if start not in self._each:
            self._each[start] = [_step(model, stage) for model in self.models]
        outcome = one_by_one(
            self._each[start], weights, replicas.still, *inputs, self.seeds
        )  # raises what is no fault of vmap
        if not self.one_by_one:
            self.one_by_one = f"torch.func.vmap refuses the model ({refused})"
            if len(replicas) > 1:
                warnings.warn(
                    f"The replicas train one after another, as {self.one_by_one}; nets without .item(), draws of their "
                    "own, changes in place and control flow on values train together.",
                    stacklevel=4,
                )
        return outcome

    def _finish(self) -> None:
        """Constants of batch normalisation from one more pass over the data, evaluation mode, and who was stopped."""
        if not self._settled:
            self._settled = True
            if any(isinstance(module, BatchNorm) for model in self.models for module in model.modules()):
                self._settle()
        for model in self.models:
            model.eval()
        for sentence in self.health.news(self.seeds):
            warnings.warn(sentence, stacklevel=3)

    def _settle(self) -> None:
        self.put()
        last = self._stages[max(self._stages)]

        def one_pass() -> None:
            for step in self._settling:
                x = self._batches(step)
                noise = self._noise(last, x.shape[-2], step, latents_only=True)
                for replica, model in enumerate(self.models):
                    model(x[replica], {name: value[replica] for name, value in noise.items()})

        estimate_constants(nn.ModuleList(self.models), one_pass)
        self._replicas.take_buffers()


def _step(model: HVAE, stage: Stage) -> Step:
    """The model under the objective of ``stage``: itself, or a copy without weights where draws are relaxed."""
    if stage.relaxation is not None:
        model = relaxed(copy.deepcopy(model).to("meta").train(), stage.relaxation)
    with in_training(model):
        return Step(model, stage.objective)


def _filled(gradients: Sequence[Tensor | None], weights: Mapping[str, Tensor]) -> list[Tensor]:
    """0 for weights that the loss knows nothing of."""
    if all(gradient is None for gradient in gradients):
        raise ConfigError(
            "the loss depends on none of the models' weights; register the nets that the models use as their modules."
        )
    return [
        torch.zeros_like(weight) if gradient is None else gradient
        for gradient, weight in zip(gradients, weights.values(), strict=True)
    ]
