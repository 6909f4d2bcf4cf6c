"""Settings of the training."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

from hvae.lab.config.checks import MOST_ENTRIES, Between, Seed, Steps, Weight, check_numbers, require
from hvae.lab.config.objective import ObjectiveConfig
from hvae.schedules import Constant, Schedule

Precision = Literal["float32", "bfloat16"]


Rate = Annotated[Schedule, Between(0, 1e3)]
Norm = Annotated[float, Between(0, 1e12)]


@dataclass(frozen=True)
class Stage:
    """An objective from a step on. Its schedules count from that step; weights and Adam's moments go on."""

    from_step: Steps
    objective: ObjectiveConfig
    learning_rate: Rate


@dataclass(frozen=True)
class TrainingConfig:
    """How it is maximised. Every seed is one replica; all train at once."""

    seeds: tuple[Seed, ...] = (0, 1, 2, 3)
    """one replica per seed, all trained at once; a seed fixes initialisation, order of the data and noise"""
    n_steps: Steps = 1000
    """number of optimisation steps"""
    batch_size: Annotated[int, Between(1, 10**7)] = 128
    """images per step and replica"""
    learning_rate: Rate = field(default_factory=lambda: Constant(2e-3))
    """step size of Adam; with {"warmup_steps": 500, "stop": 2e-4} it rises from 0 to 2e-4 in 500 steps, and with
    {"n_steps": 5000, "peak": 1e-2, "warmup_steps": 100} it falls after that by a cosine"""
    adam_betas: tuple[Annotated[float, Between(0, 1)], ...] = (0.9, 0.999)
    """decay of Adam's two moments; [0.9, 0.9] forgets large gradients sooner"""
    adam_epsilon: Annotated[float, Between(1e-30, 1)] = 1e-8
    """what Adam adds to the root of the second moment"""
    weight_decay: Weight = 0.0
    """decay of all weights, decoupled from the gradient as in AdamW: a step takes the share learning rate x this"""
    then: tuple[Stage, ...] = ()
    """further stages, each with an objective and a learning rate from a step on; schedules count from that step. As in
    [{"from_step": 500, "objective": {"name": "iwae", "n_samples": 5}, "learning_rate": 1e-4}]"""
    clip_norm: Norm = 100.0
    """largest norm of a replica's gradient; 0 does not clip"""
    skip_norm: Norm = 0.0
    """norm of a replica's gradient above which it skips the step and stays as it was; 0 skips none"""
    checkpoint_gradients: bool = False
    """keep what enters the nets of a residual stack only, and compute the rest again in the backward pass: less memory,
    a longer step, the same gradient"""
    precision: Precision = "float32"
    """numbers in the nets of a residual stack while it trains. bfloat16: half the memory, for GPUs; weights,
    distributions, rates and log-weights stay float32. It trains on a CPU too, where it saves no time. Everything is
    evaluated in float32"""
    aggressive_steps: Annotated[int, Between(0, 10**9)] = 0
    """number of aggressive steps at the start: the encoder moves at each, the decoder at every
    `training.aggressive_every`-th. He et al. 2019 stop when the mutual information on a validation set falls; here the
    number is fixed"""
    aggressive_every: Annotated[int, Between(2, 10**9)] = 10
    """encoder steps per decoder step, in the aggressive steps"""
    aggressive_layers: tuple[Annotated[int, Between(1, MOST_ENTRIES)], ...] = ()
    """layers with an encoder that moves at every aggressive step, as in [4, 5]; the others move with the decoder; []
    takes all"""
    ema_decay: Annotated[float, Between(0, 1)] = 0.0
    """decay of the averaged weights that are evaluated; 0 evaluates the last weights"""
    log_every_steps: Steps = 25
    """steps between two rows of metrics"""
    checkpoint_every_steps: Steps = 500
    """steps between two checkpoints"""

    def __post_init__(self) -> None:
        check_numbers("training", self)
        for i, stage in enumerate(self.then):
            check_numbers(f"training.then[{i}]", stage)
        require(len(self.seeds) >= 1, "training.seeds is empty; give at least one seed, as in [0].")
        distinct = len(set(self.seeds)) == len(self.seeds)
        require(distinct, f"training.seeds {list(self.seeds)} repeats a seed; replicas must differ.")
        starts = [stage.from_step for stage in self.then]
        require(
            all(a < b for a, b in pairwise((0, *starts, self.n_steps))),
            f"training.then begins stages at {starts}; give rising steps between 0 and n_steps, {self.n_steps}.",
        )
        rates = {"": self.learning_rate} | {f"then[{i}].": stage.learning_rate for i, stage in enumerate(self.then)}
        for (where, schedule), (start, end) in zip(rates.items(), pairwise((0, *starts, self.n_steps)), strict=True):
            low, high = _range(schedule, end - start)
            require(low >= 0 < high, f"training.{where}learning_rate runs from {low} to {high}; give a positive rate.")
        require(
            len(self.adam_betas) == 2 and all(0 <= beta < 1 for beta in self.adam_betas),
            f"training.adam_betas is {list(self.adam_betas)}; give two numbers in [0, 1), as [0.9, 0.999].",
        )
        require(
            self.skip_norm == 0 or self.skip_norm >= self.clip_norm,
            f"training.skip_norm is {self.skip_norm} and training.clip_norm {self.clip_norm}, so a gradient that is "
            f"large enough to be clipped is skipped; give a skip_norm above {self.clip_norm}, or a smaller clip_norm.",
        )
        require(
            self.aggressive_steps > 0 or not self.aggressive_layers,
            f"training.aggressive_layers is {list(self.aggressive_layers)}, but training.aggressive_steps is 0; give "
            "the number of aggressive steps.",
        )
        require(
            self.ema_decay < 1,
            f"training.ema_decay is {self.ema_decay}; give less than 1.",
        )


def _range(schedule: Schedule, n_steps: int) -> tuple[float, float]:
    """Least and greatest value at a hundred of so many steps, the first and last among them."""
    values = [schedule(i * (n_steps - 1) // 99) for i in range(100)]
    return min(values), max(values)
