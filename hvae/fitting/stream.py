"""The stream of a training.

Draws are functions of (seed, step), so replica r of R equals the model that is trained alone, nothing random is stored,
and a training that goes on from its state gives the same numbers as one that never stopped.
"""

import copy
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hvae import rng
from hvae.errors import ConfigError, TrainingError
from hvae.evidence import HVAE
from hvae.families import DiagonalGaussian
from hvae.fitting.batches import Batches
from hvae.fitting.health import Health
from hvae.fitting.origin import origin
from hvae.fitting.record import Also, Record
from hvae.fitting.replicas import Replicas, put
from hvae.fitting.stage import Stage
from hvae.fitting.step import Outcome, Step, in_training, one_by_one, relaxed, together
from hvae.fitting.update import Update
from hvae.nets import BatchNorm, estimate_constants
from hvae.nets.frugal import recomputes

LAST_BATCHES = 8
"""batches that are kept, to say which numbers of x were large where all replicas stop"""
SEEN_EVERY = 100
"""steps after which an accelerator is waited for, to see whether a replica is left"""


class Fit:
    """R replicas in training, as `fit` makes them: going through it trains them.

    It may be left and gone through again: it goes on where it was left. Raises `TrainingError` once no replica is
    finite.

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
        self.columns: Sequence[str] = ()
        """names of the columns of x, for what is said of them"""
        self.one_by_one = _why_apart(replicas.models[0])
        """why several replicas train one after another, in a sentence; empty while they train together"""
        self._replicas, self._batches, self._update, self._trainable = replicas, batches, update, trainable
        self._also, self._settling, self._settled = also, settling, False
        self._stages = {stage.from_step: stage for stage in stages}
        self._steps = {stage.from_step: _step(replicas.models[0], stage) for stage in stages}
        self._each: dict[int, list[Step]] = {}
        self._ran: set[int] = set()
        self._last: deque[Tensor] = deque(maxlen=LAST_BATCHES)

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
                record = self._advance()
                yield record
                self._refuse_the_dead(record)
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
        stage = self._stage(step)
        x = self._batches(step)
        self._last.append(x)
        noise = self._noise(stage, x.shape[-2], step)
        loss, terms, gradients = self._outcome(stage, x, noise, step)
        rate = stage.rate(step)
        self._update(
            step, rate, loss.detach(), terms, _filled(gradients, self._replicas.weights), self._trainable(step)
        )
        self.step = step + 1
        if x.device.type == "cpu" and not self.health.alive.all():
            self._find_origins(x, noise)
        if self._update.skip_norm > 0:
            counts = {"skipped_steps": self.health.skipped, "skipped_in_a_row": self.health.skipped_in_a_row}
            terms = {**terms, **counts}
        return Record(self.step, loss.detach(), terms, self.health.alive, rate)

    def news(self, *, done: bool = False) -> list[str]:
        """What `Health.news` has to tell; waits for the device."""
        if self._last and not self.health.alive.all():
            x, step = self._last[-1], self.step - 1
            self._find_origins(x, self._noise(self._stage(step), x.shape[-2], step))
        return self.health.news(self.seeds, done=done)

    def _find_origins(self, x: Tensor, noise: Mapping[str, Tensor]) -> None:
        """Note where the numbers of stopped replicas went wrong: by a walk with the weights that they stopped at.

        On a CPU with the batch that stopped them; an accelerator is asked later, by the last batch.
        """
        for replica in (~self.health.alive).nonzero().flatten().tolist():
            if replica in self.health.origins or replica in self.health.reported:
                continue
            model, seed = self.models[replica], self.seeds[replica]
            put(model, self._update.latest, self._replicas.buffers, replica)
            own = {name: value[replica] for name, value in noise.items()}
            with rng.keyed(seed, "train/net", self.step - 1, device=x.device), in_training(model):
                self.health.origins[replica] = origin(model, x[replica], own)

    def _stage(self, step: int) -> Stage:
        return self._stages[max(start for start in self._stages if start <= step)]

    def _refuse_the_dead(self, record: Record) -> None:
        """Raise `TrainingError` where no replica is finite, at once; on an accelerator every `SEEN_EVERY` steps."""
        waits = record.alive.device.type != "cpu" and self.step % SEEN_EVERY and self.step < self.n_steps
        if not waits and not record.alive.any():
            self.news()  # which looks for origins
            raise TrainingError(self.health.obituary(self.seeds, self._seen(), self.columns))

    def _seen(self) -> Tensor:
        """The last batches ``[..., D]``, as the nets see them."""
        x, family = torch.cat([batch.flatten(0, -2) for batch in self._last]), self.models[0].decoder.family("x")
        if isinstance(family, DiagonalGaussian) and family.shift is not None and family.scale is not None:
            return (x - family.shift) / family.scale
        return x

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
        """Loss, terms and gradients: of several replicas together, until a step finds that vmap does not allow it."""
        inputs = (x, noise, step - stage.from_step, self._also, step)
        refused = ""
        if len(self._replicas) > 1 and not self.one_by_one:
            try:
                return self._together(stage, *inputs)
            except ConfigError:
                raise
            except Exception as error:  # vmap raises RuntimeError and ValueError, a net under it whatever it likes
                refused = str(error).strip().partition("\n")[0].partition(". ")[0][:200] or type(error).__name__
        if stage.from_step not in self._each:
            self._each[stage.from_step] = [_step(model, stage) for model in self.models]
        each, replicas = self._each[stage.from_step], self._replicas
        outcome = one_by_one(each, replicas.weights, replicas.still, *inputs, self.seeds)  # or the net's own error
        if refused:
            self.one_by_one = f"torch.func.vmap refuses the model ({refused})"
            if len(replicas) > 1:
                warnings.warn(
                    f"The replicas train one after another, as {self.one_by_one}; nets without .item(), draws of their "
                    "own, changes in place and control flow on values train together.",
                    stacklevel=4,
                )
        return outcome

    def _together(
        self, stage: Stage, x: Tensor, noise: Mapping[str, Tensor], since: int, also: Also, step: int
    ) -> Outcome:
        """The first step of a stage works on copies of the buffers: where it fails, it may have moved some of them."""
        replicas, step_of = self._replicas, self._steps[stage.from_step]
        inputs = (x, noise, since, also, step)
        if stage.from_step in self._ran:
            return together(step_of, replicas.weights, replicas.still, *inputs)
        tried = {name: value.clone() for name, value in replicas.buffers.items()}
        outcome = together(step_of, replicas.weights, tried | replicas.fixed, *inputs)
        for name, value in replicas.buffers.items():
            value.copy_(tried[name])
        self._ran.add(stage.from_step)
        return outcome

    def _finish(self) -> None:
        """Constants of batch normalisation from one more pass over the data, evaluation mode, and who was stopped."""
        if not self._settled:
            self._settled = True
            if any(isinstance(module, BatchNorm) for model in self.models for module in model.modules()):
                self._settle()
        for model in self.models:
            model.eval()
        for sentence in self.news(done=True):
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


def _why_apart(model: HVAE) -> str:
    """Why replicas of the model train one after another from the start; empty where they may train together."""
    if recomputes(model):
        return "nets are computed again in the backward pass, where torch.func.vmap is over"
    return "" if model.maps else "a hvae.Model is walked by its user's functions"


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
